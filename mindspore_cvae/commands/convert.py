"""Command convert: weights of PyTorch's layout, into a run and out of one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mindspore_cvae.commands.options import (
    SettingsParser,
    add_run,
    add_settings,
    add_system,
    settings,
)
from mindspore_cvae.config import layers as configuration
from mindspore_cvae.data.vocabulary import Vocabulary
from mindspore_cvae.devices import choosing
from mindspore_cvae.errors import CommandParser, InputError, run_command, typed, warn_user
from mindspore_cvae.export.state_dicts import SUFFIXES, into_run, run_state_dict, write_state_dict
from mindspore_cvae.runs import folder
from mindspore_cvae.runs.outputs import check_output, write_output


def convert_main(argv: Sequence[str] | None = None) -> int:
    """The command ``convert``.

    Args:
        argv: its arguments; None takes the process's.

    Returns:
        The exit code: 0 done, 2 bad input or configuration, 1 anything else.
    """
    return run_command(lambda: _convert(argv))


def _parser() -> CommandParser:
    parser = CommandParser(
        prog=typed("convert"),
        description="Weights in the layout of PyTorch's state dicts, into a run and out of one.",
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(
        dest="action", required=True, metavar="ACTION", parser_class=SettingsParser
    )
    text = "Write a run's weights as .npz or .safetensors."
    out = actions.add_parser(
        "from_run",
        help=text,
        description=text,
        allow_abbrev=False,
        usable_after_training=True,
    )
    add_run(out)
    out.add_argument("--output", type=Path, required=True, metavar="FILE", help="where to write")
    add_settings(out)

    text = "Make a run of weights that lie in an .npz or .safetensors file."
    into = actions.add_parser("to_run", help=text, description=text, allow_abbrev=False)
    into.add_argument("--state", type=Path, required=True, metavar="FILE", help="the weights")
    into.add_argument(
        "--vocabulary", required=True, metavar="FILE", help="one word a line, in the rows' order"
    )
    into.add_argument("--output_dir", type=Path, required=True, metavar="RUN", help="a new folder")
    into.add_argument(
        "--config", metavar="YAML", help="a file, or the name of a shipped one (quickstart)"
    )
    add_system(into)
    into.add_argument("--seed", type=int, metavar="N", help="of further training (0)")
    add_settings(into)
    return parser


def _convert(argv: Sequence[str] | None) -> None:
    arguments = _parser().parse_args(argv)
    {"from_run": _from_run, "to_run": _to_run}[arguments.action](arguments)


def _from_run(arguments: argparse.Namespace) -> None:
    config = folder.read_config(arguments.run, **settings(arguments))
    if arguments.output.suffix not in SUFFIXES:
        raise InputError(f"{arguments.output}: --output must end with {' or '.join(SUFFIXES)}")
    check_output(arguments.output)
    choosing.apply_precision(config.precision)
    choosing.choose(config.device_target, config.device_id)
    state = run_state_dict(arguments.run, arguments.checkpoint, config)
    write_state_dict(arguments.output, state, write_output)
    print(f"{len(state)} arrays written to {arguments.output}")


def _to_run(arguments: argparse.Namespace) -> None:
    config = configuration.load(
        arguments.config,
        **settings(arguments),
        system=arguments.system,
        seed=arguments.seed,
    )
    folder.check(arguments.output_dir)
    vocabulary = Vocabulary.load(arguments.vocabulary, config.data.unit)
    choosing.apply_precision(config.precision)
    choosing.choose(config.device_target, config.device_id)
    is_whole = into_run(arguments.state, vocabulary, config, arguments.output_dir)
    if not is_whole:
        warn_user(
            f"{arguments.state} holds no critics: they are as new, and metrics that need them mean "
            "nothing before training"
        )
    print(f"run {arguments.output_dir}: step 0")
