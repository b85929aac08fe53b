"""How well points of a plane are clustered by category: numbers for what a picture shows.

z (N, D) are the points, labels (N,) their categories 0 ... K - 1, each of which has two points or
more.
"""

from __future__ import annotations

import numpy as np

DECAY = 1e-6
"""Of the classifier's squared weights: categories that a line separates would send them to
infinity."""


def separability(
    z: np.ndarray, labels: np.ndarray, new_z: np.ndarray, new_labels: np.ndarray
) -> float:
    """Share of new points whose category a linear classifier of z gets right.

    The classifier is multinomial logistic regression on (z, 1), fitted to ``z``.
    """
    weights = _logistic_regression(_with_ones(z, z), labels)
    guesses = (_with_ones(new_z, z) @ weights).argmax(1)
    return float((guesses == new_labels).mean())


def _with_ones(z: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """z in units of the reference's spread, so that the fit depends on none; a column of ones."""
    scale = np.maximum(reference.std(0, dtype=np.float64), 1e-12)
    scaled = (z - reference.mean(0, dtype=np.float64)) / scale
    return np.concatenate([scaled, np.ones((len(z), 1))], 1)


def _logistic_regression(inputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Inputs (N, D), labels (N,) -> weights (D, K)."""
    # Not at the top: commands that only answer --help would wait for it.
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    targets = np.eye(int(labels.max()) + 1)[labels]
    shape = (inputs.shape[1], targets.shape[1])

    def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        logits = inputs @ flat.reshape(shape)
        log_probabilities = log_softmax(logits, 1)
        probabilities = np.exp(log_probabilities)
        loss = -(log_probabilities * targets).sum(1).mean() + DECAY * (flat**2).sum()
        gradient = inputs.T @ (probabilities - targets) / len(inputs)
        return loss, gradient.ravel() + 2.0 * DECAY * flat

    start = np.zeros(shape[0] * shape[1])
    return minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B").x.reshape(shape)


def _distances_to_categories(z: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean Euclidean distance of each point to each category's other points, (N, K)."""
    # Late: scipy takes longer to import than --help to answer.
    from scipy.spatial.distance import cdist

    z = z.astype(np.float64)
    members = np.eye(int(labels.max()) + 1)[labels]
    # A point is not one of its own neighbours.
    return cdist(z, z) @ members / (members.sum(0) - members)


def silhouette(z: np.ndarray, labels: np.ndarray) -> float:
    """Mean over points of (b - a) / max(a, b) (Rousseeuw 1987), in [-1, 1].

    a is the mean distance to the other points of the own category, b to those of the nearest other
    category.
    """
    to_categories = _distances_to_categories(z, labels)
    rows = np.arange(len(z))
    own = to_categories[rows, labels]
    to_categories[rows, labels] = np.inf
    other = to_categories.min(1)
    return float(((other - own) / np.maximum(np.maximum(own, other), 1e-300)).mean())


def distance_ratio(z: np.ndarray, labels: np.ndarray) -> float:
    """Mean distance of two points of a category / mean distance of two points of different ones.

    Over categories of equal size.
    """
    to_categories = _distances_to_categories(z, labels)
    is_own = np.eye(to_categories.shape[1], dtype=bool)[labels]
    return float(to_categories[is_own].mean() / max(to_categories[~is_own].mean(), 1e-300))
