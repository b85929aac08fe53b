"""lstm_lm: a decoder without z, whose likelihood and perplexity are exact."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import numpy_twins as twins
import pytest
import tiny
from mindspore import Tensor
from tiny_run import SENTENCES, write_run

from mindspore_cvae import ContrastiveVAE
from mindspore_cvae.config import layers
from mindspore_cvae.data.corpus import load_corpus
from mindspore_cvae.data.vocabulary import BEGIN, END
from mindspore_cvae.data.widths import corpus_widths
from mindspore_cvae.errors import InputError
from mindspore_cvae.evaluation.metrics import Weighing, evaluate, evaluate_run
from mindspore_cvae.evaluation.scoring import Scorer
from mindspore_cvae.model.building import build_model
from mindspore_cvae.model.networks import LanguageModel
from mindspore_cvae.runs import checkpoints
from mindspore_cvae.runs.loading import load_run
from mindspore_cvae.training.building import build_step

VOCABULARY, EMBEDDING, HIDDEN, WIDTH = 12, 5, 6, 6
WORDS = [[4, 7, 9, 4, 11], [8], [5, 6, 10], []]
TOKENS = tiny.rows(WORDS, WIDTH)
RANDOM = np.random.default_rng(2)


def log_probabilities_of(weights, words):
    """log p(word t | words before t) of one sentence in float64, (T, V)."""
    inputs = weights["embedding.weight"][[BEGIN, *words]][:, None]
    lstm = {name[5:]: value for name, value in weights.items() if name.startswith("lstm.")}
    zeros = np.zeros((1, lstm["weight_hh_l0"].shape[1]))
    states = twins.lstm(lstm, inputs, zeros, zeros)[:, 0]
    matrix = weights["vocabulary_weight"]
    return twins.log_softmax(states @ matrix[:, :-1].T + matrix[:, -1])


def nll(weights, words):
    rows = log_probabilities_of(weights, words)
    return -sum(row[word] for row, word in zip(rows, [*words, END], strict=True))


@pytest.fixture(scope="module")
def decoder():
    cell = LanguageModel(VOCABULARY, EMBEDDING, HIDDEN, 4, 0.5)
    cell.update_parameters_name()
    return cell, tiny.randomise(cell)


@pytest.mark.parametrize("mode", tiny.MODES)
def test_likelihood_equals_numpy_whatever_z_is(decoder, mode):
    cell, weights = decoder
    expected = [nll(weights, words) for words in WORDS]
    for scale in (0.0, 9.0):
        z = (scale * RANDOM.normal(size=(len(WORDS), 4))).astype(np.float32)
        with tiny.execution(mode):
            result = cell(Tensor(TOKENS), Tensor(z)).asnumpy()
        np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_word_by_word_it_is_the_same_model(decoder):
    cell, weights = decoder
    with tiny.execution("pynative"):
        z = Tensor(np.ones((1, 4), np.float32))
        state, words = cell.initial_state(z), [7, 4, 9]
        expected = log_probabilities_of(weights, words)
        for word, row in zip([BEGIN, *words], expected, strict=True):
            predicted, state = cell.step(Tensor([word], ms.int32), z, state)
            np.testing.assert_allclose(predicted.asnumpy()[0], row, rtol=1e-4, atol=1e-6)


def test_nothing_of_it_encodes_or_reads_z():
    names = [parameter.name for parameter in tiny.training("lstm_lm").model.get_parameters()]
    assert set(names) == {
        *("decoder.embedding.weight", "decoder.vocabulary_weight"),
        *(f"decoder.lstm.{kind}_l0" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")),
    }
    sizes = tiny.SIZES
    weight = tiny.training("lstm_lm").model.decoder.lstm.weight_ih_l0
    assert weight.shape == (4 * sizes.hidden_size, sizes.embedding_size)


def test_its_loss_is_the_likelihood():
    terms = tiny.training("lstm_lm").run()
    assert terms["loss"] == terms["rec"] > 0
    assert terms["div"] == terms["con"] == 0


def test_separate_clipping_has_one_group():
    """There is no encoder whose gradients could be clipped."""
    slots = tiny.combination("lstm_lm", clipping="separate")
    model = build_model(slots, tiny.SIZES, tiny.VOCABULARY, 0)
    assert build_step(model, slots, tiny.TRAINING).groups == (6,)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("lstm_lm"), "lstm_lm")


@pytest.fixture(scope="module")
def model(run):
    return ContrastiveVAE.load(run)


def test_perplexity_is_exact(run, model):
    """exp of the mean -log p a predicted token, by NumPy; no KL, and no column of what there is
    not."""
    settings = layers.read_saved(run / "config.yaml")
    corpus = load_corpus(settings.data, model.vocabulary)
    metrics, values = evaluate_run(run, settings, corpus, "test", "best", weighing=Weighing(5))
    tensors = checkpoints.load(run / "checkpoints").tensors
    weights = {
        name.removeprefix("decoder."): values.astype(float) for name, values in tensors.items()
    }
    expected = np.array([nll(weights, words) for words in corpus.test.sentences])
    tokens = sum(len(words) + 1 for words in corpus.test.sentences)
    for column in ("rec", "neg_elbo", "neg_elbo_valid", "iw_nll"):
        assert metrics[column] == pytest.approx(expected.mean(), rel=1e-5)
    for column in ("ppl", "iw_ppl"):
        assert metrics[column] == pytest.approx(np.exp(expected.sum() / tokens), rel=1e-5)
    np.testing.assert_allclose(values["iw_nll"], expected, rtol=1e-5)
    assert (metrics["kl"], metrics["draws"], metrics["ess"]) == (0.0, 1, 5.0)
    for column in ("kl_z", "mi", "au", "kl_exact", "mi_exact"):
        assert metrics[column] is None


def test_samples_need_no_z(model):
    texts = model.sample(20, seed=3)
    assert len(set(texts)) > 10 and texts == model.sample(20, seed=3)
    z = RANDOM.normal(size=(5, model.latent_size))
    assert model.decode(z, "sample", seed=1) == model.decode(0 * z, "sample", seed=1)
    assert len(set(model.decode(z))) == 1


def test_scores_are_likelihoods(model):
    scores = model.score(SENTENCES[:3])
    np.testing.assert_array_equal(scores.neg_elbo, scores.rec)
    assert not scores.kl.any()


@pytest.mark.parametrize("use", ["encode", "reconstruct", "nearest"])
def test_what_needs_a_code_is_refused(model, use):
    with pytest.raises(InputError, match="no latent variable"):
        getattr(model, use)(SENTENCES[:2])


def test_without_fresh_critics(run, model):
    """There are no codes to which critics could be fitted."""
    settings = layers.read_saved(run / "config.yaml")
    corpus = load_corpus(settings.data, model.vocabulary)
    evaluator = Scorer(load_run(run).model, settings, corpus_widths(corpus, 1))
    metrics, _ = evaluate(evaluator, corpus.test, 1, critic_sizes=settings.model)
    assert "kl_refit" not in metrics
