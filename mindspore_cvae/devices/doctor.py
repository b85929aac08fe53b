"""What each device needs, what of it is here, and what to do about the rest.

``python -m mindspore_cvae doctor [--device CPU|GPU|Ascend] [--json]``; the exit code is 0 if the
device that was asked for, by default any, can be used.

Every step is checked by itself, since MindSpore says no more than "Unsupported device target": a
device's plugin is passed over when one of its libraries does not load.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mindspore_cvae.devices import choosing, launcher
from mindspore_cvae.errors import DeviceError, typed

OK, MISSING, UNKNOWN = "ok", "missing", "unknown"
"""States of a finding; ``unknown`` where a step before it must be mended first."""

DEVICES = ("CPU", "GPU", "Ascend")

PYTHONS = ((3, 10), (3, 12))
"""First and last Python that MindSpore 2.10 has wheels for."""

MINDSPORE = "2.10"

VERSIONS = ((2, 7, 1), (2, 11))
"""First version of MindSpore that will do, and first one after the last."""

CANN_RELEASES = {
    "2.7": ("7.8", "8.2", "8.3"),
    "2.10": ("8.2", "8.3", "8.5", "9.0", "9.1"),
}
"""By release of MindSpore, those of CANN that it takes without a warning
(run_check/_check_version.py)."""

GPU_LIBRARIES = (
    "libcudart.so.11.0",
    "libcublas.so.11",
    "libcudnn.so.8",
    "libcurand.so.10",
    "libcusolver.so.11",
    "libcufft.so.10",
    "libcusparse.so.11",
    "libnvrtc.so.11.2",
)
"""What libmindspore_gpu.so.11.6 is linked against, the driver's libcuda.so.1 aside."""

ASCEND_LIBRARIES = (
    "libascend_hal.so",
    "libascendcl.so",
    "libge_runner.so",
    "libgraph.so",
    "libmsprofiler.so",
)
"""The driver's library, and what libmindspore_ascend.so.2 is linked against of CANN."""

COMPILED_CAPABILITY = (8, 0)
"""Newest card that MindSpore's GPU kernels hold machine code for."""

PROBE_SECONDS = 180


@dataclass(frozen=True)
class Finding:
    """One step of what a device needs."""

    device: str
    check: str
    state: str
    found: str
    remedy: str = ""


def examine(
    environment: Mapping[str, str] = os.environ, device_folder: Path = Path("/dev")
) -> list[Finding]:
    """Check every step of every device.

    Args:
        environment: the variables under which training would be started.
        device_folder: where the system shows its devices.

    Returns:
        The findings in the order in which they build on each other; a device's last one, ``use``,
        is a product of matrices computed on it.
    """
    has_mindspore = importlib.util.find_spec("mindspore") is not None
    findings = [*_python_findings(), *_cpu_findings()]
    try:
        gpu_environment, gpu_error = launcher.gpu_environment(environment), ""
    except (DeviceError, OSError) as error:
        gpu_environment, gpu_error = dict(environment), str(error)
    steps = {
        "CPU": [],
        "GPU": [*_toolkit_findings(gpu_environment, gpu_error), *_gpu_findings(gpu_environment)],
        "Ascend": list(_ascend_findings(environment, device_folder)),
    }
    environments = {"CPU": environment, "GPU": gpu_environment, "Ascend": environment}
    with ThreadPoolExecutor(len(DEVICES)) as pool:
        uses = {
            device: pool.submit(_use_finding, device, environments[device], has_mindspore, steps)
            for device in DEVICES
        }
        for device in DEVICES:
            findings += [*steps[device], uses[device].result()]
    return findings


def usable(findings: Sequence[Finding]) -> list[str]:
    """The devices that computed something."""
    return [
        finding.device for finding in findings if finding.check == "use" and finding.state == OK
    ]


