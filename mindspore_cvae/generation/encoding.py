"""Sentences to the means of their posteriors q(z|x), many at a time, in graphs of fixed shapes."""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, nn, ops

from mindspore_cvae.common import randomness
from mindspore_cvae.common.progress import Compilations, progress
from mindspore_cvae.data.batches import EpochPlan, make_batch
from mindspore_cvae.errors import InputError
from mindspore_cvae.model.equation import LatentVariableModel
from mindspore_cvae.model.inference import Inference
from mindspore_cvae.model.posteriors import NoLatent

NARROWEST = 16
"""Predicted tokens of the narrowest graph."""


def graph_widths(max_words: int) -> tuple[int, ...]:
    """Widths that serve sentences of any length: each twice as wide as the one before.

    Args:
        max_words: of the longest sentence.

    Returns:
        Ascending widths in predicted tokens (words and ``</s>``).
    """
    widths = [NARROWEST]
    while widths[-1] < max_words + 1:
        widths.append(2 * widths[-1])
    return (*widths[:-1], max_words + 1)


class PosteriorMean(nn.Cell):
    """E_q(z|x) z of a family that knows it. Parameters of q(z|x) (N, P) -> (N, Z)."""

    def __init__(self, model: LatentVariableModel):
        # Without prefixes: the model's parameters keep their names.
        super().__init__(auto_prefix=False)
        self.posterior = model.posterior

    def construct(self, statistics: Tensor) -> Tensor:
        return self.posterior.mean(statistics)


class PosteriorAverage(nn.Cell):
    """Mean of S samples of q(z|x), as Section 4.5 takes it."""

    def __init__(self, model: LatentVariableModel):
        super().__init__(auto_prefix=False)
        self.posterior = model.posterior

    def construct(self, statistics: Tensor, noise: Tensor) -> Tensor:
        """Parameters of q(z|x) (N, P), noise (N, S, noise size) -> (N, Z)."""
        sentences, samples, _ = noise.shape
        repeated = ops.repeat_interleave(statistics, samples, 0)
        z = self.posterior.sample(repeated, noise.reshape(sentences * samples, -1))
        return z.reshape(sentences, samples, -1).mean(1)


class SentenceEncoder:
    """Encodes any number of sentences; its graphs are compiled once a width and serve every call.

    Args:
        model: the model; its parameters may change between calls.
        latent_size: Z.
        max_words: of the longest sentence.
        rows: sentences of a call of a graph.

    Attributes:
        has_closed_form: whether the mean of the posterior is known without samples.
    """

    def __init__(self, model: LatentVariableModel, latent_size: int, max_words: int, rows: int):
        self.noise_size = model.posterior.noise_size
        self.has_closed_form = hasattr(model.posterior, "mean")
        self.has_latent = not isinstance(model.posterior, NoLatent)
        self.latent_size = latent_size
        self.widths = graph_widths(max_words)
        self.rows = rows
        self._compilations = Compilations()
        self._infer = Inference(model)
        self._mean = PosteriorMean(model).set_train(False)
        self._average = PosteriorAverage(model).set_train(False)

    def __call__(
        self, sentences: list[np.ndarray], samples: int | None = None, seed: int = 0
    ) -> np.ndarray:
        """Posterior means.

        Args:
            sentences: N arrays of word ids, without ``<s>`` and ``</s>``.
            samples: draws of z to average, keyed by (seed, number of the sentence); None takes the
                closed form, where :attr:`has_closed_form` says that there is one.
            seed: of the draws.

        Returns:
            (N, Z) float32.

        Raises:
            InputError: The model has no latent variable.
        """
        if not self.has_latent:
            raise InputError("this run's system has no latent variable: it encodes no sentence")
        means = np.zeros((len(sentences), self.latent_size), np.float32)
        if not sentences:
            return means
        lengths = np.array([len(sentence) for sentence in sentences])
        bar = progress("encoding", len(sentences), "sentences")
        for width, index in EpochPlan(lengths, self.widths, self.rows, shuffle=False):
            graph, note = (width, samples), f"{width - 1} words"
            with self._compilations.watched(bar, graph, note, len(index)):
                means[index] = self._means(sentences, width, index, samples, seed)
        bar.close()
        return means

    def _means(
        self,
        sentences: list[np.ndarray],
        width: int,
        index: np.ndarray,
        samples: int | None,
        seed: int,
    ) -> np.ndarray:
        """Those of the sentences of one call: -> (len(index), Z)."""
        tokens = make_batch(sentences, width, index, self.rows).tokens
        _, statistics = self._infer(Tensor(tokens))
        if samples is None or not self.noise_size:
            values = self._mean(statistics)
        else:
            noise = np.zeros((self.rows, samples, self.noise_size), np.float32)
            for row, number in enumerate(index):
                source = randomness.generator(seed, "encoding", int(number))
                noise[row] = randomness.normal(source, samples, self.noise_size)
            values = self._average(statistics, Tensor(noise))
        return values.asnumpy()[: len(index)]
