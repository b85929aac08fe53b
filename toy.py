"""The synthetic clustering experiment: ``python toy.py --help``."""

import sys

from mindspore_cvae.toy import toy_main

if __name__ == "__main__":
    sys.exit(toy_main())
