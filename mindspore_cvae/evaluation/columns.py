"""The columns of every table: their keys, titles and digits, what they mean, what they bound.

The one table of them: what ``eval`` prints, the report, the reproduction and docs/use/metrics.md
read it. Nothing here imports MindSpore.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mindspore_cvae.systems import SYSTEMS, System

SOUND = ("exact", "upper bound", "lower bound", "floor")
"""Standings of columns that can be relied on for what they say."""
UNSOUND = ("no bound", "estimate")
"""Standings of those that bound nothing."""


def style_of(standing: str) -> str:
    """The class of a standing's badge on a page."""
    return "good" if standing in SOUND else "warn" if standing in UNSOUND else ""


@dataclass(frozen=True)
class Column:
    """A number of a table.

    Attributes:
        key: its name in the results of a run.
        title: as tables print it.
        digits: after the point, where the paper prints it.
        better: the direction of the paper's arrow, ``up``, ``down`` or ``""``.
        meaning: in words.
        standing: what it bounds, by a system's slots where it depends on them; see :data:`SOUND`.
        of: the key of the paper's column that this one is the valid form of, or ``""``.
    """

    key: str
    title: str
    digits: int = 2
    better: str = ""
    meaning: str = ""
    standing: str | Callable[[System], str] = ""
    of: str = ""

    def standing_of(self, slots: System) -> str:
        """What it bounds for a system."""
        return self.standing if isinstance(self.standing, str) else self.standing(slots)


def _of_elbo(slots: System) -> str:
    if slots.posterior == "none":
        return "exact"
    return "upper bound" if slots.posterior == "gaussian" else "no bound"


def _of_kl(slots: System) -> str:
    if slots.posterior in ("gaussian", "none"):
        return "exact"
    return "estimate" if slots.has_critics else "no bound"


def _of_likelihood(slots: System) -> str:
    return "exact" if slots.posterior == "none" else "upper bound"


def _of_reconstruction(slots: System) -> str:
    return "exact" if slots.posterior == "none" else "no bound"


