"""The folder of a run: what lies in it, who may write there, and its log.

    RUN/config.yaml           the merged configuration
    RUN/vocab.txt             one word a line, in the order of their numbers
    RUN/pieces.model          how sentencepiece splits, where data.unit says so
    RUN/log.jsonl             one JSON object a line, written as training goes
    RUN/checkpoints/          see :mod:`runs.checkpoints`
    RUN/metrics-<split>.json  the last evaluation of each split
    RUN/ngram.json            the last perplexities by KenLM
    RUN/probe.json            how well labels were last read from codes
    RUN/codes.safetensors     codes of the training sentences, see :mod:`runs.codes`
    RUN/report.html           all of it for people, see :mod:`report.sections`
    RUN/profile/              what MindSpore's profiler wrote (``train.py --profile``)
    RUN/tensorboard/          see :mod:`runs.events` (``train.tensorboard``)
    RUN/lock                  held while a process trains here

A folder may come from somebody else: links among these names are refused, so that nothing is
written outside of it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindspore_cvae import __version__
from mindspore_cvae.common.files import (
    is_temporary,
    open_own,
    read_regular,
    remove_temporary,
    write_atomically,
)
from mindspore_cvae.common.numbers import is_finite
from mindspore_cvae.config import keys as config_keys
from mindspore_cvae.config import layers as configuration
from mindspore_cvae.config import options as config_options
from mindspore_cvae.config.keys import Config
from mindspore_cvae.data.units import PIECES
from mindspore_cvae.errors import InputError, warn_user
from mindspore_cvae.runs import events
from mindspore_cvae.runs.checkpoints import is_sealed
from mindspore_cvae.runs.checkpoints import own_files as checkpoint_files
from mindspore_cvae.runs.lock import LOCK, Lock

if TYPE_CHECKING:
    from mindspore_cvae.data.corpus import Corpus

CONFIG = "config.yaml"

VOCABULARY = "vocab.txt"

LOG = "log.jsonl"

CHECKPOINTS = "checkpoints"

NGRAM = "ngram.json"

PROBE = "probe.json"

CODES = "codes.safetensors"

PROFILE = "profile"

REPORT = "report.html"

EXPORT = "export"
EXPORT_DESCRIPTION = "description.json"
EXPORT_WEIGHTS = "weights.safetensors"

MARK = "# A run of mindspore_cvae"
"""How the first line of a run's configuration begins; our version follows."""

BESIDE = ("lost+found", ".ipynb_checkpoints", ".DS_Store", ".directory", ".keep", ".gitkeep")
BESIDE_ENDS = (".log", ".out", ".err")
"""What may lie in a folder in which a run is begun; it stays there."""

SPLITS = ("train", "valid", "test")
"""Splits of which a run may have metrics."""


def sentences_name(split: str) -> str:
    """The file of every sentence's values of a split."""
    return f"sentences-{split}.tsv"


def metrics_name(split: str) -> str:
    """Name of the file with a split's metrics."""
    return f"metrics-{split}.json"


WRITTEN = (
    *(VOCABULARY, PIECES, LOG, NGRAM, PROBE, CODES, REPORT),
    *map(metrics_name, SPLITS),
    *map(sentences_name, SPLITS),
)
"""Files that a run's commands write beside its configuration, its lock and its folders."""


def is_run(folder: str | os.PathLike) -> bool:
    """Whether a folder holds a run to be read: a configuration, and a log or a folder of
    checkpoints."""
    folder = Path(folder)
    has_results = (folder / LOG).is_file() or (folder / CHECKPOINTS).is_dir()
    return (folder / CONFIG).is_file() and has_results


def is_ours(folder: str | os.PathLike) -> bool:
    """Whether a run bears a mark that we made, without which nothing in it is deleted: the first
    line of its configuration, or of its log, or the seal of a checkpoint."""
    folder = Path(folder)
    is_marked = _first_line(folder / CONFIG).startswith(MARK) or _is_our_log(folder / LOG)
    return is_run(folder) and (is_marked or is_sealed(folder / CHECKPOINTS))


def _first_line(path: Path) -> str:
    if not path.is_file():
        return ""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline(1 << 16)
    except OSError:
        return ""


def _is_our_log(path: Path) -> bool:
    try:
        row = json.loads(_first_line(path))
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and row.get("event") == "start" and "version" in row


