"""Valid columns: exact divergences of Gaussian posteriors, and importance-weighted likelihood
bounds.

Pure functions on NumPy arrays in float64, in nats: N sentences, Z latent dimensions, K draws.
Which number is a bound of what, and why the paper's estimators are none, is said in
docs/metrics.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mindspore_cvae.estimators import log_mean_exp

LOG_2_PI = float(np.log(2.0 * np.pi))
PAIRS_PER_CHUNK = 1 << 23
"""Densities of (draw, sentence) pairs that are held in memory at a time."""


@dataclass(frozen=True)
class GaussianPosterior:
    """q(z|x) of N sentences where it is exactly Gaussian.

    Attributes:
        mean: (N, Z).
        covariance: (1, Z, Z), the same for every sentence (affine implicit posterior), or (N, Z,
            Z).
    """

    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def diagonal(cls, mean: np.ndarray, log_variance: np.ndarray) -> GaussianPosterior:
        """Of means and log-variances, (N, Z) each."""
        size = mean.shape[1]
        return cls(mean, np.exp(log_variance)[:, None, :] * np.eye(size))

    @classmethod
    def affine(
        cls, h: np.ndarray, from_hidden: np.ndarray, bias: np.ndarray, from_noise: np.ndarray
    ) -> GaussianPosterior:
        """Of z = W_h h + b + W_eps eps: N(W_h h + b, W_eps W_eps^T).

        h (N, H), from_hidden (Z, H), bias (Z,), from_noise (Z, noise size).
        """
        from_noise = from_noise.astype(np.float64)
        mean = h.astype(np.float64) @ from_hidden.astype(np.float64).T + bias
        return cls(mean, (from_noise @ from_noise.T)[None])

    def log_determinant(self) -> np.ndarray:
        """log det of the covariances, (1,) or (N,); -inf where one is singular in float64."""
        sign, value = np.linalg.slogdet(self.covariance)
        is_regular = sign > 0
        if len(self.covariance) == 1:
            # Rounding can make a dimension that is lost look like one that is merely narrow.
            rank = np.linalg.matrix_rank(self.covariance, hermitian=True)
            is_regular &= rank == self.mean.shape[1]
        return np.where(is_regular, value, -np.inf)


def gaussian_kl(posterior: GaussianPosterior) -> np.ndarray:
    """KL(N(mu, S) || N(0, I)) = 1/2 (tr S + mu^T mu - Z - log det S) a sentence, (N,).

    Infinite where S is singular, as it is when there are fewer noise than latent dimensions.
    """
    trace = np.trace(posterior.covariance, axis1=1, axis2=2)
    size = posterior.mean.shape[1]
    return 0.5 * (trace + (posterior.mean**2).sum(1) - size - posterior.log_determinant())


def aggregated_log_density(posterior: GaussianPosterior, z: np.ndarray) -> np.ndarray:
    """log q(z) = log 1/N sum_n q(z|x_n), the aggregated posterior of all N sentences. (M, Z) ->
    (M,)."""
    size = z.shape[1]
    _, log_determinant = np.linalg.slogdet(posterior.covariance)
    squares = _common_squares if len(posterior.covariance) == 1 else _own_squares
    result = np.empty(len(z))
    rows = max(1, PAIRS_PER_CHUNK // len(posterior.mean))
    for start in range(0, len(z), rows):
        part = slice(start, start + rows)
        log_densities = -0.5 * (squares(posterior, z[part]) + log_determinant + size * LOG_2_PI)
        result[part] = log_mean_exp(log_densities, 1)
    return result


def _common_squares(posterior: GaussianPosterior, z: np.ndarray) -> np.ndarray:
    """(z - mu_n)^T S^-1 (z - mu_n) of all pairs under one covariance. (M, Z) -> (M, N)."""
    # The inverse of an ill-conditioned S may not be positive in floating point; S itself is.
    factor = np.linalg.cholesky(posterior.covariance[0])
    centre = posterior.mean.mean(0)
    draws, means = (
        np.linalg.solve(factor, (points - centre).T).T for points in (z, posterior.mean)
    )
    return (draws**2).sum(1)[:, None] - 2.0 * draws @ means.T + (means**2).sum(1)


def _own_squares(posterior: GaussianPosterior, z: np.ndarray) -> np.ndarray:
    """(z - mu_n)^T S_n^-1 (z - mu_n) of all pairs, as one matrix product. (M, Z) -> (M, N)."""
    precision = np.linalg.inv(posterior.covariance)
    linear = np.einsum("nij,nj->ni", precision, posterior.mean)
    constant = (linear * posterior.mean).sum(1, keepdims=True)
    weights = np.concatenate([precision.reshape(len(precision), -1), -2.0 * linear, constant], 1)
    products = (z[:, :, None] * z[:, None, :]).reshape(len(z), -1)
    return np.concatenate([products, z, np.ones((len(z), 1))], 1) @ weights.T


def mutual_information(posterior: GaussianPosterior, z: np.ndarray) -> np.ndarray:
    """I(x, z) = E_x E_q [ log q(z|x) - log q(z) ] with q(z) over all N sentences, a sentence (N,).

    E_q log q(z|x) is closed-form; log q(z) is averaged over the draws. In expectation at most ln
    N, which is where a posterior that tells all sentences apart ends. NaN where a covariance is
    singular, so that q(z|x) has no density.

    Args:
        posterior: of all sentences of the split.
        z: (N, S, Z), S draws of each sentence's q(z|x).
    """
    sentences, draws, size = z.shape
    log_determinant = posterior.log_determinant()
    if np.isinf(log_determinant).any():
        return np.full(sentences, np.nan)
    negative_entropy = -0.5 * (size * (1.0 + LOG_2_PI) + log_determinant)
    aggregated = aggregated_log_density(posterior, z.reshape(-1, size))
    return negative_entropy - aggregated.reshape(sentences, draws).mean(1)


def log_prior(z: np.ndarray) -> np.ndarray:
    """log p(z) of N(0, I), over the last axis."""
    return -0.5 * ((z**2).sum(-1) + z.shape[-1] * LOG_2_PI)


@dataclass(frozen=True)
class Proposal:
    """r(z|x) of B sentences: a Gaussian with full covariance, and a share of the prior.

    The prior's share bounds every weight p(z) / r(z|x) by 1 / share, whatever the fit missed.

    Attributes:
        mean: (B, Z).
        factor: (B, Z, Z), lower Cholesky factor of the covariance.
        prior_share: in (0, 1).
    """

    mean: np.ndarray
    factor: np.ndarray
    prior_share: float

    @classmethod
    def inflated(
        cls, mean: np.ndarray, covariance: np.ndarray, inflation: float, prior_share: float
    ) -> Proposal:
        """Of a fit with covariance S + inflation^2 I: a nearly degenerate posterior is much
        narrower than the true posterior p(z|x), which is what a proposal should resemble.

        mean (B, Z), covariance (1 or B, Z, Z).
        """
        widened = covariance + inflation**2 * np.eye(mean.shape[1])
        factor = np.linalg.cholesky(widened)
        return cls(mean, np.broadcast_to(factor, (len(mean), *factor.shape[1:])), prior_share)

    def draw(self, noise: np.ndarray) -> np.ndarray:
        """K draws of each sentence from standard normal noise (B, K, Z) -> (B, K, Z).

        The first round(prior_share K), at least one, are the prior's, which makes the mixture
        exact instead of random.
        """
        z = self.mean[:, None] + noise @ self.factor.transpose(0, 2, 1)
        count = self.prior_draws(noise.shape[1])
        z[:, :count] = noise[:, :count]
        return z

    def prior_draws(self, draws: int) -> int:
        """How many of so many draws come from the prior."""
        return min(draws, max(1, round(self.prior_share * draws)))

    def log_density(self, z: np.ndarray) -> np.ndarray:
        """log r(z|x) of the mixture as :meth:`draw` draws it. (B, K, Z) -> (B, K)."""
        share = self.prior_draws(z.shape[1]) / z.shape[1]
        whitened = np.linalg.solve(self.factor, (z - self.mean[:, None]).transpose(0, 2, 1))
        log_determinant = np.log(np.diagonal(self.factor, axis1=1, axis2=2)).sum(1)
        gaussian = -0.5 * ((whitened**2).sum(1) + z.shape[2] * LOG_2_PI) - log_determinant[:, None]
        if share == 1.0:
            return log_prior(z)
        return np.logaddexp(np.log1p(-share) + gaussian, np.log(share) + log_prior(z))


def log_weights(nll: np.ndarray, z: np.ndarray, proposal: Proposal) -> np.ndarray:
    """log w_k = log p(x|z_k) + log p(z_k) - log r(z_k|x). nll (B, K) = -log p(x|z_k), z (B, K,
    Z)."""
    return -nll + log_prior(z) - proposal.log_density(z)


def importance_weighted_nll(log_weights: np.ndarray) -> np.ndarray:
    """IW-NLL = -log 1/K sum_k w_k: in expectation at least -log p(x), for any proposal. (B, K) ->
    (B,).

    Burda et al. 2016; it falls to -log p(x) as K grows.
    """
    return -log_mean_exp(log_weights, 1)


def effective_sample_size(log_weights: np.ndarray) -> np.ndarray:
    """(sum_k w_k)^2 / sum_k w_k^2, between 1 and K. (B, K) -> (B,)."""
    weights = np.exp(log_weights - log_weights.max(1, keepdims=True))
    return weights.sum(1) ** 2 / (weights**2).sum(1)
