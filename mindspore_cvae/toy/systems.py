"""The synthetic clustering experiment (Section 4.1 and 4.4): its systems, and its batches as pure
functions of seed and iteration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from mindspore_cvae.common import randomness
from mindspore_cvae.systems import SYSTEMS, System

LATENT_SIZE = 2
NOISE_SIZE = 2
LAYER_SIZE = 64
MODEL_LAYERS = 3
"""Hidden layers of encoder and decoder."""
CRITIC_LAYERS = 2
CRITIC_UPDATES = 5
BETA = 1.0
NOISES_PER_CATEGORY = 64
"""Rows of a batch that share a drawn category, as the released code has it for every K. The paper's
batch of 256 (Section 4.1) has 256 / K."""


@dataclass(frozen=True)
class ToySystem:
    """A row of Table 5: a row of the table of systems, and what the experiment's released code
    sets."""

    slots: System
    activation: str
    """Of the model's layers: ``leaky_relu`` (slope 0.01) or ``elu``."""
    learning_rate: float
    """Of Adam, for the model and for the critic."""
    separate_draws: int | None
    """Categories that are drawn for a batch, one row each; None draws K, each with several noises
    (:data:`NOISES_PER_CATEGORY` by default)."""

    def batch_size(self, categories: int, noises: int = NOISES_PER_CATEGORY) -> int:
        """Rows of a batch, each of which every view encodes once."""
        return self.separate_draws or noises * categories


# Two views differ by their noise alone, and there is no L_SQ.
_IN_THE_TOY: dict[str, Any] = {
    "posterior": "mlp",
    "squared_difference": "none",
    "encoder_dropout": 0.0,
}

TOY_SYSTEMS = {
    "vae": ToySystem(SYSTEMS["vae"], "elu", 2e-5, 500),
    "ivae": ToySystem(replace(SYSTEMS["ivae"], **_IN_THE_TOY), "leaky_relu", 1e-5, None),
    "cvae_plus": ToySystem(replace(SYSTEMS["cvae_plus"], **_IN_THE_TOY), "leaky_relu", 1e-5, None),
}
"""The rows of Table 5."""


class ToyBatch(NamedTuple):
    """What an iteration consumes: N rows, V views, K categories."""

    x: np.ndarray
    """(N, K) one-hot."""
    posterior: np.ndarray
    """(V N, 2): eps of Eq. 2."""
    prior: np.ndarray | None
    """(updates of the critic + 1, V N, 2) draws from p(z); None without a critic."""


def one_hot(labels: np.ndarray, categories: int) -> np.ndarray:
    """Labels of any shape -> (..., K), float32."""
    return np.eye(categories, dtype=np.float32)[labels]


def draw_batch(
    system: ToySystem,
    categories: int,
    seed: int,
    iteration: int,
    noises: int = NOISES_PER_CATEGORY,
) -> ToyBatch:
    """The batch of an iteration, counted from 0: it depends on nothing that ran before.

    Args:
        system: the row.
        categories: K.
        seed: of everything.
        iteration: counted from 0.
        noises: rows that share a drawn category; of no effect where each row draws its own.
    """
    source = randomness.generator(seed, "batch", iteration)
    if system.separate_draws is None:
        labels = np.repeat(source.integers(0, categories, categories), noises)
    else:
        labels = source.integers(0, categories, system.separate_draws)
    rows = system.slots.views * len(labels)
    prior = None
    if system.slots.step == "critic_then_model":
        shape = (CRITIC_UPDATES + 1, rows, LATENT_SIZE)
        prior = randomness.normal(randomness.generator(seed, "prior", iteration), *shape)
    return ToyBatch(
        one_hot(labels, categories),
        randomness.normal(randomness.generator(seed, "posterior", iteration), rows, NOISE_SIZE),
        prior,
    )
