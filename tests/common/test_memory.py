"""Freed memory goes back to the operating system."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import pytest

from mindspore_cvae.common import memory

MEGABYTE = 2**20


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc")
def test_freed_pieces_go_back():
    """Pieces too small to be mapped alone, below one that is kept: the heap cannot shrink by
    itself."""
    c = ctypes.CDLL(None)
    if not hasattr(c, "malloc_trim"):
        pytest.skip("the C library is not glibc, and has no malloc_trim")
    c.malloc.restype, c.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    c.free.argtypes = [ctypes.c_void_p]
    pieces = [c.malloc(65536) for _ in range(1024)]
    for piece in pieces:
        ctypes.memset(piece, 1, 65536)
    kept = pieces.pop()
    for piece in pieces:
        c.free(piece)
    before = resident()
    memory.give_back()
    assert before - resident() > 32 * MEGABYTE
    c.free(kept)


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    memory.give_back()
