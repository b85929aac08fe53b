"""Bars: their rate and time left beside steps that compile, on a clock that a test turns."""

from __future__ import annotations

import io
import sys

import pytest
import tqdm.std

from mindspore_cvae.common.progress import progress


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
