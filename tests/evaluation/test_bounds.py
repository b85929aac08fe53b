"""Valid columns against closed forms, SciPy-free densities, quadrature and Monte Carlo."""

from __future__ import annotations

import numpy as np
import pytest

from mindspore_cvae.evaluation import bounds, estimators
from mindspore_cvae.evaluation.bounds import GaussianPosterior, Proposal


@pytest.fixture
def random():
    return np.random.default_rng(3)


def covariances(random, count, size):
    """Symmetric positive definite matrices."""
    factors = random.normal(size=(count, size, size))
    return factors @ factors.transpose(0, 2, 1) + 0.2 * np.eye(size)


def standard(mean):
    """N(mean, I) of every sentence, in one family."""
    return GaussianPosterior(mean, np.ones((1, mean.shape[1])), np.eye(mean.shape[1]))


def with_noise_weights(random, mean, weights):
    """The affine posterior with these means (N, Z) and weights of the noise (Z, noise size)."""
    size = mean.shape[1]
    return GaussianPosterior.affine(mean, np.eye(size), np.zeros(size), weights)


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
    prior = standard(np.zeros((2, 3)))
    assert bounds.gaussian_kl(prior) == pytest.approx([0.0, 0.0])


def test_kl_of_full_covariances_equals_monte_carlo(random):
    weights = random.normal(size=(3, 4))
    covariance = (weights @ weights.T)[None]
    posterior = with_noise_weights(random, random.normal(size=(2, 3)), weights)
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
        noise = random.normal(size=(1, 5, 3))
        assert np.isnan(bounds.mutual_information(posterior, noise)).all()
    flat = GaussianPosterior.diagonal(np.zeros((2, 2)), np.array([[0.0, 0.0], [0.0, -1e4]]))
    assert np.isnan(bounds.mutual_information(flat, random.normal(size=(2, 5, 2)))).all()


def test_affine_moments_equal_those_of_its_draws(random):
    h, bias = random.normal(size=(2, 5)), random.normal(size=3)
    from_hidden, from_noise = random.normal(size=(3, 5)), random.normal(size=(3, 4))
    posterior = GaussianPosterior.affine(h, from_hidden, bias, from_noise)
    draws = h @ from_hidden.T + bias + random.normal(size=(400_000, 1, 4)) @ from_noise.T
    assert draws.mean(0) == pytest.approx(posterior.mean, abs=0.02)
    assert np.cov(draws[:, 1].T) == pytest.approx(posterior.covariance[0], abs=0.06)


@pytest.fixture(params=["shared", "own"])
def posterior(request, random):
    """Six sentences that share one full covariance, or have a diagonal one each."""
    mean = random.normal(size=(6, 3))
    if request.param == "shared":
        return with_noise_weights(random, mean, random.normal(size=(3, 5)))
    return GaussianPosterior.diagonal(mean, random.normal(size=(6, 3)))


def test_aggregated_density_equals_the_sum_over_sentences(random, posterior):
    covariance = np.broadcast_to(posterior.covariance, (6, 3, 3))
    z = random.normal(size=(9, 3))
    by_hand = [
        np.log(
            np.mean(
                [
                    np.exp(log_density(point, mean, own))
                    for mean, own in zip(posterior.mean, covariance, strict=True)
                ]
            )
        )
        for point in z
    ]
    points = posterior.along_axes(z)
    assert bounds.aggregated_log_density(posterior, points) == pytest.approx(by_hand, abs=1e-10)


def test_aggregated_density_does_not_depend_on_chunks(random, posterior, monkeypatch):
    z = random.normal(size=(9, 3))
    whole = bounds.aggregated_log_density(posterior, z)
    monkeypatch.setattr(bounds, "PAIRS_PER_CHUNK", 12)
    assert bounds.aggregated_log_density(posterior, z) == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("condition", [1e2, 1e6, 1e8])