def is_own(folder: Path, path: Path) -> bool:
    """Whether a path is the place of one of the files that a run's commands write and read.

    Args:
        folder: the run.
        path: A path below it.
    """
    first, *rest = path.relative_to(folder).parts
    folders = (CHECKPOINTS, EXPORT, PROFILE, events.FOLDER)
    if rest:
        return first in folders
    return first in (CONFIG, LOCK, *WRITTEN, *folders)


def check(folder: str | os.PathLike, resume: bool = False, overwrite: bool = False) -> None:
    """Refuse a folder that training must not write to; writes nothing.

    Args:
        folder: where the run is to lie; it need not exist.
        resume: the run that lies there is to be continued; a folder without a run is fine too.
        overwrite: the run that lies there is to be deleted.

    Raises:
        InputError: A run is there and neither resume nor overwrite was said, or both were; or the
            folder holds other things than a run; or a part of the run is a link.
    """
    folder = Path(folder)
    if resume and overwrite:
        raise InputError("--resume continues a run and --overwrite deletes it: choose one")
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder, so no run can lie there: choose another")
    for name in (CONFIG, VOCABULARY, PIECES, LOG, CHECKPOINTS, LOCK, PROFILE, events.FOLDER):
        if (folder / name).is_symlink():
            raise InputError(f"{folder / name} is a link: a run's own files must lie in its folder")
    try:
        if is_ours(folder):
            if not resume and not overwrite:
                raise InputError(
                    f"{folder} is already a run: --resume continues it, --overwrite deletes it and "
                    "starts anew"
                )
        elif not _is_fresh(folder):
            raise InputError(f"{folder} is not empty and not a run: choose another --output_dir")
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}") from None


def _is_fresh(folder: Path) -> bool:
    """Whether nothing is there but what a process that died at once leaves, and what others put
    into a new folder: a file system, a desktop, a notebook, a scheduler."""
    rest = {path.name for path in folder.iterdir() if not is_temporary(path)}
    rest = {name for name in rest if not (name in BESIDE or name.endswith(BESIDE_ENDS))}
    checkpoints = folder / CHECKPOINTS
    return rest <= {LOCK, CHECKPOINTS} and not (checkpoints.exists() and any(checkpoints.iterdir()))


def read_config(
    folder: str | os.PathLike,
    overrides: Iterable[str] = (),
    *,
    data_dir: str | None = None,
    device_target: str | None = None,
    device_id: int | None = None,
    precision: str | None = None,
    amp_level: str | None = None,
) -> Config:
    """The configuration of a run that is to be used (evaluated, decoded, exported).

    Args:
        folder: the run.
        overrides, data_dir, device_target, device_id, precision, amp_level: see
            :func:`config.layers.load`. Only what leaves the model as it is may change.

    Raises:
        InputError: The folder is no run, or a setting would make it another model.
    """
    folder = Path(folder)
    if not is_run(folder):
        state = "is not a run (it has no config.yaml)" if folder.is_dir() else "does not exist"
        raise InputError(f"{folder} {state}: give the --output_dir of a training run")
    saved = configuration.read_saved(folder / CONFIG)
    config = configuration.override(
        saved,
        overrides,
        data_dir=data_dir,
        device_target=device_target,
        device_id=device_id,
        precision=precision,
        amp_level=amp_level,
    )
    old, new = config_keys.flatten(saved), config_keys.flatten(config)
    for key in old:
        if new[key] != old[key] and key not in config_keys.USABLE_AFTER_TRAINING:
            before, after = config_options.shown(old[key]), config_options.shown(new[key])
            raise InputError(
                f"{config_options.COMMAND_LINE}: {key} is {before} in {folder / CONFIG} and cannot "
                f"be {after} after training (--help lists what can be set)"
            )
    return config


def trained_on(folder: str | os.PathLike) -> str | None:
    """The fingerprint of the corpus that a run was trained on, by its log; None where an older
    version wrote it."""
    starts = (row for row in log_rows(folder) if row.get("event") in ("start", "resume"))
    last = deque(starts, maxlen=1)
    return last[0].get("corpus") if last else None


EVALUATED = (
    "system",
    "split",
    "text",
    "max_sentences",
    "samples",
    "checkpoint",
    "step",
    "precision",
    "amp_level",
)
"""Keys of metrics that say of what they are: where all are equal, so are the columns that two
evaluations share."""


