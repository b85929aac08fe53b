"""Command toy: the synthetic clustering experiment, or a picture of several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mindspore_cvae.commands.options import number
from mindspore_cvae.errors import CommandParser, run_command, typed
from mindspore_cvae.runs.outputs import check_folder
from mindspore_cvae.toy.experiment import SNAPSHOTS, Experiment, choose_cpu, prepare, run
from mindspore_cvae.toy.pictures import draw
from mindspore_cvae.toy.systems import TOY_SYSTEMS


def toy_main(argv: Sequence[str] | None = None) -> int:
    """The command ``toy``.

    Args:
        argv: its arguments; None takes the process's.

    Returns:
        The exit code: 0 done, 2 bad input, 1 anything else.
    """
    return run_command(lambda: _toy(argv))


def _parser() -> CommandParser:
    parser = CommandParser(
        prog=typed("toy"),
        description="The synthetic clustering experiment (Section 4.4, Table 5).",
        allow_abbrev=False,
    )
    many = number(0)
    parser.add_argument(
        "--system", choices=tuple(TOY_SYSTEMS), default="cvae_plus", help="(cvae_plus)"
    )
    parser.add_argument(
        "--categories", type=number(2, 64), default=4, metavar="K", help="2 to 64 (4)"
    )
    parser.add_argument(
        "--iterations", type=many, default=SNAPSHOTS[-1], metavar="N", help="(80000)"
    )
    parser.add_argument("--seed", type=many, default=0, metavar="N", help="of everything (0)")
    parser.add_argument(
        "--stop_after_99",
        type=many,
        metavar="N",
        help="stop once separability has stayed above 99%% for N iterations (never)",
    )
    parser.add_argument(
        "--output_dir",
        type=Path,
        metavar="DIR",
        help="a run that lies there is continued (runs/toy-SYSTEM-K-SEED)",
    )
    parser.add_argument(
        "--figure",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="only draw: a .png to write, then folders of finished runs, one row of pictures each",
    )
    return parser


def _toy(argv: Sequence[str] | None) -> None:
    arguments = _parser().parse_args(argv)
    if arguments.figure:
        picture, *folders = arguments.figure
        draw(folders, picture)
        print(f"written to {picture}")
        return
    experiment = Experiment(
        arguments.system,
        arguments.categories,
        arguments.seed,
        arguments.iterations,
        arguments.stop_after_99,
    )
    name = f"toy-{experiment.system}-{experiment.categories}-{experiment.seed}"
    folder = arguments.output_dir or Path("runs", name)
    # Before MindSpore is loaded, for errors to be told at once.
    prepare(experiment, folder)
    check_folder(folder, "--output_dir")
    choose_cpu()
    result = run(experiment, folder)
    for key, value in result.items():
        if key != "curve":
            print(f"{key:28} {value}")
    print(f"written to {folder}")
