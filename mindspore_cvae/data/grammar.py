"""The embedded corpus: sentences of an unambiguous probabilistic grammar, with exact probabilities.

The probability of a derivation is the product of the probabilities of its rules; a sentence of an
unambiguous grammar has one derivation, so its log-probability is known exactly. The negative of its
mean is a floor that no valid estimate of a model's NLL falls below (beyond the error of sampling).

`python -m mindspore_cvae grammar --output_dir D` writes the corpus and the log-probabilities.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from mindspore_cvae.common.files import read_regular, write_atomically
from mindspore_cvae.data import newswire
from mindspore_cvae.errors import InputError

DEFAULT_SEED = 0

SENTENCES = {"train": 20_000, "valid": 2_000, "test": 2_000}

TOPICS = tuple(newswire.TOPICS)

Symbol = tuple
"""A nonterminal. Words are plain strings."""

# Second word of the Philox key: keeps the corpus apart from every other use of a seed.
_CORPUS_STREAM = 0x636F72707573


class Rule(NamedTuple):
    """One way to expand a symbol.

    Attributes:
        probability: given the symbol.
        expansion: words and symbols, at least one.
    """

    probability: float
    expansion: tuple[str | Symbol, ...]


class Derivation(NamedTuple):
    """A sentence with the way that it was made.

    Attributes:
        words: of the sentence.
        log_probability: of the derivation, nats.
        symbols: the symbols expanded, leftmost first.
    """

    words: list[str]
    log_probability: float
    symbols: list[Symbol]


class _Choice(NamedTuple):
    """A symbol's rules, laid out for quick drawing."""

    bounds: list[float]
    log_probabilities: list[float]
    reversed_expansions: list[tuple[str | Symbol, ...]]

    @classmethod
    def of(cls, rules: Sequence[Rule]) -> _Choice:
        return cls(
            bounds=list(itertools.accumulate(rule.probability for rule in rules))[:-1],
            log_probabilities=[math.log(rule.probability) for rule in rules],
            reversed_expansions=[rule.expansion[::-1] for rule in rules],
        )


