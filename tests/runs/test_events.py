"""What TensorBoard gets of a run; that a resumed run shows every point once is in
whole/test_resume.py."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
from event_files import event_file, points, read_events
from made_run import write_made_run

from mindspore_cvae.commands.train import train_main
from mindspore_cvae.errors import InputError, UserNotice
from mindspore_cvae.runs import events
from mindspore_cvae.runs.folder import Run, check

ROWS = (
    {"event": "start", "step": 0, "epoch": 1, "seed": 3},
    {"event": "step", "step": 4, "epoch": 1, "time": 1000.5, "loss": 2.5, "con": None, "beta": 0},
    {"event": "valid", "step": 4, "epoch": 1, "time": 1001.0, "rec": 7.0, "best": True},
    {"event": "step", "step": 8, "epoch": 2, "time": 1002.0, "loss": float("nan"), "beta": 0.5},
)
POINTS = [
    ("train/loss", 4, 2.5, 1000.5),
    ("train/beta", 4, 0.0, 1000.5),
    ("valid/rec", 4, 7.0, 1001.0),
    ("train/beta", 8, 0.5, 1002.0),
]


def test_the_numbers_of_the_log_are_scalars(tmp_path):
    written = events.follow(tmp_path, ROWS[:2])
    for row in ROWS[2:]:
        written.add_row(row)
    written.close()
    path = event_file(tmp_path / "tensorboard")
    assert points(path) == POINTS
    first, second, *_ = read_events(path)
    assert first.file_version == "brain.Event:2"
    # What makes a TensorBoard that has read the file before forget all of its points.
    assert (second.step, second.session_log.status) == (0, second.session_log.START)


def test_a_new_file_takes_the_place_of_ours_and_of_no_other(tmp_path):
    folder = tmp_path / "tensorboard"
    events.follow(tmp_path, ROWS).close()
    mine = folder / "events.out.tfevents.1.somewhere"
    mine.write_text("mine")
    old = folder / f"events.out.tfevents.1.somewhere{events.SUFFIX}"
    old.write_text("half a record")
    written = events.follow(tmp_path, ROWS[:2])
    assert old.read_bytes() == b"", "who reads it finds no file missing, and nothing in it"
    written.close()
    assert mine.read_text() == "mine"
    mine.unlink()
    assert points(event_file(folder)) == POINTS[:2]


def test_a_full_disk_ends_only_the_writing(tmp_path, monkeypatch):
    written = events.follow(tmp_path, ROWS[:1])

    def fail(event):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(written._writer, "write_event", fail)
    with pytest.warns(UserNotice, match="tensorboard: No space left .*--resume") as told:
        for row in ROWS:
            written.add_row(row)
        written.close()
    assert len(told) == 1


def test_no_file_is_emptied_that_lies_elsewhere(tmp_path):
    thesis = tmp_path / "thesis"
    thesis.write_text("mine")
    (tmp_path / "tensorboard").mkdir()
    name = f"events.out.tfevents.1.somewhere{events.SUFFIX}"
    for link in (os.symlink, os.link):
        link(thesis, tmp_path / "tensorboard" / name)
        with pytest.raises(InputError, match="cannot be written"):
            events.follow(tmp_path, ROWS)
        (tmp_path / "tensorboard" / name).unlink()
    assert thesis.read_text() == "mine"


def test_what_cannot_be_a_folder_is_refused(tmp_path):
    (tmp_path / "tensorboard").write_text("mine")
    with pytest.raises(InputError, match=r"tensorboard cannot be written \(File exists\)"):
        events.follow(tmp_path, ROWS)
    (tmp_path / "tensorboard").unlink()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "tensorboard").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="tensorboard is a link"):
        events.EventFile(tmp_path, "report")
    assert not any((tmp_path / "elsewhere").iterdir())
    run = write_made_run(tmp_path / "run", "vae")
    (run / "tensorboard").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="tensorboard is a link"):
        check(run, resume=True)


def test_overwriting_a_run_deletes_what_we_wrote_there(tmp_path):
    run = write_made_run(tmp_path / "run", "vae")
    events.follow(run, ROWS).close()
    report = events.EventFile(run, "report")
    report.close()
    columns = {"sentence": ["a b", "c"], "topic": ["x", "y"]}
    events.write_codes(report.folder, np.ones((2, 3)), columns)
    assert len(events.own_files(run)) == 5
    with Run(run, overwrite=True):
        assert not (run / "tensorboard").exists()
    run = write_made_run(tmp_path / "other", "vae")
    events.follow(run, ROWS).close()
    (run / "tensorboard" / "notes.md").write_text("mine")
    with pytest.warns(UserNotice, match="tensorboard stays"), Run(run, overwrite=True):
        assert [path.name for path in (run / "tensorboard").iterdir()] == ["notes.md"]


def test_without_the_package_a_training_does_not_begin(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(events.importlib.util, "find_spec", lambda name: None)
    run = tmp_path / "run"
    options = ["--output_dir", str(run), "--set", "train.tensorboard=true"]
    assert train_main(options) == 2
    assert "pip install tensorboardX" in capsys.readouterr().err
    assert not run.exists()
