"""Command config: prints every key of a configuration with its default and meaning."""

from __future__ import annotations

from collections.abc import Sequence

from mindspore_cvae.config.keys import describe
from mindspore_cvae.errors import CommandParser, typed


def main(argv: Sequence[str] | None = None) -> None:
    """Print the keys."""
    CommandParser(
        prog=typed("config"), description="Every key: its default, valid values and meaning."
    ).parse_args(argv)
    print(describe())
