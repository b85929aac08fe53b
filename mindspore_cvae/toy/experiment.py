"""The command ``toy``: the synthetic clustering experiment (Section 4.4, Table 5), and its numbers.

DIR/toy.json       numbers for what the pictures show, and their curve
DIR/snapshots.npz  z and labels at the iterations that are shown
DIR/toy.png        the pictures, in one row
DIR/checkpoints/   see :mod:`runs.checkpoints`
DIR/lock           held while a process trains here
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mindspore_cvae.common.files import is_temporary, write_atomically
from mindspore_cvae.common.progress import progress
from mindspore_cvae.errors import InputError
from mindspore_cvae.runs import checkpoints
from mindspore_cvae.runs import folder as runs_folder
from mindspore_cvae.runs import lock as runs_lock
from mindspore_cvae.runs.checkpoints import CheckpointError
from mindspore_cvae.toy import clusters
from mindspore_cvae.toy.pictures import TOY_RESULT, draw, save_snapshots
from mindspore_cvae.toy.systems import BETA, NOISES_PER_CATEGORY, TOY_SYSTEMS

SNAPSHOTS = (0, 5_000, 15_000, 30_000, 80_000)
"""Iterations of the paper's pictures."""

MEASURE_EVERY = 250
"""Iterations between two points of the curve."""

CHECKPOINT_EVERY = 1_000
"""Iterations that a process that is killed can lose."""

POINTS_PER_CATEGORY = 128
"""Draws of z that a classifier is fitted to, and as many new ones that are measured and shown."""

SEPARATED = 0.99

PICTURE = "toy.png"

SNAPSHOT_PREFIX = "snapshot."
"""Tensors of a checkpoint that start so are pictures, all others the training's."""


@dataclass(frozen=True)
class Experiment:
    """One run of the experiment.

    Attributes:
        system: a row of ``systems.TOY_SYSTEMS``.
        categories: K.
        seed: of everything.
        iterations: of the model, each with five of the critic.
        stop_after_99: iterations for which separability must have stayed above 99% for training to
            stop; None: never.
        noises_per_category: rows of a batch that share a drawn category.
        beta: weight of the divergence.
    """

    system: str
    categories: int
    seed: int = 0
    iterations: int = SNAPSHOTS[-1]
    stop_after_99: int | None = None
    noises_per_category: int = NOISES_PER_CATEGORY
    beta: float = BETA

    def fingerprints(self) -> dict[str, str]:
        """What a run that is taken up again must share."""
        names = ("system", "categories", "seed", *LATER)
        return {name: str(getattr(self, name)) for name in names}

    @property
    def batch_size(self) -> int:
        """Rows of a batch."""
        return TOY_SYSTEMS[self.system].batch_size(self.categories, self.noises_per_category)


LATER = {"noises_per_category": str(NOISES_PER_CATEGORY), "beta": str(BETA)}
"""What runs have that were begun before these could be chosen."""


@dataclass
class Progress:
    """Where a run stands, besides its parameters."""

    iteration: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    """A row of numbers every :data:`MEASURE_EVERY` iterations."""
    snapshots: dict[int, np.ndarray] = field(default_factory=dict)
    """z of the shown points by iteration."""
    timed_iterations: int = 0
    """Iterations whose time was taken: all but those that compiled."""
    seconds: float = 0.0
    """Of the timed iterations, measuring and saving left out."""
    cpu_seconds: float = 0.0
    """The same of all threads' work, which other processes on the machine lengthen less."""

    def iterations_to_99(self) -> int | None:
        """The first measured iteration from which on separability stays above 99%."""
        since = None
        for row in self.curve:
            if row["separability"] <= SEPARATED:
                since = None
            elif since is None:
                since = int(row["iteration"])
        return since


def labels_of(categories: int) -> np.ndarray:
    """The category of each point that is measured and shown."""
    return np.repeat(np.arange(categories), POINTS_PER_CATEGORY)


