"""A run on one page: ``RUN/report.html``, written when training ends.

``python -m mindspore_cvae report --run RUN`` writes it again, for instance after an evaluation. The
page needs no network and no other file. What a run does not have is left out, with a word why.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from mindspore_cvae import __version__
from mindspore_cvae.common.files import write_atomically
from mindspore_cvae.config import keys as config_keys
from mindspore_cvae.config import layers as configuration
from mindspore_cvae.config import options as config_options
from mindspore_cvae.config.keys import Config
from mindspore_cvae.errors import InputError, warn_user
from mindspore_cvae.evaluation.columns import COLUMNS, PAPER, SOUND, UNSOUND, VALID
from mindspore_cvae.report.charts import Line, Point, gallery, line_chart, scatter
from mindspore_cvae.report.page import Html, document, element, joined, sentence, shortened, table
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
    folder: str | Path, checkpoint: str = "best", config: Config | None = None
) -> Path:
    """Write ``RUN/report.html``, whole or not at all.

    Args:
        folder: the run.
        checkpoint: whose model makes the specimens: ``best`` or ``last``.
        config: from :func:`runs.folder.read_config`; None takes the run's own.

    Returns:
        The page's path.

    Raises:
        InputError: The folder is no run.
        OSError: The page cannot be written.
    """
    folder = Path(folder)
    config = runs_folder.read_config(folder) if config is None else config
    specimens = _specimens(folder, checkpoint, config)
    text = render(folder, config, specimens)
    # A path may hold bytes that are no UTF-8.
    write_atomically(folder / runs_folder.REPORT, text.encode("utf-8", "replace"))
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


def render(folder: Path, config: Config, specimens: Specimens | str) -> str:
    """The page of a run.

    Args:
        folder: the run.
        config: its configuration.
        specimens: what its model makes; a text says why there is none.
    """
    log = runs_folder.read_log(folder)
    name = folder.resolve().name
    sections = [
        ("metrics", "Metrics", _metrics(folder, log, config.slots)),
        ("epochs", "By epoch", _epochs(log)),
        ("training", "Training", _training(log)),
        ("map", "Latent space", _map(specimens)),
        ("samples", "Samples", _samples(specimens)),
        ("reconstructions", "Reconstructions", _reconstructions(specimens)),
        ("interpolations", "Interpolations", _paths(specimens)),
        ("configuration", "Configuration", _configuration(config, log)),
    ]
    links = [element("a", title, href=f"#{anchor}") for anchor, title, _ in sections]
    header = element(
        "header",
        element("div", "mindspore_cvae \N{MIDDLE DOT} report of a run", class_="kicker"),
        element("h1", sentence_free(name)),
        element("p", _subtitle(config, log), class_="lead"),
        element("nav", *links, aria_label="Sections"),
        _facts(folder, log, config),
    )
    body = [
        element("section", element("h2", title), *content, id=anchor)
        for anchor, title, content in sections
    ]
    footer = element(
        "footer",
        f"Written by mindspore_cvae {__version__}. After an evaluation, ",
        element("code", "python -m mindspore_cvae report --run RUN"),
        " writes this page again with its metrics.",
    )
    return document(
        f"{name} \N{MIDDLE DOT} {config.system}", header, element("main", *body), footer
    )


def sentence_free(text: str) -> Html:
    """A name, kept apart from the direction of writing around it."""
    return element("bdi", text)


def _subtitle(config: Config, log: Sequence[Mapping]) -> str:
    corpus = "the embedded corpus" if config.data.dir is None else config.data.dir
    parts = [f"System {config.system}, seed {config.seed}, trained on {corpus}"]
    steps = _last(log, "step", "step") or _last(log, "valid", "step") or 0
    end: Mapping = next(
        (row for row in reversed(log) if row.get("event") in ("end", "start", "resume")), {}
    )
    epochs = len({row.get("epoch") for row in log if row.get("event") == "valid"} - {0, None})
    parts.append(f"{_count(steps, 'step')}, {_count(epochs, 'epoch')} validated")
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


def _facts(folder: Path, log: Sequence[Mapping], config: Config) -> Html | None:
    """The few numbers to read first."""
    metrics, source = _results(folder, log)
    keys = ["neg_elbo", "ppl", "kl", "mi", "au"]
    keys += [key for key in ("neg_elbo_valid", "iw_ppl", "true_ppl") if key in metrics]
    facts = []
    for key in keys:
        value = _shown(metrics.get(key))
        if value is not None:
            standing = COLUMNS[key].standing_of(config.slots)
            note = element("small", standing)
            if key == "au":
                note = element("small", f"of {config.model.latent_size}")
            body = element("dd", value, note)
            facts.append(element("div", element("dt", COLUMNS[key].title), body))
    if not facts:
        return None
    caption = element("p", f"Numbers of the {source}.", class_="note", style="margin-top:8px")
    return joined(element("dl", *facts, class_="facts"), caption)


def _shown(value: object) -> str | None:
    """A metric as the page prints it; None for what is no number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10**15 else None
    if not math.isfinite(value):
        return None
    text = f"{value:,.2f}" if abs(value) < 1e6 else f"{value:.3g}"
    return text.replace("-", "\N{MINUS SIGN}")


