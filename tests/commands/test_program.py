"""One program: its help, its versions, its commands as they are typed."""

from __future__ import annotations

import importlib
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mindspore_cvae.commands import program

ROOT = Path(__file__).resolve().parents[2]
NAMES = [name for group in program.COMMANDS.values() for name in group]


def command(*argv: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "mindspore_cvae", *argv], capture_output=True, text=True, cwd=ROOT
    )


def test_help_names_every_command_without_mindspore():
    check = (
        "import sys; from mindspore_cvae.commands.program import main; main(['--help']);"
        "sys.exit('mindspore' in sys.modules)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert all(f"\n  {name} " in done.stdout for name in NAMES)
    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < 0.5


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_a_function_and_one_line(name):
    ((target, line),) = [group[name] for group in program.COMMANDS.values() if name in group]
    module, _, function = target.partition(":")
    assert callable(getattr(importlib.import_module(f"mindspore_cvae.commands.{module}"), function))
    assert line and len(f"  {name:<10}  {line}") <= 100


def test_version_names_both(capsys):
    assert program.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("mindspore_cvae 0.")


@pytest.mark.parametrize("name", ["train", "systems", "ngram"])
def test_usage_names_the_command_as_it_was_typed(name):
    assert command(name, "--help").stdout.startswith(f"usage: python -m mindspore_cvae {name} ")


def test_an_unknown_command_is_one_line():
    done = command("trian")
    assert done.returncode == 2
    assert done.stderr == (
        "error: there is no command trian: did you mean train? "
        "(python -m mindspore_cvae --help lists them)\n"
    )


def test_a_closed_pipe_ends_quietly():
    line = f"{sys.executable} -m mindspore_cvae config | head -1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.count("\n") == 1 and not done.stderr


@pytest.mark.parametrize("argv", [["train.py"], ["-m", "mindspore_cvae", "train"]])
def test_an_interrupt_ends_a_command_with_130(tmp_path, argv):
    """It comes once the corpus is read: MindSpore is being imported then, or graphs compiled."""
    process = subprocess.Popen(
        [sys.executable, "-u", *argv, "--output_dir", str(tmp_path / "run")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job, which the tests may be, ignores interrupts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert "train" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in errors
