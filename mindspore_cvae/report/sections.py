"""A run on one page: ``RUN/report.html``, written when training ends.

``python -m mindspore_cvae report --run RUN`` writes it again, for instance after an evaluation. The
page needs no network and no other file. What a run does not have is left out, with a word why.
"""

from __future__ import annotations

import difflib
import math
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from mindspore_cvae import __version__
from mindspore_cvae.common.files import write_atomically
from mindspore_cvae.common.numbers import is_finite
from mindspore_cvae.config import keys as config_keys
from mindspore_cvae.config import layers as configuration
from mindspore_cvae.config import options as config_options
from mindspore_cvae.config.keys import Config
from mindspore_cvae.errors import InputError, warn_user
from mindspore_cvae.evaluation.columns import PAPER, VALID, chosen, style_of
from mindspore_cvae.report.charts import MOST_POINTS, Line, Point, is_number, line_chart, scatter
from mindspore_cvae.report.page import fill, shortened
from mindspore_cvae.report.projector import show_specimens
from mindspore_cvae.report.specimens import Specimens, make_specimens
from mindspore_cvae.runs import folder as runs_folder
from mindspore_cvae.systems import System

TERMS = (
    ("loss", "Loss", "what the model minimises, nats a sentence"),
    ("rec", "Reconstruction", "summed over views, nats a sentence"),
    ("div", "Divergence", "D(q || p) as the loss has it, summed over views"),
    ("con", "Contrast", "C, maximised; 0 is its highest value"),
    ("critic_joint", "Critic f(x, z)", "what it minimises"),
    ("critic_marginal", "Critic g(z)", "what it minimises"),
    ("beta", "Beta", "weight of the divergence"),
    ("tokens_per_second", "Speed", "predicted tokens a second"),
)
"""Keys of the log's step rows, with a title and a note."""

CURVES = (
    ("KL", "nats a sentence", (("kl", "paper's estimator"), ("kl_exact", "exact"))),
    ("Mutual information", "nats", (("mi", "paper's estimator"), ("mi_exact", "exact densities"))),
    ("Active units", "of the latent dimensions", (("au", "active units"),)),
    (
        "\N{MINUS SIGN}ELBO",
        "nats a sentence",
        (("neg_elbo", "paper's estimator"), ("neg_elbo_valid", "valid"), ("true_nll", "true NLL")),
    ),
    ("Perplexity", "a predicted token", (("ppl", "paper's estimator"), ("true_ppl", "true"))),
    ("Reconstruction", "nats a sentence", (("rec", "reconstruction"),)),
)
"""Charts over epochs: title, note, and the keys of the log's validation rows."""


def write_report(
    folder: str | Path,
    checkpoint: str = "best",
    config: Config | None = None,
    template: str | Path | None = None,
) -> Path:
    """Write ``RUN/report.html``, whole or not at all; with ``train.tensorboard``, the sentences and
    codes for TensorBoard too.

    Args:
        folder: the run.
        checkpoint: whose model makes the specimens: ``best`` or ``last``.
        config: from :func:`runs.folder.read_config`; None takes the run's own.
        template: see :func:`report.page.fill`.

    Returns:
        The page's path.

    Raises:
        InputError: The folder is no run, or the template does not fit.
        OSError: The page cannot be written.
    """
    folder = Path(folder)
    config = runs_folder.read_config(folder) if config is None else config
    specimens = _specimens(folder, checkpoint, config)
    text = render(folder, config, specimens, template)
    # A path may hold bytes that are no UTF-8.
    write_atomically(folder / runs_folder.REPORT, text.encode("utf-8", "replace"))
    if config.train.tensorboard and not isinstance(specimens, str):
        try:
            show_specimens(folder, specimens)
        except InputError as error:
            warn_user(f"TensorBoard gets none of the report ({error})")
    return folder / runs_folder.REPORT


def write_report_or_warn(folder: str | Path) -> bool:
    """:func:`write_report` at the end of a training, which nothing that happens here may spoil:
    what went wrong becomes one warning.

    Returns:
        Whether the page was written.
    """
    try:
        path = write_report(folder)
    except (Exception, KeyboardInterrupt) as error:
        reason = str(error).strip() or type(error).__name__
        warn_user(
            f"the training is complete, but its report was not written ({reason}); "
            f"python -m mindspore_cvae report --run {folder} writes it"
        )
        return False
    print(f"report: {path}")
    return True


