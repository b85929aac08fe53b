"""The starter of data-parallel runs on ranks that are small scripts."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mindspore_cvae.devices.ranks import msrun_process

ROOT = Path(__file__).resolve().parents[2]
RANK = """
import os, signal, sys, time
rank, size, device = (os.environ.get(name) for name in ("RANK_ID", "RANK_SIZE", "DEVICE_ID"))
print(f"rank {rank} of {size} on device {device}", *sys.argv[1:])
def wait():
    while True:
        time.sleep(0.05)
def on_signal(number, frame):
    print("saved")
    sys.exit(128 + number)
"""


@pytest.fixture
def start(tmp_path):
    """Starts a job whose ranks do what a piece of Python says; ends it after the test."""
    jobs = []

    def starter(act, count=3, table=True, own=(), **variables):
        script = tmp_path / "rank.py"
        script.write_text(RANK + act)
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT), **variables}
        if table:
            (tmp_path / "table.json").touch()
            environment.setdefault("RANK_TABLE_FILE", str(tmp_path / "table.json"))
        command = [sys.executable, "-m", "mindspore_cvae", "ranks", "--processes", str(count)]
        jobs.append(
            subprocess.Popen(
                [*command, "--log_dir", "logs", *own, script, "--seed", "1"],
                cwd=tmp_path,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return jobs[-1]

    yield starter
    for job in jobs:
        if job.poll() is None:
            # Twice: the second signal ends everything at once.
            for _ in range(2):
                job.terminate()
                time.sleep(1)
        job.communicate(timeout=60)


def wait_for(path: Path, text: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not (path.exists() and text in path.read_text()):
        assert time.monotonic() < deadline, f"{path} never held {text!r}"
        time.sleep(0.1)


def test_ranks_of_a_rank_table(start, tmp_path):
    job = start("", RANK_START="4", WORLD_SIZE="8")
    output, errors = job.communicate(timeout=120)
    assert job.returncode == 0, errors
    for device in range(3):
        log = (tmp_path / "logs" / f"worker_{4 + device}.log").read_text()
        assert log == f"rank {4 + device} of 8 on device {device} --seed 1\n"
    assert output == "rank 4 of 8 on device 0 --seed 1\n"


@pytest.mark.parametrize("port", ["taken", "70000", "x"])
def test_a_port_that_cannot_be_used_is_one_sentence_within_seconds(start, port):
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        number = str(other.getsockname()[1]) if port == "taken" else port
        job = start("", count=2, table=False, MASTER_PORT=number)
        _, errors = job.communicate(timeout=30)
    assert job.returncode == 2
    assert errors.startswith("error: MASTER_PORT") and number in errors and errors.count("\n") == 1


def test_options_of_msrun_need_msrun(start):
    _, errors = (job := start("", own=["--bind_core=True"])).communicate(timeout=30)
    assert job.returncode == 2
    assert errors == "error: --bind_core is msrun's, which RANK_TABLE_FILE does without\n"


def test_an_option_that_msrun_has_not_is_refused(start):
    _, errors = (job := start("", own=["--bind_cores=True"])).communicate(timeout=30)
    assert job.returncode == 2
    assert "--bind_cores" in errors and errors.count("\n") == 1


def test_options_reach_msrun(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: started.append(command))
    own = {"cluster_time_out": "60", "bind_core": "True"}
    msrun_process(["train.py", "--seed", "1"], 2, tmp_path, {}, own)
    ((_, *words),) = started
    assert {"--cluster_time_out=60", "--bind_core=True", "--local_worker_num=2"} < set(words)
    assert words[-3:] == ["train.py", "--seed", "1"]


def test_what_msrun_refuses_is_one_line(start):
    job = start("", count=2, table=False, own=["--cluster_time_out", "soon"])
    _, errors = job.communicate(timeout=60)
    assert job.returncode == 1
    assert errors.startswith("error: msrun: argument --cluster_time_out: invalid int value: 'soon'")


def test_a_first_rank_that_is_no_number_is_refused(start):
    _, errors = (job := start("", RANK_START="first")).communicate(timeout=120)
    assert job.returncode == 2
    assert errors == "error: RANK_START must be a whole number, not 'first'\n"


def test_failed_rank_ends_the_job_with_one_line(start):
    act = "if rank == '1':\n    print('error: out of memory')\n    sys.exit(3)\nwait()"
    job = start(act)
    _, errors = job.communicate(timeout=120)
    assert job.returncode == 1
    assert errors == "error: rank 1: out of memory (all logs are in logs)\n"


def test_rank_that_dies_without_a_word(start):
    job = start("if rank == '2':\n    os.kill(os.getpid(), signal.SIGKILL)\nwait()")
    _, errors = job.communicate(timeout=120)
    assert job.returncode == 1
    assert errors == "error: a process ended with status -9 (all logs are in logs)\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_lets_every_rank_save(start, tmp_path, number, code):
    job = start("signal.signal(signal.SIGTERM, on_signal)\nprint('ready')\nwait()")
    logs = [tmp_path / "logs" / f"worker_{rank}.log" for rank in range(3)]
    for log in logs:
        wait_for(log, "ready")
    job.send_signal(number)
    output, errors = job.communicate(timeout=120)
    assert job.returncode == code
    assert errors == ""
    assert output.endswith("saved\n")
    assert all(log.read_text().endswith("saved\n") for log in logs)


def test_second_signal_ends_everything_at_once(start, tmp_path):
    job = start("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready')\nwait()", count=1)
    wait_for(tmp_path / "logs" / "worker_0.log", "ready")
    job.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        job.wait(timeout=2)
    job.terminate()
    job.communicate(timeout=60)
    assert job.returncode == 143


def test_msrun_starts_the_ranks_with_this_python(start, tmp_path):
    job = start("print(sys.executable, os.environ['MS_WORKER_NUM'])", count=2, table=False)
    output, errors = job.communicate(timeout=300)
    # The scheduler runs the script too, and here it ends like the workers.
    assert job.returncode == 0, errors + (tmp_path / "logs" / "msrun.log").read_text()
    for rank in range(2):
        log = (tmp_path / "logs" / f"worker_{rank}.log").read_text()
        assert f"rank {rank} of 2 on device {rank} --seed 1\n{sys.executable} 2\n" in log
    assert output == (tmp_path / "logs" / "worker_0.log").read_text()


def test_failed_rank_under_msrun_is_one_line(start):
    act = "if rank == '1' and os.environ['MS_ROLE'] == 'MS_WORKER':\n"
    act += "    print('error: no such file')\n    sys.exit(2)\n"
    act += "if os.environ['MS_ROLE'] == 'MS_WORKER':\n    wait()"
    job = start(act, count=2, table=False)
    _, errors = job.communicate(timeout=300)
    assert job.returncode == 1
    assert errors == "error: rank 1: no such file (all logs are in logs)\n"


def test_signal_under_msrun_lets_the_workers_save(start, tmp_path):
    act = "if os.environ['MS_ROLE'] == 'MS_WORKER':\n"
    act += "    signal.signal(signal.SIGTERM, on_signal)\n    print('ready')\n    wait()"
    job = start(act, count=1, table=False)
    log = tmp_path / "logs" / "worker_0.log"
    wait_for(log, "ready")
    job.terminate()
    _, errors = job.communicate(timeout=300)
    assert (job.returncode, errors) == (143, "")
    assert log.read_text().endswith("saved\n")


@pytest.mark.parametrize("count", [0, -1])
def test_bad_arguments(start, count):
    job = start("", count=count)
    _, errors = job.communicate(timeout=60)
    assert job.returncode == 2
    assert errors.count("\n") == 1


def test_rank_table_that_is_not_there(start):
    job = start("", RANK_TABLE_FILE="nothing.json")
    _, errors = job.communicate(timeout=60)
    assert job.returncode == 2
    assert errors == "error: RANK_TABLE_FILE names no file: nothing.json\n"
