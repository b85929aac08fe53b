"""Arrays of NumPy's format in files that others wrote."""

from __future__ import annotations

import lzma
import math
import sys
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from typing import IO

import numpy as np

UNREADABLE = (
    *(AttributeError, EOFError, LookupError, MemoryError, NotImplementedError, RuntimeError),
    *(SyntaxError, TypeError, ValueError, lzma.LZMAError, tokenize.TokenError),
    *(zipfile.BadZipFile, zlib.error),
)
"""What the readers of archives and of NumPy's headers, which are Python literals, raise at bytes
that are none."""


def read_array(stream: IO[bytes], check: Callable[[str, tuple[int, ...]], None]) -> np.ndarray:
    """Read one array of a ``.npy`` file.

    Args:
        stream: the file, or a part of an archive; its bytes are read once, and no more of them
            than the array has.
        check: called with the array's type (``float32``) and shape before its numbers are read;
            raises what the caller refuses them with.

    Returns:
        The array, in a memory of its own.

    Raises:
        ValueError: It is no array, is cut off, or holds objects, which would be code.
        Exception: Others of :data:`UNREADABLE`, for a header that is damaged.
    """
    version = np.lib.format.read_magic(stream)
    # Headers of the later versions may say that they have gigabytes; numbers never need one.
    if version != (1, 0):
        raise ValueError(f"version {version} of NumPy's format")
    shape, is_fortran, kind = np.lib.format.read_array_header_1_0(stream)
    check(str(kind), shape)
    size = math.prod(shape) * kind.itemsize
    if kind.hasobject or not 0 <= size <= sys.maxsize:
        raise ValueError(f"an array of {kind} and shape {shape}")
    content = stream.read(size)
    if len(content) != size:
        raise ValueError(f"{len(content)} bytes where an array has {size}")
    array = np.frombuffer(content, kind).reshape(shape, order="F" if is_fortran else "C")
    return array.copy()
