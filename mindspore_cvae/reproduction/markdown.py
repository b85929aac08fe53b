"""An exhibit as Markdown: the paper's numbers and ours side by side."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from mindspore_cvae.common.numbers import signed_with_error
from mindspore_cvae.evaluation.columns import Column
from mindspore_cvae.reproduction.collecting import negative_epochs, shown
from mindspore_cvae.reproduction.paper import TEST_SENTENCES, TRAINING_SENTENCES, Exhibit

MARKS = {
    "\N{DAGGER}": "above ln N of the test split, which no MI of its N sentences can be",
    "\N{DOUBLE DAGGER}": "above ln N even of the training split",
}
"""What the signs beside the paper's numbers say."""
ARROWS = {"up": "\N{UPWARDS ARROW}", "down": "\N{DOWNWARDS ARROW}", "": ""}


def markdown(document: Mapping, exhibit: Exhibit) -> str:
    """The page of an exhibit.

    Args:
        document: from :func:`reproduction.collecting.collect`.
        exhibit: the table or figure.
    """
    name = exhibit.name.replace("-", " ").capitalize()
    parts = [f"# {name}: {exhibit.title}", *_preface(document, exhibit)]
    body = {"interpolation": _interpolations, "epochs": _epochs}.get(exhibit.kind, _numbers)
    parts += body(document, exhibit)
    if any(row["ours"] or row.get("curves") or row.get("texts") for row in document["rows"]):
        parts.append(f"![{name}]({exhibit.name}.png)")
    if document["unfinished"]:
        lines = "\n".join(f"- {_cell(line)}" for line in document["unfinished"])
        parts.append(f"Not finished:\n\n{lines}")
    return "\n\n".join(parts) + "\n"


def _preface(document: Mapping, exhibit: Exhibit) -> list[str]:
    settings = document["settings"]
    seeds = ", ".join(map(str, settings["seeds"]))
    lines = [f"Paper: {document['source']}. Ours: {_cell(settings['trained_on'])}; seeds {seeds}."]
    if len(settings["seeds"]) > 1:
        lines.append("Mean \N{PLUS-MINUS SIGN} sample standard deviation over seeds.")
    if not settings["is_comparable"]:
        lines.append(
            "The paper trained on other data or sizes: its numbers stand here for orientation, not "
            "for comparison."
        )
    if exhibit.kind in ("metrics", "sweep", "epochs"):
        lines.append(
            "The paper's columns keep its estimators; where critics estimate the KL, they bound "
            "nothing. The exact and importance-weighted columns do (`mindspore-cvae columns`)."
        )
    if exhibit.note:
        lines.append(exhibit.note)
    made = {
        ", ".join(f"{key} {run[key]}" for key in ("version", "device", "precision") if key in run)
        for row in document["rows"]
        for run in row["runs"].values()
    } - {""}
    if made:
        lines.append(f"Made with {_cell('; '.join(sorted(made)))}.")
    return [" ".join(lines)]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _numbers(document: Mapping, exhibit: Exhibit) -> list[str]:
    """A line a row: the paper's numbers, ours beside them, and what the paper lacks."""
    rows = document["rows"]
    has_groups = any(row["group"] for row in rows)
    has_notes = any(row["note"] for row in rows)
    valid = [column for column in exhibit.valid if any(column.key in row["ours"] for row in rows)]
    head = ["", ""] if has_groups else [""]
    for column in exhibit.columns:
        head += [f"{column.title}{ARROWS[column.better]}, paper", "ours"]
    head += [column.title for column in valid]
    has_differences = any(row.get("iw_nll_to_vae") for row in rows)
    head += ["IW-NLL to VAE, paired"] if has_differences else []
    head += ["the paper says"] if has_notes else []
    lines = []
    before = None
    for row in rows:
        line = [row["group"] if row["group"] != before else ""] if has_groups else []
        before = row["group"]
        line.append(_cell(row["name"]))
        for column in exhibit.columns:
            value = row["paper"].get(column.key)
            line += [_paper(value, column) + mark(value, column, row["dataset"])]
            line += [shown(row["ours"].get(column.key), column)]
        line += [shown(row["ours"].get(column.key), column) for column in valid]
        line += [_difference(row["iw_nll_to_vae"])] if has_differences else []
        line += [row["note"]] if has_notes else []
        lines.append(line)
    marks = {sign for line in lines for cell in line for sign in MARKS if cell.endswith(sign)}
    notes = [f"{sign} {MARKS[sign]}" for sign in MARKS if sign in marks]
    return [_table(head, lines), *(["; ".join(notes) + "."] if notes else [])]


def _difference(found: Mapping[str, float] | None) -> str:
    """A mean over sentences with its standard error; nothing where there is none."""
    return "" if found is None else signed_with_error(found["mean"], found["error"])


def mark(value: float | None, column: Column, dataset: str) -> str:
    """A sign of :data:`MARKS` for a printed MI that no model can have: with Q(x) the empirical
    distribution of N sentences, I(x, z) is at most ln N."""
    if value is None or column.key != "mi" or dataset not in TRAINING_SENTENCES:
        return ""
    if value > math.log(TRAINING_SENTENCES[dataset]):
        return "\N{DOUBLE DAGGER}"
    return "\N{DAGGER}" if value > math.log(TEST_SENTENCES[dataset]) else ""


def _paper(value: float | None, column: Column) -> str:
    if value is None:
        return ""
    # As printed, up to zeros at the end.
    return f"{value:,.{column.digits}f}" if column.digits == 0 else f"{value:,g}"


def _epochs(document: Mapping, exhibit: Exhibit) -> list[str]:
    """A table by epoch, and what the paper observed in its curves against ours."""
    rows = document["rows"]
    said = []
    for row in rows:
        ours = [
            f"{column.title} negative at epochs {', '.join(map(str, epochs))}"
            if (epochs := negative_epochs(row["curves"], column.key))
            else f"no negative {column.title}"
            for column in exhibit.columns
            if column.key in row["curves"]
        ]
        said.append([_cell(row["name"]), row["note"], "; ".join(ours)])
    columns = [
        (row, column)
        for column in (*exhibit.columns, *exhibit.valid)
        for row in rows
        if column.key in row["curves"]
    ]
    epochs = sorted({int(e) for row in rows for curve in row["curves"].values() for e in curve})
    lines = [
        [
            str(epoch),
            *(shown(row["curves"][column.key].get(str(epoch)), column) for row, column in columns),
        ]
        for epoch in epochs
    ]
    head = ["epoch", *(f"{_cell(row['name'])} {column.title}" for row, column in columns)]
    observed = _table(["", "the paper says", "ours"], said)
    return [observed, _table(head, lines)] if lines else [observed]


def _interpolations(document: Mapping, exhibit: Exhibit) -> list[str]:
    """Sentences by the weight of the first; the paper's own are in its table."""
    parts = []
    for row in document["rows"]:
        for seed, texts in row["texts"].items():
            lines = [[f"{text.get('lambda', 0):g}", _cell(text.get("sentence"))] for text in texts]
            table = _table(["\N{GREEK SMALL LETTER LAMDA}", "sentence"], lines)
            parts += [f"{_cell(row['name'])}, seed {seed}:", table]
    return parts


def _cell(text: object) -> str:
    """A text as it may stand in a table: nothing in it is Markdown or HTML."""
    plain = re.sub(r"\s+", " ", str(text)).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*\[\]|#!])", r"\\\1", plain)
