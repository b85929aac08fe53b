"""The page of results, from small files of finished runs.

    python benchmarks/results.py [--runs FOLDER --hardware TEXT]

``--runs`` is a folder of ``scripts/long_runs.sh``, whose runs are named DATA-NAME: of each that was
evaluated, docs/results/DATA/NAME.json is written anew, with IW-NLL of every sentence, and with the
perplexities by KenLM of its ``ngram.json``, if it has one. Where a run holds
``metrics-later.json``, ``grammatical`` and ``mi_exact`` were read there. Then, with or without it,
the tables of docs/results/index.md, with the differences of IW-NLL from the runs ``lstm_lm`` and
``vae`` over pairs of sentences, and the pictures of every DATA (MI against IW-PPL; curves by epoch;
what critics say by epoch, Figure 3) are made from the files that are there.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mindspore_cvae.common.files import write_atomically
from mindspore_cvae.common.numbers import signed_with_error
from mindspore_cvae.errors import InputError, run_command
from mindspore_cvae.report.comparison import difference
from mindspore_cvae.reproduction.paper import TABLE_1
from mindspore_cvae.runs import folder as runs_folder
from mindspore_cvae.systems import SYSTEMS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
TITLES = {"embedded": "The embedded corpus, where the truth is known", "ptb": "PTB"}
YARDSTICKS = ("lstm_lm", "vae")
SENTENCES = "sentences-best_valid.tsv"
NGRAM = ("forward_ppl", "reverse_ppl", "train_to_test_ppl", "generated_sentences", "checkpoint")
"""What is kept of RUN/ngram.json, by samples of the model; reverse is on test."""
READ_LATER = ("grammatical", "grammatical_error", "grammatical_samples", "mi_exact")
BEGIN, END = "<!-- results -->\n", "<!-- /results -->\n"
COLUMNS = (
    ("-ELBO, paper's way", "best", "neg_elbo", 2),
    ("PPL, paper's way", "best", "ppl", 2),
    ("valid -ELBO", "best_valid", "neg_elbo_valid", 2),
    ("IW-NLL", "best_valid", "iw_nll", 2),
    ("IW-PPL", "best_valid", "iw_ppl", 2),
    ("ESS", "best_valid", "ess", 1),
    ("exact MI", "best_valid", "mi_exact", 2),
    ("AU", "best_valid", "au", 0),
    ("grammatical", "best_valid", "grammatical", 2),
    ("forward PPL", "ngram", "forward_ppl", 1),
    ("reverse PPL", "ngram", "reverse_ppl", 1),
)
"""Title, which checkpoint's, key, digits."""
MARKS = ("os^", "DPv")
"""By how often the colours have run out, then by seed."""
FAR = 1.3
"""Times the median IW-PPL, above which a run is out of the picture."""
CURVES = {
    "neg_elbo": ("paper's -ELBO", "#d9722e", "o-"),
    "neg_elbo_valid": ("valid -ELBO", "#2f6db5", "s-"),
    "iw_nll": ("IW-NLL", "#3b9156", "^-"),
    "true_nll": ("truth", "black", "--"),
}
"""Of every validation, in nats a sentence: title, colour and style."""
VALIDATIONS = (
    *("epoch", "step", "rec", "kl", "kl_exact", "mi", "mi_exact", "mi_exact_ceiling"),
    *CURVES,
)
"""What is kept of every validation."""
CRITICS = {"kl": "KL, by critics", "mi": "MI, by critics", "kl_exact": "exact KL"}
"""What Figure 3 shows of every validation, and the truth beside it."""
BEYOND = 10
"""Times the median over runs of their largest value, from which on a run leaves a picture by epoch
and its name says how far it goes."""
PANELS = 5
"""Of a row of curves."""


def collect(folder: Path, hardware: str) -> None:
    """Write the file of every run of a folder that was evaluated."""
    for run in sorted(path for path in folder.iterdir() if runs_folder.is_run(path)):
        data, _, name = run.name.partition("-")
        best, best_valid = (
            runs_folder.read_metrics(run, f"metrics-{mark}.json") for mark in ("best", "best_valid")
        )
        if not best or not best_valid:
            continue
        # Read by a later version than the rest, where it is a file of its own.
        later = runs_folder.read_metrics(run, "metrics-later.json")
        best_valid |= {key: value for key, value in later.items() if key in READ_LATER}
        log = runs_folder.read_log(run)
        config = runs_folder.read_config(run)
        document = {
            "system": config.system,
            "name": name,
            "data": data,
            "epochs": epochs_done(log),
            "seed": config.seed,
            "commit": (folder / f"{run.name}.commit").read_text().strip()[:7],
            "hardware": hardware,
            "seconds": round(runs_folder.training_seconds(log)),
            "by_epoch": validations(log),
            "best": {key: value for key, value in best.items() if key != "data_dir"},
            "best_valid": {key: value for key, value in best_valid.items() if key != "data_dir"},
        }
        ngram = runs_folder.read_metrics(run, "ngram.json").get("protocols", {}).get("sampled")
        if ngram:
            document["ngram"] = {key: ngram[key] for key in NGRAM}
        sentences = runs_folder.read_sentences(run / SENTENCES)
        # A line each, so that runs of another day can be paired with these.
        for key in ("line", "iw_nll"):
            document[f"by_sentence_{key}"] = " ".join(sentences.get(key, ()))
        place = RESULTS / data / f"{name}.json"
        place.parent.mkdir(exist_ok=True)
        write_atomically(place, json.dumps(document, indent=1, allow_nan=False) + "\n")


