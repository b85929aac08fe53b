"""The labels of sentences: which there are, and which sentences bear them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from mindspore_cvae.data.corpus import Split
from mindspore_cvae.errors import InputError

LISTED = 20
"""Most labels that a message names."""


def label_counts(split: Split) -> dict[str, int]:
    """Sentences of each label, labels in alphabetical order.

    Raises:
        InputError: No sentence has a label.
    """
    counts = Counter(split.labels or ())
    del counts[""]
    if not counts:
        raise InputError(
            f"{split.source} gives no sentence of {split.name} a label: labels are of a run that "
            "was trained on lines <label>TAB<sentence> with data.label_column=true"
        )
    return dict(sorted(counts.items()))


def listed(labels: Sequence[str]) -> str:
    """Labels for a message, of many the first ones."""
    more = f", and {len(labels) - LISTED} more" if len(labels) > LISTED else ""
    return ", ".join(f"{label:.40}" for label in labels[:LISTED]) + more


def label_numbers(split: Split, names: Sequence[str]) -> np.ndarray:
    """Positions of the sentences' labels among names.

    Args:
        split: whose sentences have labels.
        names: different labels, N of them.

    Returns:
        (sentences,) int64; -1 for a sentence without a label, N for another label.
    """
    positions = {name: number for number, name in enumerate(names)} | {"": -1}
    labels = split.labels or [""] * len(split)
    return np.fromiter((positions.get(label, len(names)) for label in labels), np.int64, len(split))


def sentences_labelled(split: Split, label: str) -> list[np.ndarray]:
    """The word ids of every sentence with a label, at least one.

    Raises:
        InputError: No sentence has it; the message lists the labels.
    """
    names = list(label_counts(split))
    if label not in names:
        raise InputError(
            f"no sentence of {split.name} has the label {label!r:.60}: the labels are "
            f"{listed(names)}"
        )
    numbers = np.flatnonzero(label_numbers(split, [label]) == 0)
    return [split.sentences[number] for number in numbers]