def _absent(text: str) -> tuple[Html]:
    return (element("p", text, class_="absent"),)


def _metrics(folder: Path, log: Sequence[Mapping], slots: System) -> Sequence[Html]:
    """A table for each split that was evaluated; else of the best validation."""
    parts = []
    for split, title in (("test", "Test split"), ("valid", "Validation split")):
        metrics = runs_folder.read_metrics(folder, runs_folder.metrics_name(split))
        if metrics:
            parts += [element("h3", title), *_metric_table(metrics, slots)]
    if not parts:
        best = _best(log)
        if not best:
            return _absent("Nothing was validated yet.")
        chosen = "best" if best.get("best") is True else "last"
        title = f"Validation after epoch {best.get('epoch')}, the {chosen} one"
        parts = [element("h3", title), *_metric_table(best, slots)]
        command = f"python eval.py --run {folder} --iw_samples 512"
        parts.append(
            element(
                "p",
                "The test split was not evaluated; ",
                element("code", command),
                " does that, importance-weighted bounds included.",
                class_="note",
                style="margin-top:12px",
            )
        )
    ngram = runs_folder.read_metrics(folder, runs_folder.NGRAM)
    protocols = ngram.get("protocols")
    if isinstance(protocols, dict):
        parts += _ngram(protocols)
    return parts


def _metric_table(metrics: Mapping, slots: System) -> Sequence[Html]:
    rows: list[tuple] = []
    for title, group in (("The paper's estimators", PAPER), ("Valid columns", VALID)):
        before = len(rows)
        for column in group:
            value = _shown(metrics.get(column.key))
            if value is not None:
                standing = column.standing_of(slots)
                style = "good" if standing in SOUND else "warn" if standing in UNSOUND else ""
                badge = element("span", standing, class_=f"badge {style}")
                rows.append((column.title, value, badge, column.meaning))
        if len(rows) > before:
            rows.insert(before, (title,))
    facts = [f"{_shown(metrics.get(key))} {key}" for key in ("sentences", "tokens", "draws")]
    note = f"{', '.join(facts)} a sentence; checkpoint of step {_shown(metrics.get('step'))}."
    if "data_dir" in metrics:
        note += f" Text: {shortened(str(metrics['data_dir'] or 'the embedded corpus'))}."
    return (
        element("p", note, class_="note"),
        table(("", "value", "what it is", "meaning"), rows, "metrics"),
    )


def _ngram(protocols: Mapping) -> Sequence[Html]:
    rows = []
    for name, result in protocols.items():
        if isinstance(result, dict):
            numbers = [
                _shown(result.get(key)) or "\N{EN DASH}"
                for key in ("forward_ppl", "reverse_ppl_test", "reverse_ppl_train")
            ]
            rows.append((name, *numbers))
    head = ("protocol", "forward PPL", "reverse PPL, test", "reverse PPL, train")
    return (element("h3", "5-gram language models (Table 4)"), table(head, rows, "ngram"))


def _epochs(log: Sequence[Mapping]) -> Sequence[Html]:
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
    if not any(charts):
        return _absent("There was no validation, so there are no curves.")
    note = (
        "Validation split; the ringed epoch is that of the best checkpoint. KL, MI and active "
        "units near zero mean that the decoder ignores z (posterior collapse)."
    )
    return (element("p", note, class_="note"), gallery(*charts))


