"""The training loop: epochs of batches, validation, selection, log, checkpoints, stopping and
resuming.

Whatever decides what a step computes is either a pure function of (seed, step) or lies in a
checkpoint: the plan of an epoch, beta, noise; parameters and moments; the counters of
:class:`TrainingState`. So a resumed run goes on to the bit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import platform
import signal
import threading
import time
import typing
from dataclasses import dataclass, field
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor

from mindspore_cvae import __version__
from mindspore_cvae.common import memory
from mindspore_cvae.common.progress import Bar, progress, tell
from mindspore_cvae.common.randomness import generator
from mindspore_cvae.config.keys import Config
from mindspore_cvae.data.batches import Batch, EpochPlan, batch_dataset, make_batch
from mindspore_cvae.data.corpus import Corpus
from mindspore_cvae.data.widths import corpus_widths, with_chosen_buckets
from mindspore_cvae.devices import choosing
from mindspore_cvae.devices.parallel import ALONE, Processes, join
from mindspore_cvae.errors import TrainingError, warn_user
from mindspore_cvae.evaluation.metrics import Weighing, evaluate
from mindspore_cvae.evaluation.proposals import REFINED, UNREFINED
from mindspore_cvae.evaluation.scoring import Scorer
from mindspore_cvae.model.building import build_model
from mindspore_cvae.runs import checkpoints, events
from mindspore_cvae.runs.checkpoints import Checkpoint, CheckpointError
from mindspore_cvae.runs.folder import PROFILE, Run, RunFolder, log_rows
from mindspore_cvae.runs.loading import restore
from mindspore_cvae.training.building import build_step
from mindspore_cvae.training.noise import NoiseMaker
from mindspore_cvae.training.profiling import Profiler, StepProfiler
from mindspore_cvae.training.schedules import SCHEDULES, settled_after
from mindspore_cvae.training.steps.updates import STEP_TERMS

AFTER_AN_OVERFLOW = (
    "the last checkpoint is kept: go on from it with --resume --force and a smaller "
    "train.learning_rate or train.clip_norm"
)
"""What a user can do once a number is not finite."""


@dataclass
class TrainingState:
    """Where training stands: everything but the tensors that a resumed run needs."""

    step: int = 0
    """Training steps done."""
    epoch: int = 1
    """The epoch under way, counted from 1."""
    batch: int = 0
    """Batches of it that are done."""
    validated: int = -1
    """The step of the last validation."""
    best: float | None = None
    """The lowest value of the selected metric so far."""
    best_valid: float | None = None
    """The lowest valid bound so far."""
    waited: int = 0
    """Validations since then that count for patience."""
    window: dict[str, float] = field(default_factory=dict)
    """Sums over the steps since the last row of the log."""
    log_rows: int = 0
    """Rows of the log that were written before."""
    step_state: dict[str, bool | float | None] = field(default_factory=dict)
    """What the training step remembers besides its parameters."""

    @classmethod
    def read(cls, saved: Checkpoint, step_state: dict) -> TrainingState:
        """The state in a checkpoint.

        Args:
            saved: the checkpoint.
            step_state: what the training step remembers when new.

        Raises:
            CheckpointError: It holds none, or one that no training writes.
        """
        # Checkpoints from before there was a best by the valid bound have no value of it.
        values = {"best_valid": None, **saved.state}
        values.pop("system", None)
        is_good = values.keys() == STATE_TYPES.keys() and all(
            _is_a(value, STATE_TYPES[name]) for name, value in values.items()
        )
        if is_good:
            state = cls(**values)
            is_good = (
                state.step == saved.step
                and min(state.epoch - 1, state.batch) >= 0
                and state.step_state.keys() == step_state.keys()
            )
        if not is_good:
            raise CheckpointError(
                f"{saved.path.parent}: the checkpoint of step {saved.step} does not hold the state "
                "of a training"
            )
        return state


STATE_TYPES = typing.get_type_hints(TrainingState)


def _is_a(value: object, kind: object) -> bool:
    """Whether a value that JSON gave has the type of a field."""
    parts = typing.get_args(kind)
    if typing.get_origin(kind) is dict:
        return type(value) is dict and all(_is_a(item, parts[1]) for item in value.values())
    if parts:
        return any(_is_a(value, part) for part in parts)
    if isinstance(value, int) and kind is int and abs(value) >= 2**53:
        return False
    return type(value) is kind


class _ToldToEnd(Exception):
    """A signal came during a validation."""


class Trainer:
    """Trains one system in one run folder.

    Args:
        config: merged configuration.
        corpus: its data.
        run: the run folder, held.
        device: name of the device, for the log.
        force: whether a checkpoint of other data, vocabulary or configuration may be resumed.
        ranks: the processes that share every batch; those of another rank than 0 get a run that
            they cannot write. None for this process alone.
        profiler: is told of every step; None profiles nothing.
    """

    def __init__(
        self,
        config: Config,
        corpus: Corpus,
        run: Run | RunFolder,
        device: str,
        force: bool = False,
        ranks: Processes | None = None,
        profiler: Profiler | None = None,
    ):
        self.ranks = ranks or ALONE
        self.profiler = profiler or Profiler()
        self.batch_size = config.data.batch_size * self.ranks.size
        self.config = config
        self.corpus = corpus
        self.run = run
        self.device = device
        self.force = force
        self.state = TrainingState()
        self.widths = corpus_widths(corpus, config.data.buckets)
        self.steps_per_epoch = len(self.plan(1))
        beta = (self.steps_per_epoch, config.slots.beta_max)
        self.beta = SCHEDULES[config.slots.beta](*beta)
        self.beta_settles = settled_after(config.slots.beta, *beta)
        self.model = build_model(
            config.slots, config.model, len(corpus.vocabulary), config.seed, self.ranks
        )
        self.step = build_step(self.model, config.slots, config.train)
        self.step.bind(self.random_batch)
        self.noise = NoiseMaker(
            config.slots,
            config.model,
            config.train.critic_updates,
            config.seed,
            self.ranks.rank,
            self.ranks.size,
        )
        self.evaluator = Scorer(self.model, config, self.widths, self.ranks)
        if self.ranks.size == 1:
            # Several processes must end together: they finish a validation before they look.
            self.evaluator.before_batch = self._end_if_told
        self.events: events.EventFile | None = None
        self.signal: int | None = None
        self.compiled: set[tuple[str, int]] = set()
        self.compile_seconds = 0.0
        self.window_started = time.monotonic()
        self.tokens_before = 0.0
        self.fingerprints = {
            "config": config.fingerprint(),
            "vocabulary": corpus.vocabulary.fingerprint(),
            "data": corpus.fingerprint(),
            "number of processes": str(self.ranks.size),
        }

    def plan(self, epoch: int) -> EpochPlan:
        """The batches of an epoch."""
        lengths = self.corpus.train.lengths
        return EpochPlan(
            lengths,
            self.widths,
            self.batch_size,
            self.config.seed,
            epoch,
            same_length=self.config.data.batches == "same_length",
        )

    @functools.cached_property
    def random_plan(self) -> EpochPlan:
        """The batches that :meth:`random_batch` chooses among: those of an epoch 0, which no
        training runs."""
        return self.plan(0)

    def random_batch(self, number: int) -> tuple:
        """Arguments (tokens, weight, *noise) of a batch of training sentences drawn at random.

        Args:
            number: of the batch within the training step under way, from 1. With the seed and the
                step it decides everything.
        """
        step = self.state.step
        source = generator(self.config.seed, "batch", step, number)
        choice = int(source.bit_generator.random_raw() % len(self.random_plan))
        width, indices = self.random_plan[choice]
        self.compiled.add(("random", width))
        batch = make_batch(self.corpus.train.sentences, width, indices, self.batch_size)
        arrays = (batch.tokens, batch.weight, *self.noise(step, batch.tokens, number))
        return tuple(None if array is None else Tensor(array) for array in arrays)

    def fit(self, resume: bool = False) -> str:
        """Trains to the end.

        Args:
            resume: whether to go on from the latest good checkpoint, if there is one.

        Returns:
            Why training ended: ``epochs``, ``max_steps``, ``patience`` or ``SIGTERM`` / ``SIGINT``.

        Raises:
            TrainingError: a loss is not finite, or many steps in a row were skipped.
            InputError: the checkpoint does not fit the configuration or the data.
        """
        is_resumed = resume and self.restore()
        # No process writes a checkpoint before every one has looked for the latest.
        self.told_to_end()
        self.run.write_inputs(self.config, self.corpus.vocabulary)
        self.log = self.run.open_log(self.state.log_rows)
        if self.config.train.tensorboard and self.ranks.rank == 0:
            self.events = events.follow(self.run.folder, log_rows(self.run.folder))
        self.log.write(self.start_row("resume" if is_resumed else "start"))
        previous = {number: signal.signal(number, self._on_signal) for number in self._signals()}
        started = time.monotonic()
        try:
            if not is_resumed:
                self.save()
            is_untouched = self.state.step == 0 and self.state.validated < 0
            if self.config.eval.before_training and is_untouched:
                self.validate(epoch=0)
            reason = self.train_epochs()
            self.log.write(
                {
                    "event": "end",
                    "step": self.state.step,
                    "epoch": self.state.epoch,
                    "reason": reason,
                    "seconds": time.monotonic() - started,
                }
            )
            self.log.sync()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            self.log.close()
            if self.events is not None:
                self.events.close()
            self.profiler.close()
        return reason

    def train_epochs(self) -> str:
        """Epoch after epoch until something ends it; returns what."""
        state, settings = self.state, self.config.train
        while not self.told_to_end():
            plan = self.plan(state.epoch)
            if state.batch < len(plan):
                self.train_batches(plan)
            if self.told_to_end():
                self.save()
                break
            is_last_step = settings.max_steps is not None and state.step >= settings.max_steps
            if state.validated != state.step:
                # What the epoch has learned is safe before the validation, which takes a while.
                self.save()
                self.validate(state.epoch)
            if self.told_to_end():
                break
            if is_last_step:
                return "max_steps"
            if settings.patience is not None and state.waited >= settings.patience:
                return "patience"
            if state.epoch >= settings.epochs:
                return "epochs"
            if state.batch >= len(plan):
                state.epoch, state.batch = state.epoch + 1, 0
        assert self.signal is not None
        return signal.Signals(self.signal).name

    def train_batches(self, plan: EpochPlan) -> None:
        """The rest of an epoch, or as much of it as max_steps and signals allow."""
        state, settings = self.state, self.config.train
        first = state.step - state.batch

        def attach(position: int, batch: Batch) -> tuple[np.ndarray, ...]:
            return self.noise(first + position, batch.tokens).present()

        total = len(plan)
        if settings.max_steps is not None:
            total = min(total, state.batch + settings.max_steps - state.step)
        if state.batch >= total:
            return
        bar = progress(f"epoch {state.epoch}", total, "steps", state.batch)
        dataset = batch_dataset(self.corpus.train, plan, state.batch, attach)
        self.window_started, self.compile_seconds = time.monotonic(), 0.0
        self.tokens_before = state.window.get("tokens", 0.0)
        for tokens, weight, index, *noise in dataset.create_tuple_iterator(num_epochs=1):
            compiled = len(self.compiled)
            self.announce_compilation(bar, tokens.shape[1] - 1)
            started = time.monotonic()
            beta = self.beta(state.step)
            arguments = tokens, weight, Tensor(beta, ms.float32), *self.noise.restored(noise)
            if len(self.compiled) > compiled:
                self.step.ready(*arguments)
                # The step then computes beside less of what compiling has left.
                memory.give_back()
            terms = self.step(*arguments).asnumpy()
            seconds = time.monotonic() - started
            # Not only this width: a step may have asked for batches of others.
            is_first = len(self.compiled) > compiled
            self.profiler.step()
            state.step += 1
            state.batch += 1
            self.refuse_non_finite(terms, index.asnumpy())
            tokens_before = state.window.get("tokens", 0.0)
            self.count(terms, tokens.asnumpy(), index.asnumpy())
            if is_first:
                memory.give_back()
                self.compile_seconds += seconds
                self.tokens_before += state.window["tokens"] - tokens_before
            if state.step % settings.log_every_steps == 0 or state.batch == total:
                self.log_steps(beta)
            every = settings.checkpoint_every_steps
            if every is not None and state.step % every == 0 and state.batch < total:
                self.save()
            bar.set_postfix_str(
                f"loss {terms[0]:.1f} rec {terms[1]:.1f} div {terms[2]:.2f}", refresh=False
            )
            if is_first:
                bar.update_apart(seconds)
            else:
                bar.update(1)
            if self.told_to_end() or state.batch >= total:
                break
        bar.close()

    def announce_compilation(self, bar: Bar, width: int) -> None:
        """Says that the next step compiles its graph, if it is the first one of its width.

        Args:
            bar: of the epoch.
            width: predicted tokens of the step's rows.
        """
        if ("step", width) in self.compiled:
            return
        self.compiled.add(("step", width))
        number = sum(kind == "step" for kind, _ in self.compiled)
        bar.announce(f"compiling {width - 1} words, {number} of {len(self.widths)}")

    def told_to_end(self) -> bool:
        """Whether a signal has come to any of the processes, who all get the same answer."""
        told = self.ranks.total(np.array([self.signal is not None], float))[0] > 0
        if told and self.signal is None:
            self.signal = signal.SIGTERM
        return told

    def refuse_non_finite(self, terms: np.ndarray, index: np.ndarray) -> None:
        """Raises TrainingError at the first loss that is not finite, or, with a loss that is
        scaled, after many skipped steps in a row; the last checkpoint stays as it is."""
        skipped = self.step.skipped_steps()
        if skipped:
            if skipped < self.config.train.max_skipped_steps:
                return
            reason = f"gradients have overflowed in {skipped} steps in a row"
        elif np.isfinite(terms).all():
            return
        else:
            reason = "the loss is not finite"
        values = dict(zip(STEP_TERMS, terms, strict=True)) | self.step.readings()
        shown = ", ".join(f"{name} {value:g}" for name, value in values.items())
        lines = self.corpus.train.lines[index[index >= 0]]
        raise TrainingError(
            f"step {self.state.step}: {reason} ({shown}); the batch held the lines "
            f"{', '.join(map(str, lines))} of {self.corpus.train.source}; {AFTER_AN_OVERFLOW}"
        )

    def count(self, terms: np.ndarray, tokens: np.ndarray, index: np.ndarray) -> None:
        """Adds a step to the window that the next row of the log reports."""
        real = index >= 0
        values = {}
        if not self.step.skipped_steps():
            # Nothing was learned from a skipped step, whose terms may be infinite.
            values = dict(zip(STEP_TERMS, terms.astype(float), strict=True))
            values["steps"] = 1
        values["sentences"] = int(real.sum())
        values["tokens"] = int((tokens[real, 1:] != 0).sum())
        values |= self.step.counts()
        window = self.state.window
        for name, value in values.items():
            window[name] = window.get(name, 0) + float(value)

    def log_steps(self, beta: float) -> None:
        """One row for the steps since the last: means of the terms over those that were not
        skipped, sums of sentences and tokens over all; the tokens a second are those of steps that
        compiled nothing, None where each did."""
        window, slots, state = self.state.window, self.config.slots, self.state
        steps = window.get("steps", 0)
        has_critics = slots.step == "critic_then_model"
        missing = {
            "div": slots.divergence == "none",
            "con": slots.contrast == "none",
            "critic_joint": not has_critics,
            "critic_marginal": not has_critics,
        }
        terms = {
            name: None if missing.get(name) or not steps else window[name] / steps
            for name in STEP_TERMS
        }
        now = time.monotonic()
        tokens = window["tokens"] - self.tokens_before
        seconds = max(now - self.window_started - self.compile_seconds, 1e-9)
        self.log_row(
            {
                "event": "step",
                "step": state.step,
                "epoch": state.epoch,
                "time": time.time(),
                **terms,
                "beta": beta,
                "tokens_per_second": tokens / seconds if tokens else None,
                "compile_seconds": self.compile_seconds,
                "sentences": int(window["sentences"]),
                "tokens": int(window["tokens"]),
                "devices": self.ranks.size,
                **{name: int(window[name]) for name in self.step.counts()},
                **self.step.readings(),
            }
        )
        state.window, self.tokens_before = {}, 0.0
        self.window_started, self.compile_seconds = now, 0.0

    def log_row(self, row: dict) -> None:
        """Appends a row to the log, and shows it in TensorBoard where that was asked for."""
        self.log.write(row)
        if self.events is not None:
            self.events.add_row(row)

    def validate(self, epoch: int) -> None:
        """Evaluates the validation split, logs it, and saves; the best by ``train.select`` is
        marked.

        A signal ends it without a trace: a resumed run, whose checkpoint is from before, begins it
        anew.
        """
        config, state = self.config, self.state
        started = time.monotonic()
        first = None if config.train.select == "iw_nll" else config.eval.best_valid_sentences
        weighing = None
        if first != 0:
            families = REFINED if config.eval.best_valid_refined else UNREFINED
            weighing = Weighing(config.eval.valid_iw_samples, families, first)
        try:
            metrics, _ = evaluate(
                self.evaluator,
                self.corpus.valid,
                config.eval.valid_samples,
                config.eval.max_sentences,
                weighing,
                self.corpus.train,
            )
        except _ToldToEnd:
            return
        value, kl = metrics[config.train.select], metrics["kl"]
        # A negative KL is an estimate gone wrong, and would make the worst model look best.
        is_valid = value is not None and math.isfinite(value) and (kl is None or kl >= 0)
        is_best = is_valid and (state.best is None or value < state.best)
        if is_best:
            state.best, state.waited = value, 0
        elif state.step >= self.beta_settles:
            state.waited += 1
        bound = metrics.get("iw_nll")
        is_best_valid = (
            bound is not None
            and math.isfinite(bound)
            and (state.best_valid is None or bound < state.best_valid)
        )
        if is_best_valid:
            state.best_valid = bound
        state.validated = state.step
        self.step.after_validation(metrics)
        self.log_row(
            {
                "event": "valid",
                "step": state.step,
                "epoch": epoch,
                "time": time.time(),
                **metrics,
                "valid": is_valid,
                "best": is_best,
                "best_valid": is_best_valid,
                **self.step.state(),
                "seconds": time.monotonic() - started,
            }
        )
        if not is_valid:
            warn_user(f"epoch {epoch}: KL {kl}, {config.train.select} {value}: not a candidate")
        tell(validation_line(epoch, metrics, is_best))
        self.save(best=is_best, best_valid=is_best_valid)

    def save(self, best: bool = False, best_valid: bool = False) -> None:
        """Writes a checkpoint of everything that a resumed run needs.

        Raises:
            TrainingError: an update left a parameter that is not finite; the last checkpoint stays
                as it is.
        """
        tensors = {parameter.name: parameter.asnumpy() for parameter in self.step.get_parameters()}
        for name, values in tensors.items():
            if not np.isfinite(values).all():
                raise TrainingError(
                    f"step {self.state.step}: {name} is not finite; {AFTER_AN_OVERFLOW}"
                )
        self.state.log_rows = self.log.sync()
        self.state.step_state = self.step.state()
        if self.ranks.rank > 0:
            return
        checkpoints.save(
            self.run.checkpoints,
            self.state.step,
            tensors,
            {"system": self.config.system, **dataclasses.asdict(self.state)},
            {**self.fingerprints, "machine": choosing.machine()},
            best=best,
            best_valid=best_valid,
            keep=self.config.train.keep_checkpoints,
        )

    def restore(self) -> bool:
        """Loads the latest good checkpoint; False, with a message, where there is none."""
        if not checkpoints.steps(self.run.checkpoints):
            warn_user(f"{self.run.folder} has no checkpoint: training starts at step 0")
            return False
        saved = checkpoints.load(self.run.checkpoints)
        checkpoints.check_fingerprints(saved, self.fingerprints, self.force)
        before, now = saved.fingerprints.get("machine"), choosing.machine()
        if before not in (None, now):
            warn_user(
                f"{saved.path} was written by {before}, and this is {now}: the last digits of what "
                "follows may be others than there"
            )
        self.state = TrainingState.read(saved, self.step.state())
        # The optimizers keep their rates as parameters, which --force may have changed since.
        rates = {
            parameter.name: parameter.asnumpy()
            for parameter in self.step.get_parameters()
            if parameter.name.endswith(".learning_rate")
        }
        restore(self.step, {**saved.tensors, **rates}, str(saved.path))
        self.step.load_state(self.state.step_state)
        return True

    def start_row(self, event: str) -> dict:
        """The row of the log that says what is trained, on what, from where."""
        splits = {
            split.name: {"sentences": len(split), "tokens": split.tokens, **split.counts}
            for split in self.corpus.splits
        }
        return {
            "event": event,
            "step": self.state.step,
            "epoch": self.state.epoch,
            "system": self.config.system,
            "seed": self.config.seed,
            "precision": self.config.precision,
            "amp_level": self.config.model.amp_level,
            "device": self.device,
            "devices": self.ranks.size,
            "version": __version__,
            "mindspore": ms.__version__,
            "python": platform.python_version(),
            "parameters": sum(p.size for p in self.model.get_parameters()),
            "vocabulary": len(self.corpus.vocabulary),
            "widths": list(self.widths),
            "steps_per_epoch": self.steps_per_epoch,
            "splits": splits,
            "corpus": self.fingerprints["data"],
        }

    def _end_if_told(self) -> None:
        if self.signal is not None:
            raise _ToldToEnd

    @staticmethod
    def _signals() -> list[signal.Signals]:
        """The signals that save and end: none in another thread than the main one, which Python
        gives none, and no hang-up that nohup has told to ignore."""
        if threading.current_thread() is not threading.main_thread():
            return []
        ends = [signal.SIGTERM, signal.SIGINT]
        return ends + [signal.SIGHUP] * (signal.getsignal(signal.SIGHUP) != signal.SIG_IGN)

    def _on_signal(self, number: int, frame: object) -> None:
        """The first signal ends training after the step; a second one ends the process."""
        if self.signal is not None:
            # Not by an exception, which compiled code on the way up may hold back or change.
            os._exit(128 + number)
        self.signal = number
        warn_user(f"{signal.Signals(number).name}: finishing the step and saving (again: at once)")


def validation_line(epoch: int, metrics: dict, is_best: bool) -> str:
    """A validation as one line for a person."""
    names = ("rec", "kl", "neg_elbo", "ppl", "mi", "au", "true_ppl")
    shown = [f"{name} {metrics[name]:.2f}" for name in names if metrics.get(name) is not None]
    return f"epoch {epoch}: valid {', '.join(shown)}{' (best)' if is_best else ''}"


def train(
    config: Config,
    folder: str | Path,
    resume: bool = False,
    overwrite: bool = False,
    *,
    corpus: Corpus,
    force: bool = False,
    profile: bool = False,
) -> str:
    """Trains a configuration in a run folder, together with the other processes of a data-parallel
    job, of which the first one writes and may be profiled; see :class:`Trainer`.

    Returns:
        Why training ended.
    """
    ranks, device = join(config.slots.views), choosing.chosen()
    with contextlib.ExitStack() as stack:
        if ranks.rank == 0:
            run: Run | RunFolder = stack.enter_context(Run(folder, resume, overwrite))
        # The others look at the folder once it is as it shall be.
        ranks.total(np.zeros(1))
        if ranks.rank > 0:
            run = RunFolder(folder)
        profiler = None
        if profile and ranks.rank == 0:
            profiler = StepProfiler(Path(folder) / PROFILE, device)
        config = with_chosen_buckets(config, corpus, device)
        return Trainer(config, corpus, run, device, force, ranks, profiler).fit(resume)
