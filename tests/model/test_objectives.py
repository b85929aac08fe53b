"""Each objective against a number worked out by hand, a closed form where one exists, and NumPy."""

from __future__ import annotations

import functools
import inspect
import re
from pathlib import Path
from typing import NamedTuple

import mindspore as ms
import numpy as np
import numpy_twins as twins
import pytest
import tiny
from mindspore import Tensor, nn

from mindspore_cvae.model import objectives

PACKAGE = Path(objectives.__file__).parent


@pytest.fixture(params=tiny.MODES)
def mode(request):
    with tiny.execution(request.param):
        yield


class Formula(nn.Cell):
    """A pure function as a cell, so that graph mode compiles it as one graph."""

    def __init__(self, function, constants=()):
        super().__init__()
        self.function = function
        self.constants = constants

    def construct(self, *inputs):
        return self.function(*inputs, *self.constants)


def value(function, *inputs, constants=()):
    return Formula(function, constants)(*map(Tensor, inputs)).asnumpy()


def with_gradients(function, constants=(), positions=(0,)):
    """The function's value and the gradients of the sum of its elements, compiled once a shape."""
    both = ms.value_and_grad(Formula(function, constants), positions)

    def call(*inputs):
        result, gradients = both(*map(Tensor, inputs))
        gradients = gradients if isinstance(gradients, tuple) else (gradients,)
        return result.asnumpy(), [gradient.asnumpy() for gradient in gradients]

    return call


def f32(*numbers):
    return np.array(numbers, np.float32)


EXACT = {"rtol": 2e-5, "atol": 2e-6}
"""What float32 gives: the CPU kernel of exp is off by 7e-6 at 30."""

LN2, LN3 = np.log(2), np.log(3)

BY_HAND = {
    "expectation": ((f32(1, 2, 9), f32(1, 1, 0)), (), 1.5),
    "bounded_exp": ((f32(0, LN2, 100),), (), [1, 2, 1.0686475e13]),
    "log_one_plus_sum_exp": ((f32(0, LN2, 50), f32(1, 1, 0)), (), 2 * LN2),
    "word_negative_log_likelihood": (
        # Logits are log-probabilities up to a constant a row, here 0 and 2.
        (
            np.log(f32([0.5, 0.5], [0.25, 0.75])) + f32([0], [2]),
            np.array([1, 0], np.int32),
            np.array([0, 1], np.int64),
            f32(0.5, 0.75),
        ),
        (),
        [LN2, 2 * LN2],
    ),
    # Of two words the second is padding.
    "sentence_negative_log_likelihood": ((f32([3], [5]), f32([1], [0])), (), [3]),
    # A logit of 0 gives every bit ln 2, one of ln 3 a bit of 1 ln(4/3).
    "bernoulli_negative_log_likelihood": (
        (f32([0, 0], [LN3, 0]), f32([1, 0], [1, 1])),
        (),
        [2 * LN2, np.log(4 / 3) + LN2],
    ),
    "square": ((f32(3, -2),), (), [9, 4]),
    # 1/2 (1 + 1 - 1 - 0) + 1/2 (0 + 4 - 1 - log 4)
    "gaussian_kl": ((f32([1, 0]), f32([0, 2 * LN2])), (), [2 - LN2]),
    "gaussian_kl_of_dimensions": (
        (f32([1, 0]), f32([0, 2 * LN2])),
        (),
        [[0.5, 1.5 - LN2]],
    ),
    # Means over the two sentences of weight 1: 2 and 0.5, of which the second costs 1 at least.
    "free_bits": ((f32([1, 0], [3, 1], [9, 9]), f32(1, 1, 0)), (1.0,), 3),
    "dual_kl": ((f32(1, 2, 3), f32(0, LN2, LN3), f32(1, 1, 1)), (), 1),
    "dual_posterior": ((f32(1, 2, 3), f32(1, 1, 1)), (), -2),
    "dual_prior": ((f32(0, LN2, LN3), f32(1, 1, 1)), (), 2),
    "circle_mean_posterior": ((f32(-1, 1), f32(1, 1)), (), LN2),
    "circle_mean_prior": ((f32(0, 0), f32(1, 1)), (), 1.3132617),
    "circle_sum_posterior": ((f32(1, 1), f32(1, 1)), (), 0.1269280),
    "circle_sum_prior": ((f32(0, 0), f32(1, 1)), (), 2.1269280),
    "circle_pairwise_posterior": ((f32(0, 0), f32(1, 1)), (), LN3),
    "circle_pairwise_prior": ((f32(-100, -100), f32(1, 1)), (), LN3),
    "no_difference": ((f32(3, 1), f32(1, 4), f32(1, 1)), (), 0),
    "sum_of_differences": ((f32(3, 1), f32(1, 4), f32(1, 1)), (), -1),
    "sum_of_squares": ((f32(3, 1), f32(1, 4), f32(1, 1)), (), 13),
    "cosine_similarities": ((f32([3, 4]), f32([4, 3], [0, -2])), (), [[0.96, -0.8]]),
    "info_nce": ((f32(1), f32([0]), f32([1]), f32(1)), (1.0,), -0.3132617),
    "objective": ((f32(10), f32(2), f32(-3), f32(0.5)), (), [14]),
}
"""Name: (tensors, constants, value worked out by hand)."""


