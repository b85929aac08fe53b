"""Scores of every sentence of a split, from many draws of z: what all columns are computed from.

A sentence is encoded once and its codes are repeated for the draws; graphs have fixed shapes, a few
widths by a fixed number of rows. Noise is keyed by the number of the sentence, so that no number
depends on how sentences and draws are cut into calls.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mindspore import Tensor, nn, ops

from mindspore_cvae.common import randomness
from mindspore_cvae.common.progress import Compilations, progress
from mindspore_cvae.config.keys import Config
from mindspore_cvae.data.batches import EpochPlan, batches
from mindspore_cvae.data.corpus import Split
from mindspore_cvae.devices.parallel import ALONE, Processes
from mindspore_cvae.evaluation.bounds import GaussianPosterior
from mindspore_cvae.model import objectives
from mindspore_cvae.model.equation import LatentVariableModel
from mindspore_cvae.model.inference import Inference

DRAWS_PER_CALL = 16
"""Draws of a sentence in one call of the decoder, at most; its other rows are other sentences."""
KEPT_DRAWS = 8
"""Draws of a sentence that are kept, for the mutual information."""
CRITIC_FIELDS = ("f_posterior", "exp_f_prior", "g_posterior", "exp_g_prior")


class Draws(nn.Cell):
    """Scores S draws of z of each of B sentences.

    Args:
        model: the model.
        has_critics: whether its divergence has critics.
    """

    def __init__(self, model: LatentVariableModel, has_critics: bool):
        # Without prefixes: the model's parameters keep their names, as checkpoints have them.
        super().__init__(auto_prefix=False)
        self.model = model
        self.has_critics = has_critics

    def construct(self, tokens: Tensor, h: Tensor, statistics: Tensor, noise, prior) -> tuple:
        """-log p(x|z) and critic values of every draw.

        Args:
            tokens: (B, T + 1).
            h: (B, H).
            statistics: (B, P).
            noise: (B, S, noise size), or None for a deterministic posterior, whose S is 1.
            prior: (B, S, Z) draws from p(z), or None without critics.

        Returns:
            -log p(x|z) (B, S), z (B, S, Z), and with critics f(x, z_q), exp f(x, z_p), g(z_q),
            exp g(z_p), (B, S) each.
        """
        sentences, samples = tokens.shape[0], 1
        if noise is not None:
            samples = noise.shape[1]
            noise = noise.reshape(sentences * samples, -1)
        tokens, h = _repeat(tokens, samples), _repeat(h, samples)
        z = self.model.posterior.sample(_repeat(statistics, samples), noise)
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


class Likelihood(nn.Cell):
    """-log p(x|z) of given draws: tokens (B, T + 1), z (B, S, Z) -> (B, S)."""

    def __init__(self, model: LatentVariableModel):
        super().__init__(auto_prefix=False)
        self.decoder = model.decoder

    def construct(self, tokens: Tensor, z: Tensor) -> Tensor:
        sentences, samples, size = z.shape
        nll = self.decoder(_repeat(tokens, samples), z.reshape(-1, size))
        return nll.reshape(sentences, samples)


class LikelihoodGradient(nn.Cell):
    """-log p(x|z) of every draw, and its gradient at z."""

    def __init__(self, model: LatentVariableModel):
        super().__init__(auto_prefix=False)
        self.likelihood = Likelihood(model)
        self.value_and_grad = ops.value_and_grad(self.total, 0, has_aux=True)

    def total(self, z: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The sum over draws, whose gradient is that of each; and each."""
        nll = self.likelihood(tokens, z)
        return nll.sum(), nll

    def construct(self, z: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """z (B, S, Z), tokens (B, T + 1) -> (B, S), (B, S, Z)."""
        (_total, nll), gradient = self.value_and_grad(z, tokens)
        return nll, gradient


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
    hidden: np.ndarray
    """(N, H) the encoder's h."""
    statistics: np.ndarray
    """(N, P) statistics of q(z|x)."""
    posterior_mean: np.ndarray
    """(N, Z) mean of the draws."""
    covariance: np.ndarray
    """(N, Z, Z) covariance of the draws."""
    codes: np.ndarray
    """(N, S, Z) the first draws, 8 at most."""
    draws: int
    """Draws of z a sentence."""
    exact: GaussianPosterior | None
    """q(z|x) where it is exactly Gaussian."""
    f_posterior: np.ndarray | None = None
    """(N,) mean of f(x, z_q)."""
    exp_f_prior: np.ndarray | None = None
    """(N,) mean of exp f(x, z_p)."""
    g_posterior: np.ndarray | None = None
    """(N,) mean of g(z_q)."""
    exp_g_prior: np.ndarray | None = None
    """(N,) mean of exp g(z_p)."""

    def first(self, count: int | None) -> SentenceScores:
        """Of the first so many sentences; None for all."""
        arrays: dict[str, Any] = {
            name: values[:count]
            for name, values in vars(self).items()
            if isinstance(values, np.ndarray)
        }
        exact = self.exact and self.exact.first(count)
        return dataclasses.replace(self, **arrays, exact=exact)

    @property
    def critics(self) -> tuple[np.ndarray, ...] | None:
        """The four of :data:`CRITIC_FIELDS`; None without critics."""
        values = [getattr(self, name) for name in CRITIC_FIELDS]
        return None if values[0] is None else tuple(values)

    @property
    def fit(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean (N, Z) and covariance (1 or N, Z, Z) of q(z|x): exact, or of the draws."""
        if self.exact is not None:
            return self.exact.mean, self.exact.covariance
        return self.posterior_mean, self.covariance


class Scorer:
    """Scores splits with a model; its graphs are compiled once a width and serve every call.

    Args:
        model: the model; its parameters may change between calls.
        config: its configuration: the slots of its system, Z, the seed of the noise, and in
            ``eval`` the ``rows`` of a call of the decoder, at most, and the ``tokens`` predicted in
            one, at most, unless one draw of a sentence has more.
        widths: of the length buckets, ascending.
        ranks: the processes among which batches are dealt out; every one gets all scores.

    Attributes:
        before_batch: called before every batch; may raise, to end a long evaluation.
        compilations: of its graphs and of those that others make of it, for their bars.
    """

    def __init__(
        self,
        model: LatentVariableModel,
        config: Config,
        widths: Sequence[int],
        ranks: Processes | None = None,
    ):
        self.slots = config.slots
        self.widths = widths
        self.rows = config.eval.rows
        self.tokens = config.eval.tokens
        self.latent_size = config.model.latent_size
        self.seed = config.seed
        self.ranks = ranks or ALONE
        self.noise_size = model.posterior.noise_size
        self.has_critics = len(model.divergence.trainable_params()) > 0
        self.codes = Inference(model)
        self.of_draws = Draws(model, self.has_critics).set_train(False)
        self.likelihood = Likelihood(model).set_train(False)
        self.likelihood_gradient = LikelihoodGradient(model).set_train(False)
        self.posterior = model.posterior
        self.before_batch: Callable[[], None] = lambda: None
        self.compilations = Compilations()

    def draws_of(self, samples: int) -> int:
        """How many z a sentence the paper's protocol takes: one where q(z|x) is a Gaussian or a
        point, or where there is none."""
        return 1 if self.slots.posterior in ("deterministic", "gaussian", "none") else samples

    def rows_of(self, width: int) -> int:
        """Rows of a call with so many predicted tokens each. The logits, tokens by vocabulary, are
        by far the largest array of a call, so that a wide one has fewer rows."""
        return max(1, min(self.rows, self.tokens // width))

    def draws_of_call(self, width: int, draws: int) -> int:
        """How many of a sentence's draws one call takes."""
        return min(draws, DRAWS_PER_CALL, self.rows_of(width))

    def plan(self, lengths: np.ndarray, draws: int) -> EpochPlan:
        """Which sentences, of `lengths` words and with `draws` draws each, share their calls."""
        sizes = [self.rows_of(width) // self.draws_of_call(width, draws) for width in self.widths]
        return EpochPlan(lengths, self.widths, sizes, shuffle=False)

    def score(self, split: Split, samples: int, sentences: int | None = None) -> SentenceScores:
        """Per-sentence values of a split by the paper's protocol.

        Args:
            split: the split.
            samples: draws of z a sentence, where the protocol takes more than one.
            sentences: only the first so many; None for all.
        """
        total = len(split) if sentences is None else min(sentences, len(split))
        samples = self.draws_of(samples)
        plan = self.plan(split.lengths[:total], samples)
        sums = np.zeros((total, 5))
        posterior_mean = np.zeros((total, self.latent_size))
        products = np.zeros((total, self.latent_size, self.latent_size))
        kept = np.zeros((total, min(samples, KEPT_DRAWS), self.latent_size))
        hidden = statistics = np.zeros((0, 0), np.float32)
        widths = sorted({width for width, _ in plan})
        bar = progress(f"scoring {split.name}", total, "sentences")
        for batch in batches(split, plan, self.ranks.rank, self.ranks.size):
            self.before_batch()
            real = batch.index >= 0
            index = batch.index[real]
            width = batch.tokens.shape[1] - 1
            note = f"{width - 1} words, {widths.index(width) + 1} of {len(widths)}"
            graph = "scores", width, self.draws_of_call(width, samples)
            with self.compilations.watched(bar, graph, note, len(index)):
                tokens = Tensor(batch.tokens)
                h, q = self.codes(tokens)
                if not statistics.size:
                    hidden = np.zeros((total, h.shape[1]), np.float32)
                    statistics = np.zeros((total, q.shape[1]), np.float32)
                hidden[index], statistics[index] = h.asnumpy()[real], q.asnumpy()[real]
                own_noise, prior = self._noise(batch.index, samples)
                per_call = self.draws_of_call(width, samples)
                for start in range(0, samples, per_call):
                    part = slice(start, start + per_call)
                    used = min(per_call, samples - start)
                    outputs = self.of_draws(
                        *(tokens, h, q),
                        *(draws_of_part(noise, part, per_call) for noise in (own_noise, prior)),
                    )
                    values = [
                        output.asnumpy()[real, :used].astype(np.float64) for output in outputs
                    ]
                    codes = values.pop(1)
                    if start < kept.shape[1]:
                        kept[index, part] = codes[:, : kept.shape[1] - start]
                    posterior_mean[index] += codes.sum(1) / samples
                    products[index] += codes.transpose(0, 2, 1) @ codes / samples
                    sums[index, : len(values)] += np.stack([value.sum(1) for value in values], 1)
        bar.close()
        if not statistics.size:
            # There are fewer batches than processes: only the shapes are of interest.
            h, q = self.codes(Tensor(next(batches(split, plan)).tokens))
            hidden, statistics = (np.zeros((total, part.shape[1]), np.float32) for part in (h, q))
        everyone = self.ranks.total
        sums, kept = everyone(sums), everyone(kept)
        posterior_mean, products = everyone(posterior_mean), everyone(products)
        hidden, statistics = (everyone(part).astype(np.float32) for part in (hidden, statistics))
        means = sums.T / samples
        outer = posterior_mean[:, :, None] * posterior_mean[:, None, :]
        return SentenceScores(
            tokens=split.lengths[:total] + 1,
            reconstruction=means[0],
            hidden=hidden,
            statistics=statistics,
            posterior_mean=posterior_mean,
            covariance=products - outer,
            codes=kept,
            draws=samples,
            exact=self.exact_posterior(statistics),
            **(dict(zip(CRITIC_FIELDS, means[1:], strict=True)) if self.has_critics else {}),
        )

    def exact_posterior(self, statistics: np.ndarray) -> GaussianPosterior | None:
        """q(z|x) where it is exactly Gaussian: the Gaussian rows, and the affine implicit
        posterior.

        statistics (N, P); None where q(z|x) is a point or truly implicit.
        """
        gaussian = EXACT_POSTERIORS.get(self.slots.posterior)
        return None if gaussian is None else gaussian(statistics, self.posterior)

    def _noise(self, index: np.ndarray, samples: int) -> tuple:
        """(B, S, noise size) for q and (B, S, Z) from p(z); fillers get the first sentence's."""
        own, prior = [], []
        for number in np.maximum(index, 0):
            source = randomness.generator(self.seed, "evaluation", int(number))
            if self.noise_size:
                own.append(randomness.normal(source, samples, self.noise_size))
            if self.has_critics:
                prior.append(randomness.normal(source, samples, self.latent_size))
        return (np.stack(own) if own else None), (np.stack(prior) if prior else None)


def draws_of_part(values: np.ndarray | None, part: slice, size: int) -> Tensor | None:
    """The draws of one call, filled up to the graph's fixed number."""
    if values is None:
        return None
    values = values[:, part]
    missing = size - values.shape[1]
    if missing:
        values = np.concatenate([values, np.repeat(values[:, :1], missing, 1)], 1)
    return Tensor(np.ascontiguousarray(values))


def gaussian_moments(statistics: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """mean and log-variance (N, Z) each, of the Gaussian posterior's statistics (N, 2 Z)."""
    mean, log_variance = np.split(statistics, 2, 1)
    return mean, log_variance


def _diagonal(statistics: np.ndarray, posterior: nn.Cell) -> GaussianPosterior:
    return GaussianPosterior.diagonal(*gaussian_moments(statistics.astype(np.float64)))


def _affine(statistics: np.ndarray, posterior: nn.Cell) -> GaussianPosterior | None:
    """None where there are fewer noise than latent dimensions: then q(z|x) has no density."""
    latent_size, noise_size = posterior.from_noise.weight.shape
    if noise_size < latent_size:
        return None
    return GaussianPosterior.affine(
        statistics,
        posterior.from_hidden.weight.asnumpy(),
        posterior.from_hidden.bias.asnumpy(),
        posterior.from_noise.weight.asnumpy(),
    )


EXACT_POSTERIORS = {"gaussian": _diagonal, "affine": _affine}
"""Families whose q(z|x) is exactly Gaussian."""
