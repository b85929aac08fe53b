"""Tables and figures of the paper from made-up runs: planning, collecting, writing."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_run import SECONDS_PER_EPOCH, TEST, write_made_run
from tiny_run import SENTENCES, write_corpus

from mindspore_cvae.commands import evaluate, generate, reproduce, toy, train
from mindspore_cvae.commands.reproduce import reproduce_main
from mindspore_cvae.config import layers
from mindspore_cvae.errors import InputError
from mindspore_cvae.evaluation.ngram import find_program
from mindspore_cvae.reproduction import jobs as reproduction_jobs
from mindspore_cvae.reproduction import running
from mindspore_cvae.reproduction import stages as reproduction_stages
from mindspore_cvae.reproduction.collecting import collect, negative_epochs, shown, summary
from mindspore_cvae.reproduction.jobs import Rates, seconds_of_epoch, training_of
from mindspore_cvae.reproduction.markdown import mark, markdown
from mindspore_cvae.reproduction.paper import EXHIBITS, METRICS, Column
from mindspore_cvae.reproduction.pictures import plot
from mindspore_cvae.reproduction.running import (
    COMMANDS,
    Stopped,
    dry_run,
    duration,
    plan,
    run_stage,
    unique,
)
from mindspore_cvae.reproduction.stages import KINDS, Stage, Wanted
from mindspore_cvae.runs import folder as runs_folder

ROOT = Path(__file__).resolve().parents[2]
MADE = ("train.epochs=4",)
"""Settings of made-up runs."""
PNG = b"\x89PNG\r\n\x1a\n"


def options(folder, *argv):
    """Options of the command on the quickstart's configuration."""
    given = ["--output_dir", str(folder), "--config", "quickstart", *argv]
    given += ["--iw_samples", str(TEST["iw_samples"])]
    return reproduce._parser().parse_args([*given, "--set", *MADE])


def planned(name, folder, *argv):
    kind, _, number = name.partition("-")
    chosen = options(folder, f"--{kind}", number, *argv)
    return EXHIBITS[name], plan(EXHIBITS[name], chosen), chosen


def collected(name, folder, *argv):
    exhibit, jobs, chosen = planned(name, folder, *argv)
    return collect(exhibit, jobs, running.common_settings(exhibit, jobs, chosen)), exhibit


def make(folder, job, **changes):
    """A finished run of a job."""
    pairs = [*MADE, "eval.before_training=true", *job.run.settings]
    made = {"epochs": 4, "seed": job.seed, "test": {}, **changes}
    return write_made_run(folder / job.name, job.run.system, *pairs, **made)


def write_perplexities(job, **changes):
    """Those of a run, as ``ngram`` leaves them."""
    made = {"n": None, "order": 5, "seed": 0, "step": reproduction_stages.best_step(job.folder)}
    made |= {"data_dir": job.config.data.dir, **changes}
    released = {"forward_ppl": 700.0, "reverse_ppl": 2600.0, **made}
    sampled = {"forward_ppl": 300.0, "reverse_ppl_test": 250.0, "train_to_test_ppl": 170.0, **made}
    document = {"protocols": {"released": released, "sampled": sampled}}
    (job.folder / "ngram.json").write_text(json.dumps(document))


def write_interpolation(job):
    reproduction_stages.interpolation_place(job).write_text('{"lambda": 1.0, "sentence": "a b"}\n')


def make_toy(job, **changes):
    job.folder.mkdir(parents=True)
    result = {"system": job.run.system, "categories": job.run.categories, "iterations_to_99": 3000}
    result |= {"separability": 1.0, "silhouette": 0.9, "distance_ratio": 0.1}
    result |= {"milliseconds_per_iteration": 2.5, "iterations": 80_000, **changes}
    (job.folder / "toy.json").write_text(json.dumps(result))


# What the paper has


@pytest.fixture(scope="module")
def paper():
    """The paper's text, cell by cell, without what only formats it."""
    path = ROOT.parent / "shared" / "paper" / "paper.md"
    if not path.is_file():
        pytest.skip(f"the paper is not there: no {path}")
    plain = re.sub(r"<[^>\n]*>|\*|\$|\\", "", path.read_text(encoding="utf-8"))
    return [[cell.strip() for cell in line.split("\t")] for line in plain.splitlines()]


def numbers(cells):
    values = [cell.replace(",", "") for cell in cells]
    return [float(value) for value in values if re.fullmatch(r"-?[\d.]+", value)]


def printed_rows(paper, name):
    """The numbers of each row of a table, from its caption to the next paragraph."""
    caption = f"{name.replace('-', ' ').capitalize()}: "
    (begin,) = (n for n, cells in enumerate(paper) if cells[0].startswith(caption))
    rows = []
    for cells in paper[begin + 1 :]:
        if len(cells) == 1 and cells[0] and not cells[0].startswith("DATASET"):
            break
        if found := numbers(cells):
            rows.append(found)
    return rows


@pytest.mark.parametrize("name", ["table-2", "table-3", "table-4", "table-7"])
def test_the_numbers_are_those_of_the_paper(paper, name):
    ours = [list(row.paper.values()) for row in EXHIBITS[name].rows]
    assert ours == printed_rows(paper, name)


def test_the_numbers_of_table_1_are_those_of_the_paper(paper):
    # The text of another section stands in the middle of the table.
    printed = {tuple(found) for cells in paper if len(found := numbers(cells)) == 5}
    rows = EXHIBITS["table-1"].rows
    assert len({row.run.system for row in rows}) == len(rows) == 10
    assert {tuple(row.paper.values()) for row in rows} <= printed
    for row in rows:
        name = row.name.replace("beta_", r"\beta_").replace("_MI", "").replace("+", "")
        found = [cells for cells in paper if numbers(cells) == list(row.paper.values())]
        letters = re.sub(r"[^a-zA-Z]", "", name).lower().removesuffix("vae")
        assert letters.removeprefix("beta") in found[0][0].lower()


