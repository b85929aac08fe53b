"""Importance-weighted likelihood of every sentence under p(z) = N(0, I), for any posterior.

The proposal is a Gaussian fitted to q(z|x), widened, and mixed with a little of the prior; draws
are fresh. How much to widen is chosen on the sentences of another split than the evaluated one:
the least of several estimates is no upper bound in expectation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mindspore import Tensor

from mindspore_cvae import bounds, noise
from mindspore_cvae.data.batches import batches
from mindspore_cvae.data.corpus import Split
from mindspore_cvae.progress import progress

INFLATIONS = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
"""Standard deviations by which a fit is widened, among which the other split chooses."""
PRIOR_SHARE = 0.05
"""Share of the draws that come from the prior."""
CHOICE_SENTENCES = 64
"""Of the other split, the first ones, on which the inflation is chosen."""
CHOICE_DRAWS = 32
"""Draws of each of them; fewer where fewer are asked for."""
CHOICE_PART = 1
"""Of the noise: sentences of both splits have the same numbers, and no draw may serve both the
choice and what is read with it."""


@dataclass
class ImportanceScores:
    """Values of each of N sentences.

    Attributes:
        nll: (N,) IW-NLL, nats: in expectation an upper bound of -log p(x).
        effective_samples: (N,) between 1 and the number of draws.
        inflation: that the proposals were widened by.
        draws: K.
    """

    nll: np.ndarray
    effective_samples: np.ndarray
    inflation: float
    draws: int


def without_latent(nll: np.ndarray, draws: int) -> ImportanceScores:
    """The bound of a model without z, whose every draw weighs p(x): exact. nll (N,) = -log p(x)."""
    return ImportanceScores(nll, np.full(len(nll), float(draws)), 0.0, draws)


class ImportanceSampler:
    """Draws from proposals and weighs the draws by the decoder.

    Args:
        evaluator: of the model; its graphs and shapes are shared.
    """

    def __init__(self, evaluator):
        self.evaluator = evaluator

    def choose_inflation(self, tuning: Split, samples: int, draws: int) -> float:
        """The inflation of lowest IW-NLL on the first sentences of a split.

        Args:
            tuning: the split, which must not be the evaluated one.
            samples: draws of q(z|x) a sentence for fits that need them.
            draws: K of the evaluation to come.
        """
        scores = self.evaluator.score(tuning, samples, CHOICE_SENTENCES)
        draws = min(draws, CHOICE_DRAWS)
        means = [
            self.score(tuning, scores, draws, inflation, CHOICE_PART).nll.mean()
            for inflation in INFLATIONS
        ]
        return INFLATIONS[int(np.argmin(means))]

    def score(
        self, split: Split, scores, draws: int, inflation: float, part: int = 0
    ) -> ImportanceScores:
        """IW-NLL of the sentences that were scored before.

        Args:
            split: the split.
            scores: ``SentenceScores`` of its first sentences, to which the proposals are fitted.
            draws: K.
            inflation: see :meth:`bounds.Proposal.inflated`.
            part: of the noise; see :func:`mindspore_cvae.noise.generator`.
        """
        evaluator, total = self.evaluator, len(scores.tokens)
        mean, covariance = scores.fit
        plan = evaluator.plan(split.lengths[:total], draws)
        result = ImportanceScores(np.zeros(total), np.zeros(total), inflation, draws)
        bar = progress(f"importance sampling {split.name}", total, "sentences")
        for batch in batches(split, plan, evaluator.ranks.rank, evaluator.ranks.size):
            evaluator.before_batch()
            real = batch.index >= 0
            # Fillers repeat the first sentence: their rows are computed and dropped.
            index = np.where(real, batch.index, 0)
            proposal = bounds.Proposal.inflated(
                mean[index],
                covariance if len(covariance) == 1 else covariance[index],
                inflation,
                PRIOR_SHARE,
            )
            z = proposal.draw(self._noise(index, draws, mean.shape[1], part))
            per_call = evaluator.draws_of_call(batch.tokens.shape[1] - 1, draws)
            nll = self._likelihood(Tensor(batch.tokens), z, per_call)
            weights = bounds.log_weights(nll, z, proposal)[real]
            result.nll[batch.index[real]] = bounds.importance_weighted_nll(weights)
            result.effective_samples[batch.index[real]] = bounds.effective_sample_size(weights)
            bar.update(int(real.sum()))
        bar.close()
        result.nll = evaluator.ranks.total(result.nll)
        result.effective_samples = evaluator.ranks.total(result.effective_samples)
        return result

    def _noise(self, index: np.ndarray, draws: int, size: int, part: int) -> np.ndarray:
        """(B, K, Z) standard normal numbers, keyed by the number of each sentence."""
        seed = self.evaluator.seed
        sources = [noise.generator(seed, "importance", int(number), part) for number in index]
        return np.stack([noise.normal(source, draws, size) for source in sources]).astype(float)

    def _likelihood(self, tokens: Tensor, z: np.ndarray, per_call: int) -> np.ndarray:
        """-log p(x|z) of all draws, (B, K, Z) -> (B, K), a fixed number of draws a call."""
        nll = np.empty(z.shape[:2])
        for start in range(0, z.shape[1], per_call):
            part = z[:, start : start + per_call]
            used = part.shape[1]
            if used < per_call:
                part = np.concatenate([part, np.repeat(part[:, :1], per_call - used, 1)], 1)
            values = self.evaluator.likelihood(tokens, Tensor(part.astype(np.float32)))
            nll[:, start : start + used] = values.asnumpy()[:, :used]
        return nll
