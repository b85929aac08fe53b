"""The page of results: what its files pair, and that page and files agree."""

import json
import math
import re
import statistics
import sys
from pathlib import Path

import pytest

from mindspore_cvae.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def results(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import results

    yield results
    sys.modules.pop("results", None)


def document(name, nats, lines="1 2 3", **more):
    by_sentence = {"by_sentence_line": lines, "by_sentence_iw_nll": " ".join(map(str, nats))}
    return {"name": name, "seed": 0, **by_sentence, **more}


def test_runs_of_different_days_are_paired_by_their_files(results):
    documents = [
        document("lstm_lm", (50.0, 60.0, 70.0)),
        document("cvae", (51.0, 63.0, 72.0)),
        document("other sentences", (1.0, 2.0, 3.0), lines="1 2 4"),
        {"name": "without sentences", "seed": 0},
        document("lstm_lm_seed1", (51.0, 61.0, 72.0), seed=1),
        document("cvae_seed1", (51.0, 63.0, 72.0), seed=1),
        document("cvae_seed2", (51.0, 63.0, 72.0), seed=2),
    ]
    results.add_differences(documents)
    mean, error = documents[1]["iw_nll_to_lstm_lm"]
    assert mean == pytest.approx(2.0)
    assert error == pytest.approx(statistics.stdev((1, 3, 2)) / math.sqrt(3))
    assert "iw_nll_to_lstm_lm" not in documents[0] and "iw_nll_to_lstm_lm" not in documents[2]
    # Of their own seed, and of seed 0 where there is none.
    assert documents[5]["iw_nll_to_lstm_lm"][0] == pytest.approx(2 / 3)
    assert documents[6]["iw_nll_to_lstm_lm"][0] == pytest.approx(2.0)
    assert not any("iw_nll_to_lstm_lm" in documents[place] for place in (3, 4))
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


def test_what_critics_say_of_a_run_far_beyond_or_without_a_density(results, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(results, "_write", lambda figure, path: figures.append(figure))
    rows = {"epoch": 1, "kl": 2.0, "mi": 1.0, "kl_exact": 20.0, "mi_exact": 7.0}
    documents = [
        {"name": "a", "seed": 0, "by_epoch": [rows | {"mi_exact_ceiling": 7.5}]},
        {"name": "b", "seed": 0, "by_epoch": [rows | {"kl_exact": None, "mi_exact": None}]},
        {"name": "c", "seed": 0, "by_epoch": [rows]},
        {"name": "far", "seed": 0, "by_epoch": [rows | {"kl": -900.0}]},
        {"name": "farther", "seed": 0, "by_epoch": [rows | {"kl": 1300.0}]},
    ]
    results.critics(documents, tmp_path / "critics.png")
    kl, mi, exact = figures[0].axes
    assert kl.get_title() == "far: -900 to -900\nfarther: 1,300 to 1,300"
    assert exact.get_title() == "" and len(exact.lines) == 4 + 1
    assert mi.lines[-1].get_ydata()[0] == 7.5
    assert [text.get_text() for text in figures[0].legends[0].get_texts()][:5] == [
        *("a", "b", "c", "far", "farther")
    ]


def test_curves_beyond_the_scale_are_told_in_the_title(results, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(results, "_write", lambda figure, path: figures.append(figure))

    def epochs(**values):
        return [{"epoch": 1} | dict.fromkeys(results.CURVES) | values]

    near = epochs(neg_elbo=40.0, neg_elbo_valid=60.0)
    far = epochs(neg_elbo=-850.0, neg_elbo_valid=250000.0)
    results.curves({"a": near, "b": near, "c": near, "far": far}, tmp_path / "curves.png")
    panels = figures[0].axes
    assert [panel.get_title() for panel in panels] == ["a", "b", "c", "far (-850 to 250,000)"]
    assert panels[0].get_ylim() == pytest.approx((40 / 1.1, 60 * 1.1))


@pytest.mark.parametrize(
    "text", ["no tables", "<!-- /results -->\n<!-- results -->\n", "<!-- results -->\n"]
)
def test_a_page_without_the_place_of_its_tables_is_left_alone(results, tmp_path, monkeypatch, text):
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "index.md").write_text(text)
    with pytest.raises(InputError, match="once each"):
        results.write_page()
    assert (tmp_path / "index.md").read_text() == text


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


def test_runs_outside_of_the_picture_at_one_place_share_a_text(results, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(results, "_write", lambda figure, path: figures.append(figure))
    documents = [
        {
            "name": f"run{place}",
            "system": "cvae",
            "seed": 0,
            "best_valid": {"iw_ppl": iw_ppl, "mi_exact": mi_exact},
        }
        for place, (iw_ppl, mi_exact) in enumerate(
            [(100.0, 1.0), (101.0, 2.0), (102.0, 3.0), (190.0, 6.21), (240.0, 6.22)]
        )
    ]
    results.picture(documents, tmp_path / "picture.png")
    assert [text.get_text() for text in figures[0].axes[0].texts] == [
        "190.0, 240.0 \N{UPWARDS ARROW}"
    ]


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
