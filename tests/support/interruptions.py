"""Small trainings that end at a chosen moment: killed, told to stop, or by a fault.

As a program, a training in a process of its own that sends itself a signal:
``python interruptions.py SIGKILL 1 "row 4" OPTION ...`` once, before the first row of the log that
is written at step 4, with the options of ``train``.
"""

from __future__ import annotations

import _thread
import contextlib
import dataclasses
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from mindspore_cvae.commands.train import train_main
from mindspore_cvae.common import files
from mindspore_cvae.config import keys
from mindspore_cvae.evaluation.scoring import Scorer
from mindspore_cvae.model.building import put_values
from mindspore_cvae.runs import folder as runs_folder
from mindspore_cvae.runs import lock
from mindspore_cvae.systems import SYSTEMS
from mindspore_cvae.training import trainer

STEP_KINDS = {row.step: name for name, row in SYSTEMS.items()} | {"joint": "cyclical_vae"}
"""A system of every kind of training step; the joint one has a schedule of beta to go on with."""
SENTENCES = {
    "train": "a cat sat|the dog ran|a bird|the cat ran off|a dog sat|birds ran|the sun|a cat ran|"
    "dogs sat off|the bird sat",
    "valid": "off ran a cat|bird the|ran dogs",
    "test": "a dog",
}
STEPS_PER_EPOCH = 3
"""Ten sentences by four; the last batch of an epoch has fillers."""
SETTINGS = (
    *("model.embedding_size=4", "model.hidden_size=6", "model.latent_size=3", "model.noise_size=3"),
    *("model.critic_size=5", "model.critic_layers=1", "model.posterior_size=4"),
    *("data.batch_size=4", "data.buckets=1", "eval.rows=4", "eval.valid_samples=2"),
    # beta rises for two epochs; the validation sentences, unlike the others in the order of their
    # words, get worse after them, and patience ends the training after the fourth.
    *("slots.beta_max=0.3", "train.epochs=9", "train.patience=2", "train.select=rec"),
    *("train.learning_rate=0.1", "train.critic_learning_rate=0.01", "train.critic_updates=2"),
    # Checkpoints fall between rows of the log, and both between the ends of epochs.
    *("train.log_every_steps=4", "train.checkpoint_every_steps=2", "device_target=CPU"),
    # Nothing here reads it, and it takes seconds.
    "train.report=false",
)


def write_corpus(folder: Path) -> Path:
    """The texts of :data:`SENTENCES`."""
    folder.mkdir()
    for split, text in SENTENCES.items():
        (folder / f"{split}.txt").write_text(text.replace("|", "\n") + "\n", encoding="utf-8")
    return folder


def options(system: str, data: Path, folder: Path, *settings: str) -> list[str]:
    """Arguments of ``train`` that begin a run, or go on with it."""
    place = ["--data_dir", str(data), "--output_dir", str(folder), "--resume"]
    own = ["slots.refinement_steps=2"] if SYSTEMS[system].refinement_steps else []
    return ["--system", system, *place, "--set", *SETTINGS, *own, *settings]


class Killed(BaseException):
    """Stands for the end of the process."""


class Kill:
    """Ends a training at its n-th moment, counted from 0, or at the first of a name, and lets it do
    nothing more.

    Attributes:
        moments: names of the moments until then.
    """

    def __init__(self, at: int | str | None = None):
        self.at = at
        self.moments: list[str] = []
        self.is_dead = False

    def __call__(self, moment: str) -> None:
        self.is_dead |= self.at in (moment, len(self.moments))
        self.moments.append(moment)
        if self.is_dead:
            raise Killed


class At:
    """Does something at the n-th moment of a name, counted from 1."""

    def __init__(self, moment: str, count: int, action: Callable[[], object]):
        self.moment = moment
        self.count = count
        self.action = action
        self.seen: Counter[str] = Counter()

    def __call__(self, moment: str) -> None:
        self.seen[moment] += 1
        if moment == self.moment and self.seen[moment] == self.count:
            self.action()


class HalfWritten:
    """A file whose writes are interrupted half-way."""

    def __init__(self, file, happen: Callable[[], None]):
        self.file = file
        self.happen = happen

    def __enter__(self) -> HalfWritten:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def __getattr__(self, name: str):
        return getattr(self.file, name)

    def write(self, content: bytes) -> int:
        half = len(content) // 2
        self.file.write(content[:half])
        self.file.flush()
        self.happen()
        self.file.write(content[half:])
        return len(content)


