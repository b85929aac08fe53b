"""Charts as inline SVG: they take their colours from the page, and need no picture file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeGuard

from markupsafe import Markup

from mindspore_cvae.common.numbers import is_finite
from mindspore_cvae.report.page import element, shortened

WIDTH, HEIGHT = 340, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 8, 22
MOST_POINTS = 220
"""Points of a line; longer ones become means over stretches, with a band from least to most."""
FAR_APART = 5.0
"""Ratio of the largest to the least value from which a scale becomes logarithmic."""
MAP_SIZE = 420
LARGEST = 1e30
"""Values beyond it are left out."""
COLOURS = 6
"""Distinct colours for curves, ``c0`` ... of the style sheet. The groups of a map have ``g0`` ...
``g6``, which the colour-blind can tell apart, or ``s0`` ... ``s4``, which are ordered."""


class Line(NamedTuple):
    """A curve: points by their x; a y of None, or not finite, leaves a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    dashed: bool = False
    """For what is not measured at each x, a limit for instance."""


class Point(NamedTuple):
    """A point of a map."""

    x: float
    y: float
    group: int
    """-1 for what is in none of the groups."""
    text: str
    """Shown where the pointer rests."""


def line_chart(
    title: str,
    note: str,
    lines: Sequence[Line],
    chosen: float | None = None,
    marks: bool = False,
    logarithmic: bool = False,
) -> Markup | None:
    """Curves over one x, each in its own colour.

    Args:
        title: what is shown.
        note: unit and the like.
        lines: at most six.
        chosen: an x whose points are ringed.
        marks: whether every point is drawn.
        logarithmic: whether the scale may be, if all values are positive and far apart.

    Returns:
        A figure; None where no curve has a point.
    """
    lines = [line for line in lines if any(is_number(value) for value in line.y)]
    if not lines:
        return None
    values = _numbers(value for line in lines for value in line.y)
    places = [float(x) for line in lines for x in line.x]
    low, high = min(values), max(values)
    is_logarithmic = logarithmic and low > 0 and high / low > FAR_APART
    if is_logarithmic:
        note += ", log scale"
        low, high = low / 1.1, high * 1.1
    else:
        low, high = _widened(low, high)
    first, last = min(places), max(places)
    if first == last:
        first, last = first - 0.5, last + 0.5

    def across(x: float) -> float:
        return LEFT + (x - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def down(y: float) -> float:
        share = (high - y) / (high - low)
        if is_logarithmic:
            share = math.log(high / y) / math.log(high / low)
        return TOP + share * (HEIGHT - TOP - BOTTOM)

    parts = []
    for tick in log_ticks(low, high) if is_logarithmic else ticks(low, high, 4):
        parts += _level(tick, down(tick), "zero" if tick == 0 and low < 0 else "grid")
    for tick in ticks(first, last, 5, whole=True):
        place = across(tick)
        anchor = "end" if place > WIDTH - RIGHT - 12 else "middle"
        parts.append(
            element("text", short(tick), x=f"{place:.1f}", y=HEIGHT - 5, text_anchor=anchor)
        )
    for number, line in enumerate(lines):
        drawn = _drawn(line, across, down, chosen, marks)
        parts.append(element("g", *drawn, class_=f"c{number % COLOURS}"))
    picture = element(
        "svg",
        *parts,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"{title}, {note}: {'; '.join(map(_summary, lines))}",
    )
    caption = element("figcaption", element("b", title), element("span", note))
    names = [
        (f"c{number % COLOURS}", "dashed" if line.dashed else None, line.name)
        for number, line in enumerate(lines)
    ]
    return element("figure", caption, legend(names) if len(lines) > 1 else None, picture)


def _level(value: float, height: float, style: str) -> list[Markup]:
    """A line across the picture at a height, and its value on the left."""
    at = f"{height:.1f}"
    return [
        element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at, class_=style),
        element("text", short(value), x=LEFT - 6, y=f"{height + 4:.1f}", text_anchor="end"),
    ]


def plane(
    title: str, points: Sequence[tuple[str, float, float]], across: str, down: str
) -> Markup | None:
    """Named points over two axes of their own.

    Args:
        title: what is shown.
        points: (name, x, y); those that are no numbers are left out.
        across, down: what the axes are.

    Returns:
        A figure; None where there is no point.
    """
    points = [point for point in points if is_number(point[1]) and is_number(point[2])]
    if not points:
        return None
    left, right = _widened(min(p[1] for p in points), max(p[1] for p in points))
    low, high = _widened(min(p[2] for p in points), max(p[2] for p in points))

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - left) / (right - left) * (WIDTH - LEFT - RIGHT),
            TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM),
        )

    parts = []
    for tick in ticks(low, high, 4):
        parts += _level(tick, place(left, tick)[1], "grid")
    for tick in ticks(left, right, 5):
        where = f"{place(tick, low)[0]:.1f}"
        parts.append(element("text", short(tick), x=where, y=HEIGHT - 5, text_anchor="middle"))
    for number, (name, x, y) in enumerate(points):
        centre = place(x, y)
        circle = element(
            "circle",
            element("title", f"{name}: {x:.4g}, {y:.4g}"),
            cx=f"{centre[0]:.1f}",
            cy=f"{centre[1]:.1f}",
            r=5,
            class_="point",
        )
        parts.append(element("g", circle, class_=f"c{number % COLOURS}"))
    picture = element(
        "svg",
        *parts,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"{title}: {', '.join(name for name, _, _ in points)}",
    )
    note = f"across: {across}; up: {down}"
    caption = element("figcaption", element("b", title), element("span", note))
    names = [(f"c{number % COLOURS}", "dot", point[0]) for number, point in enumerate(points)]
    return element("figure", caption, legend(names), picture)


