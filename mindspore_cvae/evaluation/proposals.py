"""Proposals r(z|x) of the importance-weighted bound: a family is a row of :data:`FAMILIES`.

All begin with what q(z|x) says of a sentence, its mean and covariance S, widened to
V = S + s^2 I. ``fit`` takes N(mu, V); ``product`` multiplies it with the prior; ``refined`` moves
that Gaussian N(m, L L^T) by stochastic variational inference through the decoder,

    min_{m, L}  E_eps[ -log p(x | m + L eps) ] + KL(N(m, L L^T) || p(z)),

a sentence at a time in effect: no sentence's proposal depends on another's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from mindspore_cvae.common import randomness
from mindspore_cvae.common.progress import progress
from mindspore_cvae.data.batches import EpochPlan, batches
from mindspore_cvae.data.corpus import Split
from mindspore_cvae.evaluation.bounds import Proposal

PRIOR_SHARE = 0.05
"""Share of the draws that come from the prior."""
INFLATIONS = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
"""Values of s, among which another split chooses."""
WIDENINGS = (0.9, 1.0, 1.2)
"""Factors of a refined proposal's standard deviations, among which another split chooses: what
minimises KL(r || p(z|x)) is narrower than p(z|x)."""
REFINEMENT_STEPS = 120
"""Steps of Adam; docs/results/estimates.md has what other numbers of steps and draws give."""
REFINEMENT_DRAWS = 4
"""Draws of z a step: two, and their mirror images."""
REFINEMENT_RATE = 0.1
"""Learning rate of m at the first step; it falls to 0 along a line."""
FACTOR_RATE = 0.05
"""That of L, whose gradients are noisier."""
MOMENTS = 0.9, 0.99
"""Decay of Adam's moments: the second is short, as there are few steps."""


class Family(NamedTuple):
    """How proposals are made: what they start from, whether SVI moves it, factors of the result's
    standard deviations to choose among."""

    start: Callable[..., Proposal]
    is_refined: bool
    widenings: tuple[float, ...]


FAMILIES = {
    "fit": Family(Proposal.inflated, False, (1.0,)),
    "product": Family(Proposal.product, False, (1.0,)),
    "refined": Family(Proposal.product, True, WIDENINGS),
}
"""The values of ``--iw_proposal``, besides ``auto``, which takes the best of them."""


@dataclass(frozen=True)
class Choice:
    """What another split has chosen.

    Attributes:
        family: one of :data:`FAMILIES`.
        inflation: s.
        widening: factor of the standard deviations at the end.
    """

    family: str
    inflation: float
    widening: float = 1.0


