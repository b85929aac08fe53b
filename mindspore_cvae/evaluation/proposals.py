"""Proposals r(z|x) of the importance-weighted bound: a family is a row of :data:`FAMILIES`.

All begin with what q(z|x) says of a sentence, its mean and covariance S, widened to
V = S + s^2 I. ``fit`` takes N(mu, V); ``product`` multiplies it with the prior; ``refined`` moves
that Gaussian N(m, L L^T) by variational inference through the decoder,

    min_{m, L}  E_eps[ -log p(x | m + L eps) ] + KL(N(m, L L^T) || p(z)),

along natural gradients, a sentence at a time in effect: no sentence's proposal depends on
another's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import mindspore as ms
import numpy as np
from mindspore import Tensor

from mindspore_cvae.common import randomness
from mindspore_cvae.common.progress import progress
from mindspore_cvae.data.batches import EpochPlan, batches
from mindspore_cvae.data.corpus import Split
from mindspore_cvae.evaluation.bounds import Proposal
from mindspore_cvae.evaluation.scoring import draws_of_part

PRIOR_SHARE = 0.05
"""Share of the draws that come from the prior."""
INFLATIONS = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
"""Values of s, among which another split chooses."""
WIDENINGS = (0.9, 1.0, 1.2)
"""Factors of a refined proposal's standard deviations, among which another split chooses: what
minimises KL(r || p(z|x)) is narrower than p(z|x)."""
REFINEMENT_STEPS = 8
"""Steps along natural gradients; docs/results/estimates.md has what other numbers give."""
REFINEMENT_RATE = 0.6
"""Share of a whole step that is taken; over the second half it falls to 0 along a line."""
LEAST_POINTS = 16
"""Of a step: with fewer than 8 dimensions it takes several rotations."""
LEAST_CURVATURE = 0.5
"""Of H, along any direction in which the mean moves: flatter ones would send it too far."""
MOST_CHANGE = 1.0
"""By which a whole step changes the logarithm of a variance, at most."""
LONGEST_MOVE = 2.0
"""Of the mean in a whole step, in the proposal's own standard deviations."""


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
REFINED = tuple(name for name, family in FAMILIES.items() if family.is_refined)
"""Among which a validation during training chooses with ``eval.best_valid_refined``."""
UNREFINED = tuple(name for name in FAMILIES if name not in REFINED)
"""The cheap ones, among which a validation during training chooses: the product suits a q(z|x) that
is nearly a point, the plain fit one that is near p(z|x), where the prior must not count twice."""


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


def rotated_points(numbers: np.ndarray) -> np.ndarray:
    """2 Z R values of eps a sentence, whose mean is 0 and whose mean square is I to the last digit.

    They are sqrt(Z) times the columns of R random rotations, and their mirror images: what a
    quadratic f says of m and L is then exact, where as many independent draws are off by its whole
    size.

    Args:
        numbers: (B, R, Z, Z) standard normal, from which the rotations are made.

    Returns:
        (B, 2 Z R, Z).
    """
    size = numbers.shape[-1]
    columns = np.sqrt(size) * np.linalg.qr(numbers)[0].swapaxes(2, 3)
    columns = columns.reshape(len(numbers), -1, size)
    return np.concatenate([columns, -columns], 1)


def natural_step(
    mean: np.ndarray, factor: np.ndarray, noise: np.ndarray, at_z: np.ndarray, rate: float
) -> tuple[np.ndarray, np.ndarray]:
    """One step of N(m, L L^T) towards p(z|x), by its natural gradient.

        f(z) = -log p(x|z) + |z|^2 / 2,   G = E[L^T df/dz],   H = E[L^T df/dz eps^T]
        m' = m - rate L H^-1 G,   L' = L H^(-rate / 2)

    H is L^T E[d2f/dz2] L by Stein's lemma, without a second derivative. Where G = 0 and H = I, no
    Gaussian has a smaller KL(r || p(z|x)) (Opper and Archambeau 2009).

    Args:
        mean: (B, Z), m.
        factor: (B, Z, Z), L, any square root of the covariance.
        noise: (B, S, Z), eps of :func:`rotated_points`.
        at_z: (B, S, Z), the gradient of -log p(x|z) at z = m + L eps.
        rate: share of the whole step.

    Returns:
        m' (B, Z), L' (B, Z, Z).
    """
    z = points_of(mean, factor, noise)
    whitened = (at_z + z) @ factor
    curvature = whitened.transpose(0, 2, 1) @ noise / noise.shape[1]
    curvatures, axes = np.linalg.eigh(0.5 * (curvature + curvature.transpose(0, 2, 1)))
    slope = np.einsum("bji,bj->bi", axes, whitened.mean(1))
    move = slope / np.maximum(curvatures, LEAST_CURVATURE)
    length = np.linalg.norm(move, axis=1, keepdims=True)
    move *= np.minimum(1.0, LONGEST_MOVE / np.maximum(length, LONGEST_MOVE))
    directions = factor @ axes
    limited = np.clip(curvatures, np.exp(-MOST_CHANGE), np.exp(MOST_CHANGE))
    return (
        mean - rate * np.einsum("bij,bj->bi", directions, move),
        (directions * limited[:, None] ** (-0.5 * rate)) @ axes.transpose(0, 2, 1),
    )


