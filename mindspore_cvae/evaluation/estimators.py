"""The columns of the tables: one function a quantity, on NumPy arrays of per-sentence values, in
nats.

The paper's estimators, defined as the paper and its released code compute them. Which of them are
bounds, and which are not, is said in docs/use/metrics.md.
"""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

ACTIVE_VARIANCE = 0.01
"""A latent dimension is active when its posterior mean varies at least this much over sentences
(Section 4.2)."""
MUTUAL_INFORMATION_BATCH = 32
"""Sentences over which the Gaussian rows' aggregated posterior is taken; ln 32 is the ceiling of
their MI."""


def dual_kl(critic_posterior: np.ndarray, exp_critic_prior: np.ndarray) -> np.ndarray:
    """E_q f - E_p exp f + 1 a sentence, Eq. 3 with the released evaluation's + 1; can be negative.

    (N,) means of f(x, z_q) and (N,) means of exp f(x, z_p) -> (N,).
    """
    return critic_posterior - exp_critic_prior + 1.0


def gaussian_kl(mean: np.ndarray, log_variance: np.ndarray) -> np.ndarray:
    """KL(N(mean, diag e^log_variance) || N(0, I)) a sentence. (N, Z), (N, Z) -> (N,)."""
    return 0.5 * (mean**2 + np.exp(log_variance) - 1.0 - log_variance).sum(1)


def negative_elbo(reconstruction: np.ndarray, kl: np.ndarray) -> np.ndarray:
    """-ELBO = rec + KL, Eq. 1. (N,), (N,) -> (N,)."""
    return reconstruction + kl


def perplexity(total_nats: float, tokens: int) -> float:
    """exp(nats / predicted tokens); </s> is predicted, <s> is not. Infinite where it is no number
    any more: words between blanks may be whole sentences."""
    with np.errstate(over="ignore"):
        return float(np.exp(total_nats / tokens))


def active_units(posterior_means: np.ndarray) -> int:
    """AU: dimensions whose posterior mean has a variance over sentences of 0.01 or more (Section
    4.2). (N, Z)."""
    return int((posterior_means.var(0) >= ACTIVE_VARIANCE).sum())


def log_normal(z: np.ndarray, mean: np.ndarray, log_variance: np.ndarray) -> np.ndarray:
    """log N(z; mean, diag e^log_variance), summed over the last axis; the others broadcast."""
    squares = (z - mean) ** 2 / np.exp(log_variance)
    return -0.5 * (squares + log_variance + np.log(2.0 * np.pi)).sum(-1)


def log_mean_exp(values: np.ndarray, axis: int) -> np.ndarray:
    """log(mean(exp(v))) along an axis, without overflow."""
    return logsumexp(values, axis) - np.log(values.shape[axis])


def gaussian_mutual_information(
    z: np.ndarray, mean: np.ndarray, log_variance: np.ndarray
) -> np.ndarray:
    """I(x, z) = E_x[ E_q log q(z|x) - log q(z) ] a sentence, q(z) aggregated within batches of 32.

    E_q log q(z|x) is the closed-form negative entropy, log q(z) is taken at one z a sentence, as
    in the code of He et al. 2019 from which the paper's Gaussian rows stem.

    Args:
        z: (N, Z), one draw a sentence.
        mean, log_variance: (N, Z).

    Returns:
        (N,) nats, whose mean is at most ln 32 in expectation.
    """
    negative_entropy = -0.5 * (1.0 + log_variance + np.log(2.0 * np.pi)).sum(1)
    aggregated = np.empty(len(z))
    for start in range(0, len(z), MUTUAL_INFORMATION_BATCH):
        batch = slice(start, start + MUTUAL_INFORMATION_BATCH)
        pairs = log_normal(z[batch, None], mean[None, batch], log_variance[None, batch])
        aggregated[batch] = log_mean_exp(pairs, 1)
    return negative_entropy - aggregated