PAPER = (
    Column(
        "neg_elbo",
        "-ELBO",
        1,
        "down",
        "Reconstruction + KL, nats a sentence, by the paper's estimators. It is no better a bound "
        "than the KL in it.",
        _of_elbo,
    ),
    Column(
        "ppl", "PPL", 2, "down", "The same as a perplexity a predicted token (`</s>` is).", _of_elbo
    ),
    Column(
        "ppl_word",
        "PPL a word",
        2,
        "down",
        "Where `data.unit` is not `word`: the same nats as a perplexity a word between blanks of "
        "the text, one end a sentence counted, which is comparable between units; null where the "
        "text has no blanks.",
        _of_elbo,
    ),
    Column(
        "ppl_character",
        "PPL a character",
        2,
        "down",
        "The same a character, blanks counted: for text without blanks. Its logarithm to base 2 is "
        "bits a character.",
        _of_elbo,
    ),
    Column(
        "rec",
        "reconstruction",
        1,
        "",
        "Mean of -log p(x|z) over draws z from q(z|x): z has seen the sentence.",
        _of_reconstruction,
    ),
    Column(
        "kl",
        "KL",
        2,
        "up",
        "KL(q(z|x) || p(z)). Gaussian rows: in closed form. Rows with critics: mean f(x, z_q) - "
        "mean exp f(x, z_p) + 1 (Eq. 3), in expectation less than there is, by a gap that nothing "
        "limits. AE: counted as 0, though q(z|x) is a point.",
        _of_kl,
    ),
    Column(
        "mi",
        "MI",
        2,
        "up",
        "Gaussian rows: E[log q(z|x) - log q(z)] with q(z) aggregated within batches of 32 "
        "sentences of like length, so at most ln 32 = 3.47. Rows with critics: `kl` - `kl_z`, a "
        "difference of two critics' estimates, which can be negative.",
        "estimate",
    ),
    Column(
        "kl_z",
        "KL of q(z)",
        2,
        "",
        "KL of the aggregate posterior and the prior: the dual with g(z) (Eq. 7); Gaussian rows: "
        "`kl` - `mi`.",
        "estimate",
    ),
    Column(
        "au",
        "active units",
        1,
        "up",
        "Latent dimensions whose posterior mean has a variance of 0.01 or more over sentences.",
        "count",
    ),
)
"""The paper's estimators, as the paper and its released code compute them."""
VALID = (
    Column(
        "neg_elbo_valid",
        "valid -ELBO",
        1,
        "down",
        "`rec` + `kl_exact`: at least -log p(x) in expectation.",
        _of_likelihood,
        "neg_elbo",
    ),
    Column(
        "kl_exact",
        "exact KL",
        2,
        "",
        "KL(q(z|x) || p(z)) in closed form where q(z|x) is exactly Gaussian: the Gaussian rows and "
        "the affine implicit posterior, N(W_h h + b, W_eps W_eps^T), if `model.noise_size` is not "
        "below `model.latent_size`.",
        "exact",
        "kl",
    ),
    Column(
        "mi_exact",
        "exact MI",
        2,
        "",
        "E[log q(z|x) - log q(z)] with q(z) aggregated over the whole split, up to the error of "
        "sampling; at most ln N (`mi_exact_ceiling`).",
        "exact",
        "mi",
    ),
    Column(
        "iw_nll",
        "IW-NLL",
        1,
        "down",
        "-log 1/K sum_k p(x|z_k) p(z_k) / r(z_k|x), z_k from a proposal r, nats a sentence: in "
        "expectation at least -log p(x) for any posterior, to which it falls as K grows.",
        _of_likelihood,
    ),
    Column(
        "iw_ppl",
        "IW-PPL",
        2,
        "down",
        "The same as a perplexity a predicted token.",
        _of_likelihood,
    ),
    Column(
        "iw_ppl_word",
        "IW-PPL a word",
        2,
        "down",
        "IW-NLL as a perplexity a word between blanks, where `data.unit` is not `word`.",
        _of_likelihood,
        "ppl_word",
    ),
    Column(
        "iw_ppl_character",
        "IW-PPL a character",
        2,
        "down",
        "The same a character.",
        _of_likelihood,
        "ppl_character",
    ),
    Column(
        "ess",
        "effective samples",
        1,
        "up",
        "Of the K importance weights, mean over sentences; near 1, a single draw decides and the "
        "bound is loose.",
        "diagnostic",
    ),
    Column(
        "kl_refit",
        "KL, fresh critic",
        2,
        "",
        "The dual of a critic fitted to half of the codes, read on the other half; its values are "
        "cut so that at least 100 of the prior's draws would carry the largest.",
        "lower bound",
    ),
    Column("kl_z_refit", "KL of q(z), fresh", 2, "", "The same for q(z).", "lower bound"),
    Column(
        "grammatical",
        "grammatical samples",
        2,
        "up",
        "Share of sentences, z from the prior and words from the model (temperature 1), that the "
        "grammar of the embedded corpus can produce; of 500, or eval.grammatical_samples.",
        "count",
    ),
    Column(
        "true_nll",
        "true NLL",
        1,
        "",
        "Of the corpus itself, whose probabilities are known. A column that lies below it is no "
        "bound.",
        "floor",
    ),
    Column("true_ppl", "true PPL", 2, "", "The same as a perplexity.", "floor"),
)
"""Columns of which it can be said what they bound; empty where a run has none."""
COLUMNS = {column.key: column for column in (*PAPER, *VALID)}
"""Every column by its key."""
MEANS = ("rec", "kl", "neg_elbo", "kl_exact", "neg_elbo_valid", "iw_nll", "true_nll")
"""Columns that are means over sentences, and have a standard error ``<key>_error`` beside them."""


def chosen(*keys: str) -> tuple[Column, ...]:
    """Columns by their keys."""
    return tuple(COLUMNS[key] for key in keys)


def printed_rows() -> list[tuple[str, str | None, str | None]]:
    """Rows of a table with the paper's estimators and the valid ones side by side: title, key of
    the one, key of the other."""
    valid_of = {column.of: column.key for column in VALID if column.of}
    rows = [(column.title, column.key, valid_of.get(column.key)) for column in PAPER]
    return rows + [(column.title, None, column.key) for column in VALID if not column.of]


def markdown() -> str:
    """The columns as two tables of Markdown, as docs/use/metrics.md has them."""
    parts = []
    for title, columns in (("The paper's estimators", PAPER), ("The valid columns", VALID)):
        parts += [f"### {title}", _table(columns)]
    return "\n\n".join(parts) + "\n"


def _table(columns: Iterable[Column]) -> str:
    lines = ["| key | what it is | what it bounds |", "|---|---|---|"]
    for column in columns:
        meaning = column.meaning.replace("|", r"\|")
        lines.append(f"| `{column.key}` | {meaning} | {_standings(column)} |")
    return "\n".join(lines)


def _standings(column: Column) -> str:
    """What a column bounds in words, for all systems of the table."""
    by_standing: dict[str, list[str]] = {}
    for name, slots in SYSTEMS.items():
        by_standing.setdefault(column.standing_of(slots), []).append(name)
    if len(by_standing) == 1:
        return next(iter(by_standing))
    # The most common one needs no names.
    *few, most = sorted(by_standing, key=lambda standing: len(by_standing[standing]))
    said = [f"{standing} ({', '.join(by_standing[standing])})" for standing in few]
    return "; ".join([*said, f"else {most}"])
