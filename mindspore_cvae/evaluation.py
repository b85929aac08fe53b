"""Evaluation of a split: every sentence decoded from many draws of z, and the tables' columns of
the result.

A sentence is encoded once and its codes are repeated for the draws; graphs have fixed shapes, a few
widths by a fixed number of rows. Noise is keyed by the number of the sentence, so that no number
depends on how sentences and draws are cut into calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mindspore import Tensor, nn, ops

from mindspore_cvae import checkpoints, estimators, noise, objectives
from mindspore_cvae.config import Config
from mindspore_cvae.data.batches import EpochPlan, batches, corpus_widths
from mindspore_cvae.data.corpus import Corpus, Split, true_scores
from mindspore_cvae.errors import warn_user
from mindspore_cvae.loading import load_run
from mindspore_cvae.model import LatentVariableModel
from mindspore_cvae.progress import progress
from mindspore_cvae.runs import CHECKPOINTS

DRAWS_PER_CALL = 16
"""Draws of a sentence in one call of the decoder; the call's other rows are other sentences."""


class Codes(nn.Cell):
    """tokens (B, T + 1) -> h (B, H) and the parameters of q(z|x), without dropout."""

    def __init__(self, model: LatentVariableModel):
        # Without prefixes: the model's parameters keep their names, as checkpoints have them.
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        h = self.model.encoder(tokens)
        return h, self.model.posterior(h)


class Draws(nn.Cell):
    """Scores S draws of z of each of B sentences.

    Args:
        model: the model.
        has_critics: whether its divergence has critics.
    """

    def __init__(self, model: LatentVariableModel, has_critics: bool):
        super().__init__(auto_prefix=False)
        self.model = model
        self.has_critics = has_critics

    def construct(self, tokens: Tensor, h: Tensor, parameters: Tensor, draws, prior) -> tuple:
        """-log p(x|z) and critic values of every draw.

        Args:
            tokens: (B, T + 1).
            h: (B, H).
            parameters: (B, P).
            draws: (B, S, noise size), or None for a deterministic posterior, whose S is 1.
            prior: (B, S, Z) draws from p(z), or None without critics.

        Returns:
            -log p(x|z) (B, S), z (B, S, Z), and with critics f(x, z_q), exp f(x, z_p), g(z_q),
            exp g(z_p), (B, S) each.
        """
        sentences, samples = tokens.shape[0], 1
        if draws is not None:
            samples = draws.shape[1]
            draws = draws.reshape(sentences * samples, -1)
        tokens, h = _repeat(tokens, samples), _repeat(h, samples)
        z = self.model.posterior.sample(_repeat(parameters, samples), draws)
        shape = (sentences, samples)
        likelihood = self.model.decoder(tokens, z).reshape(shape)
        codes = z.reshape(sentences, samples, -1)
        if not self.has_critics:
            return likelihood, codes
        divergence = self.model.divergence
        f, g = divergence.critic_values(h, z)
        f_prior, g_prior = divergence.critic_values(h, prior.reshape(z.shape))
        return (
            likelihood,
            codes,
            f.reshape(shape),
            objectives.bounded_exp(f_prior).reshape(shape),
            g.reshape(shape),
            objectives.bounded_exp(g_prior).reshape(shape),
        )


def _repeat(rows: Tensor, times: int) -> Tensor:
    """(B, D) -> (B * times, D), each row ``times`` times in a row."""
    size = rows.shape[1]
    return ops.broadcast_to(rows.expand_dims(1), (-1, times, size)).reshape(-1, size)


@dataclass
class SentenceScores:
    """Values of each of N sentences: means over its draws, in nats.

    The critics' are None without critics.
    """

    tokens: np.ndarray
    """(N,) predicted tokens."""
    reconstruction: np.ndarray
    """(N,) mean of -log p(x|z)."""
    parameters: np.ndarray
    """(N, P) parameters of q(z|x)."""
    posterior_mean: np.ndarray
    """(N, Z) mean of the draws."""
    first_draw: np.ndarray
    """(N, Z)."""
    draws: int
    """Draws of z a sentence."""
    f_posterior: np.ndarray | None = None
    """(N,) mean of f(x, z_q)."""
    exp_f_prior: np.ndarray | None = None
    """(N,) mean of exp f(x, z_p)."""
    g_posterior: np.ndarray | None = None
    """(N,) mean of g(z_q)."""
    exp_g_prior: np.ndarray | None = None
    """(N,) mean of exp g(z_p)."""


