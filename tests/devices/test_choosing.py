"""The choice of a device and of the precision of matrix products."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import mindspore
import pytest

from mindspore_cvae.devices import choosing
from mindspore_cvae.errors import DeviceError, InputError, UserNotice

ROOT = Path(__file__).resolve().parents[2]
NO_NUMBER = {"DEVICE_ID": "", "ASCEND_DEVICE_ID": ""}


X86 = """processor\t: 0
model name\t: avx2 bf16 inside
flags\t\t: fpu avx2 avx512f amx_bf16 amx_tile
vmx flags\t: sve
"""
ARM = """processor\t: 0
BogoMIPS\t: 200.00
Features\t: fp asimd aes sve i8mm bf16
CPU part\t: 0xd02
"""
CPUS = {
    X86: ["avx2", "avx512f", "amx_bf16"],
    ARM: ["asimd", "sve", "bf16"],
    "Features\t: fp asimd asimdrdm\n": ["asimd"],
    "processor\t: 0\n": [],
}
"""Made-up descriptions of x86's and ARM's CPUs, and the instructions in them."""


@pytest.mark.parametrize("description", CPUS)
def test_instructions_of_x86_and_of_arm(tmp_path, description):
    (tmp_path / "cpuinfo").write_text(description)
    assert choosing.instructions(tmp_path / "cpuinfo") == CPUS[description]
    assert choosing.instructions(tmp_path / "nowhere") == []


@pytest.fixture
def machine(monkeypatch):
    """A machine with the given devices; what is selected there is recorded, not done."""
    selected = []

    def pretend(environment: dict[str, str] | None = None, **counts: int) -> list[dict]:
        monkeypatch.setattr(choosing, "_count", lambda name: counts.get(name, 0))
        monkeypatch.setattr(mindspore, "set_device", lambda *device: selected.append(device))
        monkeypatch.setattr(choosing, "chosen", lambda: "none yet")
        for name, value in {**NO_NUMBER, **(environment or {})}.items():
            monkeypatch.setenv(name, value)
        return selected

    return pretend


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"CPU": 1}, "CPU"),
        ({"CPU": 1, "GPU": 2}, "GPU"),
        ({"CPU": 1, "GPU": 2, "Ascend": 8}, "Ascend"),
    ],
)
def test_auto_takes_the_first_that_is_there(machine, counts, expected):
    selected = machine(**counts)
    assert choosing.choose("auto") == expected
    assert [device[0] for device in selected] == [expected]
    assert mindspore.get_context("mode") == mindspore.GRAPH_MODE


def test_a_named_device_that_is_not_there_is_never_replaced(machine):
    selected = machine(CPU=1, GPU=1)
    with pytest.raises(DeviceError, match="device Ascend is not there .*take GPU or CPU, or auto"):
        choosing.choose("Ascend")
    with pytest.raises(DeviceError, match="device GPU 1 is not there: it has the numbers 0 to 0"):
        choosing.choose("GPU", 1)
    assert selected == []
    assert choosing.choose("CPU", 5) == "CPU"
    assert selected == [("CPU",)]


@pytest.mark.parametrize(
    ("environment", "device_id", "expected"),
    [
        ({}, None, 0),
        ({"DEVICE_ID": "3"}, None, 3),
        ({"ASCEND_DEVICE_ID": "2"}, None, 2),
        ({"DEVICE_ID": "3", "ASCEND_DEVICE_ID": "2"}, None, 3),
        ({"DEVICE_ID": "3"}, 1, 1),
    ],
)
def test_the_number_of_the_device(machine, environment, device_id, expected):
    selected = machine(environment, CPU=1, Ascend=8)
    choosing.choose("Ascend", device_id)
    assert selected == [("Ascend", expected)]


def test_a_number_that_is_none_names_its_variable(machine):
    machine({"DEVICE_ID": "first"}, CPU=1, GPU=1)
    with pytest.raises(InputError, match="DEVICE_ID must be the number of a device, not 'first'"):
        choosing.choose("GPU")


def test_a_device_that_fails_when_selected_is_one_error(machine, monkeypatch):
    machine(CPU=1, GPU=1)

    def fail(*device):
        raise RuntimeError("CUDA driver version is insufficient\n\n- C++ Call Stack\n...")

    monkeypatch.setattr(mindspore, "set_device", fail)
    with pytest.raises(
        DeviceError, match=r"device GPU cannot be used: CUDA driver .*insufficient$"
    ):
        choosing.choose("GPU")


def test_a_driver_that_does_not_answer_counts_as_no_device(monkeypatch):
    from mindspore import hal

    def fail(name):
        raise RuntimeError("no driver")

    monkeypatch.setattr(hal, "is_available", lambda name: True)
    monkeypatch.setattr(hal, "device_count", fail)
    assert choosing._count("GPU") == 0


def test_this_machine_has_a_cpu():
    assert choosing.choose("CPU") == "CPU"
    assert mindspore.get_context("device_target") == "CPU"
    assert mindspore.get_context("mode") == mindspore.GRAPH_MODE


PRODUCT = """
import sys
from mindspore_cvae.devices import choosing
choosing.apply_precision(sys.argv[1])
import mindspore, numpy
choosing.choose("CPU")
x = mindspore.Tensor(numpy.ones((64, 64), numpy.float32))
mindspore.ops.matmul(x, x).asnumpy()
if len(sys.argv) > 2:
    choosing.apply_precision(sys.argv[2])
"""


def product(*precisions: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", PRODUCT, *precisions],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "ONEDNN_VERBOSE": "1", **environment},
    )
    return result.stdout + result.stderr


@pytest.mark.parametrize("content", [b"..DEFAULT_FPMATH_MODE..", b"..DNNL_VERBOSE..", None])
def test_a_onednn_without_the_mode_of_fast_is_told(tmp_path, monkeypatch, content):
    """MindSpore 2.7 brings such a one."""
    (tmp_path / "mindspore" / "lib").mkdir(parents=True)
    (tmp_path / "mindspore" / "__init__.py").touch()
    if content is not None:
        (tmp_path / "mindspore" / "lib" / "libdnnl.so.2").write_bytes(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mindspore")
    monkeypatch.setenv(choosing.MATRIX_PRECISION, "STRICT")
    if content == b"..DNNL_VERBOSE..":
        with pytest.warns(UserNotice, match="precision fast changes nothing on the CPU"):
            choosing.apply_precision("fast")
    choosing.apply_precision("strict")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if content != b"..DNNL_VERBOSE..":
            choosing.apply_precision("fast")


@pytest.mark.skipif(choosing._is_old_onednn(), reason="this oneDNN has no mode of bfloat16")
def test_fast_lets_onednn_multiply_in_bfloat16_and_strict_does_not():
    fast = product("fast", "fast")
    assert "exec,cpu,matmul" in fast and "attr-fpmath:bf16" in fast and "Error" not in fast
    # strict holds whatever the environment says.
    strict = product("strict", "fast", ONEDNN_DEFAULT_FPMATH_MODE="BF16")
    assert "exec,cpu,matmul" in strict and "attr-fpmath" not in strict
    assert "InputError: precision fast must be chosen before mindspore is imported" in strict
