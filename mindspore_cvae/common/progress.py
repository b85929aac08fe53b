"""Progress of long work: a bar that rewrites itself on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Hashable, Iterator
from contextvars import ContextVar

from tqdm import tqdm

from mindspore_cvae.common import memory

LINE_EVERY_SECONDS = 30.0
"""Pause between two plain lines where standard error is not a terminal."""


class Bar(tqdm):
    """A bar whose rate and time left may leave out work that is not like the rest."""

    def announce(self, note: str) -> None:
        """Shows at once what slow work begins, in the place of the note."""
        self.set_postfix_str(note)

    def update_apart(self, seconds: float, units: int = 1) -> None:
        """Counts units as done that say nothing of the others' speed.

        Args:
            seconds: how long they took, up to now.
            units: how many.
        """
        if self.disable:
            return
        # To the bar it is as if it had been done before the start, and the clock had stood still.
        self.n += units
        self.initial += units
        self.last_print_n += units
        self.start_t += seconds
        self.last_print_t += seconds


class _Lines(Bar):
    """A bar's text as a plain line now and then."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if self.n or self.postfix:
            self.fp.write(f"{msg or self}\n")
            self.fp.flush()

    def close(self) -> None:
        self.disable = True


_IS_SILENT = ContextVar("is_silent", default=False)


@contextlib.contextmanager
def silence(is_silent: bool = True) -> Iterator[None]:
    """Meanwhile nothing is shown of what goes on, or all of it."""
    token = _IS_SILENT.set(is_silent)
    try:
        yield
    finally:
        _IS_SILENT.reset(token)


def tell(line: str) -> None:
    """A line for a person on standard error, beside a bar."""
    if not _IS_SILENT.get():
        sys.stderr.write(line + "\n")


def tell_loading(what: str = "") -> None:
    """A line that MindSpore is being loaded, which takes seconds, unless it is there already.

    Args:
        what: is loaded beside it.
    """
    if "mindspore" not in sys.modules:
        tell(f"loading MindSpore{what and f', {what}'}")


class Compilations:
    """What was compiled by one user of graphs, which is done at their first calls and takes seconds
    to minutes: a bar says so meanwhile, and its rate and time left leave it out."""

    def __init__(self) -> None:
        self._done: set[Hashable] = set()

    @contextlib.contextmanager
    def watched(self, bar: Bar, graph: Hashable, note: str, units: int) -> Iterator[None]:
        """Around the calls that do some units of a bar; gives back what compiling has left.

        Args:
            bar: counts the units when the block is left without an error.
            graph: what is compiled, if it was not before.
            note: of it, for a person.
            units: how many are done.
        """
        is_first, started = graph not in self._done, time.monotonic()
        if is_first:
            bar.announce(f"compiling {note}")
        yield
        if is_first:
            self._done.add(graph)
            memory.give_back()
            bar.set_postfix_str("", refresh=False)
            bar.update_apart(time.monotonic() - started, units)
        else:
            bar.update(units)


def progress(title: str, total: int, unit: str, done: int = 0) -> Bar:
    """A counter on standard error that shows rate and time left; ``set_postfix_str`` adds a note.

    Args:
        title: what is being done.
        total: how much there is.
        unit: of what.
        done: how much was done before.
    """
    common = {"desc": title, "total": total, "unit": f" {unit}", "initial": done, "leave": False}
    # {rate_fmt} would turn into seconds a step where steps are slow.
    if _IS_SILENT.get():
        return Bar(**common, disable=True)
    text = "{n}/{total} {rate_noinv_fmt}, {remaining} left{postfix}"
    if sys.stderr.isatty():
        return Bar(**common, dynamic_ncols=True, bar_format="{desc}: {bar} " + text)
    return _Lines(**common, mininterval=LINE_EVERY_SECONDS, bar_format="{desc}: " + text)
