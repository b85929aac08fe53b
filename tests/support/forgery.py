"""Checkpoints as somebody would change them who knows their format."""

from __future__ import annotations

import json
from pathlib import Path

from mindspore_cvae.runs import checkpoints


def forge(path: Path, **changes: object) -> None:
    """Changes a manifest and seals it."""
    manifest = json.loads(path.read_text())
    manifest.pop("sha256")
    path.write_bytes(checkpoints._seal({**manifest, **changes}))