def write_metrics(
    folder: str | os.PathLike,
    split: str,
    metrics: Mapping[str, object],
    sentences: Mapping[str, Sequence] | None = None,
) -> Path:
    """Write ``metrics-<split>.json`` atomically; numbers that are not finite become null.

    Columns that an evaluation of the same checkpoint, text and settings has left there stay; with a
    warning, those of another do not.

    Args:
        folder: the run.
        split: which the metrics are of.
        metrics: by name.
        sentences: values of each sentence by name, for :func:`write_sentences`; None writes none.

    Returns:
        The file's path.
    """
    path = Path(folder) / metrics_name(split)
    before = read_metrics(folder, path.name)
    is_same = "step" in before and all(before.get(key) == metrics.get(key) for key in EVALUATED)
    if sentences is not None:
        write_sentences(folder, split, sentences, is_same)
    if is_same:
        metrics = {**before, **metrics}
    elif lost := sorted(before.keys() - metrics.keys()):
        warn_user(
            f"{path} held {', '.join(lost)} of another checkpoint, text or settings: replaced "
            "(--output writes elsewhere)"
        )
    write_json(path, metrics)
    return path


def write_sentences(
    folder: str | os.PathLike, split: str, columns: Mapping[str, Sequence], is_added: bool
) -> Path:
    """Write the values of every sentence beside the metrics, ``RUN/sentences-<split>.tsv``.

    Args:
        folder: the run.
        split: which the sentences are of.
        columns: values by name, one a sentence.
        is_added: whether columns of the file that is there stay, being of the same evaluation.

    Returns:
        The file's path.
    """
    path = Path(folder) / sentences_name(split)
    before = read_sentences(path) if is_added else {}
    count = len(next(iter(columns.values()), ()))
    kept = {name: values for name, values in before.items() if len(values) <= count}
    write_atomically(path, tab_separated({**kept, **columns}))
    return path


def tab_separated(columns: Mapping[str, Sequence]) -> str:
    """Columns as tab-separated text, one row a sentence, with their names in the first row.

    A column of fewer sentences ends in empty cells.
    """
    rows = itertools.zip_longest(*columns.values(), fillvalue="")
    lines = ["\t".join(columns), *("\t".join(map(str, row)) for row in rows)]
    return "\n".join(lines) + "\n"


def read_sentences(path: str | os.PathLike) -> dict[str, list[str]]:
    """Columns of a file of :func:`write_sentences`, as texts without empty ones at their end; none
    where it is missing or no such file."""
    try:
        lines = read_regular(Path(path)).decode().splitlines()
    except (OSError, ValueError):
        return {}
    names, rows = (lines or [""])[0].split("\t"), [line.split("\t") for line in lines[1:]]
    if any(len(row) != len(names) for row in rows):
        return {}
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=False))
    return {name: values[: _filled(values)] for name, values in columns.items()}


def _filled(values: Sequence[str]) -> int:
    return next((number for number, value in enumerate(values) if not value), len(values))


def write_json(path: Path, document: Mapping[str, object]) -> None:
    """Write results atomically; numbers that are not finite become null."""
    write_atomically(path, json_text(document))


def json_text(document: Mapping[str, object]) -> str:
    """Results as the text of a JSON file; numbers that are not finite become null."""
    return json.dumps(_plain(document), indent=2, allow_nan=False) + "\n"


