"""What the paper's estimates say on the embedded corpus, whose true NLL is known.

    python benchmarks/estimates.py {entropy,critics,slots} --output_dir DIR [--epochs N]
                [--config quickstart] [--data_dir PLACE] [--runs NAME ...]
                [--collect] [--earlier FILE]

``entropy`` validates four systems after every epoch: the paper's -ELBO, the valid one, the
importance-weighted bound, and the truth. ``critics`` trains one implicit system with other
critics and other initial noise, and reads its KL three ways: by the critic that training leaves
behind, by a fresh one, and exactly. ``slots`` trains the contrastive Gaussian system with other
slots, one changed at a time, and reads bound and exact MI of the validation split alone. All train
what is missing, resume what was begun, and write ``DIR/NAME.json`` and ``DIR/NAME.md``, and
pictures of the first and the last as ``DIR/NAME.png``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import results

from mindspore_cvae import __version__
from mindspore_cvae.common.files import write_atomically
from mindspore_cvae.common.numbers import signed_with_error
from mindspore_cvae.errors import run_command
from mindspore_cvae.report.comparison import difference
from mindspore_cvae.runs.folder import read_log, read_sentences

ROOT = Path(__file__).parents[1]
VALIDATION = ("train.select=iw_nll", "eval.valid_samples=16", "eval.valid_iw_samples=64")
"""Every epoch is read as a test is: several draws, and the bound."""
SENTENCES = 500
"""Of the validation or test split, those that are read."""
GRAMMATICAL = 5000
"""Samples of which the search of slots reads how many are grammatical."""
IW_SAMPLES = 128


class Trained(NamedTuple):
    """A run: its name, its system, and what differs from the configuration."""

    name: str
    system: str
    settings: tuple[str, ...] = ()


ENTROPY = (
    Trained("vae", "vae"),
    Trained("ivae_mi", "ivae_mi"),
    Trained("cvae_plus_mi", "cvae_plus_mi"),
    Trained("cvae_plus_mi, printed sign", "cvae_plus_mi", ("slots.divergence_sign=printed",)),
)
NOISE = "model.noise_init_scale=1"
CRITICS = (
    Trained("the paper's rate, 1e-5", "ivae", ("train.critic_learning_rate=1e-5",)),
    Trained("rate 1e-4", "ivae", ("train.critic_learning_rate=1e-4",)),
    Trained("rate 1e-3", "ivae", ("train.critic_learning_rate=1e-3",)),
    Trained(
        *("rate 1e-3, 25 updates", "ivae"),
        ("train.critic_learning_rate=1e-3", "train.critic_updates=25"),
    ),
    Trained("noise 1, rate 1e-5", "ivae", (NOISE, "train.critic_learning_rate=1e-5")),
    Trained("noise 1, rate 1e-3", "ivae", (NOISE, "train.critic_learning_rate=1e-3")),
    Trained(
        *("noise 1, rate 1e-3, 25 updates", "ivae"),
        (NOISE, "train.critic_learning_rate=1e-3", "train.critic_updates=25"),
    ),
)
SHARP = ("slots.temperature=0.1",)
"""What the configurations of the search share besides their row of the table."""
LANGUAGE_MODEL = "lstm_lm"
SLOTS = (
    Trained(LANGUAGE_MODEL, "lstm_lm"),
    Trained("vae", "vae"),
    Trained("temperature 0.1", "contrastive_vae", SHARP),
    Trained("temperature 0.05", "contrastive_vae", ("slots.temperature=0.05",)),
    Trained("weight 2", "contrastive_vae", (*SHARP, "slots.contrast_weight=2")),
    Trained(
        *("weight 2, free bits 0.3", "contrastive_vae"),
        (*SHARP, "slots.contrast_weight=2", "slots.free_bits=0.3"),
    ),
    Trained("weight 2.5", "contrastive_vae", (*SHARP, "slots.contrast_weight=2.5")),
    Trained("weight 3", "contrastive_vae", (*SHARP, "slots.contrast_weight=3")),
    Trained("weight 4", "contrastive_vae", (*SHARP, "slots.contrast_weight=4")),
    Trained("beta to 0.7", "contrastive_vae", (*SHARP, "slots.beta_max=0.7")),
    Trained(
        *("weight 2, beta to 0.7", "contrastive_vae"),
        (*SHARP, "slots.contrast_weight=2", "slots.beta_max=0.7"),
    ),
    Trained("beta to 0.5", "contrastive_vae", (*SHARP, "slots.beta_max=0.5")),
    Trained(
        *("weight 1.5, beta to 0.6", "contrastive_vae"),
        (*SHARP, "slots.contrast_weight=1.5", "slots.beta_max=0.6"),
    ),
    Trained(
        *("weight 2, temperature 0.05", "contrastive_vae"),
        ("slots.temperature=0.05", "slots.contrast_weight=2"),
    ),
    Trained(
        *("temperature 0.05, beta to 0.7", "contrastive_vae"),
        ("slots.temperature=0.05", "slots.beta_max=0.7"),
    ),
    Trained(
        *("encoder dropout 0.5, weight 2, beta to 0.7", "contrastive_vae"),
        (*SHARP, "slots.encoder_dropout=0.5", "slots.contrast_weight=2", "slots.beta_max=0.7"),
    ),
    Trained("free bits 0.3", "contrastive_vae", (*SHARP, "slots.free_bits=0.3")),
    Trained("decoder dropout 0.4", "contrastive_vae", (*SHARP, "model.decoder_dropout=0.4")),
    Trained("encoder dropout 0.1", "contrastive_vae", (*SHARP, "slots.encoder_dropout=0.1")),
    Trained("temperature 0.2", "contrastive_vae", ("slots.temperature=0.2",)),
    Trained("weight 0.5", "contrastive_vae", (*SHARP, "slots.contrast_weight=0.5")),
    Trained("cyclical beta", "contrastive_vae", (*SHARP, "slots.beta=cyclical")),
    Trained("encoder dropout 0.5", "contrastive_vae", (*SHARP, "slots.encoder_dropout=0.5")),
    Trained("free bits 0.3 without contrast", "vae", ("slots.free_bits=0.3",)),
)
COLUMNS = {
    "kl": "KL, trained critic",
    "kl_refit": "KL, fresh critic",
    "kl_exact": "KL, exact",
    "rec": "rec",
    "neg_elbo": "-ELBO",
    "neg_elbo_valid": "-ELBO, valid",
    "iw_nll": "IW-NLL",
    "true_nll": "truth",
    "mi_exact": "MI, exact",
}


def call(*command: str) -> None:
    """A command of the project, in a process of its own.

    Raises:
        SystemExit: It failed; its own message has said why.
    """
    if subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode:
        raise SystemExit(f"failed: python {' '.join(command)}")


def folder_of(run: Trained, folder: Path) -> Path:
    return folder / "-".join(run.name.replace(",", "").replace("'", "").split())


def train(run: Trained, options: argparse.Namespace, settings: Iterable[str]) -> None:
    """A run to its end, from wherever it is."""
    place = ("--data_dir", options.data_dir) if options.data_dir else ()
    call(
        *("train.py", "--config", options.config, "--system", run.system, *place),
        *("--output_dir", str(folder_of(run, options.output_dir)), "--resume", "--set"),
        *("train.report=false", f"train.epochs={options.epochs}"),
        *(f"eval.max_sentences={SENTENCES}", *settings, *run.settings),
    )


def entropy(options: argparse.Namespace) -> tuple[dict, list[str]]:
    """The four systems by epoch."""
    found = {}
    for run in options.chosen:
        if not options.collect:
            train(run, options, ("eval.before_training=true", *VALIDATION))
        found[run.name] = results.validations(read_log(folder_of(run, options.output_dir)))
    results.curves(found, options.output_dir / "entropy.png")
    titles = " | ".join(title for title, *_ in results.CURVES.values())
    lines = [
        f"| system, after {options.epochs} epochs | {titles} |",
        "|---|" + "---|" * len(results.CURVES),
    ]
    for name, rows in found.items():
        values = " | ".join(short(rows[-1][key]) for key in results.CURVES)
        lines.append(f"| {name} | {values} |")
    return found, lines


def critics(options: argparse.Namespace) -> tuple[dict, list[str]]:
    """One implicit system's KL, three ways, by what its critics and its noise were given."""
    found = {}
    for run in options.chosen:
        folder = folder_of(run, options.output_dir)
        if not options.collect:
            train(run, options, ())
            call(
                *("eval.py", "--run", str(folder), "--samples", "16", "--checkpoint", "last"),
                *("--refit_critic", "--iw_samples", str(IW_SAMPLES)),
                *("--set", "eval.max_sentences=null"),
            )
        found[run.name] = json.loads((folder / "metrics-test.json").read_text())
    titles = {key: title for key, title in COLUMNS.items() if key in next(iter(found.values()))}
    lines = [f"| run | {' | '.join(titles.values())} |", "|---|" + "---|" * len(titles)]
    for name, row in found.items():
        lines.append(f"| {name} | {' | '.join(short(row[key]) for key in titles)} |")
    return found, lines


