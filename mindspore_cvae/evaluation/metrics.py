"""Evaluation of a split: the tables' columns, from the scores of its sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mindspore_cvae.common import randomness
from mindspore_cvae.common.numbers import standard_error
from mindspore_cvae.config.keys import Config
from mindspore_cvae.data import grammar
from mindspore_cvae.data.corpus import Corpus, Split, true_scores
from mindspore_cvae.data.widths import corpus_widths
from mindspore_cvae.errors import InputError
from mindspore_cvae.evaluation import bounds, estimators
from mindspore_cvae.evaluation.columns import MEANS
from mindspore_cvae.evaluation.fresh_critics import FEWEST, refitted_kl
from mindspore_cvae.evaluation.importance import ImportanceSampler, ImportanceScores, without_latent
from mindspore_cvae.evaluation.proposals import FAMILIES
from mindspore_cvae.evaluation.scoring import Scorer, SentenceScores, gaussian_moments
from mindspore_cvae.generation.decoding import SentenceDecoder, prior_codes
from mindspore_cvae.generation.ways import Decoding
from mindspore_cvae.runs.loading import LoadedRun, load_run

INFORMATION_DRAWS = 4
"""Draws of each sentence's q(z|x) for mi_exact."""


def kl_columns(scores: SentenceScores, slots) -> tuple:
    """KL and KL_z of each sentence by the paper's estimators, (N,) each; None where there is none.

    Gaussian rows: closed form, and KL - MI; rows with critics: the dual with f and with g; AE and
    language model: 0 and none.
    """
    if slots.posterior == "gaussian":
        mean, log_variance = gaussian_moments(scores.statistics.astype(np.float64))
        kl = estimators.gaussian_kl(mean, log_variance)
        # Sentences of like length share a batch, as in the released evaluation.
        order = np.argsort(scores.tokens, kind="stable")
        information = np.empty_like(kl)
        information[order] = estimators.gaussian_mutual_information(
            scores.codes[order, 0], mean[order], log_variance[order]
        )
        return kl, kl - information
    if scores.critics is not None:
        f_posterior, exp_f_prior, g_posterior, exp_g_prior = scores.critics
        kl = estimators.dual_kl(f_posterior, exp_f_prior)
        return kl, estimators.dual_kl(g_posterior, exp_g_prior)
    if slots.posterior in ("deterministic", "none"):
        return np.zeros_like(scores.reconstruction), None
    return None, None


def paper_metrics(scores: SentenceScores, slots) -> dict:
    """The paper's columns: rec, kl, neg_elbo, ppl, kl_z, mi, au; null where a system has none.

    Means a sentence in nats; perplexity a predicted token.
    """
    kl, kl_z = kl_columns(scores, slots)
    tokens = int(scores.tokens.sum())
    columns: dict[str, Any] = dict.fromkeys(("rec", "kl", "neg_elbo", "ppl", "kl_z", "mi", "au"))
    columns["rec"] = float(scores.reconstruction.mean())
    if kl is not None:
        bound = estimators.negative_elbo(scores.reconstruction, kl)
        columns["kl"] = float(kl.mean())
        columns["neg_elbo"] = float(bound.mean())
        columns["ppl"] = estimators.perplexity(bound.sum(), tokens)
    if kl_z is not None:
        columns["kl_z"] = float(kl_z.mean())
        columns["mi"] = columns["kl"] - columns["kl_z"]
    means = scores.posterior_mean
    if slots.posterior == "gaussian":
        means, _ = gaussian_moments(scores.statistics)
    if slots.posterior != "none":
        columns["au"] = estimators.active_units(means)
    return columns


def valid_metrics(scores: SentenceScores, slots, seed: int) -> dict:
    """The exact columns: kl_exact, neg_elbo_valid, mi_exact and its ceiling ln N; null where q(z|x)
    is not Gaussian, but for the -log p(x) of a language model. Means a sentence in nats; ``seed``
    decides the draws of mi_exact."""
    columns = dict.fromkeys(("kl_exact", "neg_elbo_valid", "mi_exact", "mi_exact_ceiling"))
    if slots.posterior == "none":
        columns["neg_elbo_valid"] = float(scores.reconstruction.mean())
    if scores.exact is not None:
        kl = bounds.gaussian_kl(scores.exact)
        columns["kl_exact"] = float(kl.mean())
        columns["neg_elbo_valid"] = float(
            estimators.negative_elbo(scores.reconstruction, kl).mean()
        )
        noise = _information_noise(seed, *scores.exact.mean.shape)
        columns["mi_exact"] = float(bounds.mutual_information(scores.exact, noise).mean())
        columns["mi_exact_ceiling"] = math.log(len(scores.tokens))
    return columns


def _information_noise(seed: int, sentences: int, size: int) -> np.ndarray:
    """(N, S, Z) standard normal numbers, keyed by the number of each sentence."""
    sources = (randomness.generator(seed, "information", number) for number in range(sentences))
    return np.stack([randomness.normal(source, INFORMATION_DRAWS, size) for source in sources])


