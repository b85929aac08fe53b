"""Standard streams: whose reader may go away while work goes on, whose disk may be full, and whose
terminal would obey what a text holds."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class Forgiving:
    """A stream that writes to nowhere from its first error on: telling the user never ends work
    whose results lie in files.

    Args:
        stream: where text goes while somebody reads it.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """As the stream's own."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            self._give_up()
            return len(text)

    def flush(self) -> None:
        """As the stream's own."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._give_up()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _give_up(self) -> None:
        # What is still buffered then goes where it disturbs nobody, at the end of the process too.
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextlib.contextmanager
def forgiving() -> Iterator[None]:
    """Meanwhile both standard streams are :class:`Forgiving`."""
    kept = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Forgiving(kept[0]), Forgiving(kept[1])  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout, sys.stderr = kept


class Named:
    """A stream whose errors say which one it was, as those of files name the file.

    Args:
        stream: what writes.
        name: what it is to a user.
    """

    def __init__(self, stream: TextIO, name: str):
        self._stream = stream
        self._name = name

    def write(self, text: str) -> int:
        """As the stream's own."""
        with self._naming():
            return self._stream.write(text)

    def flush(self) -> None:
        """As the stream's own."""
        with self._naming():
            self._stream.flush()

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._name) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def whole_output() -> Iterator[None]:
    """Meanwhile standard output writes all of a text, or raises an error that names it.

    Python's own, told not to buffer (``-u``, PYTHONUNBUFFERED), writes once and passes over that
    less was taken: a full disk ends a file in the middle of a word, without an error.
    """
    kept = stream = sys.stdout
    buffer = None
    if isinstance(getattr(stream, "buffer", None), io.RawIOBase):
        buffer = io.BufferedWriter(stream.buffer)  # type: ignore[type-var]
        stream = io.TextIOWrapper(buffer, stream.encoding, stream.errors, line_buffering=True)
    sys.stdout = Named(stream, "standard output")  # type: ignore[assignment]
    try:
        yield
    finally:
        if buffer is not None:
            # Left as it is, it would close the stream below when it is collected.
            stream.detach()  # type: ignore[union-attr]
            buffer.detach()
        sys.stdout = kept


def drop_unwritten() -> None:
    """What standard output could not take then goes nowhere when the process ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def without_controls(text: str) -> str:
    """A text whose control characters, but for tabs and the ends of lines, are written out."""
    return _CONTROLS.sub(lambda found: f"\\x{ord(found.group()):02x}", text)


class Legible:
    """A stream to a terminal, which shows what a text holds and does not obey it.

    Words of a corpus, keys of a file and names of folders may hold escape sequences, which move the
    cursor, set the title or worse.

    Args:
        stream: a terminal's.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """As the stream's own."""
        self._stream.write(without_controls(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def legible_output() -> Iterator[None]:
    """Meanwhile standard output is :class:`Legible`, if it is a terminal; files get every byte."""
    stream = sys.stdout
    if stream.isatty():
        sys.stdout = Legible(stream)  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout = stream
