"""Standard streams whose reader goes away, are closed, or lie in a folder that is gone."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from mindspore_cvae.errors import OUT_OF_MEMORY, run_command

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
WORK = """
import sys
from mindspore_cvae.common.streams import forgiving
from mindspore_cvae.errors import run_command
def main():
    with forgiving():
        for number in range(20000):
            print("told", number)
            print("told", number, file=sys.stderr)
    open(sys.argv[1], "w").write("done")
sys.exit(run_command(main))
"""


@pytest.mark.parametrize(
    "shell", ["| head -1", "2>&1 | head -1", "2>&-", ">&-", ">&- 2>&-", "<&-", ">/dev/full"]
)
def test_work_goes_on_where_nobody_reads(tmp_path, shell):
    line = f'"$0" -c "$1" {tmp_path / "made"} {shell}; echo "${{PIPESTATUS[0]}}" >{tmp_path / "rc"}'
    subprocess.run(
        ["bash", "-c", line, sys.executable, WORK], env=ENVIRONMENT, capture_output=True, timeout=60
    )
    assert (tmp_path / "made").read_text() == "done"
    assert (tmp_path / "rc").read_text() == "0\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_file_that_ends_in_the_middle_is_an_error(tmp_path, unbuffered):
    """The limit on a file's size does what a full disk does: a write takes less than it was
    given."""
    code = (
        "import resource, sys; from mindspore_cvae.errors import run_command;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192));"
        "sys.exit(run_command(lambda: [print('a sentence of words', n) for n in range(800)]))"
    )
    with open(tmp_path / "sentences.txt", "w") as file:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**ENVIRONMENT, "PYTHONUNBUFFERED": unbuffered},
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr == "error: standard output: File too large\n"


def test_a_terminal_does_not_obey_what_a_text_holds():
    """A file gets the text as it is, a terminal and a warning legible characters."""
    code = (
        "from mindspore_cvae.errors import run_command, warn_user;"
        "run_command(lambda: [print('a \\x1b]0;title\\x07 b\\tc'), warn_user('d \\x1b[2J e')])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.stdout == "a \x1b]0;title\x07 b\tc\n"
    assert done.stderr == "warning: d \\x1b[2J e\n"
    ours, theirs = pty.openpty()
    subprocess.run(command, env=ENVIRONMENT, stdout=theirs, stderr=subprocess.DEVNULL, check=True)
    os.close(theirs)
    assert os.read(ours, 1000).decode() == "a \\x1b]0;title\\x07 b\tc\r\n"
    os.close(ours)


def test_a_name_that_is_no_text_can_be_told():
    code = (
        "import os; from mindspore_cvae.errors import run_command;"
        "run_command(lambda: print('run', os.fsdecode(b'r\\xe9')))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True)
    assert (done.stdout, done.stderr) == (b"run r\\udce9\n", b"")


def test_a_deleted_working_directory_is_one_sentence(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    line = f'cd {folder}; rmdir {folder}; exec "$0" -m mindspore_cvae train'
    done = subprocess.run(
        ["bash", "-c", line, sys.executable], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "error: the working directory was deleted: change to another one\n"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("Out of memory!!! Memory pool alloc failed\n\n----\n- C++ Call Stack"),
        RuntimeError("Allocate memory failed, alloc size 1024B\nmore"),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_too_little_memory_is_one_sentence(capsys, error):
    def main():
        raise error

    assert run_command(main) == 1
    assert capsys.readouterr().err == f"error: {OUT_OF_MEMORY}\n"


def test_another_fault_keeps_its_traceback(capsys):
    def main():
        raise RuntimeError("a fault of the program")

    assert run_command(main) == 1
    assert "Traceback" in capsys.readouterr().err
