"""The paper's columns and the exact ones, against a second implementation in NumPy and SciPy."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import numpy_twins as twins
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from tiny_evaluator import SEED, evaluator_of, split

from mindspore_cvae.common import randomness
from mindspore_cvae.config.layers import load
from mindspore_cvae.data import grammar
from mindspore_cvae.data.corpus import Split
from mindspore_cvae.data.vocabulary import SPECIALS, Vocabulary
from mindspore_cvae.devices import choosing
from mindspore_cvae.evaluation import metrics
from mindspore_cvae.evaluation.metrics import (
    INFORMATION_DRAWS,
    evaluate,
    grammatical_rate,
    lines_of,
)

SAMPLES, NOISE = 6, 3


@pytest.fixture(scope="module", autouse=True)
def graph_mode():
    choosing.choose("CPU")


@pytest.fixture(scope="module")
def part():
    return split(7)


def weights_of(evaluator) -> dict[str, np.ndarray]:
    model = evaluator.of_draws.model
    return {each.name: each.asnumpy().astype(np.float64) for each in model.get_parameters()}


def encoded(weights, sentence) -> np.ndarray:
    """The LSTM's state after the whole sentence, (H,)."""
    lstm = {
        name.split(".")[-1]: values for name, values in weights.items() if "encoder.lstm" in name
    }
    inputs = weights["encoder.embedding.weight"][[2, *sentence, 3]][:, None]
    zero = np.zeros((1, lstm["weight_hh_l0"].shape[1]))
    return twins.lstm(lstm, inputs, zero, zero)[-1, 0]


def critic(weights, name, x) -> np.ndarray:
    """Values of a critic, (S,)."""
    found = [key for key in weights if key.startswith(f"divergence.{name}.")]
    layers = sorted({key.rsplit(".", 1)[0] for key in found})
    pairs = [(weights[f"{layer}.weight"], weights[f"{layer}.bias"]) for layer in layers]
    return twins.multilayer_perceptron(pairs, x)[:, 0]


def kl_to_prior(q) -> float:
    """KL of a normal distribution to N(0, I)."""
    return 0.5 * (np.trace(q.cov) + q.mean @ q.mean - len(q.mean) - np.linalg.slogdet(q.cov)[1])