def test_unlike_widths_of_the_noise_lose_no_digits(random, condition):
    """z = W eps with W = A diag(s) B: KL = 1/2 sum (s^2 - 1) - sum ln s + |mu|^2 / 2, and sentences
    that differ along the narrowest direction alone are told apart, to ln N and no further."""
    size, sentences = 16, 64
    axes, _ = np.linalg.qr(random.normal(size=(size, size)))
    turned, _ = np.linalg.qr(random.normal(size=(size, size)))
    scales = np.geomspace(1.0, 1.0 / condition, size)
    mean = 10.0 * np.arange(sentences)[:, None] * scales[-1] * axes[:, -1]
    posterior = with_noise_weights(random, mean, axes @ np.diag(scales) @ turned)
    squares = (mean**2).sum(1)
    exact = 0.5 * ((scales**2).sum() + squares - size) - np.log(scales).sum()
    assert bounds.gaussian_kl(posterior) == pytest.approx(exact, rel=1e-6)
    information = bounds.mutual_information(posterior, random.normal(size=(sentences, 500, size)))
    assert information.mean() == pytest.approx(np.log(sentences), abs=0.05)


def test_no_draw_exceeds_ln_n(random):
    """Where sentences lie apart, one draw of each says as much as a thousand: ln N, no more."""
    apart = GaussianPosterior(
        10.0 * random.normal(size=(300, 16)), np.full((1, 16), 0.01), np.eye(16)
    )
    information = bounds.mutual_information(apart, random.normal(size=(300, 1, 16)))
    np.testing.assert_allclose(information, np.log(300), rtol=1e-9)
    near = standard(0.5 * random.normal(size=(300, 16)))
    assert (bounds.mutual_information(near, random.normal(size=(300, 4, 16))) < np.log(300)).all()


def test_mutual_information_against_quadrature():
    """Two sentences in one dimension, unlike in width."""
    mean, scales = np.array([[-0.7], [0.9]]), np.array([[0.5], [1.2]])
    posterior = GaussianPosterior(mean, scales, np.eye(1))
    grid = np.linspace(-12, 12, 40_001)
    densities = np.exp(-0.5 * ((grid - mean) / scales) ** 2) / (scales * np.sqrt(2 * np.pi))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.nan_to_num(densities * np.log(densities / densities.mean(0)))
    exact = ratios.sum(1) * (grid[1] - grid[0])
    noise = np.random.default_rng(4).normal(size=(2, 200_000, 1))
    np.testing.assert_allclose(bounds.mutual_information(posterior, noise), exact, atol=0.005)


def test_mutual_information_ends_at_ln_n_and_at_zero(random):
    apart = standard(100.0 * np.arange(8.0)[:, None] * np.ones((8, 2)))
    noise = random.normal(size=(8, 4000, 2))
    assert bounds.mutual_information(apart, noise).mean() == pytest.approx(np.log(8), abs=0.03)
    equal = standard(np.zeros((8, 2)))
    assert bounds.mutual_information(equal, noise).mean() == pytest.approx(0.0, abs=0.03)


MEAN = np.array([[0.5, -0.3], [1.0, 0.2]])


@pytest.mark.parametrize("family", ["inflated", "product", "widened"])
def test_proposal_draws_have_the_density_that_it_states(random, family):
    """E_r[p(z) / r(z)] = 1 for the mixture exactly as it is drawn, prior's share included."""
    covariance = 0.3 * covariances(random, 1, 2)
    proposal = {
        "inflated": lambda: Proposal.inflated(MEAN, covariance, 0.4, 0.1),
        "product": lambda: Proposal.product(MEAN, covariance, 0.4, 0.1),
        "widened": lambda: Proposal.inflated(MEAN, covariance, 0.4, 0.1).widened(0.7),
    }[family]()
    z = proposal.draw(random.normal(size=(2, 100_000, 2)))
    ratios = np.exp(bounds.log_prior(z) - proposal.log_density(z))
    error = ratios.std(1) / np.sqrt(ratios.shape[1])
    assert (np.abs(ratios.mean(1) - 1.0) < 4 * error).all()
    assert ratios.max() <= 10.0 + 1e-9


def test_the_product_with_the_prior_is_the_posterior_of_a_conjugate_model(random):
    """Precisions add: (V^-1 + I)^-1 and (V^-1 + I)^-1 V^-1 mu, by hand from inverses."""
    covariance = covariances(random, 2, 2)
    proposal = Proposal.product(MEAN, covariance, 0.4, 0.05)
    for row in range(2):
        precision = np.linalg.inv(covariance[row] + 0.16 * np.eye(2))
        expected = np.linalg.inv(precision + np.eye(2))
        assert proposal.factor[row] @ proposal.factor[row].T == pytest.approx(expected)
        assert proposal.mean[row] == pytest.approx(expected @ precision @ MEAN[row])


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
