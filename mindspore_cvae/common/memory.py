"""Memory that was freed, and that the process still holds."""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Returns freed memory to the operating system, which the C library keeps for later.

    A compiled graph leaves a tenth of a gigabyte of it behind, in pieces too small for the arrays
    of the steps that follow. Does nothing where the C library has no ``malloc_trim`` (it is
    glibc's).
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
