"""Sentences to batches of a few fixed shapes, each sentence exactly once an epoch.

Every new shape costs a graph compilation, so widths come from a small set of buckets.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mindspore_cvae.data.corpus import Corpus, Split
from mindspore_cvae.data.vocabulary import BEGIN, END, PAD

if TYPE_CHECKING:
    from mindspore.dataset import GeneratorDataset

# Second word of the Philox key: keeps the order of sentences apart from every other use of a seed.
_ORDER_STREAM = 0x6F72646572


class Batch(NamedTuple):
    """Arrays of one step, N rows wide and T predicted tokens long.

    Attributes:
        tokens: (N, T + 1) int32, rows `<s> w_1 ... w_n </s> <pad> ...`; the decoder reads
            tokens[:, :-1] and predicts tokens[:, 1:].
        weight: (N,) float32, 1 for sentences, 0 for the rows that fill up an epoch's last batch
            (they hold the empty sentence `<s> </s>`, so that every row has a last token).
        index: (N,) int32, number of the sentence in its split, -1 for fillers.
    """

    tokens: np.ndarray
    weight: np.ndarray
    index: np.ndarray  # type: ignore[assignment]


class PlannedBatch(NamedTuple):
    """One batch of a plan.

    Attributes:
        width: predicted tokens of every row.
        indices: numbers of the sentences, shape (at most the batch size,), int64.
    """

    width: int
    indices: np.ndarray


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


def corpus_widths(corpus: Corpus, buckets: int) -> tuple[int, ...]:
    """The widths of a corpus: chosen by its training sentences, admitting those of every split."""
    longest = max(int(split.lengths.max()) for split in corpus.splits)
    return bucket_widths(corpus.train.lengths, buckets, longest)


class EpochPlan(Sequence[PlannedBatch]):
    """Which sentences an epoch's batches hold: a pure function of the arguments.

    Every sentence is in exactly one batch. Sentences that do not fill a batch of their bucket move
    up to the next larger one, so that only the last batch can be smaller than `batch_size`; with
    one number a width, batches of sentences that moved up can be smaller too.
    An interrupted epoch resumes at batch k with the plan from k on.

    Args:
        lengths: words of each sentence, shape (sentences,).
        widths: ascending bucket widths in predicted tokens.
        batch_size: sentences of a batch; or one number a width, none larger than the one before.
        seed, epoch: key of the order of sentences and batches.
        shuffle: False keeps the order of length and, within a bucket, of the split.

    Raises ValueError when a sentence is longer than the last width admits, or a wider batch is to
    have more sentences.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        widths: Sequence[int],
        batch_size: int | Sequence[int],
        seed: int = 0,
        epoch: int = 0,
        shuffle: bool = True,
    ):
        sizes = np.broadcast_to(batch_size, len(widths)).tolist()
        if sizes != sorted(sizes, reverse=True):
            # The last batch is as wide as its longest sentence, and must fit there.
            raise ValueError(f"batch_size is {sizes}; a wider batch cannot have more sentences")
        needed = np.asarray(lengths, np.int64) + 1
        ends = np.asarray(widths, np.int64)
        if len(needed) and needed.max() > ends[-1]:
            raise ValueError(
                f"a sentence of {needed.max() - 1} words does not fit the widest bucket, "
                f"of {ends[-1] - 1} words"
            )
        key = np.array([seed, _ORDER_STREAM], np.uint64)
        random = np.random.Philox(key=key, counter=[0, 0, 0, epoch])
        order = np.arange(len(needed))
        if shuffle:
            order = _permutation(random, len(needed))

        members = []
        bucket = np.searchsorted(ends, needed[order])
        waiting = np.zeros(len(order), bool)
        for number, size in enumerate(sizes):
            waiting |= bucket == number
            positions = np.flatnonzero(waiting)
            full = len(positions) - len(positions) % size
            waiting[positions[:full]] = False
            members.extend(order[positions[:full]].reshape(-1, size))
        if shuffle:
            members = [members[number] for number in _permutation(random, len(members))]
        if waiting.any():
            members.append(order[waiting])
        # Sentences that moved up may all fit a smaller width.
        self._batches = tuple(
            PlannedBatch(int(ends[np.searchsorted(ends, needed[indices].max())]), indices)
            for indices in members
        )
        self.batch_sizes = dict(zip(ends.tolist(), sizes, strict=True))

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number):
        return self._batches[number]


def _permutation(random: np.random.Philox, size: int) -> np.ndarray:
    """A random order of 0 .. size - 1, the same with every version of NumPy."""
    # NumPy promises that a bit generator's stream stays, but not what `Generator` makes of it.
    return np.argsort(random.random_raw(size), kind="stable")


def make_batch(
    sentences: Sequence[np.ndarray], width: int, indices: np.ndarray, batch_size: int
) -> Batch:
    """The arrays of a batch; rows beyond the given sentences are fillers.

    Args:
        sentences: word ids of every sentence of the split.
        width: predicted tokens of every row, T.
        indices: numbers of the batch's sentences, at most `batch_size`.
        batch_size: number of rows, N.
    """
    tokens = np.full((batch_size, width + 1), PAD, np.int32)
    tokens[:, 0] = BEGIN
    tokens[len(indices) :, 1] = END
    for row, number in zip(tokens, indices, strict=False):
        words = sentences[number]
        row[1 : len(words) + 1] = words
        row[len(words) + 1] = END
    filled = np.arange(batch_size) < len(indices)
    index = np.full(batch_size, -1, np.int32)
    index[filled] = indices
    return Batch(tokens, filled.astype(np.float32), index)


def batches(split: Split, plan: EpochPlan, start: int = 0, every: int = 1) -> Iterator[Batch]:
    """The batches of a plan from number `start` on, or every so many of them."""
    for width, indices in plan[start::every]:
        yield make_batch(split.sentences, width, indices, plan.batch_sizes[width])


def batch_dataset(
    split: Split,
    plan: EpochPlan,
    start: int = 0,
    attach: Callable[[int, Batch], tuple[np.ndarray, ...]] | None = None,
) -> "GeneratorDataset":
    """The batches of a plan as a dataset of rows (tokens, weight, index, *attached).

    The rows are made in the dataset's own thread, while the step before computes.

    Args:
        start: number of the first batch, to resume an epoch; less than len(plan).
        attach: makes further arrays from a batch's number in the plan and the batch: the noise of
            its step. It must return equally many arrays for every batch.

    Iterate with `create_tuple_iterator(num_epochs=1, output_numpy=False)`.
    """
    # Imported late: the rest of this module serves commands that must answer at once.
    import mindspore.dataset

    if not 0 <= start < len(plan):
        raise ValueError(f"start is {start}; the plan has the batches 0 to {len(plan) - 1}")

    def rows() -> Iterator[tuple[np.ndarray, ...]]:
        for position, batch in enumerate(batches(split, plan, start), start):
            yield (*batch, *attach(position, batch)) if attach else batch

    attached = attach(start, next(batches(split, plan, start))) if attach else ()
    names = [*Batch._fields, *(f"attached_{number}" for number in range(len(attached)))]
    return mindspore.dataset.GeneratorDataset(
        rows, names, num_parallel_workers=1, shuffle=False, python_multiprocessing=False
    )
