"""Text files to splits of numbered sentences (the data of the paper's Appendix A.1)."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import shlex
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mindspore_cvae.config.keys import Data
from mindspore_cvae.data import grammar
from mindspore_cvae.data.published import DATA_SETS
from mindspore_cvae.data.text import read_text
from mindspore_cvae.data.units import UNITS, WORDS, Pieces, Words
from mindspore_cvae.data.vocabulary import BEGIN, END, PAD, SPECIALS, UNKNOWN, Vocabulary
from mindspore_cvae.errors import InputError, typed

SPLITS = ("train", "valid", "test")
FILE_NAMES = {
    "train": ("train.txt",),
    "valid": ("valid.txt", "val.txt"),
    "test": ("test.txt",),
}
RESERVED = tuple(SPECIALS[number] for number in (PAD, BEGIN, END))
"""Words that a text must not hold."""


@dataclass(frozen=True)
class Split:
    """One split of a corpus.

    Attributes:
        name: train, valid or test.
        source: the file that the sentences came from, or "the embedded corpus".
        sentences: word ids of each sentence, int32, without `<s>` and `</s>`.
        lines: 1-based line number in `source` of each sentence, shape (sentences,), int64.
        counts: what became of the lines: `read` lines, `empty` ones, sentences `dropped` or
            `truncated` as too long; and the `unknown` words of the kept sentences.
        log_probabilities: exact log p(sentence, `</s>`) in nats, shape (sentences,), float64;
            None where it is not known.
        labels: of each sentence, empty where it has none; in the embedded corpus, its topic. None
            where no sentence has one.
        text_lengths: words between blanks and characters of each sentence's text, shape
            (sentences, 2), int64; None where a sentence is made of words.
    """

    name: str
    source: str
    sentences: list[np.ndarray]
    lines: np.ndarray
    counts: dict[str, int]
    log_probabilities: np.ndarray | None = None
    labels: list[str] | None = None
    text_lengths: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.sentences)

    @property
    def lengths(self) -> np.ndarray:
        """Words of each sentence, shape (sentences,), int64; `</s>` is not counted."""
        return np.fromiter(map(len, self.sentences), np.int64, len(self.sentences))

    def feed(self, digest: hashlib._Hash) -> None:
        """Updates a digest by the sentences."""
        digest.update(np.array([len(self), *self.lengths], "<i8").tobytes())
        digest.update(np.concatenate(self.sentences).astype("<i4").tobytes())

    @property
    def tokens(self) -> int:
        """Predicted tokens: every word, and one `</s>` a sentence."""
        return int(self.lengths.sum()) + len(self.sentences)


@dataclass(frozen=True)
class Corpus:
    """Three splits, the vocabulary that numbers their words, and what a user should be told.

    Attributes:
        messages: sentences about choices made while reading (a file split by hash, for instance).
    """

    train: Split
    valid: Split
    test: Split
    vocabulary: Vocabulary
    messages: tuple[str, ...] = ()

    @property
    def splits(self) -> tuple[Split, Split, Split]:
        return self.train, self.valid, self.test

    def fingerprint(self) -> str:
        """SHA-256 of the vocabulary and of every sentence: equal for equal corpora alone."""
        digest = hashlib.sha256(self.vocabulary.fingerprint().encode())
        for split in self.splits:
            split.feed(digest)
        return digest.hexdigest()

    def text(self, name: str) -> str:
        """SHA-256 of the vocabulary and of a split's sentences: the identity of what is read there,
        wherever it lies."""
        digest = hashlib.sha256(self.vocabulary.fingerprint().encode())
        {split.name: split for split in self.splits}[name].feed(digest)
        return digest.hexdigest()


class TrueScores(NamedTuple):
    """What a model that knows the truth would score on a split.

    Attributes:
        nll: mean -log p(sentence), nats a sentence.
        perplexity: exp(total -log p / predicted tokens); `</s>` is a token, `<s>` is not.
    """

    nll: float
    perplexity: float


def true_scores(split: Split, sentences: int | None = None) -> TrueScores | None:
    """The floor of every valid NLL and perplexity on a split whose probabilities are known.

    Args:
        sentences: only the first so many; None for all.

    Returns None where the probabilities are not known (all but the embedded corpus).
    """
    if split.log_probabilities is None:
        return None
    log_probabilities = split.log_probabilities[:sentences]
    tokens = split.lengths[:sentences].sum() + len(log_probabilities)
    return TrueScores(
        nll=float(-log_probabilities.mean()),
        perplexity=float(np.exp(-log_probabilities.sum() / tokens)),
    )


class _Lines(NamedTuple):
    """Kept sentences as words, before they are numbered; the fields are those of `Split`."""

    source: str
    sentences: list[list[str]]
    lines: list[int]
    counts: dict[str, int]
    labels: list[str]


def _split_label(source: str, number: int, line: str) -> tuple[str, str]:
    """The label and the text of a line `<label>TAB<text>`."""
    label, tab, text = line.partition("\t")
    if not tab and label.strip():
        raise InputError(
            f"{source}, line {number}: no tab behind a label; data.label_column=true reads "
            "<label>TAB<text>, so write every line so or set it to false"
        )
    # Equal labels of many lines are kept once.
    return sys.intern(label.strip()), text


def _refuse_reserved(source: str, text: str, lines: list[str]) -> None:
    """Raises InputError when a special other than `<unk>` is a word of a line."""
    for word in RESERVED:
        if word in text:  # a quick search of the whole text, before the slow one line by line
            for number, line in enumerate(lines, 1):
                if word in line.split():
                    raise InputError(
                        f"{source}, line {number}: the word {word} is reserved for the model; "
                        "remove it from the text"
                    )


def _read_lines(source: str, text: str, data: Data) -> _Lines:
    """The sentences of a text, as the configuration says to read it."""
    unk_alias = data.unk_alias
    # Only a line feed ends a line: other separators of Unicode may stand within a sentence.
    lines = text.removesuffix("\n").split("\n") if text else []
    label_of = [""] * len(lines)
    if data.label_column:
        pairs = [_split_label(source, number, line) for number, line in enumerate(lines, 1)]
        label_of, lines = [label for label, _ in pairs], [line for _, line in pairs]
    if data.lowercase:
        text, lines = text.lower(), [line.lower() for line in lines]
        unk_alias = unk_alias and unk_alias.lower()
    units = WORDS if data.unit == "word" else _WholeLines()
    if units is WORDS:
        _refuse_reserved(source, text, lines)

    counts = {"read": len(lines), "empty": 0, "dropped": 0, "truncated": 0}
    sentences, numbers = [], []
    for number, line in enumerate(lines, 1):
        words = units.split(line)
        if not words:
            counts["empty"] += 1
            continue
        if not _fits(words, units, source, number, data, counts):
            continue
        if unk_alias is not None and unk_alias in words:
            words = [SPECIALS[UNKNOWN] if word == unk_alias else word for word in words]
        sentences.append(words)
        numbers.append(number)
    labels = [label_of[number - 1] for number in numbers]
    return _Lines(source, sentences, numbers, counts, labels)


class _WholeLines(Words):
    """Lines as they are read, before it is known what they are made of."""

    def split(self, text: str) -> list[str]:
        return [" ".join(text.split())] if text.split() else []


def _in_units(part: _Lines, units: Words, data: Data) -> _Lines:
    """Whole lines in other units than words, those of too many set aside as ``data`` says."""
    counts = dict(part.counts)
    kept = _Lines(part.source, [], [], counts, [])
    for (line,), number, label in zip(part.sentences, part.lines, part.labels, strict=True):
        split = units.split(line)
        if not _fits(split, units, part.source, number, data, counts):
            continue
        kept.sentences.append(split)
        kept.lines.append(number)
        kept.labels.append(label)
    return kept


def _fits(
    sentence: list[str], units: Words, source: str, number: int, data: Data, counts: dict[str, int]
) -> bool:
    """Whether a sentence of a line stays. One that is too long is counted, and cut or dropped."""
    if len(sentence) <= data.max_words:
        return True
    if data.too_long == "error":
        raise InputError(
            f"{source}, line {number}: {len(sentence)} {units.name}, and data.max_words is "
            f"{data.max_words}; raise it, or set data.too_long to drop or truncate"
        )
    if data.too_long == "drop":
        counts["dropped"] += 1
        return False
    counts["truncated"] += 1
    del sentence[data.max_words :]
    return True


def _refuse_empty(lines: _Lines) -> None:
    """Raises InputError when no sentence is left."""
    if not lines.sentences:
        counts = lines.counts
        raise InputError(
            f"{lines.source}: no sentence left of {counts['read']} lines ({counts['empty']} empty, "
            f"{counts['dropped']} of more than data.max_words)"
        )


def _read_folder(folder: Path, data: Data) -> dict[str, _Lines]:
    """The splits of a folder with a file for each."""
    parts = {}
    for split, names in FILE_NAMES.items():
        files = [folder / name for name in names if (folder / name).is_file()]
        if not files:
            raise InputError(f"{folder}: no {' or '.join(names)} in this folder")
        if len(files) > 1:
            raise InputError(f"{folder}: both {' and '.join(names)} are there; remove one")
        parts[split] = _read_lines(str(files[0]), read_text(files[0]), data)
        _refuse_empty(parts[split])
    return parts


def _read_file(path: Path, data: Data) -> dict[str, _Lines]:
    """The splits of one file: 90/5/5 per cent, by a hash of each sentence's words.

    Equal sentences fall into one split, and where a sentence falls does not depend on the others.
    Lines without a kept sentence and truncated ones are counted with train.
    """
    whole = _read_lines(str(path), read_text(path), data)
    _refuse_empty(whole)
    parts = {
        name: _Lines(whole.source, [], [], dict.fromkeys(whole.counts, 0), []) for name in SPLITS
    }
    for words, number, label in zip(whole.sentences, whole.lines, whole.labels, strict=True):
        digest = hashlib.blake2b(" ".join(words).encode("utf-8"), digest_size=8).digest()
        percent = int.from_bytes(digest, "big") % 100
        part = parts["train" if percent < 90 else "valid" if percent < 95 else "test"]
        part.sentences.append(words)
        part.lines.append(number)
        part.labels.append(label)
    held_out = 0
    for name in ("valid", "test"):
        parts[name].counts["read"] = len(parts[name].sentences)
        held_out += len(parts[name].sentences)
    parts["train"].counts.update(whole.counts, read=whole.counts["read"] - held_out)
    for name, part in parts.items():
        if not part.sentences:
            raise InputError(
                f"{path}: none of its {len(whole.sentences)} sentences falls into the {name} "
                "split; give more, or a folder with train.txt, valid.txt and test.txt"
            )
    return parts


def _read_embedded(samples: dict[str, grammar.Sample], data: Data) -> dict[str, _Lines]:
    """The splits of the embedded corpus; how users' files are written does not concern it."""
    data = dataclasses.replace(data, unk_alias=None, lowercase=False, label_column=False)
    parts = {
        name: _read_lines("the embedded corpus", "\n".join(sample.texts), data)
        for name, sample in samples.items()
    }
    for part in parts.values():
        _refuse_empty(part)
    return parts