def importance_metrics(importance: ImportanceScores, tokens: int) -> dict:
    """iw_nll (nats a sentence), iw_ppl (a predicted token), iw_samples, iw_sentences (how many),
    ess; what the proposals were: iw_proposal, iw_inflation, iw_widening, null where there is no
    z."""
    chosen = importance.choice
    return {
        "iw_nll": float(importance.nll.mean()),
        "iw_ppl": estimators.perplexity(importance.nll.sum(), tokens),
        "iw_samples": importance.draws,
        "iw_sentences": len(importance.nll),
        "ess": float(importance.effective_samples.mean()),
        "iw_proposal": chosen and chosen.family,
        "iw_inflation": chosen and chosen.inflation,
        "iw_widening": chosen and chosen.widening,
    }


def standard_errors(values: dict[str, np.ndarray]) -> dict[str, float | None]:
    """``<name>_error`` of each mean over N sentences: their deviation over sqrt(N), null for one
    sentence. It says how far another sample of sentences would lie, of the same model."""
    return {
        f"{name}_error": (float(standard_error(column)) if len(column) > 1 else None)
        for name, column in values.items()
        if name in MEANS
    }


class Weighing(NamedTuple):
    """How the importance-weighted bound is computed."""

    draws: int
    """K, of z a sentence."""
    families: tuple[str, ...] = tuple(FAMILIES)
    """Of proposals, among which the tuning split chooses."""
    sentences: int | None = None
    """Only the first so many have the bound; None for all."""


def evaluate(
    evaluator: Scorer,
    split: Split,
    samples: int,
    sentences: int | None = None,
    weighing: Weighing | None = None,
    tuning: Split | None = None,
    critic_sizes=None,
) -> tuple[dict, dict[str, np.ndarray]]:
    """The metrics of a split, and the values of each sentence that they are means of.

    Args:
        evaluator: of the model.
        split: the split.
        samples: draws of z a sentence.
        sentences: only the first so many; None for all.
        weighing: how the importance-weighted bound is computed; None leaves it out.
        tuning: another split, on which the bound's proposals are tuned; needed with ``weighing``.
        critic_sizes: a ``config.Model``, if fresh critics are to be fitted to the codes.

    Returns:
        The columns of :func:`paper_metrics`, :func:`valid_metrics`, :func:`standard_errors` and,
        where asked for, :func:`importance_metrics` and
        :func:`evaluation.fresh_critics.refitted_kl`; ``sentences``, ``tokens``, ``samples`` (as
        asked for), ``draws`` (taken a sentence: one where q(z|x) is a Gaussian or a point), and on
        a corpus whose probabilities are known ``true_nll`` and ``true_ppl``. Then arrays (N,) by
        name.

    Raises:
        InputError: there are too few sentences to fit fresh critics to.
    """
    total = len(split) if sentences is None else min(sentences, len(split))
    if critic_sizes is not None and total < FEWEST:
        raise InputError(f"fresh critics need {FEWEST} sentences, and {split.name} has {total}")
    scores = evaluator.score(split, samples, sentences)
    tokens = int(scores.tokens.sum())
    metrics = paper_metrics(scores, evaluator.slots) | valid_metrics(
        scores, evaluator.slots, evaluator.seed
    )
    values = {"line": split.lines[:total], "tokens": scores.tokens, "rec": scores.reconstruction}
    kl, kl_z = kl_columns(scores, evaluator.slots)
    values |= {name: value for name, value in (("kl", kl), ("kl_z", kl_z)) if value is not None}
    if kl is not None:
        values["neg_elbo"] = estimators.negative_elbo(scores.reconstruction, kl)
    if scores.exact is not None:
        values["kl_exact"] = bounds.gaussian_kl(scores.exact)
        values["neg_elbo_valid"] = scores.reconstruction + values["kl_exact"]
    elif evaluator.slots.posterior == "none":
        values["neg_elbo_valid"] = scores.reconstruction
    if weighing is not None:
        assert tuning is not None, "proposals are tuned on another split"
        first, draws = weighing.sentences, weighing.draws
        if evaluator.slots.posterior == "none":
            importance = without_latent(scores.reconstruction[:first], draws)
        else:
            sampler = ImportanceSampler(evaluator)
            choice = sampler.choose(tuning, samples, draws, weighing.families)
            importance = sampler.score(split, scores.first(first), draws, choice)
        metrics |= importance_metrics(importance, int(scores.tokens[:first].sum()))
        values |= {"iw_nll": importance.nll, "ess": importance.effective_samples}
    if critic_sizes is not None and evaluator.slots.posterior != "none":
        metrics |= refitted_kl(scores.hidden, scores.codes, critic_sizes, evaluator.seed)
    metrics |= {"sentences": total, "tokens": tokens, "samples": samples, "draws": scores.draws}
    truth = true_scores(split, total)
    if truth is not None:
        metrics |= {"true_nll": truth.nll, "true_ppl": truth.perplexity}
        values["true_nll"] = -np.asarray(split.log_probabilities)[:total]
    return metrics | standard_errors(values), values


