"""What the shell is told at a Tab: commands, options and values, as argcomplete asks for them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mindspore_cvae.commands import program
from mindspore_cvae.config.keys import OPTIONS
from mindspore_cvae.systems import SYSTEMS

ROOT = Path(__file__).resolve().parents[2]
CODE = "import sys; from mindspore_cvae.commands.program import main; sys.exit(main())"
COMMANDS = {name for group in program.COMMANDS.values() for name in group}


def completions(folder, line):
    """What argcomplete's script of the shell gets for a line."""
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(folder / "answer"),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9",
    }
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**os.environ, **asked, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return {answer.strip() for answer in (folder / "answer").read_text().split("\n")}


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("", {*COMMANDS, "--help", "--version", "-h"}),
        ("tr", {"train"}),
        ("train --system con", {"contrastive_vae"}),
        ("train --system ", set(SYSTEMS)),
        ("train --output", {"--output_dir"}),
        ("train --precision ", {"strict", "fast"}),
        ("train --set train.ep", {"train.epochs="}),
        (
            "train --set slots.posterior=",
            {f"slots.posterior={c}" for c in OPTIONS["slots.posterior"].choices},
        ),
        ("generate sam", {"sample"}),
        ("generate sample --top", {"--top_k", "--top_p"}),
        ("eval --run my", {"myrun/"}),
    ],
)
def test_a_tab(tmp_path, typed, expected):
    (tmp_path / "myrun").mkdir()
    assert completions(tmp_path, f"mindspore-cvae {typed}") == expected
