"""Starts the processes of a data-parallel run, passes signals on, and says which process failed.

MindSpore's msrun does the starting. By itself it kills the processes when it is interrupted, leaves
them alone when it is terminated, and shows a failure among all their logs; here SIGTERM and SIGINT
let every rank save and end, and a failure is one line.

``python -m mindspore_cvae ranks --processes 2 --log_dir logs/ptb train.py --config ...``
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import psutil

from mindspore_cvae.errors import InputError

POLL_SECONDS = 0.2

MSRUN_OPTIONS = {
    "bind_core": "bind processes to cores: True, or JSON of cores by device",
    "bind_numa": "bind processes to NUMA nodes: True, or JSON of nodes by device",
    "cluster_time_out": "seconds that processes wait for each other at the start (600)",
}
"""Options of msrun's own that are passed on, and what each says; it checks their values."""


def environment_number(environment: Mapping[str, str], name: str) -> int:
    """A number of the environment; 0 where it is not set."""
    text = environment.get(name, "0")
    if not text.isdecimal():
        raise InputError(f"{name} must be a whole number, not {text!r}")
    return int(text)


def rank_table_processes(
    command: Sequence[str], count: int, log_dir: Path, environment: Mapping[str, str]
) -> list[subprocess.Popen]:
    """Start one process a device, as old Ascend clusters want it: RANK_TABLE_FILE names them all.

    Args:
        command: Python script and its arguments.
        count: processes of this host; they take the devices 0 to count - 1.
        log_dir: gets worker_<rank>.log.
        environment: RANK_START is the first rank of this host (0), WORLD_SIZE the number of all
            ranks (count).
    """
    first = environment_number(environment, "RANK_START")
    size = environment.get("WORLD_SIZE", str(count))
    processes = []
    for device in range(count):
        rank = first + device
        places = {"RANK_SIZE": size, "RANK_ID": str(rank), "DEVICE_ID": str(device)}
        with open(log_dir / f"worker_{rank}.log", "wb") as log:
            processes.append(
                subprocess.Popen(
                    [sys.executable, *command],
                    env={**environment, **places},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )
    return processes


def msrun_process(
    command: Sequence[str],
    count: int,
    log_dir: Path,
    environment: Mapping[str, str],
    own: Mapping[str, object] | None = None,
) -> subprocess.Popen:
    """Start msrun in a session of its own, where the terminal's signals do not reach it.

    Args:
        command, count: as for :func:`rank_table_processes`.
        log_dir: gets worker_<rank>.log, scheduler.log and msrun.log.
        environment: WORLD_SIZE is the number of all processes (count), NODE_RANK this host's number
            (none), MASTER_ADDR and MASTER_PORT the scheduler's (127.0.0.1 and a free one).
        own: further options of msrun, by name, of :data:`MSRUN_OPTIONS`.
    """
    # msrun runs whatever is called python.
    programs = log_dir.resolve() / "bin"
    programs.mkdir(exist_ok=True)
    python = programs / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    options = {
        "worker_num": environment.get("WORLD_SIZE", count),
        "local_worker_num": count,
        "node_rank": environment.get("NODE_RANK", -1),
        "master_addr": environment.get("MASTER_ADDR", "127.0.0.1"),
        "master_port": _port(environment),
        "log_dir": log_dir.resolve(),
        "join": True,
        # The number of no worker: what a log holds is shown here.
        "tail_worker_log": count,
        **(own or {}),
    }
    with open(log_dir / "msrun.log", "wb") as log:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "mindspore.parallel.cluster.run",
                *(f"--{name}={value}" for name, value in options.items()),
                *command,
            ],
            env={**environment, "PATH": f"{programs}{os.pathsep}{environment.get('PATH', '')}"},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _port(environment: Mapping[str, str]) -> int:
    """The scheduler's port: the environment's, or a free one.

    Raises:
        InputError: It is no port, or somebody listens there where the scheduler is to run: msrun
            would wait in silence.
    """
    if not environment.get("MASTER_PORT"):
        return _free_port()
    number = environment_number(environment, "MASTER_PORT")
    if not 0 < number < 1 << 16:
        raise InputError(f"MASTER_PORT must be a port, 1 to 65535, not {number}")
    if environment.get("NODE_RANK", "0") == "0":
        with socket.socket() as listener:
            # As servers do: what was closed a moment ago does not count.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("", number))
            except OSError as error:
                raise InputError(
                    f"MASTER_PORT={number} cannot be used ({error.strerror}): name a free port, or "
                    "leave it out where all processes run on this host"
                ) from None
    return number


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def msrun_workers(msrun: subprocess.Popen) -> list[psutil.Process]:
    """The workers among msrun's children, which are also its scheduler and what follows logs."""
    workers = []
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(msrun.pid).children():
            # One that has just ended has no environment any more.
            with contextlib.suppress(psutil.Error):
                if process.environ().get("MS_ROLE") == "MS_WORKER":
                    workers.append(process)
    return workers


