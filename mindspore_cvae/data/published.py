"""The paper's data sets: fetched from where they are published, each file verified.

Nothing but the standard library is imported: the texts can be fetched before anything is installed.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

from mindspore_cvae.common.files import open_own, sync_folder

SOURCE = (
    "https://raw.githubusercontent.com/fangleai/Implicit-LVM/"
    "ac2d587eb93cb61478b4d25b4f4b4c1f4d0c690d"
)
"""The repository of Fang et al. (2019) at one commit."""

SECONDS = 20
"""How long a server may say nothing."""

BLOCK = 1 << 20
"""Bytes that are read at a time."""


class Published(NamedTuple):
    """One file of a data set."""

    name: str
    """What it is called here."""
    path: str
    """Where it lies below the source."""
    blob: str
    """Its git blob id, what ``git hash-object`` prints."""


DATA_SETS = {
    "ptb": (
        Published(
            "train.txt",
            "lang_model_ptb/data/train.txt",
            "958d9f34eb941702de0dc4a9657a881d15ae8391",
        ),
        Published(
            "valid.txt",
            "lang_model_ptb/data/val.txt",
            "7b3d9d9fd705825715695328b2de872ffbc14a84",
        ),
        Published(
            "test.txt",
            "lang_model_ptb/data/test.txt",
            "8079cdf342f8d103e5647e1160a8fe3b58a213d5",
        ),
    ),
    "yahoo": (
        Published(
            "train.txt",
            "lang_model_yahoo/data/train.txt",
            "ae7d4fc4d07e520dffdbd835868a1d7c7a6eb471",
        ),
        Published(
            "valid.txt",
            "lang_model_yahoo/data/val.txt",
            "074bdf4265860d777d6e582c1a9baba17a317587",
        ),
        Published(
            "test.txt",
            "lang_model_yahoo/data/test.txt",
            "bd40e278badf65dbaf248977098ec8bc6ad59a2f",
        ),
    ),
    "yelp": (
        Published(
            "train.txt",
            "lang_model_yelp/data/yelp.train.txt",
            "2c4c802349fd14b932d2dead17846ca6b4e1b870",
        ),
        Published(
            "valid.txt",
            "lang_model_yelp/data/yelp.valid.txt",
            "5280a264fbc11a7795cef76bb79541d67e65c568",
        ),
        Published(
            "test.txt",
            "lang_model_yelp/data/yelp.test.txt",
            "8c61afcb9c034eb53cc390c315c276fbdbed5a19",
        ),
    ),
}


class FetchError(OSError):
    """A file could not be fetched, or is not the published one."""


class _Lost(Exception):
    """The server was not reached, refused, or went away."""


class _NothingMore(_Lost):
    """The server has nothing behind what is here already."""


def fetch(
    name: str, folder: str | os.PathLike, source: str = SOURCE, tell: Callable[[str], None] = print
) -> None:
    """Fetch a data set. What is there is kept; a transfer that was interrupted goes on.

    Args:
        name: of :data:`DATA_SETS`.
        folder: where train.txt, valid.txt and test.txt are to lie; made if need be.
        source: URL of a copy of the repository's files.
        tell: gets a line for each file.

    Raises:
        FetchError: A file of that name is there and is another one, or the published one could not
            be fetched: under its name is nothing then, and what has come of it lies hidden.
        OSError: The folder cannot be written.
    """
    folder = Path(folder)
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for wanted in DATA_SETS[name]:
            _fetch_file(wanted, folder, f"{source.rstrip('/')}/{wanted.path}", tell)
    except BaseException:
        with contextlib.suppress(OSError):  # what has come is kept
            for place in made:
                place.rmdir()
        raise


def _fetch_file(wanted: Published, folder: Path, url: str, tell: Callable[[str], None]) -> None:
    file = folder / wanted.name
    if os.path.lexists(file):
        if blob_id(file) != wanted.blob:
            raise FetchError(
                f"{file} is not the published file (git blob id {wanted.blob}): move it away and "
                "call again"
            )
        tell(f"{file} is there")
        return
    # Named by what it is to become, so that no other file's beginning is ever continued.
    part = folder / f".{wanted.name}.{wanted.blob}.part"
    try:
        _complete(part, wanted, url, tell)
    except _Lost as error:
        if part.exists() and part.stat().st_size == 0:
            part.unlink()
        raise FetchError(
            f"{url} could not be fetched ({error}): call again when there is a network (what has "
            f"come is kept), put the file itself into {file}, or name another copy with DATA_URL"
        ) from None
    os.replace(part, file)
    sync_folder(folder)


def _complete(part: Path, wanted: Published, url: str, tell: Callable[[str], None]) -> None:
    """Bring a part to its published end, from where it stands or anew."""
    if part.exists() and blob_id(part) == wanted.blob:
        return
    was_begun = part.exists() and part.stat().st_size > 0
    tell(f"fetching {url}")
    try:
        _transfer(url, part)
        is_whole = blob_id(part) == wanted.blob
    except _NothingMore:
        is_whole = False
    if not is_whole and was_begun:
        # What was there is no beginning of what the server has.
        part.unlink()
        _transfer(url, part)
        is_whole = blob_id(part) == wanted.blob
    if not is_whole:
        part.unlink()
        raise FetchError(
            f"what came from {url} is not the published file (git blob id {wanted.blob}): it was "
            "removed; call again, or name another copy with DATA_URL"
        )


def _transfer(url: str, part: Path) -> None:
    """Append to a part what it lacks, as long as every connection brings something."""
    with os.fdopen(open_own(part), "r+b") as file:
        while True:
            before = file.seek(0, os.SEEK_END)
            try:
                _append(url, file, before)
                break
            except _Lost:
                if file.seek(0, os.SEEK_END) <= before:
                    raise
        file.flush()
        os.fsync(file.fileno())


def _append(url: str, file: IO[bytes], start: int) -> None:
    """Write what a server sends from a position on, or all of it where it cannot begin there."""
    with _connected(url, start) as answer:
        if start and answer.status != http.client.PARTIAL_CONTENT:
            file.seek(0)
            file.truncate()
        told = answer.headers.get("Content-Length") or ""
        missing = int(told) if told.isdecimal() else 0
        while block := _read(answer):
            file.write(block)
            missing -= len(block)
    if missing > 0:
        raise _Lost("the connection was cut")


def _connected(url: str, start: int) -> Any:
    """The open answer of a server."""
    try:
        headers = {"Range": f"bytes={start}-"} if start else {}
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SECONDS)
    except urllib.error.HTTPError as error:
        is_at_end = error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and start
        raise (_NothingMore if is_at_end else _Lost)(str(error)) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _Lost(str(getattr(error, "reason", error))) from None


def _read(answer: Any) -> bytes:
    try:
        return answer.read(BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise _Lost(str(error) or type(error).__name__) from None


def blob_id(path: Path) -> str:
    """What ``git hash-object`` prints of a file."""
    with open(path, "rb") as file:
        digest = hashlib.sha1(b"blob %d\0" % os.fstat(file.fileno()).st_size)
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
