"""Checkpoints that survive a kill at any moment, and that are never loaded when damaged.

    step-00001315.safetensors  all tensors: parameters under their own names, optimizers' state
    step-00001315.json         manifest: step, state, fingerprints, SHA-256 of the tensors
    best.json, best_valid.json, latest.json    pointers to a step

Every file is written whole under a temporary name, made durable, read back, and renamed: first the
tensors, then the manifest, then the pointers. So a manifest's tensors are always there, and so is a
pointer's manifest. Manifests and pointers hold a SHA-256 of themselves. Nothing is pickled: loading
a file from somebody else runs no code, and a manifest cannot name a file outside of its folder.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from mindspore_cvae.common.files import (
    LARGEST_TEXT,
    read_regular,
    remove_temporary,
    write_atomically,
)
from mindspore_cvae.errors import InputError, warn_user

FORMAT = 1
"""Version of the layout above; a checkpoint of another one is refused."""
BEST = "best.json"
BEST_VALID = "best_valid.json"
MARKS = {"best": BEST, "best_valid": BEST_VALID}
"""Names of checkpoints that a validation may have marked, and their pointers."""
LATEST = "latest.json"

_NAME = re.compile(r"step-(?P<step>[0-9]{8,18})(?P<twin>-[0-9a-f]{8})?\.(?P<kind>safetensors|json)")


class CheckpointError(InputError):
    """A checkpoint is missing, damaged, or of another run; the message names the file."""


@dataclass(frozen=True)
class Checkpoint:
    """What :func:`load` read.

    Attributes:
        step: training steps done when it was written.
        tensors: arrays by name; they cannot be written to.
        state: the trainer's state, as it was given to :func:`save`.
        fingerprints: of what the training depends on, by name.
        path: file of the tensors.
    """

    step: int
    tensors: dict[str, np.ndarray]
    state: dict
    fingerprints: dict[str, str]
    path: Path


def save(
    folder: str | os.PathLike,
    step: int,
    tensors: Mapping[str, np.ndarray],
    state: Mapping[str, object],
    fingerprints: Mapping[str, str],
    best: bool = False,
    best_valid: bool = False,
    keep: int = 2,
    warn: Callable[[str], None] = warn_user,
) -> Path:
    """Write a checkpoint; from then on it is the latest.

    Whatever fails or kills the process, the checkpoints of before stay as they are.

    Args:
        folder: an existing folder; only one process may write there.
        step: training steps done.
        tensors: arrays by name, of the types of safetensors.
        state: anything that JSON can hold: keys are texts, sequences lists; numbers come back
            to the bit.
        fingerprints: of what the training depends on, by name (config, vocabulary, data, ...).
        best: whether it becomes the best one by the selected metric, too.
        best_valid: whether it becomes the best one by the valid bound.
        keep: how many of the last steps stay, besides the best ones. Steps after this one, left by
            a training that was taken up again from an earlier step, are removed.
        warn: called with a sentence if an old file cannot be removed, which stops nothing.

    Returns:
        The file of the tensors.

    Raises:
        OSError: It could not be written; the error names the file.
    """
    folder = Path(folder)
    content = safetensors.numpy.save(
        # The library reads memory as if it were contiguous.
        {name: np.require(array, requirements="C") for name, array in tensors.items()}
    )
    digest = hashlib.sha256(content).hexdigest()
    path = folder / f"step-{step:08d}.safetensors"
    if os.path.lexists(path) and not _holds(path, digest):
        # Another training wrote this step before, and its manifest must find its tensors until the
        # new manifest has taken its place.
        path = folder / f"step-{step:08d}-{digest[:8]}.safetensors"
    manifest = {
        "format": FORMAT,
        "step": step,
        "state": dict(state),
        "fingerprints": dict(fingerprints),
        "tensors": {"file": path.name, "bytes": len(content), "sha256": digest},
    }
    sealed, pointer = _seal(manifest), _seal({"format": FORMAT, "step": step})
    write_atomically(path, content, check=lambda file: _verify(file, digest))
    # The best before what training resumes from: it would otherwise believe in a best that no
    # pointer shows. That is the latest, but if this step was saved before, its manifest.
    marks = [name for name, is_marked in ((BEST, best), (BEST_VALID, best_valid)) if is_marked]
    if marks and _has_manifest(folder, step, path.name):
        for name in marks:
            _write_sealed(folder / name, pointer)
    _write_sealed(folder / f"step-{step:08d}.json", sealed)
    for name in marks:
        _write_sealed(folder / name, pointer)
    _write_sealed(folder / LATEST, pointer)
    _prune(folder, step, keep, warn)
    return path


def own_files(folder: str | os.PathLike) -> list[Path]:
    """The files in a folder that have names of this module's own, whatever they hold."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    marks = [folder / name for name in (*MARKS.values(), LATEST) if (folder / name).is_file()]
    return [*(path for path, _, _ in _files(folder)), *marks]


