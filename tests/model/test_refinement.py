"""SA-VAE: the refinement of a posterior and the gradient through it, against NumPy."""

from __future__ import annotations

import functools

import mindspore as ms
import numpy as np
import numpy_twins as twins
import pytest
import tiny
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from tiny_run import write_run

from mindspore_cvae import ContrastiveVAE
from mindspore_cvae.config.keys import Model, Train
from mindspore_cvae.model import refinement
from mindspore_cvae.model.building import build_model
from mindspore_cvae.model.inference import Inference
from mindspore_cvae.model.refinement import clip_rows, difference_points
from mindspore_cvae.runs.loading import load_run
from mindspore_cvae.systems import SYSTEMS
from mindspore_cvae.training.steps.semi_amortized import SemiAmortizedStep
from mindspore_cvae.training.steps.updates import Clipping, adam


class Quadratics(nn.Cell):
    """f_i(x) = x^T A x / 2 + theta^T B x of every row."""

    def __init__(self, hessian, mixed, theta):
        super().__init__()
        self.hessian = Tensor(hessian.astype(np.float32))
        self.mixed = Tensor(mixed.astype(np.float32))
        self.theta = Parameter(theta.astype(np.float32), name="theta")

    def construct(self, points, coefficients):
        linear = ops.matmul(self.theta.expand_dims(0), self.mixed)
        values = 0.5 * (ops.matmul(points, self.hessian) * points).sum(1)
        return (coefficients * (values + (points * linear).sum(1))).sum()


class Products(nn.Cell):
    """Hessian-vector products of quadratics: (H v of every row, mixed derivative times v)."""

    def __init__(self, quadratics):
        super().__init__()
        self.gradient = ops.grad(quadratics, 0, ParameterTuple([quadratics.theta]))

    def construct(self, points, vectors):
        at_points, (at_theta,) = self.gradient(*difference_points(points, vectors))
        above, below = ops.chunk(at_points, 2)
        return above + below, at_theta


@pytest.fixture(scope="module", params=tiny.MODES)
def quadratics(request):
    """A (8, 8) with eigenvalues of both signs, B (3, 8), and their products."""
    random = np.random.default_rng(3)
    half, mixed = random.normal(size=(8, 8)), random.normal(size=(3, 8))
    hessian = half + half.T
    with tiny.execution(request.param):
        yield hessian, mixed, Products(Quadratics(hessian, mixed, random.normal(size=3)))


@pytest.mark.parametrize("length", [1e-6, 1.0, 1e3], ids=str)
@pytest.mark.parametrize("distance", [0.0, 1.0, 100.0], ids=str)
def test_products_with_a_known_hessian(quadratics, length, distance):
    """However short or long the vector is, and however far the point from 0."""
    hessian, mixed, products = quadratics
    points, vectors = np.random.default_rng(4).normal(size=(2, 5, 8))
    points, vectors = distance * points, length * vectors
    curved, at_theta = products(*tiny.tensors([p.astype(np.float32) for p in (points, vectors)]))
    expected = vectors @ hessian
    scale = np.abs(expected).max()
    np.testing.assert_allclose(curved.asnumpy(), expected, rtol=0, atol=1e-4 * scale)
    expected = mixed @ vectors.sum(0)
    tolerance = 1e-4 * np.abs(mixed).max() * np.abs(vectors).sum()
    np.testing.assert_allclose(at_theta.asnumpy(), expected, rtol=0, atol=tolerance)


def test_a_vector_of_zeros_has_the_product_zero(quadratics):
    points = np.random.default_rng(4).normal(size=(5, 8)).astype(np.float32)
    for product in quadratics[2](*tiny.tensors([points, 0 * points])):
        assert not product.asnumpy().any()


def test_rows_are_clipped_one_by_one():
    values = np.array([[3.0, 4.0], [30.0, 40.0], [0.0, 0.0]], np.float32)
    clipped = clip_rows(Tensor(values), 10.0).asnumpy()
    np.testing.assert_allclose(clipped, [[3, 4], [6, 8], [0, 0]], rtol=1e-6)


SIZES = Model(embedding_size=2, hidden_size=3, latent_size=2, decoder_dropout=0.4)
LATENT, VOCABULARY, WIDTH, STEPS = 2, 7, 5, 3
WORDS = [[4, 6, 5, 4], [5], []]
TOKENS = tiny.rows(WORDS, WIDTH)
WEIGHT = np.array([1, 1, 0], np.float32)
"""The last row is a filler."""
BETA = 0.7
SENTENCES = 3.0
"""So that three steps move a posterior far enough for curvature to matter."""