def _drawn(line: Line, across, down, chosen: float | None, marks: bool) -> list[Markup]:
    """The parts of one curve."""
    parts = []
    stretches = _stretches(line)
    if any(low < high for stretch in stretches for _, low, _, high in stretch):
        for stretch in stretches:
            forth = [f"{across(x):.1f},{down(high):.1f}" for x, _, _, high in stretch]
            back = [f"{across(x):.1f},{down(low):.1f}" for x, low, _, _ in reversed(stretch)]
            parts.append(element("polygon", points=" ".join(forth + back), class_="band"))
    for stretch in stretches:
        points = " ".join(f"{across(x):.1f},{down(mean):.1f}" for x, _, mean, _ in stretch)
        style = "line dashed" if line.dashed else "line"
        parts.append(element("polyline", points=points, class_=style))
    if marks and not line.dashed:
        for x, y in zip(line.x, line.y, strict=True):
            if is_number(y):
                is_chosen = x == chosen
                parts.append(
                    element(
                        "circle",
                        element("title", f"{line.name}, {short(x)}: {y:.4g}"),
                        cx=f"{across(x):.1f}",
                        cy=f"{down(y):.1f}",
                        r=4.5 if is_chosen else 3,
                        class_="point chosen" if is_chosen else "point",
                    )
                )
    return parts


def _stretches(line: Line) -> list[list[tuple[float, float, float, float]]]:
    """(x, least, mean, most) without gaps, in at most about :data:`MOST_POINTS` points."""
    size = math.ceil(len(line.x) / MOST_POINTS)
    stretches: list[list[tuple[float, float, float, float]]] = [[]]
    for begin in range(0, len(line.x), size):
        values = _numbers(line.y[begin : begin + size])
        if values:
            places = line.x[begin : begin + size]
            centre = sum(places) / len(places)
            mean = math.fsum(values) / len(values)
            stretches[-1].append((centre, min(values), mean, max(values)))
        elif stretches[-1]:
            stretches.append([])
    return [stretch for stretch in stretches if stretch]


def _summary(line: Line) -> str:
    values = [value for value in line.y if is_number(value)]
    return f"{line.name} from {values[0]:.4g} to {values[-1]:.4g}"


def scatter(
    title: str,
    note: str,
    points: Sequence[Point],
    names: Sequence[str],
    ordered: bool = False,
    rest: str = "",
) -> Markup:
    """A map of points in groups; one unit is as long across as down.

    Args:
        title: what is shown.
        note: a word more.
        points: at least one.
        names: of the groups.
        ordered: whether the groups have an order, which their colours then show.
        rest: name of the points in none of the groups; they lie below the others.
    """
    names = [shortened(name, 40) for name in names]
    horizontal = [point.x for point in points]
    vertical = [point.y for point in points]
    centre = (min(horizontal) + max(horizontal)) / 2, (min(vertical) + max(vertical)) / 2
    wide, tall = max(horizontal) - min(horizontal), max(vertical) - min(vertical)
    scale = (MAP_SIZE - 24) / max(wide, tall, 1e-12)
    # Flat clouds get a flat picture.
    height = max(round(tall * scale) + 24, MAP_SIZE // 2)
    letter = "s" if ordered else "g"
    circles = []
    for point in sorted(points, key=lambda point: point.group >= 0):
        circles.append(
            element(
                "circle",
                element("title", shortened(point.text, 200)),
                cx=f"{MAP_SIZE / 2 + (point.x - centre[0]) * scale:.1f}",
                cy=f"{height / 2 - (point.y - centre[1]) * scale:.1f}",
                r=2.6,
                class_="rest" if point.group < 0 else f"{letter}{point.group}",
            )
        )
    picture = element(
        "svg",
        element("g", *circles, class_="dots"),
        viewBox=f"0 0 {MAP_SIZE} {height}",
        role="img",
        aria_label=f"{title}: {len(points)} points in the groups {', '.join(names)}",
    )
    caption = element("figcaption", element("b", title), element("span", note))
    entries = [(f"{letter}{number}", "dot", name) for number, name in enumerate(names)]
    entries += [("rest", "dot", shortened(rest, 40))] if rest else []
    return element("figure", caption, legend(entries), picture)


def legend(entries: Sequence[tuple[str, str | None, str]]) -> Markup:
    """(colour, shape of the sign, name) of each entry."""
    items = [
        element("li", element("span", element("i", class_=shape), class_=colour), name)
        for colour, shape, name in entries
    ]
    return element("ul", *items, class_="legend")


def ticks(low: float, high: float, count: int, whole: bool = False) -> list[float]:
    """Round numbers within a range, about ``count``.

    Args:
        low, high: of the range, low < high.
        count: how many are wished for.
        whole: whether they must be integers.
    """
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    if whole:
        step = max(step, 1.0)
    begin, end = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(begin, end + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers 1, 2, 5, 10, 20 ... within a range of positive numbers; at most about six."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    found = [tick for tick in found if low <= tick <= high]
    return found if len(found) <= 6 else found[:: math.ceil(len(found) / 6)]


def short(value: float) -> str:
    """A number as an axis prints it."""
    if value == 0:
        return "0"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            size = 1e3 if letter == "k" else size
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def _widened(low: float, high: float) -> tuple[float, float]:
    """A range with a little room; one around a single value where there is only one."""
    room = (high - low) * 0.06 or max(abs(high) * 0.1, 0.5)
    return low - room, high + room


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value of a log can be drawn."""
    # A log of a stranger may hold numbers whose differences are no longer finite.
    return is_finite(value) and abs(value) < LARGEST


def _numbers(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None and is_number(value)]
