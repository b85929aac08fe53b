"""How far the runs of an experiment are, and how long the rest takes by the rate that was measured.

Everything is read from run folders as text; nothing here trains.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mindspore_cvae.config import layers as configuration
from mindspore_cvae.config import options as config_options
from mindspore_cvae.config.keys import Config
from mindspore_cvae.errors import InputError
from mindspore_cvae.reproduction.paper import Run
from mindspore_cvae.runs import checkpoints
from mindspore_cvae.runs import folder as runs_folder
from mindspore_cvae.toy.pictures import TOY_RESULT

COMPLETE = ("epochs", "max_steps", "patience")
"""Reasons for the end of a training that is whole."""


@dataclass(frozen=True)
class Job:
    """A run of an experiment with a seed.

    Attributes:
        run: what it is.
        seed: of the run.
        folder: where it lies, or will.
        config: what it is to be trained with; None for the toy.
        iterations: of the toy.
    """

    run: Run
    seed: int
    folder: Path
    config: Config | None
    iterations: int | None = None

    @property
    def settings(self) -> Config:
        """The configuration of a job that is not the toy's."""
        assert self.config is not None, f"{self.name} is a job of the toy"
        return self.config

    @property
    def length(self) -> int:
        """The iterations of a job of the toy."""
        assert self.iterations is not None, f"{self.name} is no job of the toy"
        return self.iterations

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.folder.name


@dataclass(frozen=True)
class Training:
    """How far a training is.

    Attributes:
        is_begun: whether there is anything.
        is_complete: whether it has ended as it was to end.
        epochs: that were validated.
        share: of the training that is done, 0 to 1.
    """

    is_begun: bool
    is_complete: bool
    epochs: int
    share: float


def training_of(job: Job) -> Training:
    """How far a job's training is.

    Raises:
        InputError: The folder holds a run with other settings.
    """
    if job.config is None:
        toy = runs_folder.read_metrics(job.folder, TOY_RESULT)
        there = toy.get("iterations", 0)
        if there > job.length:
            raise InputError(
                f"{job.folder}: {there} iterations were made there, and {job.length} are asked "
                "for now; give --iterations of the runs that are there, or another --output_dir"
            )
        is_complete = there == job.length
        done = max(checkpoints.steps(job.folder / runs_folder.CHECKPOINTS), default=0)
        share = 1.0 if is_complete else min(done / job.length, 1.0)
        return Training(is_complete or done > 0, is_complete, 0, share)
    if not runs_folder.is_run(job.folder):
        return Training(False, False, 0, 0.0)
    saved = configuration.read_saved(job.folder / runs_folder.CONFIG)
    refuse_other(job, saved)
    rows = runs_folder.read_log(job.folder)
    ends = [row for row in rows if row.get("event") in ("start", "resume", "end")]
    is_complete = (
        bool(ends)
        and ends[-1].get("reason") in COMPLETE
        and _length(saved) == _length(job.settings)
    )
    epochs = len({row.get("epoch") for row in rows if row.get("event") == "valid"} - {0, None})
    return Training(True, is_complete, epochs, 1.0 if is_complete else _share(job.settings, rows))


def _length(config: Config) -> tuple:
    """The settings that say how long a training is."""
    return config.train.epochs, config.train.max_steps, config.train.patience


def refuse_other(job: Job, saved: Config) -> None:
    """Raises InputError where a run was trained with other settings, or on another corpus."""
    changed = configuration.differences(saved, job.settings)
    if not is_same_place(saved.data.dir, job.settings.data.dir):
        changed["data.dir"] = (saved.data.dir, job.settings.data.dir)
    if changed:
        key, values = next(iter(changed.items()))
        before, after = map(config_options.shown, values)
        raise InputError(
            f"{job.folder}: {key} is {before} there and {after} now; give the settings of the runs "
            "that are there, or another --output_dir"
        )


def is_same_place(first: str | None, second: str | None) -> bool:
    """Whether two settings of ``data.dir`` name the same corpus; None is the embedded one."""
    if first is None or second is None:
        return first is second
    return Path(first).resolve() == Path(second).resolve()


def _share(config: Config, rows: Iterable[Mapping]) -> float:
    steps, per_epoch = 0, 0
    for row in rows:
        if row.get("event") in ("start", "resume"):
            per_epoch = row.get("steps_per_epoch") or 0
        if row.get("event") in ("step", "valid"):
            steps = max(steps, row.get("step") or 0)
    total = config.train.epochs * per_epoch
    if config.train.max_steps is not None:
        total = min(total, config.train.max_steps)
    return min(steps / total, 1.0) if total else 0.0


def seconds_of_epoch(rows: Iterable[Mapping]) -> float | None:
    """What an epoch takes by a log, its validation included; None where that was not measured."""
    tokens, busy, validation, whole = 0.0, 0.0, [], None
    for row in rows:
        if row.get("event") in ("start", "resume"):
            train = (row.get("splits") or {}).get("train") or {}
            whole = train.get("tokens") or whole
        elif row.get("event") == "step":
            rate, count = row.get("tokens_per_second"), row.get("tokens")
            if rate and count:
                tokens, busy = tokens + count, busy + count / rate
        elif row.get("event") == "valid" and row.get("seconds"):
            validation.append(row["seconds"])
    if not tokens or not whole:
        return None
    return whole * busy / tokens + (math.fsum(validation) / len(validation) if validation else 0.0)


class Rates:
    """Seconds an epoch of runs that are there, by what decides how long it takes.

    Args:
        folder: whose runs are read.
    """

    def __init__(self, folder: Path):
        self._measured: dict[tuple, list[float]] = {}
        self._toy: dict[tuple, list[float]] = {}
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if runs_folder.is_run(path):
                try:
                    config = configuration.read_saved(path / runs_folder.CONFIG)
                except InputError:
                    continue
                seconds = seconds_of_epoch(runs_folder.log_rows(path))
                if seconds is not None:
                    self._measured.setdefault(_kind(config), []).append(seconds)
            toy = runs_folder.read_metrics(path, TOY_RESULT) if path.is_dir() else {}
            milliseconds = toy.get("milliseconds_per_iteration")
            if isinstance(milliseconds, float):
                key = (toy.get("system"), toy.get("categories"))
                self._toy.setdefault(key, []).append(milliseconds / 1000)

    def seconds_left(self, job: Job, training: Training) -> float | None:
        """What the rest of a job's training takes; None where no like run was measured."""
        if training.is_complete:
            return 0.0
        if job.config is None:
            measured = self._toy.get((job.run.system, job.run.categories))
            left = job.length * (1 - training.share)
            return _mean(measured) * left if measured else None
        measured = self._measured.get(_kind(job.config))
        if measured is None or job.config.train.max_steps is not None:
            return None
        return _mean(measured) * job.config.train.epochs * (1 - training.share)


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def _kind(config: Config) -> tuple:
    """What decides how long an epoch takes: parts, sizes, batches, precision, corpus."""
    corpus = config.data.dir and str(Path(config.data.dir).resolve())
    slots = config.slots
    parts = (
        slots.step,
        slots.encodings,
        slots.divergence != "none",
        slots.contrast,
        slots.posterior,
    )
    sizes = (config.model.embedding_size, config.model.hidden_size, config.model.critic_size)
    batches = (config.data.batch_size, config.data.vocabulary_size, config.train.critic_updates)
    return (*parts, *sizes, *batches, config.precision, config.model.amp_level, corpus)
