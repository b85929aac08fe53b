"""Bars: their rate and time left beside steps that compile, on a clock that a test turns."""

from __future__ import annotations

import contextlib
import io
import sys
import time

import pytest
import tqdm.std

from mindspore_cvae.common.progress import Compilations, progress, silence, tell_loading


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(tqdm.std, "time", clock)
    return clock


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_a_unit_apart_counts_in_neither_rate_nor_time_left(kind, clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", kind())
    bar = progress("epoch 1", 130, "steps", 10)
    for seconds_apart in (50, 70):
        bar.announce("compiling 24 words, 2 of 6")
        clock.now += seconds_apart
        bar.update_apart(seconds_apart)
        for _ in range(20):
            clock.now += 2
            bar.update(1)
    assert bar.n == 52
    # Half a step a second for the 78 that are left.
    assert "52/130  0.50 steps/s, 02:36 left" in str(bar)
    bar.close()


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_an_announcement_is_seen_at_once(kind, clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", kind())
    bar = progress("epoch 1", 130, "steps")
    bar.announce("compiling 24 words, 1 of 6")
    assert "0/130" in sys.stderr.getvalue()
    assert "compiling 24 words, 1 of 6" in sys.stderr.getvalue()
    bar.close()


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_first_calls_of_graphs_are_told_and_left_out_of_the_rate(kind, clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", kind())
    monkeypatch.setattr(time, "monotonic", clock)
    bar, compilations = progress("scoring test", 100, "sentences"), Compilations()
    for graph, seconds in (("a", 60), ("b", 90), ("a", 2), ("b", 2), ("a", 2)):
        before = sys.stderr.getvalue().count("compiling b words")
        with compilations.watched(bar, graph, f"{graph} words", 10):
            is_told = sys.stderr.getvalue().count("compiling b words") > before
            assert is_told == ((graph, seconds) == ("b", 90))
            clock.now += seconds
    # Five sentences a second for the 50 that are left, and no word of a graph any more.
    assert "50/100  5.00 sentences/s, 00:10 left" in str(bar)
    assert "compiling" not in str(bar)
    bar.close()


def test_what_failed_to_compile_is_compiled_again(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    bar, compilations = progress("scoring test", 100, "sentences"), Compilations()
    for done in (0, 0, 10):
        with contextlib.suppress(InterruptedError), compilations.watched(bar, "a", "words", 10):
            if sys.stderr.getvalue().count("compiling words") < 3:
                raise InterruptedError
        assert bar.n == done
    bar.close()


def test_loading_is_told_once(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "mindspore", sys)
    tell_loading("a checkpoint")
    monkeypatch.delitem(sys.modules, "mindspore")
    tell_loading("a checkpoint")
    tell_loading()
    with silence():
        tell_loading()
    assert capsys.readouterr().err == "loading MindSpore, a checkpoint\nloading MindSpore\n"
