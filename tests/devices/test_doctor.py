"""The doctor and the launcher on made-up toolkits, drivers and libraries."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mindspore_cvae.commands import doctor as commands_doctor
from mindspore_cvae.commands import launcher as commands_launcher
from mindspore_cvae.devices import doctor, launcher
from mindspore_cvae.errors import DeviceError, run_command

ROOT = Path(__file__).resolve().parents[2]


def make_nvcc(cuda_home: Path, answer: str, status: int = 0) -> Path:
    nvcc = cuda_home / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text(f"#!/bin/sh\necho '{answer}'\nexit {status}\n")
    nvcc.chmod(0o755)
    return cuda_home


def make_library(folder: Path, name: str, source: str = "") -> None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for a made-up library")
    folder.mkdir(parents=True, exist_ok=True)
    code = folder / "source.c"
    code.write_text(source)
    command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", folder / name, code]
    subprocess.run(command, check=True)


def by_check(findings):
    return {finding.check: finding for finding in findings}


@pytest.mark.parametrize(
    ("answer", "release", "accepted"),
    [
        ("Cuda compilation tools, release 11.8, V11.8.89", (11, 8), True),
        ("Cuda compilation tools, release 11.1, V11.1.105", (11, 1), True),
        ("Cuda compilation tools, release 11.0, V11.0.221", (11, 0), False),
        ("Cuda compilation tools, release 12.4, V12.4.131", (12, 4), False),
        # MindSpore looks for the comma too.
        ("Cuda compilation tools, release 11.8", None, False),
        ("nothing", None, False),
    ],
)
def test_release_that_nvcc_tells(tmp_path, answer, release, accepted):
    assert launcher.cuda_release(make_nvcc(tmp_path, answer)) == release
    assert launcher.is_accepted(release) == accepted


def test_no_release_without_a_working_nvcc(tmp_path):
    assert launcher.cuda_release(tmp_path) is None
    failing = make_nvcc(tmp_path / "failing", "release 11.8, V11.8.89", status=1)
    assert launcher.cuda_release(failing) is None


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """Two folders of libraries where the wheels would be."""
    root = tmp_path / "nvidia"
    for package, library in (("cuda_runtime", "libcudart.so.11.0"), ("cudnn", "libcudnn.so.8")):
        (root / package / "lib").mkdir(parents=True)
        (root / package / "lib" / library).touch()
    (root / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    return root


def test_environment_from_the_wheels(wheels, tmp_path):
    environment = {"HOME": str(tmp_path), "LD_LIBRARY_PATH": "/mine", "KEPT": "1"}
    result = launcher.gpu_environment(environment)
    assert result["LD_LIBRARY_PATH"].split(":") == [
        str(wheels / "cuda_runtime" / "lib"),
        str(wheels / "cudnn" / "lib"),
        "/mine",
    ]
    assert result["KEPT"] == "1"
    assert launcher.cuda_release(result["CUDA_HOME"]) == (11, 8)
    # A stand-in that was spoilt is made anew.
    nvcc = Path(result["CUDA_HOME"], "bin", "nvcc")
    nvcc.write_text("")
    assert launcher.cuda_release(launcher.gpu_environment(environment)["CUDA_HOME"]) == (11, 8)


def test_accepted_toolkit_comes_before_the_wheels(wheels, tmp_path):
    home = make_nvcc(tmp_path / "cuda", "Cuda compilation tools, release 11.6, V11.6.124")
    result = launcher.gpu_environment({"HOME": str(tmp_path), "CUDA_HOME": str(home)})
    assert result["CUDA_HOME"] == str(home)
    assert result["LD_LIBRARY_PATH"] == str(home / "lib64")


def test_toolkit_of_another_release_gives_way_to_the_wheels(wheels, tmp_path):
    home = make_nvcc(tmp_path / "cuda", "Cuda compilation tools, release 12.4, V12.4.131")
    result = launcher.gpu_environment({"HOME": str(tmp_path), "CUDA_HOME": str(home)})
    assert result["CUDA_HOME"] != str(home)


def test_no_cuda_11_is_one_line_and_exit_code_1(monkeypatch, capsys):
    monkeypatch.setattr(launcher, "wheel_folders", list)
    monkeypatch.delenv("CUDA_HOME", raising=False)
    with pytest.raises(DeviceError, match=r'pip install "\.\[gpu\]"'):
        launcher.gpu_environment({})
    assert run_command(lambda: commands_launcher.main(["true"])) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_launcher_starts_the_command_in_the_environment(wheels, tmp_path):
    show = "import os; print(os.environ['CUDA_HOME'], os.environ['LD_LIBRARY_PATH'])"
    result = subprocess.run(
        [sys.executable, "-m", "mindspore_cvae", "launcher", sys.executable, "-c", show],
        env={**os.environ, "HOME": str(tmp_path), "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    home, libraries = result.stdout.split()
    assert launcher.cuda_release(home) == (11, 8)
    assert str(wheels / "cudnn" / "lib") in libraries.split(":")


def test_command_that_is_not_there_is_bad_input(wheels, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CUDA_HOME", raising=False)
    assert run_command(lambda: commands_launcher.main([str(tmp_path / "nothing")])) == 2
    assert run_command(lambda: commands_launcher.main([])) == 2
    assert capsys.readouterr().err.count("\n") == 2


@pytest.mark.parametrize(
    ("line", "instructions", "units"),
    [
        ("flags\t\t: fpu avx2 avx512_bf16", "avx2, avx512_bf16", "avx512_bf16"),
        ("Features\t: fp asimd sve bf16", "asimd, sve, bf16", "bf16; whether "),
        ("Features\t: fp asimd", "asimd", "none seen"),
        ("", "none that are known here", "none seen"),
    ],
)
def test_cpus_of_x86_and_of_arm(tmp_path, line, instructions, units):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{line}\n")
    rows = by_check(doctor._cpu_findings(tmp_path / "cpuinfo"))
    assert rows["instructions"].found == instructions
    assert rows["bfloat16 units"].found.startswith(units)


def test_a_c_library_other_than_glibc_is_told():
    assert doctor._libc_finding(lambda name: "glibc 2.31").state == doctor.OK

    def musl(name):
        raise ValueError("unrecognized configuration name")

    finding = doctor._libc_finding(musl)
    assert finding.state == doctor.MISSING
    assert "musl" in finding.found and "glibc" in finding.remedy


def test_every_gpu_library_is_a_row(tmp_path):
    make_library(tmp_path, "libcudart.so.11.0")
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    rows = by_check(doctor._gpu_findings(environment))
    assert rows.keys() >= set(doctor.GPU_LIBRARIES)
    assert rows["libcudart.so.11.0"].state == doctor.OK
    assert rows["libcudart.so.11.0"].found == str(tmp_path / "libcudart.so.11.0")


DRIVER = """
#include <string.h>
int cuInit(unsigned flags) { return FAIL; }
int cuDriverGetVersion(int *version) { *version = 12040; return 0; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int number) { *device = number; return 0; }
int cuDeviceGetName(char *name, int length, int device) { strcpy(name, "a card"); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 7 + 2 * device : 5 * (1 - device);
    return 0;
}
"""


def test_driver_with_cards(tmp_path):
    make_library(tmp_path, "libcuda.so.1", DRIVER.replace("FAIL", "0"))
    rows = by_check(doctor._gpu_findings({**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}))
    assert rows["driver"].state == doctor.OK
    assert rows["driver"].found == "CUDA 12.4, 2 devices"
    assert rows["card 0"].found == "a card, compute capability 7.5"
    # Newer than what MindSpore's kernels were compiled for.
    assert rows["card 1"].found.startswith("a card, compute capability 9.0; ")


def test_driver_that_does_not_start(tmp_path):
    make_library(tmp_path, "libcuda.so.1", DRIVER.replace("FAIL", "999"))
    rows = by_check(doctor._gpu_findings({**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}))
    assert rows["driver"].state == doctor.MISSING
    assert "999" in rows["driver"].found


@pytest.fixture
def cann(tmp_path):
    """An installation of CANN with its driver, as far as the doctor looks."""
    home, devices = tmp_path / "cann", tmp_path / "dev"
    (home / "compiler").mkdir(parents=True)
    (home / "compiler" / "version.info").write_text("Version=8.3.0\n")
    for module in ("te", "hccl"):
        (home / "python" / module).mkdir(parents=True)
        (home / "python" / module / "__init__.py").touch()
    (home / "opp").mkdir()
    for name in doctor.ASCEND_LIBRARIES:
        make_library(home / "lib64", name)
    devices.mkdir()
    (devices / "davinci0").touch()
    environment = {
        **os.environ,
        "ASCEND_HOME_PATH": str(home),
        "ASCEND_OPP_PATH": str(home / "opp"),
        "LD_LIBRARY_PATH": str(home / "lib64"),
        "PYTHONPATH": str(home / "python"),
    }
    return home, devices, environment


def test_complete_ascend_has_nothing_missing(cann):
    _, devices, environment = cann
    rows = doctor._ascend_findings(environment, devices)
    assert [row.check for row in rows if row.state != doctor.OK] == []


def test_each_missing_part_of_ascend_is_named(cann):
    home, devices, environment = cann

    def not_ok(**changes):
        rows = doctor._ascend_findings({**environment, **changes}, devices)
        return [(row.check, row.state) for row in rows if row.state != doctor.OK]

    assert not_ok(PYTHONPATH="") == [("CANN's Python packages", doctor.MISSING)]
    assert not_ok(ASCEND_OPP_PATH="/none") == [("operators", doctor.MISSING)]
    (home / "compiler" / "version.info").write_text("Version=7.0.0\n")
    assert not_ok() == [("CANN's release", doctor.MISSING)]
    (home / "compiler" / "version.info").unlink()
    assert not_ok() == [("CANN's release", doctor.UNKNOWN)]
    (home / "lib64" / "libgraph.so").unlink()
    (devices / "davinci0").unlink()
    assert not_ok() == [
        ("devices", doctor.MISSING),
        ("CANN's release", doctor.UNKNOWN),
        ("libgraph.so", doctor.MISSING),
    ]


@pytest.mark.parametrize(
    ("version", "is_fit", "release", "state"),
    [
        ("2.7.0", False, "8.3", doctor.OK),
        ("2.7.1", True, "8.3", doctor.OK),
        ("2.7.1", True, "8.5", doctor.MISSING),
        ("2.9.0", True, "9.0", doctor.UNKNOWN),
        ("2.10.1", True, "8.5", doctor.OK),
        ("2.11.0", False, "9.1", doctor.UNKNOWN),
    ],
)
def test_versions_of_mindspore_and_the_cann_of_each(
    cann, monkeypatch, version, is_fit, release, state
):
    home, devices, environment = cann
    (home / "compiler" / "version.info").write_text(f"Version={release}.0\n")
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda name: version)
    monkeypatch.setattr(doctor, "_ask", lambda *asked: {"error": "not asked", "missing": []})
    rows = by_check(doctor._ascend_findings(environment, devices))
    assert rows["CANN's release"].state == state
    found = by_check(doctor._python_findings())["mindspore"]
    assert found.state == (doctor.OK if is_fit else doctor.MISSING)


def test_releases_of_cann_are_those_of_the_installed_mindspore():
    checker = importlib_source("mindspore/run_check/_check_version.py")
    releases = doctor.CANN_RELEASES[doctor._mindspore_release()]
    expected = ", ".join(f'"{release}"' for release in releases)
    assert f"self.version = [{expected}]" in checker


def importlib_source(path: str) -> str:
    import importlib.util

    package = importlib.util.find_spec("mindspore").submodule_search_locations[0]
    return Path(package).parent.joinpath(path).read_text()


def test_whole_examination_of_this_machine():
    result = subprocess.run(
        [sys.executable, "-m", "mindspore_cvae", "doctor", "--json", "--device", "CPU"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert "CPU" in report["usable"]
    rows = {(row["device"], row["check"]): row for row in report["findings"]}
    assert {("CPU", "use"), ("GPU", "use"), ("Ascend", "use")} <= rows.keys()
    assert rows["all", "mindspore"]["state"] == "ok"
    # Whoever lacks something is told what to do.
    assert all(row["remedy"] for row in rows.values() if row["state"] != "ok")


def test_exit_code_is_about_the_device_asked_for(monkeypatch, capsys):
    findings = [
        doctor.Finding("CPU", "use", doctor.OK, "1 usable"),
        doctor.Finding("GPU", "use", doctor.MISSING, "no plugin", "see the rows above"),
    ]
    monkeypatch.setattr(commands_doctor, "examine", lambda: findings)
    assert commands_doctor.main([]) == 0
    assert commands_doctor.main(["--device", "CPU"]) == 0
    assert commands_doctor.main(["--device", "GPU"]) == 1
    printed = capsys.readouterr().out
    assert "see the rows above" in printed
    assert "usable: CPU" in printed
    findings.pop(0)
    assert commands_doctor.main([]) == 1
