"""Schedules of beta at steps worked out by hand."""

from __future__ import annotations

import math

import pytest

from mindspore_cvae.training.schedules import SCHEDULES, settled_after

STEPS_PER_EPOCH = 20


@pytest.mark.parametrize(
    "name, beta_max, values",
    [
        ("zero", 1.0, {0: 0, 7: 0, 10_000: 0}),
        ("constant", 0.4, {0: 0.4, 7: 0.4, 10_000: 0.4}),
        # 0.1 + 0.1 an epoch of 20 steps: 0.005 a step, 1 after 9 epochs.
        ("warm_up", 1.0, {0: 0.1, 1: 0.105, 20: 0.2, 179: 0.995, 180: 1, 181: 1, 10_000: 1}),
        ("warm_up", 0.5, {0: 0.1, 79: 0.495, 80: 0.5, 81: 0.5, 10_000: 0.5}),
        ("warm_up", 0.05, {0: 0.05, 1: 0.05}),
        ("cyclical", 1.0, {0: 0.1, 180: 1, 199: 1, 200: 0.1, 201: 0.105, 380: 1, 400: 0.1}),
        ("cyclical", 0.5, {80: 0.5, 199: 0.5, 200: 0.1}),
    ],
)
def test_values(name, beta_max, values):
    schedule = SCHEDULES[name](STEPS_PER_EPOCH, beta_max)
    assert {step: schedule(step) for step in values} == pytest.approx(values)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("beta_max", [0.0, 0.1, 0.4, 1.0])
@pytest.mark.parametrize("steps_per_epoch", [1, 7, 1315])
def test_patience_counts_from_the_first_step_at_the_end_value(name, beta_max, steps_per_epoch):
    schedule = SCHEDULES[name](steps_per_epoch, beta_max)
    end = max(map(schedule, range(10 * steps_per_epoch)))
    first = next(step for step in range(10 * steps_per_epoch) if schedule(step) == end)
    assert settled_after(name, steps_per_epoch, beta_max) == first


def test_a_cycle_too_short_for_its_end_value_settles_at_its_last_step():
    """10 epochs reach 1.1 - 0.1/20 at most: the cycle restarts at step 200."""
    assert settled_after("cyclical", STEPS_PER_EPOCH, 2.0) == 199


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_value_is_finite_and_at_most_the_end(name):
    schedule = SCHEDULES[name](STEPS_PER_EPOCH, 0.7)
    values = [schedule(step) for step in range(500)]
    assert all(math.isfinite(value) and 0 <= value <= 0.7 for value in values)
