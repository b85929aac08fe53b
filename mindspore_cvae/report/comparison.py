"""Several runs side by side on one page: numbers, paired differences, curves, one interpolation.

Every number is of a run's own files; only the interpolation needs the models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mindspore_cvae import __version__
from mindspore_cvae.common.files import write_atomically
from mindspore_cvae.common.numbers import signed_with_error, standard_error
from mindspore_cvae.config.keys import Config
from mindspore_cvae.errors import InputError, typed
from mindspore_cvae.evaluation.columns import COLUMNS, PAPER, UNSOUND, VALID, Column, style_of
from mindspore_cvae.report.charts import COLOURS, Line, line_chart, plane
from mindspore_cvae.report.page import FOLDER, fill
from mindspore_cvae.report.sections import shown
from mindspore_cvae.runs import folder as runs_folder

TEMPLATE = FOLDER / "comparison.html"
PAIRED = ("iw_nll", "neg_elbo_valid")
"""Columns whose differences are taken sentence by sentence, where both runs have them."""
CURVES = (
    ("IW-NLL", "nats a sentence, validation", "iw_nll"),
    ("valid -ELBO", "nats a sentence, validation", "neg_elbo_valid"),
    ("-ELBO", "the paper's estimator, validation", "neg_elbo"),
    ("exact MI", "nats, validation", "mi_exact"),
    ("MI", "the paper's estimator, validation", "mi"),
    ("KL", "the paper's estimator, validation", "kl"),
)
"""Charts over epochs: title, note, key of the log's validation rows."""
SAME = ("split", "max_sentences", "text")
"""Keys of metrics that must agree for numbers to be of the same sentences."""


class Entry(NamedTuple):
    """What is read of a run."""

    name: str
    folder: Path
    config: Config
    metrics: Mapping
    log: Sequence[Mapping]
    sentences: Mapping[str, Sequence[str]]


def read_entry(folder: str | Path, split: str) -> Entry:
    """A run with its metrics of a split.

    Raises:
        InputError: The folder is no run, or the split was not evaluated.
    """
    folder = Path(folder)
    config = runs_folder.read_config(folder)
    metrics = runs_folder.read_metrics(folder, runs_folder.metrics_name(split))
    if not metrics:
        raise InputError(
            f"{folder} has no metrics of the {split} split: python eval.py --run {folder} "
            f"--split {split} --iw_samples 128 makes them"
        )
    sentences = runs_folder.read_sentences(folder / runs_folder.sentences_name(split))
    log = [row for row in runs_folder.log_rows(folder) if row.get("event") != "step"]
    return Entry(folder.resolve().name, folder, config, metrics, log, sentences)


def paired_difference(first: Entry, other: Entry) -> dict[str, Any] | None:
    """The mean over sentences of other - first, in the first of :data:`PAIRED` that both have, with
    its standard error: sentences are as hard for one model as for another, so that the error of a
    difference is much smaller than that of either mean. None where they have none in common."""
    for key in PAIRED:
        found = difference(first.sentences, other.sentences, key)
        if found is not None:
            return {"key": key, **found}
    return None


def difference(
    first: Mapping[str, Sequence[str]], other: Mapping[str, Sequence[str]], key: str
) -> dict[str, Any] | None:
    """``mean``, ``error`` and ``sentences`` of other - first in a column of
    :func:`runs.folder.read_sentences`; None where they have no sentences in common."""
    both = [_numbers(columns.get(key, ())) for columns in (first, other)]
    lines = [list(columns.get("line", ())) for columns in (first, other)]
    count = min(len(values) for values in both)
    if count < 2 or lines[0][:count] != lines[1][:count]:
        return None
    values = both[1][:count] - both[0][:count]
    error = float(standard_error(values))
    return {"mean": float(values.mean()), "error": error, "sentences": count}


def _numbers(texts: Sequence[str]) -> np.ndarray:
    """Texts of a column as numbers; none where one of them is no number."""
    try:
        return np.array([float(text) for text in texts])
    except ValueError:
        return np.zeros(0)


