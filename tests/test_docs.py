"""What the documentation shows in Python runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tiny_run import write_run

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder that holds runs/quickstart."""
    folder = tmp_path_factory.mktemp("docs")
    run = write_run(folder, "cvae_plus_mi")
    (folder / "runs").mkdir()
    run.rename(folder / "runs" / "quickstart")
    return folder


def test_the_python_interface(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == page.count("```python") == 8
    names: dict = {}
    for block in blocks:
        exec(compile(block, "docs/api.md", "exec"), names)
    assert names["z"].shape == names["z_sampled"].shape == (2, names["model"].latent_size)
    assert len(names["texts"]) == 5
    assert names["scores"].rec.shape == (2,)
    printed = capsys.readouterr().out
    assert printed.count("the market fell") == 2, "its own neighbour, and a scored sentence"
