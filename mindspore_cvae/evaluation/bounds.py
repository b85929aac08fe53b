"""Valid columns: exact divergences of Gaussian posteriors, and importance-weighted likelihood
bounds.

Pure functions on NumPy arrays in float64, in nats: N sentences, Z latent dimensions, K draws.
Which number is a bound of what, and why the paper's estimators are none, is said in
docs/use/metrics.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular
from scipy.spatial.distance import cdist
from scipy.special import softmax

from mindspore_cvae.evaluation.estimators import log_mean_exp

EPSILON = float(np.finfo(np.float64).eps)
LOG_2_PI = float(np.log(2.0 * np.pi))
PAIRS_PER_CHUNK = 1 << 23
"""Densities of (draw, sentence) pairs that are held in memory at a time."""


@dataclass(frozen=True)
class GaussianPosterior:
    """q(z|x) of N sentences where it is exactly Gaussian: N(mu_n, A diag(s_n^2) A^T).

    Kept as axes and standard deviations along them: a covariance of condition 1e16, which two
    noise weights of very unlike size make, has lost its narrow directions in float64.

    Attributes:
        mean: (N, Z), mu.
        scales: (N, Z), or (1, Z) where every sentence has the same (affine implicit posterior); 0
            along a direction in which q(z|x) has no width.
        axes: (Z, Z), A, orthogonal: the directions are its columns.
    """

    mean: np.ndarray
    scales: np.ndarray
    axes: np.ndarray

    @classmethod
    def diagonal(cls, mean: np.ndarray, log_variance: np.ndarray) -> GaussianPosterior:
        """Of means and log-variances, (N, Z) each."""
        return cls(mean, np.exp(0.5 * log_variance), np.eye(mean.shape[1]))

    @classmethod
    def affine(
        cls, h: np.ndarray, from_hidden: np.ndarray, bias: np.ndarray, from_noise: np.ndarray
    ) -> GaussianPosterior:
        """Of z = W_h h + b + W_eps eps: N(W_h h + b, W_eps W_eps^T), by W_eps = A diag(s) V^T.

        h (N, H), from_hidden (Z, H), bias (Z,), from_noise (Z, noise size).
        """
        mean = h.astype(np.float64) @ from_hidden.astype(np.float64).T + bias
        axes, found, _ = np.linalg.svd(from_noise.astype(np.float64))
        # Rounding can make a dimension that is lost look like one that is merely narrow.
        found = np.where(found > found[0] * max(from_noise.shape) * EPSILON, found, 0.0)
        scales = np.zeros(len(from_noise))
        scales[: len(found)] = found
        return cls(mean, scales[None], axes)

    def first(self, count: int | None) -> GaussianPosterior:
        """Of the first so many sentences; None for all."""
        scales = self.scales if len(self.scales) == 1 else self.scales[:count]
        return GaussianPosterior(self.mean[:count], scales, self.axes)

    @property
    def covariance(self) -> np.ndarray:
        """A diag(s^2) A^T, (1 or N, Z, Z)."""
        factors = self.axes * self.scales[:, None, :]
        return factors @ factors.transpose(0, 2, 1)

    def log_determinant(self) -> np.ndarray:
        """log det of the covariances, (1,) or (N,); -inf where one is singular."""
        with np.errstate(divide="ignore"):
            return 2.0 * np.log(self.scales).sum(1)

    def along_axes(self, points: np.ndarray) -> np.ndarray:
        """A^T z: coordinates in which every covariance is diagonal. (..., Z) -> (..., Z)."""
        return points @ self.axes


def gaussian_kl(posterior: GaussianPosterior) -> np.ndarray:
    """KL(N(mu, S) || N(0, I)) = 1/2 (tr S + mu^T mu - Z - log det S) a sentence, (N,).

    Infinite where S is singular, as it is when there are fewer noise than latent dimensions.
    """
    trace = (posterior.scales**2).sum(1)
    size = posterior.mean.shape[1]
    return 0.5 * (trace + (posterior.mean**2).sum(1) - size - posterior.log_determinant())


def aggregated_log_density(posterior: GaussianPosterior, points: np.ndarray) -> np.ndarray:
    """log q(z) = log 1/N sum_n q(z|x_n), the aggregated posterior of all N sentences.

    points (M, Z) are A^T z, see :meth:`GaussianPosterior.along_axes` -> (M,).
    """
    size = points.shape[1]
    means = posterior.along_axes(posterior.mean)
    squares = _common_squares if len(posterior.scales) == 1 else _own_squares
    result = np.empty(len(points))
    rows = max(1, PAIRS_PER_CHUNK // len(means))
    for start in range(0, len(points), rows):
        part = slice(start, start + rows)
        distances = squares(points[part], means, posterior.scales)
        log_densities = -0.5 * (distances + posterior.log_determinant() + size * LOG_2_PI)
        result[part] = log_mean_exp(log_densities, 1)
    return result


def _common_squares(points: np.ndarray, means: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """sum_j (z_j - mu_nj)^2 / s_j^2 of all pairs, from differences: products of large numbers
    would lose them. (M, Z), (N, Z), (1, Z) -> (M, N)."""
    return cdist(points / scales, means / scales, "sqeuclidean")


def _own_squares(points: np.ndarray, means: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """sum_j (z_j - mu_nj)^2 / s_nj^2 of all pairs, as one matrix product. (M, Z), (N, Z), (N, Z)
    -> (M, N)."""
    precision = scales**-2.0
    linear = precision * means
    constant = (linear * means).sum(1, keepdims=True)
    weights = np.concatenate([precision, -2.0 * linear, constant], 1)
    return np.concatenate([points**2, points, np.ones((len(points), 1))], 1) @ weights.T


def mutual_information(posterior: GaussianPosterior, noise: np.ndarray) -> np.ndarray:
    """I(x, z) = E_x E_q [ log q(z|x) - log q(z) ] with q(z) over all N sentences, a sentence (N,).

    Both densities are read at the same draws, so that no draw says more than ln N, which is where
    a posterior that tells all sentences apart ends: the closed form of E_q log q(z|x) would leave
    the scatter of the draws in the difference. They are made here in float64: those of a model are
    rounded to float32, which a narrow q(z|x) takes for points far outside. NaN where a covariance
    is singular, so that q(z|x) has no density.

    Args:
        posterior: of all sentences of the split.
        noise: (N, S, Z) standard normal numbers, for S draws of each sentence's q(z|x).
    """
    sentences, _draws, size = noise.shape
    log_determinant = posterior.log_determinant()
    if np.isinf(log_determinant).any():
        return np.full(sentences, np.nan)
    means, scales = posterior.along_axes(posterior.mean)[:, None], posterior.scales[:, None]
    points = means + scales * noise
    # From the points, as the aggregated density is: adding the means has rounded the noise.
    squares = ((points / scales - means / scales) ** 2).sum(2)
    own = -0.5 * (squares + log_determinant[:, None] + size * LOG_2_PI)
    aggregated = aggregated_log_density(posterior, points.reshape(-1, size))
    return (own - aggregated.reshape(sentences, -1)).mean(1)


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
        """Of a fit with covariance V = S + inflation^2 I: a nearly degenerate posterior is much
        narrower than the true posterior p(z|x), which is what a proposal should resemble.

        mean (B, Z), covariance (1 or B, Z, Z).
        """
        return cls._of(mean, _widened(covariance, inflation), prior_share)

    @classmethod
    def product(
        cls, mean: np.ndarray, covariance: np.ndarray, inflation: float, prior_share: float
    ) -> Proposal:
        """N(mu, V) times the prior, N((I + V)^-1 mu, (I + V)^-1 V) with V as in :meth:`inflated`.

        What q(z|x) says of x, made the likelihood of a conjugate model: where q is nearly a point,
        log p(z) / r(z) of the plain fit varies by about |mu|^2, and here it does not.
        """
        widened = _widened(covariance, inflation)
        size = mean.shape[1]
        shrunk = np.linalg.solve(np.eye(size) + widened, widened)
        # I - (I + V)^-1 V = (I + V)^-1
        centre = mean - (shrunk @ mean[:, :, None])[:, :, 0]
        return cls._of(centre, 0.5 * (shrunk + shrunk.transpose(0, 2, 1)), prior_share)

    @classmethod
    def _of(cls, mean: np.ndarray, covariance: np.ndarray, prior_share: float) -> Proposal:
        factor = np.linalg.cholesky(covariance)
        return cls(mean, np.broadcast_to(factor, (len(mean), *factor.shape[1:])), prior_share)

    def of(self, index: np.ndarray) -> Proposal:
        """Those of some of the sentences."""
        return Proposal(self.mean[index], self.factor[index], self.prior_share)

    def widened(self, factor: float) -> Proposal:
        """With ``factor`` times the standard deviations."""
        return Proposal(self.mean, factor * self.factor, self.prior_share)

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
        centred = (z - self.mean[:, None]).transpose(0, 2, 1)
        pairs = zip(self.factor, centred, strict=True)
        whitened = np.stack([solve_triangular(*pair, lower=True) for pair in pairs])
        log_determinant = np.log(np.diagonal(self.factor, axis1=1, axis2=2)).sum(1)
        gaussian = -0.5 * ((whitened**2).sum(1) + z.shape[2] * LOG_2_PI) - log_determinant[:, None]
        if share == 1.0:
            return log_prior(z)
        return np.logaddexp(np.log1p(-share) + gaussian, np.log(share) + log_prior(z))


def _widened(covariance: np.ndarray, inflation: float) -> np.ndarray:
    """V = S + inflation^2 I."""
    return covariance + inflation**2 * np.eye(covariance.shape[-1])


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
    weights = softmax(log_weights, 1)
    return weights.sum(1) ** 2 / (weights**2).sum(1)