def validations(log: Iterable[Mapping]) -> list[dict]:
    """What a log says of every epoch, epoch 0 before training included where it was read."""
    by_epoch = {row["epoch"]: row for row in log if row.get("event") == "valid"}
    return [{key: row.get(key) for key in VALIDATIONS} for row in by_epoch.values()]


def epochs_done(log: Sequence[Mapping]) -> float:
    """Passes over the training sentences until the last validation; a part of one to two digits."""
    last = max(row["step"] for row in log if row.get("event") == "valid")
    epoch = next(row["steps_per_epoch"] for row in log if row.get("event") == "start")
    return last // epoch if last % epoch == 0 else round(last / epoch, 2)


def add_differences(documents: list[dict]) -> None:
    """Differences of IW-NLL from the yardsticks, each of the document's own seed where there is
    one, else of seed 0; of the runs whose files have its sentences too."""

    def sentences(document: dict) -> dict[str, list[str]]:
        columns = {
            key: document.get(f"by_sentence_{key}", "").split() for key in ("line", "iw_nll")
        }
        return {key: values for key, values in columns.items() if values}

    for yardstick in YARDSTICKS:
        by_seed = {other["seed"]: other for other in documents if _family(other) == yardstick}
        for document in documents:
            other = by_seed.get(document["seed"], by_seed.get(0))
            if other is None or other is document:
                continue
            pair = sentences(other), sentences(document)
            if len(pair[0].get("iw_nll", ())) == len(pair[1].get("iw_nll", ())):
                found = difference(*pair, "iw_nll")
                if found is not None:
                    document[f"iw_nll_to_{yardstick}"] = (found["mean"], found["error"])


