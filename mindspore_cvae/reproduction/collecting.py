"""From finished runs to the numbers of an exhibit: the paper's and ours, mean and spread."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mindspore_cvae.common.numbers import is_finite
from mindspore_cvae.evaluation.columns import Column
from mindspore_cvae.report.comparison import difference
from mindspore_cvae.reproduction.jobs import Job, training_of
from mindspore_cvae.reproduction.paper import PAPER, Exhibit, Row
from mindspore_cvae.reproduction.stages import KINDS, Wanted, interpolation, test_metrics
from mindspore_cvae.runs import folder

Summary = dict[str, Any]
"""``mean``; ``spread``, the sample standard deviation (None of a single run); ``values``, by
seed."""


def summary(values: Mapping[int, float]) -> Summary:
    """Mean and spread over seeds, of which there is one or more."""
    numbers = list(values.values())
    return {
        "mean": math.fsum(numbers) / len(numbers),
        "spread": statistics.stdev(numbers) if len(numbers) > 1 else None,
        "values": {str(seed): value for seed, value in values.items()},
    }


def collect(exhibit: Exhibit, jobs: Mapping[Row, Sequence[Job]], settings: Mapping) -> dict:
    """What is there of an exhibit.

    Args:
        exhibit: the table or figure.
        jobs: of each row that is wanted, one a seed.
        settings: how the runs were made, to be written beside the numbers.

    Returns:
        A document for JSON: ``exhibit``, ``title``, ``source``, ``settings``; ``rows``, each with
        ``name``, ``group``, ``note``, ``system``, ``paper`` and ``ours`` (:data:`Summary` by
        column), ``iw_nll_to_vae`` (over pairs of sentences), ``curves`` (by column and epoch) or
        ``texts`` (by seed) where its kind has them, and ``runs`` by seed; ``unfinished``,
        sentences.

    Raises:
        InputError: A run was made with other settings.
    """
    rows, unfinished = [], {}
    kind, wanted = KINDS[exhibit.kind], Wanted(generated=settings.get("generated"))
    for row, row_jobs in jobs.items():
        states = {job: training_of(job) for job in row_jobs}
        done = [job for job in row_jobs if states[job].is_complete]
        ready = [job for job in done if kind.is_there(job, wanted)]
        for job in row_jobs:
            if job not in done:
                state = states[job]
                said = f"trained to {state.share:.0%}" if state.is_begun else "not begun"
                unfinished[job.name] = f"{job.name}: {said}"
            elif job not in ready:
                unfinished[job.name] = f"{job.name}: trained, not evaluated"
        entry: dict[str, Any] = {
            "name": row.name,
            "group": row.group,
            "note": row.note,
            "system": row.run.system,
            "dataset": row.run.dataset,
            "paper": dict(row.paper),
            "ours": _columns(ready, exhibit),
            "runs": {str(job.seed): _provenance(job) for job in row_jobs if job in done},
        }
        if any(column.key == "iw_nll" for column in exhibit.valid):
            entry["iw_nll_to_vae"] = _to_vae(row, jobs)
        if exhibit.kind == "epochs":
            entry["curves"] = _curves([job for job in row_jobs if states[job].is_begun], exhibit)
        if exhibit.kind == "interpolation":
            entry["texts"] = {str(job.seed): interpolation(job) for job in ready}
        rows.append(entry)
    return {
        "exhibit": exhibit.name,
        "title": exhibit.title,
        "source": f"{PAPER}, {exhibit.name.replace('-', ' ').capitalize()}",
        "settings": dict(settings),
        "rows": rows,
        "unfinished": list(unfinished.values()),
    }


def _columns(jobs: Iterable[Job], exhibit: Exhibit) -> dict[str, Summary]:
    results = {job.seed: KINDS[exhibit.kind].numbers(job) for job in jobs}
    columns = {}
    for column in (*exhibit.columns, *exhibit.valid):
        values = {
            seed: float(result[column.key])
            for seed, result in results.items()
            if is_finite(result.get(column.key))
        }
        # A seed that never reached the mark makes the mean of the others a lie.
        if values and (len(values) == len(results) or column.key != "iterations_to_99"):
            columns[column.key] = summary(values)
    return columns


def _to_vae(row: Row, jobs: Mapping[Row, Sequence[Job]]) -> dict[str, float] | None:
    """``mean`` and standard ``error`` of IW-NLL to the row of ``vae`` on the same corpus, over the
    same sentences of each seed, the mean of the seeds that both have; None where none has."""
    yardsticks = [
        other
        for other in jobs
        if other.run.system == "vae" and other.run.dataset == row.run.dataset
    ]
    if row in yardsticks or not yardsticks:
        return None
    others = {job.seed: _sentences(job) for job in jobs[yardsticks[0]]}
    found = [
        pair
        for job in jobs[row]
        if job.seed in others
        and (pair := difference(others[job.seed], _sentences(job), "iw_nll")) is not None
    ]
    if not found:
        return None
    return {
        "mean": math.fsum(pair["mean"] for pair in found) / len(found),
        "error": math.hypot(*(pair["error"] for pair in found)) / len(found),
    }


def _sentences(job: Job) -> dict[str, list[str]]:
    if not test_metrics(job):
        return {}
    return folder.read_sentences(job.folder / folder.sentences_name("test"))


def _curves(jobs: Iterable[Job], exhibit: Exhibit) -> dict[str, dict[str, Summary]]:
    """By column, then by epoch."""
    validations: dict[int, dict[int, dict]] = {}
    for job in jobs:
        for row in folder.log_rows(job.folder):
            if row.get("event") == "valid" and isinstance(row.get("epoch"), int):
                validations.setdefault(row["epoch"], {})[job.seed] = row
    curves: dict[str, dict[str, Summary]] = {}
    for column in (*exhibit.columns, *exhibit.valid):
        for epoch in sorted(validations):
            values = {
                seed: float(row[column.key])
                for seed, row in validations[epoch].items()
                if is_finite(row.get(column.key))
            }
            if values:
                curves.setdefault(column.key, {})[str(epoch)] = summary(values)
    return curves


def _provenance(job: Job) -> dict:
    """Where a run lies and what it ran on."""
    known: dict[str, Any] = {"folder": str(job.folder)}
    if job.config is None:
        return known
    # As a rule the first row, so that the log is read whole only once.
    rows = (row for row in folder.log_rows(job.folder) if row.get("event") == "start")
    start = next(rows, {})
    known |= {key: start[key] for key in ("device", "precision", "version") if key in start}
    seconds = folder.training_seconds(folder.log_rows(job.folder))
    return known | ({"seconds": seconds} if seconds else {})


def negative_epochs(curves: Mapping[str, Mapping[str, Summary]], key: str) -> list[int]:
    """Epochs at which a column of a curve is below zero for some seed."""
    return [
        int(epoch)
        for epoch, entry in curves.get(key, {}).items()
        if min(entry["values"].values()) < 0
    ]


def shown(entry: Summary | None, column: Column) -> str:
    """A summary as a table prints it: mean, and spread where there are several."""
    if entry is None:
        return ""
    text = f"{entry['mean']:,.{column.digits}f}"
    spread = entry["spread"]
    return text if spread is None else f"{text} \N{PLUS-MINUS SIGN} {spread:,.{column.digits}f}"
