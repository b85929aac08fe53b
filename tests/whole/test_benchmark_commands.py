"""What the scripts in benchmarks/ say of a run that is not there."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("annealing", "--runs"),
        ("interpolation", "--runs"),
        ("proposals", "--run"),
        ("results", "--hardware=a core --runs"),
    ],
)
def test_a_run_that_is_not_there_is_one_sentence(script, options, tmp_path, monkeypatch, capsys):
    nowhere = tmp_path / "nowhere"
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *options.rsplit(maxsplit=1), str(nowhere)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(BENCHMARKS / f"{script}.py"), run_name="__main__")
    said = capsys.readouterr().err
    assert ended.value.code in (1, 2)
    assert said.startswith("error: ") and str(nowhere) in said and said.count("\n") == 1