def points_of(mean: np.ndarray, factor: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """z = m + L eps: (B, Z), (B, Z, Z), (B, S, Z) -> (B, S, Z)."""
    return mean[:, None] + noise @ factor.transpose(0, 2, 1)


def natural_descent(
    mean: np.ndarray,
    factor: np.ndarray,
    numbers: np.ndarray,
    gradient: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Where the steps of :func:`natural_step` lead.

    Args:
        mean, factor: where they begin, (B, Z) and (B, Z, Z).
        numbers: (B, steps, R, Z, Z) standard normal, for the points of each step.
        gradient: of -log p(x|z) at points (B, S, Z).

    Returns:
        m (B, Z), and L (B, Z, Z) as a lower Cholesky factor.
    """
    steps = numbers.shape[1]
    for step in range(steps):
        noise = rotated_points(numbers[:, step])
        at_z = gradient(points_of(mean, factor, noise))
        rate = REFINEMENT_RATE * min(1.0, 2.0 * (1.0 - step / steps))
        mean, factor = natural_step(mean, factor, noise, at_z, rate)
    return mean, np.linalg.cholesky(factor @ factor.transpose(0, 2, 1))


class Proposer:
    """Makes the proposals of the sentences that an evaluator has scored.

    Args:
        evaluator: a :class:`evaluation.scoring.Scorer`; its decoder, shapes and seed are shared.
    """

    def __init__(self, evaluator):
        self.evaluator = evaluator

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
        """What variational inference makes of proposals of the first N sentences."""
        evaluator, (total, size) = self.evaluator, start.mean.shape
        rotations = math.ceil(LEAST_POINTS / (2 * size))
        points = 2 * size * rotations
        per_call = {width: min(points, evaluator.rows_of(width)) for width in evaluator.widths}
        sizes = [evaluator.rows_of(width) // per_call[width] for width in evaluator.widths]
        plan = EpochPlan(split.lengths[:total], evaluator.widths, sizes, shuffle=False)
        mean, factor = np.zeros_like(start.mean), np.zeros_like(start.factor)
        bar = progress(f"refining proposals of {split.name}", total, "sentences")
        for batch in batches(split, plan, evaluator.ranks.rank, evaluator.ranks.size):
            evaluator.before_batch()
            real = batch.index >= 0
            # Fillers repeat the first sentence: their rows are computed and dropped.
            index = np.where(real, batch.index, 0)
            width = batch.tokens.shape[1] - 1
            gradient = partial(self._gradient, Tensor(batch.tokens), per_call[width])
            own, numbers = start.of(index), self._numbers(index, rotations, size)
            graph, note = ("refinement", width), f"{width - 1} words"
            with evaluator.compilations.watched(bar, graph, note, int(real.sum())):
                found = natural_descent(own.mean, own.factor, numbers, gradient)
            mean[batch.index[real]], factor[batch.index[real]] = (part[real] for part in found)
        bar.close()
        return Proposal(
            evaluator.ranks.total(mean), evaluator.ranks.total(factor), start.prior_share
        )

    def likelihood(self, z: np.ndarray, tokens: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """-log p(x|z) and its gradient at z, in float64: z (B, S, Z), tokens (B, T + 1) -> (B, S),
        (B, S, Z)."""
        nll, gradient = self.evaluator.likelihood_gradient(Tensor(z, ms.float32), tokens)
        return nll.asnumpy().astype(np.float64), gradient.asnumpy().astype(np.float64)

    def _gradient(self, tokens: Tensor, per_call: int, z: np.ndarray) -> np.ndarray:
        """The gradient at all points (B, S, Z), a fixed number of each sentence's a call."""
        result, z = np.empty(z.shape), z.astype(np.float32)
        for start in range(0, z.shape[1], per_call):
            part = slice(start, min(start + per_call, z.shape[1]))
            points = draws_of_part(z, part, per_call)
            _, gradient = self.evaluator.likelihood_gradient(points, tokens)
            result[:, part] = gradient.asnumpy()[:, : part.stop - start]
        return result

    def _numbers(self, index: np.ndarray, rotations: int, size: int) -> np.ndarray:
        """(B, steps, R, Z, Z) standard normal numbers, keyed by the number of each sentence."""
        seed, shape = self.evaluator.seed, (REFINEMENT_STEPS, rotations, size, size)
        sources = [randomness.generator(seed, "proposal", int(number)) for number in index]
        return np.stack([randomness.normal(source, *shape) for source in sources]).astype(float)
