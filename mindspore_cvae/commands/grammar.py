"""Command grammar: the embedded corpus and its log-probabilities, written to a folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from mindspore_cvae.data.grammar import DEFAULT_SEED, entropy, expected_length, write_corpus
from mindspore_cvae.errors import CommandParser, InputError, typed


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the embedded corpus and prints its entropy. Raises InputError on bad input."""
    parser = CommandParser(
        prog=typed("grammar"),
        description="Writes the embedded corpus: train.txt, valid.txt, test.txt, and the exact "
        "log-probability of every sentence in log_probabilities.tsv.",
    )
    parser.add_argument("--output_dir", required=True, type=Path, metavar="D")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="default: %(default)s")
    options = parser.parse_args(arguments)
    if not 0 <= options.seed < 2**64:
        raise InputError(f"--seed is {options.seed}; it must be from 0 to 2^64 - 1")
    samples = write_corpus(options.output_dir, options.seed)
    for split, sample in samples.items():
        print(
            f"{options.output_dir / split}.txt: {len(sample.texts):,} sentences, "
            f"true NLL {-sample.log_probabilities.mean():.3f} nats a sentence"
        )
    nats, tokens = entropy(), expected_length() + 1
    print(
        f"the grammar: entropy {nats:.3f} nats and {tokens:.2f} tokens (</s> is one) a sentence, "
        f"perplexity {math.exp(nats / tokens):.2f}"
    )