def _is_index(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _training(log: Sequence[Mapping]) -> Sequence[Html]:
    rows = [row for row in log if row.get("event") == "step" and _is_index(row.get("step"))]
    steps = [row["step"] for row in rows]
    charts, constant = [], []
    for key, title, note in TERMS:
        line = Line(title, steps, [row.get(key) for row in rows])
        charts.append(line_chart(title, note, [line]))
        if charts[-1] is None:
            constant.append(title)
    if not any(charts):
        return _absent("No training step was logged.")
    note = "Every term of the loss over training steps, from the rows of log.jsonl"
    note += ", means over stretches with the range around them." if len(steps) > 220 else "."
    if constant:
        note += f" This system has no {', no '.join(constant)}."
    return (element("p", note, class_="note"), gallery(*charts))


def _map(specimens: Specimens | str) -> Sequence[Html]:
    if isinstance(specimens, str):
        return _absent(specimens)
    if specimens.map is None:
        return _absent(specimens.absent.get("map", "No map was made."))
    first, second = (f"{share:.0%}" for share in specimens.explained)
    note = (
        f"Posterior means of {len(specimens.mapped):,} validation sentences, projected to the two "
        f"directions of most variance (principal components, with {first} and {second} of it). "
        "A sentence shows where the pointer rests."
    )
    figures = []
    for groups in specimens.groups:
        points = [
            Point(float(x), float(y), int(group), text)
            for (x, y), group, text in zip(
                specimens.map, groups.numbers, specimens.mapped, strict=True
            )
        ]
        figures.append(
            scatter(
                f"By {groups.by}",
                f"{len(points):,} sentences",
                points,
                groups.names,
                groups.ordered,
            )
        )
    return (element("p", note, class_="note"), element("div", *figures, class_="maps"))


def _samples(specimens: Specimens | str) -> Sequence[Html]:
    if isinstance(specimens, str):
        return _absent(specimens)
    items = [element("li", sentence(text)) for text in specimens.samples]
    note = "z drawn from the prior, words drawn from the model (temperature 1, seed 0)."
    return (element("p", note, class_="note"), element("ol", *items, class_="samples"))


def _reconstructions(specimens: Specimens | str) -> Sequence[Html]:
    if isinstance(specimens, str):
        return _absent(specimens)
    if not specimens.reconstructions:
        return _absent(specimens.absent.get("reconstructions", "There are none."))
    items = []
    for text, decoded in specimens.reconstructions:
        items.append(
            element(
                "li",
                element("span", "sentence", class_="tag"),
                sentence(text),
                element("span", "decoded", class_="tag"),
                element("bdi", compared(text, decoded), class_="sentence"),
            )
        )
    note = (
        "Validation sentences, and what is decoded greedily from their posterior means; words that "
        "differ are marked."
    )
    return (element("p", note, class_="note"), element("ol", *items, class_="pairs"))


def compared(original: str, text: str) -> Html:
    """A text with the words marked that the original does not have in their places."""
    before, after = shortened(original).split(), shortened(text).split()
    parts: list[object] = []
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for kind, _, _, begin, end in matcher.get_opcodes():
        words = " ".join(after[begin:end])
        if words:
            parts += [words if kind == "equal" else element("mark", words), " "]
    return joined(*parts[:-1]) if parts else Html("\N{EMPTY SET}")


def _paths(specimens: Specimens | str) -> Sequence[Html]:
    if isinstance(specimens, str):
        return _absent(specimens)
    if not specimens.paths:
        return _absent(specimens.absent.get("paths", "There are none."))
    note = (
        "z = \N{GREEK SMALL LETTER LAMDA} z\N{SUBSCRIPT ONE} + (1 \N{MINUS SIGN} "
        "\N{GREEK SMALL LETTER LAMDA}) z\N{SUBSCRIPT TWO}, decoded greedily (Section 4.5, Table 6 "
        "of the paper); each end is the mean of draws from the posterior of a validation sentence."
    )
    parts = [element("p", note, class_="note")]
    for first, last, texts in specimens.paths:
        items = [
            element("li", element("span", "from", class_="tag"), sentence(first), class_="end")
        ]
        before = None
        for number, text in enumerate(texts):
            weight = 1 - number / (len(texts) - 1)
            items.append(
                element(
                    "li",
                    element("span", f"{weight:.1f}", class_="tag"),
                    sentence(text),
                    class_="same" if text == before else None,
                )
            )
            before = text
        items.append(
            element("li", element("span", "to", class_="tag"), sentence(last), class_="end")
        )
        parts.append(element("ol", *items, class_="path"))
    return parts


def _configuration(config: Config, log: Sequence[Mapping]) -> Sequence[Html]:
    """What differs from the defaults and the system's row, then everything."""
    values = config_keys.flatten(config)
    plain = config_keys.flatten(configuration.override(Config(), system=config.system))
    rows = [
        (element("code", key), element("code", _yaml(value)), element("code", _yaml(plain[key])))
        for key, value in values.items()
        if value != plain[key]
    ]
    parts = []
    if rows:
        parts.append(element("p", "Keys that differ from their defaults.", class_="note"))
        parts.append(table(("key", "value", "default"), rows, "keys"))
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
    if machine:
        parts += [element("h3", "Data and environment"), table((), machine, "keys")]
    text = yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True)
    parts.append(
        element("details", element("summary", "The whole configuration"), element("pre", text))
    )
    return parts


def _yaml(value: object) -> str:
    return value if isinstance(value, str) else config_options.shown(value)
