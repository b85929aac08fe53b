"""Train a system: ``python train.py --help``."""

import sys

from mindspore_cvae.commands.train import train_main

if __name__ == "__main__":
    sys.exit(train_main())
