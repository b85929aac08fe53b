"""Command config: prints every key of a configuration with its default and meaning."""

from __future__ import annotations

import json
from collections.abc import Sequence

from mindspore_cvae.config.keys import describe
from mindspore_cvae.config.schema import schema
from mindspore_cvae.errors import CommandParser, typed


def main(argv: Sequence[str] | None = None) -> None:
    """Print the keys, or the schema of a file of them."""
    parser = CommandParser(
        prog=typed("config"), description="Every key: its default, valid values and meaning."
    )
    parser.add_argument(
        "--schema",
        action="store_true",
        help="a JSON Schema of configuration files instead, for editors that complete and check",
    )
    is_schema = parser.parse_args(argv).schema
    print(json.dumps(schema(), indent=2) if is_schema else describe())
