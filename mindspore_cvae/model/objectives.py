"""The paper's objectives: one pure function an equation (Teng et al., UAI 2022).

Conventions: N sentences, Z latent dimensions. ``weight`` (N,) is 1 for a sentence and 0 for a row
that only fills up a fixed-shape batch; expectations and sums run over the sentences of weight 1.
Where a shape says (..., N), what stands before the sentences (views, critics) stays.
Everything is fp32, in nats, and differentiable; random numbers come in as arguments.
"""

from __future__ import annotations

from typing import NamedTuple

import mindspore as ms
from mindspore import Tensor, ops

EXPONENT_LIMIT = 30.0
"""Critic values are clamped here before exp: e^30 is far beyond any KL of interest and far from
overflow."""


def expectation(values: Tensor, weight: Tensor) -> Tensor:
    """E[v] = sum_i w_i v_i / sum_i w_i, (..., N) -> (...)."""
    return (values * weight).sum(-1) / weight.sum()


def bounded_exp(values: Tensor) -> Tensor:
    """exp(v), with v clamped at :data:`EXPONENT_LIMIT`."""
    return ops.exp(ops.minimum(values, Tensor(EXPONENT_LIMIT, ms.float32)))


def log_one_plus_sum_exp(values: Tensor, weight: Tensor) -> Tensor:
    """log(1 + sum_i w_i exp(v_i)) over the last axis, without overflow. (..., N) -> (...)."""
    shift = ops.stop_gradient(ops.relu(ops.amax(values * weight, -1)))
    exponents = (values - shift.expand_dims(-1)) * weight
    # log1p, for the last bits of log depend on how the threads of a CPU share the elements.
    sums = ops.exp(-shift) - 1.0 + (weight * ops.exp(exponents)).sum(-1)
    return shift + ops.log1p(sums)


def _log_one_plus_exp(values: Tensor) -> Tensor:
    # Not softplus: of several numbers its last bits, too, depend on how threads share them.
    return log_one_plus_sum_exp(values.expand_dims(-1), ops.ones(1, values.dtype))


def word_negative_log_likelihood(
    logits: Tensor, words: Tensor, others: Tensor, probabilities: Tensor
) -> Tensor:
    """-log p(x_t | x_<t, z) of each word, from another word r of which p is known: a_r - a_w -
    log p(r | x_<t, z).

    Args:
        logits: a (M, V), log p up to a constant a row.
        words: w (M,) int32.
        others: r (M,) int64; where p(w) underflows, p(r) must not.
        probabilities: p(r) (M,).

    Returns:
        (M,) nats a word.
    """
    of_others = ops.gather_elements(logits, 1, others.reshape(-1, 1)).squeeze(1)
    of_words = ops.gather_elements(logits, 1, words.reshape(-1, 1)).squeeze(1)
    # -log p, by log1p: the bits of ops.log depend on the number of threads.
    return of_others - of_words + ops.log1p((1 - probabilities) / probabilities)


def sentence_negative_log_likelihood(word_nll: Tensor, mask: Tensor) -> Tensor:
    """-log p(x|z) = -sum_t log p(x_t | x_<t, z), the reconstruction term of Eq. 1.

    Args:
        word_nll: (T, N) nats a word.
        mask: (T, N), 1 where a word is predicted (``</s>`` counts, padding does not).

    Returns:
        (N,) nats a sentence.
    """
    return (word_nll * mask).sum(0)


def bernoulli_negative_log_likelihood(logits: Tensor, bits: Tensor) -> Tensor:
    """-sum_k ( e_k log sigma(y_k) + (1 - e_k) log(1 - sigma(y_k)) ), Section 4.1.

    (N, K), (N, K) -> (N,).
    """
    # log(1 + e^y) - e y, with softplus in a form that no logit overflows.
    softplus = ops.relu(logits) + ops.log1p(ops.exp(-ops.abs(logits)))
    return (softplus - bits * logits).sum(1)