def table(documents: list[dict], data: str) -> str:
    """A line a run: the paper's number where it is of this corpus, ours its way, ours by bounds."""
    printed = {row.run.system: row.paper for row in TABLE_1.rows} if data == "ptb" else {}
    head = ["run", "epochs", "seed", "commit"]
    head += ["paper's PPL"] if printed else []
    head += [title for title, *_ in COLUMNS]
    measured = [
        yardstick
        for yardstick in YARDSTICKS
        if any(f"iw_nll_to_{yardstick}" in document for document in documents)
    ]
    head += [f"to `{yardstick}`" for yardstick in measured]
    lines = [head, ["---"] * len(head)]
    for document in documents:
        line = [f"`{document['name']}`"]
        line += [str(document[key]) for key in ("epochs", "seed", "commit")]
        if printed:
            value = printed.get(document["name"], {}).get("ppl")
            line.append("" if value is None else f"{value:g}")
        for _, mark, key, digits in COLUMNS:
            value = document.get(mark, {}).get(key)
            line.append("" if value is None else f"{value:.{digits}f}")
        for yardstick in measured:
            found = document.get(f"iw_nll_to_{yardstick}")
            line.append(signed_with_error(*found) if found else "")
        lines.append(line)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def picture(documents: list[dict], path: Path) -> None:
    """Exact MI against IW-PPL, a point a run; language models are lines. Seeds of one run
    share a colour and differ by their mark; where colours run out, other marks begin. A run far
    above the others stands at the top with its number beside it, so that they can be told apart."""
    from matplotlib import pyplot

    # A line of the legend is less than a quarter of an inch.
    inches = max(4.0, 0.6 + 0.21 * len(documents))
    figure, axes = pyplot.subplots(figsize=(7.6, inches), layout="constrained")
    # Names of such neighbours would hide each other at their points; here the best stand first.
    ordered = sorted(documents, key=lambda item: item["best_valid"]["iw_ppl"])
    families = sorted({_family(document) for document in ordered})
    palette = pyplot.get_cmap("tab20")
    # The study of slots draws what is finished, which may be nothing.
    bounds = [document["best_valid"]["iw_ppl"] for document in ordered] or [0.0]
    top = FAR * statistics.median(bounds)
    outside: dict[float, list[dict]] = {}
    for document in ordered:
        metrics, seed = document["best_valid"], document["seed"]
        height = min(metrics["iw_ppl"], top)
        if document["system"] == "lstm_lm":
            style = ("--", ":", "-.")[seed % 3]
            axes.axhline(
                metrics["iw_ppl"],
                color="black",
                linewidth=1,
                linestyle=style,
                label=document["name"],
            )
        elif metrics.get("mi_exact") is not None:
            turn, place = divmod(families.index(_family(document)), palette.N)
            axes.plot(
                metrics["mi_exact"],
                height,
                MARKS[turn % len(MARKS)][seed % len(MARKS[0])],
                color=palette(place),
                markeredgecolor="black",
                label=document["name"],
            )
            if height < metrics["iw_ppl"]:
                # Those at one place share a text.
                outside.setdefault(round(metrics["mi_exact"], 1), []).append(metrics)
    for there in outside.values():
        values = ", ".join(f"{metrics['iw_ppl']:.1f}" for metrics in there)
        axes.annotate(
            f"{values} \N{UPWARDS ARROW}",
            (min(metrics["mi_exact"] for metrics in there), top),
            xytext=(-8, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=9,
        )
    figure.legend(loc="outside right upper", fontsize=9, frameon=False)
    axes.set_xlabel("exact MI, nats")
    axes.set_ylabel("IW-PPL (upper bound; lower is better)")
    axes.margins(0.1)
    _write(figure, path)


def curves(found: Mapping[str, list[dict]], path: Path) -> None:
    """A panel a run, from its :func:`validations`; nats by epoch, on a scale whose lowest part
    shows the truth."""
    from matplotlib import pyplot, ticker

    values = {
        name: [row[key] for row in epochs for key in CURVES if row[key] is not None]
        for name, epochs in found.items()
    }
    # What critics say can be negative, which this scale cannot show.
    bottom, top = span([[value for value in said if value > 0] for said in values.values()])
    columns = min(len(found), PANELS)
    rows = -(-len(found) // columns)
    figure, panels = pyplot.subplots(
        *(rows, columns),
        figsize=(0.4 + 2.8 * columns, 3.2 * rows),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for panel, (name, epochs) in zip(panels.flat, found.items(), strict=False):
        for key, (title, colour, style) in CURVES.items():
            there = [row for row in epochs if row[key] is not None]
            if there:
                panel.plot(
                    [row["epoch"] for row in there],
                    [row[key] for row in there],
                    style,
                    markersize=3,
                    color=colour,
                    label=title,
                )
        panel.set_yscale("log")
        panel.set_ylim(bottom / 1.1, top * 1.1)
        panel.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 1.5, 2, 3, 5)))
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter(ticker.NullFormatter())
        panel.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        beyond = told_beyond(values[name], bottom, top)
        panel.set_title(f"{name} ({beyond})" if beyond else name, fontsize=10)
        panel.set_xlabel("epoch")
        panel.grid(alpha=0.3, which="both")
    for panel in panels.flat[len(found) :]:
        panel.set_axis_off()
    for row in panels:
        row[0].set_ylabel("nats a sentence")
    panels[0][0].legend(frameon=False, fontsize=8)
    _write(figure, path)


def critics(documents: list[dict], path: Path) -> None:
    """Figure 3 of the paper, of runs whose divergence critics estimate: their KL and MI by epoch,
    MI with its ceiling, and the exact KL. A panel each, a line a run; seeds of one run share a
    colour."""
    from matplotlib import pyplot, ticker

    figure, panels = pyplot.subplots(
        *(1, len(CRITICS)), figsize=(4 * len(CRITICS) + 2.2, 3.8), layout="constrained"
    )
    families = sorted({_family(document) for document in documents})
    palette = pyplot.get_cmap("tab10")
    for panel, (key, title) in zip(panels, CRITICS.items(), strict=True):
        # A posterior without a density has no exact KL.
        found = {
            document["name"]: [row for row in document["by_epoch"] if row[key] is not None]
            for document in documents
        }
        values = [[row[key] for row in rows] for rows in found.values() if rows]
        beyond = []
        if values:
            bottom, top = span(values)
            panel.set_ylim(bottom - 0.05 * (top - bottom), top + 0.05 * (top - bottom))
        for document in documents:
            name, rows = document["name"], found[document["name"]]
            if not rows:
                continue
            turn, place = divmod(families.index(_family(document)), palette.N)
            panel.plot(
                [row["epoch"] for row in rows],
                [row[key] for row in rows],
                MARKS[turn % len(MARKS)][document["seed"] % len(MARKS[0])] + "-",
                markersize=4,
                color=palette(place),
                label=name if panel is panels[0] else None,
            )
            told = told_beyond([row[key] for row in rows], bottom, top)
            beyond += [f"{name}: {told}"] if told else []
        panel.set_title("\n".join(beyond), fontsize=9)
        panel.axhline(0, color="black", linewidth=0.8)
        panel.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        panel.set_xlabel("epoch")
        panel.set_ylabel(f"{title}, nats")
        panel.grid(alpha=0.3)
    ceilings = [
        row.get("mi_exact_ceiling") or row["mi_exact"] or 0.0
        for document in documents
        for row in document["by_epoch"]
    ]
    if max(ceilings) > 0:
        panels[1].axhline(
            max(ceilings), color="black", linestyle="--", label="the most that MI can be"
        )
    figure.legend(loc="outside right upper", fontsize=9, frameon=False)
    _write(figure, path)


