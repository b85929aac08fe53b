"""Run folders with made-up logs and results, and no model: for what only reads them."""

from __future__ import annotations

import json
import math
from pathlib import Path

from mindspore_cvae.config import layers
from mindspore_cvae.data.vocabulary import Vocabulary
from mindspore_cvae.runs import folder as runs_folder
from mindspore_cvae.systems import SYSTEMS

STEPS_PER_EPOCH = 20
SECONDS_PER_EPOCH = 60.0
TEST = {
    **{"rec": 70.0, "kl": 9.0, "neg_elbo": 79.0, "ppl": 36.0, "kl_z": 1.0, "mi": 8.0, "au": 32},
    **{"kl_exact": 90.0, "neg_elbo_valid": 160.0, "mi_exact": 8.1, "mi_exact_ceiling": 8.12},
    **{"iw_nll": 101.0, "iw_ppl": 110.0, "iw_samples": 512, "ess": 3.5, "iw_inflation": 1.0},
    **{"sentences": 3761, "tokens": 82430, "samples": 128, "draws": 128},
    **{"precision": "strict", "amp_level": "O0", "data_dir": None},
}
"""Metrics of a test split."""


def write_made_run(
    folder: Path,
    system: str = "cvae_plus_mi",
    *overrides: str,
    epochs: int = 4,
    seed: int = 0,
    ended: bool = True,
    test: dict | None = None,
) -> Path:
    """A run's folder, as far as text goes.

    Args:
        folder: to be made.
        system: row of the table.
        overrides: settings.
        epochs: that the log tells of, after an epoch 0.
        seed: of the run; shifts every number.
        ended: whether the log says that training ended.
        test: what is changed in :data:`TEST`; None for no evaluation.
    """
    settings = layers.load(None, overrides, system=system, seed=seed)
    has_critics = SYSTEMS[system].step == "critic_then_model"
    start = {"event": "start", "step": 0, "epoch": 1, "system": system, "seed": seed}
    start |= {"device": "CPU", "parameters": 1234567, "steps_per_epoch": STEPS_PER_EPOCH}
    start |= {"splits": {"train": {"sentences": 640, "tokens": 14000}}}
    rows = [start, _valid(0, system, seed)]
    for step in range(1, epochs * STEPS_PER_EPOCH + 1):
        epoch = (step - 1) // STEPS_PER_EPOCH + 1
        rec = 90 + 60 * math.exp(-step / 30) + math.sin(step)
        terms = {"loss": 2 * rec + 3, "rec": 2 * rec, "div": None, "con": None}
        terms |= {"critic_joint": None, "critic_marginal": None}
        if SYSTEMS[system].divergence != "none":
            terms["div"] = 2 + math.cos(step / 9)
        if has_critics:
            terms |= {"critic_joint": 7 - step / 50, "critic_marginal": 8 - step / 60}
        if SYSTEMS[system].contrast != "none":
            terms["con"] = -3.4 * math.exp(-step / 40)
        row = {"event": "step", "step": step, "epoch": epoch, **terms, "beta": 0.1 + step / 1000}
        rows.append({**row, "tokens_per_second": 1800.0 + step, "tokens": 7000})
        if step % STEPS_PER_EPOCH == 0:
            rows.append(_valid(epoch, system, seed))
    if ended:
        seconds = epochs * SECONDS_PER_EPOCH
        rows.append({"event": "end", "step": epochs * STEPS_PER_EPOCH, "epoch": epochs})
        rows[-1] |= {"reason": "epochs", "seconds": seconds}
    with runs_folder.Run(folder) as run:
        run.write_inputs(settings, Vocabulary(["<pad>", "<unk>", "<s>", "</s>", "word"]))
        run.open_log().close()
        (run.folder / runs_folder.LOG).write_text("".join(json.dumps(row) + "\n" for row in rows))
        if test is not None:
            metrics = {**TEST, "system": system, "split": "test", "checkpoint": "best"}
            metrics |= {"data_dir": settings.data.dir, **test}
            runs_folder.write_metrics(
                run.folder, "test", {**metrics, "step": epochs * STEPS_PER_EPOCH}
            )
    return folder


def _valid(epoch: int, system: str, seed: int) -> dict:
    rec = 90 + 60 * math.exp(-epoch) + seed
    kl = 0.0 if SYSTEMS[system].divergence == "none" else 2.0 * epoch + seed
    row = {"event": "valid", "step": epoch * STEPS_PER_EPOCH, "epoch": epoch, "rec": rec}
    row |= {"kl": kl, "neg_elbo": rec + kl, "ppl": math.exp((rec + kl) / 22), "au": 4 * epoch}
    row |= {"kl_z": None, "mi": None, "kl_exact": None, "neg_elbo_valid": None, "mi_exact": None}
    if SYSTEMS[system].divergence != "none":
        row |= {"kl_z": kl / 2, "mi": kl / 2, "kl_exact": 10 * kl, "neg_elbo_valid": rec + 10 * kl}
        row["mi_exact"] = 1.5 * epoch
    row |= {"true_nll": 44.5, "true_ppl": 22.3, "sentences": 100, "tokens": 2200, "draws": 8}
    return {**row, "valid": True, "best": epoch > 0, "seconds": 3.0}
