"""Arrays that others wrote: read as NumPy reads them, or refused before they cost anything."""

import io
import struct

import numpy as np
import pytest

from mindspore_cvae.common.arrays import UNREADABLE, read_array


def anything(kind, shape):
    """Refuses nothing."""


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array(3.5),
        np.empty((0, 4), np.float16),
        np.array([1.5, 2.5], ">f8"),
    ],
)
def test_an_array_is_read_as_numpy_reads_it(array):
    file = io.BytesIO()
    np.save(file, array)
    seen = []
    read = read_array(io.BytesIO(file.getvalue()), lambda *claim: seen.append(claim))
    assert seen == [(str(array.dtype), array.shape)] and read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)
    read[...] = 0


def claim(header, version=(1, 0), content=b"", length=None):
    """A file of NumPy's format with a header that nobody checked."""
    size = struct.pack("<H" if version == (1, 0) else "<I", length or len(header))
    return b"\x93NUMPY" + bytes(version) + size + header + content


def described(shape, kind="'<f4'"):
    return f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}}}\n".encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"weights",
        claim(b""),
        claim(b"{[]: 1}\n"),
        claim(b"-" * 9000 + b"1\n"),
        claim(b"(" * 9000 + b"\n"),
        claim(b"{'descr': '<f4',\n"),
        claim(described("(2,)", kind="[]")),
        claim(described("(2,)"), content=bytes(7)),
        claim(described("(-1,)")),
        claim(described("(10**300,)".replace("10**300", "1" + "0" * 300))),
        claim(described("(2,)", kind="'|O'"), content=bytes(16)),
        claim(described("(2,)"), version=(2, 0), content=bytes(8)),
        claim(b"", version=(2, 0), length=2**32 - 1),
        claim(described("(2,)"), version=(9, 9), content=bytes(8)),
    ],
)
def test_what_is_no_array_is_told_by_one_of_the_known_errors(content):
    with pytest.raises(UNREADABLE):
        read_array(io.BytesIO(content), anything)


class Counting(io.BytesIO):
    """Knows how many bytes were asked for."""

    asked = 0

    def read(self, size=-1):
        self.asked += size
        return super().read(size)


def test_a_refused_array_is_not_read():
    def refuse(kind, shape):
        raise InterruptedError(f"{kind} {shape}")

    stream = Counting(claim(described("(1000000,)")))
    with pytest.raises(InterruptedError, match=r"float32 \(1000000,\)"):
        read_array(stream, refuse)
    assert 0 < stream.asked < 200
