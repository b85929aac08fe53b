"""Command report: writes the page of a run again."""

from __future__ import annotations

from collections.abc import Sequence

from mindspore_cvae.commands.options import SettingsParser, add_run, add_settings, settings
from mindspore_cvae.errors import typed
from mindspore_cvae.report.sections import write_report
from mindspore_cvae.runs import folder
from mindspore_cvae.runs.outputs import check_folder


def main(argv: Sequence[str] | None = None) -> None:
    """The command. Raises what :func:`write_report` raises."""
    parser = SettingsParser(
        prog=typed("report"),
        description="Write RUN/report.html: curves, metrics, a map of the codes, sentences.",
        allow_abbrev=False,
        usable_after_training=True,
    )
    add_run(parser)
    parser.add_argument(
        "--template", metavar="FILE", help="a page of Jinja2 in the place of the shipped one"
    )
    add_settings(parser)
    arguments = parser.parse_args(argv)
    config = folder.read_config(arguments.run, **settings(arguments))
    check_folder(arguments.run, "--run")
    page = write_report(arguments.run, arguments.checkpoint, config, arguments.template)
    print(f"written to {page}")