class Evaluator:
    """Scores splits with a model; its graphs are compiled once a width and serve every call.

    Args:
        model: the model; its parameters may change between calls.
        slots: the resolved slots of its system.
        widths: of the length buckets, ascending.
        rows: of a call of the decoder.
        latent_size: Z.
        seed: of the noise.
    """

    def __init__(self, model, slots, widths, rows: int, latent_size: int, seed: int):
        self.slots = slots
        self.widths = widths
        self.rows = rows
        self.latent_size = latent_size
        self.seed = seed
        self.noise_size = model.posterior.noise_size
        self.has_critics = len(model.divergence.trainable_params()) > 0
        self.codes = Codes(model).set_train(False)
        self.draws = Draws(model, self.has_critics).set_train(False)

    def draws_of(self, samples: int) -> int:
        """How many z a sentence the paper's protocol takes: one where q(z|x) is a Gaussian or a
        point."""
        return 1 if self.slots.posterior in ("deterministic", "gaussian") else samples

    def score(self, split: Split, samples: int, sentences: int | None = None) -> SentenceScores:
        """Per-sentence values of a split by the paper's protocol.

        Args:
            split: the split.
            samples: draws of z a sentence, where the protocol takes more than one.
            sentences: only the first so many; None for all.
        """
        total = len(split) if sentences is None else min(sentences, len(split))
        samples = self.draws_of(samples)
        per_call = min(samples, DRAWS_PER_CALL)
        plan = EpochPlan(
            split.lengths[:total], self.widths, max(1, self.rows // per_call), shuffle=False
        )
        sums = np.zeros((total, 5))
        posterior_mean = np.zeros((total, self.latent_size))
        first_draw = np.zeros((total, self.latent_size))
        parameters = None
        bar = progress(f"scoring {split.name}", total, "sentences")
        for batch in batches(split, plan):
            real = batch.index >= 0
            index = batch.index[real]
            tokens = Tensor(batch.tokens)
            h, q = self.codes(tokens)
            if parameters is None:
                parameters = np.zeros((total, q.shape[1]))
            parameters[index] = q.asnumpy()[real]
            own_noise, prior = self._noise(batch.index, samples)
            for start in range(0, samples, per_call):
                part = slice(start, start + per_call)
                used = min(per_call, samples - start)
                outputs = self.draws(
                    tokens, h, q, _part(own_noise, part, per_call), _part(prior, part, per_call)
                )
                values = [output.asnumpy()[real, :used].astype(np.float64) for output in outputs]
                codes = values.pop(1)
                if start == 0:
                    first_draw[index] = codes[:, 0]
                posterior_mean[index] += codes.sum(1) / samples
                sums[index, : len(values)] += np.stack([value.sum(1) for value in values], 1)
            bar.update(len(index))
        bar.close()
        means = sums.T / samples
        return SentenceScores(
            tokens=split.lengths[:total] + 1,
            reconstruction=means[0],
            parameters=parameters,
            posterior_mean=posterior_mean,
            first_draw=first_draw,
            draws=samples,
            **(dict(zip(CRITIC_FIELDS, means[1:], strict=True)) if self.has_critics else {}),
        )

    def _noise(self, index: np.ndarray, samples: int) -> tuple:
        """(B, S, noise size) for q and (B, S, Z) from p(z); fillers get the first sentence's."""
        own, prior = [], []
        for number in np.maximum(index, 0):
            source = noise.generator(self.seed, "evaluation", int(number))
            if self.noise_size:
                own.append(noise.normal(source, samples, self.noise_size))
            if self.has_critics:
                prior.append(noise.normal(source, samples, self.latent_size))
        return (np.stack(own) if own else None), (np.stack(prior) if prior else None)


CRITIC_FIELDS = ("f_posterior", "exp_f_prior", "g_posterior", "exp_g_prior")


def _part(values: np.ndarray | None, part: slice, size: int) -> Tensor | None:
    """The draws of one call, filled up to the graph's fixed number."""
    if values is None:
        return None
    values = values[:, part]
    missing = size - values.shape[1]
    if missing:
        values = np.concatenate([values, np.repeat(values[:, :1], missing, 1)], 1)
    return Tensor(np.ascontiguousarray(values))


def gaussian_moments(parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """mean and log-variance (N, Z) each, of the Gaussian posterior's parameters (N, 2 Z)."""
    mean, log_variance = np.split(parameters, 2, 1)
    return mean, log_variance


def kl_columns(scores: SentenceScores, slots) -> tuple:
    """KL and KL_z of each sentence by the paper's estimators, (N,) each; None where there is none.

    Gaussian rows: closed form, and KL - MI; rows with critics: the dual with f and with g; AE: 0
        and none.
    """
    if slots.posterior == "gaussian":
        mean, log_variance = gaussian_moments(scores.parameters)
        kl = estimators.gaussian_kl(mean, log_variance)
        # Sentences of like length share a batch, as in the released evaluation.
        order = np.argsort(scores.tokens, kind="stable")
        information = np.empty_like(kl)
        information[order] = estimators.gaussian_mutual_information(
            scores.first_draw[order], mean[order], log_variance[order]
        )
        return kl, kl - information
    if scores.f_posterior is not None:
        kl = estimators.dual_kl(scores.f_posterior, scores.exp_f_prior)
        return kl, estimators.dual_kl(scores.g_posterior, scores.exp_g_prior)
    if slots.posterior == "deterministic":
        return np.zeros_like(scores.reconstruction), None
    return None, None


def paper_metrics(scores: SentenceScores, slots) -> dict:
    """The paper's columns: rec, kl, neg_elbo, ppl, kl_z, mi, au; null where a system has none.

    Means a sentence in nats; perplexity a predicted token.
    """
    kl, kl_z = kl_columns(scores, slots)
    tokens = int(scores.tokens.sum())
    columns = dict.fromkeys(("rec", "kl", "neg_elbo", "ppl", "kl_z", "mi", "au"))
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
        means, _ = gaussian_moments(scores.parameters)
    columns["au"] = estimators.active_units(means)
    return columns


def evaluate(
    evaluator: Evaluator, split: Split, samples: int, sentences: int | None = None
) -> dict:
    """The metrics of a split: the paper's columns and what they were computed from.

    Args:
        evaluator: of the model.
        split: the split.
        samples: draws of z a sentence.
        sentences: only the first so many; None for all.

    Returns:
        The columns of :func:`paper_metrics`, ``sentences``, ``tokens``, ``samples`` (as asked
        for), ``draws`` (taken a sentence: one where q(z|x) is a Gaussian or a point), and on a
        corpus whose probabilities are known ``true_nll`` and ``true_ppl``.
    """
    scores = evaluator.score(split, samples, sentences)
    metrics = paper_metrics(scores, evaluator.slots)
    metrics.update(
        sentences=len(scores.tokens),
        tokens=int(scores.tokens.sum()),
        samples=samples,
        draws=scores.draws,
    )
    truth = true_scores(split, len(scores.tokens))
    if truth is not None:
        metrics.update(true_nll=truth.nll, true_ppl=truth.perplexity)
    return metrics


def evaluate_run(folder: Path, config: Config, corpus: Corpus, split: str, checkpoint: str) -> dict:
    """Evaluates a run's checkpoint on a split. The device must have been chosen before.

    Args:
        folder: of the run.
        config: its configuration, with the settings of this evaluation.
        corpus: numbered by the run's vocabulary.
        split: ``valid`` or ``test``.
        checkpoint: ``best`` (the last, with a warning, where no validation was fit to choose one)
            or ``last``.

    Returns:
        What :func:`evaluate` returns, and ``system``, ``split``, ``checkpoint``, ``step``.

    Raises:
        InputError: there is no good checkpoint.
    """
    if checkpoint == "best" and not checkpoints.has_best(folder / CHECKPOINTS):
        warn_user(f"{folder}: no validation was fit to choose a best checkpoint; the last is taken")
        checkpoint = "last"
    loaded = load_run(folder, checkpoint, config)
    evaluator = Evaluator(
        loaded.model,
        config.slots,
        corpus_widths(corpus, config.data.buckets),
        config.eval.rows,
        config.model.latent_size,
        config.seed,
    )
    chosen = {part.name: part for part in corpus.splits}[split]
    metrics = evaluate(evaluator, chosen, config.eval.samples, config.eval.max_sentences)
    return metrics | {
        "system": config.system,
        "split": split,
        "checkpoint": checkpoint,
        "step": loaded.step,
        "precision": config.precision,
    }
