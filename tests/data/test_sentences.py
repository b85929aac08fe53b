"""Sentences of a user are read as the run's training text was."""

from __future__ import annotations

from mindspore_cvae.config.keys import Data
from mindspore_cvae.data.sentences import number_sentences
from mindspore_cvae.data.vocabulary import SPECIALS, Vocabulary

VOCABULARY = Vocabulary([*SPECIALS, "good", "food", "5"])


def ids(sentences, **options):
    numbered = number_sentences(sentences, VOCABULARY, Data(**options), warn=lambda message: None)
    return [found.tolist() for found in numbered]


def test_labels_do_not_become_words():
    """The label 5 is a word of the vocabulary too, and 4, 5, 6 the numbers of the words."""
    lines = ["5\tgood food", "good food", "5 good food", "5\tgood\tfood"]
    assert ids(lines, label_column=True) == [[4, 5], [4, 5], [6, 4, 5], [4, 5]]
    assert ids(lines[:1]) == [[6, 4, 5]], "without labels a tab is a blank"
