import math
import statistics

import numpy as np
import pytest

from mindspore_cvae.common.numbers import is_finite, signed_with_error, standard_error
from mindspore_cvae.runs.events import scalars


@pytest.mark.parametrize("value", [0, -3, 2.5, 10**300])
def test_finite(value):
    assert is_finite(value)


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 10**400, True, "1", None, [1.0], {"a": 1}]
)
def test_not_finite(value):
    assert not is_finite(value)


def test_a_number_of_a_log_that_no_float_holds_is_no_scalar():
    assert scalars({"event": "step", "loss": 10**400, "rec": 1.0}) == {"train/rec": 1.0}


def test_a_difference_has_its_sign_and_its_error():
    assert signed_with_error(1.3, 0.1) == "+1.30 \N{PLUS-MINUS SIGN} 0.10"
    assert signed_with_error(-0.004, 0.125) == "-0.00 \N{PLUS-MINUS SIGN} 0.12"


def test_the_standard_error_is_of_means_over_the_first_axis():
    values = np.array([[1.0, 5.0], [3.0, 5.0], [2.0, 5.0]])
    expected = [statistics.stdev([1.0, 3.0, 2.0]) / math.sqrt(3), 0.0]
    assert standard_error(values) == pytest.approx(expected)
    assert standard_error(values[:, 0]) == pytest.approx(expected[0])
