"""Trains, evaluates and collects what an exhibit of the paper is made of."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mindspore_cvae.common.files import write_atomically
from mindspore_cvae.config import layers as configuration
from mindspore_cvae.errors import InputError, typed
from mindspore_cvae.reproduction.jobs import Job, Rates, training_of
from mindspore_cvae.reproduction.markdown import markdown
from mindspore_cvae.reproduction.paper import (
    TOY_ITERATIONS,
    TRAINING_SENTENCES,
    Exhibit,
    Row,
    Run,
)
from mindspore_cvae.reproduction.pictures import plot
from mindspore_cvae.reproduction.stages import KINDS, Kind, Stage, Wanted
from mindspore_cvae.runs import folder as runs_folder

COMMANDS = {
    "train.py": "mindspore_cvae.commands.train:train_main",
    "eval.py": "mindspore_cvae.commands.evaluate:eval_main",
    "generate.py": "mindspore_cvae.commands.generate:generate_main",
    "-m mindspore_cvae ngram": "mindspore_cvae.commands.ngram:main",
    "-m mindspore_cvae toy": "mindspore_cvae.commands.toy:toy_main",
}
"""What the stages call, each in a process of its own, by what a user would type."""

IW_SAMPLES = 500
"""Draws of the importance-weighted bound."""

TOY_TABLE = 5

HARMLESS = (
    "device_target",
    "device_id",
    "train.report",
    "train.log_every_steps",
    "train.checkpoint_every_steps",
    "train.keep_checkpoints",
    "eval.rows",
    "eval.tokens",
)
"""Settings that leave the numbers comparable with the paper's."""


class Stopped(Exception):
    """The budget is used up."""


def plan(exhibit: Exhibit, options: argparse.Namespace) -> dict[Row, list[Job]]:
    """The jobs of each row that is wanted, one a seed; rows may share jobs.

    Raises:
        InputError: No row has a system that was asked for, or a setting is invalid.
    """
    there = sorted({row.run.system for row in exhibit.rows})
    unknown = [name for name in options.systems or () if name not in there]
    if unknown:
        raise InputError(
            f"--systems: {exhibit.name.replace('-', ' ')} has no {unknown[0]}, but "
            f"{', '.join(there)}"
        )
    return {
        row: [_job(row.run, seed, options) for seed in options.seeds]
        for row in exhibit.rows
        if not options.systems or row.run.system in options.systems
    }


def _job(run: Run, seed: int, options: argparse.Namespace) -> Job:
    if run.dataset == "toy":
        name = f"toy-{run.system}-{run.categories}-{seed}"
        return Job(run, seed, options.output_dir / name, None, options.iterations)
    config = configuration.load(
        _configuration(run, options),
        _pairs(run, options),
        system=run.system,
        seed=seed,
        data_dir=_data_dir(run, options),
    )
    variant = f"-{run.variant}" if run.variant else ""
    stem = configuration.find(_configuration(run, options)).stem
    return Job(run, seed, options.output_dir / f"{stem}-{run.system}{variant}-{seed}", config)


def _configuration(run: Run, options: argparse.Namespace) -> str:
    return options.config or run.dataset


def _data_dir(run: Run, options: argparse.Namespace) -> str | None:
    if options.data_dir is not None and run.dataset != "ptb" and options.config is None:
        return str(Path(options.data_dir, run.dataset))
    return options.data_dir


def _pairs(run: Run, options: argparse.Namespace) -> list[str]:
    """Settings of every run, then those that make the row. Epoch 0 is what Figure 3 begins with."""
    return ["eval.before_training=true", *options.overrides, *run.settings]


