"""Sample, reconstruct, interpolate, encode, find neighbours: see ``python generate.py --help``."""

import sys

from mindspore_cvae.commands.program import main

if __name__ == "__main__":
    sys.exit(main(command="generate"))
