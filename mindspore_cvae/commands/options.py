"""Options that commands share, and the types of their values."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mindspore_cvae.config.keys import OPTIONS, describe
from mindspore_cvae.errors import CommandParser

STANDARD_INPUT = "-"
"""The name of a file for what a pipe brings."""

LARGEST = 2**32 - 1
"""The largest seed, and the largest number of anything else that is counted."""


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Give a command the options that change settings; :func:`settings` reads them."""
    parser.add_argument(
        "--data_dir", metavar="PATH", help="folder or file of the corpus (data.dir)"
    )
    parser.add_argument("--device_id", type=int, metavar="N", help="number of the device")
    for name, key, meaning in (
        ("--device_target", "device_target", "(device_target)"),
        ("--precision", "precision", "of matrix products on the CPU"),
        ("--amp_level", "model.amp_level", "mixed precision (model.amp_level)"),
    ):
        choices = OPTIONS[key].choices
        option = parser.add_argument(name, metavar="|".join(choices), help=meaning)
        complete_by(option, lambda prefix, choices=choices, **context: choices)
    add_overrides(parser)


def add_system(parser: argparse.ArgumentParser) -> None:
    """Give a command ``--system``."""
    option = parser.add_argument("--system", metavar="NAME", help="row of the table of systems")
    complete_by(option, lambda **context: OPTIONS["system"].choices)


def add_run(parser: argparse.ArgumentParser) -> None:
    """Give a command ``--run`` and ``--checkpoint``, which of its checkpoints is read."""
    parser.add_argument("--run", type=Path, required=True, metavar="RUN", help="the run's folder")
    parser.add_argument(
        "--checkpoint", choices=("best", "best_valid", "last"), default="best", help="(best)"
    )


def complete_by(option: argparse.Action, values: Callable[..., Sequence[str]]) -> None:
    """Tell a shell what an option's value may be.

    Args:
        option: of a parser.
        values: from what argcomplete knows, the ``prefix`` that was typed and more, to values.
    """
    option.completer = values  # type: ignore[attr-defined]


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Give a command ``--set``; ``overrides`` of its arguments are what was set."""
    option = parser.add_argument(
        "--set",
        dest="overrides",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="settings, one or several; may be repeated, and the last value of a key wins",
    )
    complete_by(option, _completed_setting)


def _completed_setting(prefix: str, **context: object) -> list[str]:
    """Keys with their ``=``, then the values that can be listed."""
    key, equals, _ = prefix.partition("=")
    if not equals:
        return [f"{key}=" for key in OPTIONS]
    option = OPTIONS.get(key)
    values = () if option is None else (*option.choices, *option.words)
    return [f"{key}={value}" for value in values]


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


def has_no_input() -> bool:
    """Whether standard input is a person's, who was not asked for anything, or closed."""
    return sys.stdin is None or sys.stdin.isatty()


def number(least: int, most: int = LARGEST) -> Callable[[str], int]:
    """The type of an option that takes a whole number from ``least`` to ``most``."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a whole number from {least} to {most}"
            )
        return int(text)

    return parse
