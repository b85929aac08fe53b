"""One process at a time writes to a run's folder."""

from __future__ import annotations

import fcntl
import os
import socket
import weakref
from pathlib import Path

from mindspore_cvae.common.files import open_own
from mindspore_cvae.errors import InputError

LOCK = "lock"


class Lock:
    """A lock on a file that the operating system drops when its holder dies, however it dies.

    The file stays: removing it would let two processes lock two files of the same name.

    Args:
        path: the file.

    Raises:
        InputError: Another process holds it, or the file system knows no locks.
        OSError: It cannot be opened, or is no file of ours (:func:`common.files.open_own`).
    """

    def __init__(self, path: Path):
        self.path = path
        self._descriptor: int | None = open_own(path)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._descriptor, 200).decode(errors="replace").strip()
            self.release()
            raise InputError(
                f"{path.parent} is in use by another process ({holder or 'unknown'}): wait for its "
                "end, or choose another --output_dir"
            ) from None
        except OSError as error:
            self.release()
            raise InputError(
                f"{path} cannot be locked ({error.strerror}): choose a file system with flock"
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        _held.add(self)

    def check(self) -> None:
        """Raises InputError where the file that is locked is not the one of its name any more, so
        that another process may have locked that."""
        if self._descriptor is None:
            return
        held = os.fstat(self._descriptor)
        try:
            there = os.stat(self.path)
        except OSError:
            there = None
        if there is None or (there.st_dev, there.st_ino) != (held.st_dev, held.st_ino):
            raise InputError(
                f"{self.path} was removed or replaced while process {os.getpid()} held it, and "
                "another may train there now: nothing more is written; --resume goes on from the "
                "last checkpoint"
            )

    def release(self) -> None:
        """Drop the lock, if it is held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


_held: weakref.WeakSet[Lock] = weakref.WeakSet()


def _release_in_child() -> None:
    # A forked worker shares the open file, and would hold the lock after its parent's death.
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_release_in_child)
