"""Forward and reverse perplexity under n-gram language models (Table 4), by KenLM.

Forward: a language model of the training text scores generated text, so it reads fluency.
Reverse: a language model of generated text scores real text, so it reads how much is covered.
The numbers depend on choices that the paper does not state; :data:`PROTOCOLS` names them, and every
result holds them beside its numbers.

``python -m mindspore_cvae ngram --run RUN`` generates, measures and writes RUN/ngram.json.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mindspore_cvae.errors import InputError, checkout, typed

if TYPE_CHECKING:
    import kenlm


ORDER = 5
"""Longest n-gram of the language models."""

FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
"""Kneser-Ney discounts of n-grams seen once, twice and more often, where a text is too small to
estimate them; they are KenLM's own defaults."""

UNKNOWN = "<unk>"

SPECIALS = (UNKNOWN, "<s>", "</s>", "<pad>")
"""Words that KenLM or the vocabulary reserves; lmplz refuses the first three in a text."""

UNKNOWN_AS_WORD = "<<unk>>"
"""Spelling of ``<unk>`` where it is a word like any other."""

SORTING_MEMORY = "1G"
"""Memory that lmplz may take; its own default is most of the machine's."""


class ProgramError(OSError):
    """A program of KenLM is missing or failed."""


@dataclass(frozen=True)
class Protocol:
    """The choices behind a pair of forward and reverse perplexities."""

    decoding: str
    """How words are chosen: ``greedy`` or ``sample``."""
    sentences: int | None
    """Generated sentences; None for as many as the training split has."""
    max_words: int | None
    """Where a generated sentence is cut; None for the longest sentence of the training split."""
    unknown: str
    """``skipped``: ``<unk>`` is taken out of what a language model learns from, and scored as a
    word it does not know. ``word``: ``<unk>`` is a word like any other on both sides."""
    end_scored: bool
    """Whether ``</s>`` is predicted and counted."""
    vocabulary: str
    """How a language model of generated text learns of the words that were not generated:
    ``lines``, the vocabulary one word a line before the text; ``padding``, each such word has the
    probability that interpolation with the uniform distribution over the vocabulary gives it."""
    reverse_split: str
    """The split behind ``reverse_ppl``; both are in the result."""


PROTOCOLS = {
    "released": Protocol(
        decoding="greedy",
        sentences=1280,
        max_words=80,
        unknown="skipped",
        end_scored=False,
        vocabulary="lines",
        reverse_split="train",
    ),
    "sampled": Protocol(
        decoding="sample",
        sentences=None,
        max_words=None,
        unknown="word",
        end_scored=True,
        vocabulary="padding",
        reverse_split="test",
    ),
}
"""``released``: as in the authors' code, to compare with Table 4. ``sampled``: samples of the
model's own distribution, as many as the real text has sentences, scored the standard way."""


@dataclass(frozen=True)
class Score:
    """A text under a language model.

    Attributes:
        ppl: perplexity, 10 to the mean of -log10 p over ``tokens``.
        tokens: scored words, ``</s>`` of each sentence included where it is scored.
        sentences: sentences of the text.
        empty: sentences without a word; they count only through their ``</s>``.
        unknown: scored words that the language model does not know.
    """

    ppl: float
    tokens: int
    sentences: int
    empty: int
    unknown: int


def programs_folder() -> Path:
    """Where KenLM's programs are built and looked for: $KENLM_BIN, else .kenlm/bin of the checkout,
    else, of an installed package, mindspore_cvae/kenlm/bin in the user's cache."""
    if os.environ.get("KENLM_BIN"):
        return Path(os.environ["KENLM_BIN"])
    root = checkout()
    if root is not None:
        return root / ".kenlm" / "bin"
    cache = os.environ.get("XDG_CACHE_HOME") or Path("~", ".cache")
    return Path(cache, "mindspore_cvae", "kenlm", "bin").expanduser()


def find_program(name: str) -> Path:
    """Where a program of KenLM lies: in :func:`programs_folder`, or on the PATH.

    Raises:
        ProgramError: It is in neither.
    """
    folder = programs_folder()
    beside = folder / name
    program = beside if os.access(beside, os.X_OK) else shutil.which(name)
    if program is None:
        raise ProgramError(
            f"KenLM's program {name} was not found in {folder} or on the PATH: build it with "
            f"{typed('ngram build')}, or name its folder with KENLM_BIN"
        )
    return Path(program)