def lines_of(split: Split) -> dict[str, float | int]:
    """What became of a split's lines: ``read``, ``empty``, ``dropped`` and ``truncated`` lines, and
    ``unk_rate``, the share of words that the vocabulary lacks. A score on some of the sentences
    must not look like one on all."""
    words = int(split.lengths.sum())
    counts = {name: split.counts.get(name, 0) for name in ("read", "empty", "dropped", "truncated")}
    return {**counts, "unk_rate": split.counts.get("unknown", 0) / words if words else 0.0}


def text_perplexities(
    values: Mapping[str, np.ndarray], text_lengths: np.ndarray
) -> dict[str, float | None]:
    """``ppl_word`` and ``ppl_character`` of the -ELBO, ``iw_ppl_word`` and ``iw_ppl_character`` of
    the bound: of the words between blanks, or the characters, of the text, and an end a sentence.
    A word is None where no sentence has a blank.

    Args:
        values: nats of each sentence, from :func:`evaluate`.
        text_lengths: of a :class:`data.corpus.Split`.
    """
    perplexities: dict[str, float | None] = {}
    for prefix, key in (("", "neg_elbo"), ("iw_", "iw_nll")):
        if key not in values:
            continue
        words, characters = (text_lengths[: len(values[key])] + 1).sum(0)
        has_blanks = (text_lengths[:, 0] > 1).any()
        nats = values[key].sum()
        perplexities[f"{prefix}ppl_word"] = (
            estimators.perplexity(nats, words) if has_blanks else None
        )
        perplexities[f"{prefix}ppl_character"] = estimators.perplexity(nats, characters)
    return perplexities


def grammatical_rate(loaded: LoadedRun, config: Config) -> dict[str, float]:
    """``grammatical``, the share of samples from the prior that the embedded corpus's grammar can
    produce, a reading of samples that needs no judge; its standard error, and of how many."""
    samples = config.eval.grammatical_samples
    way = Decoding("sample", max_words=config.data.max_words)
    z = prior_codes(samples, config.model.latent_size, config.seed)
    decode = SentenceDecoder(loaded.model.decoder, config.eval.rows)
    words = loaded.vocabulary.words
    found = [
        grammar.log_probability([words[number] for number in text]) > -math.inf
        for text in decode(z, way, config.seed)
    ]
    rate = float(np.mean(found))
    error = math.sqrt(rate * (1 - rate) / samples)
    return {"grammatical": rate, "grammatical_error": error, "grammatical_samples": samples}


def evaluate_run(
    folder: Path,
    config: Config,
    corpus: Corpus,
    split: str,
    checkpoint: str,
    weighing: Weighing | None = None,
    refit_critic: bool = False,
) -> tuple[dict, dict[str, np.ndarray]]:
    """Evaluates a run's checkpoint on a split. The device must have been chosen before.

    Args:
        folder: of the run.
        config: its configuration, with the settings of this evaluation.
        corpus: numbered by the run's vocabulary.
        split: ``valid`` or ``test``.
        checkpoint: ``best`` or ``last``; see :func:`runs.loading.load_run`.
        weighing: how the importance-weighted bound is computed, its proposal tuned on another
            split; None leaves it out.
        refit_critic: whether fresh critics are fitted to the codes.

    Returns:
        What :func:`evaluate_loaded` returns.

    Raises:
        InputError: there is no good checkpoint.
    """
    loaded = load_run(folder, checkpoint, config)
    return evaluate_loaded(loaded, config, corpus, split, weighing, refit_critic)


def evaluate_loaded(
    loaded: LoadedRun,
    config: Config,
    corpus: Corpus,
    split: str,
    weighing: Weighing | None = None,
    refit_critic: bool = False,
) -> tuple[dict, dict[str, np.ndarray]]:
    """:func:`evaluate_run` of a run that was loaded.

    Args:
        loaded: the run.
        config, corpus, split, weighing, refit_critic: see :func:`evaluate_run`.

    Returns:
        What :func:`evaluate` returns, the metrics with ``system``, ``split``, ``data_dir`` (None
        for the embedded corpus), ``max_sentences``, ``checkpoint``, ``step``, ``precision``,
        ``amp_level``, ``text`` (the identity of the split, by its content) and what
        :func:`lines_of` returns.
    """
    evaluator = Scorer(loaded.model, config, corpus_widths(corpus, config.data.buckets))
    chosen = {part.name: part for part in corpus.splits}[split]
    metrics, values = evaluate(
        evaluator,
        chosen,
        config.eval.samples,
        config.eval.max_sentences,
        weighing,
        corpus.train if split == "valid" else corpus.valid,
        config.model if refit_critic else None,
    )
    if config.data.dir is None:
        metrics |= grammatical_rate(loaded, config)
    if chosen.text_lengths is not None:
        metrics |= text_perplexities(values, chosen.text_lengths)
    metrics |= {
        **lines_of(chosen),
        "text": corpus.text(split),
        "corpus": corpus.fingerprint(),
        "system": config.system,
        "split": split,
        "data_dir": config.data.dir,
        "max_sentences": config.eval.max_sentences,
        "checkpoint": loaded.checkpoint,
        "step": loaded.step,
        "precision": config.precision,
        "amp_level": config.model.amp_level,
    }
    return metrics, values
