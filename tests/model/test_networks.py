"""Encoder, decoder, dropout and initial values against NumPy."""

from __future__ import annotations

from dataclasses import replace

import mindspore as ms
import numpy as np
import numpy_twins as twins
import pytest
import tiny
from mindspore import Tensor, nn, ops

from mindspore_cvae.config.keys import Model
from mindspore_cvae.model.building import build_model
from mindspore_cvae.model.networks import (
    Critic,
    Decoder,
    Encoder,
    WordLikelihood,
    dropout,
    dropout_threshold,
    leaky_relu,
)
from mindspore_cvae.systems import SYSTEMS

VOCABULARY, EMBEDDING, HIDDEN, LATENT, WIDTH = 12, 5, 6, 4, 6
WORDS = [[4, 7, 9, 4, 11], [8], [5, 6, 10], []]
TOKENS = tiny.rows(WORDS, WIDTH)
SENTENCES = len(WORDS)
RATE = 0.4
RANDOM = np.random.default_rng(5)
Z = RANDOM.normal(size=(SENTENCES, LATENT)).astype(np.float32)
ENCODER_BYTES, EMBEDDING_BYTES = RANDOM.integers(
    0, 256, (2, WIDTH + 1, SENTENCES, EMBEDDING)
).astype(np.uint8)
EMBEDDING_BYTES = EMBEDDING_BYTES[:-1]
OUTPUT_BYTES = RANDOM.integers(0, 256, (WIDTH, SENTENCES, HIDDEN)).astype(np.uint8)


@pytest.fixture(params=tiny.MODES)
def mode(request):
    with tiny.execution(request.param):
        yield


@pytest.fixture(scope="module")
def encoder():
    cell = Encoder(VOCABULARY, EMBEDDING, HIDDEN, RATE)
    cell.update_parameters_name()
    return cell, tiny.randomise(cell)


@pytest.fixture(scope="module")
def decoder():
    cell = Decoder(VOCABULARY, EMBEDDING, HIDDEN, LATENT, RATE)
    cell.update_parameters_name()
    return cell, tiny.randomise(cell)


def lstm_weights(weights):
    return {name[5:]: value for name, value in weights.items() if name.startswith("lstm.")}


def keep(random_bytes, rate=RATE):
    """Inverted dropout's factors: bytes below round(256 rate) are dropped."""
    dropped = round(256 * rate)
    return (random_bytes >= dropped) * 256 / (256 - dropped)


def encoder_twin(weights, sentence, factors=None):
    """h of one unpadded sentence."""
    embedded = weights["embedding.weight"][sentence][:, None]
    if factors is not None:
        embedded = embedded * factors[: len(sentence), None]
    zero = np.zeros((1, HIDDEN))
    return twins.lstm(lstm_weights(weights), embedded, zero, zero)[-1, 0]


def decoder_twin(weights, sentence, z, embedding_factors=None, output_factors=None):
    """log p(word t | words before t, z) of one unpadded sentence ``<s> ... </s>``: (T, V)."""
    previous = sentence[:-1]
    embedded = weights["embedding.weight"][previous]
    if embedding_factors is not None:
        embedded = embedded * embedding_factors[: len(previous)]
    inputs = np.hstack([embedded, np.tile(z, (len(previous), 1))])[:, None]
    hidden = z[None] @ weights["initial_hidden.weight"].T
    states = twins.lstm(lstm_weights(weights), inputs, hidden, np.zeros((1, HIDDEN)))[:, 0]
    if output_factors is not None:
        states = states * output_factors[: len(previous)]
    matrix, bias = weights["vocabulary_weight"][:, :-1], weights["vocabulary_weight"][:, -1]
    return twins.log_softmax(states @ matrix.T + bias)


def likelihood_twin(weights, sentence, z, *factors):
    log_probabilities = decoder_twin(weights, sentence, z, *factors)
    return -sum(row[word] for row, word in zip(log_probabilities, sentence[1:], strict=True))