@contextlib.contextmanager
def watched(happen: Callable[[str], None]) -> Iterator[None]:
    """Calls ``happen`` at every moment of a training between two of which something is done that
    lasts, with the moment's name and the training step (``"rename latest.json 4"``)."""
    step = 0

    def now(name: str) -> None:
        happen(f"{name} {step}")

    def after_restoring(original):
        def restore(self):
            nonlocal step
            step, result = 0, original(self)
            step = self.state.step
            return result

        return restore

    def after_a_step(original):
        def refuse_non_finite(self, *arguments):
            nonlocal step
            original(self, *arguments)
            step = self.state.step
            now("step")

        return refuse_non_finite

    def before(name: str, original):
        def function(*arguments, **named):
            now(name)
            return original(*arguments, **named)

        return function

    def with_half_rows(original):
        def construct(self, *arguments):
            original(self, *arguments)
            self._file = HalfWritten(self._file, lambda: now("half a row"))

        return construct

    class System:
        """``os`` with moments before its functions."""

        def __init__(self, **names: str):
            self.names = names

        def __getattr__(self, name: str):
            function = getattr(os, name)
            return before(self.names[name], function) if name in self.names else function

    class FileSystem(System):
        """``os`` as files.py uses it: one file after the other."""

        def open(self, path, *arguments):
            name = Path(path).name
            self.file = name[1:].rsplit(".", 2)[0] if files.is_temporary(Path(path)) else name
            now(f"open {self.file}")
            return os.open(path, *arguments)

        def fdopen(self, *arguments):
            return HalfWritten(os.fdopen(*arguments), lambda: now(f"write {self.file}"))

        def fsync(self, descriptor):
            now(f"fsync {self.file}")
            os.fsync(descriptor)

        def replace(self, *paths):
            now(f"rename {self.file}")
            os.replace(*paths)

    with contextlib.ExitStack() as stack:
        for target, name, replacement in (
            (trainer.Trainer, "restore", after_restoring(trainer.Trainer.restore)),
            (
                trainer.Trainer,
                "refuse_non_finite",
                after_a_step(trainer.Trainer.refuse_non_finite),
            ),
            (Scorer, "_noise", before("score", Scorer._noise)),
            (runs_folder.Log, "__init__", with_half_rows(runs_folder.Log.__init__)),
            (runs_folder.Log, "write", before("row", runs_folder.Log.write)),
            (runs_folder, "os", System(fsync="sync")),
            (files, "os", FileSystem()),
            (Path, "unlink", before("unlink", Path.unlink)),
        ):
            stack.enter_context(mock.patch.object(target, name, replacement))
        yield


build_model, whole_build_step = trainer.build_model, trainer.build_step


def build_step(model, slots, training):
    """The training step; an aggressive one with 4 updates of the encoder at most, not 100."""
    step = whole_build_step(model, slots, training)
    if slots.step == "aggressive":
        step.window, step.most_updates = 2, 4
    return step


class Parts:
    """Builds models, steps and evaluators once, and hands them out as they were when new.

    A new process would have to compile them; what a run forgets or keeps is the same.
    """

    def __init__(self):
        self.made: dict = {}

    def once(self, key, make: Callable[[], object]):
        if key not in self.made:
            part = make()
            self.made[key] = part, self.values(part)
        part, start = self.made[key]
        if start:
            put_values(part, start)
        return part

    @staticmethod
    def values(part) -> dict:
        if not hasattr(part, "get_parameters"):
            return {}
        return {parameter.name: parameter.asnumpy().copy() for parameter in part.get_parameters()}

    def model(self, *arguments):
        return self.once(("model", *arguments), lambda: build_model(*arguments))

    def step(self, model, slots, training):
        defaults = {
            field.name: field.default
            for field in dataclasses.fields(training)
            if keys.OPTIONS[f"train.{field.name}"].free
        }
        settings = dataclasses.replace(training, **defaults)
        key = ("step", id(model), slots, settings)
        return self.once(key, lambda: build_step(model, slots, training))

    def scorer(self, model, config, widths, ranks):
        key = ("scorer", id(model), config.slots, tuple(widths), config.eval, config.seed, ranks)
        return self.once(key, lambda: Scorer(model, config, widths, ranks))

    def __enter__(self) -> Parts:
        self.stack = contextlib.ExitStack()
        for name, part in (
            ("build_model", self.model),
            ("build_step", self.step),
            ("Scorer", self.scorer),
        ):
            self.stack.enter_context(mock.patch.object(trainer, name, part))
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()


CLOCKS = ("time", "seconds", "tokens_per_second", "compile_seconds")
"""Keys of the log's rows that no two runs share."""


def outcome(folder: Path) -> dict[str, object]:
    """All that a run leaves, but for clocks and for the marks of where it was taken up again.

    Checkpoints by step, whatever their files are called, and all else by its name.
    """
    left: dict[str, object] = {}
    rows = [json.loads(row) for row in (folder / runs_folder.LOG).read_text().splitlines()]
    left["log"] = [
        {name: row[name] for name in row if name not in CLOCKS}
        for row in rows
        if row["event"] != "resume"
    ]
    told = {runs_folder.LOG, lock.LOCK}
    for path in (folder / runs_folder.CHECKPOINTS).glob("step-*.json"):
        manifest = json.loads(path.read_text())
        del manifest["sha256"]
        before = rows[: manifest["state"]["log_rows"]]
        manifest["state"]["log_rows"] -= [row["event"] for row in before].count("resume")
        tensors = path.with_name(manifest["tensors"].pop("file"))
        left[path.stem] = manifest, tensors.read_bytes()
        told |= {path.name, tensors.name}
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in told:
            left[path.name] = path.read_bytes()
    return left


def send(number: int, times: int = 1) -> None:
    """Sends this process a signal."""
    for _ in range(times):
        if number == signal.SIGINT:
            # As the commands do, because mindspore has made it a SIGTERM by now.
            _thread.interrupt_main(number)
        else:
            os.kill(os.getpid(), number)


def main(argv: list[str]) -> int:
    """The program; see the head of this file."""
    name, times, moment, *rest = argv
    watcher = At(moment, 1, lambda: send(signal.Signals[name], int(times)))
    with watched(watcher), mock.patch.object(trainer, "build_step", build_step):
        return train_main(rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
