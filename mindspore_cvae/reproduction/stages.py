"""What an exhibit reads of a trained run: whether it is there, its numbers, and what makes it.

Each kind of exhibit is a row of :data:`KINDS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mindspore_cvae.common.files import read_regular, write_atomically
from mindspore_cvae.config import options
from mindspore_cvae.data.corpus import load_corpus
from mindspore_cvae.data.vocabulary import Vocabulary
from mindspore_cvae.errors import InputError
from mindspore_cvae.evaluation.ngram import ORDER, PROTOCOLS, find_program
from mindspore_cvae.report.specimens import path_ends
from mindspore_cvae.reproduction.jobs import Job, is_same_place
from mindspore_cvae.runs import folder as runs_folder
from mindspore_cvae.toy.pictures import TOY_RESULT

PAIR = "interpolation.txt"
"""The two sentences between which a run interpolates."""


@dataclass(frozen=True)
class Wanted:
    """How results are to be made.

    Attributes:
        iw_samples: draws of the importance-weighted bound that the metrics must have; 0 takes any
            number, and none.
        generated: sentences that language models must have read; None for the protocols' own
            numbers.
    """

    iw_samples: int = 0
    generated: int | None = None


@dataclass(frozen=True)
class Stage:
    """A command of a job.

    Attributes:
        title: what it does.
        command: of :data:`reproduction.running.COMMANDS`.
        arguments: of the command.
    """

    title: str
    command: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Kind:
    """What exhibits of a kind read of a completed training besides its log.

    Attributes:
        is_there: whether it is there, made as the job's settings and the arguments say.
        numbers: its numbers, by the keys of an exhibit's columns.
        stage: the command that makes it; None where training has made it.
        prepare: writes what the command reads.
        require: raises InputError or ProgramError where this machine lacks what the command needs.
    """

    is_there: Callable[[Job, Wanted], bool] = lambda job, wanted: True
    numbers: Callable[[Job], dict] = lambda job: {}
    stage: Callable[[Job, Wanted], Stage | None] = lambda job, wanted: None
    prepare: Callable[[Job], None] = lambda job: None
    require: Callable[[], object] = lambda: None


def best_step(folder: Path) -> int | None:
    """Training steps behind the checkpoint that evaluations take: the best, else the last."""
    rows = [row for row in runs_folder.log_rows(folder) if row.get("event") == "valid"]
    best = [row for row in rows if row.get("best") is True]
    chosen = (best or rows)[-1:]
    return chosen[0].get("step") if chosen else None


def test_metrics(job: Job) -> dict:
    """The metrics of the test split by the checkpoint that is the best now; else an empty one."""
    metrics = runs_folder.read_metrics(job.folder, runs_folder.metrics_name("test"))
    return metrics if metrics and metrics.get("step") == best_step(job.folder) else {}


def interpolation_place(job: Job) -> Path:
    """The file of a job's interpolation by the checkpoint that is the best now."""
    return job.folder / f"interpolation-{best_step(job.folder)}.jsonl"


def interpolation(job: Job) -> list[dict]:
    """The rows of a job's interpolation; none where it was not made, or with older weights."""
    path = interpolation_place(job)
    try:
        rows = [json.loads(line) for line in read_regular(path).decode().splitlines()]
    except (OSError, ValueError, RecursionError):
        return []
    return rows if all(isinstance(row, dict) for row in rows) else []


def _has_metrics(job: Job, wanted: Wanted) -> bool:
    metrics, config = test_metrics(job), job.settings
    values: dict[str, object] = {
        "samples": config.eval.samples,
        "max_sentences": config.eval.max_sentences,
    }
    values |= {"precision": config.precision, "amp_level": config.model.amp_level}
    if wanted.iw_samples:
        values["iw_samples"] = wanted.iw_samples
    return _is_of(job, metrics) and _has(metrics, values)


def _is_of(job: Job, result: Mapping) -> bool:
    """Whether a result was made on the job's own text: by its content where that is known, else by
    its place."""
    corpus = runs_folder.trained_on(job.folder)
    if corpus is not None and "corpus" in result:
        return result["corpus"] == corpus
    return "data_dir" in result and is_same_place(result["data_dir"], job.settings.data.dir)


def _has(result: Mapping, values: Mapping) -> bool:
    return all(result.get(key) == value for key, value in values.items())


def _evaluation(job: Job, wanted: Wanted) -> Stage:
    importance = ("--iw_samples", str(wanted.iw_samples)) if wanted.iw_samples else ()
    # The run's own values may be those of another call.
    settings = [
        f"eval.{name}={options.shown(getattr(job.settings.eval, name))}"
        for name in ("samples", "max_sentences")
    ]
    return Stage("evaluation", "eval.py", (*_run(job), *importance, "--set", *settings))


def _run(job: Job) -> tuple[str, str]:
    return "--run", str(job.folder)


def _has_perplexities(job: Job, wanted: Wanted) -> bool:
    protocols = _protocols(job)
    values = {"n": wanted.generated, "order": ORDER, "seed": 0, "step": best_step(job.folder)}
    is_whole = protocols.keys() >= PROTOCOLS.keys() and all(
        _is_of(job, result) and _has(result, values) for result in protocols.values()
    )
    return is_whole


def _protocols(job: Job) -> dict[str, dict]:
    return runs_folder.read_metrics(job.folder, runs_folder.NGRAM).get("protocols") or {}


def _perplexities(job: Job) -> dict:
    return {
        f"{protocol}.{key}": value
        for protocol, result in _protocols(job).items()
        for key, value in result.items()
    }


def _language_models(job: Job, wanted: Wanted) -> Stage:
    count = ("--n", str(wanted.generated)) if wanted.generated else ()
    return Stage("5-gram language models", "-m mindspore_cvae ngram", (*_run(job), *count))


def _has_interpolation(job: Job, wanted: Wanted) -> bool:
    return bool(interpolation(job))


def _interpolating(job: Job, wanted: Wanted) -> Stage:
    places = ("--input", str(job.folder / PAIR), "--output", str(interpolation_place(job)))
    return Stage("interpolation", "generate.py", ("interpolate", *_run(job), *places, "--jsonl"))


def _write_pair(job: Job) -> None:
    write_atomically(job.folder / PAIR, "".join(f"{text}\n" for text in pair_of(job)))


def pair_of(job: Job) -> tuple[str, str]:
    """Two sentences of the test split, between which a run interpolates."""
    config = job.settings
    vocabulary = Vocabulary.load(job.folder / runs_folder.VOCABULARY, config.data.unit)
    split = load_corpus(config.data, vocabulary).test
    ends = path_ends(split.lengths)
    if not ends:
        raise InputError(f"{split.source}: an interpolation takes two sentences")
    first, last = (vocabulary.decode(split.sentences[index]) for index in ends[0])
    return first, last


_METRICS = Kind(_has_metrics, test_metrics, _evaluation)
KINDS = {
    "metrics": _METRICS,
    "sweep": _METRICS,
    "ngram": Kind(
        _has_perplexities, _perplexities, _language_models, require=partial(find_program, "lmplz")
    ),
    "interpolation": Kind(_has_interpolation, stage=_interpolating, prepare=_write_pair),
    "toy": Kind(numbers=lambda job: runs_folder.read_metrics(job.folder, TOY_RESULT)),
    "epochs": Kind(),
}
"""By the kind of an exhibit."""