def test_rows_that_share_numbers_share_runs():
    rows = [row for exhibit in EXHIBITS.values() for row in exhibit.rows]
    by_run = {}
    for row in rows:
        numbers = {key: row.paper[key] for key in ("neg_elbo", "ppl") if key in row.paper}
        if numbers and "mi" in row.paper:
            assert by_run.setdefault(row.run, numbers) == numbers, row.name


def test_every_exhibit_is_there():
    assert list(EXHIBITS) == [f"table-{n}" for n in range(1, 8)] + ["figure-3", "figure-4"]
    for exhibit in EXHIBITS.values():
        for row in exhibit.rows:
            assert row.paper.keys() <= {column.key for column in (*METRICS, *exhibit.columns)}


# The plan


@pytest.mark.parametrize("name", EXHIBITS)
def test_every_run_has_a_valid_configuration_and_a_folder_of_its_own(name, tmp_path):
    kind, _, number = name.partition("-")
    chosen = reproduce._parser().parse_args([f"--{kind}", number, "--output_dir", str(tmp_path)])
    jobs = unique(plan(EXHIBITS[name], chosen))
    prints = [(job.config.fingerprint(), job.config.data.dir) for job in jobs if job.config]
    assert len(set(prints)) == len(prints)
    assert len({job.folder for job in jobs}) == len(jobs) == len({job.run for job in jobs})
    assert all(job.config.eval.before_training for job in jobs if job.config)


def settings_of(name, *rows):
    chosen = reproduce._parser().parse_args([f"--{name[:-2]}", name[-1]])
    jobs = [job for row_jobs in plan(EXHIBITS[name], chosen).values() for job in row_jobs]
    return [jobs[row].config for row in rows]


def test_what_makes_the_rows_of_the_smaller_tables():
    on_h, on_z = settings_of("table-3", 0, 2)
    assert (on_h.slots.contrast_on, on_z.slots.contrast_on) == ("h", "z")
    assert on_h.system == on_z.system == "cvae"
    swap, dropout = settings_of("table-7", 0, 1)
    assert (swap.slots.augmentation, swap.slots.encoder_dropout) == ("swap", 0)
    assert (dropout.slots.augmentation, dropout.slots.encoder_dropout) == ("dropout", 0.3)
    (without_kl,) = settings_of("table-4", 3)
    assert without_kl.slots.beta_max == 0 and without_kl.slots.posterior == "gaussian"
    rates = [c.slots.encoder_dropout for c in settings_of("figure-4", *range(9))]
    assert rates == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    yahoo, yelp = settings_of("table-2", 1, 8)
    assert yahoo.slots.beta_max == yelp.slots.beta_max == 0.4
    assert (yahoo.data.dir, yelp.data.dir) == ("data/yahoo", "data/yelp")


def test_a_plan_of_some_systems_and_seeds(tmp_path):
    exhibit, jobs, _ = planned("table-1", tmp_path, "--systems", "vae", "cvae", "--seeds", "2", "0")
    assert [job.name for job in unique(jobs)] == [
        "quickstart-vae-0",
        "quickstart-cvae-0",
        "quickstart-vae-2",
        "quickstart-cvae-2",
    ]
    with pytest.raises(InputError, match="table 1 has no gpt, but beta_vae, cvae"):
        planned("table-1", tmp_path, "--systems", "gpt")


def test_where_the_data_sets_of_table_2_lie(tmp_path):
    given = ["--table", "2", "--data_dir", str(tmp_path), "--output_dir", str(tmp_path / "out")]
    chosen = reproduce._parser().parse_args(given)
    places = {job.config.data.dir for job in unique(plan(EXHIBITS["table-2"], chosen))}
    assert places == {str(tmp_path / "yahoo"), str(tmp_path / "yelp")}
    assert reproduce_main(given) == 2


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "one of the arguments --table --figure is required"),
        (["--table", "8"], "invalid choice"),
        (["--figure", "1"], "invalid choice"),
        (["--table", "1", "--budget", "-1"], "--budget must be 0 or more"),
        (["--table", "1", "--budget", "nan"], "--budget must be 0 or more"),
        (["--table", "1", "--seeds", "1", "1"], "different numbers"),
        (["--table", "1", "--seeds", "-1"], "--seeds: '-1' is not a whole number from 0"),
        (["--table", "1", "--collect", "--dry_run"], "not allowed with"),
        (["--table", "1", "--set", "train.epoch=1"], "did you mean train.epochs"),
        (["--table", "1", "--data_dir", "nowhere"], "its corpus nowhere is not there"),
    ],
)
def test_bad_input_is_refused(argv, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert reproduce_main(argv) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and message in told and told.count("\n") == 1
    assert not list(tmp_path.iterdir())


# How far runs are


@pytest.fixture
def job(tmp_path):
    _, jobs, _ = planned("table-7", tmp_path)
    return unique(jobs)[1]


def test_how_far_a_training_is(job, tmp_path):
    assert training_of(job) == reproduction_jobs.Training(False, False, 0, 0.0)
    make(tmp_path, job, epochs=2, ended=False)
    assert training_of(job) == reproduction_jobs.Training(True, False, 2, 0.5)


def test_a_training_that_ended(job, tmp_path):
    make(tmp_path, job)
    assert training_of(job) == reproduction_jobs.Training(True, True, 4, 1.0)
    _, jobs, chosen = planned("table-7", tmp_path)
    chosen.overrides = ["train.epochs=8"]
    longer = unique(plan(EXHIBITS["table-7"], chosen))[1]
    assert training_of(longer) == reproduction_jobs.Training(True, False, 4, 0.5)


def test_an_interrupted_training_is_not_complete(job, tmp_path):
    make(tmp_path, job, ended=False)
    with open(job.folder / runs_folder.LOG, "a") as log:
        log.write('{"event": "end", "step": 80, "reason": "SIGTERM"}\n')
    assert not training_of(job).is_complete
    with open(job.folder / runs_folder.LOG, "a") as log:
        log.write('{"event": "resume", "step": 80}\n{"event": "end", "reason": "epochs"}\n')
    assert training_of(job).is_complete


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("model.hidden_size=9", "model.hidden_size is 9 there and 128 now"),
        ("data.dir=x", "data.dir is 'x'"),
    ],
)
def test_a_run_with_other_settings_is_refused(job, tmp_path, setting, told):
    write_made_run(job.folder, job.run.system, *MADE, setting)
    with pytest.raises(InputError, match=re.escape(told)) as error:
        training_of(job)
    assert str(job.folder) in str(error.value)


