"""Command ranks: starts the processes of a data-parallel run."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from mindspore_cvae.devices.ranks import (
    MSRUN_OPTIONS,
    Follower,
    environment_number,
    failure,
    msrun_process,
    msrun_workers,
    rank_table_processes,
    supervise,
)
from mindspore_cvae.errors import CommandParser, InputError, TrainingError, typed


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 0, or 128 and the number of the signal that ended the job.

    Raises:
        InputError: RANK_TABLE_FILE is no file, or the logs' folder cannot be made.
        TrainingError: A process failed.
    """
    parser = CommandParser(
        prog=typed("ranks"),
        description="Start the processes of a data-parallel run.",
        allow_abbrev=False,
    )
    parser.add_argument("--processes", type=int, required=True, metavar="N", help="of this host")
    parser.add_argument("--log_dir", type=Path, required=True, metavar="DIR", help="for their logs")
    for name, text in MSRUN_OPTIONS.items():
        parser.add_argument(f"--{name}", metavar="VALUE", help=f"of msrun: {text}")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="script and its arguments")
    arguments = parser.parse_args(argv)
    count, log_dir, environment = arguments.processes, arguments.log_dir, dict(os.environ)
    if count < 1 or not arguments.command:
        raise InputError("give --processes of 1 or more, and the script to start")
    try:
        log_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--log_dir {log_dir}: {error.strerror}") from error

    given = {name: getattr(arguments, name) for name in MSRUN_OPTIONS}
    own = {name: value for name, value in given.items() if value is not None}
    table = environment.get("RANK_TABLE_FILE")
    if table:
        if own:
            raise InputError(f"--{min(own)} is msrun's, which RANK_TABLE_FILE does without")
        if not Path(table).is_file():
            raise InputError(f"RANK_TABLE_FILE names no file: {table}")
        processes = rank_table_processes(arguments.command, count, log_dir, environment)
        first = environment_number(environment, "RANK_START")

        def ranks() -> list[subprocess.Popen] | list[psutil.Process]:
            return [process for process in processes if process.poll() is None]
    else:
        first = count * environment_number(environment, "NODE_RANK")
        processes = [msrun_process(arguments.command, count, log_dir, environment, own)]

        def ranks() -> list[subprocess.Popen] | list[psutil.Process]:
            return msrun_workers(processes[0])

    show = Follower(log_dir / f"worker_{first}.log", sys.stdout.buffer)
    status, stopped_by = supervise(processes, ranks, show)
    if stopped_by is not None:
        return 128 + stopped_by
    if status:
        raise TrainingError(failure(log_dir, status))
    return 0