def _number(name: str, part: _Lines, vocabulary: Vocabulary) -> Split:
    """A split with its words numbered."""
    sentences = vocabulary.encode_all(part.sentences)
    unknown = int(np.count_nonzero(np.concatenate(sentences) == UNKNOWN))
    text_lengths = None
    if vocabulary.units is not WORDS:
        # Of the text itself: an unknown unit is not as long as its sign.
        texts = map(vocabulary.units.join, part.sentences)
        text_lengths = np.array([(len(text.split()), len(text)) for text in texts], np.int64)
    return Split(
        name=name,
        source=part.source,
        sentences=sentences,
        lines=np.array(part.lines, np.int64),
        counts=part.counts | {"unknown": unknown},
        labels=part.labels if any(part.labels) else None,
        text_lengths=text_lengths,
    )


def _much_unknown(split: Split, units: Words) -> str | None:
    """What is to be said of a split of next to nothing but words that the vocabulary lacks."""
    words, unknown = int(split.lengths.sum()), split.counts["unknown"]
    if 10 * unknown < 9 * words:
        return None
    return (
        f"{split.source}: {unknown} of {words} {units.name} are not in the vocabulary, so that "
        f"what is measured on {split.name} is how often <unk> comes: is it text like the training "
        "split's (data.lowercase, data.unk_alias, data.vocabulary_size)?"
    )


