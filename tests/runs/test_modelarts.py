"""Jobs on ModelArts: with buckets that are folders, and a moxing that fails at chosen calls."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import fake_moxing
import numpy as np
import pytest
from tiny_run import SIZES, write_corpus

from mindspore_cvae.commands.train import train_main
from mindspore_cvae.errors import DeviceError, InputError, TrainingError, UserNotice
from mindspore_cvae.runs import checkpoints, lock, modelarts
from mindspore_cvae.runs import folder as runs_folder
from mindspore_cvae.runs.modelarts import TransferError, job

ROOT = Path(__file__).resolve().parents[2]
HOST_VARIABLES = ("MA_NUM_HOSTS", "VC_TASK_INDEX", "DLS_TASK_NUMBER", "DLS_TASK_INDEX", "RANK_ID")


@pytest.fixture(autouse=True)
def container(tmp_path, monkeypatch):
    """A container of its own: an empty disk, no pauses, none of ModelArts' variables."""
    monkeypatch.setenv(modelarts.CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr(modelarts, "PAUSES", (0.0, 0.0))
    for name in HOST_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_copies_of_a_user_are_a_user_s_own(tmp_path, monkeypatch):
    """The folder for temporary files is everybody's: what lies there may be a trap."""
    monkeypatch.delenv(modelarts.CACHE)
    monkeypatch.setattr(modelarts.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(modelarts.os, "access", lambda *_: False)
    folder = modelarts.cache_folder()
    assert folder.parent == tmp_path and folder.stat().st_mode & 0o777 == 0o700
    (tmp_path / "precious").write_text("mine")
    (folder / "copy.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError), modelarts._lock(folder / "copy"):
        pass
    assert (tmp_path / "precious").read_text() == "mine"
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="somebody else's"):
        modelarts.cache_folder()


@pytest.fixture
def buckets(tmp_path):
    """Buckets, as folders, with a corpus in obs://bucket/ptb."""
    write_corpus(tmp_path / "buckets" / "bucket" / "ptb")
    return tmp_path / "buckets"


def options(data=None, train=None, checkpoint=None, **changes):
    """Parsed arguments of the command train."""
    urls = {"data_url": data, "train_url": train, "checkpoint_url": checkpoint}
    rest = {"data_dir": None, "output_dir": None, "resume": False, "overwrite": False}
    return argparse.Namespace(**{**urls, **rest, **changes})


def write_small_run(folder: Path, step: int = 7) -> Path:
    """A run without a model: what a job has to carry."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / runs_folder.CONFIG).write_text(f"seed: {step}\n")
    (folder / runs_folder.VOCABULARY).write_text("<pad>\n")
    (folder / runs_folder.LOG).write_text("{}\n")
    (folder / lock.LOCK).write_text("process 1\n")
    (folder / runs_folder.CHECKPOINTS).mkdir(exist_ok=True)
    tensors = {"a": np.full(50, step, np.float32)}
    checkpoints.save(folder / runs_folder.CHECKPOINTS, step, tensors, {}, {}, best=True)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a run, but for the lock."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != lock.LOCK
    }


@pytest.mark.parametrize(
    "environment, expected",
    [
        ({}, (1, 0)),
        ({"MA_NUM_HOSTS": "2", "VC_TASK_INDEX": "1"}, (2, 1)),
        ({"DLS_TASK_NUMBER": "4", "DLS_TASK_INDEX": "3"}, (4, 3)),
        ({"MA_NUM_HOSTS": "1"}, (1, 0)),
        ({"MA_NUM_HOSTS": "2", "VC_TASK_INDEX": "1", "DLS_TASK_NUMBER": "8"}, (2, 1)),
    ],
)
def test_hosts_of_both_versions_of_jobs(environment, expected):
    assert modelarts.host(environment) == expected


def test_a_number_of_hosts_that_is_none_is_refused():
    with pytest.raises(InputError, match="MA_NUM_HOSTS and VC_TASK_INDEX"):
        modelarts.host({"MA_NUM_HOSTS": "two"})


@pytest.mark.parametrize(
    "environment, writes",
    [
        ({}, True),
        ({"MA_NUM_HOSTS": "2", "VC_TASK_INDEX": "1"}, False),
        ({"RANK_SIZE": "16", "RANK_ID": "0", "DLS_TASK_NUMBER": "2"}, True),
        ({"RANK_SIZE": "16", "RANK_ID": "8", "DLS_TASK_NUMBER": "2", "DLS_TASK_INDEX": "1"}, False),
        ({"MS_WORKER_NUM": "2", "RANK_ID": "1"}, False),
    ],
)
def test_one_process_uploads(environment, writes):
    assert modelarts.writes_output(environment) is writes


def test_without_urls_nothing_is_done(monkeypatch):
    monkeypatch.setitem(sys.modules, "moxing", None)
    arguments = options(data_dir="data", output_dir="run")
    before = vars(arguments).copy()
    with job(arguments):
        assert vars(arguments) == before


def test_paths_need_no_moxing(tmp_path, monkeypatch):
    """A job of version 2: the platform has copied the data, and will copy the output."""
    monkeypatch.setitem(sys.modules, "moxing", None)
    arguments = options(str(tmp_path / "inputs"), str(tmp_path / "outputs"))
    with job(arguments):
        assert arguments.data_dir == str(tmp_path / "inputs")
        assert arguments.output_dir == str(tmp_path / "outputs")
        assert arguments.resume, "an output that was downloaded before is continued"
        write_small_run(tmp_path / "outputs")
    assert not (tmp_path / "cache").exists()


def test_a_bucket_without_moxing_is_one_clear_error(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "moxing", None)
    with pytest.raises(DeviceError, match="need moxing"), job(options("obs://bucket/ptb")):
        pass
    assert train_main(["--data_url", "s3://bucket/ptb"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_package_that_only_has_the_name_of_moxing_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "moxing", types.ModuleType("moxing"))
    with (
        pytest.raises(DeviceError, match="is not ModelArts', since it has no moxing.file"),
        job(options("obs://bucket/ptb")),
    ):
        pass


@pytest.mark.parametrize(
    "arguments, message",
    [
        (options("a", data_dir="b"), "--data_url and --data_dir"),
        (options(train="a", output_dir="b"), "--train_url and --output_dir"),
        (options(checkpoint="a"), "--checkpoint_url needs"),
        (options(train="a", checkpoint="b", overwrite=True), "--overwrite"),
    ],
)
def test_options_that_contradict_each_other(arguments, message):
    with pytest.raises(InputError, match=message), job(arguments):
        pass


def test_several_hosts_need_several_processes(monkeypatch, tmp_path):
    monkeypatch.setenv("MA_NUM_HOSTS", "2")
    with pytest.raises(InputError, match="2 hosts"), job(options(train=str(tmp_path))):
        pass
    monkeypatch.setenv("RANK_SIZE", "16")
    with job(options(train=str(tmp_path))):
        pass


def test_data_is_downloaded_once(buckets, monkeypatch):
    files = fake_moxing.install(monkeypatch, buckets)
    for scheme in ("obs", "obs", "s3"):
        arguments = options(f"{scheme}://bucket/ptb/")
        with job(arguments):
            assert content(Path(arguments.data_dir)) == content(buckets / "bucket" / "ptb")
    assert files.calls["copy_parallel"] == 2, "one for each name"


def test_a_single_file_is_data_too(buckets, monkeypatch):
    fake_moxing.install(monkeypatch, buckets)
    for _ in range(2):
        arguments = options("obs://bucket/ptb/train.txt")
        with job(arguments):
            expected = (buckets / "bucket" / "ptb" / "train.txt").read_bytes()
            assert Path(arguments.data_dir).name == "train.txt"
            assert Path(arguments.data_dir).read_bytes() == expected


def test_a_copy_of_which_something_is_gone_is_made_anew(buckets, monkeypatch):
    files = fake_moxing.install(monkeypatch, buckets)
    for _ in range(2):
        arguments = options("obs://bucket/ptb")
        with job(arguments):
            assert len(content(Path(arguments.data_dir))) == 3
        (Path(arguments.data_dir) / "valid.txt").unlink()
    assert files.calls["copy_parallel"] == 2


@pytest.mark.parametrize(
    "failures",
    [
        {"copy_parallel": {"1": "raise", "2": "truncate"}},
        {"copy_parallel": {"1": "nothing"}},
        {"list_directory": {"1": "raise"}, "get_size": {"2": "raise"}},
    ],
)
def test_downloading_is_repeated_until_it_is_whole(buckets, monkeypatch, failures):
    fake_moxing.install(monkeypatch, buckets, failures)
    arguments = options("obs://bucket/ptb")
    with pytest.warns(UserNotice, match="again in") as told, job(arguments):
        assert content(Path(arguments.data_dir)) == content(buckets / "bucket" / "ptb")
    assert all("again in" in str(warning.message) for warning in told)


def test_downloading_that_goes_on_failing_is_one_error_and_leaves_nothing(buckets, monkeypatch):
    failing = {"copy_parallel": {str(call): "truncate" for call in range(1, 4)}}
    files = fake_moxing.install(monkeypatch, buckets, failing)
    with pytest.raises(TransferError, match="downloading obs://bucket/ptb failed 3 times"):
        with job(options("obs://bucket/ptb")):
            raise AssertionError
    assert files.calls["copy_parallel"] == 3
    # The job is started again in the same container.
    arguments = options("obs://bucket/ptb")
    with job(arguments):
        assert content(Path(arguments.data_dir)) == content(buckets / "bucket" / "ptb")


@pytest.mark.parametrize("url", ["obs://bucket/nothing", "obs://bucket/empty"])
def test_a_url_of_nothing_is_refused_at_once(buckets, monkeypatch, url):
    (buckets / "bucket" / "empty").mkdir()
    files = fake_moxing.install(monkeypatch, buckets)
    with pytest.raises(InputError, match=url), job(options(url)):
        pass
    assert files.calls["copy_parallel"] == 0


def write_output(arguments, step=7):
    write_small_run(Path(arguments.output_dir), step)


def test_the_run_is_uploaded(buckets, monkeypatch):
    fake_moxing.install(monkeypatch, buckets)
    arguments = options(train="obs://bucket/out/")
    with job(arguments):
        write_output(arguments)
        (Path(arguments.output_dir) / ".log.jsonl.12345678.tmp").write_text("unfinished")
        (Path(arguments.output_dir) / "link").symlink_to("/etc/passwd")
    uploaded = content(buckets / "bucket" / "out")
    assert uploaded.keys() == {
        *("config.yaml", "vocab.txt", "log.jsonl", "checkpoints/step-00000007.json"),
        *("checkpoints/step-00000007.safetensors", "checkpoints/latest.json"),
        "checkpoints/best.json",
    }
    assert not (buckets / "bucket" / "out" / lock.LOCK).exists()
    assert checkpoints.load(buckets / "bucket" / "out" / runs_folder.CHECKPOINTS).step == 7


class Failure(Exception):
    pass


@pytest.mark.parametrize("error", [TrainingError("overflow"), KeyboardInterrupt(), Failure()])
def test_the_run_is_uploaded_when_training_fails(buckets, monkeypatch, error):
    fake_moxing.install(monkeypatch, buckets)
    arguments = options(train="obs://bucket/out")
    with pytest.raises(type(error)), job(arguments):
        write_output(arguments)
        raise error
    assert checkpoints.load(buckets / "bucket" / "out" / runs_folder.CHECKPOINTS).step == 7


def test_sigterm_outside_of_the_loop_uploads_and_ends(buckets, monkeypatch):
    fake_moxing.install(monkeypatch, buckets)
    arguments = options(train="obs://bucket/out")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end, job(arguments):
        write_output(arguments)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
    assert end.value.code == 143
    assert checkpoints.load(buckets / "bucket" / "out" / runs_folder.CHECKPOINTS).step == 7
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_does_not_stop_an_upload(buckets, monkeypatch):
    files = fake_moxing.install(monkeypatch, buckets)
    copy = files.copy

    def told_to_end(source, target):
        os.kill(os.getpid(), signal.SIGTERM)
        copy(source, target)

    files.copy = told_to_end
    arguments = options(train="obs://bucket/out")
    with job(arguments):
        write_output(arguments)
    assert checkpoints.load(buckets / "bucket" / "out" / runs_folder.CHECKPOINTS).step == 7


@pytest.mark.parametrize("how", ["raise", "truncate", "damage", "nothing"])
def test_uploading_is_repeated_until_the_bucket_holds_what_was_sent(buckets, monkeypatch, how):
    failures = {"copy": {"1": how, "4": how}, "read": {"3": "raise"}}
    fake_moxing.install(monkeypatch, buckets, failures)
    arguments = options(train="obs://bucket/out")
    with job(arguments):
        write_output(arguments)
    assert content(buckets / "bucket" / "out") == content(Path(arguments.output_dir))


def always(how):
    return {str(call): how for call in range(1, 100)}


def test_an_upload_that_goes_on_failing_is_an_error(buckets, monkeypatch):
    fake_moxing.install(monkeypatch, buckets, {"copy": always("damage")})
    arguments = options(train="obs://bucket/out")
    with pytest.raises(TransferError, match="failed 3 times"), job(arguments):
        write_output(arguments)
    # An error of training is the one that is told; the other is a warning.
    with (
        pytest.warns(UserNotice, match="^uploading .* failed 3 times"),
        pytest.raises(TrainingError, match="overflow"),
        job(arguments := options(train="obs://bucket/x")),
    ):
        write_output(arguments)
        raise TrainingError("overflow")


@pytest.mark.parametrize("uploaded", range(7))
def test_an_upload_that_breaks_off_leaves_the_run_before_it(buckets, monkeypatch, uploaded):
    """Another container finds a checkpoint that is whole, whenever the first one died."""
    write_small_run(buckets / "bucket" / "out", 3)
    failures = {"copy": {str(call): "raise" for call in range(uploaded + 1, 30)}}
    fake_moxing.install(monkeypatch, buckets, failures)
    arguments = options(train="obs://bucket/out")
    with pytest.raises(TransferError), job(arguments):
        write_output(arguments, 9)
    saved = checkpoints.load(buckets / "bucket" / "out" / runs_folder.CHECKPOINTS)
    assert saved.step in (3, 9) and (saved.tensors["a"] == saved.step).all()


def test_another_container_continues_what_was_uploaded(buckets, monkeypatch, tmp_path):
    write_small_run(buckets / "bucket" / "out", 5)
    fake_moxing.install(monkeypatch, buckets)
    arguments = options(train="obs://bucket/out")
    with job(arguments):
        assert arguments.resume
        assert checkpoints.load(Path(arguments.output_dir) / runs_folder.CHECKPOINTS).step == 5
        write_output(arguments, 8)
    monkeypatch.setenv(modelarts.CACHE, str(tmp_path / "another"))
    arguments = options(train="obs://bucket/out")
    with job(arguments):
        assert checkpoints.load(Path(arguments.output_dir) / runs_folder.CHECKPOINTS).step == 8


@pytest.mark.parametrize("here, there, expected", [(5, 5, 5), (9, 5, 9), (5, 9, 9)])
def test_the_same_container_takes_what_has_come_further(
    buckets, monkeypatch, here, there, expected
):
    files = fake_moxing.install(monkeypatch, buckets)
    arguments = options(train="obs://bucket/out")
    with job(arguments):
        write_output(arguments, here)
    shutil.rmtree(buckets / "bucket" / "out")
    write_small_run(buckets / "bucket" / "out", there)
    with job(arguments := options(train="obs://bucket/out")):
        assert (
            checkpoints.load(Path(arguments.output_dir) / runs_folder.CHECKPOINTS).step == expected
        )
    assert files.calls["copy_parallel"] == (1 if there > here else 0)


def test_overwriting_downloads_nothing(buckets, monkeypatch):
    write_small_run(buckets / "bucket" / "out", 5)
    fake_moxing.install(monkeypatch, buckets)
    arguments = options(train="obs://bucket/out", overwrite=True)
    with job(arguments):
        assert not arguments.resume
        assert not Path(arguments.output_dir).exists()


@pytest.mark.parametrize("remote", [True, False])
def test_a_run_to_begin_with(buckets, monkeypatch, tmp_path, remote):
    write_small_run(buckets / "bucket" / "earlier", 5)
    fake_moxing.install(monkeypatch, buckets)
    url = "obs://bucket/earlier" if remote else str(buckets / "bucket" / "earlier")
    (tmp_path / "out").mkdir()
    for step in (5, 8):
        arguments = options(train=str(tmp_path / "out"), checkpoint=url)
        with job(arguments):
            assert arguments.resume
            assert checkpoints.load(tmp_path / "out" / runs_folder.CHECKPOINTS).step == step
            if step == 5:
                write_output(arguments, 8)
    assert checkpoints.load(buckets / "bucket" / "earlier" / runs_folder.CHECKPOINTS).step == 5
    assert not (tmp_path / "out" / "link").exists()


def test_copying_a_run_that_broke_off_is_done_anew(buckets, monkeypatch, tmp_path):
    source = write_small_run(buckets / "bucket" / "earlier", 5)
    copies, copyfile = [], shutil.copyfile

    def broken(path, target):
        copies.append(path)
        if len(copies) == 4:
            raise Failure
        copyfile(path, target)

    monkeypatch.setattr(shutil, "copyfile", broken)
    for _ in range(2):
        try:
            with job(options(train=str(tmp_path / "out"), checkpoint=str(source))):
                pass
        except Failure:
            assert not runs_folder.is_run(tmp_path / "out")
    assert content(tmp_path / "out") == content(source)


def test_a_checkpoint_url_without_a_run_is_refused(tmp_path):
    arguments = options(train=str(tmp_path / "out"), checkpoint=str(tmp_path))
    with pytest.raises(InputError, match="holds no run"), job(arguments):
        pass


PREPARE = """
import argparse, sys
import fake_moxing
from mindspore_cvae.runs.modelarts import job

files = fake_moxing.FakeFiles(sys.argv[1])
sys.modules["moxing"] = fake_moxing.FakeMoxing(files)
arguments = argparse.Namespace(
    **dict(data_url="obs://bucket/ptb", train_url=None, checkpoint_url=None, data_dir=None)
)
with job(arguments):
    print("downloads", files.calls["copy_parallel"])
"""


def test_processes_of_one_host_download_once(buckets):
    path = os.pathsep.join([str(ROOT / "tests" / "support"), str(ROOT)])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PREPARE, str(buckets)],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    told = [process.communicate(timeout=120)[0].splitlines()[-1] for process in processes]
    assert sorted(told) == ["downloads 0", "downloads 0", "downloads 1"]


OPTIONS = [
    *("--system", "vae", "--data_url", "obs://bucket/ptb", "--train_url", "obs://bucket/out"),
    *("--set", *SIZES, "data.batch_size=4", "eval.valid_samples=1", "train.log_every_steps=1"),
]


def start(tmp_path, container, *settings, failures=None):
    """A container's process that trains."""
    modules = tmp_path / "modules"
    modules.mkdir(exist_ok=True)
    shutil.copyfile(ROOT / "tests" / "support" / "fake_moxing.py", modules / "moxing.py")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(modules), str(ROOT)]),
        "FAKE_BUCKETS": str(tmp_path / "buckets"),
        "FAKE_FAILURES": json.dumps(failures or {}),
        modelarts.CACHE: str(tmp_path / container),
    }
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *OPTIONS, *settings],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_a_job_that_is_told_to_end_is_finished_by_the_next(buckets, tmp_path):
    out = buckets / "bucket" / "out"
    first = start(tmp_path, "first", "train.epochs=100000", failures={"copy": {"2": "truncate"}})
    cached = tmp_path / "first" / "mindspore_cvae"
    deadline = time.monotonic() + 300
    while not any('"event": "valid"' in log.read_text() for log in cached.glob("*/log.jsonl")):
        assert time.monotonic() < deadline and first.poll() is None
        time.sleep(0.2)
    first.terminate()
    printed, _ = first.communicate(timeout=300)
    assert first.returncode == 143, printed
    assert "uploading" in printed and "files uploaded to obs://bucket/out" in printed
    step = checkpoints.load(out / runs_folder.CHECKPOINTS).step
    assert step > 0

    second = start(tmp_path, "second", f"train.max_steps={step + 3}", "train.epochs=100000")
    printed, _ = second.communicate(timeout=300)
    assert second.returncode == 0, printed
    assert checkpoints.load(out / runs_folder.CHECKPOINTS).step == step + 3
    rows = [json.loads(line) for line in (out / runs_folder.LOG).read_text().splitlines()]
    assert [row["event"] for row in rows if row["event"] in ("start", "resume")] == [
        *("start", "resume"),
    ]
    steps = [row["step"] for row in rows if row["event"] == "step"]
    assert steps == list(range(1, step + 4)), "neither a gap nor a repeat"
