"""Sentences that a user gives to a trained model: told line by line what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import numpy as np

from mindspore_cvae.data.units import WORDS
from mindspore_cvae.data.vocabulary import BEGIN, END, PAD, SPECIALS, UNKNOWN, Vocabulary
from mindspore_cvae.errors import InputError, warn_user

SURROGATE = re.compile("[\ud800-\udfff]")
"""How Python marks the bytes of a command line that are no text."""


def number_sentences(
    sentences: Iterable[str],
    vocabulary: Vocabulary,
    data,
    where: str = "sentence",
    warn: Callable[[str], None] = warn_user,
) -> list[np.ndarray]:
    """Word ids of sentences, read as the training text was; nothing is dropped or cut.

    Args:
        sentences: text; where ``data.unit`` is ``word``, words separated by blanks.
        vocabulary: of the run.
        data: the run's configuration section ``data`` (lowercase, unk_alias, label_column,
            max_words).
        where: what precedes a sentence's number, counted from 1, in messages.
        warn: called with a sentence about each of those of which no word is known.

    Returns:
        One int32 array a sentence, without ``<s>`` and ``</s>``.

    Raises:
        InputError: A sentence is empty, or has too many words (or other units), or a reserved one.
    """
    numbered = []
    for number, sentence in enumerate(sentences, 1):
        place = f"{where} {number}"
        if SURROGATE.search(sentence):
            raise InputError(f"{place} is not UTF-8 text")
        if data.label_column and "\t" in sentence:
            # A line of the run's own texts; a sentence from elsewhere has no label, and no tab.
            sentence = sentence.partition("\t")[2]
        units = vocabulary.units
        words = units.split(sentence.lower() if data.lowercase else sentence)
        if not words:
            raise InputError(f"{place} has no words: remove it")
        if len(words) > data.max_words:
            raise InputError(
                f"{place} has {len(words)} {units.name}, and the run was trained with "
                f"data.max_words={data.max_words}: shorten it"
            )
        for reserved in (SPECIALS[PAD], SPECIALS[BEGIN], SPECIALS[END]):
            if units is WORDS and reserved in words:
                raise InputError(f"{place} holds {reserved}, which is reserved for the model")
        alias = data.unk_alias and (data.unk_alias.lower() if data.lowercase else data.unk_alias)
        ids = vocabulary.encode(SPECIALS[UNKNOWN] if word == alias else word for word in words)
        if (ids == UNKNOWN).all():
            warn(
                f"{place}: the run's vocabulary has none of its {units.name}, all are read as <unk>"
            )
        numbered.append(ids)
    return numbered