class Twin:
    """The refinement of one sentence in float64, with gradients by differences of values."""

    def __init__(self, weights, sentence, noise, embedding_factors, output_factors):
        self.weights = weights
        self.sentence = sentence
        self.noise = noise
        self.factors = embedding_factors, output_factors

    def nll(self, z):
        weights, before = self.weights, self.sentence[:-1]
        embedded = weights["embedding.weight"][before] * self.factors[0][: len(before)]
        inputs = np.hstack([embedded, np.tile(z, (len(before), 1))])[:, None]
        lstm = {name[5:]: value for name, value in weights.items() if name.startswith("lstm.")}
        hidden = z[None] @ weights["initial_hidden.weight"].T
        states = twins.lstm(lstm, inputs, hidden, np.zeros_like(hidden))[:, 0]
        states = states * self.factors[1][: len(before)]
        matrix, bias = weights["vocabulary_weight"][:, :-1], weights["vocabulary_weight"][:, -1]
        scores = twins.log_softmax(states @ matrix.T + bias)
        return -sum(row[word] for row, word in zip(scores, self.sentence[1:], strict=True))

    def negative_elbo(self, parameters, noise):
        mean, log_variance = np.split(parameters, 2)
        nll = self.nll(mean + np.exp(0.5 * log_variance) * noise)
        return nll + BETA * twins.gaussian_kl(mean[None], log_variance[None])[0]

    def refined(self, parameters):
        """lambda_K from lambda_0."""
        velocity = np.zeros_like(parameters)
        for noise in self.noise[:-1]:
            slope = twins.numerical_gradient(
                lambda values, noise=noise: self.negative_elbo(values, noise), parameters
            )
            slope = slope / SENTENCES
            slope = slope * min(1.0, 5.0 / np.linalg.norm(slope))
            velocity = 0.5 * velocity - slope
            parameters = parameters + velocity
        return parameters

    def loss(self, parameters):
        """The negative ELBO at lambda_K, as a function of lambda_0."""
        return self.negative_elbo(self.refined(parameters), self.noise[-1])


def keep(random_bytes, rate=0.4):
    dropped = round(256 * rate)
    return (random_bytes >= dropped) * 256 / (256 - dropped)


@pytest.fixture(scope="module", params=tiny.MODES)
def inner_loop(request):
    """A step with random weights, its arguments, its gradients, and a twin of each sentence."""
    random = np.random.default_rng(3)
    with pytest.MonkeyPatch.context() as patch, tiny.execution(request.param):
        patch.setattr(refinement, "SENTENCES", SENTENCES)
        model = build_model(SYSTEMS["sa_vae"], SIZES, VOCABULARY, 0)
        tiny.randomise(model, scale=0.9)
        decoder = list(model.decoder.get_parameters())
        encoder = [p for p in model.get_parameters() if not p.name.startswith("decoder.")]
        optimizer = adam([*encoder, *decoder], 0.1, "optimizer.model")
        clipping = Clipping((len(encoder) + len(decoder),), 1e9)
        step = SemiAmortizedStep(model, optimizer, clipping)
        rows = len(WORDS)
        noise = random.normal(size=(STEPS + 1, rows, LATENT)).astype(np.float32)
        embedding_bytes = random.integers(0, 256, (WIDTH, rows, 2)).astype(np.uint8)
        output_bytes = random.integers(0, 256, (WIDTH, rows, 3)).astype(np.uint8)
        weights = {
            name.removeprefix("decoder."): values for name, values in tiny.arrays(decoder).items()
        }
        sentences = [row[row != tiny.PAD] for row in TOKENS]
        twins_of = [
            Twin(
                weights,
                sentence,
                noise[:, n].astype(float),
                keep(embedding_bytes[:, n]),
                keep(output_bytes[:, n]),
            )
            for n, sentence in enumerate(sentences)
        ]
        arguments = [
            *(TOKENS, WEIGHT, np.float32(BETA), TOKENS, None, noise),
            *(None, None, embedding_bytes, output_bytes),
        ]
        arguments = tiny.tensors(arguments)
        # The graphs are compiled here, while the constant is what the twin has.
        results = [result.asnumpy() for result in step.gradients(*arguments)]
        start = step.encode(Tensor(TOKENS), None, Tensor(TOKENS))[1].asnumpy()
        yield step, arguments, results, start.astype(float), twins_of


def test_sentences_are_refined_as_in_numpy(inner_loop):
    step, arguments, _, start, twins_of = inner_loop
    tokens, _, beta, _, _, noise, _, _, *random_bytes = arguments
    parameters = Tensor(start.astype(np.float32))
    velocity = ops.zeros_like(parameters)
    for number in range(STEPS):
        parameters, velocity = step.descend(
            parameters, velocity, noise[number], tokens, beta, *random_bytes
        )
    expected = [twin.refined(row) for twin, row in zip(twins_of, start, strict=True)]
    np.testing.assert_allclose(parameters.asnumpy(), expected, rtol=1e-4, atol=1e-5)
    assert np.abs(parameters.asnumpy() - start).max() > 0.3


def test_the_loss_is_taken_at_the_refined_posterior(inner_loop):
    _, _, (terms, *_), start, twins_of = inner_loop
    expected = np.mean([twin.loss(row) for twin, row in zip(twins_of[:2], start[:2], strict=True)])
    np.testing.assert_allclose(terms[0], expected, rtol=1e-5)