def supervise(
    processes: Sequence[subprocess.Popen],
    ranks: Callable[[], Sequence[subprocess.Popen | psutil.Process]],
    show: Callable[[], None],
) -> tuple[int, signal.Signals | None]:
    """Wait for processes to end.

    The first one that fails ends the others, which would wait for it until their time is up. The
    first SIGTERM or SIGINT is sent to the ranks as SIGTERM, so that they save; a second one, or one
    before there are ranks, ends everything at once.

    Args:
        processes: each in a session of its own.
        ranks: the processes that train, as far as they run.
        show: called again and again, to show what is new.

    Returns:
        The first status that was not 0, else 0, and the signal that came, if one did.
    """
    received: list[signal.Signals] = []
    handlers = {
        number: signal.signal(number, lambda number, _: received.append(signal.Signals(number)))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    status, answered = 0, 0
    try:
        while running := [process for process in processes if process.poll() is None]:
            failed = [process.returncode for process in processes if process.returncode]
            status = status or (failed[0] if failed else 0)
            if failed and not received:
                _kill_sessions(running)
            if len(received) > answered:
                answered = len(received)
                told = list(ranks()) if answered == 1 else []
                for process in told:
                    with contextlib.suppress(psutil.Error, ProcessLookupError):
                        process.terminate()
                if not told:
                    _kill_sessions(running)
            show()
            time.sleep(POLL_SECONDS)
    finally:
        _kill_sessions([process for process in processes if process.poll() is None])
        for number, handler in handlers.items():
            signal.signal(number, handler)
    show()
    failed = [process.returncode for process in processes if process.returncode]
    return status or (failed[0] if failed else 0), received[0] if received else None


def _kill_sessions(processes: Sequence[subprocess.Popen]) -> None:
    """Kill processes and their children, which may have sessions of their own."""
    for process in processes:
        children = []
        with contextlib.suppress(psutil.Error):
            children = psutil.Process(process.pid).children(recursive=True)
        for one in (process, *children):
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                one.kill()


class Follower:
    """Copies what is new in a file that may not be there yet.

    Args:
        path: the file.
        target: gets its bytes.
    """

    def __init__(self, path: Path, target: BinaryIO):
        self.path, self.target = path, target
        self.position = 0

    def __call__(self) -> None:
        """Copy what has come since the last call."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self.position)
                new = file.read()
        except FileNotFoundError:
            return
        self.position += len(new)
        self.target.write(new)
        self.target.flush()


def failure(log_dir: Path, status: int) -> str:
    """One line on why a job failed: the first error that a rank's log holds."""
    for log in sorted(log_dir.glob("worker_*.log")):
        found = re.search(r"^error: (.*)$", log.read_text(errors="replace"), re.MULTILINE)
        if found:
            rank = log.stem.rpartition("_")[2]
            return f"rank {rank}: {found[1]} (all logs are in {log_dir})"
    starter = log_dir / "msrun.log"
    told = starter.read_text(errors="replace") if starter.exists() else ""
    if refused := re.search(r"^\S*run.py: error: (.*)$", told, re.MULTILINE):
        return f"msrun: {refused[1]}"
    return f"a process ended with status {status} (all logs are in {log_dir})"
