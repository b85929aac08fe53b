"""Command audit: which operators the graphs need, and what MindSpore says of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from mindspore_cvae.audit.graphs import DEVICES
from mindspore_cvae.audit.verdicts import LIMITS, MISSING, NOT_STATED, STATED, audit, table
from mindspore_cvae.config import contradictions
from mindspore_cvae.devices import choosing
from mindspore_cvae.errors import CommandParser, run_command, typed
from mindspore_cvae.systems import SYSTEMS


def audit_main(argv: Sequence[str] | None = None) -> int:
    """The command ``audit``.

    Args:
        argv: its arguments; None takes the process's.

    Returns:
        The exit code: 0 if nothing is known to be missing, 1 if something is, 2 bad input.
    """
    return run_command(lambda: _audit(argv))


def _parser() -> CommandParser:
    parser = CommandParser(
        prog=typed("audit"),
        description="What MindSpore states of every operator that the systems' graphs need.",
        allow_abbrev=False,
    )
    parser.add_argument("--device", choices=DEVICES, help="(all three)")
    parser.add_argument(
        "--system", nargs="+", choices=tuple(SYSTEMS), metavar="NAME", help="rows (all)"
    )
    parser.add_argument(
        "--amp_level", choices=("O0", "O2"), default="O0", help="mixed precision (O0)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--markdown", action="store_true", help="the table as Markdown")
    return parser


def _audit(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    choosing.apply_precision("strict")
    targets = [arguments.device] if arguments.device else DEVICES
    named = arguments.system or [
        name
        for name, row in SYSTEMS.items()
        if arguments.amp_level == "O0" or row.step in contradictions.SCALED_STEPS
    ]
    rows, found = audit(named, targets, arguments.amp_level)
    missing = [row for row in rows if row.verdict == MISSING]
    is_missing = bool(missing) or any(finding.is_missing for finding in found)
    if arguments.json:
        content = {
            "missing": is_missing,
            "primitives": [asdict(row) for row in rows],
            "findings": [asdict(finding) for finding in found],
            "limits": LIMITS,
        }
        print(json.dumps(content, indent=1))
        return int(is_missing)
    print("\n".join(_markdown(table(rows)) if arguments.markdown else _aligned(table(rows))))
    print()
    for finding in found:
        state = MISSING if finding.is_missing else "costs"
        print(f"{state}: {finding.device}, {finding.check}: {finding.text}")
    for device in targets:
        counts = [
            f"{sum(row.verdict == verdict for row in rows if row.device == device)} {verdict}"
            for verdict in (STATED, NOT_STATED, MISSING)
        ]
        print(f"{device}: {', '.join(counts)}")
    print(LIMITS)
    return int(is_missing)


def _markdown(lines: list[list[str]]) -> list[str]:
    heading, *rest = (f"| {' | '.join(cells)} |" for cells in lines)
    return [heading, "|" + "---|" * len(lines[0]), *rest]


def _aligned(lines: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in lines
    ]
