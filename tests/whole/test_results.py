"""The page of results: what its files pair, and that page and files agree."""

import json
import math
import re
import statistics
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def results(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import results

    yield results
    sys.modules.pop("results", None)


def document(name, nats, lines="1 2 3", **more):
    by_sentence = {"by_sentence_line": lines, "by_sentence_iw_nll": " ".join(map(str, nats))}
    return {"name": name, **by_sentence, **more}


def test_runs_of_different_days_are_paired_by_their_files(results):
    documents = [
        document("lstm_lm", (50.0, 60.0, 70.0)),
        document("cvae", (51.0, 63.0, 72.0)),
        document("other sentences", (1.0, 2.0, 3.0), lines="1 2 4"),
        {"name": "before", "iw_nll_to_lstm_lm": (0.5, 0.1)},
    ]
    results.add_differences(documents)
    mean, error = documents[1]["iw_nll_to_lstm_lm"]
    assert mean == pytest.approx(2.0)
    assert error == pytest.approx(statistics.stdev((1, 3, 2)) / math.sqrt(3))
    assert "iw_nll_to_lstm_lm" not in documents[0] and "iw_nll_to_lstm_lm" not in documents[2]
    assert documents[3]["iw_nll_to_lstm_lm"] == (0.5, 0.1)
    assert not any("iw_nll_to_vae" in entry for entry in documents)


def test_what_critics_say_is_drawn_with_the_ceiling_of_mi(results, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(results, "_write", lambda figure, path: figures.append(figure))
    rows = [
        {"epoch": 1, "kl": 2.0, "mi": -1.0, "kl_exact": 20.0, "mi_exact": 7.0},
        {"epoch": 2, "kl": -3.0, "mi": 9.0, "kl_exact": 30.0, "mi_exact": 7.6},
    ]
    documents = [
        {"name": name, "seed": seed, "by_epoch": rows}
        for seed, name in enumerate(("ivae", "ivae_seed1"))
    ]
    results.critics(documents, tmp_path / "critics.png")
    kl, mi, exact = figures[0].axes
    assert [list(line.get_ydata()) for line in kl.lines[:2]] == [[2.0, -3.0]] * 2
    assert kl.lines[0].get_color() == kl.lines[1].get_color()
    assert kl.lines[0].get_marker() != kl.lines[1].get_marker()
    assert mi.lines[-1].get_ydata()[0] == 7.6
    assert list(exact.lines[0].get_ydata()) == [20.0, 30.0]


def test_epochs_are_counted_in_parts_where_steps_ended_the_run(results):
    start = {"event": "start", "steps_per_epoch": 400}
    steps = [{"event": "valid", "step": step} for step in (400, 800)]
    assert str(results.epochs_done([start, *steps, {"event": "step", "step": 900}])) == "2"
    assert results.epochs_done([start, {"event": "valid", "step": 130}]) == 0.33


def test_a_run_that_goes_far_beyond_the_others_does_not_set_the_scale(results):
    others = [[1.0, 4.0], [2.0, 5.0], [-3.0, 3.0]]
    assert results.span(others) == (-3.0, 5.0)
    assert results.span([*others, [-900.0, 1300.0]]) == (-3.0, 5.0)
    # Ten times the median of the largest values, 4: within.
    assert results.span([*others, [0.0, 40.0]]) == (-3.0, 40.0)


def test_curves_have_the_last_validation_of_every_epoch(results, tmp_path):
    """An epoch that a resume repeats counts once; what a system lacks is no line."""
    log = [
        {"event": "start", "epoch": 1},
        {"event": "valid", "epoch": 0, "neg_elbo": 100.0, "true_nll": 34.0},
        {"event": "valid", "epoch": 1, "neg_elbo": 50.0, "iw_nll": 49.0, "true_nll": 34.0},
        {"event": "step", "epoch": 2, "loss": 1.0},
        {"event": "valid", "epoch": 1, "neg_elbo": 51.0, "iw_nll": 48.0, "true_nll": 34.0},
    ]
    epochs = results.validations(log)
    assert [row["neg_elbo"] for row in epochs] == [100.0, 51.0]
    assert epochs[0]["iw_nll"] is None and epochs[1]["mi"] is None
    results.curves({"vae": epochs, "cvae": epochs}, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_of_no_finished_run_is_one_all_the_same(results, tmp_path):
    results.picture([], tmp_path / "none.png")
    assert (tmp_path / "none.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_has_the_numbers_of_its_files():
    page = (ROOT / "docs" / "results" / "index.md").read_text(encoding="utf-8")
    rows = {}
    for title, data in (("embedded", "embedded"), ("PTB", "ptb")):
        section = re.search(
            rf"^## [^\n]*{title}.*?(?=^## |<!-- /results)", page, re.M | re.S
        ).group()
        for line in re.findall(r"^\| `.*$", section, re.M):
            rows[data, line.split("`")[1]] = line
    files = {(path.parent.name, path.stem): path for path in ROOT.glob("docs/results/*/*.json")}
    assert rows.keys() == files.keys()
    for key, path in files.items():
        stored = json.loads(path.read_text())
        assert f" {stored['best_valid']['iw_nll']:.2f} " in rows[key], key
        assert f" {stored['best']['ppl']:.2f} " in rows[key], key
        if "ngram" in stored:
            assert f" {stored['ngram']['reverse_ppl']:.1f} " in rows[key], key
        assert stored["seconds"] > 0, key
        assert {"system", "data", "epochs", "seed", "commit", "hardware", "seconds"} <= set(stored)
