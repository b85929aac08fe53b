"""On the embedded corpus the true NLL is known: no valid bound lies below it, for any system."""

from __future__ import annotations

import numpy as np
import pytest

from mindspore_cvae.config import layers as configuration
from mindspore_cvae.data.corpus import load_corpus
from mindspore_cvae.devices import choosing
from mindspore_cvae.evaluation.importance import ImportanceSampler
from mindspore_cvae.evaluation.metrics import Weighing, evaluate_run
from mindspore_cvae.evaluation.proposals import Choice
from mindspore_cvae.systems import SYSTEMS
from mindspore_cvae.training.trainer import train

SENTENCES, DRAWS = 200, 64
SETTINGS = [
    "model.embedding_size=32",
    "model.hidden_size=64",
    "model.latent_size=8",
    "model.noise_size=8",
    "model.critic_size=32",
    "train.learning_rate=3e-3",
    "train.critic_learning_rate=1e-3",
    "data.buckets=2",
    "data.batch_size=64",
    "train.select=iw_nll",
    "eval.valid_samples=2",
    "eval.valid_iw_samples=2",
    "eval.samples=8",
    f"eval.max_sentences={SENTENCES}",
]
SLOW_STEPS = {"sa_vae": 40, "lagging_vae": 40}


@pytest.fixture(scope="module", autouse=True)
def graph_mode():
    choosing.choose("CPU")


@pytest.fixture(scope="module")
def corpus():
    return load_corpus(configuration.load(None).data)


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_importance_weighted_nll_is_not_below_the_truth(system, corpus, tmp_path, monkeypatch):
    tuned, choose = [], ImportanceSampler.choose

    def spy(self, tuning, *sizes):
        tuned.append(tuning.name)
        return choose(self, tuning, *sizes)

    monkeypatch.setattr(ImportanceSampler, "choose", spy)
    steps = SLOW_STEPS.get(system, 150)
    config = configuration.load(None, [*SETTINGS, f"train.max_steps={steps}"], system=system)
    train(config, tmp_path / "run", corpus=corpus)
    is_affine = SYSTEMS[system].posterior == "affine"
    metrics, values = evaluate_run(
        tmp_path / "run", config, corpus, "test", "last", Weighing(DRAWS), is_affine
    )
    # The least of several estimates is no bound: no split chooses among its own.
    assert tuned == ([] if system == "lstm_lm" else ["train", "valid"])
    excess = values["iw_nll"] - values["true_nll"]
    error = excess.std() / np.sqrt(SENTENCES)
    assert metrics["iw_nll"] == pytest.approx(values["iw_nll"].mean())
    assert excess.mean() > -3 * error
    # The model has learned something, or the bound would hold for the wrong reason.
    assert excess.mean() < 60.0
    if metrics["neg_elbo_valid"] is not None:
        assert metrics["neg_elbo_valid"] > metrics["true_nll"] - 3 * error
    if is_affine:
        # A fresh critic's reading is a lower bound of the KL, and not an idle one.
        assert 1.0 < metrics["kl_refit"] < metrics["kl_exact"] + 3 * metrics["kl_refit_error"]


def test_validation_does_not_tune_its_own_bound(corpus, tmp_path, monkeypatch):
    tuned = []
    monkeypatch.setattr(
        ImportanceSampler,
        "choose",
        lambda self, tuning, *sizes: tuned.append(tuning.name) or Choice("fit", 1.0),
    )
    settings = [*SETTINGS, "train.max_steps=1", "eval.max_sentences=8", "data.buckets=1"]
    config = configuration.load(None, settings, system="vae")
    train(config, tmp_path / "run", corpus=corpus)
    evaluate_run(tmp_path / "run", config, corpus, "valid", "last", Weighing(2))
    assert tuned == ["train", "train"]