def test_results_that_are_older_than_the_best_checkpoint_do_not_count(job, tmp_path):
    make(tmp_path, job)
    assert reproduction_stages.test_metrics(job)["ppl"] == TEST["ppl"]
    assert KINDS["metrics"].is_there(job, Wanted())
    with open(job.folder / runs_folder.LOG, "a") as log:
        log.write('{"event": "valid", "step": 100, "epoch": 5, "best": true}\n')
    assert not KINDS["metrics"].is_there(job, Wanted())
    for kind, write in (("ngram", write_perplexities), ("interpolation", write_interpolation)):
        assert not KINDS[kind].is_there(job, Wanted())
        write(job)
        assert KINDS[kind].is_there(job, Wanted())
        # Dates say nothing: a copied run has new ones.
        os.utime(job.folder / "checkpoints", (time.time() + 60,) * 2)
        assert KINDS[kind].is_there(job, Wanted())


def test_results_of_another_text_do_not_count(job, tmp_path):
    """The place is the same, and what lies there is not."""
    make(tmp_path, job)
    with open(job.folder / runs_folder.LOG, "a") as log:
        log.write('{"event": "resume", "corpus": "aa"}\n')
    path = job.folder / "metrics-test.json"
    own = runs_folder.read_metrics(job.folder, path.name)
    for corpus, expected in (("aa", True), ("bb", False)):
        path.write_text(json.dumps(own | {"corpus": corpus}))
        assert KINDS["metrics"].is_there(job, Wanted()) == expected
        write_perplexities(job, corpus=corpus)
        assert KINDS["ngram"].is_there(job, Wanted()) == expected


def test_results_of_other_sentences_or_draws_do_not_count(tmp_path):
    arguments = ("table-1", tmp_path, "--systems", "cvae")
    _, jobs, chosen = planned(*arguments)
    (job,) = unique(jobs)
    make(tmp_path, job)
    assert KINDS["metrics"].is_there(job, Wanted())
    own = runs_folder.read_metrics(job.folder, "metrics-test.json")
    for changed in (
        {"max_sentences": 500},
        {"samples": 16},
        {"data_dir": "data/other"},
        {"precision": "fast"},
        {"amp_level": "O2"},
    ):
        (job.folder / "metrics-test.json").write_text(json.dumps(own | changed))
        assert not KINDS["metrics"].is_there(job, Wanted())
        assert "trained, not evaluated" in collected(*arguments)[0]["unfinished"][0]
    stage = KINDS["metrics"].stage(job, running._wanted(chosen))
    assert stage.arguments[-3:] == ("--set", "eval.samples=128", "eval.max_sentences=null")


def test_perplexities_that_were_made_otherwise_do_not_count(tmp_path):
    exhibit, jobs, chosen = planned("table-4", tmp_path, "--generated", "50")
    job = unique(jobs)[0]
    make(tmp_path, job)
    write_perplexities(job, n=50)
    assert KINDS["ngram"].is_there(job, Wanted(generated=50))
    assert not KINDS["ngram"].is_there(job, Wanted())
    for changed in ({"order": 3}, {"seed": 7}, {"step": 1}, {"data_dir": "data/other"}):
        write_perplexities(job, **changed)
        assert not KINDS["ngram"].is_there(job, Wanted()), changed
    write_perplexities(job)
    assert KINDS["ngram"].is_there(job, Wanted())
    document = runs_folder.read_metrics(job.folder, "ngram.json")
    del document["protocols"]["released"]
    (job.folder / "ngram.json").write_text(json.dumps(document))
    assert not KINDS["ngram"].is_there(job, Wanted()), "one protocol is half of a row"
    settings = running.common_settings(exhibit, jobs, chosen)
    assert not settings["is_comparable"] and "--generated 50" in settings["trained_on"]


def test_the_rate_of_a_log():
    rows = [
        {"event": "start", "splits": {"train": {"tokens": 6000}}},
        {"event": "step", "tokens": 1000, "tokens_per_second": 500.0},
        {"event": "step", "tokens": 3000, "tokens_per_second": 1000.0},
        {"event": "valid", "seconds": 4.0},
        {"event": "valid", "seconds": 6.0},
    ]
    # 4,000 tokens in 2 + 3 seconds, so 6,000 in 7.5; and a validation takes 5.
    assert seconds_of_epoch(rows) == pytest.approx(12.5)
    assert seconds_of_epoch(rows[:1]) is None and seconds_of_epoch(rows[1:]) is None


