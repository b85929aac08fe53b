"""Exhibits as PNG, by matplotlib."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mindspore_cvae.evaluation.columns import Column
from mindspore_cvae.reproduction.paper import Exhibit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#2f6db5", "#d9722e", "#3b9156", "#b0407f", "#7a63c7", "#8c7a1f")
PAPER_COLOUR = "#555555"
FAR_APART = 20.0
"""Ratio of the largest to the least number from which a scale becomes logarithmic."""


def plot(document: Mapping, exhibit: Exhibit) -> bytes | None:
    """An exhibit's picture.

    Args:
        document: from :func:`reproduction.collecting.collect`.
        exhibit: the table or figure; the toy draws its own.

    Returns:
        PNG; None where there is nothing of ours to show.
    """
    from matplotlib import rc_context

    draw = {"epochs": _epochs, "sweep": _sweep, "interpolation": _texts}.get(exhibit.kind, _rows)
    style: dict[Any, Any] = {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "axes.grid": True,
        "grid.alpha": 0.3,
    }
    with rc_context(style):
        figure = draw(document, exhibit)
        if figure is None:
            return None
        content = io.BytesIO()
        figure.savefig(content, dpi=130, format="png", bbox_inches="tight")
    return content.getvalue()


def _figure(width: float, height: float) -> Figure:
    """An empty figure, in inches; not pyplot's, which would open the screen's backend."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def _rows(document: Mapping, exhibit: Exhibit) -> Figure | None:
    """A panel a column, the paper's above and the valid ones below; a line a row of the table."""
    rows = document["rows"]
    parts = [
        [column for column in columns if any(column.key in row["ours"] for row in rows)]
        for columns in (exhibit.columns, exhibit.valid)
    ]
    parts = [columns for columns in parts if columns]
    if not parts:
        return None
    wide = max(map(len, parts))
    tall = 0.7 + 0.26 * len(rows)
    figure = _figure(1.7 + 1.7 * wide, 0.6 + tall * len(parts))
    axes = figure.subplots(len(parts), wide, sharey=True, squeeze=False)
    places = list(range(len(rows), 0, -1))
    for cells, columns in zip(axes, parts, strict=True):
        for cell in cells[len(columns) :]:
            cell.set_visible(False)
        for cell, column in zip(cells, columns, strict=False):
            _panel(cell, rows, places, column, exhibit.kind == "ngram")
    names = [f"{row['group']}  {row['name']}".strip() for row in rows]
    axes[0][0].set_yticks(places, _plain(names))
    axes[0][0].set_ylim(0.4, len(rows) + 0.6)
    figure.suptitle(f"{_title(exhibit)}\nopen: paper; filled: ours", fontsize=10)
    figure.tight_layout()
    return figure


def _panel(cell, rows, places, column: Column, may_be_logarithmic: bool) -> None:
    """A column: the paper's number as a diamond, ours as a dot with its spread."""
    paired = list(zip(rows, places, strict=True))
    paper = [(row["paper"][column.key], y) for row, y in paired if column.key in row["paper"]]
    ours = [(row["ours"][column.key], y) for row, y in paired if column.key in row["ours"]]
    if paper:
        cell.plot(*zip(*paper, strict=True), "D", ms=5, mfc="none", color=PAPER_COLOUR)
    cell.errorbar(
        [entry["mean"] for entry, _ in ours],
        [place for _, place in ours],
        xerr=[entry["spread"] or 0.0 for entry, _ in ours],
        fmt="o",
        ms=5,
        color=COLOURS[0],
    )
    values = [value for value, _ in paper] + [entry["mean"] for entry, _ in ours]
    cell.margins(x=0.15)
    if may_be_logarithmic and min(values) > 0 and max(values) / min(values) > FAR_APART:
        cell.set_xscale("log")
    else:
        cell.locator_params(axis="x", nbins=4)
    cell.set_title(column.title)
    cell.tick_params(axis="x", labelsize=8)


def _title(exhibit: Exhibit) -> str:
    return f"{exhibit.name.replace('-', ' ').capitalize()}: {exhibit.title}"


def _plain(names: list[str]) -> list[str]:
    """Texts in which matplotlib finds no formula."""
    return [name.replace("$", r"\$") for name in names]


