"""The paper's formulas once more, in float64 NumPy, independent of the package.

Loops stand where they are clearest. Rows of weight 0 are dropped, not weighted.
"""

from __future__ import annotations

import numpy as np


def real(values, weight):
    """The rows that count."""
    return np.asarray(values, np.float64)[np.asarray(weight) > 0]


def expectation(values, weight):
    return real(values, weight).mean()


def softplus(value):
    return np.logaddexp(0.0, value)


def log_one_plus_sum_exp(values, weight):
    return np.logaddexp.reduce(np.append(real(values, weight), 0.0))


def gaussian_kl(mean, log_variance):
    variance = np.exp(log_variance)
    return np.array(
        [
            0.5 * (m @ m + v.sum() - len(v) - np.log(v).sum())
            for m, v in zip(mean, variance, strict=True)
        ]
    )


CRITIC_LOSSES = {
    "dual": (
        lambda f, weight: -expectation(f, weight),
        lambda f, weight: np.exp(real(f, weight)).mean(),
    ),
    "circle_mean": (
        lambda f, weight: softplus(-expectation(f, weight)),
        lambda f, weight: softplus(np.exp(real(f, weight)).mean()),
    ),
    "circle_sum": (
        lambda f, weight: softplus(-real(f, weight).sum()),
        lambda f, weight: softplus(np.exp(real(f, weight)).sum()),
    ),
    "circle_pairwise": (
        lambda f, weight: log_one_plus_sum_exp(-np.asarray(f, np.float64), weight),
        lambda f, weight: log_one_plus_sum_exp(np.exp(np.asarray(f, np.float64)), weight),
    ),
}
"""(of the posterior's values, of the prior's values) by name."""

DIFFERENCES = {
    "none": lambda first, second, weight: 0.0,
    "squares": lambda first, second, weight: (real(first - second, weight) ** 2).sum(),
    "printed": lambda first, second, weight: real(first - second, weight).sum(),
}
"""L_SQ by name."""


def cosine(first, second):
    return first @ second / (np.linalg.norm(first) * np.linalg.norm(second))


def cosine_similarities(first, second):
    return np.array([[cosine(a, b) for b in second] for a in first])


def info_nce(
    first, second, weight, temperature, negatives="second", prior_draws=(), batch_mean_pair=False
):
    """L_CL of Eq. 10 from the vectors of two views, with every sum written out."""
    first, second = list(real(first, weight)), list(real(second, weight))
    if batch_mean_pair:
        first, second = [*first, np.mean(first, 0)], [*second, np.mean(second, 0)]
    others = {"second": second, "first": first}[negatives]
    total = 0.0
    for i, anchor in enumerate(first):
        against = [second[i], *(other for j, other in enumerate(others) if j != i), *prior_draws]
        exponents = np.array([cosine(anchor, vector) for vector in against]) / temperature
        total += exponents[0] - np.logaddexp.reduce(exponents)
    return total / len(first)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def lstm(weights, inputs, hidden, cell):
    """One layer, gates in the order input, forget, candidate, output: (T, N, I) -> (T, N, H)."""
    states = []
    for x in inputs:
        gates = x @ weights["weight_ih_l0"].T + weights["bias_ih_l0"]
        gates = gates + hidden @ weights["weight_hh_l0"].T + weights["bias_hh_l0"]
        i, f, g, o = np.split(gates, 4, axis=1)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(cell)
        states.append(hidden)
    return np.array(states)


def log_softmax(logits):
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def leaky_relu(x):
    return np.where(x > 0, x, 0.01 * x)


def multilayer_perceptron(weights, x):
    """Dense layers (weight, bias), a leaky ReLU between them."""
    *hidden, last = weights
    for weight, bias in hidden:
        x = leaky_relu(x @ weight.T + bias)
    return x @ last[0].T + last[1]


def numerical_gradient(function, x, step=1e-5):
    """Central differences of a scalar function of one array, float64."""
    x = np.array(x, np.float64)
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        kept = x[index]
        x[index] = kept + step
        above = function(x)
        x[index] = kept - step
        gradient[index] = (above - function(x)) / (2 * step)
        x[index] = kept
    return gradient
