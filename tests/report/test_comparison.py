"""Runs side by side: differences by hand, what is marked, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from made_run import write_made_run

from mindspore_cvae.commands.compare import main
from mindspore_cvae.errors import InputError
from mindspore_cvae.report.charts import plane
from mindspore_cvae.report.comparison import contents, paired_difference, read_entry
from mindspore_cvae.runs import folder as runs_folder

FIRST, OTHER = [40.0, 50.0, 61.0, 30.0], [41.0, 50.5, 63.0, 30.5]


@pytest.fixture
def runs(tmp_path):
    """A language model and a VAE, evaluated on the same four sentences."""
    made = []
    for system, nll, mean in (("lstm_lm", FIRST, 45.25), ("vae", OTHER, 46.25)):
        test = {"iw_nll": mean, "max_sentences": None, "kl": 1.0, "kl_exact": 1.0}
        folder = write_made_run(tmp_path / system, system, test=test)
        columns = {"line": [1, 2, 3, 5], "iw_nll": nll}
        runs_folder.write_sentences(folder, "test", columns, False)
        made.append(folder)
    return made


def test_a_paired_difference_by_hand(runs):
    """Differences 1, 0.5, 2, 0.5: mean 1, deviation sqrt(1.5 / 3), error that over sqrt(4)."""
    found = paired_difference(*(read_entry(folder, "test") for folder in runs))
    assert found["key"] == "iw_nll" and found["sentences"] == 4
    assert found["mean"] == pytest.approx(1.0)
    assert found["error"] == pytest.approx(np.sqrt(1.5 / 3) / 2)


def test_other_lines_have_no_difference(runs):
    runs_folder.write_sentences(runs[1], "test", {"line": [1, 2, 4, 5], "iw_nll": OTHER}, False)
    assert paired_difference(*(read_entry(folder, "test") for folder in runs)) is None


def test_the_better_value_is_marked_where_all_are_bounds(runs):
    page = contents([read_entry(folder, "test") for folder in runs], "test")
    rows = {row["title"]: row["cells"] for group in page["groups"] for row in group["rows"]}
    assert [cell["is_best"] for cell in rows["IW-NLL"]] == [True, False]
    assert [cell["standing"] for cell in rows["IW-NLL"]] == ["exact", "upper bound"]
    assert not any(cell["is_best"] for cell in rows["MI"]), "an estimate bounds nothing"
    assert page["differences"][0]["text"] == "+1.00 \N{PLUS-MINUS SIGN} 0.35"


def test_the_page_needs_nothing_else_and_escapes(runs, tmp_path, capsys):
    hostile = tmp_path / "<b>&"
    runs[1].rename(hostile)
    main([str(runs[0]), str(hostile), "--output", str(tmp_path / "page.html"), "--no_models"])
    text = (tmp_path / "page.html").read_text()
    assert "<b>&" not in text and "&lt;b&gt;&amp;" in text
    assert "<script" not in text and "default-src &#39;none&#39;" in text
    assert text.count("<svg") >= 5 and "The same interpolation" not in text
    assert "page.html" in capsys.readouterr().out


def test_bad_input_is_one_sentence(runs, tmp_path):
    page = ["--output", str(tmp_path / "page.html"), "--no_models"]
    with pytest.raises(InputError, match="two runs or more"):
        main([str(runs[0]), *page])
    unscored = write_made_run(tmp_path / "unscored", "vae")
    with pytest.raises(InputError, match="no metrics of the test split: python eval.py --run"):
        main([str(runs[0]), str(unscored), *page])
    elsewhere = write_made_run(tmp_path / "elsewhere", "vae", test={"text": "other"})
    with pytest.raises(InputError, match="elsewhere was evaluated on other sentences than"):
        main([str(runs[0]), str(elsewhere), *page])
    settings = ("data.dir=text", "data.unit=character")
    letters = write_made_run(tmp_path / "letters", "vae", *settings, test={})
    with pytest.raises(InputError, match=r"is of another data.unit than .* \(character and"):
        main([str(runs[0]), str(letters), *page])
    assert not (tmp_path / "page.html").exists()


def test_a_plane_has_a_named_point_a_run():
    chart = plane("t", [("a", 0.0, 11.0), ("b", 6.0, 13.0), ("c", 1.0, float("inf"))], "x", "y")
    assert chart.count("<circle") == 2 and "a: 0, 11" in chart and "c:" not in chart
    assert plane("t", [], "x", "y") is None


def test_columns_of_the_same_evaluation_stay(tmp_path):
    folder = tmp_path
    runs_folder.write_sentences(folder, "test", {"line": [1, 2], "iw_nll": [3.0]}, False)
    runs_folder.write_sentences(folder, "test", {"line": [1, 2], "rec": [4.0, 5.0]}, True)
    path = folder / runs_folder.sentences_name("test")
    expected = {"line": ["1", "2"], "iw_nll": ["3.0"], "rec": ["4.0", "5.0"]}
    assert runs_folder.read_sentences(path) == expected
    runs_folder.write_sentences(folder, "test", {"line": [1, 2], "kl": [6.0, 7.0]}, True)
    assert runs_folder.read_sentences(path).keys() == {"line", "iw_nll", "rec", "kl"}
    (folder / "torn.tsv").write_text("a\tb\n1\n")
    assert runs_folder.read_sentences(folder / "torn.tsv") == {}
