"""Lag-VAE: when the encoder is updated, on what, and when that ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
from mindspore import Tensor

from mindspore_cvae.config import layers
from mindspore_cvae.data.corpus import load_corpus
from mindspore_cvae.model.building import build_model
from mindspore_cvae.runs.folder import Run
from mindspore_cvae.systems import SYSTEMS
from mindspore_cvae.training import trainer
from mindspore_cvae.training.building import build_step
from mindspore_cvae.training.steps.aggressive import repeat_while_loss_falls

WINDOW = 3


def batches(losses, lengths=None):
    """An ``update`` whose n-th batch has a given loss, of one sentence of 5 predicted words."""
    lengths = [5] * len(losses) if lengths is None else lengths

    def update(number):
        tokens = tiny.rows([range(4, 4 + lengths[number - 1] - 1)] * 2, 12)
        terms = Tensor(np.array([losses[number - 1], 7.0], np.float32))
        return terms, Tensor(tokens), Tensor(np.array([1, 0], np.float32))

    return update


@pytest.mark.parametrize(
    "losses, updates",
    [
        # Means of three: 9, 8, 7, 8 (above the one before: the end), never looked at.
        ([9] * 3 + [8] * 3 + [7] * 3 + [8] * 3 + [1] * 3, 12),
        # The first window has none before it to be compared with.
        ([1, 2, 9, 9, 9, 9, 0, 0, 0], 6),
        # A window as good as the one before goes on.
        ([5] * 15, 15),
        # Single updates may rise: 1 9 2, then 2 8 1.
        ([1, 9, 2, 2, 8, 1, 9, 9, 9, 0, 0, 0], 9),
        ([3, 3, 3, 2], 4),
    ],
)
def test_it_ends_once_a_window_is_worse_than_the_one_before(losses, updates):
    assert repeat_while_loss_falls(batches(losses), WINDOW, len(losses)) == updates


def test_losses_are_compared_by_the_word():
    """Nats a sentence rise from 10 to 20, a word they fall from 5 to 2; fillers do not count."""
    rising = batches([10] * 3 + [20] * 3 + [21] * 3, [2] * 3 + [10] * 6)
    assert repeat_while_loss_falls(rising, WINDOW, 9) == 9


def test_windows_and_their_number_are_those_of_he_et_al():
    slots = SYSTEMS["lagging_vae"]
    model = build_model(slots, tiny.SIZES, tiny.VOCABULARY, 0)
    step = build_step(model, slots, tiny.TRAINING)
    assert (step.window, step.most_updates) == (15, 100)


@pytest.fixture(scope="module")
def lagging():
    """A compiled step."""
    return tiny.Training(SYSTEMS["lagging_vae"])


@pytest.fixture(scope="module")
def joint():
    """The step that the same model takes as a VAE."""
    return tiny.Training(SYSTEMS["vae"])


def begin(training, random_batch=None, most_updates=2):
    """Back to the start, and not to more updates of the encoder than a test has patience for."""
    training.restore(training.start)
    training.step.bind(random_batch)
    training.step.most_updates = most_updates
    return training


def model_values(training):
    return {p.name: p.asnumpy().copy() for p in training.model.get_parameters()}


def is_decoder(name):
    return name.startswith("decoder.")


def random_batches(training, asked):
    """Batches of further noise; the numbers that were asked for are kept."""

    def random_batch(number):
        asked.append(number)
        arrays = [tiny.TOKENS, tiny.WEIGHT, *training.noise(100 + number)]
        return tuple(tiny.tensors(arrays))

    return random_batch


def joint_update(joint, values, index):
    """What one update of a VAE makes of a model, by the noise of a step, with fresh moments."""
    joint.restore({**joint.start, **values})
    terms = joint.run(index)
    return terms, model_values(joint)


def test_the_encoder_learns_from_random_batches_and_then_the_decoder_from_its_own(lagging, joint):
    """One update of the encoder, then one of the decoder, each as a VAE makes it."""
    asked = []
    begin(lagging, random_batches(lagging, asked), most_updates=1)
    before = model_values(lagging)
    terms = lagging.run(0)
    assert asked == [1] and lagging.step.counts() == {"encoder_updates": 1}
    _, by_random_batch = joint_update(joint, before, 101)
    between = {
        name: values if is_decoder(name) else by_random_batch[name]
        for name, values in before.items()
    }
    own_terms, by_own_batch = joint_update(joint, between, 0)
    after = model_values(lagging)
    for name, values in after.items():
        right = by_own_batch if is_decoder(name) else between
        np.testing.assert_allclose(values, right[name], rtol=1e-5, atol=1e-6)
        assert not np.array_equal(values, before[name])
    np.testing.assert_allclose(list(terms.values()), list(own_terms.values()), rtol=1e-5)


def test_every_update_of_the_encoder_asks_for_another_batch(lagging):
    asked = []
    begin(lagging, random_batches(lagging, asked)).run()
    assert asked == [1, 2] and lagging.step.counts() == {"encoder_updates": 2}


def test_after_the_aggressive_phase_a_step_is_that_of_a_vae(lagging, joint):
    begin(lagging).step.load_state({"aggressive": False, "last_mi": 0.5})
    begin(joint)
    for index in range(3):
        assert lagging.run(index) == pytest.approx(joint.run(index), rel=1e-5)
        assert lagging.step.counts() == {"encoder_updates": 1}
    for name, values in model_values(joint).items():
        np.testing.assert_allclose(model_values(lagging)[name], values, rtol=1e-4, atol=1e-5)


def test_gradients_are_clipped_together_while_one_part_is_updated():
    """Adam's first moment of the encoder is 0.1 of a gradient that was scaled by the norm over all
    parameters: He et al. clip before they choose what to update."""
    limit = 0.01
    settings = replace(tiny.TRAINING, clip_norm=limit)
    lagging = begin(tiny.Training(SYSTEMS["lagging_vae"], training=settings), most_updates=1)
    lagging.run()
    joint = tiny.Training(SYSTEMS["vae"], training=settings)
    joint.run()
    moments = lagging.state()
    names = [p.name for p in joint.step.optimizer.parameters if not is_decoder(p.name)]
    for name in names:
        first = moments[f"optimizer.encoder.moment1.{name}"]
        right = joint.state()[f"optimizer.model.moment1.{name}"]
        np.testing.assert_allclose(first, right, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(
    "information, lasts",
    [
        ([0.1], [True]),
        ([0.1, 0.5, 0.5, 0.9], [True] * 4),
        # It ends when MI falls, and for good.
        ([0.1, 0.5, 0.4, 0.9], [True, True, False, False]),
        ([0.1, -0.2], [True, False]),
    ],
)
def test_the_phase_ends_when_mi_falls(lagging, information, lasts):
    step = begin(lagging).step
    seen = []
    for value in information:
        step.after_validation({"mi": value, "kl": 3.0})
        seen.append(step.state()["aggressive"])
    assert seen == lasts


def test_the_state_can_be_put_back(lagging):
    step = begin(lagging).step
    assert step.state() == {"aggressive": True, "last_mi": None}
    step.after_validation({"mi": 0.5})
    step.after_validation({"mi": 0.25})
    state = step.state()
    assert state == {"aggressive": False, "last_mi": 0.25}
    begin(lagging)
    step.load_state(state)
    assert step.state() == state


SETTINGS = (
    *("model.embedding_size=4", "model.hidden_size=6", "model.latent_size=3", "data.batch_size=3"),
    *("data.buckets=2", "train.log_every_steps=1", "eval.rows=4", "device_target=CPU"),
)


@pytest.fixture
def one_trainer(tmp_path):
    """A trainer of lagging_vae on eight sentences."""
    sentences = ["a cat sat", "the dog ran off", "a bird", "the cat", "dogs sat", "birds", "cats"]
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.txt").write_text("\n".join(sentences) + "\n", encoding="utf-8")
    settings = layers.load(None, SETTINGS, system="lagging_vae", data_dir=str(tmp_path))
    corpus = load_corpus(settings.data)
    with Run(tmp_path / "run") as run:
        yield trainer.Trainer(settings, corpus, run, "CPU")


def arrays(batch):
    return [None if tensor is None else tensor.asnumpy() for tensor in batch]


def same(first, second):
    pairs = zip(arrays(first), arrays(second), strict=True)
    return [np.array_equal(a, b) for a, b in pairs if a is not None]


def test_random_batches_are_a_function_of_seed_step_and_number(one_trainer):
    first = one_trainer.random_batch(1)
    one_trainer.random_batch(2)
    assert all(same(first, one_trainer.random_batch(1)))
    noise = slice(3, None)
    other = one_trainer.random_batch(2)
    assert not any(same(first[noise], other[noise]))
    one_trainer.state.step = 1
    other = one_trainer.random_batch(1)
    assert not any(same(first[noise], other[noise]))


def test_random_batches_share_no_noise_with_the_step(one_trainer):
    tokens, _, _, *noise = one_trainer.random_batch(1)
    own = one_trainer.noise(0, tokens.asnumpy())
    for random, fixed in zip(noise, own[1:], strict=True):
        if fixed is not None:
            assert not np.array_equal(random.asnumpy(), fixed)


def test_random_batches_hold_training_sentences_and_in_time_all_of_them(one_trainer):
    known = {tuple(sentence) for sentence in one_trainer.corpus.train.sentences}
    seen = set()
    for number in range(1, 60):
        tokens, weight, *_ = arrays(one_trainer.random_batch(number))
        rows = [row[(row > tiny.END) | (row == 1)] for row in tokens[weight > 0]]
        seen |= {tuple(row) for row in rows}
    assert seen == known