class Grammar:
    """A probabilistic context-free grammar without empty expansions.

    Args:
        start: the symbol of whole sentences.
        alternatives: gives the (weight, expansion) pairs of a symbol; weights are scaled to
            probabilities. It is asked about every symbol that can be reached from `start`.

    Raises ValueError: a symbol without alternatives, an alternative that is empty, is given twice
    or has no positive weight, or a symbol that can begin its own expansion (left recursion).
    """

    def __init__(
        self,
        start: Symbol,
        alternatives: Callable[[Symbol], Iterable[tuple[float, tuple[str | Symbol, ...]]]],
    ):
        self.start = start
        self.rules: dict[Symbol, tuple[Rule, ...]] = {}
        waiting = [start]
        while waiting:
            symbol = waiting.pop()
            if symbol in self.rules:
                continue
            weighted = list(alternatives(symbol))
            expansions = [expansion for _, expansion in weighted]
            if not all(expansions) or not expansions or len(set(expansions)) < len(expansions):
                raise ValueError(f"{symbol} needs distinct expansions that are not empty")
            if min(weight for weight, _ in weighted) <= 0:
                raise ValueError(f"{symbol} has a weight that is not positive")
            total = math.fsum(weight for weight, _ in weighted)
            self.rules[symbol] = tuple(Rule(weight / total, right) for weight, right in weighted)
            for part in itertools.chain.from_iterable(expansions):
                if not isinstance(part, str):
                    waiting.append(part)
        self._first = self._first_words()
        self._choices = {symbol: _Choice.of(rules) for symbol, rules in self.rules.items()}

    def _first_words(self) -> dict[Symbol, frozenset[str]]:
        """The words that can begin each symbol's expansions."""
        first: dict[Symbol, frozenset[str]] = {}
        open_symbols: set[Symbol] = set()

        def visit(symbol: Symbol) -> frozenset[str]:
            if symbol in open_symbols:
                raise ValueError(f"{symbol} can begin its own expansion")
            if symbol not in first:
                open_symbols.add(symbol)
                first[symbol] = frozenset().union(
                    *(
                        [right[0]] if isinstance(right[0], str) else visit(right[0])
                        for _, right in self.rules[symbol]
                    )
                )
                open_symbols.remove(symbol)
            return first[symbol]

        for symbol in self.rules:
            visit(symbol)
        return first

    def words(self) -> list[str]:
        """Every word of the grammar, in alphabetical order."""
        parts = (part for rules in self.rules.values() for rule in rules for part in rule.expansion)
        return sorted({part for part in parts if isinstance(part, str)})

    def derive(self, uniform: Iterator[float]) -> Derivation:
        """Draws a sentence.

        Args:
            uniform: independent draws from [0, 1); every expansion takes one.
        """
        words: list[str] = []
        symbols: list[tuple] = []
        waiting: list[str | tuple] = [self.start]
        log_probability = 0.0
        while waiting:
            part = waiting.pop()
            if isinstance(part, str):
                words.append(part)
                continue
            choice = self._choices[part]
            number = bisect.bisect_right(choice.bounds, next(uniform))
            symbols.append(part)
            log_probability += choice.log_probabilities[number]
            waiting += choice.reversed_expansions[number]
        return Derivation(words, log_probability, symbols)

    def log_probability(self, words: Sequence[str]) -> float:
        """Log of the total probability of a sentence's derivations, nats; -inf where it has none.

        The inside algorithm from the top down: inside(A, i) holds for every end j the probability
        that A expands to words i .. j - 1.
        """
        length = len(words)

        @functools.cache
        def inside(symbol: Symbol, begin: int) -> dict[int, float]:
            total: dict[int, float] = {}
            for probability, expansion in self.rules[symbol]:
                ends = {begin: probability}
                for part in expansion:
                    further: dict[int, float] = {}
                    for middle, left in ends.items():
                        if middle == length:
                            continue
                        if isinstance(part, str):
                            found = {middle + 1: 1.0} if words[middle] == part else {}
                        else:
                            possible = words[middle] in self._first[part]
                            found = inside(part, middle) if possible else {}
                        for end, right in found.items():
                            further[end] = further.get(end, 0.0) + left * right
                    ends = further
                    if not ends:
                        break
                for end, value in ends.items():
                    total[end] = total.get(end, 0.0) + value
            return total

        probability = inside(self.start, 0).get(length, 0.0)
        return math.log(probability) if probability > 0 else -math.inf

    def entropy(self) -> float:
        """Expected -log p of a derivation, nats; of a sentence, if the grammar is unambiguous.

        Solves H(A) = sum over rules r of A of p_r (-log p_r + sum over symbols B in r of H(B)).
        """
        return self._expected(lambda rule: -math.log(rule.probability))

    def expected_length(self) -> float:
        """Expected number of words of a sentence, by the same equations as the entropy."""
        return self._expected(lambda rule: sum(isinstance(part, str) for part in rule.expansion))

    def _expected(self, cost: Callable[[Rule], float]) -> float:
        """Expected sum of a cost over the rules of a derivation."""
        numbers = {symbol: number for number, symbol in enumerate(self.rules)}
        costs = np.zeros(len(numbers))
        successors = np.zeros((len(numbers), len(numbers)))
        for symbol, rules in self.rules.items():
            row = numbers[symbol]
            for rule in rules:
                costs[row] += rule.probability * cost(rule)
                for part in rule.expansion:
                    if not isinstance(part, str):
                        successors[row, numbers[part]] += rule.probability
        expected = np.linalg.solve(np.eye(len(numbers)) - successors, costs)
        return float(expected[numbers[self.start]])


class Sample(NamedTuple):
    """Sentences drawn from the embedded grammar.

    Attributes:
        texts: words separated by blanks.
        log_probabilities: of each sentence, nats, shape (sentences,), float64.
        topics: number in `TOPICS` of each sentence's topic, shape (sentences,), int64.
    """

    texts: list[str]
    log_probabilities: np.ndarray
    topics: np.ndarray