def test_a_dry_run_counts_by_like_runs(tmp_path):
    exhibit, jobs, chosen = planned("table-1", tmp_path, "--systems", "vae", "beta_vae", "cvae")
    told = dry_run(exhibit, jobs, chosen)
    assert told[0] == "quickstart-vae-0: train, time unknown; evaluation"
    assert told[-1].startswith("training left: 3 runs of which no like one")
    vae = unique(jobs)[0]
    make(tmp_path, vae, epochs=1, ended=False, test=None)
    seconds = seconds_of_epoch(runs_folder.read_log(vae.folder))
    told = dry_run(exhibit, jobs, chosen)
    assert told[0] == (
        f"quickstart-vae-0: train from 25%, about {duration(3 * seconds)}; evaluation"
    )
    assert told[1] == f"quickstart-beta_vae-0: train, about {duration(4 * seconds)}; evaluation"
    assert "quickstart-cvae-0: train, time unknown" in told[2]
    assert "and 1 run of which no like one" in told[3]
    for job in unique(jobs):
        if job is not vae:
            make(tmp_path, job)
    told = dry_run(exhibit, jobs, chosen)
    assert told[1:3] == ["quickstart-beta_vae-0: finished", "quickstart-cvae-0: finished"]
    assert not list(tmp_path.glob("table-*")), "nothing is written"


def test_a_dry_run_of_the_toy(tmp_path):
    exhibit, jobs, chosen = planned("table-5", tmp_path, "--seeds", "0", "1")
    first = unique(jobs)[0]
    make_toy(first)
    told = dry_run(exhibit, jobs, chosen)
    assert told[0] == "toy-vae-4-0: finished"
    # 80,000 iterations of 2.5 milliseconds.
    assert "toy-vae-4-1: train, about 3 min" in told
    make_toy(unique(jobs)[1], iterations=100, iterations_to_99=None)
    (unique(jobs)[1].folder / "checkpoints").mkdir()
    (unique(jobs)[1].folder / "checkpoints" / "step-00020000.json").write_text("")
    assert training_of(unique(jobs)[1]) == reproduction_jobs.Training(True, False, 0, 0.25)
    # What was separated early, and was not trained further, may fall apart yet.
    make_toy(unique(jobs)[2], iterations=8000, iterations_to_99=3000)
    told = dry_run(exhibit, jobs, chosen)
    assert told[1].startswith("toy-ivae-4-0: train")
    assert told[2].startswith("toy-cvae_plus-4-0: train")
    assert Rates(tmp_path / "nowhere").seconds_left(first, training_of(first)) == 0.0


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (89, "89 s"), (600, "10 min"), (50820, "14.1 h")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


# What is collected


def test_mean_and_spread():
    entry = summary({0: 1.0, 1: 2.0, 2: 6.0})
    assert entry["mean"] == 3.0 and entry["spread"] == pytest.approx(math.sqrt(7))
    assert entry["values"] == {"0": 1.0, "1": 2.0, "2": 6.0}
    assert summary({3: 5.0})["spread"] is None
    assert shown(entry, Column("x", "x")) == "3.00 \N{PLUS-MINUS SIGN} 2.65"
    assert shown(summary({0: 12345.6}), Column("x", "x", 0)) == "12,346"
    assert shown(None, Column("x", "x")) == ""


def test_a_table_of_two_seeds(tmp_path):
    _, jobs, _ = planned("table-7", tmp_path, "--seeds", "0", "1")
    swap, dropout = [job for job in unique(jobs) if job.seed == 0]
    other = next(job for job in unique(jobs) if job.seed == 1 and job.run == dropout.run)
    make(tmp_path, swap)
    make(tmp_path, dropout, test={"ppl": 30.0})
    make(tmp_path, other, test={"ppl": 40.0})
    with (other.folder / runs_folder.LOG).open("a") as log:
        log.write('{"event": "resume", "step": 80}\n')
        log.write('{"event": "end", "step": 80, "reason": "epochs", "seconds": 5.0}\n')
    document, exhibit = collected("table-7", tmp_path, "--seeds", "0", "1")
    first, second = document["rows"]
    assert (first["name"], second["name"]) == ("swap", "dropout")
    assert second["paper"]["ppl"] == 34.61
    assert second["ours"]["ppl"]["mean"] == 35.0
    assert second["ours"]["ppl"]["spread"] == pytest.approx(statistics.stdev([30, 40]))
    assert first["ours"]["ppl"] == {"mean": 36.0, "spread": None, "values": {"0": 36.0}}
    assert second["runs"]["1"]["folder"] == str(other.folder)
    assert second["runs"]["1"]["seconds"] == 4 * SECONDS_PER_EPOCH + 5
    assert document["unfinished"] == ["quickstart-cvae_plus_mi-swap-1: not begun"]

    page = markdown(document, exhibit)
    lines = {line.split(" | ")[0].strip("| "): line for line in page.splitlines() if "|" in line}
    cells = [cell.strip() for cell in lines["dropout"].strip("|").split("|")]
    ours = ["79.0 \N{PLUS-MINUS SIGN} 0.0", "35.00 \N{PLUS-MINUS SIGN} 7.07"]
    assert cells[1:5] == ["77.7", ours[0], "34.61", ours[1]]
    assert "IW-PPL" in page and "110.00" in page and "for orientation" in page
    assert "quickstart-cvae_plus_mi-swap-1" in page
    heads = [line for line in page.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in heads}) == 1, "every line has as many cells"
    assert plot(document, exhibit).startswith(PNG)
    json.loads(json.dumps(document, allow_nan=False))


