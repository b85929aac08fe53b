"""The widths to which sentences are padded, and what they cost."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindspore_cvae.config.layers import differences, load
from mindspore_cvae.data.corpus import Corpus, Split
from mindspore_cvae.data.vocabulary import SPECIALS, Vocabulary
from mindspore_cvae.data.widths import (
    SECONDS_PER_WIDTH,
    bucket_widths,
    corpus_widths,
    operations,
    seconds_of_widths,
    with_chosen_buckets,
)

LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=60).map(np.array)


def split_of(lengths, name="train"):
    """A split of sentences of the given lengths."""
    sentences = [np.full(length, 4, np.int32) for length in lengths]
    return Split(name, "made up", sentences, np.arange(len(lengths)) + 1, {})


def corpus_of(train, valid=(1,), test=(1,)):
    parts = (split_of(lengths) for lengths in (train, valid, test))
    return Corpus(*parts, Vocabulary(SPECIALS))


def padding(widths, lengths):
    """Padded positions of sentences in the narrowest widths that admit them."""
    needed = np.asarray(lengths) + 1
    return sum(min(width for width in widths if width >= size) - size for size in needed)


@given(LENGTHS, st.integers(1, 5))
def test_widths_pad_least_of_all_choices(lengths, buckets):
    widths = bucket_widths(lengths, buckets)
    sizes = sorted(set(lengths + 1))
    best = min(
        padding([*chosen, sizes[-1]], lengths)
        for count in range(min(buckets, len(sizes)))
        for chosen in itertools.combinations(sizes[:-1], count)
    )
    assert padding(widths, lengths) == best
    assert list(widths) == sorted(set(widths))
    assert len(widths) <= buckets
    assert widths[-1] == max(sizes)


@given(LENGTHS, st.integers(1, 5), st.integers(1, 20))
def test_the_last_width_admits_the_longest_sentence_of_any_split(lengths, buckets, longest):
    widths = bucket_widths(lengths, buckets, longest)
    assert widths[-1] == max(longest, lengths.max()) + 1
    assert len(widths) <= buckets
    sizes = sorted({*(lengths + 1), widths[-1]})
    best = min(
        padding([*chosen, widths[-1]], lengths)
        for count in range(min(buckets, len(sizes)))
        for chosen in itertools.combinations(sizes[:-1], count)
    )
    assert padding(widths, lengths) == best


def test_widths_of_an_easy_histogram():
    lengths = [3] * 100 + [9] * 10 + [30]
    assert bucket_widths(lengths, 1) == (31,)
    assert bucket_widths(lengths, 2) == (4, 31)
    assert bucket_widths(lengths, 3) == (4, 10, 31)
    assert bucket_widths(lengths, 8) == (4, 10, 31)


def test_widths_are_plain_integers():
    assert {type(width) for width in bucket_widths([1, 2, 5], 2)} == {int}


def test_no_bucket_is_refused():
    with pytest.raises(ValueError, match="buckets is 0"):
        bucket_widths([1], 0)


def test_widths_of_a_corpus():
    corpus = corpus_of([3, 3, 9], [40], [1, 12])
    assert corpus_widths(corpus, 2) in {(4, 41), (10, 41)}
    assert corpus_widths(corpus, 3) == (4, 10, 41)


def test_the_cost_of_widths_by_hand():
    """Sentences of 2 and 5 words need 3 and 6 positions."""
    assert seconds_of_widths(np.array([2, 2, 5]), (6,), 0.5) == 6 * 0.5 + SECONDS_PER_WIDTH
    assert seconds_of_widths(np.array([2, 2, 5]), (3, 6), 0.5) == 2 * SECONDS_PER_WIDTH


def test_operations_of_a_position_by_hand():
    """V = 7, E = 2, H = 3, Z = 4: 4 x 3 x (2 + 3) an LSTM, 4 x 3 x 4 for z, 7 x 4 words."""
    sizes = ["model.embedding_size=2", "model.hidden_size=3", "model.latent_size=4"]
    once = 6 * (2 * 60 + 48 + 28)
    assert operations(load(None, sizes, system="vae"), 7) == once
    assert operations(load(None, sizes, system="cvae"), 7) == 2 * once


def test_a_longer_training_pays_for_more_widths():
    corpus = corpus_of(np.random.default_rng(0).integers(1, 60, 5000))

    def chosen(device="CPU", **train):
        config = load("ptb", ["data.buckets=auto"], system="vae")
        config = replace(config, train=replace(config.train, **train))
        return with_chosen_buckets(config, corpus, device).data.buckets

    few, some, many = (chosen(epochs=epochs) for epochs in (1, 20, 2000))
    assert 1 <= few < some < many <= 64
    assert chosen(epochs=2000, max_steps=5000 // 32) == few
    assert chosen("GPU", epochs=20) < some
    # Cheaper by its own measure than any other.
    config = load("ptb", system="vae")
    second = 20 * operations(config, len(corpus.vocabulary)) / 6e10
    costs = {
        number: seconds_of_widths(
            corpus.train.lengths, bucket_widths(corpus.train.lengths, number), second
        )
        for number in range(1, 65)
    }
    assert costs[some] == min(costs.values())


def test_a_number_of_buckets_stays_and_auto_is_no_difference_to_it():
    config, corpus = load("ptb"), corpus_of([3, 9])
    assert with_chosen_buckets(config, corpus, "CPU") is config
    assert differences(config, load("ptb", ["data.buckets=auto"])) == {}
    assert differences(config, load("ptb", ["data.buckets=7"])) == {"data.buckets": (8, 7)}
