"""Text to numbered sentences to batches of fixed shapes."""

from mindspore_cvae.data.batches import Batch, EpochPlan, batch_dataset, batches, bucket_widths
from mindspore_cvae.data.corpus import Corpus, Split, load_corpus, read_corpus, true_scores
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
    "Vocabulary",
    "batch_dataset",
    "batches",
    "bucket_widths",
    "load_corpus",
    "read_corpus",
    "true_scores",
]
