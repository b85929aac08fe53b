"""Sample, reconstruct, interpolate, encode, find neighbours: see ``python generate.py --help``."""

import sys

from mindspore_cvae.commands.generate import generate_main

if __name__ == "__main__":
    sys.exit(generate_main())
