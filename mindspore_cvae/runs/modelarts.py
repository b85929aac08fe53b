"""Training jobs on ModelArts: data, output, and a run to begin with, in a bucket or in a folder.

A path is used as it is. What begins with ``obs://`` or ``s3://`` is copied by moxing, which
ModelArts' images have: the data and an earlier output before training, the run after it, whether
training ended, failed or was told to end. Every file that was copied is looked at afterwards, and
copied again if it is not as it should be.

A job may be started again in the same container, and several processes of a host may prepare
together: copies are made under a lock that dies with its holder, take their place when they are
whole, and are not made twice.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import hashlib
import json
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mindspore_cvae.common.files import is_temporary, open_own, write_atomically
from mindspore_cvae.devices.choosing import is_rank
from mindspore_cvae.errors import DeviceError, InputError, typed, warn_user
from mindspore_cvae.runs import checkpoints, lock
from mindspore_cvae.runs import folder as runs_folder

REMOTE = ("obs://", "s3://")
CACHE = "CACHE_DIR"
"""Variable that names the folder for copies; else /cache, ModelArts' large disk, else the system's
folder for temporary files."""
PAUSES = (2.0, 10.0, 30.0)
"""Seconds before the second, third and fourth attempt of a transfer."""
HOSTS = (("MA_NUM_HOSTS", "VC_TASK_INDEX"), ("DLS_TASK_NUMBER", "DLS_TASK_INDEX"))
"""Variables with the number of hosts and this host's number: jobs of version 2, then of 1."""
_LATEST = f"{runs_folder.CHECKPOINTS}/{checkpoints.LATEST}"

Result = TypeVar("Result")


class TransferError(OSError):
    """Something could not be copied, however often it was tried."""


def is_remote(url: str) -> bool:
    """Whether a URL lies in a bucket, not in a folder of this machine."""
    return url.startswith(REMOTE)


