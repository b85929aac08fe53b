"""Starts a program so that MindSpore's GPU plugin finds CUDA 11.

The plugin is skipped unless $CUDA_HOME/bin/nvcc says that it is of a release from 11.1 to 11.8,
and it needs CUDA's libraries where the dynamic linker looks when Python starts. The extra ``gpu``
(``pip install ".[gpu]"``) brings those libraries, but no nvcc. So the program is started with
LD_LIBRARY_PATH naming the wheels' folders and, under CUDA_HOME, an nvcc that only tells its
release. A toolkit that the environment already names is taken instead.

``python -m mindspore_cvae launcher python train.py --device_target GPU``
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from mindspore_cvae.common.files import write_atomically
from mindspore_cvae.errors import DeviceError, checkout

RELEASES = ((11, 1), (11, 8))
"""First and last release of CUDA that the plugin of MindSpore 2.10 accepts."""

WHEELS_RELEASE = "11.8"
"""Release of the libraries that the extra ``gpu`` installs."""

NVCC = f"""#!/bin/sh
# Not a compiler: MindSpore asks nvcc for the release of the CUDA libraries before it loads them.
echo "Cuda compilation tools, release {WHEELS_RELEASE}, V{WHEELS_RELEASE}.89"
"""
"""The stand-in for nvcc; MindSpore reads what stands between "release " and the comma."""


def cuda_release(cuda_home: str | os.PathLike) -> tuple[int, int] | None:
    """The release that CUDA_HOME's nvcc tells; None if there is none, or it tells nothing."""
    try:
        answer = subprocess.run(
            [Path(cuda_home, "bin", "nvcc"), "--version"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    found = re.search(r"release (\d+)\.(\d+),", answer)
    return (int(found[1]), int(found[2])) if found else None


def is_accepted(release: tuple[int, int] | None) -> bool:
    """Whether the plugin accepts a release of CUDA."""
    return release is not None and RELEASES[0] <= release <= RELEASES[1]


def wheel_folders() -> list[Path]:
    """Folders with the libraries of the installed nvidia-*-cu11 wheels, in alphabetical order."""
    package = importlib.util.find_spec("nvidia")
    roots = package.submodule_search_locations if package is not None else None
    return sorted(folder for root in roots or () for folder in Path(root).glob("*/lib"))


def cuda_11_folders() -> list[Path]:
    """Those of :func:`wheel_folders` if CUDA 11's runtime is among them, else none."""
    folders = wheel_folders()
    has_runtime = any((folder / "libcudart.so.11.0").exists() for folder in folders)
    return folders if has_runtime else []


def install_command() -> str:
    """What installs the extra ``gpu``, from a checkout or beside the installed package."""
    return 'pip install ".[gpu]"' if checkout() else 'pip install "mindspore_cvae[gpu]"'


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where the stand-in for the CUDA toolkit lies."""
    base = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME", "~"), ".cache")
    return Path(base).expanduser() / "mindspore_cvae" / f"cuda-{WHEELS_RELEASE}"


def gpu_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which MindSpore's GPU plugin is to be loaded.

    Args:
        environment: the present one. Is its CUDA_HOME a release that the plugin accepts, it comes
            back with that toolkit's libraries added to LD_LIBRARY_PATH.

    Raises:
        DeviceError: There is neither such a toolkit nor CUDA 11 from the wheels.
    """
    cuda_home = environment.get("CUDA_HOME")
    if cuda_home and is_accepted(cuda_release(cuda_home)):
        folders = [Path(cuda_home, "lib64")]
    else:
        folders = cuda_11_folders()
        if not folders:
            raise DeviceError(
                "no CUDA 11 for the device GPU: set CUDA_HOME to a toolkit of a release from "
                f"11.1 to 11.8, or install its libraries with: {install_command()}"
            )
        cuda_home = str(_stand_in(cache_folder(environment)))
    libraries = [*map(str, folders), environment.get("LD_LIBRARY_PATH", "")]
    return {
        # Kernels that were compiled for the card at first use are kept; modules load when used.
        "CUDA_CACHE_MAXSIZE": "4000000000",
        "CUDA_MODULE_LOADING": "LAZY",
        **environment,
        "CUDA_HOME": cuda_home,
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
    }


def _stand_in(folder: Path) -> Path:
    """A folder with an nvcc that tells the wheels' release; made if it is not there."""
    nvcc = folder / "bin" / "nvcc"
    if not (nvcc.is_file() and os.access(nvcc, os.X_OK) and nvcc.read_text() == NVCC):
        nvcc.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(nvcc, NVCC, check=lambda path: path.chmod(0o755))
    return folder
