"""Text to numbered sentences to batches of fixed shapes."""

from mindspore_cvae.data.batches import (
    Batch,
    EpochPlan,
    batch_dataset,
    batches,
    bucket_widths,
    corpus_widths,
    make_batch,
)
from mindspore_cvae.data.corpus import Corpus, Split, TrueScores, load_corpus, true_scores
from mindspore_cvae.data.vocabulary import BEGIN, END, PAD, SPECIALS, UNKNOWN, Vocabulary

__all__ = [
    "BEGIN",
    "END",
    "PAD",
    "SPECIALS",
    "UNKNOWN",
    "Batch",
    "Corpus",
    "EpochPlan",
    "Split",
    "TrueScores",
    "Vocabulary",
    "batch_dataset",
    "batches",
    "bucket_widths",
    "corpus_widths",
    "load_corpus",
    "make_batch",
    "true_scores",
]