def slots(options: argparse.Namespace) -> tuple[dict, list[str]]:
    """The contrastive Gaussian system with other slots, read on validation."""
    found, bounds = {}, {}
    for run in options.chosen:
        folder = folder_of(run, options.output_dir)
        metrics = folder / "metrics-valid.json"
        if not options.collect:
            train(run, options, ())
            if not metrics.exists():
                call(
                    *("eval.py", "--run", str(folder), "--split", "valid"),
                    *("--checkpoint", "best_valid", "--iw_samples", str(IW_SAMPLES)),
                    *("--set", f"eval.max_sentences={SENTENCES}"),
                    f"eval.grammatical_samples={GRAMMATICAL}",
                )
        if not metrics.exists():
            continue
        found[run.name] = json.loads(metrics.read_text()) | {"settings": list(run.settings)}
        del found[run.name]["data_dir"]
        bounds[run.name] = read_sentences(folder / "sentences-valid.tsv")
        found[run.name]["to_language_model"] = difference(
            bounds.get(LANGUAGE_MODEL, {}), bounds[run.name], "iw_nll"
        )
    found |= options.earlier_runs
    documents = [
        {"name": name, "system": row["system"], "seed": 0, "best_valid": row}
        for name, row in found.items()
    ]
    results.picture(documents, options.output_dir / "slots.png")
    lines = [
        "| slots | IW-NLL | to `lstm_lm` | ESS | exact MI | AU | grammatical |",
        "|---|" + "---|" * 6,
    ]
    for name, row in sorted(found.items(), key=lambda item: item[1]["iw_nll"]):
        apart = row["to_language_model"]
        cells = [
            name,
            short(row["iw_nll"]),
            signed_with_error(apart["mean"], apart["error"])
            if apart and name != LANGUAGE_MODEL
            else "",
            *(short(row.get(key)) for key in ("ess", "mi_exact")),
            "" if row.get("au") is None else str(row["au"]),
            short(row.get("grammatical")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return found, lines


def short(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


STUDIES = {
    "entropy": (entropy, ENTROPY, 10),
    "critics": (critics, CRITICS, 4),
    "slots": (slots, SLOTS, 12),
}
"""What is run, its runs, and for how many epochs."""


def earlier_runs(options: argparse.Namespace, parser: argparse.ArgumentParser) -> dict:
    """What ``--earlier`` holds, none without it; ends the command where that cannot be merged."""
    if options.earlier is None:
        return {}
    if options.study != "slots":
        parser.error("--earlier is of the study slots alone")
    document = json.loads(options.earlier.read_text())
    for key in ("config", "epochs"):
        if document[key] != getattr(options, key):
            parser.error(
                f"{options.earlier}: its {key} is {document[key]}, not {getattr(options, key)}"
            )
    return document["runs"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=list(STUDIES))
    parser.add_argument("--output_dir", type=Path, required=True, metavar="DIR")
    parser.add_argument("--epochs", type=int, help="of training (entropy 10, critics 4, slots 12)")
    parser.add_argument("--config", default="quickstart")
    parser.add_argument("--data_dir", metavar="PLACE", help="the embedded corpus if not given")
    parser.add_argument("--runs", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--collect", action="store_true", help="only gather what is finished")
    parser.add_argument("--earlier", type=Path, metavar="FILE", help="slots.json of another day")
    options = parser.parse_args()
    study, runs, epochs = STUDIES[options.study]
    options.epochs = options.epochs or epochs
    names = options.runs or [run.name for run in runs]
    unknown = set(names) - {run.name for run in runs}
    if unknown:
        parser.error(f"no run {min(unknown)!r}; there are {', '.join(run.name for run in runs)}")
    options.earlier_runs = earlier_runs(options, parser)
    options.chosen = [run for run in runs if run.name in names]
    options.output_dir = options.output_dir.absolute()
    options.output_dir.mkdir(parents=True, exist_ok=True)
    found, lines = study(options)
    document = {"version": __version__, "config": options.config, "epochs": options.epochs}
    document["runs"] = found
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    write_atomically(options.output_dir / f"{options.study}.json", text)
    table = "\n".join(lines) + "\n"
    write_atomically(options.output_dir / f"{options.study}.md", table)
    print(table)


if __name__ == "__main__":
    sys.exit(run_command(main))
