"""Loss scaling: what an overflow moves, how the scale follows, and that a scale changes no bit."""

from __future__ import annotations

from dataclasses import replace

import mindspore as ms
import numpy as np
import pytest
import tiny
from mindspore import Tensor, nn, ops

from mindspore_cvae.training.scaling import DynamicScaling
from mindspore_cvae.training.steps.updates import adam

SCALED = ("vae", "ivae_mi")
"""A system of each kind of step whose loss can be scaled."""
LARGEST = 2.0**126
"""float32 ends below 2^128: gradients above 4 overflow."""
SCALING = "optimizer.loss_scaling."


@pytest.fixture(scope="module", params=SCALED)
def scaled(request):
    """A compiled step with a loss that is scaled."""
    settings = replace(tiny.TRAINING, loss_scale=65536.0, loss_scale_window=3)
    return tiny.Training(tiny.COMBINATIONS[request.param], training=settings)


def begin(training, scale=65536.0):
    """Back to the start, with another scale."""
    training.restore(training.start)
    ops.assign(training.step.scaling.scale, Tensor(np.float32(scale)))
    return training.state()


def moved(training, before):
    """Names of all that moved since: parameters, moments, counters of the optimizers."""
    now = training.state()
    names = {name for name in now if not np.array_equal(now[name], before[name])}
    return {name for name in names if not name.startswith(SCALING)}


def test_a_scale_that_does_not_overflow_changes_no_bit(scaled):
    """Products with powers of 2 are exact."""
    begin(scaled)
    plain = tiny.training(SCALED[scaled.system.step == "critic_then_model"])
    plain.restore(plain.start)
    for index in range(4):
        assert scaled.run(index) == plain.run(index)
        assert scaled.step.skipped_steps() == 0
    state, expected = scaled.state(), plain.state()
    assert {name for name in state if name not in expected} == {
        SCALING + name for name in ("scale", "good", "skipped")
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(state[name], values)
    assert scaled.step.readings() == {"loss_scale": 2 * 65536.0}, "three good steps doubled it"


def overflow(training):
    """A step none of whose gradients fits: the model's by beta, the critics' by what they read."""
    noise = training.noise()
    if noise.prior is not None:
        large = {name: getattr(noise, name) * np.float32(1e4) for name in ("posterior", "prior")}
        noise = noise._replace(**large)
    training.run(noise=noise, beta=1e6)


def test_an_update_that_overflows_moves_nothing(scaled):
    before = begin(scaled, LARGEST)
    for times in (1, 2, 3):
        overflow(scaled)
        assert moved(scaled, before) == set()
        assert scaled.step.skipped_steps() == times
        assert scaled.step.counts() == {"skipped": 1}
        assert scaled.step.readings() == {"loss_scale": LARGEST / 2**times}
    ops.assign(scaled.step.scaling.scale, Tensor(np.float32(65536)))
    scaled.run()
    assert scaled.step.counts() == {"skipped": 0} and scaled.step.skipped_steps() == 0
    assert scaled.step.readings() == {"loss_scale": 65536.0}
    assert {parameter.name for parameter in scaled.model.get_parameters()} < moved(scaled, before)


def test_an_overflow_of_the_model_leaves_the_critics_their_updates(scaled):
    """beta is the model's alone."""
    before = begin(scaled, LARGEST)
    scaled.run(beta=1e6)
    critics = {parameter.name for parameter in scaled.model.divergence.get_parameters()}
    names = moved(scaled, before)
    assert {name for name in names if not name.startswith("optimizer.")} == critics
    assert not [name for name in names if name.startswith("optimizer.model")]
    assert scaled.step.counts() == {"skipped": 1}


def test_a_loss_that_is_not_finite_moves_nothing(scaled):
    before = begin(scaled)
    noise = scaled.noise()
    terms = scaled.run(noise=noise._replace(posterior=noise.posterior * np.float32(np.nan)))
    assert np.isnan(terms["loss"])
    assert moved(scaled, before) == set() and scaled.step.skipped_steps() == 1


class Fall(nn.Cell):
    """A training step whose only gradient is given."""

    def __init__(self, scaling):
        super().__init__(auto_prefix=False)
        self.weight = ms.Parameter(Tensor(np.ones(2, np.float32)), name="weight")
        self.optimizer = adam([self.weight], 0.1, "optimizer.model", scaling.optimizer)
        self.scaling = scaling

    def construct(self, gradient):
        gradients = self.scaling.unscaled((self.scaling.scaled(gradient),))
        return self.scaling.end_step((self.optimizer(gradients),))


def test_the_scale_doubles_after_good_steps_and_halves_at_an_overflow():
    with tiny.execution("graph"):
        step = Fall(DynamicScaling(4.0, 2))
        followed = []
        for is_good in (True, True, True, False, True, False, False, False, True, True, True):
            gradient = np.array([0.5, 1 if is_good else np.inf], np.float32)
            assert bool(step(Tensor(gradient)).asnumpy()) == is_good
            scaling = step.scaling
            followed.append((scaling.readings()["loss_scale"], scaling.skipped_steps()))
        updates = int(step.parameters_dict()["optimizer.model.global_step"].asnumpy().item())
    assert followed == [
        *((4, 0), (8, 0), (8, 0), (4, 1), (4, 0)),
        # Not below 1, and two good steps are counted anew.
        *((2, 1), (1, 2), (1, 3), (1, 0), (2, 0), (2, 0)),
    ]
    assert updates == 7
