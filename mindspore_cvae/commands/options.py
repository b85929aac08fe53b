"""Options that commands share, and the types of their values."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from mindspore_cvae.config.keys import describe
from mindspore_cvae.errors import CommandParser

LARGEST = 2**32 - 1
"""The largest seed, and the largest number of anything else that is counted."""


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Give a command the options that change settings; :func:`settings` reads them."""
    parser.add_argument(
        "--data_dir", metavar="PATH", help="folder or file of the corpus (data.dir)"
    )
    parser.add_argument("--device_target", metavar="auto|CPU|GPU|Ascend", help="(device_target)")
    parser.add_argument("--device_id", type=int, metavar="N", help="number of the device")
    parser.add_argument("--precision", metavar="strict|fast", help="of matrix products on the CPU")
    parser.add_argument("--amp_level", metavar="O0|O2", help="mixed precision (model.amp_level)")
    add_overrides(parser)


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Give a command ``--set``; ``overrides`` of its arguments are what was set."""
    parser.add_argument(
        "--set",
        dest="overrides",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="settings, one or several; may be repeated, and the last value of a key wins",
    )


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of :func:`add_settings` as :func:`config.layers.load` takes them."""
    return {
        "overrides": arguments.overrides,
        "data_dir": arguments.data_dir,
        "device_target": arguments.device_target,
        "device_id": arguments.device_id,
        "precision": arguments.precision,
        "amp_level": arguments.amp_level,
    }


class SettingsParser(CommandParser):
    """A parser whose help ends with the keys of ``--set``, which take a moment to describe.

    Args:
        usable_after_training: only those that a trained model leaves open.
    """

    def __init__(self, *arguments, usable_after_training: bool = False, **options):
        super().__init__(*arguments, **options)
        self.usable_after_training = usable_after_training

    def format_help(self) -> str:
        """argparse's help, then the keys."""
        keys = describe(self.usable_after_training)
        return f"{super().format_help()}\nkeys of --set:\n{keys}\n"


def number(least: int, most: int = LARGEST) -> Callable[[str], int]:
    """The type of an option that takes a whole number from ``least`` to ``most``."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a whole number from {least} to {most}"
            )
        return int(text)

    return parse
