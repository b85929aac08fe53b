"""Profiles of training steps, by the command."""

from __future__ import annotations

import csv

import pytest
from tiny_run import SIZES, write_corpus

from mindspore_cvae.commands.train import train_main
from mindspore_cvae.runs import folder
from mindspore_cvae.training import profiling


def test_ten_steps_are_profiled(tmp_path):
    run = tmp_path / "run"
    data = write_corpus(tmp_path / "data")
    train = data / "train.txt"
    train.write_text(train.read_text() * 10)
    options = (*SIZES, "data.buckets=1", "data.batch_size=2", "train.max_steps=35")
    options += ("train.report=false", "eval.valid_samples=1", "eval.best_valid_sentences=0")
    arguments = ["--system", "vae", "--data_dir", str(data), "--output_dir", str(run)]
    assert train_main([*arguments, "--profile", "--set", *options]) == 0
    (table,) = (run / folder.PROFILE).rglob("cpu_op_type_info_0.csv")
    with table.open(newline="", encoding="utf-8") as file:
        times = {row["op_type"]: int(row["type_occurrences"]) for row in csv.DictReader(file)}
    # Encoder and decoder, once a step.
    assert times["LSTM"] == 2 * profiling.STEPS


@pytest.mark.parametrize(
    "steps, expected",
    [
        (profiling.FIRST_STEP - 1, []),
        (profiling.FIRST_STEP + 3, ["start", *3 * ["step"], "stop"]),
        (profiling.FIRST_STEP + 50, ["start", *profiling.STEPS * ["step"], "stop"]),
    ],
    ids=["too short", "ended early", "long"],
)
def test_a_profile_that_has_begun_is_written(tmp_path, monkeypatch, steps, expected):
    profiler, calls = profiling.StepProfiler(tmp_path / "profile", "CPU"), []
    for name in ("start", "step", "stop"):
        monkeypatch.setattr(profiler.profiler, name, lambda name=name: calls.append(name))
    for _ in range(steps):
        profiler.step()
    profiler.close()
    assert calls == expected
    assert not (tmp_path / "profile").exists()
