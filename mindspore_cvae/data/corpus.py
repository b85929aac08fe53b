"""Text files to splits of numbered sentences (the data of the paper's Appendix A.1)."""

import hashlib
import itertools
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mindspore_cvae.data.text import read_text
from mindspore_cvae.data.vocabulary import BEGIN, END, PAD, SPECIALS, UNKNOWN, Vocabulary
from mindspore_cvae.errors import InputError

TOO_LONG = ("drop", "truncate", "error")
SPLITS = ("train", "valid", "test")
FILE_NAMES = {
    "train": ("train.txt",),
    "valid": ("valid.txt", "val.txt"),
    "test": ("test.txt",),
}
RESERVED = tuple(SPECIALS[number] for number in (PAD, BEGIN, END))


@dataclass(frozen=True)
class Split:
    """One split of a corpus.

    Attributes:
        name: train, valid or test.
        source: the file that the sentences came from, or "embedded corpus".
        sentences: word ids of each sentence, int32, without `<s>` and `</s>`.
        lines: 1-based line number in `source` of each sentence, shape (sentences,), int64.
        counts: what became of the lines: `read` lines, `empty` ones, sentences `dropped` or
            `truncated` as too long; and the `unknown` words of the kept sentences.
        log_probabilities: exact log p(sentence, `</s>`) in nats, shape (sentences,), float64;
            None where it is not known.
        topics: topic number of each sentence, shape (sentences,), int64; None where not known.
    """

    name: str
    source: str
    sentences: list[np.ndarray]
    lines: np.ndarray
    counts: dict[str, int]
    log_probabilities: np.ndarray | None = None
    topics: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.sentences)

    @property
    def lengths(self) -> np.ndarray:
        """Words of each sentence, shape (sentences,), int64; `</s>` is not counted."""
        return np.fromiter(map(len, self.sentences), np.int64, len(self.sentences))

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
            digest.update(np.array([len(split), *split.lengths], "<i8").tobytes())
            digest.update(np.concatenate(split.sentences).astype("<i4").tobytes())
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
    """Kept sentences of one file or split, as words, before they are numbered."""

    source: str
    sentences: list[list[str]]
    lines: list[int]
    counts: dict[str, int]


def _check_reserved(source: str, text: str, lines: list[str]) -> None:
    """Refuses a text in which a special other than `<unk>` is a word of a line."""
    for word in RESERVED:
        if word in text:  # a quick search of the whole text, before the slow one line by line
            for number, line in enumerate(lines, 1):
                if word in line.split():
                    raise InputError(
                        f"{source}, line {number}: the word {word} is reserved for the model; "
                        "remove it from the text."
                    )


def _strip_label(source: str, number: int, line: str) -> str:
    """The text of a line `<label>TAB<text>`."""
    label, tab, text = line.partition("\t")
    if not tab and label.strip():
        raise InputError(
            f"{source}, line {number}: no tab after a label; with data.label_column=true every "
            "line is <label>TAB<text>."
        )
    return text


def _read_lines(
    source: str,
    text: str,
    *,
    unk_alias: str | None,
    lowercase: bool,
    label_column: bool,
    too_long: str,
    max_words: int,
) -> _Lines:
    """Splits a text into sentences of words; the options are those of `read_corpus`."""
    if lowercase:
        text = text.lower()
        unk_alias = unk_alias and unk_alias.lower()
    # Only a line feed ends a line: other separators of Unicode may stand within a sentence.
    lines = text.removesuffix("\n").split("\n") if text else []
    if label_column:
        lines = [_strip_label(source, number, line) for number, line in enumerate(lines, 1)]
    _check_reserved(source, text, lines)

    counts = {"read": len(lines), "empty": 0, "dropped": 0, "truncated": 0}
    sentences, numbers = [], []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            counts["empty"] += 1
            continue
        if len(words) > max_words:
            if too_long == "error":
                raise InputError(
                    f"{source}, line {number}: {len(words)} words, and data.max_words is "
                    f"{max_words}; raise it, or set data.too_long to drop or truncate."
                )
            if too_long == "drop":
                counts["dropped"] += 1
                continue
            counts["truncated"] += 1
            del words[max_words:]
        if unk_alias is not None and unk_alias in words:
            words = [SPECIALS[UNKNOWN] if word == unk_alias else word for word in words]
        sentences.append(words)
        numbers.append(number)
    return _Lines(source, sentences, numbers, counts)


def _split_by_hash(whole: _Lines) -> dict[str, _Lines]:
    """Shares sentences out, 90/5/5 per cent, by a hash of their words.

    Equal sentences fall into one split, and a sentence's split does not depend on the others.
    Lines that hold no kept sentence are counted with train.
    """
    parts = {name: _Lines(whole.source, [], [], dict.fromkeys(whole.counts, 0)) for name in SPLITS}
    for words, number in zip(whole.sentences, whole.lines, strict=True):
        digest = hashlib.blake2b(" ".join(words).encode("utf-8"), digest_size=8).digest()
        share = int.from_bytes(digest, "big") % 100
        part = parts["test" if share < 5 else "valid" if share < 10 else "train"]
        part.sentences.append(words)
        part.lines.append(number)
    for name in ("valid", "test"):
        parts[name].counts["read"] = len(parts[name].sentences)
    elsewhere = len(parts["valid"].sentences) + len(parts["test"].sentences)
    parts["train"].counts.update(whole.counts, read=whole.counts["read"] - elsewhere)
    return parts