def span(runs: list[list[float]]) -> tuple[float, float]:
    """The least and the largest value of all runs but those that go far beyond the others."""
    largest = [max(abs(value) for value in values) for values in runs]
    near = BEYOND * statistics.median(largest)
    kept = [values for values, most in zip(runs, largest, strict=True) if most <= near]
    return min(min(values) for values in kept), max(max(values) for values in kept)


def told_beyond(values: list[float], bottom: float, top: float) -> str:
    """The range of values that leave a picture; nothing of others."""
    least, most = min(values), max(values)
    return f"{least:,.0f} to {most:,.0f}" if least < bottom or most > top else ""


def _write(figure, path: Path) -> None:
    from matplotlib import pyplot

    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    pyplot.close(figure)
    write_atomically(path, content.getvalue())


def _family(document: dict) -> str:
    """A run's name without its seed."""
    return document["name"].partition("_seed")[0]


def write_page() -> None:
    """Make the tables and pictures from the files that are there."""
    parts = []
    for folder in sorted(path for path in RESULTS.iterdir() if path.is_dir()):
        documents = [json.loads(path.read_text()) for path in folder.glob("*.json")]
        if not documents:
            continue
        documents.sort(key=lambda document: document["best_valid"]["iw_nll"])
        add_differences(documents)
        sentences = documents[0]["best_valid"]["sentences"]
        picture(documents, RESULTS / f"{folder.name}.png")
        hardware = sorted({document["hardware"] for document in documents})
        truth = documents[0]["best_valid"].get("true_nll")
        floor = f" No model can be below {truth:.2f} nats, the truth." if truth else ""
        parts += [
            f"## {TITLES.get(folder.name, folder.name)}",
            textwrap.fill(
                f"{sentences} test sentences, {documents[0]['best_valid']['iw_samples']} draws of "
                f"the bound; {'; '.join(hardware)}.{floor}",
                100,
                break_on_hyphens=False,
            ),
            table(documents, folder.name),
            f"![exact MI and IW-PPL, {folder.name}]({folder.name}.png)",
        ]
        followed = {
            document["name"]: document["by_epoch"]
            for document in documents
            if "by_epoch" in document
        }
        if followed:
            curves(followed, RESULTS / f"{folder.name}-curves.png")
            parts += [
                "Validation by epoch of the runs whose logs were kept (the bound of few draws that "
                "training reads):",
                f"![nats a sentence by epoch, {folder.name}]({folder.name}-curves.png)",
            ]
        estimated = [
            document
            for document in documents
            if "by_epoch" in document and SYSTEMS[document["system"]].has_critics
        ]
        if estimated:
            critics(estimated, RESULTS / f"{folder.name}-critics.png")
            parts += [
                "Figure 3 of the paper, of the same validations: KL and MI by the critics, and the "
                "exact KL:",
                f"![KL and MI by epoch, {folder.name}]({folder.name}-critics.png)",
            ]
    page = RESULTS / "index.md"
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(END) < text.index(BEGIN):
        raise InputError(
            f"{page}: the tables go between the lines {BEGIN.strip()!r} and {END.strip()!r}, which "
            "have to be there once each"
        )
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    middle = "\n\n".join(parts) + "\n"
    write_atomically(page, f"{before}{BEGIN}{middle}{END}{after}")


@np.errstate(all="raise")
def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, metavar="FOLDER", help="of scripts/long_runs.sh")
    parser.add_argument("--hardware", default="", metavar="TEXT", help="what the runs ran on")
    arguments = parser.parse_args()
    if arguments.runs is not None:
        if not arguments.hardware:
            raise InputError("--runs: --hardware has to say what the runs ran on")
        collect(arguments.runs, arguments.hardware)
    write_page()


if __name__ == "__main__":
    sys.exit(run_command(main))