def _python_findings() -> Iterator[Finding]:
    version = sys.version_info[:2]
    yield Finding(
        "all",
        "python",
        OK if PYTHONS[0] <= version <= PYTHONS[1] else MISSING,
        f"{_dotted(version)} ({sys.executable})",
        f"MindSpore {MINDSPORE} has wheels for {' to '.join(map(_dotted, PYTHONS))}",
    )
    yield _libc_finding()
    yield _package_finding(
        "mindspore", f"=={MINDSPORE}.*", lambda found: VERSIONS[0] <= _numbers(found) < VERSIONS[1]
    )
    yield _package_finding("numpy", ">=1.25,<2", lambda found: int(found.split(".")[0]) < 2)


def _package_finding(name: str, wanted: str, is_fit: Callable[[str], bool]) -> Finding:
    remedy = f'pip install "{name}{wanted}"'
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding("all", name, MISSING, "not installed", remedy)
    state = OK if is_fit(found) else MISSING
    return Finding("all", name, state, found, remedy)


def _numbers(version: str) -> tuple[int, ...]:
    """The first three numbers of a version."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _libc_finding(library: Callable[[str], str | None] = os.confstr) -> Finding:
    """The C library, which pip does not look at when it takes an ARM wheel of MindSpore."""
    try:
        found = library("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        found = ""
    return Finding(
        "all",
        "C library",
        OK if found else MISSING,
        found or "not glibc (musl, as in Alpine)",
        "MindSpore's wheels are linked against glibc: take a distribution that has it (Debian, "
        "Ubuntu, openEuler)",
    )


def _cpu_findings(description: Path = Path("/proc/cpuinfo")) -> Iterator[Finding]:
    names = choosing.instructions(description)
    yield Finding("CPU", "instructions", OK, ", ".join(names) or "none that are known here")
    units = [name for name in names if name.endswith("bf16")]
    gain = ", ".join(units) or "none seen: --precision fast gains nothing here"
    if "bf16" in units:
        gain = "bf16; whether --precision fast gains anything on ARM was not tried"
    yield Finding("CPU", "bfloat16 units", OK, gain)


def _toolkit_findings(environment: Mapping[str, str], error: str) -> Iterator[Finding]:
    """CUDA_HOME and its nvcc, which MindSpore asks before it loads its plugin."""
    if error:
        yield Finding(
            "GPU", "CUDA 11", MISSING, environment.get("CUDA_HOME", "no CUDA_HOME"), error
        )
        return
    home = environment["CUDA_HOME"]
    kind = "wheels, nvcc's stand-in" if Path(home).parent.name == "mindspore_cvae" else "toolkit"
    yield Finding("GPU", "CUDA 11", OK, f"{home} ({kind})")
    release = launcher.cuda_release(home)
    yield Finding(
        "GPU",
        "nvcc's answer",
        OK if launcher.is_accepted(release) else MISSING,
        f"release {_dotted(release)}" if release else "none",
        f"MindSpore wants {' to '.join(map(_dotted, launcher.RELEASES))}",
    )


def _gpu_findings(environment: Mapping[str, str]) -> Iterator[Finding]:
    yield from _library_findings(
        "GPU",
        GPU_LIBRARIES,
        environment,
        f"{launcher.install_command()}, and start with {typed('launcher')} COMMAND",
    )
    driver = _ask("driver_report", environment)
    yield Finding(
        "GPU",
        "driver",
        OK if driver.get("devices") else MISSING,
        driver.get("error")
        or f"CUDA {_dotted(driver['version'])}, {len(driver['devices'])} devices",
        "install NVIDIA's driver, or give the container its devices (see nvidia-smi)",
    )
    for number, card in enumerate(driver.get("devices", ())):
        is_compiled = tuple(card["capability"]) <= COMPILED_CAPABILITY
        yield Finding(
            "GPU",
            f"card {number}",
            OK,
            f"{card['name']}, compute capability {_dotted(card['capability'])}"
            + ("" if is_compiled else "; kernels are compiled at first use, which takes minutes"),
        )


def _ascend_findings(environment: Mapping[str, str], device_folder: Path) -> Iterator[Finding]:
    nodes = sorted(path.name for path in device_folder.glob("davinci[0-9]*"))
    yield Finding(
        "Ascend",
        "devices",
        OK if nodes else MISSING,
        " ".join(nodes) or f"no {device_folder}/davinci*",
        "install driver and firmware, or give the container its devices (see npu-smi info)",
    )
    home = environment.get("ASCEND_HOME_PATH")
    yield Finding(
        "Ascend",
        "CANN",
        OK if home and Path(home).is_dir() else MISSING,
        home or "no ASCEND_HOME_PATH",
        "install CANN's toolkit, then source its set_env.sh",
    )
    release = _cann_release(home) if home else None
    mindspore = _mindspore_release()
    wanted = CANN_RELEASES.get(mindspore, ())
    yield Finding(
        "Ascend",
        "CANN's release",
        UNKNOWN if release is None or not wanted else OK if release in wanted else MISSING,
        release or "not stated",
        f"MindSpore {mindspore} wants one of {', '.join(wanted) or 'those that its notes name'}",
    )
    operators = environment.get("ASCEND_OPP_PATH")
    yield Finding(
        "Ascend",
        "operators",
        OK if operators and Path(operators).is_dir() else MISSING,
        operators or "no ASCEND_OPP_PATH",
        "install CANN's ops package, then source CANN's set_env.sh",
    )
    yield from _library_findings(
        "Ascend",
        ASCEND_LIBRARIES,
        environment,
        "source CANN's set_env.sh, which sets LD_LIBRARY_PATH",
    )
    missing = _ask("missing_modules", environment, "te", "hccl").get("missing", ["te", "hccl"])
    yield Finding(
        "Ascend",
        "CANN's Python packages",
        MISSING if missing else OK,
        f"not found: {', '.join(missing)}" if missing else "te, hccl",
        "source CANN's set_env.sh, which sets PYTHONPATH; else install its te and hccl wheels",
    )


def _mindspore_release() -> str:
    """First two numbers of the installed MindSpore's version; the newest release without one."""
    try:
        return _dotted(_numbers(importlib.metadata.version("mindspore"))[:2])
    except importlib.metadata.PackageNotFoundError:
        return MINDSPORE


