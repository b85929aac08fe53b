"""A training that was interrupted and resumed is the training that was not, bit for bit."""

import contextlib
import dataclasses
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from event_files import event_file, points
from hypothesis import given, settings
from hypothesis import strategies as st
from interruptions import (
    STEP_KINDS,
    At,
    Kill,
    Killed,
    Parts,
    options,
    outcome,
    send,
    watched,
    write_corpus,
)
from mindspore import Tensor

from mindspore_cvae.commands.train import train_main
from mindspore_cvae.config.keys import OPTIONS
from mindspore_cvae.data.batches import EpochPlan
from mindspore_cvae.devices import choosing
from mindspore_cvae.runs import checkpoints
from mindspore_cvae.runs import folder as runs_folder
from mindspore_cvae.training import trainer
from mindspore_cvae.training.noise import NoiseMaker
from mindspore_cvae.training.steps import aggressive

ROOT = Path(__file__).resolve().parents[2]
INTERRUPTIONS = ROOT / "tests" / "support" / "interruptions.py"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "GLOG_v": "3"}
"""Of processes that a test starts; mindspore then tells errors only."""
SYSTEMS = pytest.mark.parametrize("system", STEP_KINDS.values(), ids=STEP_KINDS)
QUICK_KINDS = ("joint", "critic_then_model")
QUICK_SYSTEMS = pytest.mark.parametrize(
    "system",
    [
        pytest.param(name, id=kind, marks=() if kind in QUICK_KINDS else pytest.mark.slow)
        for kind, name in STEP_KINDS.items()
    ],
)
"""The steps of the others are many graph calls: they are interrupted in the slow tests."""
ANY_SYSTEM = STEP_KINDS["critic_then_model"]


@pytest.fixture(scope="module", autouse=True)
def parts():
    """Compiles every graph once; each run still finds its parts as they are when new."""
    with Parts() as parts:
        yield parts


@pytest.fixture(scope="module", autouse=True)
def hang_up():
    """A hang-up ends a training, even where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_nohup_keeps_a_training_from_the_hang_up(monkeypatch):
    assert signal.SIGHUP in trainer.Trainer._signals()
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_IGN)
    assert trainer.Trainer._signals() == [signal.SIGTERM, signal.SIGINT]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "data")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data):
    """A system's training without interruption: what it left, and its moments."""
    made = {}

    def of(system: str) -> tuple[dict, list[str]]:
        if system not in made:
            folder, watcher = tmp_path_factory.mktemp(system) / "run", Kill()
            with watched(watcher):
                assert train_main(options(system, data, folder)) == 0
            made[system] = outcome(folder), watcher.moments
        return made[system]

    return of


def killed(at: int | str, argv: list[str]) -> bool:
    """Trains until the n-th moment, or the first of a name; whether it came to that."""
    try:
        with watched(Kill(at)):
            assert train_main(argv) == 0
    except Killed:
        return True
    return False


def resumed(argv: list[str], folder: Path) -> dict:
    """What a run leaves once it has been resumed and trained to its end."""
    assert train_main(argv) == 0
    return outcome(folder)


def logged(folder: Path, event: str) -> list[dict]:
    lines = (folder / runs_folder.LOG).read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["event"] == event]


@pytest.mark.parametrize(
    "system",
    [
        pytest.param(name, id=kind, marks=pytest.mark.slow if kind == "semi_amortized" else ())
        for kind, name in STEP_KINDS.items()
    ],
)
def test_the_training_has_whatever_could_be_lost(whole, system):
    left, moments = whole(system)
    log = left["log"]
    trained = [row for row in log if row["event"] == "step"]
    assert [row["step"] for row in trained] == [3, 4, 6, 8, 9, 12]
    assert trained[0]["beta"] < trained[1]["beta"] < trained[-1]["beta"] == trained[-2]["beta"]
    assert [row["best"] for row in log if row["event"] == "valid"][1:] == [True, False, False]
    assert log[-1]["reason"] == "patience"
    assert left["best.json"] != left["latest.json"]
    assert {"step-00000006", "step-00000010", "step-00000012"} < left.keys()
    assert {moment.split()[0] for moment in moments} == {
        *("open", "write", "fsync", "rename", "unlink"),
        *("row", "half", "sync", "step", "score"),
    }


