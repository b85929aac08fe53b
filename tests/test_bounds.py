"""Valid columns against closed forms, SciPy-free densities, quadrature and Monte Carlo."""

from __future__ import annotations

import numpy as np
import pytest

from mindspore_cvae import bounds, estimators
from mindspore_cvae.bounds import GaussianPosterior, Proposal


@pytest.fixture
def random():
    return np.random.default_rng(3)


def covariances(random, count, size):
    """Symmetric positive definite matrices."""
    factors = random.normal(size=(count, size, size))
    return factors @ factors.transpose(0, 2, 1) + 0.2 * np.eye(size)


def log_density(z, mean, covariance):
    """log N(z; mean, covariance) of one point, from its definition."""
    difference = z - mean
    return -0.5 * (
        difference @ np.linalg.inv(covariance) @ difference
        + np.log(np.linalg.det(2.0 * np.pi * covariance))
    )


def test_kl_of_hand_worked_gaussians():
    posterior = GaussianPosterior.diagonal(np.array([[1.0, -2.0]]), np.log([[0.5, 3.0]]))
    by_hand = 0.5 * (1.0 + 4.0 + 0.5 + 3.0 - 2.0 - np.log(0.5) - np.log(3.0))
    assert bounds.gaussian_kl(posterior) == pytest.approx([by_hand])
    prior = GaussianPosterior(np.zeros((2, 3)), np.eye(3)[None])
    assert bounds.gaussian_kl(prior) == pytest.approx([0.0, 0.0])


def test_kl_of_full_covariances_equals_monte_carlo(random):
    covariance = covariances(random, 1, 3)
    posterior = GaussianPosterior(random.normal(size=(2, 3)), covariance)
    z = (
        posterior.mean[:, None]
        + random.normal(size=(2, 200_000, 3)) @ np.linalg.cholesky(covariance[0]).T
    )
    for row in range(2):
        centred = z[row] - posterior.mean[row]
        squares = np.einsum("ki,ij,kj->k", centred, np.linalg.inv(covariance[0]), centred)
        log_q = -0.5 * (squares + np.log(np.linalg.det(2.0 * np.pi * covariance[0])))
        ratios = log_q - bounds.log_prior(z[row])
        error = ratios.std() / np.sqrt(len(ratios))
        assert abs(ratios.mean() - bounds.gaussian_kl(posterior)[row]) < 4 * error


def test_fewer_noise_than_latent_dimensions(random):
    """The KL is infinite, and no density is left for an MI, whatever rounding makes of it."""
    for weights in [np.ones((3, 2)), *(random.normal(size=(3, 2)) for _ in range(20))]:
        posterior = GaussianPosterior.affine(np.ones((1, 4)), np.ones((3, 4)), np.zeros(3), weights)
        assert np.isinf(bounds.gaussian_kl(posterior)).all()
        z = posterior.mean[:, None] + random.normal(size=(1, 5, 2)) @ weights.T
        assert np.isnan(bounds.mutual_information(posterior, z)).all()
    flat = GaussianPosterior.diagonal(np.zeros((2, 2)), np.array([[0.0, 0.0], [0.0, -1e4]]))
    assert np.isnan(bounds.mutual_information(flat, random.normal(size=(2, 5, 2)))).all()


def test_affine_moments_equal_those_of_its_draws(random):
    h, bias = random.normal(size=(2, 5)), random.normal(size=3)
    from_hidden, from_noise = random.normal(size=(3, 5)), random.normal(size=(3, 4))
    posterior = GaussianPosterior.affine(h, from_hidden, bias, from_noise)
    draws = h @ from_hidden.T + bias + random.normal(size=(400_000, 1, 4)) @ from_noise.T
    assert draws.mean(0) == pytest.approx(posterior.mean, abs=0.02)
    assert np.cov(draws[:, 1].T) == pytest.approx(posterior.covariance[0], abs=0.06)


@pytest.mark.parametrize("shared", [True, False])
def test_aggregated_density_equals_the_sum_over_sentences(random, shared):
    covariance = covariances(random, 1 if shared else 6, 3)
    posterior = GaussianPosterior(random.normal(size=(6, 3)), covariance)
    z = random.normal(size=(9, 3))
    by_hand = [
        np.log(
            np.mean(
                [
                    np.exp(log_density(point, mean, covariance[0 if shared else number]))
                    for number, mean in enumerate(posterior.mean)
                ]
            )
        )
        for point in z
    ]
    assert bounds.aggregated_log_density(posterior, z) == pytest.approx(by_hand, abs=1e-10)


