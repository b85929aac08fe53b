"""`python -m mindspore_cvae data --stats DIR_OR_FILE`: what is in a corpus (Appendix A.1)."""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mindspore_cvae.commands.options import STANDARD_INPUT, has_no_input
from mindspore_cvae.config.keys import OPTIONS, Data
from mindspore_cvae.config.options import shown
from mindspore_cvae.data.corpus import Corpus, load_corpus
from mindspore_cvae.data.labels import label_counts, listed
from mindspore_cvae.errors import CommandParser, InputError, typed

OPTIONS_OF_DATA = (
    "unit", "pieces", "vocabulary_size", "unk_alias", "lowercase", "label_column", "too_long",
    "max_words",
)  # fmt: skip
COLUMNS = (
    "split", "lines", "empty", "dropped", "truncated", "sentences", "words", "tokens",
    "mean", "min", "p50", "p90", "p99", "max", "<unk>",
)  # fmt: skip


def statistics_table(corpus: Corpus) -> str:
    """One line a split: lines read and set aside, sentences, words, tokens (words and `</s>`),
    lengths in words (mean, smallest, percentiles, largest), and the share of unknown words."""
    units = corpus.vocabulary.units.name
    rows: list[tuple[str, ...]] = [
        tuple(units if column == "words" else column for column in COLUMNS)
    ]
    for split in corpus.splits:
        lengths, counts = split.lengths, split.counts
        words = int(lengths.sum())
        low, *percentiles, high = np.percentile(lengths, (0, 50, 90, 99, 100))
        rows.append(
            (
                split.name,
                *(f"{counts[key]:,}" for key in ("read", "empty", "dropped", "truncated")),
                f"{len(split):,}",
                f"{words:,}",
                f"{split.tokens:,}",
                f"{lengths.mean():.2f}",
                *(f"{value:.0f}" for value in (low, *percentiles, high)),
                f"{counts['unknown'] / words:.2%}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in rows
    )


def _read(source: str | None, options: Mapping[str, Any]) -> Corpus:
    """The corpus of a path, of nothing or of standard input, which is named in what is told."""
    if source != STANDARD_INPUT:
        return load_corpus(Data(dir=source, **options))
    if has_no_input():
        raise InputError("no text: --stats - reads what a pipe or a file brings")
    with tempfile.NamedTemporaryFile(prefix="corpus-") as file:
        file.write(sys.stdin.buffer.read())
        file.flush()
        try:
            corpus = load_corpus(Data(dir=file.name, **options))
        except InputError as error:
            raise InputError(str(error).replace(file.name, "standard input")) from None
    messages = (message.replace(file.name, "standard input") for message in corpus.messages)
    return replace(corpus, messages=tuple(messages))


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the statistics that the arguments ask for. Raises InputError on bad input."""
    parser = CommandParser(
        prog=typed("data"),
        description="Statistics of each split of a corpus. The options are the configuration's "
        "data.* keys. Lengths count words; tokens count words and one </s> a sentence. "
        "data get ptb|yahoo|yelp fetches a data set of the paper.",
    )
    parser.add_argument(
        "--stats",
        required=True,
        nargs="?",
        metavar="DIR_OR_FILE",
        help="a folder with train.txt, valid.txt (or val.txt) and test.txt, or one text file; "
        "without a value, the embedded corpus; - is standard input",
    )
    for name in OPTIONS_OF_DATA:
        option = OPTIONS[f"data.{name}"]
        if option.type is bool:
            parser.add_argument(f"--{name}", action="store_const", const="true")
        else:
            help = f"{option.expected()}; default {shown(option.default)}"
            parser.add_argument(f"--{name}", metavar="VALUE", help=help)
    given = vars(parser.parse_args(arguments))
    source = given.pop("stats")
    options = {
        name: OPTIONS[f"data.{name}"].parse(value, "command line")
        for name, value in given.items()
        if value is not None
    }
    corpus = _read(source, options)
    for message in corpus.messages:
        print(message)
    print(statistics_table(corpus))
    units = corpus.vocabulary.units.name
    print(f"vocabulary: {len(corpus.vocabulary):,} {units}, the four specials included")
    if corpus.train.labels is not None and source is not None:
        counts = [f"{label:.30} {count:,}" for label, count in label_counts(corpus.train).items()]
        print(f"labels of train: {listed(counts)}")
