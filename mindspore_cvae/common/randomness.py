"""Numbers from a counter-based generator keyed by seed, purpose and point."""

from __future__ import annotations

from typing import Any

import numpy as np

STREAMS = (
    "posterior",
    "prior",
    "contrast",
    "encoder",
    "embedding",
    "output",
    "swap",
    "evaluation",
    "generation",
    "decoding",
    "importance",
    "critic",
    "batch",
    "refinement",
    "encoding",
    "proposal",
    "information",
    "annealing",
    "negatives",
    "probe",
)
"""Purposes that draw numbers; each has its own key, so that switching one off changes no other."""


def generator(seed: int, stream: str, counter: int, part: int = 0) -> np.random.Generator:
    """The generator of one purpose at one point: counters 2^64 draws apart never meet.

    Args:
        seed: of the run.
        stream: one of :data:`STREAMS`.
        counter: training step, or number of the sentence in evaluation; >= 0.
        part: of the point, where it has several: sub-iterations of a training step; >= 0.
    """
    key = np.array([seed, STREAMS.index(stream)], np.uint64)
    position = np.array([0, counter, part, 0], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=position))


def normal(source: np.random.Generator, *shape: int) -> np.ndarray:
    """Standard normal numbers, float32."""
    return source.standard_normal(shape, dtype=np.float32)


def random_bytes(source: np.random.Generator, *shape: int) -> np.ndarray:
    """Uniform bytes, uint8."""
    count = int(np.prod(shape))
    words = source.bit_generator.random_raw((count + 7) // 8)
    return words.view(np.uint8)[:count].reshape(shape)


PHILOX_BYTES = 32
"""What Philox makes at a count."""


def bytes_between(source: np.random.Generator, starts: np.ndarray, length: int) -> np.ndarray:
    """Pieces of what :func:`random_bytes` would give, without what lies between them.

    Args:
        source: a new generator.
        starts: (P,) ascending positions in bytes, ``length`` apart at least.
        length: of every piece, in bytes.

    Returns:
        (P, length) uint8.
    """
    philox: Any = source.bit_generator
    pieces, made = np.empty((len(starts), length), np.uint8), 0
    for piece, start in zip(pieces, starts.tolist(), strict=True):
        first, end = start // PHILOX_BYTES, -(-(start + length) // PHILOX_BYTES)
        # Two pieces may share a block, which must then be made again.
        philox.advance(first - made)
        words = philox.random_raw((end - first) * PHILOX_BYTES // 8)
        offset = start - first * PHILOX_BYTES
        piece[:] = words.view(np.uint8)[offset : offset + length]
        made = end
    return pieces
