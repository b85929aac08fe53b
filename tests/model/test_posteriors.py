"""Families of posteriors against NumPy and against the distributions that they claim to be."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import numpy_twins as twins
import pytest
import tiny
from mindspore import nn

from mindspore_cvae.config.keys import Model
from mindspore_cvae.model.posteriors import POSTERIORS
from mindspore_cvae.systems import SYSTEMS
from mindspore_cvae.training.noise import NoiseMaker

HIDDEN, LATENT, NOISE = 5, 4, 3
SIZES = SimpleNamespace(
    hidden_size=HIDDEN,
    latent_size=LATENT,
    noise_size=NOISE,
    posterior_size=6,
    posterior_layers=2,
)


class Draw(nn.Cell):
    """h and noise to (parameters, z)."""

    def __init__(self, posterior):
        super().__init__()
        self.posterior = posterior

    def construct(self, h, noise):
        parameters = self.posterior(h)
        return parameters, self.posterior.sample(parameters, noise)


def build(name):
    posterior = POSTERIORS[name](SIZES)
    posterior.update_parameters_name()
    return posterior, tiny.randomise(posterior)


def draw(posterior, h, noise):
    h, noise = (None if array is None else array.astype(np.float32) for array in (h, noise))
    parameters, z = Draw(posterior)(*tiny.tensors([h, noise]))
    return parameters.asnumpy(), z.asnumpy()


def deterministic(weights, h, noise):
    mean = h @ weights["latent.weight"].T + weights["latent.bias"]
    return mean, mean


def gaussian(weights, h, noise):
    both = h @ weights["mean_and_log_variance.weight"].T + weights["mean_and_log_variance.bias"]
    mean, log_variance = both[:, :LATENT], both[:, LATENT:]
    return both, mean + np.sqrt(np.exp(log_variance)) * noise


def affine(weights, h, noise):
    """W [h ; eps] + b."""
    matrix = np.hstack([weights["from_hidden.weight"], weights["from_noise.weight"]])
    return h, np.hstack([h, noise]) @ matrix.T + weights["from_hidden.bias"]


def mlp(weights, h, noise):
    layers = [(weights[f"layers.{i}.weight"], weights[f"layers.{i}.bias"]) for i in (0, 2, 4)]
    return h, twins.multilayer_perceptron(layers, np.hstack([h, noise]))


def none(weights, h, noise):
    return np.zeros((len(h), LATENT)), np.zeros((len(h), LATENT))


TWINS = {
    **{"deterministic": deterministic, "gaussian": gaussian, "affine": affine, "mlp": mlp},
    "none": none,
}


def noise_for(posterior, rows, seed=1):
    if not posterior.noise_size:
        return None
    return np.random.default_rng(seed).normal(size=(rows, posterior.noise_size))


@pytest.mark.parametrize("mode", tiny.MODES)
@pytest.mark.parametrize("name", POSTERIORS)
def test_equals_numpy(name, mode):
    posterior, weights = build(name)
    h = np.random.default_rng(0).normal(size=(6, HIDDEN))
    noise = noise_for(posterior, 6)
    with tiny.execution(mode):
        parameters, z = draw(posterior, h, noise)
    expected_parameters, expected_z = TWINS[name](weights, h, noise)
    np.testing.assert_allclose(parameters, expected_parameters, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(z, expected_z, rtol=2e-5, atol=5e-6)


@pytest.mark.parametrize("name", POSTERIORS)
def test_noise_sizes_agree_with_what_is_drawn(name):
    sizes = Model(latent_size=LATENT, noise_size=NOISE)
    system = replace(SYSTEMS["vae"], posterior=name)
    noise = NoiseMaker(system, sizes, 1, 0)(0, tiny.rows([[5, 6]], 4)).posterior
    drawn = 0 if noise is None else noise.shape[1]
    assert drawn == POSTERIORS[name](SIZES).noise_size


def many_samples(name, count=40_000):
    posterior, weights = build(name)
    h = np.tile(np.random.default_rng(0).normal(size=(1, HIDDEN)), (count, 1))
    noise = noise_for(posterior, count)
    parameters, z = draw(posterior, h, noise)
    return weights, h[0], parameters[0], z


def test_gaussian_samples_have_its_mean_and_variance():
    _, _, parameters, z = many_samples("gaussian")
    mean, log_variance = np.split(parameters, 2)
    error = 5 * np.exp(log_variance / 2) / np.sqrt(len(z))
    assert (np.abs(z.mean(0) - mean) < error).all()
    np.testing.assert_allclose(z.var(0), np.exp(log_variance), rtol=0.05)
    off_diagonal = np.corrcoef(z.T) - np.eye(LATENT)
    assert np.abs(off_diagonal).max() < 0.03


def test_affine_samples_are_gaussian_with_the_noise_weights_covariance():
    """N(W_h h + b, W_eps W_eps^T)."""
    weights, h, _, z = many_samples("affine")
    covariance = weights["from_noise.weight"] @ weights["from_noise.weight"].T
    mean = weights["from_hidden.weight"] @ h + weights["from_hidden.bias"]
    scale = np.sqrt(np.diag(covariance))
    assert (np.abs(z.mean(0) - mean) < 5 * scale / np.sqrt(len(z))).all()
    np.testing.assert_allclose(np.cov(z.T), covariance, atol=0.04 * scale.max() ** 2)


def test_affine_noise_does_not_depend_on_the_sentence_and_mlp_noise_does():
    """z(h, eps) - z(h, 0) is the same for all h where q has one covariance for all x."""
    random = np.random.default_rng(0)
    h, noise = random.normal(size=(6, HIDDEN)), np.tile(random.normal(size=(1, NOISE)), (6, 1))
    spread = {}
    for name in ("affine", "mlp"):
        posterior, _ = build(name)
        moved = draw(posterior, h, noise)[1] - draw(posterior, h, 0 * noise)[1]
        spread[name] = np.abs(moved - moved[0]).max()
    assert spread["affine"] < 1e-5 and spread["mlp"] > 0.1


@pytest.mark.parametrize("name", ["deterministic", "gaussian", "affine"])
def test_closed_form_means_are_the_means_of_samples(name):
    posterior, _ = build(name)
    h = np.random.default_rng(0).normal(size=(6, HIDDEN))
    noise = noise_for(posterior, 6)
    parameters, with_no_noise = draw(posterior, h, None if noise is None else 0 * noise)
    mean = posterior.mean(*tiny.tensors([parameters])).asnumpy()
    np.testing.assert_allclose(mean, with_no_noise, rtol=1e-6)
