"""The command ``export``: a run's model as files for serving."""

from __future__ import annotations

from collections.abc import Sequence

from mindspore_cvae.commands.options import SettingsParser, add_run, add_settings, number, settings
from mindspore_cvae.devices import choosing
from mindspore_cvae.errors import CommandParser, InputError, run_command, typed
from mindspore_cvae.runs import folder as runs_folder
from mindspore_cvae.runs.outputs import check_folder

FORMATS = ("MINDIR",)


def export_main(argv: Sequence[str] | None = None) -> int:
    """The command ``export``.

    Args:
        argv: its arguments; None takes the process's.

    Returns:
        The exit code: 0 done, 2 bad input or configuration, 1 anything else.
    """
    return run_command(lambda: _export(argv))


def _parser() -> CommandParser:
    parser = SettingsParser(
        prog=typed("export"),
        description="Write a run's encoder, decoder and greedy decoding to RUN/export as MindIR, "
        "and its weights as safetensors.",
        allow_abbrev=False,
        usable_after_training=True,
    )
    add_run(parser)
    parser.add_argument("--file_format", choices=FORMATS, default="MINDIR", help="(MINDIR)")
    parser.add_argument(
        "--rows", type=number(1), default=1, metavar="N", help="sentences a call takes (1)"
    )
    parser.add_argument(
        "--max_words", type=number(1), metavar="N", help="longest sentence (data.max_words)"
    )
    parser.add_argument("--no_unk", action="store_true", help="greedy decoding gives no <unk>")
    add_settings(parser)
    return parser


def _export(argv: Sequence[str] | None) -> None:
    arguments = _parser().parse_args(argv)
    config = runs_folder.read_config(arguments.run, **settings(arguments))
    place = arguments.run / runs_folder.EXPORT
    for path in (place, arguments.run / runs_folder.CHECKPOINTS):
        if path.is_symlink():
            raise InputError(f"{path} is a link: a run's own files must lie in its folder")
    check_folder(place if place.is_dir() else arguments.run, "--run")

    choosing.apply_precision(config.precision)
    from mindspore_cvae.export.graphs import export_run
    from mindspore_cvae.runs.loading import load_run

    device = choosing.choose(config.device_target, config.device_id)
    run = load_run(arguments.run, arguments.checkpoint, config)
    folder, differences = export_run(run, arguments.rows, arguments.max_words, arguments.no_unk)
    for name, difference in differences.items():
        print(f"{name}: loaded back on {device}, largest difference {difference:.1e}")
    print(f"written to {folder}")
