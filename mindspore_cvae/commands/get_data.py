"""Command data get: fetches a data set of the paper."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

from mindspore_cvae.data.published import DATA_SETS, SOURCE, fetch
from mindspore_cvae.errors import CommandParser, InputError, typed

URL = "DATA_URL"
"""Variable that names another copy of the published files."""


def main(argv: Sequence[str] | None = None) -> None:
    """The command. Raises what :func:`data.published.fetch` raises; InputError for a name that is
    no data set's."""
    parser = CommandParser(
        prog=typed("data get"),
        description="Fetch train.txt, valid.txt and test.txt of a data set of the paper, as the "
        "repository of Fang et al. (2019) holds them at one commit, each verified by its git blob "
        "id. A transfer that was interrupted goes on where it stopped. The variable DATA_URL names "
        "another copy of that repository's files. The texts belong to their owners; they are no "
        "part of this project.",
        allow_abbrev=False,
    )
    parser.add_argument("name", nargs="?", metavar="|".join(DATA_SETS), help="the data set")
    parser.add_argument("folder", nargs="?", metavar="DIR", help="where to (data/NAME)")
    arguments = parser.parse_args(argv)
    name = arguments.name
    if name not in DATA_SETS:
        *others, last = DATA_SETS
        raise InputError(f"give a data set: {', '.join(others)} or {last}")
    folder = arguments.folder or f"data/{name}"
    fetch(name, folder, os.environ.get(URL) or SOURCE, lambda line: print(line, flush=True))
    print(f"train with: {typed('train')} --config {name} --data_dir {shlex.quote(folder)}")
