"""A long training: neither its memory nor its place on the disk grows."""

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import pytest
from interruptions import SENTENCES, STEP_KINDS, options

from mindspore_cvae.runs import checkpoints
from mindspore_cvae.runs import folder as runs_folder

ROOT = Path(__file__).resolve().parents[2]
STEPS, WARM_UP = 3000, 600
PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 2**20
SETTINGS = (
    *("train.epochs=1000", f"train.max_steps={STEPS}", "train.patience=null"),
    *("train.checkpoint_every_steps=10", "train.log_every_steps=5", "train.learning_rate=0.001"),
)


def write_corpus(folder: Path) -> Path:
    """120, 12 and 4 sentences of two to six words."""
    folder.mkdir()
    draw, words = random.Random(0), sorted(set(SENTENCES["train"].replace("|", " ").split()))
    for split, count in (("train", 120), ("valid", 12), ("test", 4)):
        lines = (" ".join(draw.choices(words, k=draw.randint(2, 6))) for _ in range(count))
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return folder


def logged_steps(log: Path) -> int:
    """The step of the last whole row."""
    with contextlib.suppress(OSError):
        rows = log.read_bytes()[-4096:].split(b"\n")
        if len(rows) > 2:
            return json.loads(rows[-2])["step"]
    return 0


def bytes_in(folder: Path) -> int:
    """Sizes of all files but the log; files may come and go meanwhile."""
    size = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file() and path.name != runs_folder.LOG:
                size += path.stat().st_size
    return size


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["joint", "critic_then_model"])
def test_3000_steps_need_no_more_memory_or_disk_than_the_first(tmp_path, kind):
    data, folder = write_corpus(tmp_path / "data"), tmp_path / "run"
    command = [sys.executable, ROOT / "train.py"]
    command += options(STEP_KINDS[kind], data, folder, *SETTINGS)
    memory: dict[int, int] = {}
    disk = 0
    with open(tmp_path / "output", "w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        while process.poll() is None:
            with contextlib.suppress(OSError, IndexError):
                resident = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
                memory[logged_steps(folder / runs_folder.LOG)] = resident * PAGE
            disk = max(disk, bytes_in(folder))
            time.sleep(0.1)
        output.seek(0)
        assert process.returncode == 0, output.read()
    assert checkpoints.load(folder / "checkpoints").step == STEPS

    early = [size for step, size in memory.items() if WARM_UP <= step < 2 * WARM_UP]
    late = [size for step, size in memory.items() if step >= STEPS - WARM_UP]
    assert min(len(early), len(late)) >= 5
    growth = (median(late) - median(early)) / MIB
    print(f"{kind}: {median(late) / MIB:.0f} MiB, {growth:+.2f} MiB since the warm-up")
    assert growth < 2

    last = checkpoints.load(folder / "checkpoints").path
    checkpoint = last.stat().st_size + last.with_suffix(".json").stat().st_size
    rows = (folder / runs_folder.LOG).read_bytes().splitlines()
    print(f"{disk / checkpoint:.2f} checkpoints on disk, {max(map(len, rows))} bytes a row")
    # Two that are kept, the best and the best by the bound, the one that is being written;
    # configuration, words, pointers.
    assert disk < 5 * checkpoint + 2**14
    # Rows of steps and of epochs, one at the start, one at the end.
    epochs = STEPS // 30
    assert len(rows) == STEPS // 5 + epochs + 2 and max(map(len, rows)) < 1024