def write_comparison(
    runs: Sequence[str | Path],
    output: str | Path,
    split: str = "test",
    interpolate: Callable[[Entry], tuple[str, str, list[str]] | None] | None = None,
) -> Path:
    """Write the page.

    Args:
        runs: folders of two runs or more; differences are from the first.
        output: the file.
        split: whose metrics are compared.
        interpolate: gives two sentences and what a run decodes between them, None for a run that
            cannot; None leaves the section out.

    Returns:
        The file's path.

    Raises:
        InputError: A folder is no run, was not evaluated, or was on other sentences or units.
    """
    entries = [read_entry(folder, split) for folder in runs]
    first = entries[0]
    for entry in entries[1:]:
        units = [each.config.data.unit for each in (entry, first)]
        if units[0] != units[1]:
            raise InputError(
                f"{entry.folder} is of another data.unit than {first.folder} ({units[0]} and "
                f"{units[1]}): compare what `{typed('eval')}` says a word or a character"
            )
        for key in SAME:
            if entry.metrics.get(key) != first.metrics.get(key):
                raise InputError(
                    f"{entry.folder} was evaluated on other sentences than {first.folder} ({key} "
                    f"differs: {entry.metrics.get(key)} and {first.metrics.get(key)}): their "
                    "numbers cannot be compared"
                )
    text = fill(contents(entries, split, interpolate), TEMPLATE)
    write_atomically(Path(output), text.encode("utf-8", "replace"))
    return Path(output)


def contents(
    entries: Sequence[Entry],
    split: str,
    interpolate: Callable[[Entry], tuple[str, str, list[str]] | None] | None = None,
) -> dict[str, Any]:
    """What the template prints: ``title``, ``split``, ``names``, ``groups`` of rows of the table,
    ``differences``, ``charts``, ``paths``, ``version``."""
    made = [] if interpolate is None else [(entry.name, interpolate(entry)) for entry in entries]
    keys = ("first", "last", "texts")
    paths = [{"name": name, **dict(zip(keys, path, strict=True))} for name, path in made if path]
    names = [entry.name for entry in entries]
    return {
        "title": " \N{MIDDLE DOT} ".join(names),
        "split": split,
        "names": names,
        "systems": [entry.config.system for entry in entries],
        "groups": [
            {"title": title, "rows": _rows(columns, entries)}
            for title, columns in (("The paper's estimators", PAPER), ("Valid columns", VALID))
        ],
        "differences": _differences(entries),
        "charts": _charts(entries),
        "paths": paths,
        "version": __version__,
    }


def _rows(columns: Sequence[Column], entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """A row a column: the value of each run, the better one marked where all of them hold."""
    rows = []
    for column in columns:
        values = [entry.metrics.get(column.key) for entry in entries]
        texts = [shown(value) for value in values]
        if not any(texts):
            continue
        standings = [column.standing_of(entry.config.slots) for entry in entries]
        found = [value for value in values if value is not None and shown(value) is not None]
        best = None
        if column.better and len(found) > 1 and not set(standings) & set(UNSOUND):
            best = (max if column.better == "up" else min)(found)
        errors = [shown(entry.metrics.get(f"{column.key}_error")) for entry in entries]
        cells = [
            {
                "text": text or "\N{EN DASH}",
                "error": error,
                "standing": standing,
                "style": style_of(standing),
                "is_best": best is not None and value == best,
            }
            for value, text, error, standing in zip(values, texts, errors, standings, strict=True)
        ]
        rows.append({"title": column.title, "cells": cells})
    return rows


def _differences(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    differences = []
    for entry in entries[1:]:
        found = paired_difference(entries[0], entry)
        if found is not None:
            differences.append(
                {
                    "name": entry.name,
                    "title": COLUMNS[found["key"]].title,
                    "text": signed_with_error(found["mean"], found["error"]),
                    "sentences": f"{found['sentences']:,}",
                }
            )
    return differences


def _charts(entries: Sequence[Entry]) -> list[Any]:
    """Curves over each other, and MI against IW-PPL with a point a run."""
    charts = []
    for title, note, key in CURVES:
        lines = []
        for entry in entries[:COLOURS]:
            rows = [row for row in entry.log if row.get("event") == "valid"]
            rows = [row for row in rows if isinstance(row.get("epoch"), int)]
            found = {row["epoch"]: row.get(key) for row in rows}
            epochs = sorted(found)
            lines.append(Line(entry.name, epochs, [found[epoch] for epoch in epochs]))
        charts.append(line_chart(title, note, lines, None, True, False))
    points = []
    for entry in entries:
        information, perplexity = entry.metrics.get("mi_exact"), entry.metrics.get("iw_ppl")
        if entry.config.slots.posterior == "none":
            information = 0.0
        if isinstance(information, float) and isinstance(perplexity, float):
            points.append((entry.name, information, perplexity))
    charts.append(plane("exact MI and IW-PPL", points, "exact MI, nats", "IW-PPL, lower is better"))
    return [chart for chart in charts if chart is not None]