def _how_to_fetch(place: str) -> str:
    """Of a data set of the paper, the command that fetches it."""
    name = Path(place).name
    if name not in DATA_SETS:
        return ""
    return f"; `{typed('data get')} {name} {shlex.quote(place)}` fetches this data set"


def _with_truth(split: Split, sample: grammar.Sample) -> Split:
    """A split of the embedded corpus with what is known of its sentences.

    The log-probabilities are those of whole sentences in their own words, from a grammar without
    bounds; where the split holds others, they would be no floor and stay None.
    """
    kept = split.lines - 1
    changed = any(split.counts[key] for key in ("dropped", "truncated", "unknown"))
    return dataclasses.replace(
        split,
        log_probabilities=None if changed else sample.log_probabilities[kept],
        labels=[grammar.TOPICS[topic] for topic in sample.topics[kept]],
    )


def _units(vocabulary: Vocabulary | None, train: _Lines, data: Data) -> tuple[Words, list[str]]:
    """What sentences are split into: as the vocabulary of a run says, or as they are found to be in
    the training sentences. And what is to be said of it."""
    if vocabulary is not None:
        return vocabulary.units, []
    if data.unit in UNITS:
        return UNITS[data.unit], []
    pieces = Pieces.learned([line for (line,) in train.sentences], data.pieces)
    found = len(pieces.known) + 1
    if found == data.pieces:
        return pieces, []
    return pieces, [
        f"data.pieces is {data.pieces}, and the training text has no more than {found} pieces, "
        "<unk> counted: all of them are taken"
    ]


