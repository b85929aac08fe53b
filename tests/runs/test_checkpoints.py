"""Checkpoints: what a kill, a full disk or a flipped bit leaves behind."""

import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from forgery import forge

from mindspore_cvae.common import files
from mindspore_cvae.runs import checkpoints
from mindspore_cvae.runs.checkpoints import CheckpointError, check_fingerprints, load, save, steps

ROOT = Path(__file__).resolve().parents[2]
FINGERPRINTS = {"config": "c" * 64, "vocabulary": "v" * 64, "data": "d" * 64}


def tensors_of(step: int) -> dict[str, np.ndarray]:
    """What a training would have at a step; any function that differs between steps does."""
    return {
        "encoder.weight": np.arange(6, dtype=np.float32).reshape(2, 3) + step,
        "optimizer.moment1": np.full((3,), 0.1 * step),
        "optimizer.global_step": np.array(step, np.int32),
    }


def write(folder: Path, step: int, **options) -> Path:
    return save(
        folder, step, tensors_of(step), {"step": step, "best": 0.1}, FINGERPRINTS, **options
    )


def assert_is(checkpoint: checkpoints.Checkpoint, step: int) -> None:
    assert checkpoint.step == step and checkpoint.state == {"step": step, "best": 0.1}
    assert checkpoint.fingerprints == FINGERPRINTS
    expected = tensors_of(step)
    assert checkpoint.tensors.keys() == expected.keys()
    for name, array in expected.items():
        assert checkpoint.tensors[name].dtype == array.dtype
        np.testing.assert_array_equal(checkpoint.tensors[name], array)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def pair(step: int) -> set[str]:
    return {f"step-{step:08d}.json", f"step-{step:08d}.safetensors"}


def latest_and_warnings(folder: Path) -> tuple[checkpoints.Checkpoint, list[str]]:
    warnings = []
    return load(folder, warn=warnings.append), warnings


def test_what_is_saved_is_loaded(tmp_path):
    path = write(tmp_path, 7, best=True)
    assert path == tmp_path / "step-00000007.safetensors"
    for which in ("latest", "best", 7):
        assert_is(load(tmp_path, which), 7)
    assert load(tmp_path).path == path
    assert names(tmp_path) == pair(7) | {"latest.json", "best.json"}


def test_every_bit_of_tensors_and_state_comes_back(tmp_path):
    generator = np.random.default_rng(0)
    bits = generator.integers(0, 2**32, 1000, dtype=np.uint32)
    tensors = {
        "bits": bits.view(np.float32),  # with infinities, NaN and subnormal numbers
        "transposed": np.arange(12.0).reshape(3, 4).T,
        "strided": np.arange(10)[::3],
        "scalar": np.array(2.5, np.float16),
        "empty": np.zeros((0, 3), np.float32),
        "flags": np.array([True, False]),
        "big_endian": np.arange(3, dtype=">f4"),
    }
    state = {
        "number": 0.1 + 0.2,
        "tiny": 5e-324,
        "infinite": float("inf"),
        "big": 2**80,
        "text": "\u2028 \u00e9",
        "none": None,
        "list": [1, {"nested": True}],
    }
    save(tmp_path, 1, tensors, state, {})
    checkpoint = load(tmp_path)
    assert checkpoint.state == state
    np.testing.assert_array_equal(checkpoint.tensors["bits"].view(np.uint32), bits)
    for name in tensors.keys() - {"bits"}:
        np.testing.assert_array_equal(checkpoint.tensors[name], tensors[name])
        assert checkpoint.tensors[name].shape == tensors[name].shape


