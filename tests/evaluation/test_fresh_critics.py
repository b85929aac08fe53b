"""Fresh critics on codes whose KL is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from mindspore_cvae.data.corpus import Split
from mindspore_cvae.devices import choosing
from mindspore_cvae.errors import InputError
from mindspore_cvae.evaluation import bounds
from mindspore_cvae.evaluation.bounds import GaussianPosterior
from mindspore_cvae.evaluation.fresh_critics import refitted_kl
from mindspore_cvae.evaluation.metrics import evaluate

SIZES = SimpleNamespace(critic_size=48, critic_layers=2)


@pytest.fixture(scope="module", autouse=True)
def graph_mode():
    choosing.choose("CPU")


@pytest.fixture(scope="module", params=[0.9, 0.05])
def case(request):
    """Codes of an affine posterior: mild (KL near 1 nat a sentence), and nearly degenerate."""
    random = np.random.default_rng(4)
    h = random.normal(size=(1200, 3)).astype(np.float32)
    from_hidden = 0.6 * random.normal(size=(2, 3))
    from_noise = request.param * np.eye(2)
    posterior = GaussianPosterior.affine(h, from_hidden, np.zeros(2), from_noise)
    codes = posterior.mean[:, None] + random.normal(size=(1200, 8, 2)) @ from_noise.T
    result = refitted_kl(h, codes.astype(np.float32), SIZES, seed=0, updates=700)
    return request.param, bounds.gaussian_kl(posterior)[1::2].mean(), result


def test_three_sentences_are_enough_and_two_are_refused():
    random = np.random.default_rng(1)
    h, codes = random.normal(size=(3, 3)), random.normal(size=(3, 8, 2))
    result = refitted_kl(h.astype(np.float32), codes.astype(np.float32), SIZES, 0, updates=1)
    assert all(np.isfinite(value) for value in result.values())
    split = Split("test", "none", [np.array([4])] * 9, np.arange(9), {})
    with pytest.raises(InputError, match="fresh critics need 3 sentences, and test has 2"):
        evaluate(None, split, 1, sentences=2, critic_sizes=SIZES)


def test_reading_never_exceeds_the_exact_kl_beyond_noise(case):
    _, exact, result = case
    assert result["kl_refit"] <= exact + 3 * result["kl_refit_error"]


def test_reading_comes_near_where_the_kl_is_small(case):
    width, exact, result = case
    if width < 0.5:
        pytest.skip("the nearly degenerate posterior's KL is out of reach of any critic")
    assert result["kl_refit"] > 0.7 * exact
    assert result["mi_refit"] == pytest.approx(result["kl_refit"] - result["kl_z_refit"])
    assert result["kl_z_refit"] <= result["kl_refit"] + 3 * result["kl_refit_error"]