def check_kenlm() -> None:
    """Refuse, before any work, what an installation without KenLM's module cannot do.

    Raises:
        ProgramError: The module is not installed.
    """
    if importlib.util.find_spec("kenlm") is None:
        raise ProgramError(
            "n-gram perplexity needs the package kenlm, which was left out of this installation: "
            "pip install kenlm, which takes a C++ compiler"
        )


def run_program(name: str, *arguments: str, text: Path | None = None) -> str:
    """Run a program of KenLM.

    Args:
        name: ``lmplz`` or ``query``.
        arguments: its arguments.
        text: file that it reads as standard input.

    Returns:
        What it printed on standard output.

    Raises:
        ProgramError: It is missing or its exit status is not 0; the message holds its last line.
    """
    program = find_program(name)
    with open(text or os.devnull, "rb") as source:
        result = subprocess.run(
            [program, *arguments], stdin=source, capture_output=True, check=False
        )
    if result.returncode != 0:
        lines = result.stderr.decode(errors="replace").split("\n")
        told = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        raise ProgramError(f"{program} ended with status {result.returncode}: {told}")
    return result.stdout.decode(errors="replace")


def build(
    sentences: Sequence[str], arpa: Path, order: int = ORDER, vocabulary_size: int = 0
) -> None:
    """Estimate a language model with modified Kneser-Ney smoothing and interpolated unigrams.

    Args:
        sentences: the text, words separated by blanks.
        arpa: file to write, in ARPA format.
        order: longest n-gram.
        vocabulary_size: words that can be predicted, ``</s>`` counted; where the text has fewer,
            interpolation spreads over this many. 0 for the text's own.

    Raises:
        InputError: The text has no word, or a word that KenLM reserves.
        ProgramError: lmplz is missing or failed.
    """
    words = {word for sentence in sentences for word in sentence.split()}
    if not words:
        raise InputError(
            f"{len(sentences)} sentences without a word: no language model can learn from them"
        )
    if reserved := words.intersection(SPECIALS[:3]):
        raise InputError(f"the text for a language model holds the reserved word {min(reserved)}")
    with tempfile.TemporaryDirectory(prefix="ngram-") as folder:
        text = Path(folder, "text")
        text.write_text("".join(f"{sentence}\n" for sentence in sentences), encoding="utf-8")
        run_program(
            "lmplz",
            "--order",
            str(order),
            "--text",
            str(text),
            "--arpa",
            str(arpa),
            "--memory",
            SORTING_MEMORY,
            "--temp_prefix",
            f"{folder}/",
            "--vocab_pad",
            str(vocabulary_size),
            "--discount_fallback",
            *map(str, FALLBACK_DISCOUNTS),
        )


def load(arpa: Path) -> kenlm.Model:
    """Read a language model in ARPA format, without KenLM's progress bar."""
    import kenlm

    settings = kenlm.Config()
    settings.show_progress = False
    settings.arpa_complain = kenlm.ARPALoadComplain.NONE
    return kenlm.Model(str(arpa), settings)


def perplexity(model: kenlm.Model, sentences: Iterable[str], end_scored: bool = True) -> Score:
    """Perplexity of a text under a language model, words that it does not know included.

    Args:
        model: from :func:`load`.
        sentences: the text, words separated by blanks.
        end_scored: whether ``</s>`` is predicted and counted.

    Raises:
        InputError: There is nothing to score.
    """
    log10, tokens, count, empty, unknown = 0.0, 0, 0, 0, 0
    for sentence in sentences:
        words = sentence.split()
        count += 1
        empty += not words
        unknown += sum(word not in model for word in words)
        tokens += len(words) + end_scored
        log10 += model.score(" ".join(words), bos=True, eos=end_scored)
    if not tokens:
        raise InputError(f"{count} sentences without a word: there is no perplexity to measure")
    return Score(10 ** (-log10 / tokens), tokens, count, empty, unknown)


def language_model(
    sentences: Sequence[str], order: int = ORDER, vocabulary_size: int = 0
) -> kenlm.Model:
    """:func:`build` and :func:`load` by way of a temporary file."""
    with tempfile.TemporaryDirectory(prefix="ngram-") as folder:
        arpa = Path(folder, "model.arpa")
        build(sentences, arpa, order, vocabulary_size)
        return load(arpa)


def without_unknown(sentences: Iterable[str]) -> list[str]:
    """The sentences without their words ``<unk>``."""
    return [" ".join(word for word in text.split() if word != UNKNOWN) for text in sentences]