def square(x: Tensor) -> Tensor:
    """x^2. The gradient of ops.square has a power of a tensor (PowTensorScalar), which MindSpore
    states for Ascend alone."""
    return x * x


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, diag e^log_variance) || N(0, I)) = 1/2 sum_j (mu_j^2 + s_j^2 - 1 - log s_j^2).

    The regularizer of Eq. 1 in closed form. (N, Z), (N, Z) -> (N,).
    """
    return gaussian_kl_of_dimensions(mean, log_variance).sum(1)


def gaussian_kl_of_dimensions(mean: Tensor, log_variance: Tensor) -> Tensor:
    """1/2 (mu_j^2 + s_j^2 - 1 - log s_j^2), the terms of :func:`gaussian_kl`. (N, Z), (N, Z) ->
    (N, Z)."""
    return 0.5 * (square(mean) + ops.exp(log_variance) - 1.0 - log_variance)


def free_bits(kl: Tensor, weight: Tensor, least: float) -> Tensor:
    """sum_j max(lambda, E_x KL_j), Kingma et al. 2016, Eq. 15: (..., N, Z), (N,) -> (...)."""
    means = (kl * weight.expand_dims(1)).sum(-2) / weight.sum()
    return ops.maximum(means, Tensor(least, ms.float32)).sum(-1)


def dual_kl(critic_posterior: Tensor, critic_prior: Tensor, weight: Tensor) -> Tensor:
    """E_q f - E_p exp f + 1: the Fenchel dual of Eq. 3, which is the KL at f = log q/p.

    The paper prints it without the + 1, which the maximum needs to equal the KL (and the released
    evaluation adds). Any f gives, in expectation, a lower bound. (..., N), (..., N) -> (...).
    """
    return 1.0 - dual_posterior(critic_posterior, weight) - dual_prior(critic_prior, weight)


def dual_posterior(critic_posterior: Tensor, weight: Tensor) -> Tensor:
    """-E_q f: the posterior's part of the critic's loss, Eq. 3 (to be minimised).

    (..., N) -> (...).
    """
    return -expectation(critic_posterior, weight)


def dual_prior(critic_prior: Tensor, weight: Tensor) -> Tensor:
    """E_p exp f: the prior's part of the critic's loss, Eq. 3, (..., N) -> (...)."""
    return expectation(bounded_exp(critic_prior), weight)


def circle_mean_posterior(critic_posterior: Tensor, weight: Tensor) -> Tensor:
    """log(1 + exp(-E_q f)), the first line of Eq. 13, (..., N) -> (...)."""
    return _log_one_plus_exp(-expectation(critic_posterior, weight))


def circle_mean_prior(critic_prior: Tensor, weight: Tensor) -> Tensor:
    """log(1 + exp(E_p exp f)), the second line of Eq. 13, (..., N) -> (...)."""
    return _log_one_plus_exp(expectation(bounded_exp(critic_prior), weight))


def circle_sum_posterior(critic_posterior: Tensor, weight: Tensor) -> Tensor:
    """log(1 + exp(-sum_i f(q_i))), as Eq. 18 prints it, (..., N) -> (...)."""
    return _log_one_plus_exp(-(critic_posterior * weight).sum(-1))


def circle_sum_prior(critic_prior: Tensor, weight: Tensor) -> Tensor:
    """log(1 + exp(sum_i exp f(p_i))), as Eq. 18 prints it, (..., N) -> (...)."""
    return _log_one_plus_exp((bounded_exp(critic_prior) * weight).sum(-1))


def circle_pairwise_posterior(critic_posterior: Tensor, weight: Tensor) -> Tensor:
    """log(1 + sum_i exp(-f(q_i))): circle loss over pairs (Sun et al. 2020), as released.

    (..., N) -> (...).
    """
    return log_one_plus_sum_exp(-critic_posterior, weight)


def circle_pairwise_prior(critic_prior: Tensor, weight: Tensor) -> Tensor:
    """log(1 + sum_i exp(exp f(p_i))): circle loss over pairs (Sun et al. 2020), as released.

    (..., N) -> (...).
    """
    return log_one_plus_sum_exp(bounded_exp(critic_prior), weight)


class CriticLoss(NamedTuple):
    """What a critic minimises: posterior(f(q), weight) + prior(f(p), weight), (..., N) -> (...)."""

    posterior: object
    prior: object


CRITIC_LOSSES = {
    "dual": CriticLoss(dual_posterior, dual_prior),
    "circle_mean": CriticLoss(circle_mean_posterior, circle_mean_prior),
    "circle_sum": CriticLoss(circle_sum_posterior, circle_sum_prior),
    "circle_pairwise": CriticLoss(circle_pairwise_posterior, circle_pairwise_prior),
}
"""The values of the slot ``critic_loss``."""


def no_difference(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    """0: L_SQ switched off."""
    return (first * 0.0).sum()


def sum_of_differences(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    """L_SQ = sum_i (f(x_i, z_i) - f(x_i, z_i^+)), Eq. 17 as printed. (N,), (N,) -> scalar."""
    return ((first - second) * weight).sum()


def sum_of_squares(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    """L_SQ = sum_i (f(x_i, z_i) - f(x_i, z_i^+))^2: what Eq. 17's text and the released code
    mean."""
    return square((first - second) * weight).sum()


def cosine_similarities(first: Tensor, second: Tensor) -> Tensor:
    """SIM(z_1, z_2) = z_1^T z_2 / (||z_1|| ||z_2||), Eq. 9, of all pairs: (N, Z), (M, Z) -> (N,
    M)."""
    return ops.matmul(_unit(first), _unit(second).T)


def _unit(vectors: Tensor) -> Tensor:
    # The floor keeps a zero vector (an untrained encoder's) from dividing by zero.
    squared = ops.maximum(square(vectors).sum(1, keepdims=True), Tensor(1e-12, ms.float32))
    return vectors * ops.rsqrt(squared)


def info_nce(
    positive: Tensor, negatives: Tensor, negative_weight: Tensor, weight: Tensor, temperature: float
) -> Tensor:
    """L_CL = 1/N sum_i log( e^{s_i/tau} / (e^{s_i/tau} + sum_j e^{s_ij/tau}) ), Eq. 8 and 10.

    Computed as -1/N sum_i log(1 + sum_j e^{(s_ij - s_i)/tau}), which no temperature overflows.

    Args:
        positive: (N,) similarities SIM(z_i, z_i^+).
        negatives: (N, M) similarities SIM(z_i, z_j^-).
        negative_weight: (N, M), 1 where z_j is a negative of z_i, else 0.
        weight: (N,).
        temperature: tau.

    Returns:
        A scalar <= 0, to be maximised.
    """
    exponents = (negatives - positive.expand_dims(1)) / temperature
    return -expectation(log_one_plus_sum_exp(exponents, negative_weight), weight)


def objective(reconstruction: Tensor, divergence: Tensor, contrast: Tensor, beta: Tensor) -> Tensor:
    """L = sum_v { -log p(x|z_v) + beta D_v } - L_CL: Eq. 5, 6, 7, 11, 12, 15 and 16, to be
    minimised."""
    return reconstruction + beta * divergence - contrast
