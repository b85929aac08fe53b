"""Files that are whole or absent: temporary name, fsync, check, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

TEMPORARY_SUFFIX = ".tmp"
"""Ending of every unfinished file."""
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}" + re.escape(TEMPORARY_SUFFIX), re.DOTALL)
"""Names of unfinished files; a user's ``.data.tmp`` is none."""


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems know no fsync of a folder; theirs is the best that can be had.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def write_atomically(
    path: Path, content: bytes | str, check: Callable[[Path], None] | None = None
) -> None:
    """Write a file so that, whenever the process dies, the old or the new content is there, whole.

    Args:
        path: the file; an existing one is replaced, and its permissions stay.
        content: bytes, or text that is written as UTF-8.
        check: reads the finished temporary file and raises if it is not as it should be; the old
            content then stays.

    Raises:
        OSError: The disk is full, the folder cannot be written, ...; it names the file, and the
            temporary file is removed.
    """
    path = Path(path)
    # O_EXCL and a fresh name: never through a link left here, never into another process's file.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(descriptor, "wb") as file:
            _keep_mode(path, descriptor)
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        if check is not None:
            check(temporary)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno is not None:
            # A failed write knows no name, and the temporary one would say nothing to the user.
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def open_own(path: str | os.PathLike, flags: int = os.O_RDWR) -> int:
    """Open a file that only we write, which need not be there yet.

    Args:
        path: the file.
        flags: of the system's ``open``.

    Returns:
        Its descriptor.

    Raises:
        OSError: It cannot be opened, or is no file of ours: a link of either kind, so that what is
            written would appear elsewhere, or no regular file; it names the file.
    """
    descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(descriptor)
        reason = "it is a link to, or another name of, a file that lies elsewhere"
        raise OSError(errno.EMLINK, reason, str(path))
    return descriptor


LARGEST_TEXT = 1 << 30
"""Bytes of the largest text, table or description that is read whole."""


def read_regular(path: str | os.PathLike, most: int = LARGEST_TEXT) -> bytes:
    """The content of a regular file, or of one that a link leads to.

    Args:
        path: the file.
        most: bytes that it may have; a larger one is not read at all.

    Raises:
        OSError: It cannot be read, is no regular file (a pipe would make the reader wait for
            ever, and has nothing left for a second reader), or is too large; it names the file.
    """
    # Before it is opened: opening a pipe that nobody writes to would not return.
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    if status.st_size > most:
        reason = f"it has {status.st_size} bytes, and {most} are the most"
        raise OSError(errno.EFBIG, reason, str(path))
    with open(path, "rb") as file:
        return file.read(most)


def _keep_mode(path: Path, descriptor: int) -> None:
    """Give an open file the permissions of the regular file that it will replace."""
    with contextlib.suppress(OSError):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            os.fchmod(descriptor, stat.S_IMODE(status.st_mode))


def is_temporary(path: Path) -> bool:
    """Whether a file is one that :func:`write_atomically` has not finished, or never did."""
    return _TEMPORARY.fullmatch(path.name) is not None


def remove_temporary(folder: Path) -> None:
    """Remove what a killed writer left in a folder that this process owns; what resists stays."""
    for path in filter(is_temporary, Path(folder).iterdir()):
        with contextlib.suppress(OSError):
            path.unlink()