def public_functions():
    return {
        name
        for name, function in inspect.getmembers(objectives, inspect.isfunction)
        if function.__module__ == objectives.__name__ and not name.startswith("_")
    }


def test_every_objective_is_tested():
    assert set(BY_HAND) == public_functions() == set(CASES)


@pytest.mark.parametrize("name", BY_HAND)
def test_equals_a_number_worked_out_by_hand(name, mode):
    inputs, constants, expected = BY_HAND[name]
    result = value(getattr(objectives, name), *inputs, constants=constants)
    np.testing.assert_allclose(result, expected, **EXACT)


class Case(NamedTuple):
    """An objective's twin and tensors, of which the first ``differentiable`` have gradients."""

    twin: object
    inputs: tuple
    differentiable: int
    constants: tuple = ()
    weighted: bool = True
    """Whether the last tensor is a weight of rows."""

    def objective(self, name):
        positions = tuple(range(self.differentiable))
        return with_gradients(getattr(objectives, name), self.constants, positions)


RANDOM = np.random.default_rng(7)
WEIGHT = f32(1, 1, 0, 1, 1, 0)
F, G = RANDOM.normal(0, 1.5, (2, 6)).astype(np.float32)
MEAN, LOG_VARIANCE = RANDOM.normal(0, 1, (2, 6, 3)).astype(np.float32)
WORDS, SENTENCES, VOCABULARY = 4, 3, 5
LOG_PROBABILITIES = twins.log_softmax(RANDOM.normal(0, 1, (WORDS * SENTENCES, VOCABULARY))).astype(
    np.float32
)
TARGETS = RANDOM.integers(0, VOCABULARY, WORDS * SENTENCES).astype(np.int32)
WORD_NLL = RANDOM.uniform(0, 9, (WORDS, SENTENCES)).astype(np.float32)
MASK = (np.arange(WORDS)[:, None] < np.array([4, 2, 1])).astype(np.float32)
SIMILARITIES = RANDOM.uniform(-1, 1, (6, 8)).astype(np.float32)
NEGATIVE_WEIGHT = RANDOM.integers(0, 2, (6, 8)).astype(np.float32)


def word_twin(logits, words, others, probabilities):
    """By the ratio of two probabilities of a softmax, with p(r) as it is given."""
    e = np.exp(logits.astype(float))
    rows = np.arange(len(words))
    return -np.log(probabilities * e[rows, words] / e[rows, others])


def sentence_twin(word_nll, mask):
    return np.array([sum(column[row > 0]) for column, row in zip(word_nll.T, mask.T, strict=True)])