def test_other_tools_read_the_tensors_and_equal_input_gives_equal_bytes(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = write(tmp_path / "a", 3), write(tmp_path / "b", 3)
    read = safetensors.numpy.load_file(first)
    np.testing.assert_array_equal(read["encoder.weight"], tensors_of(3)["encoder.weight"])
    assert first.read_bytes() == second.read_bytes()


def test_the_last_ones_and_the_best_are_kept(tmp_path):
    for step in range(1, 8):
        write(tmp_path, step, best=step == 3, keep=2)
    assert steps(tmp_path) == [3, 6, 7]
    assert names(tmp_path) == pair(3) | pair(6) | pair(7) | {"latest.json", "best.json"}
    assert_is(load(tmp_path, "best"), 3)
    write(tmp_path, 8, best=True, keep=1)
    assert steps(tmp_path) == [8]


def test_foreign_files_stay_and_unfinished_ones_go(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "model.safetensors").write_text("mine")
    (tmp_path / ".step-00000001.safetensors.0123abcd.tmp").write_text("half")
    for step in range(1, 6):
        write(tmp_path, step, keep=1)
    assert names(tmp_path) == {"notes.txt", "model.safetensors", "latest.json"} | pair(5)


def test_failing_to_delete_stops_nothing(tmp_path, monkeypatch):
    def refuse(self, missing_ok=False):
        raise PermissionError(errno.EPERM, "Operation not permitted", str(self))

    write(tmp_path, 1)
    monkeypatch.setattr(Path, "unlink", refuse)
    warnings = []
    for step in (2, 3):
        write(tmp_path, step, keep=1, warn=warnings.append)
    assert_is(load(tmp_path), 3)
    assert (
        len(warnings) == 6 and "step-00000001" in warnings[0] and "cannot be removed" in warnings[0]
    )


def test_steps_after_a_fall_back_are_removed_but_not_the_best(tmp_path):
    for step in (10, 20, 30, 40):
        write(tmp_path, step, best=step == 30, keep=9)
    # Training was taken up again from step 10.
    write(tmp_path, 15, keep=9)
    assert steps(tmp_path) == [10, 15, 30]
    assert_is(load(tmp_path), 15)


def test_a_folder_without_checkpoints(tmp_path):
    assert steps(tmp_path) == steps(tmp_path / "missing") == []
    for which in ("latest", "best", 3):
        with pytest.raises(CheckpointError, match=str(tmp_path)):
            load(tmp_path, which)
    write(tmp_path, 1)
    with pytest.raises(CheckpointError, match="best.json does not exist"):
        load(tmp_path, "best")


class Killed(BaseException):
    """Stands for the end of the process in tests of errors within one."""


class FailingSystem:
    """Stands in for ``os`` in files.py: the n-th call that writes fails, or stops half-way."""

    COUNTED = ("open", "fdopen", "fsync", "replace")

    def __init__(self, failing: int, error: BaseException):
        self.left = failing
        self.error = error
        self.has_failed = False

    def __getattr__(self, name: str):
        function = getattr(os, name)
        if name not in self.COUNTED:
            return function

        def counted(*arguments, **options):
            self.count()
            result = function(*arguments, **options)
            return FailingFile(result, self) if name == "fdopen" else result

        return counted

    def count(self) -> None:
        self.left -= 1
        if self.left < 0:
            self.has_failed = True
            raise self.error


class FailingFile:
    """A file whose write may stop half-way."""

    def __init__(self, file, system: FailingSystem):
        self.file = file
        self.system = system

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def __getattr__(self, name: str):
        return getattr(self.file, name)

    def write(self, content: bytes) -> int:
        self.file.write(content[: len(content) // 2])
        self.system.count()
        return self.file.write(content[len(content) // 2 :])


ERRORS = {
    "no space left": OSError(errno.ENOSPC, "No space left on device"),
    "read-only": OSError(errno.EROFS, "Read-only file system"),
    "input/output": OSError(errno.EIO, "Input/output error"),
    "interrupt": Killed(),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("again", [False, True], ids=["new step", "same step with other tensors"])
def test_a_failure_of_any_write_leaves_good_checkpoints(tmp_path, monkeypatch, error, again):
    points = 0
    while True:
        folder = tmp_path / str(points)
        folder.mkdir()
        write(folder, 1, best=True)
        if again:
            save(folder, 2, {"other": np.zeros(3)}, {}, {})
        system = FailingSystem(points, error)
        with monkeypatch.context() as patch:
            patch.setattr(files, "os", system)
            try:
                write(folder, 2, best=True)
            except type(error) as caught:
                assert isinstance(caught, Killed) or (
                    caught.errno == error.errno and Path(caught.filename).is_relative_to(folder)
                )
        if not system.has_failed:
            assert_is(load(folder), 2)
            break
        points += 1
        checkpoint, warnings = latest_and_warnings(folder)
        assert warnings == []
        if checkpoint.step == 2 and checkpoint.state:
            assert_is(checkpoint, 2)
        elif checkpoint.step == 2:
            assert again and checkpoint.tensors.keys() == {"other"}
        else:
            assert_is(checkpoint, 1)
        assert_is(load(folder, "best"), load(folder, "best").step)
        for path in folder.glob("*.safetensors"):
            safetensors.numpy.load_file(path)
        assert not [name for name in names(folder) if name.endswith(".tmp")]
        # The next attempt succeeds, and nothing of the failed one stays.
        write(folder, 3, keep=1)
        assert_is(load(folder), 3)
        assert steps(folder) in ([1, 3], [2, 3])
        assert len(names(folder)) == 6
    assert points == 4 * 7, "four files, seven calls each"


def test_a_disk_that_gives_back_other_bytes_is_noticed(tmp_path, monkeypatch):
    write(tmp_path, 1)
    replaced = []
    digest = checkpoints._digest
    monkeypatch.setattr(checkpoints, "_digest", lambda path: digest(path)[::-1])
    monkeypatch.setattr(files.os, "replace", lambda *arguments: replaced.append(arguments))
    with pytest.raises(OSError, match="other bytes"):
        write(tmp_path, 2)
    assert replaced == [] and names(tmp_path) == pair(1) | {"latest.json"}


def test_a_real_full_disk(tmp_path):
    write(tmp_path, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for size in (0, 1, 100):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
            with pytest.raises(OSError, match="step-00000002.safetensors"):
                write(tmp_path, 2)
            assert names(tmp_path) == pair(1) | {"latest.json"}
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_is(load(tmp_path), 1)


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(OSError, match="missing"):
        write(tmp_path / "missing", 1)


WRITER = f"""
import os, signal, sys
from pathlib import Path
sys.path[:0] = {[str(ROOT / "tests" / room) for room in ("runs", "support")]!r}
import test_checkpoints
from mindspore_cvae.common import files

folder, point, first = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])

class Kill(test_checkpoints.FailingSystem):
    def count(self):
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

if point >= 0:
    files.os = Kill(point, None)
for step in range(first, first + 10000):
    test_checkpoints.write(folder, step, best=step % 3 == 0)
    print(step, flush=True)
"""


def writer(folder: Path, point: int, first: int) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(point), str(first)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )


def assert_survived(folder: Path, acknowledged: int) -> int:
    """After a kill, the latest checkpoint is whole, and the last that was reported or the next."""
    checkpoint, warnings = latest_and_warnings(folder)
    assert warnings == []
    assert checkpoint.step in (acknowledged, acknowledged + 1)
    assert_is(checkpoint, checkpoint.step)
    best = load(folder, "best")
    assert_is(best, best.step)
    assert best.step % 3 == 0 and best.step >= checkpoint.step - 3
    for path in folder.glob("*.safetensors"):
        safetensors.numpy.load_file(path)
    return checkpoint.step


def kill_points(folder: Path, points: list[int]) -> None:
    for step in (1, 2, 3):
        write(folder, step, best=step == 3)
    last = 3
    for point in points:
        process = writer(folder, point, last + 1)
        reported = process.communicate()[0].split()
        assert process.returncode == -signal.SIGKILL
        last = assert_survived(folder, int(reported[-1]) if reported else last)
    write(folder, last + 1, keep=2)
    assert len(steps(folder)) <= 3 and len(names(folder)) <= 2 * 3 + 2


def test_kill_9_at_chosen_calls(tmp_path):
    # In the tensors, between tensors and manifest, between manifest and pointers, and later on.
    kill_points(tmp_path, [2, 4, 5, 7, 12, 14, 20, 21, 40, 66])


@pytest.mark.slow
def test_kill_9_at_every_call_of_three_checkpoints(tmp_path):
    kill_points(tmp_path, list(range(3 * 28)))


def kill_at_random(folder: Path, kills: int, seed: int) -> None:
    pause = random.Random(seed)
    for step in (1, 2, 3):
        write(folder, step, best=step == 3)
    last = 3
    for _ in range(kills):
        process = writer(folder, -1, last + 1)
        last = int(process.stdout.readline())
        time.sleep(pause.uniform(0, 0.2))
        process.kill()
        rest = process.communicate()[0].split()
        last = assert_survived(folder, int(rest[-1]) if rest else last)


def test_kill_9_at_random_moments(tmp_path):
    kill_at_random(tmp_path, 4, seed=0)


@pytest.mark.slow
def test_kill_9_at_many_random_moments(tmp_path):
    kill_at_random(tmp_path, 60, seed=1)


def damaged(content: bytes) -> dict[str, bytes]:
    """Truncations at every region of a file of tensors, and other damage."""
    header = int.from_bytes(content[:8], "little")
    cuts = {0, 1, 7, 8, 9, 8 + header // 2, 8 + header - 1, 8 + header, len(content) - 1}
    cuts |= {(8 + header + len(content)) // 2}
    versions = {f"cut to {cut} bytes": content[:cut] for cut in sorted(cuts)}
    versions["one byte more"] = content + b"\0"
    versions["zeros"] = bytes(len(content))
    versions["a picture"] = b"\x89PNG\r\n\x1a\n" + bytes(100)
    versions["other tensors"] = safetensors.numpy.save({"other": np.zeros(3)})
    return versions


def test_damaged_tensors_are_refused_and_passed_over(tmp_path):
    write(tmp_path, 1)
    path = write(tmp_path, 2)
    content = path.read_bytes()
    for description, version in damaged(content).items():
        path.write_bytes(version)
        with pytest.raises(CheckpointError, match="step-00000002.safetensors is damaged"):
            load(tmp_path, 2)
        checkpoint, warnings = latest_and_warnings(tmp_path)
        assert_is(checkpoint, 1)
        assert len(warnings) == 1, description
        assert str(path) in warnings[0] and "checkpoint of step 1 is taken" in warnings[0]
    path.unlink()
    assert_is(latest_and_warnings(tmp_path)[0], 1)


@pytest.mark.parametrize("kind", ["safetensors", "json"])
@pytest.mark.parametrize("stride", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_any_flipped_bit_is_noticed(tmp_path, kind, stride):
    write(tmp_path, 1)
    write(tmp_path, 2)
    path = tmp_path / f"step-00000002.{kind}"
    content = path.read_bytes()
    unnoticed = 0
    for position in range(0, 8 * len(content), stride):
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        checkpoint, warnings = latest_and_warnings(tmp_path)
        assert_is(checkpoint, 1 if warnings else 2)
        unnoticed += not warnings
    # Of JSON, blanks between values may turn into other blanks: a line feed into a tab, say.
    assert unnoticed <= (0 if kind == "safetensors" else content.count(b"\n"))


@pytest.mark.parametrize("name", ["latest.json", "best.json"])
def test_damaged_pointers_never_lead_astray(tmp_path, name):
    for step in (1, 2, 3):
        write(tmp_path, step, best=step == 2, keep=3)
    path = tmp_path / name
    content = path.read_bytes()
    versions = [content[:cut] for cut in range(len(content) - 1)]
    for position in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        versions.append(bytes(flipped))
    versions += [b"[]", b"3", b'"x"', b"null", b"{}", b"[" * 100000, b"9" * 5000, b"\xff\xfe"]
    # A step of so many digits makes a name that no file system takes.
    pointer = {key: value for key, value in json.loads(content).items() if key != "sha256"}
    versions += [checkpoints._seal({**pointer, "step": step}) for step in (10**300, -1, True, 1.0)]
    for version in versions:
        path.write_bytes(version)
        if name == "latest.json":
            checkpoint, warnings = latest_and_warnings(tmp_path)
            assert_is(checkpoint, 3)
            assert all(str(path) in warning for warning in warnings)
        else:
            try:
                assert_is(load(tmp_path, "best"), 2)
            except CheckpointError as error:
                assert str(path) in str(error)


def test_a_damaged_pointer_to_the_best_keeps_old_checkpoints(tmp_path):
    write(tmp_path, 1, best=True)
    (tmp_path / "best.json").write_text("{")
    warnings = []
    for step in range(2, 6):
        write(tmp_path, step, warn=warnings.append)
    assert steps(tmp_path) == [1, 2, 3, 4, 5]
    assert "best.json is damaged" in warnings[0] and "no old checkpoint is removed" in warnings[0]
    write(tmp_path, 6, best=True)
    assert steps(tmp_path) == [5, 6]


def test_nothing_good_left_is_one_error_that_names_the_latest(tmp_path):
    for step in (1, 2):
        write(tmp_path, step).write_bytes(b"")
    with pytest.raises(CheckpointError, match="step-00000002.safetensors is damaged"):
        latest_and_warnings(tmp_path)


def test_a_latest_that_is_gone_is_told(tmp_path):
    write(tmp_path, 1)
    write(tmp_path, 2)
    (tmp_path / "step-00000002.json").unlink()
    checkpoint, warnings = latest_and_warnings(tmp_path)
    assert_is(checkpoint, 1)
    assert len(warnings) == 1 and "step-00000002.json is missing" in warnings[0]


@pytest.mark.parametrize(
    "file", ["../secret.safetensors", "/etc/passwd", "step-00000001.safetensors", "x", 3, None]
)
def test_a_forged_manifest_cannot_name_another_file(tmp_path, file):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    write(folder, 1)
    content = write(folder, 2).read_bytes()
    (tmp_path / "secret.safetensors").write_bytes(content)
    manifest = json.loads((folder / "step-00000002.json").read_text())
    forge(folder / "step-00000002.json", tensors={**manifest["tensors"], "file": file})
    with pytest.raises(CheckpointError, match="not the manifest of step 2"):
        load(folder, 2)
    assert_is(latest_and_warnings(folder)[0], 1)


@pytest.mark.parametrize(
    "changes", [{"step": 3}, {"state": []}, {"fingerprints": {"config": 1}}, {"tensors": {}}]
)
def test_a_forged_manifest_must_have_its_form(tmp_path, changes):
    write(tmp_path, 2)
    forge(tmp_path / "step-00000002.json", **changes)
    with pytest.raises(CheckpointError, match="step-00000002.json is not the manifest of step 2"):
        load(tmp_path, 2)


def test_another_version_is_refused_by_name(tmp_path):
    write(tmp_path, 1)
    write(tmp_path, 2)
    forge(tmp_path / "step-00000002.json", format=2)
    with pytest.raises(CheckpointError, match="step-00000002.json has format 2, .* format 1"):
        load(tmp_path, 2)
    assert_is(latest_and_warnings(tmp_path)[0], 1)


@pytest.mark.parametrize("name", ["step-00000002.json", "step-00000002.safetensors", "latest.json"])
def test_what_is_no_file_is_passed_over(tmp_path, name):
    write(tmp_path, 1)
    write(tmp_path, 2)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)  # reading it would wait for ever
    checkpoint, warnings = latest_and_warnings(tmp_path)
    assert_is(checkpoint, 2 if name == "latest.json" else 1)
    assert len(warnings) == 1 and f"{name} is not a file" in warnings[0]


def test_nothing_is_unpickled(tmp_path):
    path = write(tmp_path, 1)
    payload = b"cos\nmkdir\n(S'" + str(tmp_path / "executed").encode() + b"'\ntR."
    for victim in (path, tmp_path / "step-00000001.json", tmp_path / "latest.json"):
        victim.write_bytes(payload)
    with pytest.raises(CheckpointError):
        latest_and_warnings(tmp_path)
    assert not (tmp_path / "executed").exists()


def test_a_checkpoint_of_another_training_is_refused_unless_forced(tmp_path):
    write(tmp_path, 1)
    checkpoint = load(tmp_path)
    check_fingerprints(checkpoint, FINGERPRINTS)
    check_fingerprints(checkpoint, {})
    for name in (*FINGERPRINTS, "system"):
        with pytest.raises(
            CheckpointError, match=f"00000001.safetensors was .* another {name} "
        ) as error:
            check_fingerprints(checkpoint, {**FINGERPRINTS, name: "e" * 64})
        assert "--force" in str(error.value)
        warnings = []
        check_fingerprints(checkpoint, {name: "e" * 64}, force=True, warn=warnings.append)
        assert len(warnings) == 1 and f"another {name}" in warnings[0]