def test_differences_to_the_vae_are_over_the_same_sentences(tmp_path):
    """Two seeds, worked out by hand: differences 1, 3, 2 and 2, 2, 5 nats."""
    argv = ("--seeds", "0", "1", "--systems", "vae", "cvae")
    _, jobs, _ = planned("table-1", tmp_path, *argv)
    numbers = {
        ("vae", 0): (50, 60, 70),
        ("cvae", 0): (51, 63, 72),
        ("vae", 1): (10, 20, 30),
        ("cvae", 1): (12, 22, 35),
    }
    for job in unique(jobs):
        make(tmp_path, job)
        columns = {"line": (1, 2, 3), "iw_nll": numbers[job.run.system, job.seed]}
        runs_folder.write_sentences(job.folder, "test", columns, is_added=False)
    document, exhibit = collected("table-1", tmp_path, *argv)
    differences = {row["system"]: row["iw_nll_to_vae"] for row in document["rows"]}
    assert differences["vae"] is None
    errors = [statistics.stdev(pair) / math.sqrt(3) for pair in ((1, 3, 2), (2, 2, 5))]
    assert differences["cvae"]["mean"] == pytest.approx(2.5)
    assert differences["cvae"]["error"] == pytest.approx(math.hypot(*errors) / 2)
    page = markdown(document, exhibit)
    assert "IW-NLL to VAE, paired" in page and "+2.50 \N{PLUS-MINUS SIGN} 0.58" in page
    heads = [line for line in page.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in heads}) == 1, "every line has as many cells"


def test_a_run_that_was_not_evaluated_has_no_numbers(tmp_path):
    _, jobs, _ = planned("table-7", tmp_path)
    make(tmp_path, unique(jobs)[0], test=None)
    make(tmp_path, unique(jobs)[1], epochs=2, ended=False)
    document, exhibit = collected("table-7", tmp_path)
    assert all(row["ours"] == {} for row in document["rows"])
    assert document["unfinished"] == [
        "quickstart-cvae_plus_mi-swap-0: trained, not evaluated",
        "quickstart-cvae_plus_mi-0: trained to 50%",
    ]
    assert plot(document, exhibit) is None and ".png" not in markdown(document, exhibit)


def test_missing_numbers_leave_a_cell_empty(tmp_path):
    _, jobs, _ = planned("table-1", tmp_path, "--systems", "vae")
    make(tmp_path, unique(jobs)[0], test={"kl_exact": None, "mi": float("nan")})
    document, exhibit = collected("table-1", tmp_path, "--systems", "vae")
    (row,) = document["rows"]
    assert "mi" not in row["ours"] and "kl_exact" not in row["ours"]
    assert "KL exact" not in markdown(document, exhibit)


def test_forward_and_reverse_perplexity(tmp_path):
    _, jobs, _ = planned("table-4", tmp_path, "--systems", "ae")
    job = unique(jobs)[0]
    make(tmp_path, job)
    write_perplexities(job)
    document, exhibit = collected("table-4", tmp_path, "--systems", "ae")
    page = markdown(document, exhibit)
    assert "| AE | 672 | 700 | 2,589 | 2,600 | 300.0 | 250.0 | 170.0 |" in page
    assert plot(document, exhibit).startswith(PNG)


def test_the_toy(tmp_path):
    _, jobs, _ = planned("table-5", tmp_path, "--seeds", "0", "1")
    for job in unique(jobs):
        never = job.run.system == "ivae" and job.seed == 1
        make_toy(job, iterations_to_99=None if never else 3000 + job.seed)
    document, exhibit = collected("table-5", tmp_path, "--seeds", "0", "1")
    ours = {row["name"] + row["group"]: row["ours"] for row in document["rows"]}
    assert ours["cVAE+K = 4"]["iterations_to_99"]["mean"] == 3000.5
    assert "iterations_to_99" not in ours["iVAEK = 4"], "one seed never got there"
    assert ours["iVAEK = 4"]["separability"]["mean"] == 1.0
    assert "| 3,500 | 3,000" in markdown(document, exhibit).replace("| cVAE+ ", "")
    assert document["unfinished"] == []


def test_an_interpolation(tmp_path):
    _, jobs, _ = planned("table-6", tmp_path)
    (job,) = unique(jobs)
    make(tmp_path, job)
    rows = [{"lambda": 1.0, "sentence": "a <unk> | [x](y) `z`"}, {"lambda": 0.0, "sentence": "$b"}]
    reproduction_stages.interpolation_place(job).write_text(
        "".join(json.dumps(r) + "\n" for r in rows)
    )
    document, exhibit = collected("table-6", tmp_path)
    assert document["rows"][0]["texts"] == {"0": rows}
    page = markdown(document, exhibit)
    assert "a &lt;unk> \\| \\[x\\](y) \\`z\\`" in page and "<unk>" not in page
    assert plot(document, exhibit).startswith(PNG)


def test_a_printed_mi_above_its_ceiling_is_marked():
    """ln 42,068 = 10.65 and ln 3,761 = 8.23 on PTB, by hand."""
    column = EXHIBITS["table-1"].columns[3]
    signs = [mark(value, column, "ptb") for value in (13.69, 10.66, 10.64, 9.58, 8.24, 8.22, None)]
    above, far_above = "\N{DAGGER}", "\N{DOUBLE DAGGER}"
    assert signs == [far_above, far_above, above, above, above, "", ""]
    assert mark(13.0, EXHIBITS["table-1"].columns[2], "ptb") == ""


def test_curves_by_epoch_begin_before_training(tmp_path):
    exhibit, jobs, _ = planned("figure-3", tmp_path, "--seeds", "0", "2")
    ivae = unique(jobs)[0]
    make(tmp_path, ivae)
    make(tmp_path, next(j for j in unique(jobs) if j.run == ivae.run and j.seed == 2))
    with open(ivae.folder / runs_folder.LOG, "a") as log:
        row = {"event": "valid", "step": 80, "epoch": 4, "kl": -500.0, "mi": -3.0}
        log.write(json.dumps(row) + "\n")
    document, _ = collected("figure-3", tmp_path, "--seeds", "0", "2")
    curves = document["rows"][0]["curves"]
    assert list(curves["kl"]) == ["0", "1", "2", "3", "4"]
    # The made-up KL is twice the epoch, plus the seed.
    assert curves["kl"]["0"]["mean"] == 1.0 and curves["kl"]["3"]["values"] == {"0": 6.0, "2": 8.0}
    assert negative_epochs(curves, "kl") == negative_epochs(curves, "mi") == [4]
    page = markdown(document, exhibit)
    assert "KL negative at epochs 4" in page and "negative number at epoch 39" in page
    assert plot(document, exhibit).startswith(PNG)
    empty = collected("figure-3", tmp_path / "nothing")[0]
    assert plot(empty, exhibit) is None and "negative number at epoch 39" in markdown(
        empty, exhibit
    )


