"""The run folder: refusals, the lock, the log, metrics."""

import json
import math
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_run import write_made_run

from mindspore_cvae.common.files import write_atomically
from mindspore_cvae.config.keys import Config
from mindspore_cvae.config.layers import load
from mindspore_cvae.data.vocabulary import Vocabulary
from mindspore_cvae.errors import InputError, UserNotice
from mindspore_cvae.runs import folder as runs_folder
from mindspore_cvae.runs import lock
from mindspore_cvae.runs.folder import Log, Run, check, is_ours, is_run, read_config

ROOT = Path(__file__).resolve().parents[2]
VOCABULARY = Vocabulary(["<pad>", "<unk>", "<s>", "</s>", "word"])


def make_run(folder: Path) -> Path:
    with Run(folder) as run:
        run.write_inputs(load("ptb"), VOCABULARY)
        log = run.open_log()
        log.write({"event": "start"})
        log.close()
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_new_run_has_its_files(tmp_path):
    folder = make_run(tmp_path / "a" / "b")
    assert names(folder) == {"config.yaml", "vocab.txt", "log.jsonl", "checkpoints", "lock"}
    assert is_run(folder) and not is_run(tmp_path)
    assert read_config(folder) == load("ptb")
    assert Vocabulary.load(folder / "vocab.txt").words == VOCABULARY.words


def test_an_existing_run_is_refused_unless_resumed_or_overwritten(tmp_path):
    folder = make_run(tmp_path / "run")
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(InputError, match="already a run: --resume continues it, --overwrite"):
        Run(folder)
    assert {path: path.read_bytes() for path in before} == before
    with Run(folder, resume=True):
        assert {path: path.read_bytes() for path in before if path.name != "lock"} == {
            path: content for path, content in before.items() if path.name != "lock"
        }
    with pytest.raises(InputError, match="choose one"):
        check(folder, resume=True, overwrite=True)


def test_overwriting_deletes_the_whole_run(tmp_path):
    folder = make_run(tmp_path / "run")
    (folder / "checkpoints" / "step-00000001.json").write_text("{}")
    (folder / "export").mkdir()
    (folder / "export" / "encoder.mindir").write_text("x")
    for place in (folder, folder / "export"):
        (place / "pieces.model").write_text("x")
    described = {"graphs": {"encoder": {"file": "encoder.mindir"}, "odd": {"file": "../log.jsonl"}}}
    (folder / "export" / "description.json").write_text(json.dumps(described))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    (folder / "link").symlink_to(outside)
    with Run(folder, overwrite=True) as run:
        # A link is nothing that training makes.
        assert names(folder) == {"lock", "checkpoints", "link"}
        assert names(run.checkpoints) == set()
    assert (outside / "kept").exists()


@pytest.mark.parametrize(
    "content", [{"thesis.txt"}, {"config.yaml"}, {"log.jsonl"}, {"checkpoints"}]
)
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("resume", [False, True])
def test_what_is_no_run_is_never_touched(tmp_path, content, overwrite, resume):
    for name in content:
        (tmp_path / name).mkdir() if name == "checkpoints" else (tmp_path / name).write_text("x")
        if name == "checkpoints":
            (tmp_path / name / "mine").write_text("x")
    with pytest.raises(InputError):
        Run(tmp_path, resume, overwrite)
    assert names(tmp_path) == content


def test_a_file_or_a_place_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "run", tmp_path / ("x" * 300)):
        with pytest.raises(InputError, match="not a folder|cannot be created"):
            Run(folder)
    assert names(tmp_path) == {"file"}


def test_what_a_process_leaves_that_died_at_once_is_no_obstacle(tmp_path):
    (tmp_path / "lock").write_text("process 1 on host\n")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / ".config.yaml.0123abcd.tmp").write_text("half")
    with Run(tmp_path):
        assert names(tmp_path) == {"lock", "checkpoints"}


@pytest.mark.parametrize(
    "name",
    ["config.yaml", "vocab.txt", "pieces.model", "log.jsonl", "checkpoints", "lock", "profile"],
)
def test_links_in_a_strangers_run_are_refused(tmp_path, name):
    folder = make_run(tmp_path / "run")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("precious")
    path = folder / name
    path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
    path.symlink_to(outside if name in ("checkpoints", "profile") else outside / "file")
    for options in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(InputError, match="is a link"):
            Run(folder, **options)
    assert names(outside) == {"file"} and (outside / "file").read_text() == "precious"


