"""Codes of a run's training sentences, kept beside it so that they are computed once.

RUN/codes.safetensors holds the codes and a seal, SHA-256 of them and of all that decides them: what
was made of other weights or another text, or is damaged, is as if it were not there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from mindspore_cvae.common.files import read_regular, write_atomically
from mindspore_cvae.runs.folder import CODES

HEADER = 1 << 16
"""Bytes that a file may have besides the codes."""


def read_codes(
    run: str | os.PathLike, decided_by: Mapping[str, object], shape: tuple[int, int]
) -> np.ndarray | None:
    """Codes that were kept, if they are what would be computed.

    Args:
        run: the run's folder.
        decided_by: by name, whatever a code depends on, as JSON can hold it.
        shape: (N, Z), of the codes.

    Returns:
        (N, Z) float32; None where there are none, or others, or a damaged file.
    """
    try:
        kept = read_regular(Path(run) / CODES, 4 * shape[0] * shape[1] + HEADER)
        tensors = safetensors.numpy.load(kept)
        codes, seal = tensors["codes"], tensors["seal"].tobytes()
    except (OSError, safetensors.SafetensorError, LookupError, ValueError, TypeError):
        return None
    is_good = (
        codes.shape == shape and codes.dtype == np.float32 and seal == _seal(codes, decided_by)
    )
    return codes if is_good else None


def keep_codes(run: str | os.PathLike, decided_by: Mapping[str, object], codes: np.ndarray) -> None:
    """Keep codes for :func:`read_codes`; where nothing can be written, nothing happens.

    Args:
        run, decided_by: as there.
        codes: (N, Z) float32.
    """
    seal = np.frombuffer(_seal(codes, decided_by), np.uint8)
    content = safetensors.numpy.save({"codes": np.ascontiguousarray(codes), "seal": seal})
    # They are a convenience: a run on a read-only or a full disk is used all the same.
    with contextlib.suppress(OSError):
        write_atomically(Path(run) / CODES, content)


def _seal(codes: np.ndarray, decided_by: Mapping[str, object]) -> bytes:
    digest = hashlib.sha256(json.dumps(decided_by, sort_keys=True).encode())
    digest.update(np.ascontiguousarray(codes).tobytes())
    return digest.digest()
