"""The report's sentences and codes as TensorBoard reads them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from event_files import event_file, texts
from made_run import write_made_run

from mindspore_cvae.errors import UserNotice
from mindspore_cvae.report import sections
from mindspore_cvae.report.projector import show_specimens
from mindspore_cvae.report.specimens import Groups, Specimens
from mindspore_cvae.runs import events

SENTENCES = ["the <unk> fell", "*a* bank", "it rose"]
SPECIMENS = Specimens(
    samples=["one # two", "three"],
    reconstructions=[(SENTENCES[0], "the market fell"), (SENTENCES[1], "a bank")],
    paths=[("a", "b", ["a", "a b", "b"])],
    codes=np.array([[0.5, -1.25], [2, 3], [1e-7, 4]], np.float32),
    map=np.zeros((3, 2)),
    mapped=SENTENCES,
    groups=[
        # The last one's label is too rare for a group of its own.
        Groups(
            "label", ["bad", "good"], np.array([0, 1, -1]), False, "odd", ["bad", "good", "odd"]
        ),
        Groups("sentence length", ["2", "3 words"], np.array([1, 0, 0]), True),
    ],
    step=40,
)


def test_sentences_are_texts_that_nothing_is_taken_out_of(tmp_path):
    show_specimens(tmp_path, SPECIMENS)
    found = texts(event_file(tmp_path / "tensorboard" / "report"))
    shown = {
        # What is indented by four blanks is shown by Markdown as it stands.
        name.removesuffix("/text_summary"): [line[4:] for line in text.splitlines() if line.strip()]
        for name, (step, text) in found.items()
        if step == 40 and all(line.startswith("    ") for line in text.splitlines())
    }
    assert shown == {
        "samples": ["one # two", "three"],
        "reconstructions": ["the <unk> fell", "the market fell", "*a* bank", "a bank"],
        "interpolations": ["a", "a b", "b"],
    }


def test_codes_have_their_sentences_and_every_group(tmp_path):
    show_specimens(tmp_path, SPECIMENS)
    folder = tmp_path / "tensorboard" / "report"
    config = (folder / "projector_config.pbtxt").read_text()
    paths = dict(re.findall(r'(\w+_path): "(.+)"', config))
    np.testing.assert_allclose(np.loadtxt(folder / paths["tensor_path"]), SPECIMENS.codes)
    rows = (folder / paths["metadata_path"]).read_text().splitlines()
    assert [row.split("\t") for row in rows] == [
        ["sentence", "label", "sentence length"],
        ["the <unk> fell", "bad", "3 words"],
        ["*a* bank", "good", "2"],
        ["it rose", "odd", "2"],
    ]


def test_the_report_writes_them_where_the_run_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(sections, "_specimens", lambda *arguments: SPECIMENS)
    plain = write_made_run(tmp_path / "plain", "vae")
    sections.write_report(plain)
    assert not (plain / "tensorboard").exists()
    run = write_made_run(tmp_path / "run", "vae", "train.tensorboard=true")
    for _ in range(2):
        sections.write_report(run)
        assert len(texts(event_file(run / "tensorboard" / "report"))) == 3
    monkeypatch.setattr(events.importlib.util, "find_spec", lambda name: None)
    (run / "report.html").unlink()
    with pytest.warns(UserNotice, match="pip install tensorboardX"):
        sections.write_report(run)
    assert (run / "report.html").exists(), "the page needs no such package"
