"""A stand-in for moxing: buckets are folders, and chosen calls fail.

``install`` puts it in the place of the module; a process of its own gets it as ``moxing.py`` on its
path, with the variables ``FAKE_BUCKETS`` and ``FAKE_FAILURES`` (JSON).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import Counter
from pathlib import Path


class FakeFiles:
    """moxing.file over folders.

    Args:
        root: where ``obs://bucket/path`` lies, as root/bucket/path.
        failures: by function, what its n-th call does: ``raise``; ``truncate`` or ``damage`` what
            it copies, or copy ``nothing``, without a word.

    Attributes:
        calls: how often each function was called.
    """

    def __init__(self, root, failures=None):
        self.root = Path(root)
        self.failures = failures or {}
        self.calls = Counter()

    def _failure(self, function):
        self.calls[function] += 1
        how = self.failures.get(function, {}).get(str(self.calls[function]))
        if how == "raise":
            raise ConnectionError(f"{function} is told to fail")
        return how

    def _path(self, url):
        for scheme in ("obs://", "s3://"):
            if url.startswith(scheme):
                return self.root / url[len(scheme) :]
        return Path(url)

    def exists(self, url):
        self._failure("exists")
        return self._path(url).exists()

    def is_directory(self, url):
        self._failure("is_directory")
        return self._path(url).is_dir()

    def list_directory(self, url, recursive=False):
        self._failure("list_directory")
        assert recursive
        folder = self._path(url)
        return [path.relative_to(folder).as_posix() for path in folder.rglob("*")]

    def get_size(self, url):
        self._failure("get_size")
        return self._path(url).stat().st_size

    def read(self, url, binary=False):
        self._failure("read")
        assert binary
        return self._path(url).read_bytes()

    def copy(self, source, target):
        self._copy("copy", self._path(source), self._path(target))

    def copy_parallel(self, source, target):
        how = self._failure("copy_parallel")
        source, target = self._path(source), self._path(target)
        files = sorted(path for path in source.rglob("*") if path.is_file())
        for path in files[: len(files) // 2 if how == "nothing" else None]:
            self._write(path, target / path.relative_to(source), how)

    def _copy(self, function, source, target):
        how = self._failure(function)
        if how != "nothing":
            self._write(source, target, how)

    def _write(self, source, target, how):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        content = target.read_bytes()
        if how == "truncate":
            target.write_bytes(content[: len(content) // 2])
        elif how == "damage":
            target.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


class FakeMoxing:
    """The module."""

    def __init__(self, files):
        self.file = files


def install(monkeypatch, root, failures=None):
    """Makes ``import moxing`` find the stand-in; returns its files."""
    files = FakeFiles(root, failures)
    monkeypatch.setitem(sys.modules, "moxing", FakeMoxing(files))
    return files


if __name__ == "moxing":
    file = FakeFiles(os.environ["FAKE_BUCKETS"], json.loads(os.environ.get("FAKE_FAILURES", "{}")))