@functools.cache
def embedded_grammar() -> Grammar:
    """The grammar of :mod:`data.newswire`."""
    return Grammar(newswire.START, newswire.alternatives)


def generate(
    seed: int = DEFAULT_SEED, counts: Mapping[str, int] = MappingProxyType(SENTENCES)
) -> dict[str, Sample]:
    """The embedded corpus of a seed: independent draws, so that splits may share sentences.

    Args:
        seed: 0 to 2^64 - 1.
        counts: sentences of each split. A split's first sentences do not depend on its count.
    """
    grammar = embedded_grammar()
    samples = {}
    for stream, (split, count) in enumerate(counts.items()):
        uniform = _uniform(seed, stream)
        derivations = [grammar.derive(uniform) for _ in range(count)]
        samples[split] = Sample(
            texts=[" ".join(derivation.words) for derivation in derivations],
            log_probabilities=np.array([part.log_probability for part in derivations], np.float64),
            topics=np.array([TOPICS.index(_topic(part)) for part in derivations], np.int64),
        )
    return samples


def log_probability(words: Sequence[str]) -> float:
    """Log-probability of a sentence under the embedded grammar, nats; -inf for any other."""
    return embedded_grammar().log_probability(words)


def entropy() -> float:
    """Expected -log p of a sentence of the embedded grammar, nats."""
    return embedded_grammar().entropy()


def expected_length() -> float:
    """Expected number of words of a sentence of the embedded grammar."""
    return embedded_grammar().expected_length()


def _topic(derivation: Derivation) -> str:
    return next(features[0] for name, *features in derivation.symbols if name == "story")


def _uniform(seed: int, stream: int) -> Iterator[float]:
    """Independent draws from [0, 1), the same with every version of NumPy."""
    key = np.array([seed, _CORPUS_STREAM], np.uint64)  # a list would become floats from 2^63 on
    random = np.random.Philox(key=key, counter=[0, 0, 0, stream])
    while True:
        # NumPy promises that a bit generator's stream stays, but not what `Generator` makes of it.
        yield from ((random.random_raw(4096) >> np.uint64(11)) * 2.0**-53).tolist()


TABLE_HEAD = "split\tnumber\tlog_probability\ttopic\n"
"""First line of log_probabilities.tsv."""


def _is_our_table(path: Path) -> bool:
    """Whether a file is the table that :func:`write_corpus` writes, by its head and first row."""
    try:
        lines = read_regular(path).decode().splitlines(keepends=True)[:2]
    except (OSError, ValueError):
        return False
    return len(lines) == 2 and lines[0] == TABLE_HEAD and lines[1].startswith("train\t1\t-")


def write_corpus(folder: Path, seed: int = DEFAULT_SEED) -> dict[str, Sample]:
    """Writes train.txt, valid.txt, test.txt and log_probabilities.tsv, each all at once.

    The table has a line a sentence: split, line number (from 1), log-probability in nats, topic.

    Raises InputError when the folder cannot be written or holds a text of other origin.
    """
    table = folder / "log_probabilities.tsv"
    samples = generate(seed)
    texts = {folder / f"{split}.txt": sample.texts for split, sample in samples.items()}
    for path in texts:
        # The table is written first, so a text without a table came from elsewhere.
        if path.exists() and not _is_our_table(table):
            raise InputError(f"{path} is there and not from this command; name another folder")
    rows = [TABLE_HEAD]
    for split, (_, log_probabilities, topics) in samples.items():
        for number, (value, topic) in enumerate(zip(log_probabilities, topics, strict=True), 1):
            rows.append(f"{split}\t{number}\t{float(value)!r}\t{TOPICS[topic]}\n")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(table, "".join(rows))
        for path, sentences in texts.items():
            write_atomically(path, "".join(f"{sentence}\n" for sentence in sentences))
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from error
    return samples