def test_two_runs_in_one_folder_are_refused(tmp_path):
    folder = make_run(tmp_path / "run")
    with Run(folder, resume=True):
        for options in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(InputError, match=f"in use by another process .*{os.getpid()}"):
                Run(folder, **options)
        assert is_run(folder)
    with Run(folder, resume=True):
        pass


def test_a_run_that_began_while_this_one_asked_for_the_lock_is_refused(tmp_path, monkeypatch):
    class LateLock(lock.Lock):
        def __init__(self, path):
            monkeypatch.undo()
            make_run(path.parent)
            super().__init__(path)

    monkeypatch.setattr(runs_folder, "Lock", LateLock)
    with pytest.raises(InputError, match="already a run"):
        Run(tmp_path / "run")
    with Run(tmp_path / "run", resume=True):
        pass


HOLD = """
import multiprocessing, os, sys, time
from mindspore_cvae.runs.folder import Run
run = Run(sys.argv[1], resume=True)
worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
worker.start()
print(worker.pid, flush=True)
time.sleep(60)
"""


def test_a_killed_process_does_not_hold_the_lock_even_if_its_worker_lives(tmp_path):
    folder = make_run(tmp_path / "run")
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    worker = int(process.stdout.readline())
    try:
        with pytest.raises(InputError, match=f"in use by another process .*{process.pid}"):
            Run(folder, resume=True)
        process.kill()
        process.wait()
        os.kill(worker, 0)  # still there, with every file that it has inherited
        with Run(folder, resume=True):
            pass
    finally:
        process.kill()
        os.kill(worker, signal.SIGKILL)
        process.stdout.close()


KILLED_WHILE_OVERWRITING = """
import os, signal, sys
from pathlib import Path
from mindspore_cvae.runs.folder import Run
left, unlink = [int(sys.argv[2])], Path.unlink
def counted(self, *arguments, **options):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    unlink(self, *arguments, **options)
Path.unlink = counted
Run(sys.argv[1], overwrite=True)
"""


