"""Command reproduce: the paper's tables and figures from their runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mindspore_cvae.commands.options import add_overrides, number
from mindspore_cvae.errors import CommandParser, InputError, run_command, typed
from mindspore_cvae.reproduction.collecting import collect
from mindspore_cvae.reproduction.paper import (
    EXHIBITS,
    TOY_ITERATIONS,
)
from mindspore_cvae.reproduction.running import (
    IW_SAMPLES,
    TOY_TABLE,
    common_settings,
    dry_run,
    plan,
    work,
    write_results,
)
from mindspore_cvae.reproduction.stages import KINDS


def reproduce_main(argv: Sequence[str] | None = None) -> int:
    """The command.

    Args:
        argv: its arguments; None takes the process's.

    Returns:
        The exit code: 0 done, or stopped by the budget; 2 bad input; 1 where a stage failed.
    """
    return run_command(lambda: _reproduce(argv))


def _parser() -> CommandParser:
    parser = CommandParser(
        prog=typed("reproduce"),
        description="Train, evaluate and tabulate what a table or figure of the paper shows.",
        allow_abbrev=False,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--table", type=int, choices=range(1, 8), metavar="N", help="1 to 7")
    what.add_argument("--figure", type=int, choices=(3, 4), metavar="N", help="3 or 4")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--collect", action="store_true", help="only gather what is finished")
    how.add_argument("--dry_run", action="store_true", help="only say what would be done")
    parser.add_argument("--systems", nargs="+", metavar="NAME", help="only these rows' systems")
    parser.add_argument("--seeds", nargs="+", type=number(0), default=[0], metavar="N", help="(0)")
    parser.add_argument(
        "--budget", type=float, metavar="MINUTES", help="stop cleanly after so long (no limit)"
    )
    parser.add_argument(
        "--data_dir",
        metavar="PATH",
        help="the corpus; for Table 2 the folder that holds yahoo and yelp (data/...)",
    )
    parser.add_argument(
        "--config",
        metavar="YAML",
        help="train this instead of the data set's own configuration (quickstart: the embedded "
        "corpus)",
    )
    parser.add_argument(
        "--output_dir",
        type=Path,
        default=Path("runs", "reproduce"),
        metavar="DIR",
        help="where the runs and the results lie (runs/reproduce)",
    )
    parser.add_argument(
        "--iw_samples",
        type=int,
        default=IW_SAMPLES,
        metavar="K",
        help=f"draws of the importance-weighted bound; 0 leaves it out ({IW_SAMPLES})",
    )
    parser.add_argument(
        "--generated", type=int, metavar="N", help="Table 4: sentences (the protocols')"
    )
    parser.add_argument(
        "--iterations",
        type=int,
        default=TOY_ITERATIONS,
        metavar="N",
        help=f"Table 5: of the toy ({TOY_ITERATIONS})",
    )
    add_overrides(parser)
    return parser


def _check(options: argparse.Namespace) -> None:
    """Refuse numbers that no run can have."""
    bounds = (("budget", 0), ("iw_samples", 0), ("generated", 1), ("iterations", 1))
    for name, lowest in bounds:
        value = getattr(options, name)
        if value is not None and not value >= lowest:
            raise InputError(f"--{name} must be {lowest} or more, not {value}")
    if len(set(options.seeds)) < len(options.seeds):
        raise InputError("--seeds must be different numbers")
    if options.table == TOY_TABLE and (options.config or options.data_dir or options.overrides):
        raise InputError(
            f"--table {TOY_TABLE} is the toy, which has no --config, --data_dir or --set; "
            "--iterations is its length"
        )


def _reproduce(argv: Sequence[str] | None) -> int:
    options = _parser().parse_args(argv)
    _check(options)
    exhibit = EXHIBITS[f"table-{options.table}" if options.table else f"figure-{options.figure}"]
    jobs = plan(exhibit, options)
    if not options.collect:
        # Hours of training should not end at a missing program.
        KINDS[exhibit.kind].require()
    if options.dry_run:
        print("\n".join(dry_run(exhibit, jobs, options)))
        return 0
    reasons: dict[str, str] = {}
    if not options.collect:
        work(exhibit, jobs, options, reasons)
    document = collect(exhibit, jobs, common_settings(exhibit, jobs, options))
    told = {line.partition(":")[0]: line for line in document["unfinished"]}
    told |= {name: f"{told.get(name, name + ':')} ({reason})" for name, reason in reasons.items()}
    document["unfinished"] = list(told.values())
    for path in write_results(document, exhibit, jobs, options.output_dir):
        print(f"written to {path}")
    for line in document["unfinished"]:
        print(f"not finished: {line}")
    return int(any("failed" in reason for reason in reasons.values()))