def with_unknown_as_word(sentences: Iterable[str]) -> list[str]:
    """The sentences with ``<unk>`` spelled as a word that KenLM does not reserve."""
    return [
        " ".join(UNKNOWN_AS_WORD if word == UNKNOWN else word for word in text.split())
        for text in sentences
    ]


def measure(
    protocol: Protocol,
    generated: Sequence[str],
    real: Mapping[str, Sequence[str]],
    vocabulary: Sequence[str],
    order: int = ORDER,
) -> dict:
    """Forward and reverse perplexity of generated text.

    Args:
        protocol: treatment of ``<unk>``, ``</s>`` and the vocabulary.
        generated: the model's sentences, words separated by blanks, perhaps none in some.
        real: the corpus's sentences by split, ``train`` and ``test``.
        vocabulary: every word, the specials included.
        order: longest n-gram.

    Returns:
        ``forward_ppl``, ``reverse_ppl`` (of ``reverse_split``), ``reverse_ppl_train`` and
        ``reverse_ppl_test``; ``train_to_test_ppl``, the test split under the training split's
        language model: what the reverse perplexity of perfect text would be near; and the settings.

    Raises:
        InputError: Every generated sentence is empty, or a split has no sentence.
        ProgramError: KenLM is missing or failed.
    """
    words = [word for word in vocabulary if word not in SPECIALS]
    if not any(sentence.split() for sentence in generated):
        raise InputError(
            f"all {len(generated)} generated sentences are empty: the model generates nothing that "
            "a language model could read"
        )
    learnt = without_unknown if protocol.unknown == "skipped" else with_unknown_as_word
    scored = list if protocol.unknown == "skipped" else with_unknown_as_word
    preface = words if protocol.vocabulary == "lines" else []
    # The words, </s>, and <unk> as a word: nothing predicts <s> and <pad>.
    size = len(words) + 2 if protocol.vocabulary == "padding" else 0

    def score(model: kenlm.Model, text: Iterable[str]) -> Score:
        return perplexity(model, scored(text), protocol.end_scored)

    of_train = language_model(learnt(real["train"]), order, size)
    forward, reference = score(of_train, generated), score(of_train, real["test"])
    del of_train
    of_generated = language_model([*preface, *learnt(generated)], order, size)
    reverse = {split: score(of_generated, real[split]) for split in ("train", "test")}
    return {
        "forward_ppl": forward.ppl,
        "reverse_ppl": reverse[protocol.reverse_split].ppl,
        "reverse_split": protocol.reverse_split,
        "reverse_ppl_train": reverse["train"].ppl,
        "reverse_ppl_test": reverse["test"].ppl,
        "train_to_test_ppl": reference.ppl,
        "order": order,
        "generated_sentences": len(generated),
        "distinct_sentences": len(set(generated)),
        "empty_sentences": forward.empty,
        "decoding": protocol.decoding,
        "unk": _UNKNOWN_SAID[protocol.unknown],
        "end_of_sentence": "scored and counted" if protocol.end_scored else "not scored",
        "smoothing": f"{_SMOOTHING}; {_VOCABULARY_SAID[protocol.vocabulary]}",
        "forward": asdict(forward),
        "reverse": {split: asdict(result) for split, result in reverse.items()},
    }


_SMOOTHING = (
    "modified Kneser-Ney with interpolated unigrams (lmplz --discount_fallback "
    f"{' '.join(map(str, FALLBACK_DISCOUNTS))})"
)

_UNKNOWN_SAID = {
    "skipped": "<unk> left out of the text that a language model learns from, and scored as a word "
    "that it does not know",
    "word": "<unk> is a word like any other",
}

_VOCABULARY_SAID = {
    "lines": "the vocabulary, one word a line, stands before the generated text",
    "padding": "unigrams interpolate with the uniform distribution over the vocabulary",
}


def evaluate(
    protocol: Protocol,
    real: Mapping[str, Sequence[str]],
    vocabulary: Sequence[str],
    generate: Callable[[int, str, int], list[str]],
    sentences: int | None = None,
    order: int = ORDER,
) -> dict:
    """Generate as the protocol says, and :func:`measure`.

    Args:
        protocol, real, vocabulary, order: as for :func:`measure`.
        generate: (number of sentences, decoding, most words of one) to sentences.
        sentences: generated sentences, instead of the protocol's number.
    """
    count = sentences or protocol.sentences or len(real["train"])
    longest = protocol.max_words or max(len(sentence.split()) for sentence in real["train"])
    generated = generate(count, protocol.decoding, longest)
    return {**measure(protocol, generated, real, vocabulary, order), "max_words": longest}
