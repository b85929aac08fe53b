"""The one table of columns: the page, the printed table and the systems agree with it."""

from __future__ import annotations

from pathlib import Path

from mindspore_cvae.commands import columns as command
from mindspore_cvae.evaluation.columns import (
    COLUMNS,
    MEANS,
    PAPER,
    SOUND,
    UNSOUND,
    VALID,
    markdown,
    printed_rows,
)
from mindspore_cvae.systems import SYSTEMS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "use" / "metrics.md"


def test_the_page_has_the_columns_as_the_command_prints_them(capsys):
    command.main([])
    printed = capsys.readouterr().out
    page = PAGE.read_text(encoding="utf-8")
    assert (
        page.split("<!-- columns -->\n")[1].split("<!-- /columns -->")[0] == printed == markdown()
    )


def test_every_column_is_printed_once_beside_its_valid_form():
    rows = printed_rows()
    keys = [key for _title, *pair in rows for key in pair if key]
    assert sorted(keys) == sorted(COLUMNS) and len(COLUMNS) == len(PAPER) + len(VALID)
    assert ("-ELBO", "neg_elbo", "neg_elbo_valid") in rows
    assert ("KL", "kl", "kl_exact") in rows and ("MI", "mi", "mi_exact") in rows
    assert COLUMNS.keys() >= set(MEANS)


def test_what_a_column_bounds_depends_on_the_system():
    known = {*SOUND, *UNSOUND, "count", "diagnostic"}
    assert {c.standing_of(row) for c in COLUMNS.values() for row in SYSTEMS.values()} == known

    def standings(key):
        return [
            COLUMNS[key].standing_of(SYSTEMS[name]) for name in ("lstm_lm", "vae", "ae", "cvae")
        ]

    assert standings("neg_elbo") == ["exact", "upper bound", "no bound", "no bound"]
    assert standings("kl") == ["exact", "exact", "no bound", "estimate"]
    assert standings("iw_nll") == ["exact", "upper bound", "upper bound", "upper bound"]
