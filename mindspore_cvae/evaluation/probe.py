"""How well a linear classifier reads the labels of sentences from their codes.

The classifier is scikit-learn's logistic regression, trained with few and with all labelled
training sentences. How strongly it is regularised is chosen on the validation split; the test split
is looked at once. Codes are brought to mean 0 and variance 1 over the sentences that it is trained
with, since their scale is the posterior's own. Beside them stand the counts of the words of the
same sentences, as they are, and the most frequent label.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from mindspore_cvae.common import randomness
from mindspore_cvae.common.progress import progress
from mindspore_cvae.data.corpus import Corpus, Split
from mindspore_cvae.data.labels import label_counts, label_numbers
from mindspore_cvae.errors import InputError

SIZES = (100, 1000)
"""Training sentences, besides all of them."""
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
"""Inverse strengths of regularisation among which the validation split chooses (scikit-learn's
C)."""
ITERATIONS = 1000
"""Most steps of the solver."""
MOST_LABELS = 200
"""Most different labels; a classifier has weights for each."""


class Reading(NamedTuple):
    """Accuracies of a classifier on the test split, one for each of K subsets.

    Attributes:
        features: ``codes`` or ``words``.
        sentences: that it was trained with.
        accuracies: K shares of test sentences whose label was read.
        strengths: K chosen ones of :data:`STRENGTHS`.
    """

    features: str
    sentences: int
    accuracies: list[float]
    strengths: list[float]

    @property
    def accuracy(self) -> float:
        """Mean over the subsets."""
        return float(np.mean(self.accuracies))

    @property
    def standard_error(self) -> float | None:
        """Of that mean, from one subset to another; None where there is one alone."""
        count = len(self.accuracies)
        return float(np.std(self.accuracies, ddof=1) / count**0.5) if count > 1 else None


class Probe(NamedTuple):
    """What was read, and what it is to be compared with.

    Attributes:
        labels: labelled training sentences of each label.
        sentences: labelled sentences of each split.
        majority: the most frequent label of the training split.
        majority_accuracy: its share among the labelled test sentences.
        readings: by number of sentences, then by features.
    """

    labels: dict[str, int]
    sentences: dict[str, int]
    majority: str
    majority_accuracy: float
    readings: list[Reading]


class _Part(NamedTuple):
    """Labelled sentences of a split: features (N, F), dense or sparse, and labels (N,)."""

    features: Any
    labels: np.ndarray


def check_labels(corpus: Corpus) -> dict[str, int]:
    """Training sentences of each label, after what keeps a probe from them has been told.

    Raises:
        InputError: scikit-learn is missing; a split has no labels; all are alike, or too many.
    """
    try:
        import sklearn.linear_model  # noqa: F401
    except ImportError:
        raise InputError(
            "a probe needs scikit-learn, which is not installed: pip install scikit-learn"
        ) from None
    labels = label_counts(corpus.train)
    for split in (corpus.valid, corpus.test):
        label_counts(split)
    if len(labels) == 1:
        raise InputError(
            f"{corpus.train.source}: all labels of train are {next(iter(labels))!r:.60}, so that "
            "there is nothing to tell apart"
        )
    if len(labels) > MOST_LABELS:
        raise InputError(
            f"{corpus.train.source}: train has {len(labels):,} labels, and a probe takes at most "
            f"{MOST_LABELS}: is the first column a label?"
        )
    return labels


def probe(
    corpus: Corpus, codes: Mapping[str, np.ndarray], subsets: int = 10, seed: int = 0
) -> Probe:
    """Train and test classifiers on codes and on words.

    Args:
        corpus: with labels.
        codes: of each split's sentences by its name, (sentences, Z).
        subsets: K, at least 1; how many of each size of :data:`SIZES` are drawn.
        seed: of the subsets.

    Raises:
        InputError: See :func:`check_labels`.
    """
    labels = check_labels(corpus)
    names = list(labels)
    numbers = {split.name: label_numbers(split, names) for split in corpus.splits}
    # In float32, the solver stops early and the mean of codes far from 0 is coarse.
    codes = {name: values.astype(np.float64) for name, values in codes.items()}
    words = {split.name: word_counts(split, len(corpus.vocabulary)) for split in corpus.splits}
    parts = {
        kind: {
            name: _Part(features[name][numbers[name] >= 0], numbers[name][numbers[name] >= 0])
            for name in numbers
        }
        for kind, features in (("codes", codes), ("words", words))
    }
    count = sum(labels.values())
    chosen = list(_subsets(count, subsets, seed))
    bar = progress("probing", len(parts) * len(chosen), "classifiers")
    found: dict[tuple[str, int], Reading] = {}
    for subset in chosen:
        for kind, part in parts.items():
            train = _Part(part["train"].features[subset], part["train"].labels[subset])
            accuracy, strength = _read(train, part["valid"], part["test"])
            reading = found.setdefault((kind, len(subset)), Reading(kind, len(subset), [], []))
            reading.accuracies.append(accuracy)
            reading.strengths.append(strength)
            bar.update(1)
    bar.close()
    majority = max(labels, key=lambda name: labels[name])
    return Probe(
        labels=labels,
        sentences={name: int((values >= 0).sum()) for name, values in numbers.items()},
        majority=majority,
        majority_accuracy=_share(parts["codes"]["test"].labels, names.index(majority)),
        readings=list(found.values()),
    )


def word_counts(split: Split, words: int) -> csr_matrix:
    """How often each sentence has each word of a vocabulary, (sentences, words) float64."""
    ends = np.concatenate([[0], np.cumsum(split.lengths)])
    ids = np.concatenate(split.sentences)
    counts = csr_matrix((np.ones(len(ids)), ids, ends), shape=(len(split), words))
    counts.sum_duplicates()
    return counts


def _subsets(count: int, subsets: int, seed: int) -> Iterator[np.ndarray]:
    """Positions of training sentences, K subsets of each size below the count, then all."""
    for size in SIZES:
        for number in range(subsets if size < count else 0):
            source = randomness.generator(seed, "probe", number, size)
            yield source.permutation(count)[:size]
    yield np.arange(count)


def _read(train: _Part, valid: _Part, test: _Part) -> tuple[float, float]:
    """The accuracy on test of the classifier that was best on valid, and its strength."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    if len(np.unique(train.labels)) == 1:
        # A subset that knows one label alone has nothing to be trained for.
        return _share(test.labels, train.labels[0]), STRENGTHS[0]
    if isinstance(train.features, np.ndarray):
        scaler = StandardScaler().fit(train.features)
        train, valid, test = (
            part._replace(features=scaler.transform(part.features)) for part in (train, valid, test)
        )
    classifiers = [LogisticRegression(C=strength, max_iter=ITERATIONS) for strength in STRENGTHS]
    for classifier in classifiers:
        with warnings.catch_warnings():
            # Where it has not come to rest, the validation split judges it as it is.
            warnings.simplefilter("ignore", ConvergenceWarning)
            classifier.fit(train.features, train.labels)
    on_valid = [_share(valid.labels, one.predict(valid.features)) for one in classifiers]
    best = int(np.argmax(on_valid))
    return _share(test.labels, classifiers[best].predict(test.features)), STRENGTHS[best]


def _share(labels: np.ndarray, read: np.ndarray | int) -> float:
    return float((labels == read).mean())
