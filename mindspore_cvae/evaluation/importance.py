"""Importance-weighted likelihood of every sentence under p(z) = N(0, I), for any posterior.

How the proposals are made is chosen on the sentences of another split than the evaluated one, and
draws are fresh: the least of several estimates is no upper bound in expectation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from mindspore import Tensor

from mindspore_cvae.common import randomness
from mindspore_cvae.common.progress import progress
from mindspore_cvae.data.batches import batches
from mindspore_cvae.data.corpus import Split
from mindspore_cvae.evaluation import bounds
from mindspore_cvae.evaluation.proposals import FAMILIES, INFLATIONS, PRIOR_SHARE, Choice, Proposer
from mindspore_cvae.evaluation.scoring import draws_of_part

CHOICE_SENTENCES = 64
"""Of the other split, the first ones, on which proposals are chosen."""
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
        choice: of the proposals; None where there is no z.
        draws: K.
    """

    nll: np.ndarray
    effective_samples: np.ndarray
    choice: Choice | None
    draws: int


def without_latent(nll: np.ndarray, draws: int) -> ImportanceScores:
    """The bound of a model without z, whose every draw weighs p(x): exact. nll (N,) = -log p(x)."""
    return ImportanceScores(nll, np.full(len(nll), float(draws)), None, draws)


class ImportanceSampler:
    """Draws from proposals and weighs the draws by the decoder.

    Args:
        evaluator: of the model; its graphs and shapes are shared.
    """

    def __init__(self, evaluator):
        self.evaluator = evaluator
        self.propose = Proposer(evaluator)

    def choose(
        self,
        tuning: Split,
        samples: int,
        draws: int,
        families: Iterable[str] = tuple(FAMILIES),
    ) -> Choice:
        """The proposals of lowest IW-NLL on the first sentences of a split.

        Args:
            tuning: the split, which must not be the evaluated one.
            samples: draws of q(z|x) a sentence for fits that need them.
            draws: K of the evaluation to come.
            families: of :data:`evaluation.proposals.FAMILIES`, among which to choose.
        """
        scores = self.evaluator.score(tuning, samples, CHOICE_SENTENCES)
        draws = min(draws, CHOICE_DRAWS)
        readings: dict[Choice, float] = {}
        for name in families:
            family = FAMILIES[name]
            starts = {}
            for inflation in INFLATIONS:
                start = family.start(*scores.fit, inflation, PRIOR_SHARE)
                starts[inflation] = self.weigh(tuning, start, draws, CHOICE_PART)[0].mean()
            inflation = min(starts, key=starts.__getitem__)
            if not family.is_refined:
                readings[Choice(name, inflation)] = starts[inflation]
                continue
            proposal = self.propose(tuning, scores, Choice(name, inflation))
            for widening in family.widenings:
                nll, _ = self.weigh(tuning, proposal.widened(widening), draws, CHOICE_PART)
                readings[Choice(name, inflation, widening)] = nll.mean()
        return min(readings, key=readings.__getitem__)

    def score(
        self, split: Split, scores, draws: int, choice: Choice, part: int = 0
    ) -> ImportanceScores:
        """IW-NLL of the sentences that were scored before.

        Args:
            split: the split.
            scores: ``SentenceScores`` of its first sentences, from which the proposals are made.
            draws: K.
            choice: of the proposals.
            part: of the noise; see :func:`common.randomness.generator`.
        """
        proposal = self.propose(split, scores, choice)
        return ImportanceScores(*self.weigh(split, proposal, draws, part), choice, draws)

    def weigh(
        self, split: Split, proposal: bounds.Proposal, draws: int, part: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """IW-NLL and effective samples, (N,) each, of the first N sentences by their proposals."""
        evaluator, (total, size) = self.evaluator, proposal.mean.shape
        plan = evaluator.plan(split.lengths[:total], draws)
        result, effective_samples = np.zeros(total), np.zeros(total)
        bar = progress(f"importance sampling {split.name}", total, "sentences")
        for batch in batches(split, plan, evaluator.ranks.rank, evaluator.ranks.size):
            evaluator.before_batch()
            real = batch.index >= 0
            # Fillers repeat the first sentence: their rows are computed and dropped.
            index = np.where(real, batch.index, 0)
            own = proposal.of(index)
            z = own.draw(self._noise(index, draws, size, part))
            width = batch.tokens.shape[1] - 1
            per_call = evaluator.draws_of_call(width, draws)
            graph, note = ("likelihood", width, per_call), f"{width - 1} words"
            with evaluator.compilations.watched(bar, graph, note, int(real.sum())):
                nll = self._likelihood(Tensor(batch.tokens), z, per_call)
            weights = bounds.log_weights(nll, z, own)[real]
            result[batch.index[real]] = bounds.importance_weighted_nll(weights)
            effective_samples[batch.index[real]] = bounds.effective_sample_size(weights)
        bar.close()
        return evaluator.ranks.total(result), evaluator.ranks.total(effective_samples)

    def _noise(self, index: np.ndarray, draws: int, size: int, part: int) -> np.ndarray:
        """(B, K, Z) standard normal numbers, keyed by the number of each sentence."""
        seed = self.evaluator.seed
        sources = [randomness.generator(seed, "importance", int(number), part) for number in index]
        return np.stack([randomness.normal(source, draws, size) for source in sources]).astype(
            float
        )

    def _likelihood(self, tokens: Tensor, z: np.ndarray, per_call: int) -> np.ndarray:
        """-log p(x|z) of all draws, (B, K, Z) -> (B, K), a fixed number of draws a call."""
        nll, z = np.empty(z.shape[:2]), z.astype(np.float32)
        for start in range(0, z.shape[1], per_call):
            part = slice(start, min(start + per_call, z.shape[1]))
            values = self.evaluator.likelihood(tokens, draws_of_part(z, part, per_call))
            nll[:, part] = values.asnumpy()[:, : part.stop - start]
        return nll
