"""The benchmarks' count of operations, against the weights of built models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mindspore_cvae.config.layers import load
from mindspore_cvae.model.building import build_model

VOCABULARY = 500


@pytest.fixture
def floor(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import floor

    return floor


def matrices(model, *parts: str) -> int:
    """Numbers in the matrices of parts of a model that multiply an activation."""
    return sum(
        parameter.size
        for parameter in model.get_parameters()
        if parameter.ndim > 1
        and any(part in parameter.name for part in parts)
        and "embedding" not in parameter.name
    )


def test_a_step_multiplies_every_weight_three_times_a_position(floor):
    settings = load("ptb", system="vae")
    model = build_model(settings.slots, settings.model, VOCABULARY, seed=0)
    # The output layer keeps its bias in the same matrix, as one column more.
    words, inputs = model.decoder.vocabulary_weight.shape
    weights = matrices(model, "encoder.lstm", "decoder.lstm") + words * (inputs - 1)
    rows, positions = settings.data.batch_size, 7
    work = floor.step_work(settings, positions, VOCABULARY)
    assert work.operations == 3 * 2 * weights * rows * positions


def test_critics_multiply_every_weight_in_every_update(floor):
    settings = load("ptb", system="cvae_plus_mi")
    model = build_model(settings.slots, settings.model, VOCABULARY, seed=0)
    weights = matrices(model, "critic")
    first = settings.model.critic_size * (
        settings.model.hidden_size + 2 * settings.model.latent_size
    )
    rows = settings.slots.views * settings.data.batch_size

    def operations(updates: int) -> float:
        train = replace(settings.train, critic_updates=updates)
        return floor.step_work(replace(settings, train=train), 7, VOCABULARY).operations

    # Draws of q and p; forward, gradient of the weights, and of every input but the first layer's.
    expected = 2 * rows * 2 * (3 * weights - first)
    assert operations(2) - operations(1) == expected
    # Without critics the step is the VAE's of twice the rows.
    vae = load("ptb", ["data.batch_size=64"], system="vae")
    without = operations(1) - expected - 2 * rows * 2 * weights
    assert without == floor.step_work(vae, 7, VOCABULARY).operations


def test_floor_adds_the_time_of_operations_and_of_bytes(floor):
    found = floor.Work(2e9, 1e9).milliseconds({"operations_a_second": 1e11, "bytes_a_second": 1e10})
    assert found == {"operations_ms": 20.0, "bytes_ms": 100.0, "floor_ms": 120.0}


def test_a_run_is_its_epochs_of_steps_the_last_batch_smaller(floor):
    settings = load("ptb", ["train.epochs=3", "data.batch_size=32"], system="vae")
    rates = {"operations_a_second": 1e11, "bytes_a_second": 1e10}
    found = floor.run_work(settings, 65, 7, VOCABULARY, rates)
    step = floor.step_work(settings, 7, VOCABULARY)
    assert found["steps"] == 9
    hours = 9 * (step.operations / 1e11 + step.bytes / 1e10) / 3600
    assert found["hours"] == pytest.approx(hours)
