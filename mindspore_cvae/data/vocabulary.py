"""The words that a model knows, and the numbers they are known by."""

import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from mindspore_cvae.common.files import write_atomically
from mindspore_cvae.data.text import read_text
from mindspore_cvae.data.units import UNKNOWN_UNIT, WORDS, Words, load_units
from mindspore_cvae.errors import InputError

SPECIALS = ("<pad>", UNKNOWN_UNIT, "<s>", "</s>")
PAD, UNKNOWN, BEGIN, END = range(len(SPECIALS))


class Vocabulary:
    """Words and their ids; the four specials hold the ids 0 to 3.

    Args:
        words: every word in id order, the four specials first.
        units: what they are, and what splits a sentence into them.

    Raises InputError when the specials are not in their places, or a word is empty, holds blanks,
    or is there twice.
    """

    def __init__(self, words: Iterable[str], units: Words = WORDS):
        self.words = list(words)
        self.units = units
        if tuple(self.words[: len(SPECIALS)]) != SPECIALS:
            raise InputError(f"a vocabulary begins with the words {' '.join(SPECIALS)}")
        self._ids: dict[str, int] = {}
        for number, word in enumerate(self.words):
            if word.split() != [word]:
                raise InputError(
                    f"a vocabulary holds one word a line, without blanks: {word!r} at number "
                    f"{number + 1} is not one"
                )
            if self._ids.setdefault(word, number) != number:
                raise InputError(
                    f"a vocabulary holds every word once: {word!r} is there at numbers "
                    f"{self._ids[word] + 1} and {number + 1}"
                )

    @classmethod
    def from_counts(cls, counts: Counter[str], size: int, units: Words = WORDS) -> "Vocabulary":
        """The most frequent words, ties in alphabetical order.

        Args:
            counts: occurrences of each word in the training sentences; specials are ignored.
            size: largest number of words, the four specials included; at least 5.
            units: what the words are.
        """
        if size <= len(SPECIALS):
            raise InputError(
                f"data.vocabulary_size is {size}; it counts the {len(SPECIALS)} specials, "
                f"so it must be {len(SPECIALS) + 1} or more"
            )
        ranked = sorted(counts.keys() - set(SPECIALS), key=lambda word: (-counts[word], word))
        return cls([*SPECIALS, *ranked[: size - len(SPECIALS)]], units)

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self._ids

    def encode(self, words: Iterable[str]) -> np.ndarray:
        """Ids of words, shape (number of words,), int32; a word not held is `<unk>`."""
        return np.fromiter(map(self._ids.get, words, itertools.repeat(UNKNOWN)), np.int32)

    def encode_all(self, sentences: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """Ids of every sentence, each of shape (its number of words,), int32."""
        ids = self.encode(itertools.chain.from_iterable(sentences))
        ends = itertools.accumulate(map(len, sentences))
        # Slices of one array: an np.split costs ten times as much on tens of thousands.
        return [ids[end - len(words) : end] for words, end in zip(sentences, ends, strict=True)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the words up to the first `</s>`; `<s>` and `<pad>` are left out."""
        sentence = itertools.takewhile(lambda number: number != END, (int(i) for i in ids))
        words = (self.words[number] for number in sentence if number not in (PAD, BEGIN))
        return self.units.join(words)

    def spaced(self, text: str) -> str:
        """A text with blanks between its units, for readers of words."""
        return " ".join(self.units.split(text))

    def save(self, path: str | os.PathLike) -> None:
        """Writes one word a line, in id order, all at once; and beside it what the units take."""
        self.units.save(Path(path).parent)
        write_atomically(Path(path), "".join(f"{word}\n" for word in self.words))

    @classmethod
    def load(cls, path: str | os.PathLike, unit: str = "word") -> "Vocabulary":
        """Reads what `save` wrote.

        Args:
            path: the file.
            unit: `data.unit` of the run.

        Raises InputError, naming the file, when it is no vocabulary, or its units cannot be read.
        """
        units = load_units(unit, Path(path).parent)
        words = read_text(path).split("\n")
        if words[-1] == "":
            words.pop()
        try:
            return cls((word.removesuffix("\r") for word in words), units)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def fingerprint(self) -> str:
        """SHA-256 of words in id order and of the units: equal for equal vocabularies alone."""
        digest = hashlib.sha256("\n".join(self.words).encode("utf-8"))
        if self.units.identity:
            # A line of its own, which no word is: of words alone, as ever, there is none.
            digest.update(b"\n\n" + self.units.identity)
        return digest.hexdigest()
