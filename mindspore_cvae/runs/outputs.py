"""Files that a user names: written through links and into devices and pipes, never over a run's
own files, and tried before the work whose result they take."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from pathlib import Path

from mindspore_cvae.common.files import TEMPORARY_SUFFIX, write_atomically
from mindspore_cvae.errors import InputError
from mindspore_cvae.runs import folder as runs_folder

_DESCRIPTOR = re.compile(r"(?:/dev|/proc/(?:self|thread-self|[0-9]+))/fd/([0-9]+)")


def check_output(path: str | os.PathLike, option: str = "--output") -> None:
    """Refuse, before any work, a place that :func:`write_output` could not or must not write to.

    Args:
        path: what the user named; it need not exist.
        option: by which it was named, for the message.

    Raises:
        InputError: It is a folder or one of a run's own files, its folder does not exist, or
            nothing can be written there.
    """
    try:
        if _descriptor(Path(path)) is not None:
            return
        place = _place(path)
        if place.is_dir():
            raise InputError(f"{option} {path} is a folder: name a file in it")
        _refuse_own(place, path, option)
        if _is_special(place):
            if not os.access(place, os.W_OK):
                raise InputError(f"{option} {path} cannot be written: choose another place")
            return
        if not place.parent.is_dir():
            raise InputError(f"{option} {path}: its folder does not exist")
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{option} {path} cannot be written ({reason})") from None
    check_folder(place.parent, option)


def check_folder(folder: str | os.PathLike, option: str) -> None:
    """Refuse, before any work, a folder in which no file can be made.

    Args:
        folder: an existing folder.
        option: by which the user named it, for the message.

    Raises:
        InputError: No file can be made there (no permission, a read-only disk, a full one).
    """
    # Only a file that was made tells: permissions say nothing of read-only disks or quotas.
    probe = Path(folder, f".write-test.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"{option}: nothing can be written to {folder} ({error.strerror}): choose another place"
        ) from None


def write_output(path: str | os.PathLike, content: str | bytes) -> None:
    """Write a file that a user named, all of it.

    A regular file becomes whole or stays as it was. A link's target is written, the link stays;
    devices, pipes and open descriptors (``/dev/stdout``, ``>(command)``) are written into.

    Args:
        path: what :func:`check_output` has let pass.
        content: bytes, or text that is written as UTF-8.

    Raises:
        OSError: It cannot be written; the error names the path.
        InputError: It has become one of a run's own files.
    """
    content = content.encode() if isinstance(content, str) else content
    number = _descriptor(Path(path))
    try:
        if number is not None:
            _write_all(os.dup(number), content)
            return
        place = _place(path)
        _refuse_own(place, path, "--output")
        if _is_special(place):
            _write_all(os.open(place, os.O_WRONLY), content)
            return
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    write_atomically(place, content)


def _write_all(descriptor: int, content: bytes) -> None:
    # The file object goes on after a partial write, where the system call would not.
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _descriptor(path: Path) -> int | None:
    """Number of the open file of this process that a path stands for, such as /dev/stdout."""
    for _ in range(40):  # as many links as Linux follows
        match = _DESCRIPTOR.fullmatch(str(path.absolute()))
        if match:
            return int(match[1])
        if not path.is_symlink():
            return None
        path = path.parent / os.readlink(path)
    return None


def _place(path: str | os.PathLike) -> Path:
    """Where the links of a path lead; OSError where they lead round in a circle."""
    place = Path(os.path.realpath(path))
    if place.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return place


def _is_special(place: Path) -> bool:
    """Whether something is there that is no regular file."""
    return place.exists() and not stat.S_ISREG(place.stat().st_mode)


def _refuse_own(place: Path, path: str | os.PathLike, option: str) -> None:
    for folder in list(place.parents)[:3]:
        if runs_folder.is_run(folder) and runs_folder.is_own(folder, place):
            raise InputError(
                f"{option} {path} is one of the files of the run {folder}: name another file"
            )