def test_the_sweep_of_dropout(tmp_path):
    exhibit, jobs, _ = planned("figure-4", tmp_path)
    for number, job in enumerate(unique(jobs)):
        make(tmp_path, job, epochs=1, test={"ppl": 30.0 + number})
        text = (job.folder / "config.yaml").read_text()
        (job.folder / "config.yaml").write_text(text)
    document, _ = collected("figure-4", tmp_path)
    ppl = [row["ours"]["ppl"]["mean"] for row in document["rows"]]
    assert ppl == [30.0 + number for number in range(9)]
    assert [row["name"] for row in document["rows"]] == [f"0.{n}" for n in range(1, 10)]
    assert plot(document, exhibit).startswith(PNG)
    assert "the best" in markdown(document, exhibit)


# What is done


class Worker:
    """Does what stages are to do, by made-up runs; fails or runs out of time where told."""

    def __init__(self, folder, exhibit, jobs):
        self.folder, self.kind = folder, exhibit.kind
        self.jobs = {str(job.folder): job for job in unique(jobs)}
        self.done = []
        self.failing, self.stopping = (), None

    def __call__(self, stage, deadline):
        place = stage.arguments[stage.arguments.index(self.flag(stage)) + 1]
        job = self.jobs[place]
        self.done.append((job.name, stage.command))
        if len(self.done) == self.stopping:
            raise Stopped
        if (job.name, stage.command) in self.failing:
            return 1
        if stage.command == "train.py":
            make(self.folder, job, test=None)
        elif stage.command == "eval.py":
            metrics = {**TEST, "step": reproduction_stages.best_step(job.folder)}
            metrics |= {"split": "test", "system": job.run.system, "checkpoint": "best"}
            runs_folder.write_metrics(job.folder, "test", metrics)
        return 0

    @staticmethod
    def flag(stage):
        return "--output_dir" if stage.command in ("train.py", "-m mindspore_cvae toy") else "--run"


@pytest.fixture
def worker(tmp_path, monkeypatch):
    exhibit, jobs, _ = planned("table-7", tmp_path, "--seeds", "0", "1")
    worker = Worker(tmp_path, exhibit, jobs)
    monkeypatch.setattr(running, "run_stage", worker)
    return worker


def call(folder, *argv):
    given = ["--table", "7", "--output_dir", str(folder), "--config", "quickstart"]
    given += ["--iw_samples", str(TEST["iw_samples"])]
    return reproduce_main([*given, *argv, "--set", *MADE])


def test_what_is_missing_is_made_and_nothing_twice(worker, tmp_path, capsys):
    swap, dropout = "quickstart-cvae_plus_mi-swap", "quickstart-cvae_plus_mi"
    assert call(tmp_path) == 0
    assert worker.done == [
        (f"{swap}-0", "train.py"),
        (f"{swap}-0", "eval.py"),
        (f"{dropout}-0", "train.py"),
        (f"{dropout}-0", "eval.py"),
    ]
    assert "not finished" not in capsys.readouterr().out
    worker.done.clear()
    assert call(tmp_path, "--seeds", "0", "1") == 0
    assert {name for name, _ in worker.done} == {f"{swap}-1", f"{dropout}-1"}
    for ending in ("md", "json", "png"):
        assert (tmp_path / f"table-7.{ending}").stat().st_size > 0
    document = json.loads((tmp_path / "table-7.json").read_text())
    assert document["unfinished"] == [] and document["settings"]["seeds"] == [0, 1]


def test_other_draws_are_evaluated_again(worker, tmp_path):
    name = "quickstart-cvae_plus_mi-swap-0"
    job = worker.jobs[str(tmp_path / name)]
    make(tmp_path, job, test={"iw_samples": 3})
    assert call(tmp_path) == 0
    assert worker.done[0] == (name, "eval.py") and (name, "train.py") not in worker.done
    assert KINDS["metrics"].is_there(job, Wanted(512))
    assert not KINDS["metrics"].is_there(job, Wanted(511))


def test_what_was_begun_goes_on(worker, tmp_path):
    job = worker.jobs[str(tmp_path / "quickstart-cvae_plus_mi-0")]
    make(tmp_path, job, epochs=2, ended=False, test=None)
    stage = running.training_stage(job, options(tmp_path, "--table", "7"))
    assert "--resume" in stage.arguments
    assert stage.arguments[stage.arguments.index("--set") + 1 :] == (
        "eval.before_training=true",
        "train.epochs=4",
    )


def test_a_failure_is_told_and_the_rest_goes_on(worker, tmp_path, capsys):
    worker.failing = [("quickstart-cvae_plus_mi-swap-0", "train.py")]
    assert call(tmp_path) == 1
    assert ("quickstart-cvae_plus_mi-0", "eval.py") in worker.done
    told = capsys.readouterr().out
    assert "swap-0: not begun (training failed with exit status 1: python train.py" in told
    document = json.loads((tmp_path / "table-7.json").read_text())
    assert document["rows"][1]["ours"] and not document["rows"][0]["ours"]


