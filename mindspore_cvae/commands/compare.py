"""Command compare: several runs side by side on one page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mindspore_cvae.errors import CommandParser, InputError, typed
from mindspore_cvae.report.comparison import Entry, write_comparison
from mindspore_cvae.runs.outputs import check_output

STEPS = 7
"""Sentences of the interpolation."""


def main(argv: Sequence[str] | None = None) -> None:
    """The command. Raises what :func:`write_comparison` raises."""
    parser = CommandParser(
        prog=typed("compare"),
        description="Runs side by side on one page: metrics and what they bound, differences "
        "sentence by sentence from the first, curves, one interpolation.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders; the first is compared to")
    parser.add_argument("--split", choices=("valid", "test"), default="test", help="(test)")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("comparison.html"),
        metavar="FILE",
        help="the page (comparison.html)",
    )
    parser.add_argument(
        "--no_models",
        action="store_true",
        help="leave the interpolation out, which loads every model",
    )
    arguments = parser.parse_args(argv)
    if len(arguments.runs) < 2:
        raise InputError("compare takes two runs or more")
    check_output(arguments.output)
    interpolate = None if arguments.no_models else _interpolation()
    page = write_comparison(arguments.runs, arguments.output, arguments.split, interpolate)
    print(f"written to {page}")


def _interpolation() -> Callable[[Entry], tuple[str, str, list[str]] | None]:
    """Interpolates every run between the same two test sentences."""
    ends: list[str] = []

    def interpolate(entry: Entry) -> tuple[str, str, list[str]] | None:
        from mindspore_cvae.api import ContrastiveVAE
        from mindspore_cvae.data.corpus import load_corpus
        from mindspore_cvae.report.specimens import path_ends

        if entry.config.slots.posterior == "none":
            return None
        model = ContrastiveVAE.load(entry.folder)
        if not ends:
            split = load_corpus(model.config.data, model.vocabulary).test
            found = path_ends(split.lengths)
            if not found:
                return None
            ends.extend(model.vocabulary.decode(split.sentences[end]) for end in found[0])
        return ends[0], ends[1], model.interpolate(ends[0], ends[1], STEPS)

    return interpolate
