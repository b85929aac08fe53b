"""Weights of PyTorch's layout, into a run and out of one: ``python convert.py --help``."""

import sys

from mindspore_cvae.convert import convert_main

if __name__ == "__main__":
    sys.exit(convert_main())
