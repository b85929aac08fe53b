"""Divergences and the losses of their critics against NumPy, option by option."""

from __future__ import annotations

from types import SimpleNamespace

import mindspore as ms
import numpy as np
import numpy_twins as twins
import pytest
import tiny
from mindspore import nn

from mindspore_cvae.model.divergences import DIVERGENCES

HIDDEN, LATENT, WEIGHT = 5, 3, np.array([1, 1, 0, 1], np.float32)
SENTENCES = len(WEIGHT)
DEFAULTS = {
    "hidden_size": HIDDEN,
    "latent_size": LATENT,
    "critic_size": 6,
    "critic_layers": 2,
    "views": 2,
    "critic_loss": "circle_pairwise",
    "divergence_sign": "adversarial",
    "squared_difference": "squares",
    "free_bits": 0.0,
}
ROWS = {
    **{
        f"one view, {loss}": {"critic_loss": loss, "views": 1, "squared_difference": "none"}
        for loss in twins.CRITIC_LOSSES
    },
    **{
        f"printed sign, {loss}": {"critic_loss": loss, "divergence_sign": "printed"}
        for loss in twins.CRITIC_LOSSES
    },
    **{
        f"L_SQ {difference}": {"squared_difference": difference}
        for difference in ("none", "squares", "printed", "released")
    },
}


class CriticLosses(nn.Cell):
    def __init__(self, divergence):
        super().__init__()
        self.divergence = divergence

    def construct(self, h, z, prior, weight):
        return self.divergence.critic_losses(h, z, prior, weight)


class CriticLoss(CriticLosses):
    """Both critics' losses added, whose gradient trains them."""

    def construct(self, h, z, prior, weight):
        joint, marginal = self.divergence.critic_losses(h, z, prior, weight)
        return joint + marginal


def codes(views, seed=1):
    random = np.random.default_rng(seed)
    shapes = ((HIDDEN,), (LATENT,), (LATENT,))
    return [random.normal(size=(views * SENTENCES, *s)).astype(np.float32) for s in shapes]


def critic(weights, name, inputs):
    layers = [
        (weights[f"{name}.layers.{index}.weight"], weights[f"{name}.layers.{index}.bias"])
        for index in (0, 2, 4)
    ]
    return twins.multilayer_perceptron(layers, np.asarray(inputs, np.float64))[:, 0]


def by_view(values):
    return values.reshape(-1, SENTENCES)


def values(weights, h, z):
    """f(x, z) and g(z) of every row, by view."""
    f = critic(weights, "joint_critic", np.concatenate([z, h], 1))
    return by_view(f), by_view(critic(weights, "marginal_critic", z))


def critic_losses_twin(weights, own, options, h, z, prior):
    posterior_loss, prior_loss = twins.CRITIC_LOSSES[options["critic_loss"]]
    on_posterior, on_prior = values(weights, h, z), values(weights, h, prior)
    losses = [
        sum(posterior_loss(view, WEIGHT) for view in on_q)
        + sum(prior_loss(view, WEIGHT) for view in on_p)
        for on_q, on_p in zip(on_posterior, on_prior, strict=True)
    ]
    form = options["squared_difference"]
    if form == "released":
        for pairs in (on_posterior[1], on_prior[1]):
            losses[1] += twins.DIFFERENCES["squares"](*pairs, WEIGHT)
    elif form != "none":
        losses[own] += twins.DIFFERENCES[form](*on_posterior[own], WEIGHT)
    return losses


def model_term_twin(weights, own, options, h, z, prior):
    on_posterior, on_prior = values(weights, h, z), values(weights, h, prior)
    term = 0.0
    for on_q, on_p in zip(on_posterior[own], on_prior[own], strict=True):
        if options["divergence_sign"] == "printed":
            term += twins.CRITIC_LOSSES[options["critic_loss"]][0](on_q, WEIGHT)
        else:
            exponential = np.exp(twins.real(on_p, WEIGHT)).mean()
            term += twins.expectation(on_q, WEIGHT) - exponential + 1
    if options["squared_difference"] == "released" and own == 1:
        term += twins.DIFFERENCES["squares"](*on_posterior[1], WEIGHT)
    return term


def made(name, **options):
    """The divergence; slots and sizes are one here."""
    both = SimpleNamespace(**{**DEFAULTS, **options})
    return DIVERGENCES[name](both, both)


