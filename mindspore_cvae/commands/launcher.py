"""Command launcher: starts a command with CUDA 11 where MindSpore finds it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from mindspore_cvae.devices.launcher import gpu_environment
from mindspore_cvae.errors import InputError


def main(argv: Sequence[str] | None = None) -> None:
    """Replaces this process by the command of the arguments, in :func:`gpu_environment`."""
    command = list(sys.argv[1:] if argv is None else argv)
    if not command:
        raise InputError("give the command to start: python -m mindspore_cvae launcher COMMAND ...")
    environment = gpu_environment(os.environ)
    try:
        os.execvpe(command[0], command, environment)
    except OSError as error:
        raise InputError(f"{command[0]} cannot be started: {error.strerror}") from error
