"""Evaluate a run: ``python eval.py --help``."""

import sys

from mindspore_cvae.commands.evaluate import eval_main

if __name__ == "__main__":
    sys.exit(eval_main())