def test_the_budget_ends_it_and_what_is_there_is_written(worker, tmp_path, capsys):
    worker.stopping = 3
    assert call(tmp_path, "--budget", "5") == 0
    told = capsys.readouterr().out
    assert "the budget of 5 minutes is used up" in told
    assert "not finished: quickstart-cvae_plus_mi-0: not begun" in told
    assert json.loads((tmp_path / "table-7.json").read_text())["rows"][0]["ours"]


def test_collecting_runs_nothing(worker, tmp_path):
    assert call(tmp_path, "--collect") == 0 and worker.done == []
    assert (tmp_path / "table-7.md").is_file()


def test_a_dry_run_writes_nothing(worker, tmp_path, capsys):
    assert call(tmp_path / "none", "--dry_run") == 0 and worker.done == []
    assert not (tmp_path / "none").exists()
    assert capsys.readouterr().out.count("\n") == 3


def test_two_sentences_of_the_test_split(tmp_path):
    corpus = write_corpus(tmp_path / "data")
    exhibit, jobs, chosen = planned("table-6", tmp_path, "--data_dir", str(corpus))
    (job,) = unique(jobs)
    made = write_made_run(job.folder, job.run.system, *MADE, f"data.dir={corpus}")
    words = {word for sentence in SENTENCES for word in sentence.split()}
    (made / "vocab.txt").write_text("\n".join(["<pad>", "<unk>", "<s>", "</s>", *sorted(words)]))
    first, last = reproduction_stages.pair_of(job)
    assert first in SENTENCES and last in SENTENCES and first != last
    stage = KINDS["interpolation"].stage(job, running._wanted(chosen))
    assert stage.command == "generate.py" and stage.arguments[0] == "interpolate"


@pytest.mark.parametrize("name", EXHIBITS)
def test_the_commands_take_the_arguments_of_their_stages(name, tmp_path):
    exhibit, jobs, chosen = planned(name, tmp_path, "--generated", "9")
    for job in unique(jobs):
        stages = [running.training_stage(job, chosen)]
        stages.append(KINDS[exhibit.kind].stage(job, running._wanted(chosen)))
        for stage in filter(None, stages):
            assert stage.command in COMMANDS
            if stage.command == "train.py":
                parsed = train._train_parser().parse_args(stage.arguments)
                assert Path(parsed.output_dir) == job.folder and parsed.resume
                made = layers.load(
                    parsed.config, parsed.overrides, system=parsed.system, seed=parsed.seed
                )
                assert made == job.config
            elif stage.command == "eval.py":
                parsed = evaluate._eval_parser().parse_args(stage.arguments)
                assert Path(parsed.run) == job.folder and parsed.iw_samples == TEST["iw_samples"]
            elif stage.command == "generate.py":
                parsed = generate._parser().parse_args(stage.arguments)
                assert Path(parsed.run) == job.folder and parsed.action == "interpolate"
            elif stage.command == "-m mindspore_cvae toy":
                parsed = toy._parser().parse_args(stage.arguments)
                assert parsed.output_dir == job.folder and parsed.iterations == 80_000
                assert (parsed.system, parsed.categories) == (job.run.system, job.run.categories)


def test_a_stage_runs_in_a_process_of_its_own(capfd):
    assert run_stage(Stage("", "train.py", ("--help",)), None) == 0
    assert "usage: mindspore-cvae train" in capfd.readouterr().out
    assert run_stage(Stage("", "eval.py", ("--run", "nowhere")), None) == 2
    assert run_stage(Stage("", "-m mindspore_cvae ngram", ("--run", "nowhere")), None) == 2


def test_a_deadline_ends_a_stage(monkeypatch):
    monkeypatch.setitem(COMMANDS, "train.py", "signal:pause")
    started = time.monotonic()
    with pytest.raises(Stopped):
        run_stage(Stage("", "train.py", ()), started + 0.5)
    assert time.monotonic() - started < 60
    with pytest.raises(Stopped):
        run_stage(Stage("", "no such command", ()), started)


def test_sigterm_reaches_the_stage(tmp_path):
    """The command passes the signal on and ends with its number; the stage ends first."""
    program = (
        "import sys\n"
        "from mindspore_cvae.reproduction import running\n"
        "running.COMMANDS['train.py'] = 'signal:pause'\n"
        "from mindspore_cvae.commands.reproduce import reproduce_main\n"
        "sys.exit(reproduce_main(sys.argv[1:]))\n"
    )
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", program, "--table", "7", "--config", "quickstart"),
            *("--output_dir", str(tmp_path / "out")),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert "training" in process.stdout.readline()
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 143
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    process.stdout.close()


def test_the_command_answers_without_mindspore():
    check = (
        "import sys, mindspore_cvae.reproduction.running\n"
        "print([m for m in sys.modules if m in ('mindspore', 'matplotlib')])"
    )
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as end:
        reproduce_main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    for option in ("--table", "--figure", "--budget", "--collect", "--dry_run", "--seeds"):
        assert option in text


def test_settings_say_what_was_trained(tmp_path):
    document, _ = collected("table-1", tmp_path)
    said = document["settings"]["trained_on"]
    assert said == "configuration quickstart on the embedded corpus, with train.epochs=4"
    assert not document["settings"]["is_comparable"]
    plain = reproduce._parser().parse_args(["--table", "1", "--set", "device_target=CPU"])
    exhibit = EXHIBITS["table-1"]
    settings = running.common_settings(exhibit, plan(exhibit, plain), plain)
    assert settings["is_comparable"]
    assert settings["trained_on"].startswith("configuration ptb on data/ptb")
    assert layers.load("ptb").data.dir == "data/ptb"