def info_nce_twin(positive, negatives, negative_weight, weight, temperature):
    terms = []
    rows = zip(positive, negatives, negative_weight, weight, strict=True)
    for s, others, counts, w in rows:
        if w:
            chosen = np.exp(others[counts > 0] / temperature)
            own = np.exp(s / temperature)
            terms.append(np.log(own / (own + chosen.sum())))
    return np.mean(terms)


CASES = {
    "expectation": Case(twins.expectation, (F, WEIGHT), 1),
    "bounded_exp": Case(np.exp, (F,), 1, weighted=False),
    "log_one_plus_sum_exp": Case(twins.log_one_plus_sum_exp, (F, WEIGHT), 1),
    "word_negative_log_likelihood": Case(
        word_twin,
        (
            LOG_PROBABILITIES,
            TARGETS,
            LOG_PROBABILITIES.argmax(1),
            np.exp(LOG_PROBABILITIES.max(1)),
        ),
        1,
        weighted=False,
    ),
    "sentence_negative_log_likelihood": Case(sentence_twin, (WORD_NLL, MASK), 1, weighted=False),
    "bernoulli_negative_log_likelihood": Case(
        lambda logits, bits: (np.logaddexp(0, logits) - bits * logits).sum(1),
        (MEAN, (LOG_VARIANCE > 0).astype(np.float32)),
        1,
        weighted=False,
    ),
    "square": Case(np.square, (F,), 1, weighted=False),
    "gaussian_kl": Case(twins.gaussian_kl, (MEAN, LOG_VARIANCE), 2, weighted=False),
    "gaussian_kl_of_dimensions": Case(
        lambda mean, log_variance: 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance),
        (MEAN, LOG_VARIANCE),
        2,
        weighted=False,
    ),
    "free_bits": Case(
        lambda kl, weight, least: np.maximum(twins.real(kl, weight).mean(0), least).sum(),
        (np.abs(MEAN), WEIGHT),
        1,
        (0.7,),
    ),
    "dual_kl": Case(
        lambda f, g, weight: (
            twins.expectation(f, weight) - np.exp(twins.real(g, weight)).mean() + 1
        ),
        (F, G, WEIGHT),
        2,
    ),
    **{
        f"{loss}_{part}": Case(twin, (values, WEIGHT), 1)
        for loss, pair in twins.CRITIC_LOSSES.items()
        for part, twin, values in zip(("posterior", "prior"), pair, (F, G), strict=True)
    },
    "no_difference": Case(twins.DIFFERENCES["none"], (F, G, WEIGHT), 2),
    "sum_of_differences": Case(twins.DIFFERENCES["printed"], (F, G, WEIGHT), 2),
    "sum_of_squares": Case(twins.DIFFERENCES["squares"], (F, G, WEIGHT), 2),
    "cosine_similarities": Case(
        twins.cosine_similarities, (MEAN, LOG_VARIANCE[:4]), 2, weighted=False
    ),
    "info_nce": Case(
        info_nce_twin, (SIMILARITIES[:, 0], SIMILARITIES, NEGATIVE_WEIGHT, WEIGHT), 2, (0.3,)
    ),
    "objective": Case(
        lambda reconstruction, divergence, contrast, beta: (
            reconstruction + beta * divergence - contrast
        ),
        (f32(90.0), f32(3.0), f32(-2.0), f32(0.7)),
        3,
        weighted=False,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_equal_numpy(name, mode):
    case = CASES[name]
    result, gradients = case.objective(name)(*case.inputs)
    exact = [np.asarray(array, np.float64) for array in case.inputs[: case.differentiable]]
    others = case.inputs[case.differentiable :]
    np.testing.assert_allclose(result, case.twin(*exact, *others, *case.constants), **EXACT)
    for position, gradient in enumerate(gradients):

        def total(array, position=position):
            inputs = [*exact[:position], array, *exact[position + 1 :], *others]
            return np.sum(case.twin(*inputs, *case.constants))

        expected = twins.numerical_gradient(total, exact[position])
        np.testing.assert_allclose(gradient, expected, **EXACT)


WEIGHTED = [name for name, case in CASES.items() if case.weighted]


@pytest.mark.parametrize("name", WEIGHTED)
def test_rows_of_weight_0_change_nothing(name, mode):
    case = CASES[name]
    objective = case.objective(name)
    before, gradients_before = objective(*case.inputs)
    for extreme in (0.0, 1e30, -1e30):
        changed = [array.copy() for array in case.inputs]
        for position, array in enumerate(changed[: case.differentiable]):
            array[WEIGHT == 0] = extreme * (-1) ** position
        after, gradients_after = objective(*changed)
        np.testing.assert_array_equal(after, before)
        for gradient, gradient_before in zip(gradients_after, gradients_before, strict=True):
            np.testing.assert_array_equal(gradient, gradient_before)
            assert not gradient[WEIGHT == 0].any()


@pytest.mark.parametrize("module", sorted(PACKAGE.parent.rglob("*.py")), ids=lambda path: path.stem)
def test_no_operator_whose_bits_depend_on_threads(module):
    """On CPU the last bits of log and pow follow how the threads that are free share an array.

    Any change of load then changes the losses of a seed; log1p, exp and sqrt have been seen not to.
    """
    assert not re.findall(r"\bops\.(?:log|pow|log2|log10)\(", module.read_text())


@pytest.mark.parametrize("part", ["posterior", "prior"])
@pytest.mark.parametrize("name", objectives.CRITIC_LOSSES)
def test_extreme_critics_stay_finite(name, part, mode):
    objective = with_gradients(getattr(objectives.CRITIC_LOSSES[name], part))
    for extreme in (200.0, 1e30, -200.0, -1e30):
        values = f32(0.5, extreme, -0.5, extreme, 1.0, 0.0)
        result, (gradient,) = objective(values, WEIGHT)
        assert np.isfinite(result) and np.isfinite(gradient).all()
        assert np.all(gradient <= 0 if part == "posterior" else gradient >= 0)


@pytest.mark.parametrize("temperature", [0.001, 0.01, 1000.0])
def test_info_nce_is_exact_at_any_temperature(temperature, mode):
    """log(e^a / (e^a + 2 e^b)) = -log(1 + 2 e^(b - a)), whatever is a negative of weight 0."""
    objective = with_gradients(objectives.info_nce, (temperature,))
    for positive, negative in ((-1.0, 1.0), (-1.0, -1.0), (1.0, -1.0)):
        similarities = f32([negative, negative, 1.0])
        result, (gradient,) = objective(f32(positive), similarities, f32([1, 1, 0]), f32(1))
        expected = -np.logaddexp(0, LN2 + (negative - positive) / temperature)
        np.testing.assert_allclose(result, expected, **EXACT)
        slope = -np.expm1(expected) / temperature
        np.testing.assert_allclose(gradient, [slope], **EXACT)


def test_the_circle_loss_has_a_slope_where_the_critic_cannot_tell(mode):
    """d/dm log(1 + e^-m) = -1/2 at m = 0, shared by two sentences."""
    objective = with_gradients(objectives.circle_mean_posterior)
    _, (gradient,) = objective(f32(-1, 1), f32(1, 1))
    np.testing.assert_allclose(gradient, [-0.25, -0.25], rtol=1e-6)


def test_similarities_of_extreme_vectors_are_finite(mode):
    vectors = f32([0, 0, 0], [1e15, -1e15, 0], [1e-5, 0, 0])
    similarities = with_gradients(objectives.cosine_similarities, positions=(0, 1))
    result, gradients = similarities(vectors, vectors)
    np.testing.assert_allclose(result[1:, 1:], [[1, 0.5**0.5], [0.5**0.5, 1]], rtol=1e-6)
    assert not result[0].any()
    assert all(np.isfinite(gradient).all() for gradient in gradients)


SAMPLES = 200_000
POSTERIOR_MEAN, POSTERIOR_SCALE = np.array([0.6, -0.4]), np.array([0.7, 0.9])


@functools.cache
def gaussian_samples():
    """Draws of q = N(0.6, 0.7^2) x N(-0.4, 0.9^2) and of p = N(0, I), and log q/p as a function."""
    random = np.random.default_rng(11)
    prior = random.normal(size=(SAMPLES, 2))
    posterior = POSTERIOR_MEAN + POSTERIOR_SCALE * random.normal(size=(SAMPLES, 2))

    def log_ratio(z):
        standard = (z - POSTERIOR_MEAN) / POSTERIOR_SCALE
        return (0.5 * z**2 - 0.5 * standard**2 - np.log(POSTERIOR_SCALE)).sum(1)

    return posterior, prior, log_ratio


def exact_kl():
    mean, log_variance = f32(POSTERIOR_MEAN), f32(2 * np.log(POSTERIOR_SCALE))
    return float(value(objectives.gaussian_kl, mean, log_variance)[0])


def dual_estimate(critic):
    """The dual of Eq. 3 for a critic, and the standard error of the estimate."""
    posterior, prior, _ = gaussian_samples()
    on_posterior, on_prior = critic(posterior), critic(prior)
    estimate = value(
        objectives.dual_kl,
        on_posterior.astype(np.float32),
        on_prior.astype(np.float32),
        np.ones(SAMPLES, np.float32),
    )
    error = np.sqrt((on_posterior.var() + np.exp(on_prior).var()) / SAMPLES)
    return float(estimate), error


def test_gaussian_kl_equals_its_monte_carlo_estimate(mode):
    posterior, _, log_ratio = gaussian_samples()
    ratios = log_ratio(posterior)
    assert abs(ratios.mean() - exact_kl()) < 4 * ratios.std() / np.sqrt(SAMPLES)


def test_the_best_critic_makes_the_dual_the_kl(mode):
    _, _, log_ratio = gaussian_samples()
    estimate, error = dual_estimate(log_ratio)
    assert abs(estimate - exact_kl()) < 4 * error
    assert error < 0.005


@pytest.mark.parametrize(
    "change",
    [
        lambda z, best: best + 0.3,
        lambda z, best: best - 0.3,
        lambda z, best: 0.7 * best,
        lambda z, best: best + 0.4 * np.sin(z[:, 0]),
        lambda z, best: 0.0 * best,
    ],
    ids=["higher", "lower", "flatter", "wavy", "zero"],
)
def test_any_other_critic_stays_below_the_kl(change, mode):
    _, _, log_ratio = gaussian_samples()
    estimate, error = dual_estimate(lambda z: change(z, log_ratio(z)))
    assert estimate < exact_kl() - 4 * error


def test_no_critic_at_all_gives_0(mode):
    """f = 0: E_q 0 - E_p 1 + 1."""
    zeros, ones = np.zeros(4, np.float32), np.ones(4, np.float32)
    assert value(objectives.dual_kl, zeros, zeros, ones) == 0


OVER_SENTENCES = ("expectation", "dual_posterior", "dual_prior") + tuple(
    f"circle_{form}_{side}"
    for form in ("mean", "sum", "pairwise")
    for side in ("posterior", "prior")
)


@pytest.mark.parametrize("name", OVER_SENTENCES)
def test_what_stands_before_the_sentences_stays(name, mode):
    """Views, critics: each row of sentences has a value of its own."""
    rows = np.stack([F, G])
    alone = [value(getattr(objectives, name), row, WEIGHT) for row in rows]
    np.testing.assert_allclose(value(getattr(objectives, name), rows, WEIGHT), alone, **EXACT)


@pytest.mark.parametrize("name", objectives.CRITIC_LOSSES)
def test_a_critic_loss_falls_when_the_critic_tells_better(name, mode):
    loss = objectives.CRITIC_LOSSES[name]
    _, (posterior,) = with_gradients(loss.posterior)(F, WEIGHT)
    _, (prior,) = with_gradients(loss.prior)(G, WEIGHT)
    assert (posterior[WEIGHT > 0] < 0).all() and (prior[WEIGHT > 0] > 0).all()
