"""Command train: trains a system and keeps the run."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mindspore_cvae.commands.options import SettingsParser, add_settings, add_system, settings
from mindspore_cvae.common.progress import tell_loading
from mindspore_cvae.common.streams import forgiving
from mindspore_cvae.config import layers as configuration
from mindspore_cvae.config.keys import Config
from mindspore_cvae.devices import choosing
from mindspore_cvae.errors import CommandParser, InputError, run_command, typed
from mindspore_cvae.runs import events, modelarts
from mindspore_cvae.runs import folder as runs_folder
from mindspore_cvae.runs.folder import corpus_of_run

if TYPE_CHECKING:
    from mindspore_cvae.data.corpus import Corpus


SIGNAL_EXIT = 128
"""What is added to a signal's number when it ended training."""


def train_main(argv: Sequence[str] | None = None) -> int:
    """The command ``train``.

    Args:
        argv: its arguments; None takes the process's.

    Returns:
        The exit code: 0 done, 2 bad input or configuration, 143, 130 and 129 after SIGTERM, SIGINT
        and SIGHUP, 1 anything else.
    """
    return run_command(lambda: _train(argv))


def _train_parser() -> CommandParser:
    parser = SettingsParser(
        prog=typed("train"),
        description="Train a system; without options, the quickstart on the embedded corpus.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", metavar="YAML", help="a file, or the name of a shipped one (quickstart)"
    )
    add_system(parser)
    parser.add_argument("--seed", type=int, metavar="N", help="key of all randomness (0)")
    parser.add_argument(
        "--output_dir", metavar="RUN", help="the run's folder (runs/<config>-<system>-<seed>)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the run from its latest good checkpoint"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="delete the run that lies there and start anew"
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="resume even if configuration, vocabulary or data are not those of the checkpoint",
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="write MindSpore's profile of ten steps, after the first twenty, into RUN/profile",
    )
    modelarts.add_urls(parser)
    add_settings(parser)
    return parser


def _train(argv: Sequence[str] | None) -> int:
    arguments = _train_parser().parse_args(argv)
    with forgiving(), modelarts.job(arguments):
        return _run_training(arguments)


def _run_training(arguments: argparse.Namespace) -> int:
    config, folder = _training_config(arguments)
    if config.train.tensorboard:
        events.require()
    if not choosing.is_rank():
        # Of several processes, only the one that will write may judge the folder.
        runs_folder.check(folder, arguments.resume, arguments.overwrite)
    corpus = corpus_of_run(config, folder if arguments.resume else None)
    for line in _summary(corpus):
        print(line)

    tell_loading()
    choosing.apply_precision(config.precision)
    from mindspore_cvae.training.trainer import train

    device = choosing.choose(config.device_target, config.device_id)
    print(f"system {config.system}, device {device}, run {folder}", flush=True)
    reason = train(
        config,
        folder,
        arguments.resume,
        arguments.overwrite,
        corpus=corpus,
        force=arguments.force,
        profile=arguments.profile,
    )
    print(f"training ended ({reason}): {folder}")
    is_signal = reason in signal.Signals.__members__
    if config.train.report and not is_signal:
        from mindspore_cvae.devices.parallel import is_first
        from mindspore_cvae.report.sections import write_report_or_warn

        if is_first():
            write_report_or_warn(folder)
    return SIGNAL_EXIT + signal.Signals[reason] if is_signal else 0


def _training_config(arguments: argparse.Namespace) -> tuple[Config, Path]:
    """The merged configuration and the run's folder.

    A run that is resumed without ``--config`` starts from its own configuration. Either way, what
    decides what a step computes must be as it was.
    """
    options = {**settings(arguments), "system": arguments.system, "seed": arguments.seed}
    config = None
    if arguments.output_dir:
        folder = Path(arguments.output_dir)
    else:
        config = configuration.load(arguments.config, **options)
        name = configuration.find(arguments.config).stem
        folder = Path("runs", f"{name}-{config.system}-{config.seed}")
    is_resumed = arguments.resume and runs_folder.is_run(folder)
    is_named = arguments.config or arguments.system or arguments.overrides or arguments.data_dir
    if arguments.resume and arguments.output_dir and not (is_resumed or is_named):
        raise InputError(
            f"{folder} holds no run, so there is nothing to resume (a new run is begun without "
            "--resume, or with --config)"
        )
    # Read once: a pipe has nothing left for a second time.
    if config is None and not (is_resumed and arguments.config is None):
        config = configuration.load(arguments.config, **options)
    if not is_resumed:
        assert config is not None
        return config, folder

    given = None if arguments.config is None else config
    return runs_folder.resumed_config(folder, given, arguments.force, **options), folder


def _summary(corpus: Corpus) -> list[str]:
    """What a user should know of a corpus that was read."""
    lines = list(corpus.messages)
    for split in corpus.splits:
        counts = ", ".join(
            f"{count} {what}" for what, count in split.counts.items() if count and what != "read"
        )
        rest = f" ({counts})" if counts else ""
        lines.append(f"{split.name}: {len(split)} sentences, {split.tokens} tokens{rest}")
    return lines