def _specimens(folder: Path, checkpoint: str, config: Config) -> Specimens | str:
    """What the model makes, or why there is none."""
    from mindspore_cvae.api import ContrastiveVAE
    from mindspore_cvae.data.corpus import load_corpus

    try:
        model = ContrastiveVAE.load(folder, checkpoint, config=config)
        return make_specimens(model, lambda: load_corpus(config.data, model.vocabulary).valid)
    except InputError as error:
        return f"The model could not be read ({error})."


def render(
    folder: Path, config: Config, specimens: Specimens | str, template: str | Path | None = None
) -> str:
    """The page of a run.

    Args:
        folder: the run.
        config: its configuration.
        specimens: what its model makes; a text says why there is none.
        template: see :func:`report.page.fill`.
    """
    return fill(contents(folder, config, specimens), template)


def contents(folder: Path, config: Config, specimens: Specimens | str) -> dict[str, Any]:
    """What a template can print: ``run``, ``facts``, ``metrics``, ``epochs``, ``training``,
    ``map``, ``samples``, ``reconstructions``, ``interpolations``, ``configuration``.

    Charts are markup, all else is text, numbers as they are printed; ``absent`` is a word why there
    is nothing.

    Args:
        folder, config, specimens: see :func:`render`.
    """
    log, steps = _read_log(folder)
    return {
        "run": {
            "name": folder.resolve().name,
            "system": config.system,
            "subtitle": _subtitle(config, log, steps),
            "version": __version__,
        },
        "facts": _facts(folder, log, config),
        "metrics": _metrics(folder, log, config.slots),
        "epochs": {"charts": _epochs(log)},
        "training": _training(steps),
        "map": _map(specimens),
        "samples": _samples(specimens),
        "reconstructions": _reconstructions(specimens, config.data.unit),
        "interpolations": _paths(specimens),
        "configuration": _configuration(config, log),
    }


_Steps = Mapping[str, Sequence[float]]
"""Numbers of the log's step rows by key, those of :data:`TERMS` and ``step``; NaN is none."""


def _read_log(folder: Path) -> tuple[list[Mapping], _Steps]:
    """The log's rows but for those of steps, and what is drawn of these."""
    log: list[Mapping] = []
    # Eight bytes a number: a row as Python has it takes over a thousand, and there are many.
    steps = {key: array("d") for key in ("step", *(key for key, _, _ in TERMS))}
    for row in runs_folder.log_rows(folder):
        if row.get("event") != "step":
            log.append(row)
        elif _is_index(row.get("step")):
            steps["step"].append(row["step"])
            for key, _, _ in TERMS:
                value = row.get(key)
                steps[key].append(value if is_number(value) else math.nan)
    return log, steps


def _subtitle(config: Config, log: Sequence[Mapping], steps: _Steps) -> str:
    corpus = "the embedded corpus" if config.data.dir is None else config.data.dir
    parts = [f"System {config.system}, seed {config.seed}, trained on {corpus}"]
    done = int(steps["step"][-1]) if steps["step"] else _last(log, "valid", "step") or 0
    end: Mapping = next(
        (row for row in reversed(log) if row.get("event") in ("end", "start", "resume")), {}
    )
    epochs = len({row.get("epoch") for row in log if row.get("event") == "valid"} - {0, None})
    parts.append(f"{_count(done, 'step')}, {_count(epochs, 'epoch')} validated")
    reasons = {"epochs": "all epochs done", "max_steps": "train.max_steps reached"}
    reasons |= {"patience": "stopped by patience"}
    if end.get("event") == "end":
        reason = str(end.get("reason"))
        parts.append(reasons.get(reason, f"interrupted by {reason}"))
    else:
        parts.append("not finished")
    return "; ".join(parts) + "."


def _count(number: object, what: str) -> str:
    count = number if isinstance(number, int) else 0
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _last(log: Sequence[Mapping], event: str, key: str) -> object:
    """A value of the last row of an event."""
    return next((row.get(key) for row in reversed(log) if row.get("event") == event), None)


def _best(log: Sequence[Mapping]) -> Mapping:
    """The validation that marked the best checkpoint, else the last one."""
    valid = [row for row in log if row.get("event") == "valid"]
    best = [row for row in valid if row.get("best") is True]
    return best[-1] if best else valid[-1] if valid else {}


def _results(folder: Path, log: Sequence[Mapping]) -> tuple[Mapping, str]:
    """The metrics that count most of those that are there, and what they are of."""
    for split, title in (("test", "test split"), ("valid", "validation split")):
        metrics = runs_folder.read_metrics(folder, runs_folder.metrics_name(split))
        if metrics:
            return metrics, title
    best = _best(log)
    return best, f"validation after epoch {best['epoch']}" if "epoch" in best else "no validation"


