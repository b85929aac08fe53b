"""Annealed importance sampling of -log p(x) (Neal 2001): a yardstick beside proposals.

Draws of the prior are led to p(z|x) through p_b(z) ~ p(z) p(x|z)^b, b from 0 to 1, by Hamiltonian
Monte Carlo at every b, and weigh

    log w = sum_t (b_t - b_{t-1}) log p(x|z_{t-1}).

E w = p(x) for any chain, so -log of their mean is, in expectation, an upper bound of -log p(x) as
that of a proposal is; but it comes from the prior through the decoder alone, and knows no q(z|x).
Pure functions on NumPy arrays in float64, in nats: B sentences, S chains, Z latent dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Likelihood = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""z (B, S, Z) -> -log p(x|z) (B, S) and its gradient (B, S, Z)."""

FIRST_STEP = 0.3
"""Of leapfrog, before it is tuned."""
ACCEPTED = 0.75
"""Share of proposals that tuning aims at."""
TUNING_RATE = 0.15
"""By which log steps follow the difference to it."""


class Point(NamedTuple):
    """Chains where they stand: z (B, S, Z), -log p(x|z) (B, S), its gradient (B, S, Z)."""

    z: np.ndarray
    nll: np.ndarray
    slope: np.ndarray

    def energy(self, inverse_temperature: float) -> np.ndarray:
        """b nll + |z|^2 / 2, -log p_b(z) up to a constant, (B, S)."""
        return inverse_temperature * self.nll + 0.5 * (self.z**2).sum(-1)


def leapfrog(
    likelihood: Likelihood,
    start: Point,
    momentum: np.ndarray,
    inverse_temperature: float,
    step: np.ndarray,
    leaps: int,
) -> tuple[Point, np.ndarray]:
    """Where Hamilton's equations lead in ``leaps`` steps of length ``step`` (B, 1, 1): the point
    and its momentum (B, S, Z)."""
    point = start
    for _ in range(leaps):
        momentum = momentum - 0.5 * step * (inverse_temperature * point.slope + point.z)
        z = point.z + step * momentum
        point = Point(z, *likelihood(z))
        momentum = momentum - 0.5 * step * (inverse_temperature * point.slope + point.z)
    return point, momentum


def anneal(
    likelihood: Likelihood,
    shape: tuple[int, int, int],
    temperatures: np.ndarray,
    leaps: int,
    source: np.random.Generator,
    steps: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """One passage from the prior to p(z|x).

    Args:
        likelihood: of the sentences.
        shape: (B, S, Z).
        temperatures: b_0 = 0 to b_T = 1, ascending.
        leaps: steps of leapfrog at every b.
        source: of all random numbers.
        steps: (T, B) lengths of leapfrog's steps; None finds them on the way, by the shares of
            proposals that are taken. The weights of a passage that finds its steps are not exact:
            a second one, with fresh numbers and the steps that the first has found, is.

    Returns:
        log w (B, S), and the steps (T, B) that were taken.
    """
    z = source.standard_normal(shape)
    point = Point(z, *likelihood(z))
    log_weights = np.zeros(shape[:2])
    log_step = np.full(shape[0], np.log(FIRST_STEP))
    taken_steps = np.zeros((len(temperatures) - 1, shape[0]))
    for number, (before, now) in enumerate(zip(temperatures, temperatures[1:], strict=False)):
        log_weights -= (now - before) * point.nll
        taken_steps[number] = np.exp(log_step) if steps is None else steps[number]
        momentum = source.standard_normal(shape)
        step = taken_steps[number][:, None, None]
        there, momentum_there = leapfrog(likelihood, point, momentum, now, step, leaps)
        change = (
            point.energy(now)
            + 0.5 * (momentum**2).sum(-1)
            - there.energy(now)
            - 0.5 * (momentum_there**2).sum(-1)
        )
        # A passage that left for infinity has no finite energy and is not taken.
        change = np.where(np.isfinite(change), change, -np.inf)
        is_taken = np.log(source.uniform(size=change.shape)) < change
        point = Point(
            np.where(is_taken[..., None], there.z, point.z),
            np.where(is_taken, there.nll, point.nll),
            np.where(is_taken[..., None], there.slope, point.slope),
        )
        log_step += TUNING_RATE * (is_taken.mean(1) - ACCEPTED)
    return log_weights, taken_steps


def sigmoid_temperatures(count: int, steepness: float = 4.0) -> np.ndarray:
    """(count + 1,) values of b from 0 to 1 that are dense at both ends, where p_b changes most."""
    values = 1.0 / (1.0 + np.exp(-steepness * np.linspace(-1.0, 1.0, count + 1)))
    return (values - values[0]) / (values[-1] - values[0])


def annealed_log_weights(
    likelihood: Likelihood,
    shape: tuple[int, int, int],
    temperatures: int,
    leaps: int,
    source: np.random.Generator,
) -> np.ndarray:
    """log w (B, S) of a passage whose steps another one has found; E w = p(x).

    Args:
        likelihood, shape, leaps, source: see :func:`anneal`.
        temperatures: how many.
    """
    schedule = sigmoid_temperatures(temperatures)
    _, steps = anneal(likelihood, shape, schedule, leaps, source)
    log_weights, _ = anneal(likelihood, shape, schedule, leaps, source, steps)
    return log_weights
