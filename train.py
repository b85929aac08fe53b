"""Train a system: ``python train.py --help``."""

import sys

from mindspore_cvae.commands.program import main

if __name__ == "__main__":
    sys.exit(main(command="train"))
