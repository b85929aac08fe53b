"""What a trained model makes, for people to look at: a map of its codes, and sentences.

Everything is drawn with fixed seeds: the same run gives the same specimens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mindspore_cvae.data.vocabulary import UNKNOWN
from mindspore_cvae.errors import InputError

if TYPE_CHECKING:
    from mindspore_cvae.api import ContrastiveVAE
    from mindspore_cvae.data.corpus import Split

SAMPLES = 12
"""Sentences from the prior."""
RECONSTRUCTIONS = 10
PATHS = 2
"""Pairs of sentences that are interpolated."""
PATH_STEPS = 11
"""The paper's Table 6: lambda 0, 0.1 ... 1."""
MAPPED = 1000
"""Sentences on the map."""
LENGTH_GROUPS = 5
LABEL_GROUPS = 7
"""Labels that have a colour of their own on the map; the others share one."""
PATH_WORDS = (5, 14)
"""Fewest and most words of the ends of a path, so that it can be read at a glance."""


class Groups(NamedTuple):
    """A way to colour N sentences.

    Attributes:
        by: what it shows.
        names: of the groups.
        numbers: of each sentence's group, (N,); -1 for the rest.
        ordered: whether the groups have an order.
        rest: what the sentences have in common that are in none of the groups.
        labels: of each sentence, to be said with it; empty where they say no more than the group.
    """

    by: str
    names: list[str]
    numbers: np.ndarray
    ordered: bool
    rest: str = ""
    labels: Sequence[str] = ()


@dataclass
class Specimens:
    """What could be made; ``absent`` says why the rest could not."""

    samples: list[str] = field(default_factory=list)
    reconstructions: list[tuple[str, str]] = field(default_factory=list)
    """Sentences of the validation split, and what is decoded from their posterior means."""
    paths: list[tuple[str, str, list[str]]] = field(default_factory=list)
    """Two sentences, and the decoded line from the first to the second."""
    codes: np.ndarray | None = None
    """(N, Z) posterior means of the sentences on the map."""
    map: np.ndarray | None = None
    """(N, 2) the codes, projected."""
    explained: tuple[float, float] = (0.0, 0.0)
    """Shares of the variance along both axes."""
    mapped: list[str] = field(default_factory=list)
    """The N sentences."""
    groups: list[Groups] = field(default_factory=list)
    step: int = 0
    """Training steps behind the model."""
    absent: dict[str, str] = field(default_factory=dict)
    """Why a part is missing, by its name: ``samples``, ``reconstructions``, ``paths``, ``map``."""


def make_specimens(model: ContrastiveVAE, read_split: Callable[[], Split]) -> Specimens:
    """Samples, reconstructions, interpolations and a map of a model.

    Args:
        model: from :meth:`api.ContrastiveVAE.load`.
        read_split: reads the sentences to be encoded; an InputError of it only costs the parts that
            need them.
    """
    made = Specimens(model.sample(SAMPLES), step=model.step)
    if model.config.slots.posterior == "none":
        reason = (
            f"{model.config.system} has no latent variable: there is no code of a sentence to "
            "decode, to interpolate or to map."
        )
        made.absent = dict.fromkeys(("reconstructions", "paths", "map"), reason)
        return made
    try:
        split = read_split()
    except InputError as error:
        reason = f"The corpus of the run could not be read ({error})."
        made.absent = dict.fromkeys(("reconstructions", "paths", "map"), reason)
        return made
    known = [(words != UNKNOWN).any() for words in split.sentences]
    kept = np.flatnonzero(known)[:MAPPED]
    if not len(kept):
        reason = "No sentence of the validation split has a word that the vocabulary knows."
        made.absent = dict.fromkeys(("reconstructions", "paths", "map"), reason)
        return made
    lengths = split.lengths[kept]
    texts = [model.vocabulary.decode(split.sentences[index]) for index in kept]
    means = model.encode_numbered([split.sentences[index] for index in kept])
    some = spread(range(len(texts)), RECONSTRUCTIONS)
    decoded = model.decode(means[some])
    made.reconstructions = [(texts[index], text) for index, text in zip(some, decoded, strict=True)]
    ends = path_ends(lengths)
    made.paths = [
        (texts[a], texts[b], model.interpolate(texts[a], texts[b], PATH_STEPS)) for a, b in ends
    ]
    if not ends:
        made.absent["paths"] = "The validation split has fewer than two sentences."
    if len(texts) < 3 or not np.isfinite(means).all():
        made.absent["map"] = "A map takes three sentences or more, with finite codes."
        return made
    made.map, made.explained = principal_components(means)
    made.codes, made.mapped = means, texts
    if split.labels is not None:
        by = "topic" if model.config.data.dir is None else "label"
        made.groups.append(label_groups(by, [split.labels[index] for index in kept]))
    made.groups.append(length_groups(lengths, model.vocabulary.units.name))
    return made


