"""The table of features names what is there; the site is built from the pages without a warning."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mindspore_cvae.api import ContrastiveVAE
from mindspore_cvae.commands import generate, program

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "use" / "index.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| ([^|]+) \| (`[^|]+`) \| ([^|]*)\|$", PAGE, flags=re.MULTILINE)


def test_every_row_was_read():
    assert len(ROWS) == PAGE.count("\n| ") - 1 > 20


def test_every_command_is_there_and_every_command_of_people_is_in_the_table():
    typed = re.findall(r"mindspore-cvae (\w+)", " ".join(command for _, command, _ in ROWS))
    groups = program.COMMANDS
    assert set(typed) <= {name for group in groups.values() for name in group}
    wanted = {name for group, names in groups.items() if group != "Devices" for name in names}
    assert wanted - set(typed) <= {"systems", "config", "columns"}


def test_every_way_to_generate_is_in_the_table():
    actions = next(a.choices for a in generate._parser()._actions if a.dest == "action")
    listed = set(re.findall(r"generate (\w+)", " ".join(command for _, command, _ in ROWS)))
    assert listed == set(actions)


def test_every_python_call_is_there():
    calls = re.findall(r"(?:model|ContrastiveVAE)\.(\w+)\(", " ".join(row[2] for row in ROWS))
    assert len(set(calls)) > 8
    assert all(callable(getattr(ContrastiveVAE, call)) for call in calls)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("furo", reason="the extra docs (sphinx, myst-parser, furo) is missing")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*command, str(ROOT / "docs"), str(tmp_path)], capture_output=True, text=True, cwd=ROOT
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    page = (tmp_path / "use" / "own-data.html").read_text(encoding="utf-8")
    assert "own-data.md" not in re.sub(r"_sources\S+", "", page)
    assert "mindspore_cvae.model.objectives.info_nce" in (tmp_path / "reference.html").read_text()