@QUICK_SYSTEMS
@pytest.mark.parametrize("stride", [131, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_changes_nothing(whole, data, tmp_path, system, stride):
    expected, moments = whole(system)
    for at in range(0, len(moments), stride):
        folder = tmp_path / str(at)
        argv = options(system, data, folder)
        assert killed(at, argv)
        assert resumed(argv, folder) == expected, f"killed at {moments[at]} (number {at})"


@pytest.mark.parametrize("stride", [13, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_while_the_best_is_marked_changes_nothing(whole, data, tmp_path, stride):
    expected, moments = whole(ANY_SYSTEM)
    last_score = max(at for at, moment in enumerate(moments) if moment == "score 6")
    for at in range(last_score, moments.index("step 7"), stride):
        folder = tmp_path / str(at)
        argv = options(ANY_SYSTEM, data, folder)
        assert killed(at, argv)
        assert resumed(argv, folder) == expected, f"killed at {moments[at]} (number {at})"


def kill_again_and_again(whole, data, folder: Path, system: str, moments: list[int]) -> None:
    expected, _ = whole(system)
    argv = options(system, data, folder)
    for at in moments:
        if not killed(at, argv):
            break
    assert resumed(argv, folder) == expected


MOMENTS = st.lists(st.integers(0, 300), min_size=2, max_size=5)
"""A training of these tests has fewer than 400 moments; one that was resumed, about the rest."""


@QUICK_SYSTEMS
@settings(max_examples=3)
@given(moments=MOMENTS)
def test_several_kills_change_nothing(whole, data, tmp_path_factory, system, moments):
    kill_again_and_again(whole, data, tmp_path_factory.mktemp("runs") / "run", system, moments)


@pytest.mark.slow
@SYSTEMS
@settings(max_examples=100)
@given(moments=MOMENTS)
def test_many_kills_change_nothing(whole, data, tmp_path_factory, system, moments):
    kill_again_and_again(whole, data, tmp_path_factory.mktemp("runs") / "run", system, moments)


def kill(folder: Path, data: Path, system: str, moment: str) -> list[str]:
    """A run that ended at the first moment of a name; returns the options that resume it."""
    argv = options(system, data, folder)
    assert killed(moment, argv)
    return argv


IN_EPOCH_4 = "step 11"
"""The last checkpoint is of step 10, between rows of the log, with one validation waited."""
AFTER_EPOCH_3 = "step 10"
"""The last checkpoint is of step 9, which was validated."""
FORGOTTEN = {
    **dict.fromkeys(("step", "epoch", "batch", "waited", "window"), IN_EPOCH_4),
    **dict.fromkeys(("best", "best_valid"), IN_EPOCH_4),
    **dict.fromkeys(("validated", "log_rows"), AFTER_EPOCH_3),
}
"""Every field of the training's state, and a moment after which its loss must be seen."""


def test_every_field_of_the_state_has_its_control():
    names = {field.name for field in dataclasses.fields(trainer.TrainingState)}
    assert names == {*FORGOTTEN, "step_state"}


@pytest.mark.parametrize("name", FORGOTTEN)
def test_a_lost_field_of_the_state_is_seen(whole, data, tmp_path, name):
    expected, _ = whole(ANY_SYSTEM)
    argv = kill(tmp_path / "run", data, ANY_SYSTEM, FORGOTTEN[name])
    restore, new = trainer.Trainer.restore, trainer.TrainingState()

    def forget(self):
        result = restore(self)
        assert getattr(self.state, name) != getattr(new, name)
        setattr(self.state, name, getattr(new, name))
        return result

    with mock.patch.object(trainer.Trainer, "restore", forget):
        assert resumed(argv, tmp_path / "run") != expected


def test_a_lost_state_of_the_aggressive_step_is_seen(whole, data, tmp_path):
    system = STEP_KINDS["aggressive"]
    expected, _ = whole(system)
    argv = kill(tmp_path / "run", data, system, IN_EPOCH_4)
    state = json.loads((tmp_path / "run/checkpoints/step-00000010.json").read_text())["state"]
    assert state["step_state"]["aggressive"] is False
    with mock.patch.object(aggressive.AggressiveStep, "load_state", lambda self, state: None):
        assert resumed(argv, tmp_path / "run") != expected


@pytest.mark.parametrize(
    "part", ["optimizer.model", "optimizer.critics", "divergence", "encoder", "decoder"]
)
def test_lost_tensors_are_seen(whole, data, tmp_path, part):
    expected, _ = whole(ANY_SYSTEM)
    argv = kill(tmp_path / "run", data, ANY_SYSTEM, IN_EPOCH_4)
    restore = trainer.restore

    def forget(cell, tensors, source):
        lost = [p for p in cell.get_parameters() if p.name.startswith(part)]
        new = {parameter.name: parameter.asnumpy().copy() for parameter in lost}
        assert any((new[name] != tensors[name]).any() for name in new)
        restore(cell, {**tensors, **new}, source)

    with mock.patch.object(trainer, "restore", forget):
        assert resumed(argv, tmp_path / "run") != expected


@QUICK_SYSTEMS
@pytest.mark.parametrize("lost", ["data position", "noise counter"])
def test_a_lost_counter_is_seen(whole, data, tmp_path, system, lost):
    expected, _ = whole(system)
    argv = kill(tmp_path / "run", data, system, IN_EPOCH_4)
    dataset, noise = trainer.batch_dataset, NoiseMaker.__call__
    replaced = {
        "data position": (
            *(trainer, "batch_dataset"),
            lambda split, plan, start, attach: dataset(split, plan, 0, attach),
        ),
        "noise counter": (
            *(NoiseMaker, "__call__"),
            lambda self, step, *rest: noise(self, max(step - 10, 0), *rest),
        ),
    }[lost]
    with mock.patch.object(*replaced):
        assert resumed(argv, tmp_path / "run") != expected


def test_a_cycle_of_beta_goes_on(data, tmp_path):
    """The cyclical schedule begins again in epoch 11, whose first step is number 31."""
    left = []
    for name in ("whole", "killed"):
        argv = options(
            *("cyclical_vae", data, tmp_path / name),
            *("train.epochs=11", "train.patience=null"),
        )
        assert name == "whole" or killed("step 32", argv)
        left.append(resumed(argv, tmp_path / name))
    betas = [row["beta"] for row in left[0]["log"] if row["event"] == "step"]
    assert max(betas[:-1]) > betas[-1] > min(betas)
    assert left[0] == left[1]


def test_a_training_that_was_ended_by_max_steps_goes_on(whole, data, tmp_path):
    folder = tmp_path / "run"
    assert train_main(options(ANY_SYSTEM, data, folder, "train.max_steps=5")) == 0
    assert checkpoints.load(folder / "checkpoints").step == 5
    # The validation at step 5 is one more, so that patience ends it elsewhere.
    argv = options(ANY_SYSTEM, data, folder, "train.max_steps=12", "train.patience=null")
    left = resumed(argv, folder)
    expected, _ = whole(ANY_SYSTEM)
    assert left["step-00000012"][1] == expected["step-00000012"][1]


def fault(moment: str, action):
    """Does something at a training's first moment of a name."""
    return watched(At(moment, 1, action))


FULL = "No space left on device"


def full_disk():
    raise OSError(errno.ENOSPC, FULL)


@pytest.mark.parametrize(
    ("moment", "file"),
    [
        ("write config.yaml 0", "config.yaml"),
        ("half a row 0", "log.jsonl"),
        ("open step-00000000.safetensors 0", "step-00000000.safetensors"),
        ("write step-00000004.json 4", "step-00000004.json"),
        ("fsync step-00000006.safetensors 6", "step-00000006.safetensors"),
        ("rename best.json 6", "best.json"),
        ("half a row 8", "log.jsonl"),
        ("sync 9", "log.jsonl"),
        ("rename latest.json 10", "latest.json"),
    ],
)
def test_a_full_disk_is_one_error_and_costs_nothing(whole, data, tmp_path, capsys, moment, file):
    expected, _ = whole(ANY_SYSTEM)
    argv = options(ANY_SYSTEM, data, tmp_path / "run")
    with fault(moment, full_disk):
        assert train_main(argv) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ") and f"{file}: {FULL}" in last
    assert not list((tmp_path / "run").rglob("*.tmp"))
    assert resumed(argv, tmp_path / "run") == expected


def test_an_old_checkpoint_that_cannot_be_removed_stops_nothing(whole, data, tmp_path, capsys):
    expected, _ = whole(ANY_SYSTEM)
    with fault("unlink 6", full_disk):
        assert train_main(options(ANY_SYSTEM, data, tmp_path / "run")) == 0
    assert outcome(tmp_path / "run") == expected
    assert "is an old checkpoint and cannot be removed" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["step-00000010.safetensors", "step-00000010.json", "latest.json"])
def test_a_damaged_latest_costs_only_the_steps_since_the_one_before(
    whole, data, tmp_path, capsys, file
):
    expected, _ = whole(ANY_SYSTEM)
    argv = kill(tmp_path / "run", data, ANY_SYSTEM, IN_EPOCH_4)
    path = tmp_path / "run" / "checkpoints" / file
    path.write_bytes(path.read_bytes()[:-20])
    capsys.readouterr()
    assert resumed(argv, tmp_path / "run") == expected
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(warnings) == 1 and str(path) in warnings[0]
    first = 10 if file == "latest.json" else 9
    assert logged(tmp_path / "run", "resume")[0]["step"] == first


def test_other_data_are_refused_unless_forced(data, tmp_path, capsys):
    other = write_corpus(tmp_path / "other")
    (other / "valid.txt").write_text("a cat\na dog\n")
    argv = kill(tmp_path / "run", data, ANY_SYSTEM, "step 5")
    argv[argv.index(str(data))] = str(other)
    before = (tmp_path / "run" / "log.jsonl").read_bytes()
    assert train_main(argv) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ") and "another data" in last and "--force" in last
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == before
    assert train_main([*argv, "--force"]) == 0
    assert "warning: " in capsys.readouterr().err


def test_another_machine_is_told_at_a_resume(data, tmp_path, capsys, monkeypatch):
    """Its instructions, and MindSpore's version, decide last digits."""
    argv = kill(tmp_path / "run", data, ANY_SYSTEM, "step 5")
    here = choosing.machine()
    assert "MindSpore 2." in here and "CPU" in here
    monkeypatch.setattr(choosing, "machine", lambda: "MindSpore 9 on GPU")
    assert train_main([*argv, "train.max_steps=6"]) == 0
    told = capsys.readouterr().err
    assert f"was written by {here}, and this is MindSpore 9 on GPU" in told


def test_a_forced_learning_rate_is_taken(data, tmp_path):
    """It is what a training is told to go on with after an overflow."""
    folder = tmp_path / "run"
    argv = [*kill(folder, data, ANY_SYSTEM, "step 5"), "--force", "--set"]

    def rates() -> dict[str, float]:
        tensors = checkpoints.load(folder / runs_folder.CHECKPOINTS).tensors
        return {name: float(value) for name, value in tensors.items() if "learning_rate" in name}

    before = rates()
    assert train_main([*argv, "train.learning_rate=0.125"]) == 0
    changed = {"optimizer.model.learning_rate": 0.125}
    assert before.keys() > changed.keys() and rates() == before | changed


FREE = {
    **{"train.epochs": 11, "train.max_steps": 12, "train.patience": 50, "train.report": "false"},
    **{"train.max_skipped_steps": 7, "train.log_every_steps": 3},
    **{"train.checkpoint_every_steps": 1, "train.keep_checkpoints": 9},
    **{"eval.samples": 3, "eval.valid_samples": 3, "eval.valid_iw_samples": 4, "eval.rows": 3},
    **{"eval.best_valid_sentences": 2, "eval.max_sentences": 2, "eval.tokens": 7},
    **{"eval.before_training": "true", "train.tensorboard": "true"},
    **{"eval.grammatical_samples": 5, "eval.best_valid_refined": "true"},
}
"""Another value of every free key, but for the places of data and device."""


def test_a_free_key_that_changes_at_a_resume_changes_no_bit_of_training(whole, data, tmp_path):
    places = {"data.dir", "device_target", "device_id"}
    assert FREE.keys() == {key for key, option in OPTIONS.items() if option.free} - places
    folder = tmp_path / "run"
    argv = kill(folder, data, ANY_SYSTEM, "step 5")
    assert train_main([*argv, *(f"{key}={value}" for key, value in FREE.items())]) == 0
    expected, _ = whole(ANY_SYSTEM)
    found = outcome(folder)
    steps = [f"step-{step:08d}" for step in (10, 12)]
    assert [found[step][1] for step in steps] == [expected[step][1] for step in steps]


@pytest.mark.parametrize(
    ("moment", "since"), [(IN_EPOCH_4, "the start"), ("half a row 4", "the resume")]
)
def test_tensorboard_has_every_point_once_after_a_kill(whole, data, tmp_path, moment, since):
    expected, _ = whole(ANY_SYSTEM)
    folder = tmp_path / "run"
    shown = [*options(ANY_SYSTEM, data, folder), "train.tensorboard=true"]
    if since == "the start":
        assert killed(moment, shown)
        assert points(event_file(folder / "tensorboard"))
    else:
        kill(folder, data, ANY_SYSTEM, moment)
    left = resumed(shown, folder)
    name = event_file(folder / "tensorboard").name
    own = {"config.yaml", name}
    assert {key: left[key] for key in left.keys() - own} == {
        key: expected[key] for key in expected.keys() - own
    }
    logged_points = [
        (f"{source}/{key}", row["step"], np.float32(value), row["time"])
        for event, source in (("step", "train"), ("valid", "valid"))
        for row in logged(folder, event)
        for key, value in row.items()
        if key not in ("step", "epoch", "time") and type(value) in (int, float)
    ]
    found = points(folder / "tensorboard" / name)
    assert sorted(found) == sorted(logged_points) and len(found) > 100
    assert [step for tag, step, *_ in found if tag == "train/loss"] == [3, 4, 6, 8, 9, 12]


SIGNALS = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}


@QUICK_SYSTEMS
@pytest.mark.parametrize("stride", [149, pytest.param(1, marks=pytest.mark.slow)])
def test_a_signal_at_any_moment_saves_and_changes_nothing(whole, data, tmp_path, system, stride):
    expected, moments = whole(system)
    first, last = moments.index("step 1"), len(moments) - moments[::-1].index("score 12")
    for at in range(first, last, stride):
        number = list(SIGNALS)[at % 3]
        folder, watcher = tmp_path / str(at), Kill()
        argv = options(system, data, folder)

        def happen(moment, watcher=watcher, at=at, number=number):
            watcher(moment)
            if len(watcher.moments) - 1 == at:
                send(number)

        with watched(happen):
            assert train_main(argv) == SIGNALS[number]
        name = f"signalled at {moments[at]} (number {at})"
        step = int(moments[at].split()[-1])
        assert checkpoints.load(folder / "checkpoints").step == step, name
        reasons = [(row["step"], row["reason"]) for row in logged(folder, "end")]
        assert reasons == [(step, signal.Signals(number).name)], name
        found, last_two = resumed(argv, folder), dict(expected)
        own = f"step-{step:08}"
        if own in found and own not in expected:
            # What the signal saved is one of the last two, in the place of one of before.
            del found[own], last_two["step-00000010"]
        assert found == last_two, name


def test_a_signal_does_not_wait_for_the_validation(whole, data, tmp_path):
    expected, moments = whole(ANY_SYSTEM)
    assert moments.count("score 9") > 1
    argv = options(ANY_SYSTEM, data, tmp_path / "run")
    with watched(at := At("score 9", 1, lambda: send(signal.SIGTERM))):
        assert train_main(argv) == 143
    assert at.seen["score 9"] == 1
    assert [row["step"] for row in logged(tmp_path / "run", "valid")] == [3, 6]
    assert resumed(argv, tmp_path / "run") == expected


def test_a_signal_while_the_untrained_model_is_validated_changes_nothing(data, tmp_path):
    left = []
    for name in ("whole", "ended"):
        argv = options(
            *(ANY_SYSTEM, data, tmp_path / name),
            *("eval.before_training=true", "train.max_steps=2"),
        )
        if name == "ended":
            with watched(At("score 0", 1, lambda: send(signal.SIGTERM))):
                assert train_main(argv) == 143
        left.append(resumed(argv, tmp_path / name))
    assert [row["epoch"] for row in left[0]["log"] if row["event"] == "valid"] == [0, 1]
    assert left[0] == left[1]


def child(*argv: str) -> tuple[int, str]:
    """A training in a process of its own: exit code and standard error."""
    process = subprocess.run(
        [sys.executable, INTERRUPTIONS, *argv],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
    )
    return process.returncode, process.stderr


def test_a_second_signal_ends_the_process_at_once(whole, data, tmp_path):
    system = STEP_KINDS["joint"]
    expected, _ = whole(system)
    folder = tmp_path / "run"
    argv = options(system, data, folder)
    code, errors = child("SIGTERM", "2", "step 5", *argv)
    assert code == 143 and "Traceback" not in errors
    assert "SIGTERM: finishing the step and saving (again: at once)" in errors
    assert checkpoints.load(folder / "checkpoints").step == 4
    assert logged(folder, "end") == []
    assert resumed(argv, folder) == expected


def trains(folder: Path, times: int) -> bool:
    """Whether the log has so many rows that begin a sitting, and a step behind the last."""
    log = folder / runs_folder.LOG
    lines = log.read_text().splitlines() if log.exists() else []
    events = [json.loads(row)["event"] for row in lines]
    begun = [at for at, event in enumerate(events) if event in ("start", "resume")]
    return len(begun) == times and "step" in events[begun[-1] :]


def test_signals_to_the_command(data, tmp_path):
    folder = tmp_path / "run"
    argv = options(
        *(STEP_KINDS["joint"], data, folder),
        *("train.epochs=1000000", "train.patience=null", "train.log_every_steps=1"),
    )
    for times, (number, code) in enumerate(SIGNALS.items(), 1):
        with open(tmp_path / "errors", "w+") as errors:
            process = subprocess.Popen(
                [sys.executable, ROOT / "train.py", *argv],
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
            while process.poll() is None and not trains(folder, times):
                time.sleep(0.05)
            process.send_signal(number)
            assert process.wait() == code
            errors.seek(0)
            lines = errors.read().splitlines()
        name = signal.Signals(number).name
        assert [line for line in lines if "finishing" in line] == [
            f"warning: {name}: finishing the step and saving (again: at once)"
        ]
        last = logged(folder, "end")[-1]
        assert last["reason"] == name
        assert checkpoints.load(folder / "checkpoints").step == last["step"]


KILLS = {
    "while a checkpoint is written": "write step-00000002.safetensors 2",
    "in mid-epoch": "step 5",
    "at an epoch's end": "step 6",
    "while the best is marked": "rename best.json 6",
    "in a row of the log": "half a row 8",
    "during a validation": "score 9",
    "between a manifest and the pointer to it": "open latest.json 10",
    "while an old checkpoint is removed": "unlink 12",
}
"""Moments of kill -9, in the order in which one training can be killed at all of them."""


def kill_processes(whole, data, folder: Path, system: str, moments: list[str]) -> None:
    expected, _ = whole(system)
    argv = options(system, data, folder)
    for moment in moments:
        code, errors = child("SIGKILL", "1", moment, *argv)
        assert code == -signal.SIGKILL, errors
    assert resumed(argv, folder) == expected


KINDS = len(STEP_KINDS)
SIX = list(KILLS.values())[:6]


@pytest.mark.parametrize(
    ("system", "moments"),
    [
        # Every process compiles anew: the slow tests kill the other kinds.
        pytest.param(
            system,
            SIX[number::KINDS],
            id=kind,
            marks=() if system == ANY_SYSTEM else pytest.mark.slow,
        )
        for number, (kind, system) in enumerate(STEP_KINDS.items())
    ],
)
def test_processes_killed_at_six_moments(whole, data, tmp_path, system, moments):
    assert moments
    kill_processes(whole, data, tmp_path / "run", system, moments)


@pytest.mark.slow
@SYSTEMS
def test_processes_killed_at_every_kind_of_moment(whole, data, tmp_path, system):
    kill_processes(whole, data, tmp_path / "run", system, list(KILLS.values()))


@pytest.mark.slow
@SYSTEMS
def test_processes_killed_at_random(whole, data, tmp_path, system):
    expected, _ = whole(system)
    folder, source = tmp_path / "run", random.Random(0)
    argv = ["SIGKILL", "0", "", *options(system, data, folder)]
    for _ in range(10):
        process = subprocess.Popen(
            [sys.executable, INTERRUPTIONS, *argv],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=ENVIRONMENT,
        )
        # Until it trains, and a moment longer.
        log = folder / runs_folder.LOG
        before = log.stat().st_mtime_ns if log.exists() else 0
        while process.poll() is None and (log.stat().st_mtime_ns if log.exists() else 0) == before:
            time.sleep(0.01)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(source.uniform(0, 8))
        process.kill()
        if process.wait() == 0:
            break
    assert resumed(argv[3:], folder) == expected


def test_a_loss_that_is_not_finite_ends_training(whole, data, tmp_path, capsys):
    expected, _ = whole(ANY_SYSTEM)
    argv = options(ANY_SYSTEM, data, tmp_path / "run")
    noise = NoiseMaker.__call__

    def overflow(self, step, *rest):
        made = noise(self, step, *rest)
        return made._replace(posterior=made.posterior * np.inf) if step == 7 else made

    with mock.patch.object(NoiseMaker, "__call__", overflow):
        assert train_main(argv) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    lengths = [len(line.split()) for line in (data / "train.txt").read_text().splitlines()]
    lines = EpochPlan(lengths, [max(lengths) + 1], 4, seed=0, epoch=3)[1].indices + 1
    assert len(lines) == 4
    assert error.startswith("error: step 8: the loss is not finite (loss nan, rec nan, div ")
    assert f"the lines {', '.join(map(str, lines))} of {data / 'train.txt'};" in error
    assert "the last checkpoint is kept" in error
    assert checkpoints.load(tmp_path / "run" / "checkpoints").step == 6
    assert resumed(argv, tmp_path / "run") == expected


def test_parameters_that_are_not_finite_are_not_saved(whole, data, tmp_path, capsys):
    """An update can overflow though its loss was finite."""
    expected, _ = whole(ANY_SYSTEM)
    argv = options(ANY_SYSTEM, data, tmp_path / "run")
    count = trainer.Trainer.count

    def overflow(self, *arguments):
        count(self, *arguments)
        if self.state.step == 8:
            bias = self.model.parameters_dict()["posterior.from_hidden.bias"]
            bias.set_data(Tensor(np.array([0, np.inf, 0], np.float32)))

    with mock.patch.object(trainer.Trainer, "count", overflow):
        assert train_main(argv) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: step 8: posterior.from_hidden.bias is not finite; the last")
    assert checkpoints.load(tmp_path / "run" / "checkpoints").step == 6
    assert resumed(argv, tmp_path / "run") == expected


SCALED = ("train.loss_scale=65536", "train.loss_scale_window=2", "train.max_skipped_steps=3")
SCALED_KINDS = pytest.mark.parametrize(
    "kind", [pytest.param("joint", marks=pytest.mark.slow), "critic_then_model"]
)


@contextlib.contextmanager
def overflows(*steps: int):
    """Every gradient of some training steps, counted from 1, overflows."""
    noise = NoiseMaker.__call__

    def overflow(self, step, *rest):
        made = noise(self, step, *rest)
        if step + 1 not in steps:
            return made
        return made._replace(posterior=made.posterior * np.float32(np.inf))

    with mock.patch.object(NoiseMaker, "__call__", overflow):
        yield


def parameters(checkpoint: checkpoints.Checkpoint) -> dict[str, bytes]:
    """What an update moves, of a checkpoint."""
    return {
        name: values.tobytes()
        for name, values in checkpoint.tensors.items()
        if not name.startswith("optimizer.loss_scaling")
    }


@SCALED_KINDS
def test_a_scaled_training_skips_overflows_and_resumes_exactly(data, tmp_path, kind):
    system = STEP_KINDS[kind]
    argv = options(system, data, tmp_path / "whole", *SCALED, "train.patience=null")
    argv += ["train.max_steps=12", "train.keep_checkpoints=12", "train.checkpoint_every_steps=1"]
    with overflows(5, 8, 9):
        expected = resumed(argv, tmp_path / "whole")
    trained = [row for row in expected["log"] if row["event"] == "step"]
    assert [(row["step"], row["skipped"], row["loss_scale"]) for row in trained] == [
        *((3, 0, 131072.0), (4, 0, 262144.0), (6, 1, 131072.0)),
        *((8, 1, 131072.0), (9, 1, 65536.0), (12, 0, 131072.0)),
    ]
    # The ninth step is alone in its row; terms of the others are those of the steps around.
    assert [row["loss"] is None for row in trained] == [False] * 4 + [True, False]
    assert all(row["tokens"] > 0 for row in trained)
    kept = {step: checkpoints.load(tmp_path / "whole/checkpoints", step) for step in range(2, 13)}
    for step in range(3, 13):
        is_same = parameters(kept[step]) == parameters(kept[step - 1])
        assert is_same == (step in (5, 8, 9)), step
    for moment in ("step 2", "step 6", "half a row 9", "step 9", "step 10", "score 12"):
        folder = tmp_path / moment
        argv[argv.index("--output_dir") + 1] = str(folder)
        with overflows(5, 8, 9):
            assert killed(moment, argv)
            assert resumed(argv, folder) == expected, moment


@pytest.mark.parametrize("name", ["scale", "good"])
def test_a_lost_scale_is_seen(data, tmp_path, name):
    left = []
    restore = trainer.restore

    def forget(cell, tensors, source):
        lost = f"optimizer.loss_scaling.{name}"
        new = cell.parameters_dict()[lost].asnumpy().copy()
        assert new != tensors[lost]
        restore(cell, {**tensors, lost: new}, source)

    for folder in ("whole", "killed"):
        argv = options(STEP_KINDS["joint"], data, tmp_path / folder, *SCALED, "train.max_steps=5")
        argv += ["train.checkpoint_every_steps=3"]
        assert folder == "whole" or killed("step 4", argv)
        with mock.patch.object(trainer, "restore", forget):
            left.append(resumed(argv, tmp_path / folder))
    assert left[0] != left[1]


@SCALED_KINDS
def test_many_skipped_steps_in_a_row_end_training(data, tmp_path, capsys, kind):
    argv = options(STEP_KINDS[kind], data, tmp_path / "run", *SCALED)
    # Two are not many, and the third is not in the same process.
    with overflows(2, 3, 7, 8, 9):
        assert killed("unlink 8", argv)
        capsys.readouterr()
        assert train_main(argv) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: step 9: gradients have overflowed in 3 steps in a row (loss ")
    assert "loss_scale " in error and f"of {data / 'train.txt'};" in error
    assert "the last checkpoint is kept" in error
    last = checkpoints.load(tmp_path / "run/checkpoints")
    assert last.step == 8
    assert all(np.isfinite(values).all() for values in last.tensors.values())
    assert train_main(argv) == 0


def test_the_disk_space_of_a_run_is_bounded(data, tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    most = 0

    def count(moment: str) -> None:
        nonlocal most
        if folder.exists():
            most = max(most, len(list(folder.glob("*.safetensors*"))))

    with watched(count):
        assert train_main(options(ANY_SYSTEM, data, tmp_path / "run")) == 0
    # Two that are kept, the best by either reading, and the one that is being written.
    assert most == 4
    assert len(list(folder.iterdir())) == 2 * 3 + 3
