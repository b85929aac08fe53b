"""What is read: once, from regular files, no more than can be right, and finite weights alone."""

import os
import threading

import numpy as np
import pytest
from made_run import write_made_run

from mindspore_cvae.commands import train
from mindspore_cvae.common.files import read_regular
from mindspore_cvae.config.keys import Data
from mindspore_cvae.config.layers import read_saved
from mindspore_cvae.data.corpus import load_corpus
from mindspore_cvae.data.vocabulary import Vocabulary
from mindspore_cvae.errors import InputError
from mindspore_cvae.runs import checkpoints, folder
from mindspore_cvae.toy.pictures import load_snapshots


@pytest.mark.parametrize("place", [(), ("--output_dir", "run")])
def test_a_configuration_from_a_pipe_is_read_once(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("t.yaml")
    text = "train: {epochs: 3}\nmodel: {hidden_size: 17}\n"
    threading.Thread(target=lambda: open("t.yaml", "w").write(text), daemon=True).start()
    arguments = train._train_parser().parse_args(["--config", "t.yaml", *place])
    config, _ = train._training_config(arguments)
    assert (config.train.epochs, config.model.hidden_size) == (3, 17)


def test_a_text_that_cannot_be_read_again_is_refused(tmp_path):
    os.mkfifo(tmp_path / "text")
    for place in (tmp_path / "text", "/dev/zero"):
        with pytest.raises(InputError, match="can be read once only"):
            load_corpus(Data(dir=str(place)))


@pytest.mark.parametrize("name", ["config.yaml", "vocab.txt", "log.jsonl", "metrics-test.json"])
def test_pipes_in_the_place_of_a_runs_files_do_not_hang(tmp_path, name):
    run = write_made_run(tmp_path / "run", test={})
    (run / name).unlink()
    os.mkfifo(run / name)
    assert folder.read_metrics(run, "metrics-test.json") == {} or name != "metrics-test.json"
    assert folder.read_log(run) == [] or name != "log.jsonl"
    refusals = {"config.yaml": read_saved, "vocab.txt": Vocabulary.load}
    if name in refusals:
        with pytest.raises(InputError, match="not a regular file"):
            refusals[name](run / name)


def test_pipes_in_the_place_of_the_toys_files_do_not_hang(tmp_path):
    os.mkfifo(tmp_path / "toy.json")
    with pytest.raises(InputError, match="no finished run"):
        load_snapshots(tmp_path)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "file"
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="are the most"):
        read_regular(path)
    with pytest.raises(InputError, match="are the most"):
        Vocabulary.load(path)


def test_a_checkpoint_that_was_blown_up_is_passed_over(tmp_path):
    tensors = {"x": np.ones(3, np.float32)}
    checkpoints.save(tmp_path, 1, tensors, {}, {})
    path = checkpoints.save(tmp_path, 2, tensors, {}, {})
    with open(path, "r+b") as file:
        file.truncate(1 << 40)
    told = []
    assert checkpoints.load(tmp_path, warn=told.append).step == 1
    assert str(1 << 40) in told[0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, value):
    from mindspore import Parameter, Tensor, nn

    from mindspore_cvae.runs.loading import restore

    class Model(nn.Cell):
        def __init__(self):
            super().__init__()
            self.w = Parameter(Tensor(np.ones(3, np.float32)), name="w")

    with pytest.raises(InputError, match="step-7: w holds numbers that are not finite"):
        restore(Model(), {"w": np.array([1, value, 2], np.float32)}, "step-7")