def host(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Number of hosts of the job, and this host's number from 0; (1, 0) outside of ModelArts.

    Raises:
        InputError: A variable does not hold a number.
    """
    for count, index in HOSTS:
        if environment.get(count):
            values = (environment[count], environment.get(index) or "0")
            if not all(value.isdecimal() for value in values):
                raise InputError(f"{count} and {index} must be numbers, not {' and '.join(values)}")
            return int(values[0]), int(values[1])
    return 1, 0


def writes_output(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is the one of its job that uploads: rank 0."""
    return environment.get("RANK_ID", "0") == "0" and (
        is_rank(environment) or host(environment)[1] == 0
    )


def add_urls(parser: argparse.ArgumentParser) -> None:
    """Give the command ``train`` the options that ModelArts passes."""
    parser.add_argument(
        "--data_url", metavar="URL", help="corpus on ModelArts: obs://, s3:// or a path"
    )
    parser.add_argument(
        "--train_url", metavar="URL", help="run folder on ModelArts; a run there is continued"
    )
    parser.add_argument(
        "--checkpoint_url", metavar="URL", help="run to begin with, where --train_url has none yet"
    )


@contextlib.contextmanager
def job(arguments: argparse.Namespace) -> Iterator[None]:
    """Brings what a job needs, and uploads its run when the block is left, however that is.

    Args:
        arguments: of the command ``train``. ``data_dir``, ``output_dir`` and ``resume`` are set to
            what the URLs mean; without URLs nothing is done.

    Raises:
        InputError: Options contradict each other, or a URL does not hold what it should.
        DeviceError: A bucket is named and moxing is not there.
        TransferError: Copying failed, and went on failing.
    """
    data, train, checkpoint = arguments.data_url, arguments.train_url, arguments.checkpoint_url
    if not (data or train or checkpoint):
        yield
        return
    _check(arguments)
    with _signals(_leave):
        if data:
            arguments.data_dir = str(fetch_data(data))
        if train:
            folder = _cached(train) if is_remote(train) else Path(train)
            arguments.output_dir = str(folder)
            # A folder without a run is fine, too.
            arguments.resume = not arguments.overwrite
            if is_remote(train) and arguments.resume:
                fetch_run(train, folder)
        if checkpoint:
            arguments.resume = True
            begin_with(checkpoint, Path(arguments.output_dir))
        try:
            yield
        except BaseException:
            if train and is_remote(train):
                try:
                    _upload_run(folder, train)
                except (TransferError, DeviceError) as error:
                    warn_user(str(error))
            raise
        if train and is_remote(train):
            _upload_run(folder, train)


def _check(arguments: argparse.Namespace) -> None:
    for url, option in (("data_url", "data_dir"), ("train_url", "output_dir")):
        if getattr(arguments, url) and getattr(arguments, option):
            raise InputError(f"--{url} and --{option} name the same thing: give one of them")
    if arguments.checkpoint_url and not (arguments.train_url or arguments.output_dir):
        raise InputError(
            "--checkpoint_url needs --train_url or --output_dir, where the run goes on"
        )
    if arguments.checkpoint_url and arguments.overwrite:
        raise InputError("--checkpoint_url continues a run and --overwrite deletes it: choose one")
    if host()[0] > 1 and not is_rank():
        raise InputError(
            f"the job has {host()[0]} hosts, and this process trains alone: start the processes of "
            f"each host by {typed('ranks')}"
        )


def _leave(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


@contextlib.contextmanager
def _signals(handler) -> Iterator[None]:
    """SIGTERM is handled so meanwhile; only a process's main thread can have it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def cache_folder() -> Path:
    """Where copies lie, see :data:`CACHE`; it is made if need be. In the folder for temporary
    files, which all users share, it is this user's own.

    Raises:
        InputError: Somebody else made it.
    """
    named = os.environ.get(CACHE)
    if named or os.access("/cache", os.W_OK):
        folder = Path(named or "/cache") / "mindspore_cvae"
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    folder = Path(tempfile.gettempdir()) / f"mindspore_cvae-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise InputError(f"{folder} is somebody else's: name another place with {CACHE}")
    return folder


def _cached(url: str) -> Path:
    """The place of a URL's copy."""
    return cache_folder() / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]


def fetch_data(url: str) -> Path:
    """The corpus as a path: the copy of a bucket's folder or file, or the path itself."""
    if not is_remote(url):
        return Path(url)
    folder = _cached(url)
    with _lock(folder):
        if not _is_whole(folder):
            _download(url, folder)
    files = _marker(folder)["files"]
    # The copy of a single file lies in a folder of its own.
    return folder / files[0][0] if _marker(folder)["is_file"] else folder


def fetch_run(url: str, folder: Path) -> None:
    """Download a run, unless the folder holds one that has come as far, or there is none.

    Args:
        url: of a bucket.
        folder: where it is to lie.
    """
    storage = _moxing()
    with _lock(folder):
        latest = f"{url.rstrip('/')}/{_LATEST}"

        def look() -> int | None:
            """The step of the run; None where there is no run that has come to a checkpoint."""
            return _step(storage.read(latest, binary=True)) if storage.exists(latest) else None

        there = _retried(f"looking into {url}", look)
        if there is None:
            return
        here = folder / _LATEST
        if not runs_folder.is_run(folder) or not here.exists() or _step(here.read_bytes()) < there:
            _download(url, folder)


def begin_with(url: str, folder: Path) -> None:
    """Copy a run into a folder that holds none.

    Args:
        url: of the run: in a bucket, or a path.
        folder: where training is to go on.

    Raises:
        InputError: There is no run at the URL.
    """
    if runs_folder.is_run(folder):
        return
    source = Path(url)
    if is_remote(url):
        source = _cached(url)
        with _lock(source):
            if not _is_whole(source):
                _download(url, source)
    if not runs_folder.is_run(source):
        raise InputError(f"{url} holds no run: --checkpoint_url is an earlier job's --train_url")
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(_cached(str(folder.resolve()))):
        if runs_folder.is_run(folder):
            return
        # The configuration last: without it the folder is no run, and is filled anew.
        for path in sorted(_run_files(source), key=lambda path: path.name == runs_folder.CONFIG):
            target = folder / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def _step(pointer: bytes) -> int:
    """The step that a pointer of :mod:`runs.checkpoints` names; -1 if it is damaged."""
    try:
        return int(json.loads(pointer)["step"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return -1


def _run_files(folder: Path) -> list[Path]:
    """What a run is made of, in the order in which it may be copied: whenever that ends, pointers
    name what is there."""
    found = [
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not path.is_symlink()
        and not is_temporary(path)
        and path != folder / lock.LOCK
    ]

    def order(path: Path) -> tuple[int, str]:
        kinds = (
            path.suffix == ".safetensors",
            path.name.startswith("step-"),
            path.parent.name != runs_folder.CHECKPOINTS,
        )
        first = next((number for number, is_so in enumerate(kinds) if is_so), len(kinds))
        return first, path.name

    return sorted(found, key=order)


def _upload_run(folder: Path, url: str) -> None:
    """Upload a run file by file; each is read back and compared. Signals wait until it is done."""
    if not writes_output() or not runs_folder.is_run(folder):
        return
    storage = _moxing()
    with _signals(signal.SIG_IGN):
        files = _run_files(folder)
        for path in files:
            target = f"{url.rstrip('/')}/{path.relative_to(folder).as_posix()}"
            _retried(f"uploading {path.name}", functools.partial(_put, storage, path, target))
        print(f"{len(files)} files uploaded to {url}", flush=True)


def _put(storage, path: Path, target: str) -> None:
    storage.copy(str(path), target)
    if storage.read(target, binary=True) != path.read_bytes():
        raise OSError(f"{target} is not what was uploaded")


def _download(url: str, folder: Path) -> None:
    """Copy a bucket's folder or file into a folder that it replaces once it is whole."""
    storage = _moxing()
    part = folder.with_name(f"{folder.name}.part")

    def attempt() -> dict[str, Any]:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        is_file = not storage.is_directory(url)
        if is_file and not storage.exists(url):
            raise InputError(f"{url} does not exist")
        if is_file:
            files = [(url.rsplit("/", 1)[1], storage.get_size(url))]
            storage.copy(url, str(part / files[0][0]))
        else:
            files = _listing(storage, url)
            if not files:
                raise InputError(f"{url} holds no file")
            storage.copy_parallel(url, str(part))
        if _sizes(part) != sorted(files):
            raise OSError(f"the copy of {url} is not whole")
        return {"url": url, "is_file": is_file, "files": sorted(files)}

    description = _retried(f"downloading {url}", attempt)
    _marker_path(folder).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    write_atomically(_marker_path(folder), json.dumps(description))
    print(f"{len(description['files'])} files downloaded from {url}", flush=True)


def _listing(storage, url: str) -> list[tuple[str, int]]:
    """Relative names and sizes of all files below a bucket's folder; none where it is missing."""
    if not storage.is_directory(url):
        return []
    root = url.rstrip("/")
    names = storage.list_directory(url, recursive=True)
    paths = ((name, f"{root}/{name}") for name in names)
    return [
        (name, storage.get_size(path)) for name, path in paths if not storage.is_directory(path)
    ]


def _sizes(folder: Path) -> list[tuple[str, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted((path.relative_to(folder).as_posix(), path.stat().st_size) for path in files)


def _marker_path(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def _marker(folder: Path) -> dict:
    return json.loads(_marker_path(folder).read_text())


def _is_whole(folder: Path) -> bool:
    """Whether a copy was finished and nothing of it is missing since."""
    try:
        files = [tuple(item) for item in _marker(folder)["files"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    return _sizes(folder) == files


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Only one process at a time works on a copy; the system drops the lock of one that dies."""
    descriptor = open_own(folder.with_name(f"{folder.name}.lock"))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _retried(what: str, attempt: Callable[[], Result]) -> Result:
    """The result of the first attempt that does not fail.

    Raises:
        TransferError: All failed.
        InputError: What is asked for is not there, which no attempt can change.
    """
    for pause in (*PAUSES, None):
        try:
            return attempt()
        except InputError:
            raise
        # moxing raises whatever its libraries do.
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        if pause is not None:
            warn_user(f"{what} failed ({reason}); again in {pause:g} s")
            time.sleep(pause)
    raise TransferError(f"{what} failed {len(PAUSES) + 1} times, at last with {reason}")


def _moxing():
    """moxing's functions on files."""
    try:
        import moxing
    except ImportError:
        raise DeviceError(
            f"{' and '.join(REMOTE)} need moxing, which ModelArts' images have: elsewhere copy the "
            "folder yourself and give its path"
        ) from None
    # A package of that name on the package index is somebody else's.
    if not hasattr(getattr(moxing, "file", None), "copy_parallel"):
        raise DeviceError(
            f"the package {getattr(moxing, '__file__', 'moxing')} is not ModelArts', since it has "
            "no moxing.file: pip uninstall moxing, then copy the folder yourself and give its path"
        )
    return moxing.file
