"""Command systems: prints every slot of every row of the table of systems."""

from __future__ import annotations

from collections.abc import Sequence

from mindspore_cvae.errors import CommandParser, typed
from mindspore_cvae.systems import table


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    CommandParser(prog=typed("systems"), description="Every slot of every system.").parse_args(argv)
    print(table())
