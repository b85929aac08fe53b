"""KenLM's programs: kept where they are, and a step that fails is named and leaves nothing."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from mindspore_cvae.commands import program
from mindspore_cvae.evaluation import kenlm_building, ngram


@pytest.fixture
def build(monkeypatch, tmp_path):
    """The command, with a stand-in for the interpreter that pip is called by."""

    def call(body: str = "exit 0", *, compiler: str = "true") -> int:
        python = tmp_path / "python"
        python.write_text(f"#!/usr/bin/env bash\n{body}\n")
        python.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(python))
        monkeypatch.setenv("CXX", compiler)
        return program.main(["ngram", "build", str(tmp_path / "kenlm")])

    return call


def test_what_was_built_is_kept(tmp_path, build, capsys):
    programs = tmp_path / "kenlm" / "bin"
    programs.mkdir(parents=True)
    for name in ("lmplz", "query"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    assert build("exit 1", compiler="none") == 0
    assert capsys.readouterr().out == f"lmplz and query are in {programs}\n"


def test_a_step_that_fails_is_named(tmp_path, build, capsys):
    body = 'case "$*" in *download*) echo no such package >&2; exit 1 ;; *) exit 0 ;; esac'
    assert build(body) == 1
    shown = capsys.readouterr()
    assert "no such package" in shown.out
    assert shown.err.startswith("error: fetching KenLM's source: failed")
    assert list((tmp_path / "kenlm").iterdir()) == []


@pytest.mark.parametrize(
    ("body", "compiler", "said"),
    [("exit 0", "no-such-compiler", "g++"), ("exit 1", "true", "pip does not work")],
)
def test_what_is_missing_is_one_line_before_anything_is_made(
    tmp_path, build, capsys, body, compiler, said
):
    assert build(body, compiler=compiler) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error
    assert not (tmp_path / "kenlm").exists()


def test_the_lines_that_are_mended():
    released = (
        '    CLI::App app{"Builds unpruned language models"};\n'
        "    lm::builder::PipelineConfig pipeline;\n    bool verbose_header;\n"
    )
    for old, new in kenlm_building.MENDING:
        released, count = re.subn(old, new, released, flags=re.MULTILINE)
        assert count == 1
    assert released == (
        '    CLI::App app{"Builds unpruned language models"};\n    app.set_help_flag();\n'
        "    lm::builder::PipelineConfig pipeline{};\n    bool verbose_header = false;\n"
    )


def test_an_installed_package_builds_into_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("KENLM_BIN", raising=False)
    assert ngram.programs_folder() == Path(ngram.__file__).parents[2] / ".kenlm" / "bin"
    monkeypatch.setattr(ngram, "checkout", lambda: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert ngram.programs_folder() == tmp_path / "mindspore_cvae" / "kenlm" / "bin"
    monkeypatch.setenv("KENLM_BIN", str(tmp_path / "mine"))
    assert ngram.programs_folder() == tmp_path / "mine"
