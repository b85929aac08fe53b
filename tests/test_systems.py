"""The table of systems: its rows are the paper's, its names the parts that exist."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict, fields

import pytest

from mindspore_cvae.model.contrasts import CONTRASTS
from mindspore_cvae.model.divergences import DIFFERENCES, DIVERGENCES
from mindspore_cvae.model.objectives import CRITIC_LOSSES
from mindspore_cvae.model.posteriors import POSTERIORS
from mindspore_cvae.systems import CHOICES, SYSTEMS, System, table
from mindspore_cvae.training import schedules
from mindspore_cvae.training.building import STEPS

GAUSSIAN = {
    "posterior": "gaussian",
    "divergence": "gaussian_kl",
    "contrast": "none",
    "views": 1,
    "encoder_dropout": 0.0,
    "beta": "warm_up",
    "beta_max": 1.0,
    "clipping": "together",
    "step": "joint",
}
IMPLICIT = {
    "posterior": "affine",
    "critic_loss": "dual",
    "divergence_sign": "adversarial",
    "squared_difference": "none",
    "beta": "warm_up",
    "beta_max": 1.0,
    "clipping": "separate",
    "step": "critic_then_model",
}
CONTRASTIVE = {
    **IMPLICIT,
    "contrast": "info_nce",
    "contrast_on": "z",
    "views": 2,
    "augmentation": "dropout",
    "encoder_dropout": 0.3,
    "temperature": 0.05,
    "negatives": "second",
    "prior_negatives": 0,
    "swap_negatives": False,
    "batch_mean_pair": False,
}
CIRCLE = {**CONTRASTIVE, "critic_loss": "circle_pairwise", "squared_difference": "squares"}
ONE_VIEW = {"contrast": "none", "views": 1, "encoder_dropout": 0.0}

PAPER = {
    "lstm_lm": {
        **ONE_VIEW,
        "posterior": "none",
        "divergence": "none",
        "beta": "zero",
        "step": "joint",
    },
    "ae": {
        **ONE_VIEW,
        "posterior": "deterministic",
        "divergence": "none",
        "beta": "zero",
        "step": "joint",
    },
    "vae": GAUSSIAN,
    "beta_vae": {**GAUSSIAN, "beta_max": 0.5},
    "cyclical_vae": {**GAUSSIAN, "beta": "cyclical"},
    "sa_vae": {**GAUSSIAN, "step": "semi_amortized", "refinement_steps": 10},
    "lagging_vae": {**GAUSSIAN, "step": "aggressive"},
    "ivae": {**IMPLICIT, **ONE_VIEW, "divergence": "joint_dual"},
    # In no table of the paper: its introduction's "we encode the same input sentence twice".
    "contrastive_vae": {
        **GAUSSIAN,
        "contrast": "info_nce",
        "views": 2,
        "encoder_dropout": 0.3,
        "temperature": 0.3,
    },
    "ivae_mi": {**IMPLICIT, **ONE_VIEW, "divergence": "marginal_dual"},
    "cvae": {**CONTRASTIVE, "divergence": "joint_dual"},
    "cvae_mi": {**CONTRASTIVE, "divergence": "marginal_dual"},
    "cvae_plus": {**CIRCLE, "divergence": "joint_dual"},
    "cvae_plus_mi": {**CIRCLE, "divergence": "marginal_dual"},
}
"""The rows by the paper: Sections 3.2 and 3.3, Figure 4 for the dropout, Table 2's beta for PTB."""


@pytest.mark.parametrize("name", PAPER)
def test_rows_are_the_papers(name):
    row = asdict(SYSTEMS[name])
    assert {slot: row[slot] for slot in PAPER[name]} == PAPER[name]


@pytest.mark.parametrize(
    "slot, registry",
    [
        ("posterior", POSTERIORS),
        ("divergence", DIVERGENCES),
        ("critic_loss", CRITIC_LOSSES),
        ("squared_difference", DIFFERENCES),
        ("contrast", CONTRASTS),
        ("beta", schedules.SCHEDULES),
        ("step", STEPS),
    ],
)
def test_choices_are_the_parts_that_exist(slot, registry):
    assert list(CHOICES[slot]) == list(registry)


@pytest.mark.parametrize("name", SYSTEMS)
def test_rows_hold_only_choices(name):
    row = asdict(SYSTEMS[name])
    assert all(row[slot] in choices for slot, choices in CHOICES.items())


def test_choices_name_slots():
    assert set(CHOICES) <= {field.name for field in fields(System)}


def test_rows_are_distinct():
    assert len(set(SYSTEMS.values())) == len(SYSTEMS)


def test_the_printed_table_has_every_slot_and_value():
    lines = [line.split() for line in table().splitlines()]
    assert lines[0] == ["system", *(field.name for field in fields(System))]
    printed = {cells[0]: cells[1:] for cells in lines[1:]}
    assert printed == {
        name: [str(value) for value in asdict(row).values()] for name, row in SYSTEMS.items()
    }


def test_the_command_prints_the_table():
    command = [sys.executable, "-m", "mindspore_cvae", "systems"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == table() + "\n"
