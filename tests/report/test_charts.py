"""Charts: where ticks stand, what is drawn, and what is left out."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from mindspore_cvae.report.charts import (
    HEIGHT,
    LEFT,
    MAP_SIZE,
    MOST_POINTS,
    RIGHT,
    TOP,
    WIDTH,
    Line,
    Point,
    line_chart,
    log_ticks,
    scatter,
    short,
    ticks,
)
from mindspore_cvae.report.page import FOLDER
from mindspore_cvae.report.specimens import LABEL_GROUPS


def polylines(chart):
    """Points of each curve of a chart."""
    return [
        [tuple(map(float, pair.split(","))) for pair in points.split()]
        for points in re.findall(r'<polyline points="([^"]*)"', chart)
    ]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 10, [0, 5, 10]), (0, 40, [0, 10, 20, 30, 40]), (-3.2, 0.1, [-3, -2, -1, 0])],
)
def test_ticks_are_round_numbers_within_the_range(low, high, expected):
    found = ticks(low, high, 4)
    assert found == pytest.approx(expected)


def test_ticks_of_whole_numbers_and_of_powers():
    assert ticks(0, 3, 5, whole=True) == [0, 1, 2, 3]
    assert log_ticks(9, 1100) == [10, 50, 200, 1000]
    assert log_ticks(30, 300) == [50, 100, 200]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (-2.5, "\N{MINUS SIGN}2.5"), (52600, "52.6k"), (9000, "9000"), (2.1e6, "2.1M")],
)
def test_short_numbers(value, text):
    assert short(value) == text


def test_a_line_goes_where_its_values_are():
    chart = line_chart("KL", "nats", [Line("kl", [0, 1, 2], [1.0, 3.0, 2.0])])
    (points,) = polylines(chart)
    xs, ys = zip(*points, strict=True)
    assert xs == (LEFT, (LEFT + WIDTH - RIGHT) / 2, WIDTH - RIGHT)
    assert ys[1] < ys[2] < ys[0], "larger values stand higher"
    assert ys[2] == pytest.approx((ys[0] + ys[1]) / 2, abs=0.1)
    assert TOP < min(ys) and max(ys) < HEIGHT


def test_what_is_no_number_leaves_a_gap():
    values = [1.0, None, 2.0, float("nan"), 3.0, True, "4", 10**400]
    chart = line_chart("KL", "nats", [Line("kl", range(8), values)])
    assert [len(points) for points in polylines(chart)] == [1, 1, 1]
    assert line_chart("KL", "nats", [Line("kl", [0, 1], [None, float("inf")])]) is None
    assert line_chart("KL", "nats", []) is None


def test_a_constant_has_a_chart():
    chart = line_chart("AU", "", [Line("au", [0, 1], [0.0, 0.0])])
    assert len(polylines(chart)[0]) == 2 and "nan" not in chart


def test_long_lines_become_means_with_their_range():
    count = 10 * MOST_POINTS
    values = [5.0 + (-1) ** step for step in range(count)]
    chart = line_chart("Loss", "", [Line("loss", range(count), values)])
    (points,) = polylines(chart)
    assert len(points) <= MOST_POINTS
    assert len({y for _, y in points}) == 1, "the mean of 4 and 6"
    (band,) = re.findall(r'<polygon points="([^"]*)"', chart)
    assert len({pair.split(",")[1] for pair in band.split()}) == 2, "4 and 6"


def test_a_logarithmic_scale_only_for_positive_values_far_apart():
    far, near = [1000.0, 100.0, 10.0], [12.0, 11.0, 10.0]
    chart = line_chart("PPL", "a token", [Line("ppl", [0, 1, 2], far)], logarithmic=True)
    (points,) = polylines(chart)
    assert points[1][1] == pytest.approx((points[0][1] + points[2][1]) / 2, abs=0.1)
    assert "log scale" in chart
    for values in (near, [-1.0, 100.0, 1000.0]):
        chart = line_chart("PPL", "", [Line("ppl", [0, 1, 2], values)], logarithmic=True)
        assert "log scale" not in chart


def test_the_chosen_point_is_ringed():
    chart = line_chart("KL", "", [Line("kl", [0, 1, 2], [1.0, 2.0, 3.0])], 1, marks=True)
    assert chart.count("<circle") == 3 and chart.count("point chosen") == 1
    assert "kl, 1: 2" in re.search(r"<circle[^>]*chosen[^>]*><title>([^<]*)", chart)[1]


def test_a_map_keeps_distances():
    points = [Point(0, 0, 0, "a"), Point(4, 0, 1, "b"), Point(0, 1, 1, "c")]
    chart = scatter("Map", "", points, ["one", "two"])
    places = [
        (float(x), float(y)) for x, y in re.findall(r'<circle cx="([-\d.]+)" cy="([-\d.]+)"', chart)
    ]
    assert all(0 <= x <= MAP_SIZE and y >= 0 for x, y in places)
    across, up = places[1][0] - places[0][0], places[0][1] - places[2][1]
    assert across == pytest.approx(4 * up, abs=0.5) and up > 0
    assert chart.count('class="g1"') == 3, "two points, and the legend"


def test_points_of_no_group_lie_below():
    points = [Point(0, 0, 0, "a"), Point(4, 0, -1, "b"), Point(0, 1, 0, "c")]
    chart = scatter("Map", "", points, ["one"], rest="2 others")
    assert re.findall(r'<circle[^>]*class="(\w+)"', chart) == ["rest", "g0", "g0"]
    assert re.findall(r"</span>([^<]*)</li>", chart) == ["one", "2 others"]
    assert "rest" not in scatter("Map", "", points[::2], ["one"])


# How the cones lack long, middle and short wavelengths (Machado et al. 2009, severity 1).
VISION = {
    "all": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
               [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


def linear(colour):
    """Light of red, green and blue of ``#rrggbb``."""
    values = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def oklab(light):
    """Ottosson's space, in which distances are about as they are seen; 0.02 is just visible."""
    cones = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
             [0.0883024619, 0.2817188376, 0.6299787005]]  # fmt: skip
    lab = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
           [0.0259040371, 0.7827717662, -0.8086757660]]  # fmt: skip
    return np.array(lab) @ np.cbrt(np.array(cones) @ light)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_the_colours_of_groups_can_be_told_apart(scheme):
    style = (FOLDER / "page.css").read_text()
    values = {name: re.findall(rf"--{name}: (#\w+);", style)[scheme] for name in ("card", "rest")}
    colours = [re.findall(rf"--g{group}: (#\w+);", style)[scheme] for group in range(LABEL_GROUPS)]
    assert f"--g{LABEL_GROUPS}" not in style and f".g{LABEL_GROUPS - 1} {{" in style
    brightness = [
        linear(colour) @ (0.2126, 0.7152, 0.0722)
        for colour in (values["card"], values["rest"], *colours)
    ]
    for one in brightness[1:]:
        low, high = sorted((one, brightness[0]))
        assert (high + 0.05) / (low + 0.05) >= 3, "what WCAG asks of graphics"
    for matrix in VISION.values():
        seen = [
            oklab(np.clip(np.array(matrix) @ linear(colour), 0, 1))
            for colour in (values["rest"], *colours)
        ]
        distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)]
        assert len(distances) == 28 and min(distances) > 0.1
