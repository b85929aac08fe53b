"""What a training tells of steps that compile, and its validations; its resuming is in
whole/test_resume.py."""

from __future__ import annotations

import json

import pytest
from interruptions import STEPS_PER_EPOCH, options, write_corpus

from mindspore_cvae.commands.train import train_main
from mindspore_cvae.common import memory
from mindspore_cvae.evaluation.metrics import Weighing, evaluate_run
from mindspore_cvae.runs import folder as runs_folder


def test_a_step_that_compiles_counts_in_no_speed(tmp_path, capsys, monkeypatch):
    """And what compiling has left in memory is given back: before the first step of the one width
    computes, after it, and after the first call of each graph of the validations."""
    given_back = []
    monkeypatch.setattr(memory, "give_back", lambda: given_back.append(1))
    data, folder = write_corpus(tmp_path / "data"), tmp_path / "run"
    settings = ("train.log_every_steps=1", "train.patience=null", "train.epochs=2")
    assert train_main(options("vae", data, folder, *settings)) == 0
    rows = map(json.loads, (folder / runs_folder.LOG).read_text().splitlines())
    first, *others = [row for row in rows if row["event"] == "step"]
    assert len(others) == 2 * STEPS_PER_EPOCH - 1
    assert first["compile_seconds"] > 0.1 and first["tokens_per_second"] is None
    assert {row["compile_seconds"] for row in others} == {0.0}
    assert all(row["tokens_per_second"] > 0 for row in others)
    # Three to five words and their ends: the one width of the corpus, of a step and of a score.
    told_lines = capsys.readouterr().err.splitlines()
    told = [line for line in told_lines if "compiling 4 words" in line]
    for title in ("epoch 1", "scoring valid"):
        (line,) = [line for line in told if line.startswith(f"{title}: ")]
        assert line.endswith("compiling 4 words, 1 of 1")
    told_in_all = [line for line in told_lines if "compiling" in line]
    assert len(given_back) == len(told_in_all) + 1


def test_validations_with_refined_proposals_are_an_evaluations(tmp_path):
    """The bound of the last validation is what an evaluation says of the last checkpoint."""
    data, folder = write_corpus(tmp_path / "data"), tmp_path / "run"
    settings = ("train.epochs=2", "eval.valid_samples=3", "eval.samples=3")
    settings += ("eval.valid_iw_samples=4", "eval.best_valid_refined=true")
    assert train_main(options("ivae", data, folder, *settings)) == 0
    rows = map(json.loads, (folder / runs_folder.LOG).read_text().splitlines())
    validations = [row for row in rows if row["event"] == "valid"]
    assert [row["iw_proposal"] for row in validations] == ["refined", "refined"]
    config = runs_folder.read_config(folder)
    corpus = runs_folder.corpus_of_run(config, folder)
    weighing = Weighing(4, ("refined",), config.eval.best_valid_sentences)
    metrics, _ = evaluate_run(folder, config, corpus, "valid", "last", weighing)
    assert validations[-1]["iw_nll"] == pytest.approx(metrics["iw_nll"], rel=1e-6)
