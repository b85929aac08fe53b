"""The order of an epoch, and the arrays of a batch."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mindspore import Tensor
from tiny import execution

from mindspore_cvae.config.keys import Model
from mindspore_cvae.data.batches import (
    EpochPlan,
    batch_dataset,
    batches,
    make_batch,
)
from mindspore_cvae.data.corpus import Split
from mindspore_cvae.data.vocabulary import BEGIN, END, PAD
from mindspore_cvae.data.widths import bucket_widths
from mindspore_cvae.model.building import build_model
from mindspore_cvae.systems import SYSTEMS

LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=60).map(np.array)


def split_of(lengths, seed=0, name="train"):
    """A split of random sentences of the given lengths."""
    random = np.random.default_rng(seed)
    sentences = [random.integers(4, 30, length).astype(np.int32) for length in lengths]
    return Split(name, "made up", sentences, np.arange(len(lengths)) + 1, {})


# Order


@given(LENGTHS, st.integers(1, 7), st.integers(1, 4), st.integers(0, 9), st.booleans())
def test_every_sentence_once_and_only_the_last_batch_smaller(
    lengths, batch_size, buckets, epoch, shuffle
):
    widths = bucket_widths(lengths, buckets)
    plan = EpochPlan(lengths, widths, batch_size, seed=3, epoch=epoch, shuffle=shuffle)
    indices = np.concatenate([batch.indices for batch in plan])
    assert sorted(indices) == list(range(len(lengths)))
    assert {len(batch.indices) for batch in plan[:-1]} <= {batch_size}
    assert 0 < len(plan[-1].indices) <= batch_size
    for width, members in plan:
        assert width == min(allowed for allowed in widths if allowed > lengths[members].max())


@given(LENGTHS, st.lists(st.integers(1, 7), min_size=4, max_size=4), st.booleans())
def test_batches_of_another_size_for_every_width(lengths, sizes, shuffle):
    widths = bucket_widths(lengths, 4)
    sizes = sorted(sizes, reverse=True)[: len(widths)]
    plan = EpochPlan(lengths, widths, sizes, seed=3, shuffle=shuffle)
    assert sorted(np.concatenate([batch.indices for batch in plan])) == list(range(len(lengths)))
    assert plan.batch_sizes == dict(zip(widths, sizes, strict=True))
    for width, members in plan:
        assert width == min(allowed for allowed in widths if allowed > lengths[members].max())
        assert 0 < len(members) <= plan.batch_sizes[width]


@given(LENGTHS, st.integers(1, 7), st.integers(1, 4), st.integers(0, 9))
def test_batches_of_one_length(lengths, batch_size, buckets, epoch):
    widths = bucket_widths(lengths, buckets)
    options = {"seed": 3, "epoch": epoch, "same_length": True}
    plan = EpochPlan(lengths, widths, batch_size, **options)
    assert sorted(np.concatenate([batch.indices for batch in plan])) == list(range(len(lengths)))
    for width, members in plan:
        (length,) = set(lengths[members])
        assert width == min(allowed for allowed in widths if allowed > length)
    counts = np.unique(lengths, return_counts=True)[1]
    assert len(plan) == sum(-(-count // batch_size) for count in counts)
    again = EpochPlan(lengths, widths, batch_size, **options)
    assert all((one.indices == other.indices).all() for one, other in zip(plan, again, strict=True))


def test_a_wider_batch_cannot_have_more_sentences():
    with pytest.raises(ValueError, match=r"batch_size is \[2, 3\]"):
        EpochPlan([1, 2], (2, 3), (2, 3))


@pytest.fixture(scope="module")
def lengths():
    return np.random.default_rng(0).integers(1, 30, 1000)


@pytest.fixture(scope="module")
def widths(lengths):
    return bucket_widths(lengths, 4)


def order(plan):
    return [(width, indices.tolist()) for width, indices in plan]


def test_the_order_is_a_function_of_seed_and_epoch(lengths, widths):
    def plan(seed, epoch):
        return order(EpochPlan(lengths, widths, 32, seed, epoch))

    first = plan(1, 2)
    assert plan(1, 2) == first
    assert plan(1, 3) != first and plan(2, 2) != first and plan(2, 1) != first
    assert len(first) == 32


def test_the_order_stays_what_it_was():
    """A run that was interrupted under another version must resume in the same order."""
    plan = EpochPlan([1, 2, 3, 4, 5, 1, 2, 3, 4], (4, 6), 2, seed=5, epoch=1)
    assert order(plan) == [(4, [1, 2]), (4, [0, 6]), (4, [7, 5]), (6, [4, 8]), (6, [3])]


def test_batches_of_all_widths_are_mixed(lengths, widths):
    plan = EpochPlan(lengths, widths, 8, seed=0, epoch=0)
    halves = [{batch.width for batch in half} for half in (plan[:60], plan[60:])]
    assert halves == [set(widths), set(widths)]


def test_companions_change_with_the_epoch(lengths, widths):
    pairs = [
        {frozenset(batch.indices.tolist()) for batch in EpochPlan(lengths, widths, 32, 0, epoch)}
        for epoch in range(2)
    ]
    assert not pairs[0] & pairs[1]


def test_sentences_move_up_by_chance(lengths, widths):
    """No sentence is always the one that is left over from its bucket."""
    narrow = set(np.flatnonzero(lengths + 1 <= widths[0]))
    moved = [
        {
            int(number)
            for width, indices in EpochPlan(lengths, widths, 32, 0, epoch)
            if width > widths[0]
            for number in indices
            if number in narrow
        }
        for epoch in range(5)
    ]
    assert all(moved) and not set.intersection(*moved)


def test_without_shuffling_lengths_and_sentences_ascend():
    plan = EpochPlan([5, 1, 2, 1, 5, 2, 1], (2, 3, 6), 2, shuffle=False)
    assert order(plan) == [(2, [1, 3]), (3, [2, 5]), (6, [0, 4]), (2, [6])]


def test_a_single_batch_is_no_wider_than_it_needs():
    ((width, indices),) = EpochPlan([2, 2], (3, 50), 32)
    assert width == 3 and sorted(indices) == [0, 1]


def test_no_sentences_no_batches():
    assert order(EpochPlan([], (3,), 32)) == []


def test_a_sentence_that_fits_no_width_is_refused():
    with pytest.raises(ValueError, match="a sentence of 10 words .* widest bucket, of 9 words"):
        EpochPlan([3, 10], (4, 10), 2)
    assert len(EpochPlan([3, 9], (4, 10), 2)) == 1


# Arrays


def test_arrays_of_a_batch():
    sentences = [np.array(words, np.int32) for words in ([7], [4, 5, 6], [8, 9])]
    batch = make_batch(sentences, 4, np.array([1, 2]), 3)
    assert batch.tokens.tolist() == [
        [BEGIN, 4, 5, 6, END],
        [BEGIN, 8, 9, END, PAD],
        [BEGIN, END, PAD, PAD, PAD],
    ]
    assert batch.weight.tolist() == [1, 1, 0]
    assert batch.index.tolist() == [1, 2, -1]
    assert [array.dtype for array in batch] == [np.int32, np.float32, np.int32]


def test_batches_hold_the_planned_sentences(lengths, widths):
    split = split_of(lengths)
    plan = EpochPlan(lengths, widths, 32, 0, 0)
    made = list(batches(split, plan))
    assert len(made) == len(plan)
    for (width, indices), batch in zip(plan, made, strict=True):
        assert batch.tokens.shape == (32, width + 1)
        assert batch.index[: len(indices)].tolist() == indices.tolist()
        assert batch.weight.sum() == len(indices)
    restored = {
        int(number): [token for token in row if token not in (PAD, BEGIN, END)]
        for batch in made
        for number, row in zip(batch.index, batch.tokens.tolist(), strict=True)
    }
    assert restored.pop(-1) == []
    assert restored == {number: words.tolist() for number, words in enumerate(split.sentences)}


def equal(first, second):
    return len(first) == len(second) and all(map(np.array_equal, first, second))


def test_an_interrupted_epoch_resumes(lengths, widths):
    split, plan = split_of(lengths), EpochPlan(lengths, widths, 32, 0, 0)
    everything, rest = list(batches(split, plan)), list(batches(split, plan, 20))
    assert len(rest) == len(everything) - 20
    assert all(map(equal, everything[20:], rest))


def test_losses_equal_those_of_exact_lengths():
    """Padding, fillers and company change no sentence's -log p(x|z)."""
    lengths = [1, 2, 2, 5, 6, 9, 9, 3, 4, 7]
    split = split_of(lengths)
    model = build_model(
        SYSTEMS["ae"], Model(embedding_size=8, hidden_size=12, latent_size=4), 30, seed=0
    )

    def losses(tokens):
        tokens = Tensor(tokens)
        _, _, z = model.encode((tokens, None, None))
        return model.decoder(tokens, z).asnumpy()

    with execution("pynative"):
        exact = [
            losses(make_batch(split.sentences, length + 1, [number], 1).tokens)[0]
            for number, length in enumerate(lengths)
        ]
        found = np.full(len(lengths), np.nan)
        for batch in batches(split, EpochPlan(lengths, (4, 10), 4)):
            real = batch.weight == 1
            found[batch.index[real]] = losses(batch.tokens)[real]
    np.testing.assert_allclose(found, exact, rtol=1e-5)