def principal_components(codes: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Projection to the two directions of most variance, by the singular value decomposition.

    Each axis points to where its largest loading is positive, so that it does not flip from one
    machine to the next.

    Args:
        codes: (N, Z).

    Returns:
        (N, 2), and both shares of the variance.
    """
    centred = codes.astype(np.float64) - codes.mean(0, dtype=np.float64)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    axes = np.concatenate([axes, np.zeros((2, axes.shape[1]))])[:2]
    sizes = np.concatenate([sizes, np.zeros(2)])
    largest = axes[np.arange(2), np.abs(axes).argmax(1)]
    axes *= np.where(largest < 0, -1.0, 1.0)[:, None]
    total = max(float((sizes**2).sum()), 1e-300)
    first, second = (float(size**2 / total) for size in sizes[:2])
    return centred @ axes.T, (first, second)


def label_groups(by: str, labels: Sequence[str]) -> Groups:
    """Sentences by their labels: the most frequent ones have groups, in alphabetical order.

    Args:
        by: what a label is.
        labels: of each sentence, empty where it has none.
    """
    frequent = Counter(labels)
    del frequent[""]
    names = sorted(name for name, _ in frequent.most_common(LABEL_GROUPS))
    numbers = np.array([names.index(label) if label in names else -1 for label in labels])
    others = frequent.keys() - set(names)
    rest = [f"{len(others)} others" if len(others) > 1 else "".join(others)]
    rest += [f"no {by}"] if "" in labels else []
    return Groups(by, names, numbers, False, " or ".join(filter(None, rest)), labels)


def length_groups(lengths: np.ndarray, units: str = "words") -> Groups:
    """Sentences in at most five groups of about as many, by their words or other units."""
    cuts = np.unique(np.quantile(lengths, np.linspace(0, 1, LENGTH_GROUPS + 1)[1:-1]).astype(int))
    numbers = np.searchsorted(cuts, lengths)
    # Groups without a sentence are closed up.
    present, numbers = np.unique(numbers, return_inverse=True)
    names = []
    for group in range(len(present)):
        inside = lengths[numbers == group]
        low, high = int(inside.min()), int(inside.max())
        names.append(f"{low}" if low == high else f"{low}\N{EN DASH}{high}")
    names[-1] += f" {units}"
    return Groups("sentence length", names, numbers, True)


def spread(items: Sequence[int], count: int) -> list[int]:
    """``count`` of the items, evenly spread over them; all of them where they are fewer."""
    if len(items) <= count:
        return list(items)
    return [items[position * len(items) // count] for position in range(count)]


def path_ends(lengths: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of sentences between which a path is decoded."""
    fewest, most = PATH_WORDS
    fit = np.flatnonzero((lengths >= fewest) & (lengths <= most)).tolist()
    if len(fit) < 2:
        fit = list(range(len(lengths)))
    chosen = spread(fit, 2 * PATHS)
    return list(zip(chosen[::2], chosen[1::2], strict=False))