def test_aggregated_density_does_not_depend_on_chunks(random, monkeypatch):
    posterior = GaussianPosterior(random.normal(size=(6, 3)), covariances(random, 6, 3))
    z = random.normal(size=(9, 3))
    whole = bounds.aggregated_log_density(posterior, z)
    monkeypatch.setattr(bounds, "PAIRS_PER_CHUNK", 12)
    assert bounds.aggregated_log_density(posterior, z) == pytest.approx(whole, abs=1e-12)


def test_mutual_information_ends_at_ln_n_and_at_zero(random):
    apart = GaussianPosterior(100.0 * np.arange(8.0)[:, None] * np.ones((8, 2)), np.eye(2)[None])
    z = apart.mean[:, None] + random.normal(size=(8, 4000, 2))
    assert bounds.mutual_information(apart, z).mean() == pytest.approx(np.log(8), abs=0.03)
    equal = GaussianPosterior(np.zeros((8, 2)), np.eye(2)[None])
    z = random.normal(size=(8, 4000, 2))
    assert bounds.mutual_information(equal, z).mean() == pytest.approx(0.0, abs=0.03)


def test_proposal_draws_have_the_density_that_it_states(random):
    """E_r[p(z) / r(z)] = 1 for the mixture exactly as it is drawn, prior's share included."""
    proposal = Proposal.inflated(
        np.array([[0.5, -0.3], [1.0, 0.2]]), 0.3 * covariances(random, 1, 2), 0.4, 0.1
    )
    z = proposal.draw(random.normal(size=(2, 100_000, 2)))
    ratios = np.exp(bounds.log_prior(z) - proposal.log_density(z))
    error = ratios.std(1) / np.sqrt(ratios.shape[1])
    assert (np.abs(ratios.mean(1) - 1.0) < 4 * error).all()
    assert ratios.max() <= 10.0 + 1e-9


def test_weights_of_a_conjugate_model_give_the_evidence(random):
    """x = z + unit noise with z ~ N(0, I): p(x) = N(0, 2 I), and the exact posterior as proposal
    without prior share would have zero variance."""
    x = np.array([[1.2, -0.7]])
    true_nll = 0.5 * (x**2).sum() / 2.0 + np.log(4.0 * np.pi)
    proposal = Proposal.inflated(x / 2.0, 0.5 * np.eye(2)[None], 1e-6, 0.01)
    z = proposal.draw(random.normal(size=(1, 2000, 2)))
    nll = 0.5 * ((x[:, None] - z) ** 2).sum(-1) + np.log(2.0 * np.pi)
    weights = bounds.log_weights(nll, z, proposal)
    assert bounds.importance_weighted_nll(weights) == pytest.approx([true_nll], abs=0.01)
    assert bounds.effective_sample_size(weights)[0] > 1900


def test_effective_sample_size_of_hand_worked_weights():
    weights = np.log(
        np.array([[1.0, 1.0, 1.0, 1.0], [1.0, 1e-9, 1e-9, 1e-9], [3.0, 1.0, 1e-9, 1e-9]])
    )
    assert bounds.effective_sample_size(weights) == pytest.approx([4.0, 1.0, 16.0 / 10.0], rel=1e-6)
    assert bounds.importance_weighted_nll(weights)[0] == pytest.approx(0.0)
    assert bounds.importance_weighted_nll(weights)[2] == pytest.approx(0.0, abs=1e-6)


def test_paper_estimators_by_hand():
    assert estimators.dual_kl(np.array([2.0]), np.array([0.5])) == pytest.approx([2.5])
    assert estimators.perplexity(6.0, 3) == pytest.approx(np.exp(2.0))
    means = np.array([[0.0, 1.0, 5.0], [0.2, 1.0, 5.1]])
    assert estimators.active_units(means) == 1  # variances 0.01, 0, 0.0025
    mean, log_variance = np.array([[1.0, 2.0]]), np.log([[0.5, 2.0]])
    assert estimators.gaussian_kl(mean, log_variance) == pytest.approx([0.5 * (5 + 2.5 - 2)])


def test_gaussian_mutual_information_ends_at_ln_32(random):
    mean = 50.0 * np.arange(64.0)[:, None] * np.ones((64, 3))
    z = mean + random.normal(size=mean.shape)
    value = estimators.gaussian_mutual_information(z, mean, np.zeros_like(mean)).mean()
    assert value == pytest.approx(np.log(32), abs=0.5)
    shuffled = np.zeros_like(mean)
    value = estimators.gaussian_mutual_information(
        random.normal(size=mean.shape), shuffled, shuffled
    ).mean()
    assert value == pytest.approx(0.0, abs=0.5)
