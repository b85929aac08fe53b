"""What each column of the tables means, and which are bounds; the long form is docs/metrics.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mindspore_cvae.systems import System


class Metric(NamedTuple):
    """A column of the tables as the page explains it."""

    key: str
    title: str
    meaning: str | Callable[[System], str]
    """In words; by a system's slots where it depends on them."""
    standing: str | Callable[[System], str]
    """What it bounds."""


def said(text: str | Callable[[System], str], slots: System) -> str:
    """A text of :class:`Metric` for a system's slots."""
    return text if isinstance(text, str) else text(slots)


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


def _meaning_of_kl(slots: System) -> str:
    if slots.posterior == "none":
        return "Nothing to diverge: there is no latent variable."
    if slots.posterior == "gaussian":
        return "KL(q(z|x) || p(z)) in closed form."
    if slots.has_critics:
        return (
            "KL(q(z|x) || p(z)) as the trained critic f reads it: in expectation less than there "
            "is, by a gap that nothing limits."
        )
    return "Counted as 0, though q(z|x) is a point: there is no divergence in the objective."


def _meaning_of_mi(slots: System) -> str:
    if slots.has_critics and slots.posterior != "gaussian":
        return (
            "KL \N{MINUS SIGN} KL of q(z), a difference of two critics' estimates: it can be "
            "negative."
        )
    return "With q(z) aggregated within batches of 32 sentences, so at most ln 32 = 3.47."


METRICS = {
    "The paper's estimators": (
        Metric(
            "neg_elbo",
            "\N{MINUS SIGN}ELBO",
            "Reconstruction + KL, nats a sentence, by the paper's estimators. It is no better a "
            "bound than the KL in it.",
            _of_elbo,
        ),
        Metric("ppl", "PPL", "The same as a perplexity a predicted token.", _of_elbo),
        Metric(
            "rec",
            "Reconstruction",
            "\N{MINUS SIGN}log p(x|z) with z from q(z|x): z has seen the sentence.",
            lambda slots: "exact" if slots.posterior == "none" else "no bound",
        ),
        Metric(
            "kl",
            "KL",
            _meaning_of_kl,
            _of_kl,
        ),
        Metric("kl_z", "KL of q(z)", "KL of the aggregate posterior and the prior.", "estimate"),
        Metric(
            "mi",
            "MI",
            _meaning_of_mi,
            "estimate",
        ),
        Metric(
            "au",
            "Active units",
            "Latent dimensions whose posterior mean varies over sentences (variance 0.01 or more).",
            "count",
        ),
    ),
    "Valid columns": (
        Metric("kl_exact", "KL, exact", "In closed form: q(z|x) is a Gaussian here.", "exact"),
        Metric(
            "neg_elbo_valid",
            "\N{MINUS SIGN}ELBO, valid",
            "Reconstruction + exact KL; at least \N{MINUS SIGN}log p(x) in expectation.",
            _of_likelihood,
        ),
        Metric(
            "mi_exact",
            "MI, exact densities",
            "With q(z) aggregated over the whole split; at most ln N.",
            "exact",
        ),
        Metric(
            "iw_nll",
            "IW-NLL",
            "Importance-weighted \N{MINUS SIGN}log p(x), nats a sentence: a bound for any "
            "posterior, which falls to the NLL as draws grow.",
            _of_likelihood,
        ),
        Metric(
            "iw_ppl",
            "IW-PPL",
            "The same as a perplexity a predicted token.",
            _of_likelihood,
        ),
        Metric(
            "ess",
            "Effective samples",
            "Of the importance weights; near 1, a single draw decides and the bound is loose.",
            "diagnostic",
        ),
        Metric(
            "kl_refit",
            "KL, fresh critic",
            "The dual of a critic fitted to half of the codes, read on the other half.",
            "lower bound",
        ),
        Metric("kl_z_refit", "KL of q(z), fresh", "The same for q(z).", "lower bound"),
        Metric(
            "true_nll",
            "True NLL",
            "Of the corpus itself, whose probabilities are known. A column that lies below it is "
            "no bound.",
            "floor",
        ),
        Metric("true_ppl", "True PPL", "The same as a perplexity.", "floor"),
    ),
}
"""Every column in its order, under two titles."""

SOUND = ("exact", "upper bound", "lower bound", "floor")
"""Standings of columns that can be relied on for what they say."""
UNSOUND = ("no bound", "estimate")
"""Standings of those that bound nothing."""