def build(name, seed=0, **options):
    cell = made(name, **options)
    cell.update_parameters_name()
    return cell, tiny.randomise(cell, seed)


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("name, own", [("joint_dual", 0), ("marginal_dual", 1)])
def test_critic_losses_and_model_term_equal_numpy(name, own, row):
    options = {**DEFAULTS, **ROWS[row]}
    cell, weights = build(name, **ROWS[row])
    h, z, prior = codes(options["views"])
    inputs = tiny.tensors([h, z, prior, WEIGHT])
    losses = [loss.asnumpy() for loss in cell.critic_losses(*inputs)]
    expected = critic_losses_twin(weights, own, options, h, z, prior)
    np.testing.assert_allclose(losses, expected, rtol=2e-5)

    def term(z):
        return model_term_twin(weights, own, options, h, z, prior)

    gradient_of = ms.value_and_grad(cell, (0, 2, 3))
    result, gradients = gradient_of(*tiny.tensors([h, None, z, prior, WEIGHT]))
    at_h, at_z, _ = [gradient.asnumpy() for gradient in gradients]
    np.testing.assert_allclose(result.asnumpy(), term(z), rtol=2e-5, atol=1e-5)
    expected = twins.numerical_gradient(term, z)
    np.testing.assert_allclose(at_z, expected, rtol=2e-4, atol=1e-5)
    assert not at_h.any(), "f reads h as a constant"


@pytest.mark.parametrize("row", ["printed sign, circle_mean", "L_SQ squares", "L_SQ released"])
def test_graph_mode_equals_numpy(row):
    options = {**DEFAULTS, **ROWS[row]}
    cell, weights = build("marginal_dual", **ROWS[row])
    h, z, prior = codes(2)
    with tiny.execution("graph"):
        losses = CriticLosses(cell)(*tiny.tensors([h, z, prior, WEIGHT]))
        term = cell(*tiny.tensors([h, None, z, prior, WEIGHT]))
    expected = critic_losses_twin(weights, 1, options, h, z, prior)
    np.testing.assert_allclose([loss.asnumpy() for loss in losses], expected, rtol=2e-5)
    expected = model_term_twin(weights, 1, options, h, z, prior)
    np.testing.assert_allclose(term.asnumpy(), expected, rtol=2e-5)


@pytest.mark.parametrize("mode", tiny.MODES)
def test_critics_learn_by_the_slope_of_their_losses(mode):
    cell, weights = build("marginal_dual")
    h, z, prior = codes(2)
    with tiny.execution(mode):
        slopes = ms.grad(CriticLoss(cell), None, list(cell.get_parameters()))
        gradients = slopes(*tiny.tensors([h, z, prior, WEIGHT]))
    for name, gradient in zip(weights, gradients, strict=True):

        def total(array, name=name):
            return sum(critic_losses_twin({**weights, name: array}, 1, DEFAULTS, h, z, prior))

        expected = twins.numerical_gradient(total, weights[name])
        scale = np.abs(expected).max()
        np.testing.assert_allclose(gradient.asnumpy(), expected, rtol=1e-3, atol=1e-5 * scale)


@pytest.mark.parametrize("form", ["none", "squares", "printed", "released"])
def test_filler_rows_change_nothing(form):
    cell, _ = build("joint_dual", squared_difference=form)
    before, after = codes(2), codes(2)
    for array in after:
        array[np.tile(WEIGHT, 2) == 0] = 50.0
    outcomes = []
    for h, z, prior in (before, after):
        losses = cell.critic_losses(*tiny.tensors([h, z, prior, WEIGHT]))
        term = cell(*tiny.tensors([h, None, z, prior, WEIGHT]))
        outcomes.append([value.asnumpy() for value in (*losses, term)])
    np.testing.assert_array_equal(*outcomes)


def test_gaussian_kl_is_the_sum_over_views_of_means_over_sentences():
    random = np.random.default_rng(2)
    mean, log_variance = random.normal(size=(2, 2 * SENTENCES, LATENT)).astype(np.float32)
    cell = made("gaussian_kl")
    parameters = np.concatenate([mean, log_variance], 1)
    result = cell(*tiny.tensors([None, parameters, mean, None, WEIGHT])).asnumpy()
    each = by_view(twins.gaussian_kl(mean.astype(float), log_variance.astype(float)))
    expected = sum(twins.expectation(view, WEIGHT) for view in each)
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_divergences_without_critics_have_no_parameters():
    for name in ("none", "gaussian_kl"):
        assert not made(name).parameters_dict()


def test_no_divergence_is_0():
    _, z, _ = codes(2)
    cell = made("none")
    assert cell(*tiny.tensors([None, None, z, None, WEIGHT])).asnumpy() == 0