class LikelihoodGradient(nn.Cell):
    """-log p(x|z) of every draw, and its gradient at z."""

    def __init__(self, decoder: nn.Cell):
        # Without prefixes: the model's parameters keep their names.
        super().__init__(auto_prefix=False)
        self.decoder = decoder
        self.value_and_grad = ops.value_and_grad(self.total, 0, has_aux=True)

    def total(self, z: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The sum over draws, whose gradient is that of each; and each."""
        sentences, samples, size = z.shape
        rows = ops.broadcast_to(tokens.expand_dims(1), (-1, samples, tokens.shape[1]))
        nll = self.decoder(rows.reshape(sentences * samples, -1), z.reshape(-1, size))
        return nll.sum(), nll.reshape(sentences, samples)

    def construct(self, z: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """z (B, S, Z), tokens (B, T + 1) -> (B, S), (B, S, Z)."""
        (_total, nll), gradient = self.value_and_grad(z, tokens)
        return nll, gradient


def negative_elbo_gradient(
    mean: np.ndarray, factor: np.ndarray, noise: np.ndarray, at_z: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient of E_eps[-log p(x | m + L eps)] + KL(N(m, L L^T) || N(0, I)) at m and L.

        d/dm = E[g] + m,   d/dL = tril(E[g eps^T] + L - L^-T),   g = d/dz -log p(x|z)

    Args:
        mean: (B, Z), m.
        factor: (B, Z, Z), L, lower triangular.
        noise: (B, S, Z), eps.
        at_z: (B, S, Z), g at z = m + L eps.

    Returns:
        (B, Z), (B, Z, Z).
    """
    at_factor = np.tril(at_z.transpose(0, 2, 1) @ noise / noise.shape[1] + factor)
    diagonal = np.arange(mean.shape[1])
    # L^-T is upper triangular: of it, the diagonal is all that tril leaves.
    at_factor[:, diagonal, diagonal] -= 1.0 / factor[:, diagonal, diagonal]
    return at_z.mean(1) + mean, at_factor


def adam_descent(
    start: np.ndarray,
    gradient: Callable[[np.ndarray, int], np.ndarray],
    steps: int,
    rate: float | np.ndarray,
) -> np.ndarray:
    """Where Adam ends from a start, with a rate that falls to 0 along a line.

    Args:
        start: any shape.
        gradient: of a point and the number of the step, from 0.
        steps: how many.
        rate: of the first step; one, or one for each number.
    """
    point = start.astype(np.float64)
    first = second = np.zeros_like(point)
    decay, square_decay = MOMENTS
    for step in range(steps):
        slope = gradient(point, step)
        first = decay * first + (1 - decay) * slope
        second = square_decay * second + (1 - square_decay) * slope**2
        unbiased = first / (1 - decay ** (step + 1))
        scale = np.sqrt(second / (1 - square_decay ** (step + 1))) + 1e-8
        point = point - rate * (1 - step / steps) * unbiased / scale
    return point


def packed(mean: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """m and L as one array (B, Z + Z^2) of any real numbers: L's diagonal as its logarithm."""
    free = factor.copy()
    diagonal = np.arange(mean.shape[1])
    free[:, diagonal, diagonal] = np.log(free[:, diagonal, diagonal])
    return np.concatenate([mean, free.reshape(len(mean), -1)], 1)


def unpacked(point: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """What :func:`packed` packed, of Z dimensions."""
    mean, factor = point[:, :size], point[:, size:].reshape(-1, size, size).copy()
    diagonal = np.arange(size)
    factor[:, diagonal, diagonal] = np.exp(factor[:, diagonal, diagonal])
    return mean, factor


class Proposer:
    """Makes the proposals of the sentences that an evaluator has scored.

    Args:
        evaluator: a :class:`evaluation.scoring.Scorer`; its decoder, shapes and seed are shared.
    """

    def __init__(self, evaluator):
        self.evaluator = evaluator
        self.gradient = LikelihoodGradient(evaluator.decoder).set_train(False)

    def __call__(self, split: Split, scores, choice: Choice) -> Proposal:
        """Proposals of N sentences.

        Args:
            split: of which they are the first.
            scores: their ``SentenceScores``.
            choice: of family and widths.
        """
        family = FAMILIES[choice.family]
        mean, covariance = scores.fit
        proposal = family.start(mean, covariance, choice.inflation, PRIOR_SHARE)
        if family.is_refined:
            proposal = self.refined(split, proposal)
        return proposal.widened(choice.widening)

    def refined(self, split: Split, start: Proposal) -> Proposal:
        """What SVI makes of proposals of the first N sentences."""
        evaluator, (total, size) = self.evaluator, start.mean.shape
        points = packed(start.mean, start.factor)
        rates = np.full(points.shape[1], FACTOR_RATE)
        rates[:size] = REFINEMENT_RATE
        sizes = [max(1, evaluator.rows_of(width) // REFINEMENT_DRAWS) for width in evaluator.widths]
        plan = EpochPlan(split.lengths[:total], evaluator.widths, sizes, shuffle=False)
        result = np.zeros_like(points)
        bar = progress(f"refining proposals of {split.name}", total, "sentences")
        for batch in batches(split, plan, evaluator.ranks.rank, evaluator.ranks.size):
            evaluator.before_batch()
            real = batch.index >= 0
            # Fillers repeat the first sentence: their rows are computed and dropped.
            index = np.where(real, batch.index, 0)
            gradient = self._gradient(Tensor(batch.tokens), self._noise(index, size))
            width = batch.tokens.shape[1] - 1
            graph, note = ("refinement", width), f"{width - 1} words"
            with evaluator.compilations.watched(bar, graph, note, int(real.sum())):
                found = adam_descent(points[index], gradient, REFINEMENT_STEPS, rates)
            result[batch.index[real]] = found[real]
        bar.close()
        mean, factor = unpacked(evaluator.ranks.total(result), size)
        return Proposal(mean, factor, start.prior_share)

    def likelihood(self, z: np.ndarray, tokens: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """-log p(x|z) and its gradient at z, in float64: z (B, S, Z), tokens (B, T + 1) -> (B, S),
        (B, S, Z)."""
        nll, gradient = self.gradient(Tensor(z, ms.float32), tokens)
        return nll.asnumpy().astype(np.float64), gradient.asnumpy().astype(np.float64)

    def _gradient(self, tokens: Tensor, noise: np.ndarray) -> Callable:
        """The gradient at a packed point, at each step by its own of ``noise`` (B, steps, S, Z)."""

        def gradient(point: np.ndarray, step: int) -> np.ndarray:
            mean, factor = unpacked(point, noise.shape[-1])
            z = mean[:, None] + noise[:, step] @ factor.transpose(0, 2, 1)
            _, at_z = self.likelihood(z, tokens)
            at_mean, at_factor = negative_elbo_gradient(mean, factor, noise[:, step], at_z)
            diagonal = np.arange(mean.shape[1])
            at_factor[:, diagonal, diagonal] *= factor[:, diagonal, diagonal]
            return np.concatenate([at_mean, at_factor.reshape(len(mean), -1)], 1)

        return gradient

    def _noise(self, index: np.ndarray, size: int) -> np.ndarray:
        """(B, steps, S, Z) standard normal numbers, keyed by the number of each sentence; what is
        odd in a draw adds no noise to a gradient that its mirror image is part of."""
        seed, shape = self.evaluator.seed, (REFINEMENT_STEPS, REFINEMENT_DRAWS // 2, size)
        sources = [randomness.generator(seed, "proposal", int(number)) for number in index]
        noise = np.stack([randomness.normal(source, *shape) for source in sources])
        return np.concatenate([noise, -noise], 2)
