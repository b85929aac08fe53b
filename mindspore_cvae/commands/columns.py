"""Command columns: prints what every column of the tables means and bounds."""

from __future__ import annotations

from collections.abc import Sequence

from mindspore_cvae.errors import CommandParser, typed
from mindspore_cvae.evaluation.columns import markdown


def main(argv: Sequence[str] | None = None) -> None:
    """Print the columns as Markdown."""
    CommandParser(
        prog=typed("columns"), description="Every column: what it means and what it bounds."
    ).parse_args(argv)
    print(markdown(), end="")
