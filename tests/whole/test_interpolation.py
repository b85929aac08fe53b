"""benchmarks/interpolation.py: what it says of paths, by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mindspore_cvae.data import grammar

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
A, B = "the bank sold shares".split(), "rain fell".split()


@pytest.fixture
def interpolation(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import interpolation

    yield interpolation
    sys.modules.pop("interpolation", None)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (A, A, 1.0),
        (A, B, 0.0),
        # One block of three words of four and four, then two of three and five.
        (A, "the bank sold bonds".split(), 6 / 8),
        ("a b c".split(), "a b x y z".split(), 4 / 8),
    ],
)
def test_likeness_is_twice_the_matching_words_over_all(interpolation, first, second, expected):
    assert interpolation.likeness(first, second) == pytest.approx(expected)


def test_paths_are_measured_against_both_ends_and_their_neighbours(interpolation):
    halfway = "the bank fell".split()
    found = interpolation.measure([[A, halfway, B], [A, A, B]], [(A, B), (A, B)], False)
    # The bank: two words of four and three; fell: one of three and two.
    assert found["to_first"] == pytest.approx([1, (4 / 7 + 1) / 2, 0])
    assert found["to_second"] == pytest.approx([0, (2 / 5 + 0) / 2, 1])
    assert found["to_next"] == pytest.approx([(4 / 7 + 1) / 2, (2 / 5 + 0) / 2])
    assert found["widest_step"] == pytest.approx((2 / 5 + 0) / 2)
    assert found["different"] == 2.5
    # Two values that lie 3/7 apart: half of that.
    assert found["to_first_error"] == pytest.approx([0, 3 / 14, 0])
    assert found["pairs"] == 2
    assert "grammatical" not in found


def test_the_grammar_judges_the_embedded_corpus(interpolation):
    said = [text.split() for text in grammar.generate(0, {"train": 2})["train"].texts]
    wrong = "the the the".split()
    found = interpolation.measure([[said[0], wrong, said[1]]] * 2, [(said[0], said[1])] * 2, True)
    assert found["grammatical"] == [1, 0, 1]


def test_a_picture_is_drawn_of_rows_with_and_without_a_grammar(interpolation, tmp_path):
    documents = [
        {"run": str(place), "to_first": [1, 0.5, 0], "grammatical": [1, 0.5, 1]}
        for place in range(11)
    ]
    interpolation.picture(documents, tmp_path / "a.png")
    documents[0].pop("grammatical")
    interpolation.picture(documents, tmp_path / "b.png")
    widths = [
        int.from_bytes((tmp_path / name).read_bytes()[16:20], "big") for name in ("a.png", "b.png")
    ]
    assert widths[0] > widths[1]
