"""Command toy: the synthetic clustering experiment, or a picture of several."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from mindspore_cvae.commands.options import number
from mindspore_cvae.errors import CommandParser, InputError, run_command, typed
from mindspore_cvae.runs.outputs import check_folder
from mindspore_cvae.toy.experiment import SNAPSHOTS, Experiment, choose_cpu, prepare, run
from mindspore_cvae.toy.pictures import draw
from mindspore_cvae.toy.systems import BETA, NOISES_PER_CATEGORY, TOY_SYSTEMS


def toy_main(argv: Sequence[str] | None = None) -> int:
    """The command ``toy``.

    Args:
        argv: its arguments; None takes the process's.

    Returns:
        The exit code: 0 done, 2 bad input, 1 anything else.
    """
    return run_command(lambda: _toy(argv))


def _weight(text: str) -> float:
    """A finite weight, 0 or more."""
    try:
        weight = float(text)
    except ValueError:
        weight = -1.0
    if not 0 <= weight < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number, 0 or more")
    return weight


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
        "--noises_per_category",
        type=number(1),
        metavar="N",
        help="rows of a batch that share one of its K categories, but for vae, whose rows draw "
        "their own; 256 / K gives the paper's batch (64, the released code's)",
    )
    parser.add_argument(
        "--beta",
        type=_weight,
        default=BETA,
        metavar="X",
        help="weight of the divergence (1)",
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
    noises = arguments.noises_per_category
    if noises and TOY_SYSTEMS[arguments.system].separate_draws:
        raise InputError(
            f"--noises_per_category {noises}: each row of a batch of {arguments.system} draws its "
            "own category; leave the option out, or choose another --system"
        )
    experiment = Experiment(
        arguments.system,
        arguments.categories,
        arguments.seed,
        arguments.iterations,
        arguments.stop_after_99,
        noises or NOISES_PER_CATEGORY,
        arguments.beta,
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