def _facts(folder: Path, log: Sequence[Mapping], config: Config) -> dict[str, Any]:
    """The few numbers to read first."""
    metrics, source = _results(folder, log)
    keys = ["neg_elbo", "ppl", "kl", "mi", "au"]
    keys += [key for key in ("neg_elbo_valid", "iw_ppl", "true_ppl") if key in metrics]
    numbers = []
    for column in chosen(*keys):
        value = shown(metrics.get(column.key))
        if value is not None:
            note = column.standing_of(config.slots)
            if column.key == "au":
                note = f"of {config.model.latent_size}"
            numbers.append({"title": column.title, "value": value, "note": note})
    return {"numbers": numbers, "source": source}


def shown(value: object) -> str | None:
    """A metric as the page prints it; None for what is no number."""
    if not is_finite(value):
        return None
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10**15 else None
    text = f"{value:,.2f}" if abs(value) < 1e6 else f"{value:.3g}"
    return text.replace("-", "\N{MINUS SIGN}")


def _metrics(folder: Path, log: Sequence[Mapping], slots: System) -> dict[str, Any]:
    """A table for each split that was evaluated; else of the best validation."""
    splits, command, corpus = [], None, runs_folder.trained_on(folder)
    for split, title in (("test", "Test split"), ("valid", "Validation split")):
        metrics = runs_folder.read_metrics(folder, runs_folder.metrics_name(split))
        if metrics:
            splits.append({"title": title, **_metric_table(metrics, slots, corpus)})
    best = _best(log)
    if not splits and best:
        which = "best" if best.get("best") is True else "last"
        title = f"Validation after epoch {best.get('epoch')}, the {which} one"
        splits = [{"title": title, **_metric_table(best, slots)}]
        command = f"python eval.py --run {folder} --iw_samples 512"
    protocols = runs_folder.read_metrics(folder, runs_folder.NGRAM).get("protocols")
    ngram = _ngram(protocols) if isinstance(protocols, dict) else []
    return {"splits": splits, "command": command, "ngram": ngram}


def _metric_table(metrics: Mapping, slots: System, corpus: str | None = None) -> dict[str, Any]:
    """Columns of a split, and of what they are; ``corpus`` is what the run was trained on."""
    groups = []
    for title, columns in (("The paper's estimators", PAPER), ("Valid columns", VALID)):
        rows = []
        for column in columns:
            value = shown(metrics.get(column.key))
            if value is not None:
                standing = column.standing_of(slots)
                meaning = column.meaning.replace("`", "")
                row = {"title": column.title, "value": value, "meaning": meaning}
                rows.append({**row, "standing": standing, "style": style_of(standing)})
        if rows:
            groups.append({"title": title, "rows": rows})
    facts = [f"{shown(metrics.get(key))} {key}" for key in ("sentences", "tokens", "draws")]
    note = f"{', '.join(facts)} a sentence; checkpoint of step {shown(metrics.get('step'))}."
    if "data_dir" in metrics:
        note += f" Text: {shortened(str(metrics['data_dir'] or 'the embedded corpus'))}."
    if corpus and metrics.get("corpus", corpus) != corpus:
        note += " It is not the text that the run was trained with."
    return {"note": note, "groups": groups}


def _ngram(protocols: Mapping) -> list[tuple[str, ...]]:
    """Rows of the n-gram table."""
    rows = []
    for name, result in protocols.items():
        if isinstance(result, dict):
            numbers = [
                shown(result.get(key)) or "\N{EN DASH}"
                for key in ("forward_ppl", "reverse_ppl_test", "reverse_ppl_train")
            ]
            rows.append((name, *numbers))
    return rows


def _epochs(log: Sequence[Mapping]) -> list[Markup]:
    """Charts over epochs."""
    valid = [row for row in log if row.get("event") == "valid" and _is_index(row.get("epoch"))]
    # A resumed run may have validated an epoch twice; the later one counts.
    valid = sorted({row["epoch"]: row for row in valid}.values(), key=lambda row: row["epoch"])
    epochs = [row["epoch"] for row in valid]
    best = _best(log).get("epoch") if any(row.get("best") is True for row in log) else None
    charts = []
    for title, note, keys in CURVES:
        lines = [
            Line(name, epochs, [row.get(key) for row in valid], key.startswith("true_"))
            for key, name in keys
        ]
        charts.append(line_chart(title, note, lines, best, True, title == "Perplexity"))
    return [chart for chart in charts if chart is not None]


