"""A table or figure of the paper from its runs: ``python reproduce.py --help``."""

import sys

from mindspore_cvae.reproduce import reproduce_main

if __name__ == "__main__":
    sys.exit(reproduce_main())
