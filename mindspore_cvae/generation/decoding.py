"""Decoding: latent vectors to sentences, many at a time, word by word inside one compiled graph.

A graph has a fixed shape, some rows by some words. Rows whose sentence has ended are masked, and
the loop over words stops when all have ended. Everything here is a function of a decoder and of z,
wherever z comes from. ``<pad>`` and ``<s>`` never come out.

Sampling inverts the distribution function: one uniform number a word, made on the host from the
seed and the number of the sentence, so that a sentence does not depend on what else is decoded.
(Gumbel noise on the scores would do as well, but takes as many numbers a word as there are words.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from mindspore_cvae.common import randomness
from mindspore_cvae.common.progress import Compilations, progress
from mindspore_cvae.data.vocabulary import BEGIN, END, PAD, UNKNOWN
from mindspore_cvae.generation.ways import Decoding

IMPOSSIBLE = -1e30
"""Log-probability of what must not come out. Unlike minus infinity it can be added and compared."""
NUCLEUS_WORDS = 1024
"""Words that are sorted to find a nucleus (top-p), before all are."""


class MostProbable(nn.Cell):
    """The choice of greedy decoding."""

    def construct(self, logits: Tensor, uniform, temperature, top_p) -> Tensor:
        """(N, V), unused -> (N,) words."""
        return ops.argmax(logits, -1)


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
        self, logits: Tensor, uniform: Tensor, temperature: Tensor, top_p: Tensor
    ) -> Tensor:
        """(N, V), (N,) in [0, 1), (), () -> (N,) words."""
        scaled = logits / temperature
        if self.top_k is not None:
            values, words = ops.topk(scaled, min(self.top_k, scaled.shape[1]))
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
    """Where the cumulated sum exceeds ``uniform`` times the whole. (N, K), (N,) -> (N, 1) indices.

    What has probability 0 is never returned: the first index that exceeds the target adds to the
    sum.
    """
    cumulated = ops.cumsum(probabilities, 1)
    target = uniform.expand_dims(1) * cumulated[:, -1:]
    return ops.searchsorted(cumulated, target, right=True)


class WordByWord(nn.Cell):
    """z to sentences, by a choice of each next word.

    Args:
        decoder: a :class:`model.networks.Decoder`.
        choice: :class:`MostProbable` or :class:`Drawn`.
        max_words: T.
    """

    def __init__(self, decoder: nn.Cell, choice: nn.Cell, max_words: int):
        # Without prefixes: the decoder's parameters keep their names.
        super().__init__(auto_prefix=False)
        self.decoder = decoder
        self.choice = choice
        self.max_words = max_words

    def construct(
        self, z: Tensor, penalty: Tensor, uniform=None, temperature=None, top_p=None
    ) -> Tensor:
        """Sentences of N rows.

        Args:
            z: (N, Z).
            penalty: (V,), 0 or :data:`IMPOSSIBLE`, added to the scores of the words.
            uniform: (T, N) numbers in [0, 1).
            temperature, top_p: scalars. All three are None for a choice that draws nothing.

        Returns:
            (N, T) int32: words, ``</s>`` where the sentence ended before T words, then ``<pad>``.
        """
        rows = z.shape[0]
        positions = ops.arange(self.max_words).astype(ms.int32)
        sentences = ops.zeros((rows, self.max_words), ms.int32)
        words = ops.full((rows,), BEGIN, dtype=ms.int32)
        running = ops.ones((rows,), ms.int32)
        state = self.decoder.initial_state(z)
        # In the bias, and once: a word has no pass over all logits for it.
        weight = self.decoder.output_weight(penalty)
        position = Tensor(0, ms.int32)
        while ops.logical_and(position < self.max_words, running.max() > 0):
            outputs, state = self.decoder.advance(words, z, state)
            logits = self.decoder.logits(outputs, weight)
            numbers = None
            if uniform is not None:
                numbers = uniform[position]
            words = self.choice(logits, numbers, temperature, top_p)
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
        decoder: a :class:`model.networks.Decoder`.
        beam_size: B.
        max_words: T.
    """

    def __init__(self, decoder: nn.Cell, beam_size: int, max_words: int):
        super().__init__(auto_prefix=False)
        self.decoder = decoder
        self.beam_size = beam_size
        self.max_words = max_words

    def construct(self, z: Tensor, penalty: Tensor) -> Tensor:
        """The best sentence of each of N rows.

        Args:
            z: (N, Z).
            penalty: (V,), as for :class:`WordByWord`.

        Returns:
            (N, T + 1) int32: words and ``</s>``, then ``<pad>``.
        """
        sentences, beams = z.shape[0], self.beam_size
        rows = sentences * beams
        # No beginning has more than so many continuations in the next beam.
        kept = min(beams, penalty.shape[0])
        z = ops.repeat_interleave(z, beams, 0)
        first_row = ops.arange(sentences).astype(ms.int32).expand_dims(1) * beams
        positions = ops.arange(self.max_words + 1).astype(ms.int32)
        # For a beginning that can go on in one way only.
        but_one = ops.zeros((rows, kept), ms.float32)
        but_one = but_one + IMPOSSIBLE * (ops.arange(kept) > 0).astype(ms.float32)

        # All beginnings are equal at first: all but one are ruled out.
        scores = ops.zeros((sentences, beams), ms.float32)
        scores = scores + IMPOSSIBLE * (ops.arange(beams) > 0).astype(ms.float32)
        texts = ops.zeros((rows, self.max_words + 1), ms.int32)
        words = ops.full((rows,), BEGIN, dtype=ms.int32)
        finished = ops.zeros((rows, 1), ms.int32) > 0
        hidden, cell = self.decoder.initial_state(z)
        position = Tensor(0, ms.int32)
        searching = ops.ones((), ms.int32)
        while ops.logical_and(position <= self.max_words, searching > 0):
            log_probabilities, state = self.decoder.step(words, z, (hidden, cell))
            added, following = ops.topk(log_probabilities + penalty, kept)
            following = following.astype(ms.int32)
            ending = but_one + log_probabilities[:, END].expand_dims(1)
            is_last = ops.logical_and(position == self.max_words, ops.logical_not(finished))
            added = ops.select(finished, but_one, ops.select(is_last, ending, added))
            following = ops.select(is_last, ops.full_like(following, END), following)
            following = ops.select(finished, ops.full_like(following, PAD), following)

            totals = (scores.reshape(rows, 1) + added).reshape(sentences, beams * kept)
            scores, best = ops.topk(totals, beams)
            best = best.astype(ms.int32)
            parents = (first_row + best // kept).reshape(-1)
            words = ops.gather_elements(following.reshape(sentences, beams * kept), 1, best)
            words = words.reshape(-1)
            texts = ops.gather(texts, parents, 0)
            texts = ops.select(positions == position, words.expand_dims(1), texts)
            hidden, cell = ops.gather(state[0], parents, 1), ops.gather(state[1], parents, 1)
            finished = ops.logical_or(words == END, words == PAD).expand_dims(1)
            searching = 1 - finished.reshape(sentences, beams)[:, 0].astype(ms.int32).min()
            position = position + 1
        return texts.reshape(sentences, beams, -1)[:, 0]


GRAPHS: dict[str, Callable[[nn.Cell, Decoding], nn.Cell]] = {
    "greedy": lambda decoder, way: WordByWord(decoder, MostProbable(), way.max_words),
    "sample": lambda decoder, way: WordByWord(
        decoder, Drawn(way.top_k, way.has_nucleus), way.max_words
    ),
    "beam": lambda decoder, way: BeamSearch(decoder, way.beam_size, way.max_words),
}
"""The graph of each method."""


class SentenceDecoder:
    """Decodes any number of latent vectors; its graphs are compiled once and serve every call.

    Args:
        decoder: a :class:`model.networks.Decoder`; its parameters may change between
            calls.
        rows: of a call of a graph. It bounds memory: a few times rows times vocabulary floats.
    """

    def __init__(self, decoder: nn.Cell, rows: int = 128):
        self.decoder = decoder
        self.rows = rows
        self._graphs: dict[Decoding, nn.Cell] = {}
        self._compilations = Compilations()

    def __call__(self, z: np.ndarray, decoding: Decoding, seed: int = 0) -> list[np.ndarray]:
        """Sentences of latent vectors.

        Args:
            z: (N, Z); N may be 0.
            decoding: how words are chosen.
            seed: of the draws. Row i draws numbers of its own, keyed by (seed, i).

        Returns:
            N arrays of word ids, without ``<s>`` and ``</s>``.
        """
        z = np.asarray(z, np.float32)
        rows = self.rows
        if decoding.method == "beam":
            rows = max(1, rows // decoding.beam_size)
        texts: list[np.ndarray] = []
        bar = progress("decoding", len(z), "sentences")
        for start in range(0, len(z), rows):
            numbers = np.arange(start, min(start + rows, len(z)))
            # Repetitions of its first row fill the last call: they end when that one ends.
            fillers = np.full(rows - len(numbers), start)
            note = f"{decoding.method} decoding"
            with self._compilations.watched(bar, self._graph_of(decoding), note, len(numbers)):
                words = self._decode(z, np.concatenate([numbers, fillers]), decoding, seed)
            texts.extend(words[: len(numbers)])
        bar.close()
        return [text[: _length(text)] for text in texts]

    @staticmethod
    def _graph_of(decoding: Decoding) -> Decoding:
        """Which graph decodes so: what is an argument of a graph does not make another one."""
        return replace(decoding, temperature=1.0, top_p=decoding.has_nucleus or None, no_unk=False)

    def _decode(
        self, z: np.ndarray, numbers: np.ndarray, decoding: Decoding, seed: int
    ) -> np.ndarray:
        """One call of a graph, for the rows of these numbers: -> (rows, at least T) words."""
        key = self._graph_of(decoding)
        if key not in self._graphs:
            graph = GRAPHS[decoding.method](self.decoder, decoding)
            self._graphs[key] = graph.set_train(False)
        penalty = np.zeros(self.decoder.vocabulary_weight.shape[0], np.float32)
        penalty[[PAD, BEGIN]] = IMPOSSIBLE
        if decoding.no_unk:
            penalty[UNKNOWN] = IMPOSSIBLE
        chances: tuple = ()
        if decoding.method == "sample":
            uniform = [
                randomness.generator(seed, "decoding", int(number)).random(
                    decoding.max_words, np.float32
                )
                for number in numbers
            ]
            chances = (
                Tensor(np.stack(uniform, 1)),
                Tensor(decoding.temperature, ms.float32),
                Tensor(decoding.top_p or 1.0, ms.float32),
            )
        words = self._graphs[key](Tensor(z[numbers]), Tensor(penalty), *chances)
        return words.asnumpy()


def _length(text: np.ndarray) -> int:
    """Words before the end: (T,) -> a number up to T."""
    ends = np.flatnonzero((text == END) | (text == PAD))
    return int(ends[0]) if len(ends) else len(text)


def prior_codes(count: int, latent_size: int, seed: int) -> np.ndarray:
    """Draws from p(z) = N(0, I), (count, Z) float32; draw i is a function of (seed, i)."""
    codes = [
        randomness.normal(randomness.generator(seed, "generation", number), latent_size)
        for number in range(count)
    ]
    return np.stack(codes) if codes else np.zeros((0, latent_size), np.float32)
