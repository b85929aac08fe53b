"""``python -m mindspore_cvae COMMAND``: the one program; see :mod:`commands.program`."""

import sys

from mindspore_cvae.commands.program import main

if __name__ == "__main__":
    sys.exit(main())
