"""InfoNCE with each of its options against sums written out in NumPy."""

from __future__ import annotations

from types import SimpleNamespace

import mindspore as ms
import numpy as np
import numpy_twins as twins
import pytest
import tiny
from mindspore import Tensor

from mindspore_cvae.model.contrasts import CONTRASTS

RANDOM = np.random.default_rng(3)
WEIGHT = np.array([1, 1, 0, 1, 1], np.float32)
SENTENCES = len(WEIGHT)
H, Z = RANDOM.normal(size=(2 * SENTENCES, 6)), RANDOM.normal(size=(2 * SENTENCES, 4))
PRIOR_DRAWS = RANDOM.normal(size=(7, 4)).astype(np.float32)
H, Z = H.astype(np.float32), Z.astype(np.float32)
DEFAULTS = {
    "contrast_on": "z",
    "temperature": 0.05,
    "negatives": "second",
    "batch_mean_pair": False,
}

OPTIONS = {
    "default": {},
    "on h": {"contrast_on": "h"},
    "warmer": {"temperature": 0.7},
    "negatives of the first view": {"negatives": "first"},
    "batch mean": {"batch_mean_pair": True},
    "prior negatives": {"prior_draws": PRIOR_DRAWS},
    "all": {
        "temperature": 0.4,
        "negatives": "first",
        "batch_mean_pair": True,
        "prior_draws": PRIOR_DRAWS,
    },
}


def info_nce(h, z, prior_draws=None, **options):
    cell = CONTRASTS["info_nce"](SimpleNamespace(**{**DEFAULTS, **options}))
    both = ms.value_and_grad(cell, (0, 1))
    value, gradients = both(*tiny.tensors([h, z, prior_draws, WEIGHT]))
    return value.asnumpy(), [gradient.asnumpy() for gradient in gradients]


@pytest.mark.parametrize("mode", tiny.MODES)
@pytest.mark.parametrize("name", OPTIONS)
def test_equals_numpy(name, mode):
    options = {**DEFAULTS, "prior_draws": (), **OPTIONS[name]}
    on = options.pop("contrast_on")
    vectors = {"h": H, "z": Z}[on]

    def twin(both_views):
        return twins.info_nce(*np.split(both_views, 2), WEIGHT, **options)

    with tiny.execution(mode):
        value, gradients = info_nce(H, Z, **OPTIONS[name])
    at_h, at_z = gradients
    own, other = {"h": (at_h, at_z), "z": (at_z, at_h)}[on]
    np.testing.assert_allclose(value, twin(vectors.astype(float)), rtol=2e-5)
    expected = twins.numerical_gradient(twin, vectors)
    np.testing.assert_allclose(own, expected, rtol=1e-4, atol=2e-5)
    assert not other.any()


@pytest.mark.parametrize("name", ["on h", "all"])
def test_swapped_sentences_are_negatives_of_every_anchor(name):
    """Their own anchors too; one of a filler row counts nothing."""
    options = {**DEFAULTS, "prior_draws": (), **OPTIONS[name]}
    on = options.pop("contrast_on")
    vectors = {"h": H, "z": Z}[on].astype(float)
    swapped = RANDOM.normal(size=(SENTENCES, vectors.shape[1])).astype(np.float32)
    draws = options.pop("prior_draws")

    def twin(negatives):
        further = [*draws, *twins.real(negatives, WEIGHT)]
        return twins.info_nce(*np.split(vectors, 2), WEIGHT, prior_draws=further, **options)

    cell = CONTRASTS["info_nce"](SimpleNamespace(**{**DEFAULTS, **OPTIONS[name]}))
    prior_draws = OPTIONS[name].get("prior_draws")
    inputs = tiny.tensors([H, Z, prior_draws, WEIGHT, swapped])
    value, gradient = ms.value_and_grad(cell, 4)(*inputs)
    np.testing.assert_allclose(value.asnumpy(), twin(swapped.astype(float)), rtol=2e-5)
    expected = twins.numerical_gradient(twin, swapped)
    np.testing.assert_allclose(gradient.asnumpy(), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", OPTIONS)
def test_filler_rows_change_nothing(name):
    fillers = np.flatnonzero(np.tile(WEIGHT, 2) == 0)
    h, z = H.copy(), Z.copy()
    h[fillers], z[fillers] = 1e6, -1e6
    before, gradients_before = info_nce(H, Z, **OPTIONS[name])
    after, gradients_after = info_nce(h, z, **OPTIONS[name])
    np.testing.assert_array_equal(after, before)
    for gradient, gradient_before in zip(gradients_after, gradients_before, strict=True):
        np.testing.assert_array_equal(gradient, gradient_before)
        assert not gradient[fillers].any()


def test_two_orthogonal_sentences_by_hand():
    """Cosine 1 to the own positive, 0 to the other: -log(1 + e^(-1/tau)) each."""
    views = np.array([[1, 0], [0, 1], [2, 0], [0, 3]], np.float32)
    cell = CONTRASTS["info_nce"](SimpleNamespace(**{**DEFAULTS, "temperature": 0.5}))
    value = cell(Tensor(views), Tensor(views), None, Tensor(np.ones(2, np.float32)))
    np.testing.assert_allclose(value.asnumpy(), -np.log1p(np.exp(-2)), rtol=1e-5)


def test_equal_views_of_equal_sentences_cannot_be_told_apart():
    """N vectors alike: log(1/N)."""
    views = np.ones((2 * SENTENCES, 4), np.float32)
    value, _ = info_nce(views, views)
    np.testing.assert_allclose(value, -np.log(WEIGHT.sum()), rtol=1e-6)


def test_no_contrast_is_0():
    cell = CONTRASTS["none"](SimpleNamespace(**DEFAULTS))
    assert cell(*tiny.tensors([H, Z, None, WEIGHT])).asnumpy() == 0