def unpadded(row):
    return row[row != tiny.PAD]


def test_h_is_the_state_at_the_end_of_the_sentence(encoder, mode):
    cell, weights = encoder
    h = cell(Tensor(TOKENS)).asnumpy()
    expected = [encoder_twin(weights, unpadded(row)) for row in TOKENS]
    np.testing.assert_allclose(h, expected, rtol=1e-4, atol=1e-6)


def test_encoder_dropout_falls_on_embedded_words(encoder, mode):
    cell, weights = encoder
    h = cell(Tensor(TOKENS), Tensor(ENCODER_BYTES)).asnumpy()
    factors = keep(ENCODER_BYTES)
    expected = [encoder_twin(weights, unpadded(r), factors[:, n]) for n, r in enumerate(TOKENS)]
    np.testing.assert_allclose(h, expected, rtol=1e-4, atol=1e-6)


def test_likelihood_equals_numpy_on_padded_rows(decoder, mode):
    cell, weights = decoder
    result = cell(Tensor(TOKENS), Tensor(Z)).asnumpy()
    expected = [likelihood_twin(weights, unpadded(r), z) for r, z in zip(TOKENS, Z, strict=True)]
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_decoder_dropout_falls_on_embedded_words_and_outputs(decoder, mode):
    cell, weights = decoder
    result = cell(*tiny.tensors([TOKENS, Z, EMBEDDING_BYTES, OUTPUT_BYTES])).asnumpy()
    factors = keep(EMBEDDING_BYTES), keep(OUTPUT_BYTES)
    expected = [
        likelihood_twin(weights, unpadded(row), Z[n], *(factor[:, n] for factor in factors))
        for n, row in enumerate(TOKENS)
    ]
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_more_padding_changes_nothing(encoder, decoder):
    wider = tiny.rows(WORDS, WIDTH + 3)
    cell, _ = encoder
    np.testing.assert_allclose(
        cell(Tensor(wider)).asnumpy(), cell(Tensor(TOKENS)).asnumpy(), rtol=1e-6
    )
    cell, _ = decoder
    np.testing.assert_allclose(
        cell(Tensor(wider), Tensor(Z)).asnumpy(),
        cell(Tensor(TOKENS), Tensor(Z)).asnumpy(),
        rtol=1e-6,
    )


def test_no_gradient_reaches_padding(encoder, decoder):
    """The vector of <pad> is read after </s> only, and its dropout bytes do not matter."""
    for cell, inputs in ((encoder[0], [TOKENS]), (decoder[0], [TOKENS, Z])):
        slope = ms.grad(cell, None, cell.embedding.weight)
        gradient = slope(*tiny.tensors(inputs)).asnumpy()
        assert gradient[4].any() and not gradient[tiny.PAD].any()


class Step(nn.Cell):
    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder

    def construct(self, words, z, hidden, cell):
        log_probabilities, (hidden, cell) = self.decoder.step(words, z, (hidden, cell))
        return log_probabilities, hidden, cell


class InitialState(nn.Cell):
    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder

    def construct(self, z):
        return self.decoder.initial_state(z)


def test_word_by_word_agrees_with_whole_sentences(decoder, mode):
    cell, weights = decoder
    step, z = Step(cell), Tensor(Z)
    state = InitialState(cell)(z)
    log_probabilities = []
    for t in range(WIDTH):
        predicted, *state = step(Tensor(TOKENS[:, t]), z, *state)
        log_probabilities.append(predicted.asnumpy())
    summed = np.zeros(SENTENCES)
    for n, row in enumerate(TOKENS):
        expected = decoder_twin(weights, unpadded(row), Z[n])
        for t, word in enumerate(unpadded(row)[1:]):
            np.testing.assert_allclose(log_probabilities[t][n], expected[t], rtol=1e-4)
            summed[n] -= log_probabilities[t][n, word]
    whole = cell(Tensor(TOKENS), z).asnumpy()
    np.testing.assert_allclose(summed, whole, rtol=1e-5)


