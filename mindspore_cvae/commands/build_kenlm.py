"""Command ngram build: builds KenLM's lmplz and query."""

from __future__ import annotations

from collections.abc import Sequence

from mindspore_cvae.errors import CommandParser, typed
from mindspore_cvae.evaluation.kenlm_building import build_programs
from mindspore_cvae.evaluation.ngram import programs_folder


def main(argv: Sequence[str] | None = None) -> None:
    """The command. Raises what :func:`evaluation.kenlm_building.build_programs` raises."""
    default = programs_folder().parent
    parser = CommandParser(
        prog=typed("ngram build"),
        description="Build KenLM's lmplz and query without root: the source, cmake and ninja come "
        "from the package index. Needs a C++17 compiler and pip, and a minute or two. Programs "
        "that are there already are kept: delete the folder to build anew.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "folder",
        nargs="?",
        default=default,
        metavar="FOLDER",
        help=f"gets bin/lmplz and bin/query ({default}); for another one set KENLM_BIN=FOLDER/bin",
    )
    folder = parser.parse_args(argv).folder
    programs = build_programs(folder, lambda line: print(line, flush=True))
    print(f"lmplz and query are in {programs}")