@pytest.mark.parametrize("deletions", [0, 1, 2, 3])
def test_a_kill_while_overwriting_leaves_what_can_be_overwritten(tmp_path, deletions):
    folder = make_run(tmp_path / "run")
    (folder / "checkpoints" / "step-00000001.json").write_text("{}")
    command = [sys.executable, "-c", KILLED_WHILE_OVERWRITING, str(folder), str(deletions)]
    assert subprocess.run(command, cwd=ROOT).returncode == -signal.SIGKILL
    assert is_run(folder)
    with Run(folder, overwrite=True):
        assert names(folder) == {"lock", "checkpoints"}


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_are_in_the_file_when_write_returns(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    for step in range(3):
        log.write({"event": "step", "step": step, "loss": np.float32(0.5), "kl": math.nan})
        assert rows(log.path)[-1] == {"event": "step", "step": step, "loss": 0.5, "kl": None}
    assert log.sync() == 3
    log.close()


@pytest.mark.parametrize("kept", range(5))
@pytest.mark.parametrize("torn", ["", '{"event": "st', '{"event": "step"}'])
def test_a_resumed_log_has_no_gap_and_no_repeat(tmp_path, kept, torn):
    log = Log(tmp_path / "log.jsonl")
    for step in range(5):
        log.write({"step": step})
    log.close()
    with open(log.path, "a") as file:
        file.write(torn)
    log = Log(log.path, kept)
    assert log.rows == kept
    for step in range(kept, 7):
        log.write({"step": step})
    assert log.sync() == 7
    log.close()
    assert rows(log.path) == [{"step": step} for step in range(7)]


@pytest.mark.parametrize(
    "row",
    [
        '{"epoch": [1]}',
        '{"step": 1.5}',
        '{"event": {}}',
        "[1]",
        "[" * 9940,
        '{"x": "' + "a" * 2**21 + '"}',
    ],
)
def test_rows_that_no_reader_could_use_are_passed_over(tmp_path, row):
    (tmp_path / "log.jsonl").write_text('{"event": "valid", "step": 1}\n' + row + "\n")
    assert runs_folder.read_log(tmp_path) == [{"event": "valid", "step": 1}]


def test_seconds_of_a_training_in_parts():
    """Two parts that ended, and between them one whose end a resume has cut off."""
    log = [
        {"event": "start"},
        {"event": "step", "time": 100.0},
        {"event": "end", "seconds": 30.5},
        {"event": "resume"},
        {"event": "step", "time": 200.0},
        {"event": "valid", "time": 260.0, "seconds": 8.0},
        {"event": "resume"},
        {"event": "end", "seconds": 0.5},
    ]
    assert runs_folder.training_seconds(log) == pytest.approx(30.5 + 60.0 + 0.5)
    assert runs_folder.training_seconds([]) == 0


def test_a_log_that_lost_rows_is_told(tmp_path):
    messages = []
    with Run(tmp_path / "run") as run:
        log = run.open_log()
        log.write({"step": 1})
        log.close()
        log = run.open_log(3, messages.append)
        log.close()
    assert log.rows == 1
    assert messages == [f"{log.path} has 1 rows of the 3 before the checkpoint"]


@pytest.fixture
def full_disk():
    """A limit on the size of files, which writes meet as they meet a full disk: half-way."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_log_on_a_full_disk_says_so_and_can_be_resumed(tmp_path, full_disk):
    log = Log(tmp_path / "log.jsonl")
    log.write({"step": 1})
    full_disk(log.path.stat().st_size + 5)
    for _ in range(2):
        with pytest.raises(OSError, match="log.jsonl"):
            log.write({"step": 2})
    full_disk(1 << 20)
    log.close()
    log = Log(log.path, 1)
    log.write({"step": 2})
    log.close()
    assert rows(log.path) == [{"step": 1}, {"step": 2}]


def test_metrics_are_plain_json(tmp_path):
    metrics = {"kl": np.float32(2.5), "au": np.int64(3), "mi": math.inf, "list": np.arange(2)}
    path = runs_folder.write_metrics(tmp_path, "test", metrics)
    assert path == tmp_path / "metrics-test.json"
    assert json.loads(path.read_text()) == {"kl": 2.5, "au": 3, "mi": None, "list": [0, 1]}


READ = {
    **{"system": "vae", "split": "test", "text": "a1", "max_sentences": None, "samples": 16},
    **{"checkpoint": "best", "step": 7, "precision": "strict", "amp_level": "O0"},
}


@pytest.mark.filterwarnings("error")
def test_an_evaluation_adds_its_columns_to_those_of_an_equal_one(tmp_path):
    runs_folder.write_metrics(
        tmp_path, "test", {**READ, "kl": 1.0, "iw_nll": 3.0, "iw_samples": 128}
    )
    runs_folder.write_metrics(tmp_path, "test", {**READ, "kl": 1.0, "kl_refit": 0.5})
    expected = {**READ, "kl": 1.0, "iw_nll": 3.0, "iw_samples": 128, "kl_refit": 0.5}
    assert runs_folder.read_metrics(tmp_path, "metrics-test.json") == expected


@pytest.mark.parametrize(
    "changed", [{"step": 8}, {"text": "b2"}, {"samples": 128}, {"precision": "fast"}]
)
def test_an_evaluation_of_something_else_replaces_and_says_what_is_lost(tmp_path, changed):
    runs_folder.write_metrics(tmp_path, "test", {**READ, "kl": 1.0, "iw_nll": 3.0})
    with pytest.warns(UserNotice, match="iw_nll .*--output") as told:
        runs_folder.write_metrics(tmp_path, "test", {**READ, **changed, "kl": 2.0})
    assert runs_folder.read_metrics(tmp_path, "metrics-test.json") == {**READ, **changed, "kl": 2.0}
    assert len(told) == 1 and "kl," not in str(told[0].message)


def test_a_file_that_cannot_be_written_whole_leaves_the_old_one(tmp_path, full_disk):
    path = tmp_path / "metrics-test.json"
    runs_folder.write_metrics(tmp_path, "test", {"kl": 1.0})
    before = path.read_bytes()
    full_disk(10)
    with pytest.raises(OSError) as caught:
        runs_folder.write_metrics(tmp_path, "test", {"kl": 2.0, "much": "x" * 1000})
    full_disk(1 << 20)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == before and names(tmp_path) == {path.name}

    def refuse(file: Path) -> None:
        assert file.read_text() == "new" and not file.name.endswith(".json")
        raise OSError("the disk lies")

    with pytest.raises(OSError, match="the disk lies"):
        write_atomically(path, "new", check=refuse)
    assert path.read_bytes() == before and names(tmp_path) == {path.name}


def test_writing_replaces_a_link_and_not_its_target(tmp_path):
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / "metrics-test.json").symlink_to(target)
    path = runs_folder.write_metrics(tmp_path, "test", {})
    assert not path.is_symlink() and target.read_text() == "precious"


def test_a_trained_model_stays_what_it_is(tmp_path):
    folder = make_run(tmp_path / "run")
    config = read_config(folder, ["eval.rows=16"], data_dir="elsewhere", precision="fast")
    assert (config.eval.rows, config.data.dir, config.precision) == (16, "elsewhere", "fast")
    for override in ("model.latent_size=3", "slots.contrast_on=h", "train.epochs=3", "system=vae"):
        with pytest.raises(InputError, match=f"{override.split('=')[0]} is .* and cannot be"):
            read_config(folder, [override])
    with pytest.raises(InputError, match="does not exist"):
        read_config(tmp_path / "missing")
    with pytest.raises(InputError, match="is not a run"):
        read_config(tmp_path)


def test_a_damaged_configuration_of_a_run_names_its_file(tmp_path):
    folder = make_run(tmp_path / "run")
    (folder / "config.yaml").write_text("model: {hidden_size: -1}\n")
    with pytest.raises(InputError, match="config.yaml, line 1: model.hidden_size must be"):
        read_config(folder)
    assert Config().model.hidden_size == 256


def test_a_folder_of_somebody_elses_is_no_run_and_stays(tmp_path):
    """Names alone do not make a run: --overwrite would delete what is there."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_text("trainer: {}\n")
    (tmp_path / "thesis.tex").write_text("t")
    assert not is_ours(tmp_path)
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(InputError, match="not empty and not a run: choose another"):
            check(tmp_path, **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoints",
        "config.yaml",
        "thesis.tex",
    ]


@pytest.mark.parametrize("name", ["lost+found", ".ipynb_checkpoints", "slurm-123.out", "my.log"])
def test_what_others_put_into_a_new_folder_does_not_refuse_it(tmp_path, name):
    (tmp_path / name).touch() if "." in name[1:] else (tmp_path / name).mkdir()
    check(tmp_path)
    with Run(tmp_path):
        assert (tmp_path / name).exists()
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match="not empty and not a run"):
        check(tmp_path)