def _cann_release(home: str) -> str | None:
    """First two numbers of CANN's version, from the file that MindSpore reads."""
    try:
        text = Path(home, "compiler", "version.info").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    found = re.search(r"^Version=(\d+\.\d+)", text, re.MULTILINE)
    return found[1] if found else None


def _library_findings(
    device: str, names: Sequence[str], environment: Mapping[str, str], remedy: str
) -> Iterator[Finding]:
    report = _ask("library_report", environment, *names)
    for name in names:
        result = report.get(name) or {"error": report["error"]}
        state = OK if "path" in result else MISSING
        yield Finding(device, name, state, result.get("path") or result["error"], remedy)


def _use_finding(
    device: str,
    environment: Mapping[str, str],
    has_mindspore: bool,
    steps: Mapping[str, Sequence[Finding]],
) -> Finding:
    if not has_mindspore:
        return Finding(device, "use", UNKNOWN, "MindSpore is not installed", "see above")
    result = _ask("use_report", environment, device)
    if "devices" in result:
        return Finding(device, "use", OK, f"{result['devices']} usable, computed a product on one")
    is_explained = any(finding.state == MISSING for finding in steps[device])
    remedy = "see the rows above" if is_explained else "MindSpore's own message is all there is"
    return Finding(device, "use", MISSING, result["error"], remedy)


def _ask(report: str, environment: Mapping[str, str], *arguments: str) -> dict:
    """What one of the reports below says in a process that starts under an environment."""
    code = (
        "import json, sys; from mindspore_cvae.devices import doctor; "
        f"answer = doctor.{report}(*sys.argv[1:]); print(); print(json.dumps(answer))"
    )
    package = str(Path(__file__).resolve().parents[2])
    search = os.pathsep.join(filter(None, [package, environment.get("PYTHONPATH", "")]))
    try:
        result = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env={**environment, "PYTHONPATH": search},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {PROBE_SECONDS} seconds"}
    if result.returncode != 0:
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        return {"error": lines[-1] if lines else f"ended with status {result.returncode}"}
    answer = json.loads(result.stdout.splitlines()[-1])
    if report == "use_report" and "error" in answer:
        # MindSpore logs why a plugin was passed over, and tells its caller nothing.
        plugin = f"libmindspore_{arguments[0].lower()}"
        told = [line for line in result.stderr.splitlines() if plugin in line and "failed" in line]
        answer["error"] = re.sub(r"^.*Error message: ", "", told[0]) if told else answer["error"]
    return answer


