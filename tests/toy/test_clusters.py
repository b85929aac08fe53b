"""Numbers of clusters, against points whose numbers are known."""

import math

import numpy as np
import pytest

from mindspore_cvae.toy.clusters import distance_ratio, separability, silhouette

PAIRS = np.array([[0.0, 0.0], [0.0, 2.0], [3.0, 0.0], [3.0, 2.0]], np.float32)
PAIR_LABELS = np.array([0, 0, 1, 1])


def test_silhouette_of_two_pairs():
    # Every point: 2 to its partner, (3 + sqrt(13)) / 2 to the other pair on average.
    other = (3 + math.sqrt(13)) / 2
    assert silhouette(PAIRS, PAIR_LABELS) == pytest.approx((other - 2) / other, rel=1e-12)


def test_silhouette_takes_the_nearest_other_category():
    z = np.array([[0, 0], [1, 0], [10, 0], [11, 0], [1000, 0], [1001, 0]], float)
    labels = np.array([0, 0, 1, 1, 2, 2])
    others = [10.5, 9.5, 9.5, 10.5, 990 - 0.5, 991 - 0.5]
    expected = np.mean([(other - 1) / other for other in others])
    assert silhouette(z, labels) == pytest.approx(expected, rel=1e-12)


def test_points_in_the_wrong_category_have_a_negative_silhouette():
    assert silhouette(PAIRS, np.array([0, 1, 0, 1])) < 0


def test_coinciding_points_have_no_silhouette():
    assert silhouette(np.zeros((4, 2)), PAIR_LABELS) == 0.0


def test_distance_ratio_of_two_pairs():
    expected = 2 / ((3 + math.sqrt(13)) / 2)
    assert distance_ratio(PAIRS, PAIR_LABELS) == pytest.approx(expected, rel=1e-12)


def test_distance_ratio_of_one_cloud_is_one():
    z = np.random.default_rng(0).normal(size=(2000, 2))
    assert distance_ratio(z, np.arange(2000) % 4) == pytest.approx(1.0, abs=0.01)


def clouds(centres, each, spread, seed):
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(centres)), each)
    return np.asarray(centres)[labels] + spread * random.normal(size=(len(labels), 2)), labels


def test_distant_clouds_are_separable_at_any_scale():
    angles = 2 * np.pi * np.arange(16) / 16
    circle = np.stack([np.cos(angles), np.sin(angles)], 1)
    for scale in (1e-3, 1.0, 1e3):
        fitted, labels = clouds(circle, 100, 0.01, 0)
        new, _ = clouds(circle, 100, 0.01, 1)
        shifted = [scale * points + 5 * scale for points in (fitted, new)]
        assert separability(shifted[0], labels, shifted[1], labels) == 1.0


def test_two_overlapping_normal_clouds_reach_the_best_accuracy():
    # Centres 2 apart and deviation 1: the best line is wrong with chance Phi(-1).
    fitted, labels = clouds([[-1, 0], [1, 0]], 5000, 1.0, 0)
    new, _ = clouds([[-1, 0], [1, 0]], 5000, 1.0, 1)
    best = 0.5 * (1 + math.erf(1 / math.sqrt(2)))
    assert separability(fitted, labels, new, labels) == pytest.approx(best, abs=0.01)


def test_a_category_inside_another_is_not_separable_by_lines():
    random = np.random.default_rng(0)
    angles = random.uniform(0, 2 * np.pi, 500)
    ring = 3 * np.stack([np.cos(angles), np.sin(angles)], 1)
    z = np.concatenate([0.1 * random.normal(size=(500, 2)), ring])
    labels = np.repeat([0, 1], 500)
    assert separability(z, labels, z, labels) < 0.8


def test_without_clusters_separability_is_chance():
    random = np.random.default_rng(0)
    labels = np.arange(4000) % 4
    value = separability(
        random.normal(size=(4000, 2)), labels, random.normal(size=(4000, 2)), labels
    )
    assert value == pytest.approx(0.25, abs=0.04)
