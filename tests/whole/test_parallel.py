"""Several processes with a part of each batch compute what one process computes with all of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import tiny
from mindspore import communication
from tiny_run import SENTENCES

from mindspore_cvae.common import randomness
from mindspore_cvae.devices import parallel
from mindspore_cvae.errors import InputError
from mindspore_cvae.runs import checkpoints
from mindspore_cvae.systems import SYSTEMS
from mindspore_cvae.training import noise

ROOT = Path(__file__).resolve().parents[2]
COMPARED = ("vae", "cvae_plus_mi", "cvae", "lagging_vae", "sa_vae", "lstm_lm")
"""Systems whose two processes are compared with one; the first in the fast tests."""
PROCESSES, EACH = 2, 3
LENGTHS = "data.buckets=1", "data.max_words=12"
SETTINGS = (
    *("model.embedding_size=6", "model.hidden_size=8", "model.latent_size=4"),
    *("model.noise_size=4", "model.critic_size=8", "model.critic_layers=1"),
    *(
        "train.critic_updates=2",
        "train.log_every_steps=1",
        "train.report=false",
        "train.clip_norm=0.5",
    ),
    *("train.learning_rate=0.01", "train.critic_learning_rate=0.01", "train.epochs=2"),
    *("eval.rows=8", "eval.valid_samples=2"),
    *LENGTHS,
)
"""A norm that is clipped, since clipping must come after the sum over processes."""


@pytest.mark.parametrize("rank", range(PROCESSES))
@pytest.mark.parametrize("name", ["cvae_plus_mi", "sa_vae", "as printed"])
def test_a_rank_gets_its_part_of_the_noise_of_all(name, rank):
    """Random bytes are made for its own rows alone, and are those of the whole batch."""
    system = tiny.COMBINATIONS[name]
    tokens = np.tile(tiny.TOKENS[:4], (2, 1))[: PROCESSES * EACH]
    whole = noise.NoiseMaker(system, tiny.SIZES, 2, seed=5)(3, tokens, part=1)
    part = noise.NoiseMaker(system, tiny.SIZES, 2, 5, rank, PROCESSES)(3, tokens, part=1)

    def own_of(times):
        first = [np.arange(EACH) + rank * EACH + time * len(tokens) for time in range(times)]
        return np.concatenate(first)

    own, encoded = own_of(system.views), own_of(system.encodings)
    shared = {"prior": ..., "contrast": ..., "encoder_bytes": (slice(None), encoded)}
    rows = {"encoder_tokens": encoded, "posterior": (..., encoded, slice(None))}
    for field in noise.StepNoise._fields:
        values, expected = getattr(part, field), getattr(whole, field)
        if expected is None:
            assert values is None
        else:
            expected = expected[{**shared, **rows}.get(field, (slice(None), own))]
            np.testing.assert_array_equal(values, expected, err_msg=field)


def test_pieces_of_random_bytes():
    """Pieces at any position, of any length, that share Philox's blocks or skip some."""
    whole = randomness.random_bytes(randomness.generator(1, "output", 2), 1000)
    for length in (1, 7, 32, 45):
        starts = np.array([0, 50, 50 + length, 300, 333 + length, 900])
        pieces = randomness.bytes_between(randomness.generator(1, "output", 2), starts, length)
        for start, piece in zip(starts, pieces, strict=True):
            np.testing.assert_array_equal(piece, whole[start : start + length])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Sentences whose last batch has fillers, all of them on the last rank."""
    folder = tmp_path_factory.mktemp("corpus")
    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt").write_text("\n".join(SENTENCES) + "\n")
    return folder


def start(folder: Path, corpus: Path, system: str, processes: int, *more) -> subprocess.Popen:
    """The command of a run, as one process or as several that msrun starts."""
    each = EACH * PROCESSES // processes
    command = [sys.executable, "train.py"]
    if processes > 1:
        ranks = ("-m", "mindspore_cvae", "ranks", "--processes", str(processes))
        command = [sys.executable, *ranks, "--log_dir", folder / f"{system}-logs", "train.py"]
    run = folder / f"{system}-{processes}"
    options = ("--system", system, "--data_dir", corpus, "--output_dir", run, "--resume")
    options += ("--device_target", "CPU", "--set", *SETTINGS, f"data.batch_size={each}", *more)
    return subprocess.Popen(
        [str(word) for word in (*command, *options)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def train(folder: Path, corpus: Path, system: str, processes: int) -> Path:
    """A run to its end."""
    run = folder / f"{system}-{processes}"
    job = start(folder, corpus, system, processes)
    output, errors = job.communicate()
    logs = "".join(path.read_text() for path in folder.glob(f"{system}-logs/worker_*.log"))
    assert job.returncode == 0, errors + output + logs
    return run


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


TIMES = ("time", "seconds", "tokens_per_second", "compile_seconds", "devices")


@pytest.mark.parametrize(
    "system",
    [
        COMPARED[0],
        *(pytest.param(name, marks=pytest.mark.slow) for name in COMPARED[1:]),
    ],
)
def test_two_processes_equal_one_with_twice_the_batch(system, corpus, tmp_path):
    one, two = (train(tmp_path, corpus, system, count) for count in (1, PROCESSES))
    expected, found = rows(one), rows(two)
    assert [row["event"] for row in found] == [row["event"] for row in expected]
    for row, other in zip(found, expected, strict=True):
        assert row.get("devices", PROCESSES) == PROCESSES
        for name, value in other.items():
            if name not in TIMES:
                message = f"{row['event']} {row['step']}: {name}"
                if isinstance(value, float):
                    assert row[name] == pytest.approx(value, rel=1e-4, abs=1e-4), message
                else:
                    assert row[name] == value, message
    saved, other = (checkpoints.load(run / "checkpoints") for run in (two, one))
    assert saved.step == other.step == 4
    assert saved.tensors.keys() == other.tensors.keys()
    for name, values in other.tensors.items():
        np.testing.assert_allclose(saved.tensors[name], values, rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("rank", range(PROCESSES))
def test_a_process_that_dies_in_training_ends_the_job_with_one_line(rank, corpus, tmp_path):
    endless = "train.epochs=100000", "train.checkpoint_every_steps=5", "data.buckets=1"
    job = start(tmp_path, corpus, "vae", PROCESSES, *endless)
    log = tmp_path / f"vae-{PROCESSES}" / "log.jsonl"
    deadline = time.monotonic() + 300
    while not log.exists() or len(log.read_text().splitlines()) < 20:
        assert job.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    children = psutil.Process(job.pid).children(recursive=True)
    workers = [child for child in children if child.environ().get("MS_ROLE") == "MS_WORKER"]
    number = {int(worker.environ()["MS_NODE_ID"]): worker for worker in workers}
    number[rank].send_signal(signal.SIGKILL)
    _, errors = job.communicate(timeout=60)
    assert job.returncode == 1
    (line,) = [line for line in errors.splitlines() if "error" in line]
    assert line.startswith("error: ") and "logs" in line
    assert not [child for child in children if child.is_running()]
    # What was saved is whole, and training goes on from it.
    saved = checkpoints.load(tmp_path / f"vae-{PROCESSES}" / "checkpoints").step
    end = start(tmp_path, corpus, "vae", PROCESSES, *endless, f"train.max_steps={saved + 2}")
    _, errors = end.communicate(timeout=300)
    assert end.returncode == 0, errors
    assert checkpoints.load(tmp_path / f"vae-{PROCESSES}" / "checkpoints").step == saved + 2


def test_every_kind_of_step_is_compared():
    assert {SYSTEMS[name].step for name in COMPARED} == {row.step for row in SYSTEMS.values()}


@pytest.mark.parametrize("name", ["RANK_SIZE", "MS_WORKER_NUM", "OMPI_COMM_WORLD_SIZE"])
def test_left_over_variables_of_a_launcher_are_one_sentence(monkeypatch, name):
    def fail():
        raise RuntimeError("No mpirun was found\n\n- C++ Call Stack")

    for other in ("RANK_SIZE", "MS_WORKER_NUM", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(other, raising=False)
    if name == "OMPI_COMM_WORLD_SIZE":
        # As mindspore does when it is imported.
        monkeypatch.setenv("RANK_SIZE", "8")
    monkeypatch.setenv(name, "8")
    monkeypatch.setattr(communication, "init", fail)
    with pytest.raises(InputError, match=f"^{name}=8 in the .*No mpirun was found.*: unset"):
        parallel.join(1)
