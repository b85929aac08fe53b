"""Sentences to batches of a few fixed shapes, each sentence exactly once an epoch."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mindspore_cvae.data.corpus import Split
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
        same_length: every batch holds sentences of one length, as in the released code; then
            sentences do not move up, and the last batch of every length can be smaller.

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
        same_length: bool = False,
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

        bucket = np.searchsorted(ends, needed[order])
        if same_length:
            members, rest = _of_one_length(order, needed[order], bucket, sizes), order[:0]
        else:
            members, rest = _of_one_bucket(order, bucket, sizes)
        if shuffle:
            members = [members[number] for number in _permutation(random, len(members))]
        if len(rest):
            members.append(rest)
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


def _of_one_bucket(
    order: np.ndarray, bucket: np.ndarray, sizes: Sequence[int]
) -> tuple[list[np.ndarray], np.ndarray]:
    """Full batches, and the sentences that are left; those that fill no batch of their bucket move
    up to the next."""
    members: list[np.ndarray] = []
    waiting = np.zeros(len(order), bool)
    for number, size in enumerate(sizes):
        waiting |= bucket == number
        positions = np.flatnonzero(waiting)
        full = len(positions) - len(positions) % size
        waiting[positions[:full]] = False
        members.extend(order[positions[:full]].reshape(-1, size))
    return members, order[waiting]


def _of_one_length(
    order: np.ndarray, needed: np.ndarray, bucket: np.ndarray, sizes: Sequence[int]
) -> list[np.ndarray]:
    """Batches of sentences that need as many positions, the last of each number perhaps smaller."""
    members: list[np.ndarray] = []
    for length in np.unique(needed):
        positions = np.flatnonzero(needed == length)
        size = sizes[bucket[positions[0]]]
        members.extend(np.split(order[positions], range(size, len(positions), size)))
    return members


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
