"""What the documentation shows in Python runs; the tests that it names are there."""

from __future__ import annotations

import ast
import functools
import json
import re
import shlex
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest
from event_files import event_file, points, texts
from nbclient import NotebookClient
from tiny_run import SIZES, write_corpus, write_run

from mindspore_cvae.api import ContrastiveVAE
from mindspore_cvae.commands import program
from mindspore_cvae.commands.export import export_main
from mindspore_cvae.data import grammar
from mindspore_cvae.runs.loading import load_run

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder that holds runs/quickstart."""
    folder = tmp_path_factory.mktemp("docs")
    run = write_run(folder, "cvae_plus_mi")
    (folder / "runs").mkdir()
    run.rename(folder / "runs" / "quickstart")
    return folder


def test_the_python_interface(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    page = (DOCS / "use" / "api.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == page.count("```python") == 10
    names: dict = {}
    for block in blocks:
        exec(compile(block, "docs/use/api.md", "exec"), names)
    assert names["z"].shape == names["z_sampled"].shape == (2, names["model"].latent_size)
    assert len(names["texts"]) == 5
    assert names["scores"].rec.shape == (2,)
    assert names["metrics"]["iw_samples"] == 8
    printed = capsys.readouterr().out
    assert printed.count("the market fell") == 2, "its own neighbour, and a scored sentence"


def test_the_page_of_labels(tmp_path, monkeypatch, capsys):
    """Its commands, one after the other; in the place of a training, a small run that is there."""
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path, "vae", "data.label_column=true")
    (tmp_path / "data").rename("reviews")
    (run / "config.yaml").write_text(
        (run / "config.yaml").read_text().replace(str(tmp_path / "data"), "reviews")
    )
    page = (DOCS / "use" / "labels.md").read_text(encoding="utf-8")

    def train(config, folder, *arguments, corpus, **options):
        assert set(corpus.train.labels) == {"good", "bad"}
        folder.parent.mkdir()
        run.rename(folder)
        return "epochs"

    monkeypatch.setattr("mindspore_cvae.training.trainer.train", train)
    monkeypatch.setattr("mindspore_cvae.report.sections.write_report_or_warn", lambda folder: True)
    commands = re.findall(r"^ {4}mindspore-cvae (.*)$", page, re.M)
    assert [command.split()[0] for command in commands] == ["train", "probe", "generate"]
    load = functools.cache(lambda: ContrastiveVAE(load_run("runs/reviews")))
    monkeypatch.setattr(ContrastiveVAE, "load", lambda *arguments, **options: load())
    for command in commands:
        assert program.main(shlex.split(command)) == 0
    captured = capsys.readouterr()
    assert "good: the mean code of 5 training sentences" in captured.err
    assert "accuracy on 8 test sentences of 2 labels" in captured.out
    assert (tmp_path / "runs" / "reviews" / "probe.json").is_file()
    (block,) = re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    names: dict = {}
    exec(compile(block, "docs/use/labels.md", "exec"), names)
    assert names["sentences"] == 5 and len(names["texts"]) == 1
    assert capsys.readouterr().out.count("words 8 ") == 1


NOTEBOOK = DOCS / "use" / "tutorial.ipynb"


def cells_of(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def printed(cell) -> str:
    """What a cell shows as text."""
    texts = [out.get("text", out.get("data", {}).get("text/plain", "")) for out in cell["outputs"]]
    return "".join("".join(text) for text in texts)


def test_the_notebook_is_small_and_names_no_machine():
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 40_000 and not re.search(r"/(home|root|tmp|usr|work)\b", text)
    assert json.loads(text)["nbformat"] == 4


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in cells_of(notebook):
        cell["outputs"] = []
    place = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=1800, kernel_name="python3", resources=place).execute()
    cells = cells_of(notebook)
    streams = [out for cell in cells for out in cell["outputs"] if out.get("name") == "stderr"]
    assert streams == [], "progress=False"
    _, trained, drawn, near, path, samples, scores, metrics = cells
    assert "steps" in printed(trained) and (tmp_path / "runs" / "tutorial" / "log.jsonl").exists()
    assert any("image/png" in out.get("data", {}) for out in drawn["outputs"])
    assert len(printed(near).splitlines()) == 4 and len(printed(path).splitlines()) == 6
    assert len(ast.literal_eval(printed(samples))) == 3
    right, wrong = map(float, re.findall(r"\d+\.\d", printed(scores)))
    assert right + 10 < wrong, "the words in their order are the more probable"
    assert float(re.search(r"iw_nll +(\S+)", printed(metrics))[1]) > grammar.entropy() - 10


@pytest.mark.slow
def test_the_exported_graphs(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert export_main(["--run", "runs/quickstart"]) == 0
    page = (DOCS / "use" / "export.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    capsys.readouterr()
    names: dict = {}
    exec(compile(block, "docs/use/export.md", "exec"), names)
    model = ContrastiveVAE.load("runs/quickstart")
    assert np.allclose(names["z"].asnumpy(), model.encode(["the market fell"]), atol=1e-5)
    assert capsys.readouterr().out == model.reconstruct(["the market fell"])[0] + "\n"
    assert np.isclose(np.exp(names["scores"].asnumpy()).sum(), 1.0, atol=1e-4)


def test_the_tests_that_hold_the_promises_are_there():
    page = (DOCS / "design" / "reliability.md").read_text(encoding="utf-8")
    named = re.findall(r"`(\w+/\w+)::(test_\w+)`", page)
    assert len(named) == page.count("::") - 1 > 60, "all but the explanation of the notation"
    for file, test in named:
        tree = ast.parse((DOCS.parent / "tests" / f"{file}.py").read_text(encoding="utf-8"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert test in functions, f"{file}::{test}"


@pytest.mark.slow
def test_the_page_of_tensorboard(tmp_path, monkeypatch):
    """Its own commands on a small corpus; those of other packages are told apart by name."""
    page = (DOCS / "use" / "tracking.md").read_text(encoding="utf-8")
    lines = [line.partition("#")[0] for line in re.findall(r"^ {4}(.*)$", page, re.M)]
    commands = [shlex.split(part) for line in lines for part in line.split("&&")]
    others = {command[0] for command in commands if command[0] != "python"}
    assert others == {"pip", "tensorboard", "swanlab", "wandb"}
    (train,) = [command for command in commands if command[0] == "python"]
    (report,) = re.findall(r"`python -m\s+mindspore_cvae (report --run )RUN`", page)
    assert train[:4] == ["python", "train.py", "--output_dir", "runs/mine"]

    monkeypatch.chdir(tmp_path)
    small = [*SIZES, "train.epochs=2", "data.batch_size=4", "train.log_every_steps=1"]
    data = ["--data_dir", str(write_corpus(tmp_path / "corpus"))]
    assert program.main(["train", *train[2:], *data, "--set", *small]) == 0
    events = Path("runs/mine/tensorboard")
    names = {name for name, *_ in points(event_file(events))}
    assert {"train/loss", "train/rec", "valid/rec", "valid/neg_elbo"} <= names
    rows = [json.loads(line) for line in Path("runs/mine/log.jsonl").read_text().splitlines()]
    logged = [(row["step"], row["loss"]) for row in rows if row["event"] == "step"]
    scalars = points(event_file(events))
    shown = [(step, value) for name, step, value, _ in scalars if name == "train/loss"]
    assert [step for step, _ in shown] == [step for step, _ in logged] and len(shown) > 1
    assert np.allclose([value for _, value in shown], [loss for _, loss in logged])

    shutil.rmtree(events / "report", ignore_errors=True)
    assert program.main([*report.split(), "runs/mine"]) == 0
    assert texts(event_file(events / "report")), "sentences of the report"
    codes = np.loadtxt(events / "report" / "codes.tsv", ndmin=2)
    assert codes.shape == (8, 4), "as many test sentences, the latent size of the settings"