def _epochs(document: Mapping, exhibit: Exhibit) -> Figure | None:
    """A panel a column of the paper, a curve a row; what is exact is dashed."""
    rows = [row for row in document["rows"] if row["curves"]]
    if not rows:
        return None
    figure = _figure(10, 3.6)
    axes = figure.subplots(1, len(exhibit.columns), squeeze=False)
    for cell, column, exact in zip(axes[0], exhibit.columns, exhibit.valid, strict=True):
        highest = 0.0
        for row, colour in zip(rows, COLOURS, strict=False):
            curve = row["curves"].get(column.key, {})
            epochs = [int(epoch) for epoch in curve]
            means = [entry["mean"] for entry in curve.values()]
            cell.plot(epochs, means, "o-", ms=3, color=colour, label=_plain([row["name"]])[0])
            lowest = [min(entry["values"].values()) for entry in curve.values()]
            most = [max(entry["values"].values()) for entry in curve.values()]
            cell.fill_between(epochs, lowest, most, color=colour, alpha=0.2, linewidth=0)
            highest = max([highest, *map(abs, lowest), *map(abs, most)])
            known = row["curves"].get(exact.key, {})
            means = [entry["mean"] for entry in known.values()]
            cell.plot([int(epoch) for epoch in known], means, "--", color=colour, linewidth=1)
            highest = max([highest, *map(abs, means)])
        if highest > 30:
            # Both the estimates, which may be negative, and exact values far above them.
            cell.set_yscale("symlog", linthresh=10)
        cell.axhline(0, color="black", linewidth=0.7)
        cell.set_title(f"{column.title} by epoch (dashed: exact)")
        cell.set_xlabel("epoch")
    axes[0][0].legend(frameon=False)
    figure.suptitle(_title(exhibit), fontsize=10)
    figure.tight_layout()
    return figure


def _sweep(document: Mapping, exhibit: Exhibit) -> Figure | None:
    """A panel a column of the paper, over the rows; what is valid is dashed."""
    rows = [row for row in document["rows"] if row["ours"]]
    if not rows:
        return None
    partners = {"neg_elbo": "neg_elbo_valid", "ppl": "iw_ppl"}
    titles = {column.key: column.title for column in (*exhibit.columns, *exhibit.valid)}
    figure = _figure(10, 3.4)
    axes = figure.subplots(1, len(exhibit.columns), squeeze=False)
    for cell, column in zip(axes[0], exhibit.columns, strict=True):
        for key, style in ((column.key, "o-"), (partners[column.key], "s--")):
            there = [row for row in rows if key in row["ours"]]
            if there:
                cell.errorbar(
                    [float(row["name"]) for row in there],
                    [row["ours"][key]["mean"] for row in there],
                    yerr=[row["ours"][key]["spread"] or 0.0 for row in there],
                    fmt=style,
                    ms=4,
                    color=COLOURS[0] if style == "o-" else COLOURS[1],
                    label=titles[key],
                )
        paper = [row for row in document["rows"] if column.key in row["paper"]]
        cell.plot(
            [float(row["name"]) for row in paper],
            [row["paper"][column.key] for row in paper],
            "D",
            mfc="none",
            color=PAPER_COLOUR,
            label="paper",
        )
        cell.set_title(column.title)
        cell.set_xlabel("encoder dropout")
        cell.legend(frameon=False)
    figure.suptitle(_title(exhibit), fontsize=10)
    figure.tight_layout()
    return figure


def _texts(document: Mapping, exhibit: Exhibit) -> Figure | None:
    """The lines of an interpolation."""
    lines = []
    for row in document["rows"]:
        for seed, texts in row["texts"].items():
            lines.append((f"{row['name']}, seed {seed}", ""))
            for text in texts:
                lines.append((f"{text.get('lambda', 0):.1f}", str(text.get("sentence"))[:110]))
    if not lines:
        return None
    figure = _figure(9, 0.4 + 0.24 * len(lines))
    for number, (weight, text) in enumerate(lines):
        height = 1 - (number + 0.5) / len(lines)
        left, right = _plain([weight, text])
        figure.text(0.02, height, left, color=PAPER_COLOUR, fontsize=9, va="center")
        figure.text(0.09, height, right, fontsize=9, va="center", family="serif")
    figure.suptitle(_title(exhibit), fontsize=10, y=1.05)
    return figure