def measure(z: np.ndarray, categories: int) -> dict[str, float]:
    """Numbers of one moment.

    Args:
        z: (2 K P, 2) the points that the classifier is fitted to, then as many new ones, each in
            the order of :func:`labels_of`.
        categories: K.
    """
    labels = labels_of(categories)
    fitted, new = np.split(z, 2)
    return {
        "separability": clusters.separability(fitted, labels, new, labels),
        "silhouette": clusters.silhouette(new, labels),
        "distance_ratio": clusters.distance_ratio(new, labels),
    }


def last_iteration(experiment: Experiment, so_far: Progress) -> int:
    """Where the run ends, as far as is known."""
    reached = so_far.iterations_to_99()
    if reached is None or experiment.stop_after_99 is None:
        return experiment.iterations
    return min(experiment.iterations, reached + experiment.stop_after_99)


def run(experiment: Experiment, folder: Path) -> dict:
    """Trains a system and writes what :mod:`toy.experiment` lists.

    A run that lies in the folder is continued, to the same numbers as if it had never stopped.

    Args:
        experiment: what is run.
        folder: where to write; it is created.

    Returns:
        What ``toy.json`` holds.

    Raises:
        InputError: The folder cannot be used, or holds another run.
    """
    prepare(experiment, folder)
    lock = runs_lock.Lock(folder / runs_lock.LOCK)
    try:
        saved = prepare(experiment, folder)
        from mindspore_cvae.toy.training import ToyTrainer

        system = TOY_SYSTEMS[experiment.system]
        trainer = ToyTrainer(
            system,
            experiment.categories,
            experiment.seed,
            noises=experiment.noises_per_category,
            beta=experiment.beta,
        )
        so_far = Progress()
        if saved is not None:
            so_far = _read_progress(saved)
            trainer.load_state(
                {
                    name: array
                    for name, array in saved.tensors.items()
                    if not name.startswith(SNAPSHOT_PREFIX)
                }
            )
        _train(experiment, trainer, so_far, folder)
        result = _result(experiment, so_far, _at_the_end(experiment, trainer, so_far))
        save_snapshots(folder, labels_of(experiment.categories), so_far.snapshots)
        write_atomically(folder / TOY_RESULT, json.dumps(result, indent=1, allow_nan=False) + "\n")
        draw([folder], folder / PICTURE)
    finally:
        lock.release()
    return result


