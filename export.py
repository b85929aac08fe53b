"""Write a run's model for serving: ``python export.py --help``."""

import sys

from mindspore_cvae.commands.export import export_main

if __name__ == "__main__":
    sys.exit(export_main())