def _find_files(folder: Path) -> dict[str, Path]:
    """The file of each split in a folder."""
    files = {}
    for split, names in FILE_NAMES.items():
        found = [folder / name for name in names if (folder / name).is_file()]
        if not found:
            raise InputError(f"{folder}: no {' or '.join(names)} in this folder.")
        if len(found) > 1:
            raise InputError(f"{folder}: both {' and '.join(names)} are there; remove one.")
        files[split] = found[0]
    return files


def _refuse_empty(name: str, lines: _Lines, by_hash: bool) -> None:
    """Raises InputError when a split has no sentence."""
    if lines.sentences:
        return
    counts = lines.counts
    if by_hash:
        raise InputError(
            f"{lines.source}: no sentence falls into the {name} split; give more sentences, or a "
            "folder with train.txt, valid.txt and test.txt."
        )
    raise InputError(
        f"{lines.source}: no sentence left ({counts['read']} lines read, {counts['empty']} empty, "
        f"{counts['dropped']} dropped as too long)."
    )


def _number(name: str, lines: _Lines, vocabulary: Vocabulary) -> Split:
    """A split with its words numbered."""
    sentences = vocabulary.encode_all(lines.sentences)
    unknown = int(np.count_nonzero(np.concatenate(sentences) == UNKNOWN))
    return Split(
        name=name,
        source=lines.source,
        sentences=sentences,
        lines=np.array(lines.lines, np.int64),
        counts=lines.counts | {"unknown": unknown},
    )


def read_corpus(
    path: str | os.PathLike | None,
    *,
    vocabulary_size: int,
    unk_alias: str | None,
    lowercase: bool,
    label_column: bool,
    too_long: str,
    max_words: int,
    vocabulary: Vocabulary | None = None,
    seed_of_embedded: int = 0,
) -> Corpus:
    """Reads a corpus: one sentence a line, words separated by blanks, UTF-8.

    Args:
        path: a folder with train.txt, valid.txt (or val.txt) and test.txt; or one text file, which
            is split 90/5/5 by a hash of the sentence; or None for the embedded corpus.
        vocabulary_size: largest number of words, the four specials included.
        unk_alias: another way in which the text writes `<unk>`; None for none. With `lowercase`
            it is compared in lower case.
        lowercase: whether to lower the text's case.
        label_column: whether lines are `<label>TAB<text>`; the label is stripped.
        too_long: what becomes of sentences of more than `max_words` words: drop, truncate or error.
        max_words: largest number of words of a sentence, `</s>` not counted.
        vocabulary: numbers the words; None builds one from the training sentences.
        seed_of_embedded: seed that the embedded corpus is generated from.

    Raises InputError: a file that is missing, unreadable, empty or not UTF-8; a split without a
    sentence; a reserved word in the text; a line without a label; a value out of range.
    """
    if too_long not in TOO_LONG:
        raise InputError(f"data.too_long is {too_long!r}; it must be one of {', '.join(TOO_LONG)}.")
    if max_words < 1:
        raise InputError(f"data.max_words is {max_words}; it must be 1 or more.")
    if unk_alias is not None and (unk_alias.split() != [unk_alias] or unk_alias in RESERVED):
        raise InputError(
            f"data.unk_alias is {unk_alias!r}; it must be one word, and none of "
            f"{', '.join(RESERVED)}."
        )
    options = {
        "unk_alias": unk_alias,
        "lowercase": lowercase,
        "label_column": label_column,
        "too_long": too_long,
        "max_words": max_words,
    }
    messages = []
    by_hash = False
    if path is None:
        raise InputError("The embedded corpus is not part of this version; set data.dir.")
    else:
        path = Path(path)
        if path.is_dir():
            parts = {
                name: _read_lines(str(file), read_text(file), **options)
                for name, file in _find_files(path).items()
            }
        else:
            by_hash = True
            parts = _split_by_hash(_read_lines(str(path), read_text(path), **options))
            messages.append(
                f"{path} is one file: its sentences are split 90/5/5 per cent into train, valid "
                "and test by a hash, so that equal sentences share a split."
            )
    for name, lines in parts.items():
        _refuse_empty(name, lines, by_hash)
    if vocabulary is None:
        counts = Counter(itertools.chain.from_iterable(parts["train"].sentences))
        vocabulary = Vocabulary.from_counts(counts, vocabulary_size)
    splits = {name: _number(name, lines, vocabulary) for name, lines in parts.items()}
    return Corpus(vocabulary=vocabulary, messages=tuple(messages), **splits)


def load_corpus(
    data_config, vocabulary: Vocabulary | None = None, seed_of_embedded: int = 0
) -> Corpus:
    """The corpus of a configuration's `data` section; see `read_corpus`."""
    return read_corpus(
        data_config.dir,
        vocabulary_size=data_config.vocabulary_size,
        unk_alias=data_config.unk_alias,
        lowercase=data_config.lowercase,
        label_column=data_config.label_column,
        too_long=data_config.too_long,
        max_words=data_config.max_words,
        vocabulary=vocabulary,
        seed_of_embedded=seed_of_embedded,
    )
