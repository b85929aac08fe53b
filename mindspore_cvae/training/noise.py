"""All randomness of a training step, from a counter-based generator keyed by seed and step.

A graph that draws its own noise repeats it (one stochastic cell called twice in one graph gives
the same numbers) and cannot be resumed (the framework's generator has no state to save, and its
CPU dropout depends on how threads were scheduled). So noise is drawn here, by NumPy's Philox, and
fed to the graph: the numbers of step t are a pure function of (seed, t), whatever ran before.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from mindspore_cvae.common.randomness import bytes_between, generator, normal, random_bytes
from mindspore_cvae.systems import System


def rows_of_rank(rank: int, size: int, views: int, sentences: int) -> np.ndarray:
    """Numbers of a rank's rows among the V N rows of all ranks, (V n,), N = R n.

    Args:
        rank, size: of the process, and R.
        views: V.
        sentences: N.
    """
    each = sentences // size
    return np.arange(views * sentences).reshape(views, size, each)[:, rank].ravel()


def swap_neighbours(
    tokens: np.ndarray, probability: float, source: np.random.Generator
) -> np.ndarray:
    """Each word changes place with its right neighbour with the given chance, left to right
    (Section 4.7).

    Args:
        tokens: (N, T + 1) rows ``<s> w_1 ... w_n </s> <pad> ...``; the specials stay where they
            are.
        probability: of each swap.
        source: of the coins.

    Returns:
        A new array of the same shape.
    """
    swapped = tokens.copy()
    words = (tokens != 0).sum(1) - 2
    coins = source.random(tokens.shape) < probability
    for left in range(1, tokens.shape[1] - 2):
        rows = np.flatnonzero(coins[:, left] & (left < words))
        swapped[rows, left], swapped[rows, left + 1] = (
            swapped[rows, left + 1],
            swapped[rows, left],
        )
    return swapped


class StepNoise(NamedTuple):
    """What a training step gets besides its batch, in the order of the step's arguments.

    Absent randomness is None: N sentences, V views, U encodings (V, and one more for swapped
    negatives, the last N rows), E, H, Z sizes, K critic updates. Where several
    processes share the batch, ``prior`` and ``contrast`` are those of all N sentences, and all else
    is a rank's own: N / R instead of N.
    """

    encoder_tokens: np.ndarray
    """(U N, T + 1) int32: what the encoder reads; differs from the targets by swaps only."""
    encoder_bytes: np.ndarray | None
    """(T + 1, U N, E)."""
    posterior: np.ndarray | None
    """(U N, noise size): eps of Eq. 2. Where SVI refines the posterior, (S + 1, U N, Z): one set
    for each of its S steps and one for the objective."""
    prior: np.ndarray | None
    """(K + 1, V N, Z): draws from p(z), one set for each critic update and one for the model's."""
    contrast: np.ndarray | None
    """(M N, Z): draws from p(z) as further negatives."""
    embedding_bytes: np.ndarray | None
    """(T, V N, E)."""
    output_bytes: np.ndarray | None
    """(T, V N, H)."""

    def present(self) -> tuple:
        """What is not absent, as data sets carry it; :meth:`NoiseMaker.restored` undoes this."""
        return tuple(value for value in self if value is not None)


class NoiseMaker:
    """Draws the :class:`StepNoise` of any step.

    Args:
        system: the row; says which randomness it needs.
        sizes: a ``config.Model``.
        critic_updates: K.
        seed: of the run.
        rank, size: of the process that gets it, and how many share a batch.
    """

    def __init__(
        self,
        system: System,
        sizes,
        critic_updates: int,
        seed: int,
        rank: int = 0,
        size: int = 1,
    ):
        self.system = system
        self.sizes = sizes
        self.critic_updates = critic_updates
        self.seed = seed
        self.rank = rank
        self.size = size
        # Which parts are there depends on the row alone.
        smallest = np.zeros((2 * size, 3), np.int32)
        self.is_present = [value is not None for value in self(0, smallest)]

    def restored(self, arrays: Iterable) -> StepNoise:
        """A step's noise from what :meth:`StepNoise.present` gave, as arrays or tensors."""
        arrays = iter(arrays)
        parts: list[Any] = [next(arrays) if there else None for there in self.is_present]
        return StepNoise(*parts)

    def __call__(self, step: int, tokens: np.ndarray, part: int = 0) -> StepNoise:
        """The noise of training step ``step`` (counted from 0), or of its sub-iteration ``part``
        (from 1), for a batch tokens (N, T + 1) of all processes."""
        system, sizes = self.system, self.sizes
        sentences, width = tokens.shape
        rows, encoded = system.views * sentences, system.encodings * sentences

        def stream(name: str) -> np.random.Generator:
            return generator(self.seed, name, step, part)

        views = [tokens] * system.views
        if system.augmentation == "swap" and system.views == 2:
            views[1] = swap_neighbours(tokens, system.swap_probability, stream("swap"))
        if system.swap_negatives:
            swapped = swap_neighbours(tokens, system.swap_probability, stream("negatives"))
            views.append(swapped)
        own = rows_of_rank(self.rank, self.size, system.encodings, sentences)
        noise_size = {"deterministic": 0, "none": 0, "gaussian": sizes.latent_size}.get(
            system.posterior, sizes.noise_size
        )
        posterior_shape: tuple[int, ...] = (encoded, noise_size)
        if system.refinement_steps:
            posterior_shape = (system.refinement_steps + 1, *posterior_shape)
        has_critics = system.step == "critic_then_model"

        def masks(name: str, times: int, rows: int, size: int) -> np.ndarray:
            """(times, own rows, size) of the random bytes (times, rows, size)."""
            if self.size == 1:
                return random_bytes(stream(name), times, rows, size)
            each = sentences // self.size
            places = rows_of_rank(self.rank, self.size, rows // sentences, sentences)
            blocks = np.arange(times)[:, None] * rows + places[::each]
            pieces = bytes_between(stream(name), size * blocks.ravel(), size * each)
            return pieces.reshape(times, len(places), size)

        return StepNoise(
            encoder_tokens=np.concatenate(views)[own],
            encoder_bytes=masks("encoder", width, encoded, sizes.embedding_size)
            if system.encoder_dropout
            else None,
            posterior=normal(stream("posterior"), *posterior_shape)[..., own, :]
            if noise_size
            else None,
            prior=normal(stream("prior"), self.critic_updates + 1, rows, sizes.latent_size)
            if has_critics
            else None,
            contrast=normal(
                stream("contrast"), system.prior_negatives * sentences, sizes.latent_size
            )
            if system.prior_negatives
            else None,
            embedding_bytes=masks("embedding", width - 1, rows, sizes.embedding_size)
            if sizes.decoder_dropout
            else None,
            output_bytes=masks("output", width - 1, rows, sizes.hidden_size)
            if sizes.decoder_dropout
            else None,
        )
