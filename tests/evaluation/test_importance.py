"""The importance-weighted bound of real decoders against numerical integration over z."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from mindspore import Tensor
from tiny_evaluator import ROWS, WIDTH, evaluator_of, split

from mindspore_cvae.common import randomness
from mindspore_cvae.devices import choosing
from mindspore_cvae.evaluation import bounds, importance
from mindspore_cvae.evaluation.importance import ImportanceSampler
from mindspore_cvae.evaluation.metrics import Weighing, evaluate
from mindspore_cvae.evaluation.proposals import (
    LONGEST_MOVE,
    MOST_CHANGE,
    UNREFINED,
    Choice,
    natural_descent,
    natural_step,
    rotated_points,
)

COPIES = 40
CASES = [("gaussian", 1), ("gaussian", 2), ("affine", 1), ("mlp", 2)]
"""Families of posteriors and latent sizes."""


@pytest.fixture(scope="module", autouse=True)
def graph_mode():
    choosing.choose("CPU")


def integrated_nll(evaluator, part):
    """-log of the integral of p(x|z) p(z) over a fine grid of z, by the trapezoid rule."""
    size = evaluator.latent_size
    axis = np.linspace(-7.0, 7.0, 2001 if size == 1 else 141)
    grid = np.stack(np.meshgrid(*[axis] * size, indexing="ij"), -1).reshape(-1, size)
    tokens = np.zeros((len(part), WIDTH + 1), np.int32)
    for row, sentence in zip(tokens, part.sentences, strict=True):
        row[: len(sentence) + 2] = [2, *sentence, 3]
    sampler = ImportanceSampler(evaluator)
    z = np.broadcast_to(grid, (len(part), *grid.shape))
    nll = sampler._likelihood(Tensor(tokens), z, ROWS // len(part))
    cell = (axis[1] - axis[0]) ** size
    log_terms = -nll + bounds.log_prior(grid) + np.log(cell)
    return -np.log(np.exp(log_terms).sum(1))


@pytest.fixture(scope="module", params=CASES)
def case(request):
    posterior, size = request.param
    evaluator = evaluator_of(posterior, size)
    part = split(copies=COPIES)
    scores = evaluator.score(part, 128)
    return evaluator, part, scores, np.repeat(integrated_nll(evaluator, split()), COPIES)


def mean_and_error(values):
    """Over independent repetitions."""
    return values.mean(), values.std() / np.sqrt(len(values))


@pytest.mark.parametrize(
    "choice", [Choice("fit", 0.4), Choice("product", 1.0), Choice("refined", 1.0)]
)
def test_bound_lies_above_the_integral_and_closes_in(case, choice):
    evaluator, part, scores, truth = case
    sampler = ImportanceSampler(evaluator)
    gaps = [
        mean_and_error(sampler.score(part, scores, draws, choice).nll - truth)
        for draws in (2, 16, 128)
    ]
    for gap, error in gaps:
        assert gap > -4 * error
    for (wide, wide_error), (narrow, narrow_error) in zip(gaps, gaps[1:], strict=False):
        assert narrow < wide + 4 * np.hypot(wide_error, narrow_error)
    assert gaps[-1][0] < 0.5 * gaps[0][0] + 4 * gaps[0][1]
    assert abs(gaps[-1][0]) < 0.05


def test_refinement_comes_nearer_to_the_true_posterior(case):
    """More of its draws count than of those of the product that it starts from."""
    evaluator, part, scores, _ = case
    sampler, effective = ImportanceSampler(evaluator), {}
    for family in ("product", "refined"):
        result = sampler.score(part, scores, 128, Choice(family, 1.0))
        effective[family] = result.effective_samples.mean()
    assert effective["refined"] > max(effective["product"], 0.5 * 128)


def test_validation_has_a_tight_bound_where_the_posterior_is_the_true_one(monkeypatch):
    """Such a q(z|x) times the prior has the prior twice: a Gaussian row that told sentences apart
    had a bound ten nats above its own -ELBO. Here -log p(x|z) = |z - y|^2 / 2 of every sentence, so
    that p(z|x) is N(y / 2, I / 2) and p(x) the density of N(0, 2 I) at y, but for constants."""
    evaluator, part, y = evaluator_of("gaussian", 8), split(copies=COPIES), np.full(8, 2.0)
    sampler = ImportanceSampler(evaluator)
    monkeypatch.setattr(sampler, "_likelihood", lambda _, z, __: 0.5 * ((z - y) ** 2).sum(2))
    exact = SimpleNamespace(fit=(np.tile(y / 2, (len(part), 1)), np.eye(8)[None] / 2))
    monkeypatch.setattr(evaluator, "score", lambda *_: exact)
    truth = 0.25 * (y**2).sum() + 4 * np.log(2.0)
    choice = sampler.choose(part, 16, 16, UNREFINED)
    found = sampler.score(part, exact, 16, choice)
    assert choice.family == "fit" and abs(found.nll.mean() - truth) < 0.05
    assert found.effective_samples.mean() > 0.9 * 15


def test_rotated_points_have_the_moments_of_standard_normal_noise():
    points = rotated_points(np.random.default_rng(0).normal(size=(3, 2, 5, 5)))
    assert points.shape == (3, 20, 5)
    assert points.mean(1) == pytest.approx(0.0, abs=1e-14)
    squares = points.transpose(0, 2, 1) @ points / 20
    assert squares == pytest.approx(np.broadcast_to(np.eye(5), squares.shape), abs=1e-12)
    assert abs(points[0] - points[1]).max() > 0.1


@pytest.fixture
def parabola():
    """-log p(x|z) = |A z - b|^2 / 2 of two sentences: its gradient, and the posterior's moments in
    closed form."""
    random = np.random.default_rng(2)
    a, b = random.normal(size=(4, 3)), random.normal(size=(2, 4))
    covariance = np.linalg.inv(a.T @ a + np.eye(3))

    def gradient(z):
        return (z @ a.T - b[:, None]) @ a

    return gradient, b @ a @ covariance, covariance


def test_a_whole_natural_step_ends_at_the_posterior_of_a_gaussian_model(parabola):
    """From where none of the limits of a step is reached."""
    gradient, expected, covariance = parabola
    factor = np.linalg.cholesky(1.3 * covariance)[None].repeat(2, 0)
    mean = expected + 0.4 * factor[:, :, 0]
    noise = rotated_points(np.random.default_rng(1).normal(size=(2, 1, 3, 3)))
    z = mean[:, None] + noise @ factor.transpose(0, 2, 1)
    mean, factor = natural_step(mean, factor, noise, gradient(z), 1.0)
    assert mean == pytest.approx(expected, abs=1e-12)
    assert factor[1] @ factor[1].T == pytest.approx(covariance, abs=1e-12)


def test_a_natural_step_moves_no_further_than_its_limits():
    """Where the likelihood is steep, and where it is flat."""
    noise = rotated_points(np.random.default_rng(1).normal(size=(1, 1, 3, 3)))
    factor = np.eye(3)[None]
    for scale in (1e6, -1e6):
        mean, changed = natural_step(np.zeros((1, 3)), factor, noise, scale * (noise - 5.0), 1.0)
        assert np.linalg.norm(mean) <= LONGEST_MOVE * (1 + 1e-9)
        change = np.log(np.linalg.eigvalsh(changed[0] @ changed[0].T))
        assert abs(change).max() <= MOST_CHANGE * (1 + 1e-9)


def test_descent_finds_the_posterior_of_a_gaussian_model(parabola):
    gradient, expected, covariance = parabola
    numbers = np.random.default_rng(3).normal(size=(2, 40, 1, 3, 3))
    start = np.zeros((2, 3)), 3.0 * np.eye(3)[None].repeat(2, 0)
    mean, factor = natural_descent(*start, numbers, gradient)
    assert mean == pytest.approx(expected, abs=1e-6)
    assert factor == pytest.approx(np.tril(factor))
    for found in factor:
        assert found @ found.T == pytest.approx(covariance, abs=1e-6)


def test_refined_proposals_do_not_depend_on_how_points_are_cut_into_calls():
    part, found = split(3), []
    scores = evaluator_of("affine", 2).score(part, 16)
    start = bounds.Proposal.product(*scores.fit, 1.0, 0.05)
    for rows in (320, 9):
        sampler = ImportanceSampler(evaluator_of("affine", 2, rows=rows))
        found.append(sampler.propose.refined(part, start))
    assert found[1].mean == pytest.approx(found[0].mean, abs=1e-5)
    assert found[1].factor == pytest.approx(found[0].factor, abs=1e-5)


def test_exact_negative_elbo_lies_above_the_integral(case):
    _, _, scores, truth = case
    if scores.exact is None:
        pytest.skip("this posterior is truly implicit: it has no exact KL")
    gap, error = mean_and_error(scores.reconstruction + bounds.gaussian_kl(scores.exact) - truth)
    assert gap > -4 * error


def test_an_autoencoder_has_the_bound_and_no_exact_kl():
    evaluator = evaluator_of("deterministic", 2)
    part = split(copies=COPIES)
    truth = np.repeat(integrated_nll(evaluator, split()), COPIES)
    metrics, values = evaluate(evaluator, part, 16, weighing=Weighing(128), tuning=split(4, seed=1))
    gap, error = mean_and_error(values["iw_nll"] - truth)
    # The fit is a point, so its proposal is a ball, and the bound looser than with a fitted shape.
    assert -4 * error < gap < 0.3
    assert metrics["kl_exact"] is None and metrics["iw_samples"] == 128
    assert 1.0 <= metrics["ess"] <= 128


def numbers(metrics):
    return {name: value for name, value in metrics.items() if isinstance(value, (int, float))}


def test_numbers_do_not_depend_on_how_draws_are_cut_into_calls():
    part = split(5)
    reference, *others = (
        numbers(
            evaluate(
                evaluator_of("mlp", 2, **cut), part, 24, weighing=Weighing(40), tuning=split(4)
            )[0]
        )
        for cut in ({"rows": 320}, {"rows": 33}, {"rows": 320, "tokens": 17 * WIDTH})
    )
    for metrics in others:
        assert metrics == pytest.approx(reference, rel=2e-5, abs=2e-5)


def test_a_call_predicts_no_more_tokens_than_it_may():
    evaluator = evaluator_of("mlp", 2, rows=64, tokens=100)
    evaluator.widths = (2, 5, 9, 101)
    plan = evaluator.plan(np.array([1] * 70 + [4] * 30 + [8] * 3 + [1]), draws=12)
    draws = {width: evaluator.draws_of_call(width, 12) for width in evaluator.widths}
    assert draws == {2: 12, 5: 12, 9: 11, 101: 1}
    assert plan.batch_sizes == {2: 4, 5: 1, 9: 1, 101: 1}
    assert sorted(np.concatenate([indices for _, indices in plan])) == list(range(104))


def test_proposals_are_chosen_on_validation_and_never_on_the_evaluated_split():
    evaluator = evaluator_of("affine", 2)
    chosen = ImportanceSampler(evaluator).choose(split(4, seed=9), 16, 32)
    for seed in range(3):
        metrics, _ = evaluate(
            evaluator, split(3, seed), 16, weighing=Weighing(32), tuning=split(4, seed=9)
        )
        names = ("iw_proposal", "iw_inflation", "iw_widening")
        assert Choice(*(metrics[name] for name in names)) == chosen


def test_the_choice_shares_no_draws_with_what_is_read(monkeypatch):
    sampler, streams = ImportanceSampler(evaluator_of("affine", 2)), []

    def generator(seed, stream, counter, part=0):
        streams.append((stream, counter, part))
        return randomness.generator(seed, stream, counter, part)

    own = SimpleNamespace(generator=generator, normal=randomness.normal)
    monkeypatch.setattr(importance, "randomness", own)
    sampler.choose(split(4), 16, 32)
    chosen = {key for key in streams if key[0] == "importance"}
    streams.clear()
    sampler.score(split(4), sampler.evaluator.score(split(4), 16), 32, Choice("fit", 0.2))
    read = {key for key in streams if key[0] == "importance"}
    assert len(chosen) == len(read) == len(split(4)) and not chosen & read


def test_fewer_noise_than_latent_dimensions_have_no_exact_kl_but_a_bound():
    evaluator = evaluator_of("affine", 3, noise_size=2)
    metrics, _ = evaluate(evaluator, split(), 16, weighing=Weighing(32), tuning=split(4, seed=9))
    assert metrics["kl_exact"] is None and metrics["mi_exact"] is None
    assert np.isfinite(metrics["iw_nll"])
