"""Decoding: latent vectors to sentences, many at a time, word by word inside one compiled graph.

A graph has a fixed shape, some rows by some words. Rows whose sentence has ended are masked, and the loop
over words stops when all have ended. Everything here is a function of a decoder and of z, wherever z comes
from. ``<pad>`` and ``<s>`` never come out.

Sampling inverts the distribution function: one uniform number a word, made on the host from the seed and
the number of the sentence, so that a sentence does not depend on what else is decoded. (Adding Gumbel noise
to the scores would do as well, and take as many numbers a word as the vocabulary has words.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from mindspore_cvae import noise
from mindspore_cvae.data.vocabulary import BEGIN, END, PAD, UNKNOWN
from mindspore_cvae.errors import InputError
from mindspore_cvae.loading import load_run

METHODS = ("sample", "greedy", "beam")
IMPOSSIBLE = -1e30
"""Log-probability of what must not come out. Unlike minus infinity it can be added and compared."""
NUCLEUS_WORDS = 1024
"""Words that are sorted to find a nucleus (top-p), before all are."""


@dataclass(frozen=True)
class Decoding:
    """How words are chosen.

    Raises:
        InputError: A value is out of range.
    """

    method: str = "greedy"
    """``greedy``: the most probable next word; ``sample``: one drawn from the next word's
    distribution; ``beam``: search for the most probable sentence of at most ``max_words`` words."""
    temperature: float = 1.0
    """Log-probabilities are divided by it before a draw."""
    top_k: int | None = None
    """Only so many of the most probable words can be drawn; None for all."""
    top_p: float | None = None
    """Only the fewest most probable words can be drawn whose probabilities (by temperature and
    top_k) add up to it; None for all."""
    beam_size: int = 5
    """Beginnings of a sentence that a search keeps."""
    max_words: int = 100
    """A sentence is cut after so many words."""
    no_unk: bool = False
    """Whether ``<unk>`` must not come out."""

    def __post_init__(self):
        for name, value, is_valid, range_ in (
            ("decoding", self.method, self.method in METHODS, f"one of {', '.join(METHODS)}"),
            ("temperature", self.temperature, 1e-3 <= self.temperature <= 1e3, "0.001 to 1000"),
            ("top_k", self.top_k, self.top_k is None or self.top_k >= 1, "1 or more"),
            ("top_p", self.top_p, self.top_p is None or 0 < self.top_p <= 1, "above 0, up to 1"),
            ("beam_size", self.beam_size, 1 <= self.beam_size <= 1000, "1 to 1000"),
            ("max_words", self.max_words, 1 <= self.max_words <= 100_000, "1 to 100000"),
        ):
            if not is_valid:
                raise InputError(f"{name} must be {range_}, not {value}")


class MostProbable(nn.Cell):
    """The choice of greedy decoding."""

    def construct(self, log_probabilities: Tensor, uniform, temperature, top_p) -> Tensor:
        """(N, V), unused -> (N,) words."""
        return ops.argmax(log_probabilities, -1)


class Drawn(nn.Cell):
    """The choice of sampling: p(word)^(1 / temperature), cut to top-k, then to top-p, renormalised.

    Args:
        top_k: words to choose among; None for all.
        has_top_p: whether ``top_p`` cuts.
    """

    def __init__(self, top_k: int | None, has_top_p: bool):
        super().__init__()
        self.top_k = top_k
        self.has_top_p = has_top_p

    def construct(
        self, log_probabilities: Tensor, uniform: Tensor, temperature: Tensor, top_p: Tensor
    ) -> Tensor:
        """(N, V), (N,) in (0, 1), (), () -> (N,) words."""
        scaled = log_probabilities / temperature
        if self.top_k is not None:
            values, words = ops.topk(scaled, self.top_k)
            probabilities = ops.softmax(values, -1)
            if self.has_top_p:
                probabilities = nucleus(probabilities, top_p)
            return ops.gather_elements(words, 1, inverse(probabilities, uniform))[:, 0]
        probabilities = ops.softmax(scaled, -1)
        if not self.has_top_p:
            return inverse(probabilities, uniform)[:, 0]
        # A full sort takes several times as long as all else, and is seldom needed.
        best, words = ops.topk(probabilities, min(NUCLEUS_WORDS, probabilities.shape[1]))
        if best.sum(1).min() < top_p:
            best, words = ops.topk(probabilities, probabilities.shape[1])
            chosen = inverse(nucleus(best, top_p), uniform)
            return ops.gather_elements(words, 1, chosen)[:, 0]
        return ops.gather_elements(words, 1, inverse(nucleus(best, top_p), uniform))[:, 0]


def nucleus(probabilities: Tensor, top_p: Tensor) -> Tensor:
    """Sorted probabilities (N, K) with 0 for those that others before them make unnecessary."""
    before = ops.cumsum(probabilities, 1) - probabilities
    return probabilities * (before < top_p).astype(probabilities.dtype)


def inverse(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """The inverse distribution function at ``uniform`` times the sum. (N, K), (N,) -> (N, 1) indices.

    What has probability 0 is never returned: the first index whose cumulated sum exceeds the target adds
    something to it.
    """
    cumulated = ops.cumsum(probabilities, 1)
    target = uniform.expand_dims(1) * cumulated[:, -1:]
    return ops.searchsorted(cumulated, target, right=True)


class WordByWord(nn.Cell):
    """z to sentences, by a choice of each next word.

    Args:
        decoder: a :class:`mindspore_cvae.networks.Decoder`.
        choice: :class:`MostProbable` or :class:`Drawn`.
        max_words: T.
    """

    def __init__(self, decoder: nn.Cell, choice: nn.Cell, max_words: int):
        # Without prefixes: the decoder's parameters keep their names.
        super().__init__(auto_prefix=False)
        self.decoder = decoder
        self.choice = choice
        self.max_words = max_words

    def construct(self, z: Tensor, penalty: Tensor, uniform, temperature, top_p) -> Tensor:
        """Sentences of N rows.

        Args:
            z: (N, Z).
            penalty: (V,), 0 or :data:`IMPOSSIBLE`, added to the log-probabilities.
            uniform: (T, N) numbers in (0, 1), or None for a choice that draws nothing.
            temperature, top_p: scalars, or None.

        Returns:
            (N, T) int32: words, ``</s>`` where the sentence ended before T words, then ``<pad>``.
        """
        rows = z.shape[0]
        positions = ops.arange(self.max_words).astype(ms.int32)
        sentences = ops.zeros((rows, self.max_words), ms.int32)
        words = ops.full((rows,), BEGIN, dtype=ms.int32)
        running = ops.ones((rows,), ms.int32)
        state = self.decoder.initial_state(z)
        position = Tensor(0, ms.int32)
        while ops.logical_and(position < self.max_words, running.max() > 0):
            log_probabilities, state = self.decoder.step(words, z, state)
            numbers = None
            if uniform is not None:
                numbers = uniform[position]
            words = self.choice(log_probabilities + penalty, numbers, temperature, top_p)
            # A sentence that has ended goes on with 0, which is <pad>.
            words = words.astype(ms.int32) * running
            sentences = ops.select(positions == position, words.expand_dims(1), sentences)
            running = running * (words != END).astype(ms.int32)
            position = position + 1
        return sentences


class BeamSearch(nn.Cell):
    """z to the most probable sentences of at most T words that a beam of B beginnings finds.

    A finished sentence stays in the beam with its log p(x|z), ``</s>`` included; after T words only
    ``</s>`` can follow. Scores only fall, so a search is over when its best beginning is finished.

    Args:
        decoder: a :class:`mindspore_cvae.networks.Decoder`.
        beam_size: B.
        max_words: T.
    """

    def __init__(self, decoder: nn.Cell, beam_size: int, max_words: int):
        super().__init__(auto_prefix=False)
        self.decoder = decoder
        self.beam_size = beam_size
        self.max_words = max_words

    def construct(self, z: Tensor, penalty: Tensor) -> tuple[Tensor, Tensor]:
        """z (N, Z), penalty (V,) -> words (N, T + 1) int32 as :class:`WordByWord`'s, log p(x|z) (N,)."""
        sentences, beams, vocabulary = z.shape[0], self.beam_size, penalty.shape[0]
        rows = sentences * beams
        z = ops.repeat_interleave(z, beams, 0)
        first_row = ops.arange(sentences).astype(ms.int32).expand_dims(1) * beams
        positions = ops.arange(self.max_words + 1).astype(ms.int32)
        ids = ops.arange(vocabulary).astype(ms.int32)
        only_end = IMPOSSIBLE * (ids != END).astype(ms.float32)
        only_pad = IMPOSSIBLE * (ids != PAD).astype(ms.float32)

        # All beginnings are equal at first: all but one are ruled out.
        scores = ops.zeros((sentences, beams), ms.float32)
        scores = scores + IMPOSSIBLE * (ops.arange(beams) > 0).astype(ms.float32)
        texts = ops.zeros((rows, self.max_words + 1), ms.int32)
        words = ops.full((rows,), BEGIN, dtype=ms.int32)
        finished = ops.zeros((rows, 1), ms.float32)
        hidden, cell = self.decoder.initial_state(z)
        position = Tensor(0, ms.int32)
        searching = ops.ones((), ms.float32)
        while ops.logical_and(position <= self.max_words, searching > 0):
            log_probabilities, state = self.decoder.step(words, z, (hidden, cell))
            log_probabilities = log_probabilities + penalty
            at_limit = (position == self.max_words).astype(ms.float32)
            log_probabilities = ops.maximum(log_probabilities + at_limit * only_end, IMPOSSIBLE)
            log_probabilities = finished * only_pad + (1.0 - finished) * log_probabilities
            totals = scores.reshape(rows, 1) + log_probabilities
            scores, best = ops.topk(totals.reshape(sentences, beams * vocabulary), beams)
            best = best.astype(ms.int32)
            parents = (first_row + best // vocabulary).reshape(-1)
            words = (best % vocabulary).reshape(-1)
            texts = ops.gather(texts, parents, 0)
            texts = ops.select(positions == position, words.expand_dims(1), texts)
            hidden = ops.gather(state[0], parents, 1)
            cell = ops.gather(state[1], parents, 1)
            ended = ops.logical_or(words == END, words == PAD).astype(ms.float32)
            finished = ended.expand_dims(1)
            searching = 1.0 - ended.reshape(sentences, beams)[:, 0].min()
            position = position + 1
        return texts.reshape(sentences, beams, -1)[:, 0], scores[:, 0]


class SentenceDecoder:
    """Decodes any number of latent vectors; its graphs are compiled once and serve every call.

    Args:
        decoder: a :class:`mindspore_cvae.networks.Decoder`; its parameters may change between calls.
        rows: of a call of a graph. It bounds memory (rows times vocabulary floats, a few times over).
    """

    def __init__(self, decoder: nn.Cell, rows: int = 128):
        self.decoder = decoder
        self.rows = rows
        self.vocabulary_size = decoder.vocabulary_weight.shape[0]
        self._graphs: dict[tuple, nn.Cell] = {}

    def __call__(
        self, z: np.ndarray, decoding: Decoding = Decoding(), seed: int = 0
    ) -> list[np.ndarray]:
        """Sentences of latent vectors.

        Args:
            z: (N, Z); N may be 0.
            decoding: how words are chosen.
            seed: of the draws. Row i draws numbers of its own, keyed by (seed, i).

        Returns:
            N arrays of word ids, without ``<s>`` and ``</s>``.

        Raises:
            InputError: A beam or top_k is larger than the vocabulary allows.
        """
        z = np.asarray(z, np.float32)
        rows = self.rows
        if decoding.method == "beam":
            rows = max(1, rows // decoding.beam_size)
        texts: list[np.ndarray] = []
        for start in range(0, len(z), rows):
            part = z[start : start + rows]
            numbers = range(start, start + len(part))
            filled = np.concatenate([part, np.zeros((rows - len(part), z.shape[1]), np.float32)])
            texts.extend(self._decode(filled, decoding, seed, numbers)[: len(part)])
        return [text[: _length(text)] for text in texts]

    def _decode(
        self, z: np.ndarray, decoding: Decoding, seed: int, numbers: Sequence[int]
    ) -> np.ndarray:
        """One call of a graph: (rows, Z) -> (rows, T) words."""
        penalty = np.zeros(self.vocabulary_size, np.float32)
        penalty[[PAD, BEGIN]] = IMPOSSIBLE
        if decoding.no_unk:
            penalty[UNKNOWN] = IMPOSSIBLE
        graph = self._graph(decoding)
        if decoding.method == "beam":
            return graph(Tensor(z), Tensor(penalty))[0].asnumpy()
        draws = (None, None, None)
        if decoding.method == "sample":
            uniform = np.full((len(z), decoding.max_words), 0.5, np.float32)
            for row, number in enumerate(numbers):
                source = noise.generator(seed, "decoding", number)
                uniform[row] = source.random(decoding.max_words, np.float32)
            draws = (
                Tensor(np.ascontiguousarray(uniform.T)),
                Tensor(decoding.temperature, ms.float32),
                Tensor(1.0 if decoding.top_p is None else decoding.top_p, ms.float32),
            )
        return graph(Tensor(z), Tensor(penalty), *draws).asnumpy()

    def _graph(self, decoding: Decoding) -> nn.Cell:
        """The graph of a way of decoding; what is an argument of a graph does not make it another."""
        top_k = decoding.top_k
        if top_k is not None:
            top_k = min(top_k, self.vocabulary_size)
        key = {
            "greedy": (),
            "sample": (top_k, decoding.top_p is not None),
            "beam": (decoding.beam_size,),
        }[decoding.method]
        key = (decoding.method, decoding.max_words, *key)
        if key not in self._graphs:
            if decoding.method == "beam":
                graph = BeamSearch(self.decoder, decoding.beam_size, decoding.max_words)
            else:
                choice = MostProbable() if decoding.method == "greedy" else Drawn(*key[2:])
                graph = WordByWord(self.decoder, choice, decoding.max_words)
            self._graphs[key] = graph.set_train(False)
        return self._graphs[key]


def _length(text: np.ndarray) -> int:
    """Words before the end: (T,) -> a number up to T."""
    ends = np.flatnonzero((text == END) | (text == PAD))
    return int(ends[0]) if len(ends) else len(text)


def prior_codes(count: int, latent_size: int, seed: int) -> np.ndarray:
    """Draws from p(z) = N(0, I), (count, Z) float32; draw i is a function of (seed, i)."""
    draws = [
        noise.normal(noise.generator(seed, "generation", number), latent_size)
        for number in range(count)
    ]
    return np.stack(draws) if draws else np.zeros((0, latent_size), np.float32)


def sample_texts(
    run_folder,
    n: int,
    decoding: str = "sample",
    *,
    seed: int = 0,
    max_words: int | None = None,
    checkpoint: str = "best",
    **options,
) -> list[str]:
    """Sentences of a run's model from the prior. The device must have been chosen before.

    Args:
        run_folder: the run.
        n: how many.
        decoding: ``sample``, ``greedy`` or ``beam``.
        seed: of z and of the draws of words.
        max_words: longest sentence; None takes the run's ``data.max_words``.
        checkpoint: ``best`` or ``last``.
        options: further fields of :class:`Decoding`.

    Returns:
        n texts, words separated by a blank.
    """
    run = load_run(run_folder, checkpoint)
    if max_words is None:
        max_words = run.config.data.max_words
    decode = SentenceDecoder(run.model.decoder, run.config.eval.rows)
    z = prior_codes(n, run.config.model.latent_size, seed)
    ways = Decoding(method=decoding, max_words=max_words, **options)
    return [run.vocabulary.decode(ids) for ids in decode(z, ways, seed)]
