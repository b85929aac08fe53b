"""Noise of training steps: keyed by seed and step, independent between purposes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mindspore_cvae.common.randomness import STREAMS, generator, normal, random_bytes
from mindspore_cvae.config.keys import Model
from mindspore_cvae.systems import SYSTEMS
from mindspore_cvae.training.noise import NoiseMaker, swap_neighbours

PAD, START, END = 0, 2, 3
SIZES = Model(embedding_size=5, hidden_size=7, latent_size=4, noise_size=3)
WIDTH, CRITIC_UPDATES = 9, 2


def rows(*lengths, width=WIDTH):
    """Sentences of distinct words 10, 11, ... of these lengths, as padded rows."""
    tokens = np.zeros((len(lengths), width + 1), np.int32)
    for row, length in zip(tokens, lengths, strict=True):
        row[: length + 2] = [START, *range(10, 10 + length), END]
    return tokens


TOKENS = rows(8, 5, 1, 3)


def make(name="cvae_plus_mi", seed=5, step=3, tokens=TOKENS, sizes=SIZES, **slots):
    system = replace(SYSTEMS[name], **slots)
    return NoiseMaker(system, sizes, CRITIC_UPDATES, seed)(step, tokens)


def equal(first, second):
    """Field by field, whether two noises are the same to the bit."""
    return {
        field: np.array_equal(getattr(first, field), getattr(second, field))
        for field in first._fields
        if getattr(first, field) is not None
    }


def test_the_same_seed_and_step_give_the_same_bits_whatever_ran_before():
    maker = NoiseMaker(SYSTEMS["cvae_plus_mi"], SIZES, CRITIC_UPDATES, 5)
    for step in (0, 1, 2):
        maker(step, rows(4, 4))
    assert all(equal(maker(3, TOKENS), make()).values())


@pytest.mark.parametrize("change", [{"seed": 6}, {"step": 4}], ids=["seed", "step"])
def test_another_seed_or_step_gives_other_noise(change):
    slots = {"prior_negatives": 3, "augmentation": "swap", "swap_probability": 0.5}
    different = equal(make(**slots), make(**slots, **change))
    assert set(different) == set(make()._fields) and not any(different.values())


def test_sub_iterations_share_no_numbers_with_the_step_or_each_other():
    maker = NoiseMaker(SYSTEMS["lagging_vae"], SIZES, CRITIC_UPDATES, 5)
    parts = [maker(3, TOKENS, part) for part in range(4)]
    assert all(equal(parts[0], maker(3, TOKENS)).values())
    draws = [part.posterior.ravel() for part in parts]
    assert len(np.unique(np.concatenate(draws))) == sum(map(len, draws))


def test_each_step_of_a_refinement_has_its_own_draws():
    draws = make("sa_vae").posterior
    assert len(np.unique(draws)) == draws.size


def test_steps_share_no_numbers():
    """Successive steps are no shifted copies of one sequence."""
    seen = [make(step=step).posterior.ravel() for step in range(20)]
    assert len(np.unique(np.concatenate(seen))) == sum(map(len, seen))


def test_purposes_share_no_numbers():
    draws = [normal(generator(5, stream, 3), 100) for stream in STREAMS]
    assert len(np.unique(np.concatenate(draws))) == 100 * len(STREAMS)


def test_switching_one_purpose_off_changes_no_other():
    without_dropout = make(encoder_dropout=0.0)
    assert without_dropout.encoder_bytes is None
    with_more = make(prior_negatives=3)
    assert with_more.contrast is not None and make().contrast is None
    assert all(equal(without_dropout, make()).values())
    assert all(equal(make(), with_more).values())


def test_views_differ():
    noise = make()
    for name, axis in (("posterior", 0), ("encoder_bytes", 1), ("embedding_bytes", 1)):
        first, second = np.split(getattr(noise, name), 2, axis)
        assert not np.array_equal(first, second)
    first, second = np.split(noise.prior, 2, 1)
    assert not np.isin(first, second).any()


def test_every_critic_update_and_the_model_have_their_own_prior_draws():
    prior = make().prior
    assert prior.shape == (CRITIC_UPDATES + 1, 2 * len(TOKENS), SIZES.latent_size)
    assert len(np.unique(prior)) == prior.size


@pytest.mark.parametrize("name", SYSTEMS)
def test_each_system_gets_the_noise_that_it_needs(name):
    system, noise = SYSTEMS[name], make(name)
    every = system.views * len(TOKENS)
    assert noise.encoder_tokens.shape == (every, WIDTH + 1)
    assert noise.encoder_tokens.dtype == np.int32
    sizes = {"deterministic": None, "none": None, "gaussian": SIZES.latent_size}
    size = sizes.get(system.posterior, 3)
    assert (noise.posterior is None) == (size is None)
    sets = (system.refinement_steps + 1,) if system.refinement_steps else ()
    assert size is None or noise.posterior.shape == (*sets, every, size)
    assert (noise.prior is None) == (system.divergence in ("none", "gaussian_kl"))
    assert noise.contrast is None
    assert (noise.encoder_bytes is None) == (system.contrast == "none")
    if noise.encoder_bytes is not None:
        assert noise.encoder_bytes.shape == (WIDTH + 1, every, SIZES.embedding_size)
    assert noise.embedding_bytes.shape == (WIDTH, every, SIZES.embedding_size)
    assert noise.output_bytes.shape == (WIDTH, every, SIZES.hidden_size)


def test_prior_negatives_are_a_multiple_of_the_batch():
    assert make(prior_negatives=3).contrast.shape == (3 * len(TOKENS), SIZES.latent_size)


def test_swapped_negatives_are_encoded_once_more_and_decoded_never():
    with_swaps = make(swap_negatives=True, swap_probability=1.0)
    plain, count = make(), len(TOKENS)
    tokens = with_swaps.encoder_tokens
    np.testing.assert_array_equal(tokens[: 2 * count], plain.encoder_tokens)
    # With certainty at every place, the first word goes to the end.
    for row, swapped in zip(TOKENS, tokens[2 * count :], strict=True):
        words = int((row != 0).sum()) - 2
        expected = [row[0], *row[2 : words + 1], row[1], *row[words + 1 :]]
        assert swapped.tolist() == expected
    assert with_swaps.posterior.shape[0] == with_swaps.encoder_bytes.shape[1] == 3 * count
    assert with_swaps.embedding_bytes.shape == plain.embedding_bytes.shape
    assert with_swaps.prior.shape == plain.prior.shape


def test_no_decoder_dropout_needs_no_bytes():
    noise = make(sizes=replace(SIZES, decoder_dropout=0.0))
    assert noise.embedding_bytes is None and noise.output_bytes is None


def test_normal_numbers_are_standard_normal():
    draws = normal(generator(0, "posterior", 0), 100_000)
    assert draws.dtype == np.float32
    moments = [draws.mean(), (draws**2).mean(), (draws**3).mean(), (draws**4).mean()]
    np.testing.assert_allclose(moments, [0, 1, 0, 3], atol=0.06)


def test_bytes_are_uniform():
    draws = random_bytes(generator(0, "encoder", 0), 256, 1001)
    assert draws.dtype == np.uint8 and draws.shape == (256, 1001)
    counts = np.bincount(draws.ravel(), minlength=256)
    # Chi-square of 255 degrees of freedom: mean 255, standard deviation 22.6.
    assert 255 - 5 * 22.6 < ((counts - 1001) ** 2 / 1001).sum() < 255 + 5 * 22.6


class Coins:
    """A source whose coins are given: True swaps a position with its right neighbour."""

    def __init__(self, *positions):
        self.positions = positions

    def random(self, shape):
        coins = np.ones(shape)
        coins[:, list(self.positions)] = 0.0
        return coins


def words(tokens):
    return [[int(w) - 9 for w in row if w > 9] for row in tokens]


@pytest.mark.parametrize(
    "positions, expected",
    [
        ((), [1, 2, 3, 4]),
        ((1,), [2, 1, 3, 4]),
        # Left to right: a word that was moved may be moved on.
        ((1, 2), [2, 3, 1, 4]),
        ((1, 2, 3), [2, 3, 4, 1]),
        ((1, 3), [2, 1, 4, 3]),
        # <s> before the first word, the last word before </s>: both stay.
        ((0, 4, 5), [1, 2, 3, 4]),
    ],
)
def test_swaps_go_left_to_right(positions, expected):
    assert words(swap_neighbours(rows(4), 0.5, Coins(*positions))) == [expected]


def test_swaps_in_full_and_padded_rows():
    everywhere = Coins(*range(WIDTH + 1))
    swapped = swap_neighbours(TOKENS, 0.5, everywhere)
    assert words(swapped) == [[*range(2, 9), 1], [2, 3, 4, 5, 1], [1], [2, 3, 1]]
    for special in (PAD, START, END):
        np.testing.assert_array_equal(swapped == special, TOKENS == special)


def test_rows_without_words_are_left_alone():
    empty = np.array([[START, END, PAD, PAD], [PAD] * 4], np.int32)
    np.testing.assert_array_equal(swap_neighbours(empty, 1.0, Coins(0, 1, 2, 3)), empty)


def test_swaps_happen_at_their_rate():
    """One pair a row, so each row is swapped or not: 4 standard errors about 0.1."""
    count = 20_000
    swapped = swap_neighbours(rows(*[2] * count), 0.1, generator(0, "swap", 0))
    rate = np.mean(swapped[:, 1] == 11)
    assert abs(rate - 0.1) < 4 * np.sqrt(0.1 * 0.9 / count)


@pytest.mark.parametrize("probability, changes", [(0.0, False), (1.0, True)])
def test_extreme_swap_probabilities(probability, changes):
    swapped = swap_neighbours(TOKENS, probability, generator(0, "swap", 0))
    assert (words(swapped) != words(TOKENS)) == changes


def test_swaps_keep_the_words_of_each_sentence():
    swapped = swap_neighbours(TOKENS, 0.7, generator(0, "swap", 0))
    np.testing.assert_array_equal(np.sort(swapped, 1), np.sort(TOKENS, 1))


def test_swap_augmentation_changes_the_second_views_input_only():
    tokens = rows(*[8] * 50)
    before = tokens.copy()
    noise = make(augmentation="swap", swap_probability=0.5, encoder_dropout=0.0, tokens=tokens)
    first, second = np.split(noise.encoder_tokens, 2)
    np.testing.assert_array_equal(first, before)
    assert not np.array_equal(second, before)
    np.testing.assert_array_equal(tokens, before)


def test_a_single_view_is_never_swapped():
    noise = make("vae", augmentation="swap", swap_probability=1.0)
    np.testing.assert_array_equal(noise.encoder_tokens, TOKENS)


def test_without_swaps_both_views_read_the_sentence():
    np.testing.assert_array_equal(make().encoder_tokens, np.concatenate([TOKENS, TOKENS]))