def common_settings(exhibit: Exhibit, jobs: Mapping[Row, Sequence[Job]], options) -> dict:
    """How the runs were made, for the results."""
    places: dict[str, None] = {}
    for job in unique(jobs):
        if job.config is not None:
            corpus = job.config.data.dir or "the embedded corpus"
            places[f"configuration {_configuration(job.run, options)} on {corpus}"] = None
    if exhibit.kind == "toy":
        places[f"python -m mindspore_cvae toy, {options.iterations:,} iterations"] = None
    said = ", ".join(places)
    if options.overrides:
        said += f", with {' '.join(options.overrides)}"
    if options.generated and exhibit.kind == "ngram":
        said += f", with --generated {options.generated}"
    changed = [pair.partition("=")[0] for pair in options.overrides]
    is_comparable = (
        options.config is None
        and set(changed) <= set(HARMLESS)
        and options.iterations == TOY_ITERATIONS
        and options.generated is None
        and all(map(is_of_the_papers_size, unique(jobs)))
    )
    return {
        "trained_on": said,
        "seeds": list(options.seeds),
        "is_comparable": is_comparable,
        "generated": options.generated,
    }


def is_of_the_papers_size(job: Job) -> bool:
    """Whether a run was trained on as many sentences as the paper's corpus has; a run that was not
    begun has no number that could be taken for the paper's."""
    starts = [row for row in runs_folder.log_rows(job.folder) if row.get("event") == "start"]
    sentences = TRAINING_SENTENCES.get(job.run.dataset)
    return all(
        (row.get("splits") or {}).get("train", {}).get("sentences") == sentences for row in starts
    )


def _wanted(options: argparse.Namespace) -> Wanted:
    return Wanted(options.iw_samples, options.generated)


def unique(jobs: Mapping[Row, Sequence[Job]]) -> list[Job]:
    """Every job once: all rows of the first seed, then the next."""
    found = {job.folder: job for row_jobs in jobs.values() for job in row_jobs}
    return sorted(found.values(), key=lambda job: job.seed)


def missing_data(job: Job) -> str | None:
    """Why a job's corpus cannot be read; None where it can."""
    place = job.config.data.dir if job.config is not None else None
    if place is None or Path(place).exists():
        return None
    return f"its corpus {place} is not there: {typed('data get')}, or --data_dir"


def training_stage(job: Job, options: argparse.Namespace) -> Stage:
    """What trains a job, from wherever it is."""
    folder = str(job.folder)
    if job.config is None:
        given = ["--system", job.run.system, "--categories", str(job.run.categories)]
        given += ["--iterations", str(options.iterations), "--seed", str(job.seed)]
        return Stage("training", "-m mindspore_cvae toy", (*given, "--output_dir", folder))
    given = ["--config", _configuration(job.run, options), "--system", job.run.system]
    given += ["--seed", str(job.seed), "--output_dir", folder, "--resume"]
    place = _data_dir(job.run, options)
    given += ["--data_dir", place] if place is not None else []
    return Stage("training", "train.py", (*given, "--set", *_pairs(job.run, options)))