def test_overwriting_deletes_what_training_made_and_says_what_stays(tmp_path):
    folder = write_made_run(tmp_path / "run", "vae", test={})
    (folder / "notes.md").write_text("mine")
    (folder / "checkpoints" / "best-of-2025.npz").write_text("mine")
    (folder / ".data.tmp").write_text("mine")
    (folder / "profile").mkdir()
    (folder / "profile" / "x.json").write_text("mine")
    with (
        pytest.warns(UserNotice, match="checkpoints/best-of-2025.npz, notes.md, profile stays"),
        Run(folder, overwrite=True),
    ):
        there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    mine = {"notes.md", "checkpoints/best-of-2025.npz", ".data.tmp", "profile/x.json"}
    assert there - {"lock"} == mine


def test_a_run_without_the_mark_is_known_by_its_log(tmp_path):
    folder = write_made_run(tmp_path / "run", "vae")
    text = (folder / "config.yaml").read_text()
    assert text.startswith("# A run of mindspore_cvae ")
    (folder / "config.yaml").write_text(text.partition("\n")[2])
    assert not is_ours(folder)
    (folder / "log.jsonl").write_text('{"event": "start", "version": "0.1.0"}\n')
    assert is_ours(folder)


@pytest.mark.parametrize("name", ["lock", "log.jsonl"])
def test_a_file_with_another_name_is_not_written_through(tmp_path, name):
    """A hard link, which looks like a file of the run and is somebody's thesis."""
    (tmp_path / "thesis").write_text("a\nb\n")
    (tmp_path / "run").mkdir()
    os.link(tmp_path / "thesis", tmp_path / "run" / name)
    with pytest.raises((OSError, InputError)):
        with Run(tmp_path / "run") as run:
            run.open_log()
    assert (tmp_path / "thesis").read_text() == "a\nb\n"


def test_a_lock_that_was_removed_is_noticed(tmp_path):
    """Two trainings must not write one log."""
    with Run(make_run(tmp_path / "run"), resume=True) as first:
        log = first.open_log()
        log.write({"event": "start", "version": "1", "step": 1})
        (tmp_path / "run" / "lock").unlink()
        with Run(tmp_path / "run", resume=True):
            for write in (lambda: log.write({"step": 2}), log.sync):
                with pytest.raises(InputError, match="lock was removed or replaced"):
                    write()
        log.close()
    assert [row["step"] for row in runs_folder.read_log(tmp_path / "run")] == [1]


@pytest.mark.parametrize("name", ["config.yaml", "log.jsonl"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path, name):
    (tmp_path / "checkpoints").mkdir()
    os.mkfifo(tmp_path / name)
    assert not is_ours(tmp_path)
    with pytest.raises(InputError, match="not empty and not a run"):
        check(tmp_path)
