"""A run for TensorBoard: what its log says as scalars, what its model makes as text and codes.

    RUN/tensorboard/          one event file, made of the rows of the log
    RUN/tensorboard/report/   one event file with the report's sentences; the codes and their table

The log is the original and the event file its picture: a run that goes on paints it anew from the
rows that it goes on from, so that no reader meets a point twice, or one of steps that were lost.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mindspore_cvae.common.files import open_own, write_atomically
from mindspore_cvae.common.numbers import is_finite
from mindspore_cvae.errors import InputError, warn_user

FOLDER = "tensorboard"
REPORT = "report"
"""The folder in it for what the report shows; TensorBoard takes it for a run of its own."""
SUFFIX = ".mindspore_cvae"
"""How the names of our event files end."""
CODES, SENTENCES = "codes.tsv", "sentences.tsv"
PROJECTOR = "projector_config.pbtxt"
"""Where TensorBoard's projector looks for what to show."""
_SOURCES = {"step": "train", "valid": "valid"}
"""Events of the log whose numbers are scalars, and how their names begin."""
_KEYS = ("step", "epoch", "time")
"""What a row's numbers are of, and no numbers of their own."""
_PAUSE = 10.0
"""Seconds for which points may wait to be written."""


def require() -> None:
    """Refuse to go on without the package that writes event files.

    Raises:
        InputError: It is not installed.
    """
    if importlib.util.find_spec("tensorboardX") is None:
        raise InputError(
            "train.tensorboard needs the package tensorboardX: pip install tensorboardX, or set "
            "it to false"
        )


def own_files(run: Path) -> list[Path]:
    """The files that this module made in a run, those of the report first."""
    folder = run / FOLDER
    if folder.is_symlink() or not folder.is_dir():
        return []
    found = []
    report = folder / REPORT
    if report.is_dir() and not report.is_symlink():
        found = [report / name for name in (CODES, SENTENCES, PROJECTOR)] + _event_files(report)
    return [path for path in found + _event_files(folder) if path.is_file() or path.is_symlink()]


def _event_files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"events.out.tfevents.*{SUFFIX}"))


def _empty(path: Path) -> None:
    """Takes all out of a file, which a TensorBoard that reads it would miss if it were gone."""
    descriptor = open_own(path)
    os.ftruncate(descriptor, 0)
    os.close(descriptor)


def scalars(row: Mapping) -> dict[str, float]:
    """The finite numbers of a row of the log by the names that they have in TensorBoard:
    ``train/loss``, ``valid/neg_elbo``; none of other rows than those of steps and validations."""
    source = _SOURCES.get(row.get("event", ""))
    if source is None:
        return {}
    return {
        f"{source}/{name}": float(value)
        for name, value in row.items()
        if name not in _KEYS and is_finite(value)
    }


class EventFile:
    """A new event file of a run, in the place of those that we made in its folder.

    Args:
        run: the run's folder.
        part: the folder in RUN/tensorboard where it lies; empty for that one.

    Attributes:
        folder: where it lies.

    Raises:
        InputError: The folder cannot be made or written, or is a link.
    """

    def __init__(self, run: Path, part: str = ""):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        self.folder = folder = run / FOLDER / part
        for place in (run / FOLDER, folder):
            if place.is_symlink():
                raise InputError(f"{place} is a link: a run's own files must lie in its folder")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            before = _event_files(folder)
            for path in before:
                _empty(path)
            # As a whole path: of others, what precedes a colon would name a service on the net.
            self._writer = EventsWriter(str(folder.absolute() / "events"), SUFFIX)
        except OSError as error:
            raise InputError(
                f"{folder} cannot be written ({error.strerror}): make room, or set "
                "train.tensorboard to false"
            ) from None
        # A new file of the same second has the name of the last one before.
        self._emptied = set(before) - {_event_files(folder)[-1]}
        self._flushed = time.monotonic()
        self._event = event_pb2.Event
        # A TensorBoard that is looking on forgets what it read of the files before.
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(0, time.time(), session_log=start)

    def add_row(self, row: Mapping) -> None:
        """Adds the scalars of a row of the log, at its step and time; if that fails, as on a full
        disk, with a warning, nothing more is written."""
        from tensorboardX.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=tag, simple_value=number) for tag, number in scalars(row).items()
        ]
        if values:
            when = row.get("time", time.time())
            self._write(row["step"], when, summary=Summary(value=values))

    def add_text(self, name: str, text: str, step: int) -> None:
        """Adds a text.

        Args:
            name: of the text.
            text: in Markdown.
            step: of the model.
        """
        from tensorboardX.summary import text as summary_of

        self._write(step, time.time(), summary=summary_of(name, text))

    def _write(self, step: int, when: float, **content: object) -> None:
        if self._writer is None:
            return
        try:
            event = self._event(step=step, wall_time=when, **content)
            self._writer.write_event(event)
            if time.monotonic() - self._flushed > _PAUSE:
                self._writer.flush()
                self._flushed = time.monotonic()
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Writes what is left, closes the file, and removes those before it."""
        for path in self._emptied:
            with contextlib.suppress(OSError):
                path.unlink()
        if self._writer is not None:
            try:
                self._writer.close()
            except OSError as error:
                self._give_up(error)
            self._writer = None

    def _give_up(self, error: OSError) -> None:
        warn_user(
            f"{self.folder}: {error.strerror}; nothing more is written for TensorBoard "
            "(--resume writes all of it anew)"
        )
        self._writer = None


def follow(run: Path, rows: Iterable[Mapping]) -> EventFile:
    """An event file of a run that shows the rows of its log, to be given those that follow.

    Args:
        run: the run's folder.
        rows: of the log.

    Raises:
        InputError: see :class:`EventFile`.
    """
    events = EventFile(run)
    for row in rows:
        events.add_row(row)
    return events


def write_codes(folder: Path, codes: np.ndarray, columns: Mapping[str, Sequence[str]]) -> None:
    """Writes an embedding for TensorBoard's projector.

    Args:
        folder: an existing one.
        codes: (N, Z).
        columns: N texts of each point by name, at least two columns.
    """
    rows = [tuple(columns), *zip(*columns.values(), strict=True)]
    cells = ("\t".join(" ".join(cell.split()) for cell in row) for row in rows)
    write_atomically(folder / SENTENCES, "\n".join(cells) + "\n")
    numbers = ("\t".join(f"{value:.6g}" for value in code) for code in codes.tolist())
    write_atomically(folder / CODES, "\n".join(numbers) + "\n")
    names = f'  tensor_name: "codes"\n  tensor_path: "{CODES}"\n  metadata_path: "{SENTENCES}"\n'
    write_atomically(folder / PROJECTOR, f"embeddings {{\n{names}}}\n")