def prepare(experiment: Experiment, folder: Path) -> checkpoints.Checkpoint | None:
    """Makes the folder; the checkpoint to go on from, or None for a new run.

    Raises:
        InputError: The folder cannot be made, or holds another run.
    """
    if folder.is_dir():
        there = {path.name for path in folder.iterdir() if not is_temporary(path)} - {
            runs_lock.LOCK
        }
        if there and not there & {runs_folder.CHECKPOINTS, TOY_RESULT}:
            raise InputError(
                f"{folder} is not empty and not a run of the toy: choose another --output_dir"
            )
    try:
        (folder / runs_folder.CHECKPOINTS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be created: {error.strerror}") from None
    if not checkpoints.steps(folder / runs_folder.CHECKPOINTS):
        return None
    saved = checkpoints.load(folder / runs_folder.CHECKPOINTS)
    for name, value in experiment.fingerprints().items():
        before = saved.fingerprints.get(name, LATER.get(name, "none"))
        if before != value:
            raise InputError(
                f"{folder} holds a run with --{name} {before}, not {value}: give the same to "
                "continue it, or choose another --output_dir"
            )
    return saved


def _read_progress(saved: checkpoints.Checkpoint) -> Progress:
    try:
        return Progress(
            iteration=saved.step,
            snapshots={
                int(name.removeprefix(SNAPSHOT_PREFIX)): array
                for name, array in saved.tensors.items()
                if name.startswith(SNAPSHOT_PREFIX)
            },
            curve=saved.state["curve"],
            timed_iterations=saved.state["timed_iterations"],
            seconds=saved.state["seconds"],
            cpu_seconds=saved.state["cpu_seconds"],
        )
    except (KeyError, ValueError):
        raise CheckpointError(f"{saved.path} was not written by the command toy") from None


def _train(experiment: Experiment, trainer, so_far: Progress, folder: Path) -> None:
    """From where the run stands to its end, measuring and saving on the way."""
    bar = progress(
        f"toy {experiment.system}", experiment.iterations, "iterations", so_far.iteration
    )
    labels = np.tile(labels_of(experiment.categories), 2)
    compiled: set[int] = set()
    try:
        if not so_far.curve:
            _look(experiment, trainer, so_far, labels)
        while so_far.iteration < (end := last_iteration(experiment, so_far)):
            start = so_far.iteration
            stop = min(start - start % MEASURE_EVERY + MEASURE_EVERY, end)
            began, cpu_began = time.monotonic(), time.process_time()
            trainer.train(start, stop - start)
            if stop - start in compiled:
                so_far.seconds += time.monotonic() - began
                so_far.cpu_seconds += time.process_time() - cpu_began
                so_far.timed_iterations += stop - start
            compiled.add(stop - start)
            so_far.iteration = stop
            if stop % MEASURE_EVERY == 0:
                _look(experiment, trainer, so_far, labels)
                separability = so_far.curve[-1]["separability"]
                bar.set_postfix_str(f"separability {separability:.3f}", refresh=False)
            bar.update(stop - start)
            is_last = stop == last_iteration(experiment, so_far)
            if is_last or stop % CHECKPOINT_EVERY == 0:
                _save(experiment, trainer, so_far, folder)
    finally:
        bar.close()


def _at_the_end(experiment: Experiment, trainer, so_far: Progress) -> dict[str, float]:
    """The last iteration's numbers, and its picture. They do not join the curve, whose points a run
    that goes on would not have."""
    labels = np.tile(labels_of(experiment.categories), 2)
    z = trainer.encode(labels)
    so_far.snapshots.setdefault(so_far.iteration, np.split(z, 2)[1])
    return measure(z, experiment.categories)


def _look(experiment: Experiment, trainer, so_far: Progress, labels: np.ndarray) -> None:
    z = trainer.encode(labels)
    so_far.curve.append({"iteration": so_far.iteration, **measure(z, experiment.categories)})
    if so_far.iteration in SNAPSHOTS:
        so_far.snapshots[so_far.iteration] = np.split(z, 2)[1]


def _save(experiment: Experiment, trainer, so_far: Progress, folder: Path) -> None:
    pictures = {f"{SNAPSHOT_PREFIX}{step}": z for step, z in so_far.snapshots.items()}
    state = {
        "curve": so_far.curve,
        "timed_iterations": so_far.timed_iterations,
        "seconds": so_far.seconds,
        "cpu_seconds": so_far.cpu_seconds,
    }
    checkpoints.save(
        folder / runs_folder.CHECKPOINTS,
        so_far.iteration,
        {**trainer.state(), **pictures},
        state,
        experiment.fingerprints(),
    )


def _result(experiment: Experiment, so_far: Progress, last: dict[str, float]) -> dict:
    def milliseconds(seconds: float) -> float | None:
        return 1000.0 * seconds / so_far.timed_iterations if so_far.timed_iterations else None

    return {
        "system": experiment.system,
        "categories": experiment.categories,
        "seed": experiment.seed,
        "batch_size": experiment.batch_size,
        "beta": experiment.beta,
        "iterations": so_far.iteration,
        **last,
        "iterations_to_99": so_far.iterations_to_99(),
        "milliseconds_per_iteration": milliseconds(so_far.seconds),
        "cpu_milliseconds_per_iteration": milliseconds(so_far.cpu_seconds),
        "curve": so_far.curve,
    }


def choose_cpu() -> None:
    """Selects the CPU, and one thread: kernels this small take longer to share than to run."""
    from mindspore_cvae.devices import choosing

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    choosing.apply_precision("strict")
    import mindspore

    mindspore.device_context.cpu.op_tuning.threads_num(1)
    mindspore.runtime.dispatch_threads_num(1)
    choosing.choose("CPU")
