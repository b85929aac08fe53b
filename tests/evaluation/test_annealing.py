"""Annealed importance sampling where p(x) has a closed form."""

from __future__ import annotations

import numpy as np
import pytest

from mindspore_cvae.evaluation import annealing, bounds

NOISE = 0.7


def linear_model(random, sentences=3, size=4, observed=6):
    """x = A z + 0.7 eps, a linear-Gaussian decoder -> its likelihood and the exact -log p(x)."""
    weights = random.normal(size=(sentences, observed, size))
    z, eps = random.normal(size=(sentences, size)), random.normal(size=(sentences, observed))
    x = np.einsum("bij,bj->bi", weights, z) + NOISE * eps

    def likelihood(z):
        error = np.einsum("bij,bsj->bsi", weights, z) - x[:, None]
        nll = 0.5 * (error**2).sum(-1) / NOISE**2 + observed * np.log(NOISE * np.sqrt(2 * np.pi))
        return nll, np.einsum("bsi,bij->bsj", error, weights) / NOISE**2

    covariance = weights @ weights.transpose(0, 2, 1) + NOISE**2 * np.eye(observed)
    squares = np.einsum("bi,bi->b", x, np.linalg.solve(covariance, x[..., None])[..., 0])
    _, log_determinant = np.linalg.slogdet(covariance)
    return likelihood, 0.5 * (squares + log_determinant + observed * np.log(2 * np.pi))


def test_it_finds_the_evidence_of_a_linear_gaussian_model():
    random = np.random.default_rng(0)
    likelihood, exact = linear_model(random)
    log_weights = annealing.annealed_log_weights(likelihood, (3, 64, 4), 400, 5, random)
    ratios = np.exp(log_weights + exact[:, None])
    error = ratios.std(1) / np.sqrt(ratios.shape[1])
    assert (np.abs(ratios.mean(1) - 1.0) < 4 * error).all() and (error < 0.15).all()
    # Of the prior alone as many draws weigh next to nothing, but for one or two.
    alone = -likelihood(random.standard_normal((3, 64, 4)))[0]
    assert (bounds.effective_sample_size(alone) < 6).all()
    assert (bounds.effective_sample_size(log_weights) > 16).all()


def test_weights_are_unbiased_however_short_the_passage():
    """E w = p(x) with four temperatures, where one chain is far from p(z|x)."""
    random = np.random.default_rng(1)
    likelihood, exact = linear_model(random, sentences=1, size=1, observed=1)
    log_weights = annealing.annealed_log_weights(likelihood, (1, 40_000, 1), 4, 2, random)
    ratios = np.exp(log_weights[0] + exact[0])
    assert abs(ratios.mean() - 1.0) < 4 * ratios.std() / np.sqrt(ratios.size)


def test_leapfrog_is_reversible_and_keeps_energy():
    random = np.random.default_rng(2)
    likelihood, _ = linear_model(random)
    z, momentum = random.standard_normal((2, 3, 5, 4))
    start = annealing.Point(z, *likelihood(z))
    step = np.full((3, 1, 1), 1e-3)
    there, speed = annealing.leapfrog(likelihood, start, momentum, 0.5, step, 20)
    back, speed_back = annealing.leapfrog(likelihood, there, -speed, 0.5, step, 20)
    assert back.z == pytest.approx(start.z, abs=1e-9) and -speed_back == pytest.approx(momentum)
    before = start.energy(0.5) + 0.5 * (momentum**2).sum(-1)
    after = there.energy(0.5) + 0.5 * (speed**2).sum(-1)
    assert after == pytest.approx(before, rel=1e-3)
    assert np.abs(there.z - start.z).max() > 0.01


def test_temperatures_rise_from_0_to_1():
    values = annealing.sigmoid_temperatures(10)
    assert values[0] == 0 and values[-1] == 1 and (np.diff(values) > 0).all() and len(values) == 11