def dry_run(
    exhibit: Exhibit, jobs: Mapping[Row, Sequence[Job]], options: argparse.Namespace
) -> list[str]:
    """What would be done and how long it takes, in lines."""
    rates = Rates(options.output_dir)
    kind, wanted = KINDS[exhibit.kind], _wanted(options)
    lines, known, unknown = [], 0.0, 0
    for job in unique(jobs):
        training = training_of(job)
        stages = []
        reason = missing_data(job)
        if not training.is_complete:
            seconds = rates.seconds_left(job, training)
            if reason is None:
                known += seconds or 0.0
                unknown += seconds is None
            took = "time unknown" if seconds is None else f"about {duration(seconds)}"
            done = f" from {training.share:.0%}" if training.is_begun else ""
            stages.append(f"train{done}, {took}")
        stage = kind.stage(job, wanted)
        is_made = training.is_complete and kind.is_there(job, wanted)
        if stage is not None and not is_made:
            stages.append(stage.title)
        said = "; ".join(stages) if stages else "finished"
        lines.append(f"{job.name}: {said if reason is None else reason}")
    left = [f"about {duration(known)}"] if known or not unknown else []
    if unknown:
        runs_said = "1 run" if unknown == 1 else f"{unknown} runs"
        left.append(f"{runs_said} of which no like one in {options.output_dir} was measured")
    return [*lines, f"training left: {', and '.join(left)}; evaluations are not counted"]


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def work(
    exhibit: Exhibit,
    jobs: Mapping[Row, Sequence[Job]],
    options: argparse.Namespace,
    reasons: dict[str, str],
) -> None:
    """Train and evaluate until all is done or the budget is used up.

    Args:
        exhibit, jobs, options: as elsewhere.
        reasons: receives, by job, why it could not be finished.

    Raises:
        InputError: A run was made with other settings, or no job has its corpus.
    """
    everything = unique(jobs)
    for job in everything:
        training_of(job)
        if reason := missing_data(job):
            reasons[job.name] = reason
    if len(reasons) == len(everything):
        raise InputError(next(iter(reasons.values())))
    deadline = None
    if options.budget is not None:
        deadline = time.monotonic() + 60 * options.budget
    previous = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        options.output_dir.mkdir(parents=True, exist_ok=True)
        for job in everything:
            if job.name not in reasons:
                _finish(job, KINDS[exhibit.kind], options, deadline, reasons)
    except Stopped:
        print(f"stopped: the budget of {options.budget:g} minutes is used up", flush=True)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _finish(job: Job, kind: Kind, options, deadline: float | None, reasons: dict[str, str]) -> None:
    """The stages that a job lacks; a failure goes into ``reasons``."""
    if not training_of(job).is_complete:
        if not _run(job, training_stage(job, options), deadline, reasons):
            return
        if not training_of(job).is_complete:
            reasons[job.name] = "training ended early"
            return
    stage = kind.stage(job, _wanted(options))
    if stage is None or kind.is_there(job, _wanted(options)):
        return
    kind.prepare(job)
    _run(job, stage, deadline, reasons)


def _run(job: Job, stage: Stage, deadline: float | None, reasons: dict[str, str]) -> bool:
    """One stage in a process of its own; False, with a reason, where it failed."""
    print(f"{job.name}: {stage.title}", flush=True)
    status = run_stage(stage, deadline)
    if status:
        command = f"python {stage.command} {shlex.join(stage.arguments)}"
        reasons[job.name] = f"{stage.title} failed with exit status {status}: {command}"
    return not status


def run_stage(stage: Stage, deadline: float | None) -> int:
    """Run a stage to its end.

    Args:
        stage: what to run.
        deadline: when to end it, by :func:`time.monotonic`; None for never.

    Returns:
        Its exit status.

    Raises:
        Stopped: The deadline came; the stage was told to end, and has ended.
    """
    if deadline is not None and time.monotonic() >= deadline:
        raise Stopped
    module, _, function = COMMANDS[stage.command].partition(":")
    # A function that returns nothing reports through run_command, as its own module does.
    program = (
        f"import sys\nfrom mindspore_cvae.errors import run_command\n"
        f"from {module} import {function}\n"
        f"sys.exit(run_command({function}))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, *stage.arguments])
    try:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        return process.wait(left)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait()
        raise Stopped from None
    except KeyboardInterrupt:
        # The terminal has sent it to both; training saves before it ends.
        process.wait()
        raise
    except SystemExit:
        process.terminate()
        process.wait()
        raise


def write_results(
    document: Mapping, exhibit: Exhibit, jobs: Mapping[Row, Sequence[Job]], folder: Path
) -> Iterable[Path]:
    """Write Markdown, JSON and PNG; yields the path of each."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{exhibit.name}.json"
    write_atomically(path, json.dumps(document, indent=1, allow_nan=False) + "\n")
    yield path
    path = folder / f"{exhibit.name}.md"
    write_atomically(path, markdown(document, exhibit))
    yield path
    path = folder / f"{exhibit.name}.png"
    if exhibit.kind == "toy":
        every = [job for row_jobs in jobs.values() for job in row_jobs]
        done = [str(job.folder) for job in every if training_of(job).is_complete]
        if done:
            # It says itself what it has written.
            run_stage(
                Stage("figure", "-m mindspore_cvae toy", ("--figure", str(path), *done)), None
            )
        return
    picture = plot(document, exhibit)
    if picture is not None:
        write_atomically(path, picture)
        yield path