def _is_index(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _training(steps: _Steps) -> dict[str, Any]:
    """Charts over steps."""
    charts, constant = [], []
    for key, title, note in TERMS:
        chart = line_chart(title, note, [Line(title, steps["step"], steps[key])])
        if chart is None:
            constant.append(title)
        else:
            charts.append(chart)
    return {"charts": charts, "constant": constant, "is_thinned": len(steps["step"]) > MOST_POINTS}


def _map(specimens: Specimens | str) -> dict[str, Any]:
    if isinstance(specimens, str):
        return {"absent": specimens}
    if specimens.map is None:
        return {"absent": specimens.absent.get("map", "No map was made.")}
    figures = []
    for groups in specimens.groups:
        labels = groups.labels or [""] * len(specimens.mapped)
        points = [
            Point(float(x), float(y), int(group), f"{label}: {text}" if label else text)
            for (x, y), group, label, text in zip(
                specimens.map, groups.numbers, labels, specimens.mapped, strict=True
            )
        ]
        figures.append(
            scatter(
                f"By {groups.by}",
                f"{len(points):,} sentences",
                points,
                groups.names,
                groups.ordered,
                groups.rest,
            )
        )
    shares = [f"{share:.0%}" for share in specimens.explained]
    count = f"{len(specimens.mapped):,}"
    return {"absent": None, "count": count, "shares": shares, "figures": figures}


def _samples(specimens: Specimens | str) -> dict[str, Any]:
    if isinstance(specimens, str):
        return {"absent": specimens}
    return {"absent": None, "texts": specimens.samples}


def _reconstructions(specimens: Specimens | str, unit: str) -> dict[str, Any]:
    if isinstance(specimens, str):
        return {"absent": specimens}
    if not specimens.reconstructions:
        return {"absent": specimens.absent.get("reconstructions", "There are none.")}
    pairs = []
    for text, decoded in specimens.reconstructions:
        # Text without blanks is compared by characters.
        between = " " if unit == "word" or " " in text else ""
        pairs.append((text, compared(text, decoded, between), between))
    return {"absent": None, "pairs": pairs}


def compared(original: str, text: str, between: str = " ") -> list[tuple[str, bool]]:
    """A text in parts, and of each whether the original does not have its words in their places;
    its characters, where nothing stands ``between`` them."""
    before, after = (
        shortened(part).split() if between else list(shortened(part)) for part in (original, text)
    )
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    return [
        (between.join(after[begin:end]), kind != "equal")
        for kind, _, _, begin, end in matcher.get_opcodes()
        if begin < end
    ]


def _paths(specimens: Specimens | str) -> dict[str, Any]:
    if isinstance(specimens, str):
        return {"absent": specimens}
    if not specimens.paths:
        return {"absent": specimens.absent.get("paths", "There are none.")}
    paths = []
    for first, last, texts in specimens.paths:
        weights = [f"{1 - number / (len(texts) - 1):.1f}" for number in range(len(texts))]
        steps = [
            {"weight": weight, "text": text, "is_same": text == before}
            for weight, text, before in zip(weights, texts, [None, *texts], strict=False)
        ]
        paths.append({"first": first, "last": last, "steps": steps})
    return {"absent": None, "paths": paths}


def _configuration(config: Config, log: Sequence[Mapping]) -> dict[str, Any]:
    """What differs from the defaults and the system's row, then everything."""
    values = config_keys.flatten(config)
    plain = config_keys.flatten(configuration.override(Config(), system=config.system))
    differing = [
        (key, _yaml(value), _yaml(plain[key]))
        for key, value in values.items()
        if value != plain[key]
    ]
    start = next((row for row in log if row.get("event") == "start"), {})
    machine = [
        (title, str(start[key]))
        for title, key in (
            ("device", "device"),
            ("precision", "precision"),
            ("parameters", "parameters"),
            ("vocabulary", "vocabulary"),
            ("steps an epoch", "steps_per_epoch"),
            ("mindspore", "mindspore"),
            ("python", "python"),
            ("mindspore_cvae", "version"),
        )
        if key in start
    ]
    splits = start.get("splits")
    if isinstance(splits, dict):
        for name, counts in splits.items():
            if isinstance(counts, dict):
                numbers = ", ".join(f"{value} {key}" for key, value in counts.items() if value)
                machine.append((f"{name} split", numbers))
    text = yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True)
    return {"differing": differing, "machine": machine, "text": text}


def _yaml(value: object) -> str:
    return value if isinstance(value, str) else config_options.shown(value)