def is_sealed(folder: str | os.PathLike) -> bool:
    """Whether a folder has a manifest that this module has sealed."""
    for step in steps(folder):
        try:
            _unseal(Path(folder) / f"step-{step:08d}.json")
        except CheckpointError:
            continue
        return True
    return False


def steps(folder: str | os.PathLike) -> list[int]:
    """The steps that have a manifest, in ascending order; it may be damaged."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    return sorted({step for _, step, kind in _files(folder) if kind == "json"})


def has_mark(folder: str | os.PathLike, mark: str) -> bool:
    """Whether a checkpoint was marked as one of :data:`MARKS`."""
    return (Path(folder) / MARKS[mark]).exists()


def load(
    folder: str | os.PathLike,
    which: str | int = "latest",
    warn: Callable[[str], None] = warn_user,
) -> Checkpoint:
    """Read and verify a checkpoint.

    Args:
        folder: the folder of checkpoints.
        which: ``latest``, one of :data:`MARKS` or a step. If the latest is damaged, the newest
            good one before it takes its place.
        warn: called with a sentence for every damaged checkpoint that was passed over.

    Raises:
        CheckpointError: There is none, or none that is good; the message names the file.
    """
    folder = Path(folder)
    if which in MARKS:
        pointer = folder / MARKS[which]
        if not pointer.exists():
            raise CheckpointError(
                f"{pointer} does not exist: no validation has chosen a best checkpoint yet"
            )
        try:
            return _read(folder, _read_pointer(pointer))
        except CheckpointError as error:
            raise CheckpointError(f"{error} (--checkpoint last takes the last one)") from None
    if which != "latest":
        return _read(folder, int(which))

    candidates = steps(folder)[::-1]
    if not candidates:
        raise CheckpointError(f"{folder} has no checkpoint")
    try:
        if (folder / LATEST).exists():
            latest = _read_pointer(folder / LATEST)
            # What is newer than the latest was not finished, so it comes last.
            candidates = sorted(
                {latest, *candidates}, key=lambda step: (step <= latest, step), reverse=True
            )
    except CheckpointError as error:
        warn(f"{error}; the newest good checkpoint is taken")
    failures = []
    for step in candidates:
        try:
            checkpoint = _read(folder, step)
        except CheckpointError as error:
            failures.append(str(error))
            continue
        for failure in failures:
            warn(f"{failure}; the checkpoint of step {step} is taken")
        return checkpoint
    raise CheckpointError(
        f"{failures[0]} (and none of the {len(failures)} checkpoints in {folder} is good)"
    )


def check_fingerprints(
    checkpoint: Checkpoint,
    expected: Mapping[str, str],
    force: bool = False,
    warn: Callable[[str], None] = warn_user,
) -> None:
    """Refuse a checkpoint that was written by another training.

    Args:
        checkpoint: what :func:`load` read.
        expected: the fingerprints of now, by name; others of the checkpoint are not looked at.
        force: warn instead of refusing.
        warn: called with the sentence.

    Raises:
        CheckpointError: A fingerprint differs, or the checkpoint has none of this name.
    """
    for name, value in expected.items():
        there = checkpoint.fingerprints.get(name, "none")
        if there != value:
            message = (
                f"{checkpoint.path} was written with another {name} "
                f"({there[:16]} there, {value[:16]} here)"
            )
            if not force:
                raise CheckpointError(f"{message}: use the same {name}, or --force to go on anyway")
            warn(message)


def _files(folder: Path) -> list[tuple[Path, int, str]]:
    """Path, step and kind of every file that this module may have written for a step."""
    matches = ((path, _NAME.fullmatch(path.name)) for path in folder.iterdir())
    return [(path, int(match["step"]), match["kind"]) for path, match in matches if match]


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _holds(path: Path, digest: str) -> bool:
    try:
        return _digest(path) == digest
    except OSError:
        return False


def _verify(path: Path, digest: str) -> None:
    if _digest(path) != digest:
        raise OSError(errno.EIO, "the disk gave back other bytes than were written")


def _canonical(content: Mapping[str, object]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _seal(content: Mapping[str, object]) -> bytes:
    """JSON with a SHA-256 of its own content."""
    digest = hashlib.sha256(_canonical(content)).hexdigest()
    return json.dumps({**content, "sha256": digest}, indent=1).encode() + b"\n"


def _write_sealed(path: Path, sealed: bytes) -> None:
    digest = hashlib.sha256(sealed).hexdigest()
    write_atomically(path, sealed, check=lambda file: _verify(file, digest))


def _read_bytes(path: Path, most: int = LARGEST_TEXT) -> bytes:
    if not path.exists():
        raise CheckpointError(f"{path} is missing")
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file")
    try:
        return read_regular(path, most)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None


def _unseal(path: Path) -> dict:
    """What :func:`_seal` made, verified."""
    try:
        content = json.loads(_read_bytes(path))
        digest = content.pop("sha256")
        is_good = hashlib.sha256(_canonical(content)).hexdigest() == digest
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        is_good = False
    if not is_good:
        raise CheckpointError(f"{path} is damaged or no file of a checkpoint")
    if content.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has format {content.get('format')}, and this version reads format {FORMAT}"
        )
    return content


def _read_pointer(path: Path) -> int:
    step = _unseal(path).get("step")
    if type(step) is not int or not 0 <= step < 1 << 63:
        raise CheckpointError(f"{path} is damaged or no file of a checkpoint")
    return step


def _read_manifest(folder: Path, step: int) -> dict:
    path = folder / f"step-{step:08d}.json"
    manifest = _unseal(path)
    try:
        match = _NAME.fullmatch(manifest["tensors"]["file"])
        is_good = (
            manifest["step"] == step
            and match is not None
            and int(match["step"]) == step
            and match["kind"] == "safetensors"
            and isinstance(manifest["tensors"]["bytes"], int)
            and isinstance(manifest["tensors"]["sha256"], str)
            and isinstance(manifest["state"], dict)
            and isinstance(manifest["fingerprints"], dict)
            and all(isinstance(value, str) for value in manifest["fingerprints"].values())
        )
    except (KeyError, TypeError):
        is_good = False
    if not is_good:
        raise CheckpointError(f"{path} is not the manifest of step {step}")
    return manifest


def _read(folder: Path, step: int) -> Checkpoint:
    manifest = _read_manifest(folder, step)
    stored = manifest["tensors"]
    path = folder / stored["file"]
    # Compared before it is read: a file that was blown up could fill the memory.
    size = path.stat().st_size if path.is_file() else stored["bytes"]
    if size != stored["bytes"]:
        raise CheckpointError(f"{path} is damaged: it has {size} bytes, not {stored['bytes']}")
    content = _read_bytes(path, stored["bytes"])
    if hashlib.sha256(content).hexdigest() != stored["sha256"]:
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not that of its manifest")
    try:
        tensors = safetensors.numpy.load(content)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is not in the format of safetensors: {error}") from None
    return Checkpoint(step, tensors, manifest["state"], manifest["fingerprints"], path)


def _prune(folder: Path, step: int, keep: int, warn: Callable[[str], None]) -> None:
    """Remove all but the last ``keep`` steps up to this one and the marked ones."""
    kept = set([other for other in steps(folder) if other <= step][-keep:])
    try:
        for pointer in MARKS.values():
            if (folder / pointer).exists():
                kept.add(_read_pointer(folder / pointer))
    except CheckpointError as error:
        warn(f"{error}; no old checkpoint is removed, since one may be the best")
        return
    remove_temporary(folder)
    for path, number, kind in sorted(_files(folder), key=lambda file: file[2]):
        if number in kept and (kind == "json" or _may_be_needed(path, number)):
            continue
        try:
            path.unlink()
        except OSError as error:
            warn(f"{path} is an old checkpoint and cannot be removed: {error.strerror}")


def _has_manifest(folder: Path, step: int, file: str) -> bool:
    """Whether a step has a good manifest that names this file of tensors."""
    try:
        return _read_manifest(folder, step)["tensors"]["file"] == file
    except CheckpointError:
        return False


def _may_be_needed(path: Path, step: int) -> bool:
    """Whether a file of tensors is the one of its step's manifest, as far as that can be read."""
    try:
        return _read_manifest(path.parent, step)["tensors"]["file"] == path.name
    except CheckpointError:
        return True
