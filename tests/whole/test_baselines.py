"""The language model, SA-VAE and Lag-VAE in the trainer: two sittings are one."""

from __future__ import annotations

import json

import numpy as np
import pytest
from mindspore import Tensor, ops

from mindspore_cvae.config import layers
from mindspore_cvae.data.corpus import load_corpus
from mindspore_cvae.devices import choosing
from mindspore_cvae.runs import checkpoints
from mindspore_cvae.training import trainer
from mindspore_cvae.training.trainer import train

SETTINGS = (
    *("model.embedding_size=4", "model.hidden_size=6", "model.latent_size=3", "data.batch_size=3"),
    *("data.buckets=1", "train.log_every_steps=1", "eval.rows=4", "device_target=CPU"),
    "train.learning_rate=0.05",
)
SENTENCES = ["a cat sat", "the dog ran off", "a bird", "the cat", "dogs sat", "birds", "cats ran"]
STEPS_PER_EPOCH = 3
OWN_COLUMNS = {
    "lstm_lm": ({"div", "con"}, set()),
    "sa_vae": ({"con"}, set()),
    "lagging_vae": ({"con"}, {"encoder_updates"}),
}
"""Columns of a step's row that are null, and further ones."""


class Once:
    """Makes a part once, and hands it out as it was when new: it need not be compiled again."""

    def __init__(self, make):
        self.make = make
        self.part = None

    def __call__(self, *arguments):
        if self.part is None:
            self.part = self.make(*arguments)
            if hasattr(self.part, "most_updates"):
                self.part.most_updates = 4
            self.start = {p.name: p.asnumpy().copy() for p in self.parameters()}
        for parameter in self.parameters():
            ops.assign(parameter, Tensor(self.start[parameter.name]))
        return self.part

    def parameters(self):
        return self.part.get_parameters() if hasattr(self.part, "get_parameters") else ()


def rows(folder, event):
    lines = (folder / "log.jsonl").read_text().splitlines()
    clocks = ("time", "seconds", "tokens_per_second", "compile_seconds")
    found = [row for row in map(json.loads, lines) if row["event"] == event]
    return [{name: row[name] for name in row if name not in clocks} for row in found]


@pytest.mark.parametrize(
    "system",
    [
        pytest.param(system, marks=pytest.mark.slow if system == "sa_vae" else ())
        for system in OWN_COLUMNS
    ],
)
def test_a_resumed_training_is_the_training_in_one_go(system, tmp_path, monkeypatch):
    choosing.choose("CPU")
    for name in ("build_model", "build_step", "Scorer"):
        monkeypatch.setattr(trainer, name, Once(getattr(trainer, name)))
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.txt").write_text("\n".join(SENTENCES) + "\n", encoding="utf-8")

    def run(folder, epochs, resume=False):
        settings = [*SETTINGS, f"train.epochs={epochs}"]
        settings = layers.load(None, settings, system=system, data_dir=str(tmp_path))
        corpus = load_corpus(settings.data)
        assert train(settings, tmp_path / folder, resume, corpus=corpus) == "epochs"
        return checkpoints.load(tmp_path / folder / "checkpoints")

    whole = run("whole", 2)
    run("parts", 1)
    parts = run("parts", 2, resume=True)
    assert whole.step == parts.step == 2 * STEPS_PER_EPOCH
    assert whole.tensors.keys() == parts.tensors.keys()
    for name, values in whole.tensors.items():
        np.testing.assert_array_equal(values, parts.tensors[name])
    assert whole.state["step_state"] == parts.state["step_state"]
    for event in ("step", "valid"):
        assert rows(tmp_path / "whole", event) == rows(tmp_path / "parts", event)

    null, further = OWN_COLUMNS[system]
    for row in rows(tmp_path / "whole", "step"):
        null_here = {name for name, value in row.items() if value is None}
        assert null_here == null | {"critic_joint", "critic_marginal"}
        assert further <= row.keys() and np.isfinite([row["loss"], row["rec"]]).all()
