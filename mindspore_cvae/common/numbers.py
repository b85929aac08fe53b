"""Numbers that others wrote, and how a number with its error is written."""

from __future__ import annotations

import math
from typing import TypeGuard

import numpy as np


def is_finite(value: object) -> TypeGuard[float]:
    """Whether a value of a file is a number, no truth value, that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def standard_error(values: np.ndarray) -> np.ndarray:
    """Of means over the first axis: the deviation over sqrt(N); (N, ...) -> (...), N of 2 or
    more."""
    return values.std(0, ddof=1) / math.sqrt(len(values))


def signed_with_error(mean: float, error: float) -> str:
    """A difference and its standard error, to two digits: ``+1.30 ± 0.10``."""
    return f"{mean:+.2f} \N{PLUS-MINUS SIGN} {error:.2f}"