def library_report(*names: str) -> dict[str, dict[str, str]]:
    """Where the dynamic linker finds each library, or why it does not."""
    report = {}
    for name in names:
        try:
            ctypes.CDLL(name)
        except OSError as error:
            is_absent = str(error).startswith(f"{name}: cannot open shared object file")
            report[name] = {"error": "not found" if is_absent else str(error)}
            continue
        lines = Path("/proc/self/maps").read_text().splitlines()
        stem = name.split(".so")[0] + ".so"
        paths = [line.split()[-1] for line in lines]
        named = [path for path in paths if Path(path).name.startswith(stem)]
        report[name] = {"path": named[0] if named else name}
    return report


def missing_modules(*names: str) -> dict[str, list[str]]:
    """Which Python modules cannot be found."""
    return {"missing": [name for name in names if importlib.util.find_spec(name) is None]}


def driver_report() -> dict:
    """NVIDIA's driver: ``version`` of CUDA and ``devices``, or an ``error``."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return {"error": f"no driver ({error})"}
    if code := driver.cuInit(0):
        return {"error": f"libcuda.so.1 is there, but cuInit fails with code {code}"}
    version, count = ctypes.c_int(), ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    driver.cuDeviceGetCount(ctypes.byref(count))
    devices = []
    for number in range(count.value):
        handle, name = ctypes.c_int(), ctypes.create_string_buffer(256)
        driver.cuDeviceGet(ctypes.byref(handle), number)
        driver.cuDeviceGetName(name, len(name), handle)
        # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
        numbers = []
        for attribute in (75, 76):
            value = ctypes.c_int()
            driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, handle)
            numbers.append(value.value)
        devices.append({"name": name.value.decode(errors="replace"), "capability": numbers})
    return {"version": [version.value // 1000, version.value % 1000 // 10], "devices": devices}


def use_report(device: str) -> dict:
    """Compute on a device: the number of ``devices``, or an ``error``."""
    import mindspore
    import numpy as np
    from mindspore import Tensor, hal, ops

    try:
        if not hal.is_available(device):
            return {"error": f"MindSpore did not load its plugin for {device}"}
        count = hal.device_count(device)
        mindspore.set_device(device)
        ones = Tensor(np.ones((16, 16), np.float32))
        if count and (ops.matmul(ones, ones).asnumpy() == 16).all():
            return {"devices": count}
        return {"error": f"MindSpore counts {count} devices"}
    except (RuntimeError, ValueError, OSError) as error:
        lines = [line.strip() for line in str(error).splitlines()]
        told = [line for line in lines if line.strip("-") and not line.startswith("- ")]
        return {"error": told[0] if told else type(error).__name__}


def _dotted(numbers: Sequence[int]) -> str:
    return ".".join(map(str, numbers))


def table(findings: Sequence[Finding]) -> str:
    """The findings as text; what to do is said where something is missing."""
    rows = [("device", "check", "state", "found", "what to do")]
    for finding in findings:
        remedy = finding.remedy if finding.state != OK else ""
        rows.append((finding.device, finding.check, finding.state, finding.found, remedy))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    # What was found may be long; what is to be done then stands on a line of its own.
    width = min(60, max(len(row[3]) for row in rows))
    lines = []
    for *cells, found, remedy in rows:
        start = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        gap = "\n" + " " * (len(start) + 4) if len(found) > width else "  "
        lines.append(f"{start}  {found.ljust(width)}{gap if remedy else ''}{remedy}".rstrip())
    return "\n".join(lines)