def load_corpus(
    data: Data,
    vocabulary: Vocabulary | None = None,
    seed_of_embedded: int = grammar.DEFAULT_SEED,
) -> Corpus:
    """Reads a corpus: UTF-8 text, one sentence a line, words separated by blanks.

    Args:
        data: the configuration's section; its `dir` is a folder with train.txt, valid.txt (or
            val.txt) and test.txt, or one text file that is split 90/5/5, or None for the embedded
            corpus. With `lowercase`, `unk_alias` is compared in lower case.
        vocabulary: numbers the words, or other units, and says what they are; None builds one from
            the training sentences (and, for the embedded corpus, from every word of its grammar).
        seed_of_embedded: what the embedded corpus is generated from.

    Raises InputError: a file that is missing, unreadable, empty or not UTF-8; a split without a
    sentence; a reserved word in the text; a line without a label; a sentence that is too long.
    """
    messages = []
    covered: list[str] = []
    if data.dir is None:
        data = dataclasses.replace(data, unit="word")
        samples = grammar.generate(seed_of_embedded)
        parts = _read_embedded(samples, data)
        covered = grammar.embedded_grammar().words()
    elif Path(data.dir).is_fifo() or Path(data.dir).is_char_device():
        raise InputError(
            f"{data.dir} is a pipe or a device, which can be read once only, and a run reads its "
            "text again (to resume, evaluate and report): save the text to a file, and give "
            "--data_dir its name"
        )
    elif not Path(data.dir).exists():
        raise InputError(
            f"{data.dir}: cannot be read (No such file or directory): --data_dir names the folder "
            f"with train.txt, valid.txt and test.txt, or one text file{_how_to_fetch(data.dir)}"
        )
    elif Path(data.dir).is_dir():
        parts = _read_folder(Path(data.dir), data)
    else:
        parts = _read_file(Path(data.dir), data)
        messages.append(
            f"{data.dir} is one file: its sentences are split 90/5/5 per cent into train, valid "
            "and test by a hash, so that equal sentences share a split"
        )
    if data.unit != "word":
        units, said = _units(vocabulary, parts["train"], data)
        messages += said
        parts = {name: _in_units(part, units, data) for name, part in parts.items()}
        for part in parts.values():
            _refuse_empty(part)
    else:
        units = WORDS
    if vocabulary is None:
        counts = Counter(itertools.chain.from_iterable(parts["train"].sentences))
        counts.update(dict.fromkeys((*covered, *units.known), 0))
        vocabulary = Vocabulary.from_counts(counts, data.vocabulary_size, units)
    splits = {name: _number(name, part, vocabulary) for name, part in parts.items()}
    messages += filter(None, (_much_unknown(split, units) for split in splits.values()))
    if data.dir is None:
        splits = {name: _with_truth(split, samples[name]) for name, split in splits.items()}
        unknown_truth = [name for name, split in splits.items() if split.log_probabilities is None]
        if unknown_truth:
            messages.append(
                f"the true probabilities of {', '.join(unknown_truth)} are left out, because the "
                "embedded corpus has longer sentences or more words than data.* and the vocabulary "
                "admit"
            )
    return Corpus(vocabulary=vocabulary, messages=tuple(messages), **splits)