class WordGradients(nn.Cell):
    """sum_i g_i nll_i and its gradients at S and W."""

    def __init__(self):
        super().__init__()
        self.word_likelihood = WordLikelihood()
        self.gradients = ops.value_and_grad(self.total, (0, 1))

    def total(self, states, weight, words, g):
        nll, _ = self.word_likelihood(states, weight, words)
        return (nll * g).sum()

    def construct(self, *arguments):
        return self.gradients(*arguments)


def test_the_gradient_of_a_word_is_softmax_minus_onehot(mode):
    """Words that come twice and that never come, an incoming gradient of 0 (padding), of either
    sign (SA-VAE's differences), and a probability below the least number of float32."""
    states = RANDOM.normal(size=(6, 4)).astype(np.float32)
    weight = RANDOM.normal(size=(5, 4)).astype(np.float32)
    states[5] = 60 * weight[3]
    words = np.array([1, 1, 4, 0, 1, 2], np.int32)
    g = np.array([1, 0.5, -2, 0, 3, 0.1], np.float32)

    value, (at_states, at_weight) = WordGradients()(*tiny.tensors([states, weight, words, g]))
    log_p = twins.log_softmax(states.astype(float) @ weight.T.astype(float))
    assert log_p[5, 2] < -88
    onehot = np.eye(5)[words]
    np.testing.assert_allclose(value.asnumpy(), -(g * (onehot * log_p).sum(1)).sum(), rtol=1e-5)
    at_logits = (np.exp(log_p) - onehot) * g[:, None]
    np.testing.assert_allclose(at_states.asnumpy(), at_logits @ weight, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(at_weight.asnumpy(), at_logits.T @ states, rtol=1e-4, atol=1e-4)


def test_a_likelihood_of_no_numbers_is_not_finite(mode):
    """A divergence is seen in the loss, wherever in the row it came up."""
    states, words = np.ones((3, 1), np.float32), np.array([0, 0, 0], np.int32)
    for column in range(3):
        weight = np.array([[1], [2], [3]], np.float32)
        weight[column] = np.nan
        nll, _ = WordLikelihood()(*tiny.tensors([states, weight, words]))
        assert not np.isfinite(nll.asnumpy()).any()


def test_probabilities_add_up_to_one(decoder):
    cell, _ = decoder
    states = RANDOM.normal(0, 30, (7, HIDDEN)).astype(np.float32)
    total = np.exp(cell.log_probabilities(Tensor(states)).asnumpy().astype(float)).sum(1)
    np.testing.assert_allclose(total, 1, rtol=1e-4)


@pytest.mark.parametrize("rate, threshold", [(0.0, 0), (0.3, 77), (0.5, 128), (0.999, 255)])
def test_dropout_keeps_the_expectation(rate, threshold, mode):
    """Over all 256 bytes alike: 256 - threshold are kept, and the mean stays 3."""
    assert dropout_threshold(rate) == threshold
    x = np.full(256, 3.0, np.float32)
    every_byte = np.arange(256, dtype=np.uint8)
    result = dropout(Tensor(x), Tensor(every_byte), rate).asnumpy()
    assert not result[:threshold].any() and (result[threshold:] > 0).all()
    np.testing.assert_allclose(result.mean(), 3, rtol=1e-6)


def test_no_bytes_mean_no_dropout():
    x = Tensor(np.ones(4, np.float32))
    assert dropout(x, None, 0.5) is x


def test_leaky_relu():
    x = np.array([-200.0, -1.0, 0.0, 2.0], np.float32)
    np.testing.assert_allclose(leaky_relu(Tensor(x)).asnumpy(), [-2, -0.01, 0, 2], rtol=1e-6)


@pytest.mark.parametrize("layers", [1, 3])
def test_critics_are_perceptrons_with_one_output(layers):
    critic = Critic(5, 7, layers)
    critic.update_parameters_name()
    weights = list(tiny.randomise(critic).values())
    x = RANDOM.normal(size=(4, 5))
    pairs = list(zip(weights[::2], weights[1::2], strict=True))
    assert len(pairs) == layers + 1
    expected = twins.multilayer_perceptron(pairs, x)[:, 0]
    np.testing.assert_allclose(critic(Tensor(x.astype(np.float32))).asnumpy(), expected, rtol=1e-4)


SIZES = Model(
    embedding_size=40,
    hidden_size=50,
    latent_size=20,
    noise_size=30,
    critic_size=60,
    critic_layers=2,
    posterior_size=24,
    posterior_layers=1,
)


def initial_values(name="cvae_plus_mi", seed=0, sizes=SIZES, **slots):
    model = build_model(replace(SYSTEMS[name], **slots), sizes, 100, seed)
    return {parameter.name: parameter.asnumpy() for parameter in model.get_parameters()}


def assert_uniform(values, scale):
    """Uniform in +-scale: bounded, and of standard deviation scale / sqrt 3."""
    assert np.abs(values).max() <= scale
    assert abs(values.mean()) < 5 * scale / np.sqrt(3 * values.size)
    if values.size > 500:
        np.testing.assert_allclose(values.std(), scale / np.sqrt(3), rtol=0.1)


@pytest.mark.parametrize("posterior", ["affine", "mlp"])
def test_model_starts_uniform_and_critics_by_their_number_of_inputs(posterior):
    inputs = {
        "divergence.joint_critic.layers.0": 20 + 50,
        "divergence.marginal_critic.layers.0": 20,
    }
    for name, values in initial_values(posterior=posterior).items():
        layer = name.rpartition(".")[0]
        scale = 1 / np.sqrt(inputs.get(layer, 60)) if name.startswith("divergence") else 0.1
        assert_uniform(values, scale)


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_starts_within_init_scale(name):
    values = initial_values(name, sizes=replace(SIZES, init_scale=0.01))
    for parameter, array in values.items():
        if not parameter.startswith("divergence"):
            assert 0.008 < np.abs(array).max() <= 0.01


def test_noise_weights_may_start_at_their_own_scale():
    values = initial_values(sizes=replace(SIZES, noise_init_scale=2.0))
    assert_uniform(values["posterior.from_noise.weight"], 2.0)
    assert_uniform(values["posterior.from_hidden.weight"], 0.1)


def test_equal_names_start_equal_in_every_system():
    first, second = initial_values("vae"), initial_values("cvae_plus_mi")
    shared = {name for name in first if name in second}
    assert {"encoder.embedding.weight", "decoder.vocabulary_weight"} <= shared
    for name in shared:
        np.testing.assert_array_equal(first[name], second[name])


def test_initial_values_follow_the_seed():
    first, same, other = initial_values(), initial_values(), initial_values(seed=1)
    for name, values in first.items():
        np.testing.assert_array_equal(values, same[name])
        assert not np.isin(values, other[name]).all()


def test_no_two_parameters_start_alike():
    starts = [values.ravel()[:8].tobytes() for values in initial_values().values()]
    assert len(set(starts)) == len(starts)


def test_the_first_state_may_have_a_bias():
    """As in the released code; training moves it."""
    sizes = replace(tiny.SIZES, first_state_bias=True)
    training = tiny.Training(tiny.COMBINATIONS["vae"], sizes)
    name = "decoder.initial_hidden"
    weight, bias = (training.start[f"{name}.{part}"] for part in ("weight", "bias"))
    z = np.random.default_rng(0).normal(size=(3, sizes.latent_size)).astype(np.float32)
    hidden, cell = training.model.decoder.initial_state(Tensor(z))
    np.testing.assert_allclose(hidden.asnumpy()[0], z @ weight.T + bias, rtol=1e-5, atol=1e-6)
    assert np.abs(bias).max() > 0 and not cell.asnumpy().any()
    training.run()
    assert f"{name}.bias" in training.moved(training.start)
