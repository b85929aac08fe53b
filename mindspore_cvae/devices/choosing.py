"""Where the networks run: the choice of a device, and what mindspore reads when it is imported.

Nothing here imports mindspore before :func:`choose` is called.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from mindspore_cvae.errors import DeviceError, InputError, warn_user

PREFERENCE = ("Ascend", "GPU", "CPU")
"""What ``auto`` tries, in this order."""
MATRIX_PRECISION = "ONEDNN_DEFAULT_FPMATH_MODE"
"""Environment variable by which oneDNN may use a lower precision inside float32 matrix products."""

MULTIPLES = {"Ascend": 16}
"""Of how many numbers the blocks are in which a device multiplies matrices; 1 for the others."""

RANK_COUNTS = ("MS_WORKER_NUM", "RANK_SIZE")
"""Variables with the number of processes of a data-parallel run, which its launcher sets."""

INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")
"""Of x86 and ARM, as Linux names them."""

_NEEDS = {
    "Ascend": "MindSpore needs its driver, and CANN's libraries on LD_LIBRARY_PATH",
    "GPU": "MindSpore needs its driver, CUDA 11.1 to 11.8, cuDNN 8, and nvcc under CUDA_HOME",
}


def is_rank(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is one of several that train together."""
    return any(environment.get(name, "1") != "1" for name in RANK_COUNTS)


def apply_precision(precision: str) -> None:
    """Prepare what mindspore reads from the environment when it is imported; call it before.

    Also turns mindspore's warnings off, unless GLOG_v says otherwise: on a machine without Ascend
    and CUDA every start would print a dozen lines about them.

    Args:
        precision: ``strict`` for float32 everywhere; ``fast`` lets oneDNN multiply matrices in
            bfloat16 (float32 sums) on CPUs that can, and changes nothing on others, nor, with a
            warning, with the oneDNN of MindSpore 2.7.

    Raises:
        InputError: mindspore was imported before, under the other precision.
    """
    modes = {"strict": "STRICT", "fast": "BF16"}
    if (
        "mindspore" in sys.modules
        and os.environ.get(MATRIX_PRECISION, "STRICT") != modes[precision]
    ):
        raise InputError(
            f"precision {precision} must be chosen before mindspore is imported: "
            "start a new process for it"
        )
    if precision == "fast" and os.environ.get(MATRIX_PRECISION) != "BF16" and _is_old_onednn():
        warn_user(
            "precision fast changes nothing on the CPU with this MindSpore, whose oneDNN has no "
            "such mode: take MindSpore 2.10, or strict"
        )
    os.environ[MATRIX_PRECISION] = modes[precision]
    os.environ.setdefault("GLOG_v", "3")


def _is_old_onednn() -> bool:
    """Whether the oneDNN that MindSpore brings does not know the variable of its precision."""
    package = importlib.util.find_spec("mindspore")
    places = (package.submodule_search_locations or []) if package else []
    libraries = [path for place in places for path in Path(place, "lib").glob("libdnnl.so*")]
    return bool(libraries) and not any(b"FPMATH_MODE" in path.read_bytes() for path in libraries)


def choose(target: str, device_id: int | None = None) -> str:
    """Select graph mode and the device, before any network is built.

    Args:
        target: ``CPU``, ``GPU`` or ``Ascend``; ``auto`` takes the first of Ascend, GPU and CPU that
            is there.
        device_id: number of the device; None takes DEVICE_ID or ASCEND_DEVICE_ID of the
            environment, else 0. The CPU has no number.

    Returns:
        The name of the device that was taken.

    Raises:
        DeviceError: The device is not there.
        InputError: The environment's number of the device is none.
    """
    import mindspore

    if target == "auto":
        target = next(name for name in PREFERENCE if _count(name))
    count = _count(target)
    if not count:
        there = [name for name in PREFERENCE if _count(name)]
        raise DeviceError(
            f"device {target} is not there ({_NEEDS[target]}): take {' or '.join(there)}, or auto"
        )
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    if target == "CPU":
        # MindSpore refuses to name a device once it has computed on it, even the same one.
        if chosen() != target:
            mindspore.set_device(target)
        return target
    number = _number() if device_id is None else device_id
    if number >= count:
        raise DeviceError(
            f"device {target} {number} is not there: it has the numbers 0 to {count - 1}"
        )
    try:
        mindspore.set_device(target, number)
    except (RuntimeError, ValueError) as error:
        raise DeviceError(f"device {target} cannot be used: {_first_line(error)}") from error
    return target


def chosen() -> str:
    """The name of the device that was chosen."""
    import mindspore.context

    return mindspore.context.get_context("device_target")


def instructions(description: Path = Path("/proc/cpuinfo")) -> list[str]:
    """Those of :data:`INSTRUCTIONS` that this machine's CPU has.

    Args:
        description: what Linux tells of the CPU, in lines ``flags : ...`` of x86, and
            ``Features : ...`` of ARM.
    """
    try:
        text = description.read_text(errors="replace")
    except OSError:
        return []
    lines = re.findall(r"^(?:flags|Features)\s*:(.*)", text, re.MULTILINE)
    told = {name for line in lines for name in line.split()}
    return [name for name in INSTRUCTIONS if name in told]


def machine() -> str:
    """What decides the last bits of a number besides the configuration: the version of mindspore,
    the chosen device, and of a CPU the instructions that its kernels are chosen by."""
    import mindspore

    device = chosen()
    if device == "CPU":
        names = ", ".join(instructions())
        device = f"a CPU with {names or 'no instructions that are known here'}"
    return f"MindSpore {mindspore.__version__} on {device}"


def vocabulary_multiple() -> int:
    """The multiple to which the chosen device wants the sizes of the logits' product padded."""
    return MULTIPLES.get(chosen(), 1)


def _count(name: str) -> int:
    """How many devices of this name can be used here."""
    from mindspore import hal

    if not hal.is_available(name):
        return 0
    try:
        return hal.device_count(name)
    except (RuntimeError, ValueError):
        # The libraries load, but the driver does not answer.
        return 0


def _number() -> int:
    for variable in ("DEVICE_ID", "ASCEND_DEVICE_ID"):
        text = os.environ.get(variable)
        if text:
            if not text.isdecimal():
                raise InputError(f"{variable} must be the number of a device, not {text!r}")
            return int(text)
    return 0


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