def _plain(value: object) -> object:
    """A value as JSON has it: NumPy's numbers as Python's, and null for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read_metrics(folder: str | os.PathLike, name: str) -> dict:
    """A JSON file of results in a run's folder (``metrics-test.json``, ``ngram.json``); an empty
    one where it is missing or no such file."""
    try:
        # Python may read what is nested too deep to be written again with further results.
        content = _plain(json.loads(read_regular(Path(folder) / name)))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


_LONGEST_ROW = 1 << 20
"""Characters of a line of the log that is read as a row."""


def log_rows(folder: str | os.PathLike) -> Iterator[dict]:
    """The rows of a run's log, one after the other; lines that are no rows, such as a torn last
    one, are left out."""
    try:
        path = Path(folder) / LOG
        if not path.is_file():
            return
        with open(path, encoding="utf-8", errors="replace") as file:
            # Pieces of a longer line are no rows.
            for line in iter(lambda: file.readline(_LONGEST_ROW), ""):
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(row, dict) and _is_row(row):
                    yield row
    except OSError:
        return


def read_log(folder: str | os.PathLike) -> list[dict]:
    """All of :func:`log_rows`; of a long training that is much memory."""
    return list(log_rows(folder))


def training_seconds(rows: Iterable[Mapping]) -> float:
    """What a training took by its log, over all its parts.

    Args:
        rows: of :func:`log_rows`.

    Returns:
        Seconds, the sum over the parts; of a part whose last row a resume has cut off, what lies
        between its first and its last time. 0 where no row says anything.
    """
    spent, part, begun = 0.0, 0.0, None
    for row in rows:
        event = row.get("event")
        if event in ("start", "resume"):
            spent, part, begun = spent + part, 0.0, None
        if event == "end" and is_finite(row.get("seconds")):
            part = row["seconds"]
        elif is_finite(row.get("time")):
            begun = row["time"] if begun is None else begun
            part = row["time"] - begun
    return spent + part


def _is_row(row: Mapping) -> bool:
    """Whether the keys that every reader relies on have their types, or are not there."""
    return all(type(row.get(key, 0)) is int for key in ("step", "epoch")) and isinstance(
        row.get("event", ""), str
    )


def resumed_config(
    folder: Path, given: Config | None, force: bool = False, **options: Any
) -> Config:
    """What a run goes on with.

    Args:
        folder: the run.
        given: another configuration than its own; None takes its own.
        force: whether it may compute other steps than it began with.
        options: of :func:`config.layers.override`, over its own.

    Raises:
        InputError: It would compute other steps.
    """
    saved = configuration.read_saved(folder / CONFIG)
    config = configuration.override(saved, **options) if given is None else given
    if config.data.buckets == "auto":
        config = replace(config, data=replace(config.data, buckets=saved.data.buckets))
    changed = configuration.differences(saved, config)
    if changed and not force:
        key, values = next(iter(changed.items()))
        old, new = map(config_options.shown, values)
        raise InputError(
            f"{key} was {old} in {folder / CONFIG} and is {new} now: a run goes on with the "
            "settings that it began with, so leave it as it was, or --force"
        )
    return config


def corpus_of_run(config: Config, run: Path | None) -> Corpus:
    """The corpus, numbered by the vocabulary of a run if there is one."""
    from mindspore_cvae.data.corpus import load_corpus
    from mindspore_cvae.data.vocabulary import Vocabulary

    vocabulary = None
    if run is not None and (run / VOCABULARY).exists():
        vocabulary = Vocabulary.load(run / VOCABULARY, config.data.unit)
    return load_corpus(config.data, vocabulary)


class Log:
    """``log.jsonl``: every row is on its way to the disk when :meth:`write` returns.

    Args:
        path: the file; it is created if it is not there.
        rows: how many rows of it stay: those that the checkpoint knew from which training goes on,
            0 for a new run. Later ones and a last line that was torn are cut off, so that there is
            neither a gap nor a repeat.
        guard: called before anything is written; raises where this process may not any more.

    Attributes:
        path: the file.
        rows: how many rows it has; after opening, fewer than asked for if somebody removed some.

    Raises:
        OSError: It cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        rows: int = 0,
        guard: Callable[[], object] = lambda: None,
    ):
        self.path = Path(path)
        self.rows = 0
        self.guard = guard
        descriptor = open_own(self.path, os.O_RDWR | os.O_APPEND)
        self._file = os.fdopen(descriptor, "r+b", buffering=0)
        os.ftruncate(self._file.fileno(), self._count_up_to(rows))

    def _count_up_to(self, rows: int) -> int:
        """Position after so many whole lines, or after all if there are fewer."""
        position = 0
        with open(self.path, "rb") as file:
            while self.rows < rows and (line := file.readline()).endswith(b"\n"):
                position += len(line)
                self.rows += 1
        return position

    def write(self, row: Mapping[str, object]) -> None:
        """Append a row. Numbers that are not finite become null.

        Raises:
            OSError: The row could not be written whole; the error names the file.
        """
        self.guard()
        line = json.dumps(_plain(row), allow_nan=False).encode() + b"\n"
        with self._named_errors():
            written = self._file.write(line)
        if written != len(line):
            raise OSError(f"{self.path}: a row could not be written whole; is the disk full?")
        self.rows += 1

    def sync(self) -> int:
        """Make all rows durable.

        Returns:
            Their number, for the state of the checkpoint that is written next.

        Raises:
            OSError: It failed; the error names the file.
        """
        self.guard()
        with self._named_errors():
            os.fsync(self._file.fileno())
        return self.rows

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Errors of the system name the file."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _exported(folder: Path) -> list[Path]:
    """The files of an export, by its description."""
    description = read_metrics(folder, EXPORT_DESCRIPTION)
    graphs = description.get("graphs")
    if not isinstance(graphs, dict):
        return []
    names = [graph.get("file") for graph in graphs.values() if isinstance(graph, dict)]
    inside = [name for name in names if isinstance(name, str) and Path(name).name == name]
    own = (EXPORT_WEIGHTS, VOCABULARY, PIECES, EXPORT_DESCRIPTION)
    return [folder / name for name in (*inside, *own)]