@pytest.mark.parametrize(("sentences", "is_comparable"), [(42_068, True), (640, False)])
def test_numbers_of_another_corpus_are_marked(tmp_path, sentences, is_comparable):
    given = ["--table", "7", "--output_dir", str(tmp_path)]
    chosen = reproduce._parser().parse_args(given)
    jobs = plan(EXHIBITS["table-7"], chosen)
    folder = unique(jobs)[0].folder
    folder.mkdir()
    start = {"event": "start", "splits": {"train": {"sentences": sentences}}}
    (folder / runs_folder.LOG).write_text(json.dumps(start) + "\n")
    settings = running.common_settings(EXHIBITS["table-7"], jobs, chosen)
    assert settings["is_comparable"] is is_comparable


def test_the_toy_refuses_what_it_would_ignore(tmp_path, capsys):
    for given in (["--set", "seed=1"], ["--config", "quickstart"], ["--data_dir", "data"]):
        assert reproduce_main(["--table", "5", "--output_dir", str(tmp_path), *given]) == 2
        assert "--iterations" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_more_iterations_than_asked_for_are_refused(tmp_path):
    _, jobs, _ = planned("table-5", tmp_path, "--iterations", "1000")
    make_toy(unique(jobs)[0])
    with pytest.raises(InputError, match="80000 iterations .* 1000"):
        training_of(unique(jobs)[0])


def test_a_missing_kenlm_is_told_before_any_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KENLM_BIN", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    given = ["--table", "4", "--output_dir", str(tmp_path / "runs"), "--config", "quickstart"]
    assert reproduce_main([*given, "--dry_run"]) == 1
    assert "lmplz" in capsys.readouterr().err
    assert reproduce_main([*given, "--collect"]) == 0, "what is there can be gathered without it"


# All of it

TINY = (
    *("model.embedding_size=6", "model.hidden_size=8", "model.latent_size=4", "model.noise_size=4"),
    *("model.critic_size=8", "data.batch_size=8", "data.buckets=1", "device_target=CPU"),
    *("train.max_steps=3", "eval.max_sentences=12", "eval.samples=4", "eval.rows=16"),
    "train.report=false",
)
SMALL = ("--iw_samples", "4", "--iterations", "40", "--generated", "40", "--budget", "60")
CHOSEN = {
    "table-1": ("--systems", "vae", "--seeds", "0", "1"),
    "table-2": ("--systems", "lagging_vae"),
    "table-3": ("--systems", "cvae"),
    "table-4": ("--systems", "ae", "vae"),
    "table-5": ("--systems", "cvae_plus"),
    "table-6": (),
    "table-7": (),
    "figure-3": ("--systems", "ivae", "cvae"),
    "figure-4": (),
}
"""Rows that show every way through an exhibit; tables and figures share their runs."""


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """The folder in which all exhibits are made."""
    return tmp_path_factory.mktemp("reproduce")


@pytest.mark.slow
@pytest.mark.parametrize("name", EXHIBITS)
def test_every_exhibit_on_the_embedded_corpus(name, everything, capsys):
    if name == "table-4":
        try:
            find_program("lmplz")
        except OSError as error:
            pytest.skip(str(error))
    kind, _, number = name.partition("-")
    argv = [f"--{kind}", number, "--output_dir", str(everything), *CHOSEN[name], *SMALL]
    argv += [] if name == "table-5" else ["--config", "quickstart", "--set", *TINY]
    assert reproduce_main(argv) == 0
    assert "not finished" not in capsys.readouterr().out
    document = json.loads((everything / f"{name}.json").read_text())
    assert document["unfinished"] == [] and document["rows"]
    exhibit = EXHIBITS[name]
    for row in document["rows"]:
        if exhibit.kind == "epochs":
            assert list(row["curves"]["kl"]) == ["0", "1"] == list(row["curves"]["kl_exact"])
        elif exhibit.kind == "interpolation":
            (texts,) = row["texts"].values()
            assert [text["lambda"] for text in texts] == [n / 10 for n in range(10, -1, -1)]
        elif exhibit.kind != "toy":
            assert all(column.key in row["ours"] for column in exhibit.columns)
            if "true_ppl" in row["ours"]:
                assert row["ours"]["iw_ppl"]["mean"] > row["ours"]["true_ppl"]["mean"]
        else:
            assert 0 <= row["ours"]["separability"]["mean"] <= 1
    assert (everything / f"{name}.png").read_bytes().startswith(PNG)
    assert exhibit.title in (everything / f"{name}.md").read_text()

    assert reproduce_main(argv) == 0
    assert ": training" not in capsys.readouterr().out, "what is finished is not made again"


@pytest.mark.slow
def test_a_budget_stops_a_training_that_then_goes_on(tmp_path, capsys):
    longer = [pair for pair in TINY if not pair.startswith("train.max_steps")]
    argv = ["--table", "1", "--systems", "vae", "--config", "quickstart", *SMALL]
    argv += ["--output_dir", str(tmp_path), "--budget", "1.5", "--set", *longer]
    assert reproduce_main([*argv, "train.epochs=1000"]) == 0
    told = capsys.readouterr().out
    assert "the budget of 1.5 minutes is used up" in told
    assert "not finished: quickstart-vae-0: trained to" in told
    rows = runs_folder.read_log(tmp_path / "quickstart-vae-0")
    assert rows[-1]["event"] == "end" and rows[-1]["reason"] == "SIGTERM"
    steps = rows[-1]["step"]
    assert reproduce_main([*argv[:-1], longer[-1], f"train.max_steps={steps + 2}"]) == 0
    rows = runs_folder.read_log(tmp_path / "quickstart-vae-0")
    assert rows[-1]["reason"] == "max_steps" and rows[-1]["step"] == steps + 2
    document = json.loads((tmp_path / "table-1.json").read_text())
    assert document["rows"][0]["ours"]["ppl"]
