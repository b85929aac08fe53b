"""The widths to which sentences are padded: every one costs a compilation, every pad a position.

Every new shape costs a graph compilation, so widths come from a small set of buckets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mindspore_cvae.config.keys import Config
    from mindspore_cvae.data.corpus import Corpus

SECONDS_PER_WIDTH = 8.0
"""What compiles at a width's first training step and first validation, as measured on two cores of
a CPU; a graph of an accelerator is compiled there too."""
RATES = {"CPU": 6e10, "GPU": 1e13, "Ascend": 1e13}
"""Floating-point operations a second of a training step: the CPU's as measured on two cores; the
others' only say that a padded position costs next to nothing there."""
MOST_BUCKETS = 64


def bucket_widths(
    train_lengths: np.ndarray, buckets: int, longest: int | None = None
) -> tuple[int, ...]:
    """The widths that pad the training sentences least.

    Splits the sorted lengths into at most `buckets` groups, each as wide as its longest member,
    such that the padded positions, sum over sentences of (width - predicted tokens), are fewest
    (exact, by dynamic programming over the distinct lengths).

    Args:
        train_lengths: words of each training sentence, shape (sentences,).
        buckets: largest number of widths, 1 or more.
        longest: words of the longest sentence of any split, which the last width must admit;
            None for the longest training sentence.

    Returns ascending widths in predicted tokens (words and `</s>`).
    """
    if buckets < 1:
        raise ValueError(f"buckets is {buckets}; it must be 1 or more")
    lengths, counts = np.unique(np.asarray(train_lengths, np.int64) + 1, return_counts=True)
    if longest is not None and longest + 1 > lengths[-1]:
        lengths, counts = np.append(lengths, longest + 1), np.append(counts, 0)
    sentences = np.concatenate([[0], np.cumsum(counts)])
    tokens = np.concatenate([[0], np.cumsum(counts * lengths)])
    # padding[i, j]: padded positions of a group of the distinct lengths i .. j, inf where i > j.
    padding = lengths * (sentences[1:] - sentences[:-1, None]) - (tokens[1:] - tokens[:-1, None])
    padding = np.where(np.tri(len(lengths), k=-1), np.inf, padding)

    # fewest[j]: fewest padded positions of the lengths 0 .. j in the groups so far.
    fewest, firsts = padding[0], [np.zeros(len(lengths), np.int64)]
    for _ in range(min(buckets, len(lengths)) - 1):
        # candidates[i, j]: the last group is i .. j, the groups before it cover 0 .. i - 1.
        candidates = np.concatenate([[np.inf], fewest[:-1]])[:, None] + padding
        first = candidates.argmin(0)
        # One group more helps unless there are fewer lengths than groups.
        better = candidates.min(0) < fewest
        firsts.append(np.where(better, first, -1))
        fewest = np.where(better, candidates.min(0), fewest)

    widths, last = [], len(lengths) - 1
    for first in reversed(firsts):
        if first[last] >= 0:
            widths.append(int(lengths[last]))
            last = first[last] - 1
        if last < 0:
            break
    return tuple(reversed(widths))


def corpus_widths(corpus: Corpus, buckets: int | str) -> tuple[int, ...]:
    """The widths of a corpus: chosen by its training sentences, admitting those of every split.

    Args:
        corpus: the corpus.
        buckets: ``data.buckets``, a number by now (:func:`with_chosen_buckets`).
    """
    assert isinstance(buckets, int), buckets
    return bucket_widths(corpus.train.lengths, buckets, _longest(corpus))


def _longest(corpus: Corpus) -> int:
    return max(int(split.lengths.max()) for split in corpus.splits)


def with_chosen_buckets(config: Config, corpus: Corpus, device: str) -> Config:
    """A configuration whose ``data.buckets`` is a number; ``auto`` becomes the one that is cheapest
    by :func:`seconds_of_widths`, and stays what it became: a run's own configuration holds it.

    Args:
        config: the merged configuration of a run that begins.
        corpus: its corpus.
        device: CPU, GPU or Ascend.
    """
    if config.data.buckets != "auto":
        return config
    lengths, longest = corpus.train.lengths, _longest(corpus)
    epochs = float(config.train.epochs)
    if config.train.max_steps is not None:
        epochs = min(epochs, config.train.max_steps * config.data.batch_size / len(lengths))
    second = epochs * operations(config, len(corpus.vocabulary)) / RATES[device]

    def cost(buckets: int) -> float:
        return seconds_of_widths(lengths, bucket_widths(lengths, buckets, longest), second)

    number = min(range(1, MOST_BUCKETS + 1), key=cost)
    return replace(config, data=replace(config.data, buckets=number))


def seconds_of_widths(
    lengths: np.ndarray, widths: Sequence[int], seconds_per_position: float
) -> float:
    """What widths cost a training: the positions that they pad, and a compilation each.

    Args:
        lengths: words of each training sentence, shape (sentences,).
        widths: ascending, in predicted tokens.
        seconds_per_position: of all epochs together.
    """
    needed = np.asarray(lengths, np.int64) + 1
    padded = int((np.asarray(widths)[np.searchsorted(widths, needed)] - needed).sum())
    return padded * seconds_per_position + len(widths) * SECONDS_PER_WIDTH


def operations(config: Config, vocabulary_size: int) -> int:
    """Floating-point operations of a trained position, in all views: the products of encoder,
    decoder and vocabulary, forward, and twice as many for their gradients."""
    sizes = config.model
    recurrent = 4 * sizes.hidden_size * (sizes.embedding_size + sizes.hidden_size)
    from_z = 4 * sizes.hidden_size * sizes.latent_size
    words = vocabulary_size * (sizes.hidden_size + 1)
    return 6 * config.slots.views * (2 * recurrent + from_z + words)