class Run:
    """A run's folder, held by one process that trains there. Use it as a context manager.

    Args:
        folder: the folder; it is created with its parents.
        resume, overwrite: see :func:`check`. With overwrite, the files of a run that lies there are
            deleted, and nothing else.

    Attributes:
        folder: the run's folder.
        checkpoints: its folder of checkpoints.

    Raises:
        InputError: :func:`check` refuses the folder, or another process trains there.
        OSError: The folder cannot be created or written.
    """

    def __init__(self, folder: str | os.PathLike, resume: bool = False, overwrite: bool = False):
        check(folder, resume, overwrite)
        self.folder = Path(folder)
        self.checkpoints = self.folder / CHECKPOINTS
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} cannot be created: {error.strerror}") from None
        self._lock = Lock(self.folder / LOCK)
        try:
            # What was true before the lock was taken may have changed since.
            check(folder, resume, overwrite)
            if overwrite:
                self._delete_run()
            self.checkpoints.mkdir(exist_ok=True)
            remove_temporary(self.folder)
            remove_temporary(self.checkpoints)
        except BaseException:
            self._lock.release()
            raise

    def _delete_run(self) -> None:
        """Delete the files that a run's commands made, but for the lock, and say what stays; the
        configuration goes last, so that a rest is still a run."""
        if not is_ours(self.folder):
            return
        files = [self.folder / name for name in WRITTEN]
        files += [*checkpoint_files(self.checkpoints), *_exported(self.folder / EXPORT)]
        for path in [*files, *events.own_files(self.folder)]:
            if path.is_file() or path.is_symlink():
                path.unlink()
        tensorboard = self.folder / events.FOLDER
        for folder in (self.folder / EXPORT, tensorboard / events.REPORT, tensorboard):
            with contextlib.suppress(OSError):
                folder.rmdir()
        (self.folder / CONFIG).unlink()
        left = {path.name for path in self.folder.iterdir() if not is_temporary(path)}
        left |= {f"{CHECKPOINTS}/{path.name}" for path in self.checkpoints.glob("*")}
        left -= {LOCK, CHECKPOINTS}
        if left:
            warn_user(f"{self.folder}: {', '.join(sorted(left))} stays: training did not make it")

    def write_inputs(self, config: Config, vocabulary) -> None:
        """Write ``config.yaml`` and ``vocab.txt``, with ``pieces.model`` where it takes one.

        Args:
            config: the merged configuration.
            vocabulary: A :class:`data.vocabulary.Vocabulary`.
        """
        # The configuration first: it makes the folder a run, which --overwrite may delete.
        config.save(self.folder / CONFIG, f"{MARK} {__version__}\n")
        vocabulary.save(self.folder / VOCABULARY)

    def open_log(self, rows: int = 0, warn: Callable[[str], None] = warn_user) -> Log:
        """The run's log, cut to the rows that a checkpoint knew; see :class:`Log`.

        Args:
            rows: rows to keep.
            warn: called with a sentence if the file has fewer.
        """
        log = Log(self.folder / LOG, rows, self._lock.check)
        if log.rows < rows:
            warn(f"{log.path} has {log.rows} rows of the {rows} before the checkpoint")
        return log

    def close(self) -> None:
        """Let other processes train here."""
        self._lock.release()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class RunFolder:
    """A run's folder for a process that trains there beside the one that holds it: reads, never
    writes; otherwise used as a :class:`Run`.

    Args:
        folder: the folder, which the other process has made.
    """

    rows = 0

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        self.checkpoints = self.folder / CHECKPOINTS

    def write_inputs(self, config: Config, vocabulary) -> None:
        """Does nothing."""

    def open_log(self, rows: int = 0) -> RunFolder:
        """A log that forgets every row."""
        self.rows = rows
        return self

    def write(self, row: Mapping[str, object]) -> None:
        """Counts the row."""
        self.rows += 1

    def sync(self) -> int:
        """How many rows the log of the other process has."""
        return self.rows

    def close(self) -> None:
        """Does nothing."""