def test_columns_of_an_implicit_row(part):
    evaluator = evaluator_of("affine", 2, noise_size=NOISE)
    for parameter in evaluator.of_draws.model.divergence.get_parameters():
        # Of values near 1: an exponential of large ones would hide all else.
        parameter.set_data(parameter * 0.5)
    metrics, values = evaluate(evaluator, part, SAMPLES)
    weights = weights_of(evaluator)
    of_noise = weights["posterior.from_noise.weight"]
    kl, kl_z, means, draws = [], [], [], []
    for number, sentence in enumerate(part.sentences):
        source = randomness.generator(SEED, "evaluation", number)
        eps, prior = (
            randomness.normal(source, SAMPLES, NOISE),
            randomness.normal(source, SAMPLES, 2),
        )
        h = encoded(weights, sentence)
        mean = weights["posterior.from_hidden.weight"] @ h + weights["posterior.from_hidden.bias"]
        z = mean + eps @ of_noise.T
        each = np.repeat(h[None], SAMPLES, 0)
        f, f_prior = (critic(weights, "joint_critic", np.hstack((x, each))) for x in (z, prior))
        g, g_prior = (critic(weights, "marginal_critic", x) for x in (z, prior))
        kl.append(f.mean() - np.exp(f_prior).mean() + 1)
        kl_z.append(g.mean() - np.exp(g_prior).mean() + 1)
        means.append(mean)
        draws.append(z)
    np.testing.assert_allclose(values["kl"], kl, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(values["kl_z"], kl_z, rtol=1e-4, atol=1e-4)
    assert metrics["kl"] == pytest.approx(np.mean(kl), abs=1e-4)
    assert metrics["kl_z"] == pytest.approx(np.mean(kl_z), abs=1e-4)
    assert metrics["mi"] == pytest.approx(np.mean(kl) - np.mean(kl_z), abs=2e-4)
    assert metrics["neg_elbo"] == pytest.approx(metrics["rec"] + np.mean(kl), abs=1e-4)
    tokens = sum(len(sentence) + 1 for sentence in part.sentences)
    nats = len(part) * metrics["neg_elbo"]
    assert metrics["ppl"] == pytest.approx(np.exp(nats / tokens), rel=1e-6)
    assert metrics["au"] == (np.mean(draws, 1).var(0) >= 0.01).sum()

    posteriors = [multivariate_normal(mean, of_noise @ of_noise.T) for mean in means]
    exact = np.mean([kl_to_prior(q) for q in posteriors])
    assert metrics["kl_exact"] == pytest.approx(exact, rel=1e-4)
    axes, scales, _ = np.linalg.svd(of_noise)
    information = []
    for number, (q, mean) in enumerate(zip(posteriors, means, strict=True)):
        eps = randomness.normal(
            randomness.generator(SEED, "information", number), INFORMATION_DRAWS, 2
        )
        z = mean + (eps * scales) @ axes.T
        of_all = logsumexp([p.logpdf(z) for p in posteriors], 0) - np.log(len(part))
        information.append(np.mean(q.logpdf(z) - of_all))
    assert metrics["mi_exact"] == pytest.approx(np.mean(information), rel=1e-3)


def test_columns_of_a_gaussian_row(part):
    evaluator = evaluator_of("gaussian", 2)
    metrics, values = evaluate(evaluator, part, SAMPLES)
    weights = weights_of(evaluator)
    posteriors, draws = [], []
    for number, sentence in enumerate(part.sentences):
        layer = "posterior.mean_and_log_variance"
        both = weights[f"{layer}.weight"] @ encoded(weights, sentence) + weights[f"{layer}.bias"]
        mean, variance = both[:2], np.exp(both[2:])
        eps = randomness.normal(randomness.generator(SEED, "evaluation", number), 1, 2)[0]
        posteriors.append(multivariate_normal(mean, np.diag(variance)))
        draws.append(mean + np.sqrt(variance) * eps)
    kl = [
        0.5 * (np.trace(q.cov) + q.mean @ q.mean - 2 - np.log(np.diag(q.cov)).sum())
        for q in posteriors
    ]
    np.testing.assert_allclose(values["kl"], kl, rtol=1e-4, atol=1e-5)
    of_all = logsumexp([q.logpdf(draws) for q in posteriors], 0) - np.log(len(part))
    information = np.array([-q.entropy() for q in posteriors]) - of_all
    assert metrics["mi"] == pytest.approx(information.mean(), rel=1e-3)
    assert metrics["kl_z"] == pytest.approx(np.mean(kl) - information.mean(), rel=1e-3)
    assert metrics["kl_exact"] == pytest.approx(metrics["kl"], rel=1e-6)
    assert metrics["au"] == (np.var([q.mean for q in posteriors], 0) >= 0.01).sum()


def test_what_became_of_the_lines():
    counts = {"read": 12, "empty": 1, "dropped": 2, "truncated": 3, "unknown": 4}
    sentences = [np.arange(4, 4 + length, dtype=np.int32) for length in (3, 5)]
    split = Split("test", "x", sentences, np.arange(2) + 1, counts)
    found = lines_of(split)
    assert found == {"read": 12, "empty": 1, "dropped": 2, "truncated": 3, "unk_rate": 0.5}


def test_the_rate_of_grammatical_samples(monkeypatch):
    """A decoder that makes sentences of the grammar and, every fourth time, their reverse."""
    sentences = [text.split() for text in grammar.generate(7, {"test": 400})["test"].texts]
    vocabulary = Vocabulary([*SPECIALS, *sorted({word for words in sentences for word in words})])
    texts = [words[:: -1 if number % 4 == 0 else 1] for number, words in enumerate(sentences)]
    monkeypatch.setattr(
        metrics,
        "SentenceDecoder",
        lambda decoder, rows: lambda z, way, seed: [vocabulary.encode(text) for text in texts],
    )
    loaded = SimpleNamespace(model=SimpleNamespace(decoder=None), vocabulary=vocabulary)
    found = grammatical_rate(loaded, load(None, ("eval.grammatical_samples=400",)))
    assert found["grammatical"] == pytest.approx(0.75)
    assert found["grammatical_error"] == pytest.approx(np.sqrt(0.75 * 0.25 / 400))
    assert found["grammatical_samples"] == 400