def test_the_gradient_comes_back_through_every_step_to_the_encoder(inner_loop):
    """Against differences of the whole refined loss; a gradient that stops at lambda_K is not
    it."""
    _, _, (_, _, at_parameters, *_), start, twins_of = inner_loop
    for twin, row, gradient in zip(twins_of[:2], start[:2], at_parameters[:2], strict=True):
        expected = twins.numerical_gradient(twin.loss, row, 1e-4) / 2
        tolerance = 1e-3 * np.abs(expected).max()
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=tolerance)
        at_end = twins.numerical_gradient(
            lambda values, twin=twin: twin.negative_elbo(values, twin.noise[-1]), twin.refined(row)
        )
        assert np.abs(at_end / 2 - expected).max() > 100 * tolerance
    assert not at_parameters[2].any()


def test_the_gradient_comes_back_through_every_step_to_the_decoder(inner_loop):
    step, _, (_, _, _, *at_decoder), start, twins_of = inner_loop
    names = [
        parameter.name.removeprefix("decoder.") for parameter in step.update.optimizer.parameters
    ]
    names = names[-len(at_decoder) :]
    weights = twins_of[0].weights

    def loss(name, values):
        kept, weights[name] = weights[name], values
        total = sum(twin.loss(row) for twin, row in zip(twins_of[:2], start[:2], strict=True))
        weights[name] = kept
        return total / 2

    def loss_at_end(name, values):
        """The same with the posteriors where they are: what the refinement adds is left out."""
        kept, weights[name] = weights[name], values
        total = sum(
            twin.negative_elbo(row, twin.noise[-1])
            for twin, row in zip(twins_of[:2], ends, strict=True)
        )
        weights[name] = kept
        return total / 2

    ends = [twin.refined(row) for twin, row in zip(twins_of[:2], start[:2], strict=True)]

    def gradients(of):
        return [
            twins.numerical_gradient(functools.partial(of, name), weights[name], 1e-4)
            for name in names
        ]

    expected, direct = gradients(loss), gradients(loss_at_end)
    tolerance = 1e-3 * max(np.abs(gradient).max() for gradient in expected)
    for gradient, right in zip(at_decoder, expected, strict=True):
        np.testing.assert_allclose(gradient, right, rtol=0, atol=tolerance)
    differences = [np.abs(a - b).max() for a, b in zip(expected, direct, strict=True)]
    assert max(differences) > 20 * tolerance


def elbo(model, tokens, parameters, draws):
    """Mean negative ELBO of every sentence over given draws."""
    cell = refinement.NegativeElbo(model).set_train(False)
    values = [
        cell(Tensor(parameters), Tensor(draw), Tensor(tokens), Tensor(1.0, ms.float32), None, None)
        for draw in draws
    ]
    return np.mean([value.asnumpy() for value in values], 0)


@pytest.fixture(scope="module")
def trained():
    """A model after a few steps on one batch."""
    training = tiny.Training(SYSTEMS["sa_vae"], training=Train(learning_rate=0.02, clip_norm=5.0))
    losses = [training.run(index, beta=1.0)["loss"] for index in range(12)]
    assert losses[-1] < 0.9 * losses[0]
    with tiny.execution("graph"):
        yield training.model


def test_refinement_lowers_the_negative_elbo_on_other_draws(trained):
    tokens = tiny.TOKENS[:4]
    infer = Inference(trained)
    start = infer.codes(Tensor(tokens))[1].asnumpy()
    refined = infer(Tensor(tokens))[1].asnumpy()
    draws = (
        np.random.default_rng(5)
        .normal(size=(20, *start[:, : start.shape[1] // 2].shape))
        .astype(np.float32)
    )
    before, after = (elbo(trained, tokens, q, draws) for q in (start, refined))
    assert (after < before).all()


def test_a_posterior_does_not_depend_on_the_rest_of_the_batch(trained):
    infer = Inference(trained)
    together = infer(Tensor(tiny.TOKENS))[1].asnumpy()
    backwards = infer(Tensor(tiny.TOKENS[::-1].copy()))[1].asnumpy()[::-1]
    np.testing.assert_allclose(together, backwards, rtol=1e-5, atol=1e-6)


def test_encoding_and_scores_are_of_the_refined_posterior(tmp_path):
    run = write_run(tmp_path, "sa_vae")
    model, network = ContrastiveVAE.load(run), load_run(run).model
    sentence = "the market fell"
    # As many rows as the encoder's graph has: steps of SVI magnify how a product of another shape
    # rounds, to more than any tolerance worth the name.
    rows = [model.vocabulary.encode(sentence.split())] * load_run(run).config.eval.rows
    tokens = tiny.rows(rows, 16)
    infer = Inference(network)
    encoded, refined = infer.codes(Tensor(tokens))[1].asnumpy(), infer(Tensor(tokens))[1].asnumpy()
    mean, log_variance = np.split(refined, 2, 1)
    mean, log_variance = mean[:1], log_variance[:1]
    np.testing.assert_allclose(model.encode([sentence]), mean, rtol=1e-4, atol=1e-5)
    assert np.abs(mean - encoded[:1, : mean.shape[1]]).max() > 1e-3
    kl = twins.gaussian_kl(mean.astype(float), log_variance.astype(float))
    np.testing.assert_allclose(model.score([sentence]).kl, kl, rtol=1e-4)