# Datasets


def rows(dataset):
    iterator = dataset.create_tuple_iterator(num_epochs=1, output_numpy=False)
    return [tuple(tensor.asnumpy() for tensor in row) for row in iterator]


@pytest.mark.parametrize("start", [0, 25])
def test_a_dataset_holds_the_batches_in_order(lengths, widths, start):
    split, plan = split_of(lengths), EpochPlan(lengths, widths, 32, 0, 0)
    made = rows(batch_dataset(split, plan, start))
    assert len(made) == len(plan) - start
    assert all(map(equal, made, batches(split, plan, start)))
    assert [array.dtype for array in made[0]] == [np.int32, np.float32, np.int32]


def test_a_dataset_attaches_what_belongs_to_the_batch(lengths, widths):
    split, plan = split_of(lengths), EpochPlan(lengths, widths, 32, 0, 0)
    threads = []

    def attach(position, batch):
        threads.append(threading.get_ident())
        return np.full(2, position, np.int64), batch.tokens[:, ::-1] + np.int32(position)

    made = rows(batch_dataset(split, plan, 3, attach))
    assert [row[3].tolist() for row in made] == [[number] * 2 for number in range(3, len(plan))]
    for row, batch in zip(made, batches(split, plan, 3), strict=True):
        assert equal(row[:3], batch)
        np.testing.assert_array_equal(row[4], batch.tokens[:, ::-1] + row[3][0])
    # The first call tells the number of arrays; all others are made beside the training step.
    assert threading.get_ident() not in threads[1:]


def test_a_dataset_may_be_left_before_its_end(lengths, widths):
    split, plan = split_of(lengths), EpochPlan(lengths, widths, 32, 0, 0)
    iterator = batch_dataset(split, plan).create_tuple_iterator(num_epochs=1, output_numpy=False)
    row = next(iter(iterator))
    assert np.array_equal(row[0].asnumpy(), next(batches(split, plan)).tokens)


def test_what_goes_wrong_in_attach_is_told(lengths, widths):
    split, plan = split_of(lengths), EpochPlan(lengths, widths, 32, 0, 0)

    def attach(position, batch):
        if position == 2:
            raise ArithmeticError("no noise for step 2")
        return (np.zeros(1),)

    with pytest.raises(RuntimeError, match="no noise for step 2"):
        rows(batch_dataset(split, plan, attach=attach))


@pytest.mark.parametrize("start", [-1, 32, 99])
def test_a_start_outside_of_the_epoch_is_refused(lengths, widths, start):
    split, plan = split_of(lengths), EpochPlan(lengths, widths, 32, 0, 0)
    with pytest.raises(ValueError, match=f"start is {start}; the plan has the batches 0 to 31"):
        batch_dataset(split, plan, start)
