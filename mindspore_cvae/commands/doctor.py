"""Command doctor: what each device needs, and what is here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from mindspore_cvae.devices.doctor import DEVICES, examine, table, usable
from mindspore_cvae.errors import CommandParser, typed


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = CommandParser(
        prog=typed("doctor"),
        description="Check what each device needs.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--device", choices=DEVICES, help="the exit code is about this one (any of them)"
    )
    parser.add_argument("--json", action="store_true", help="findings as JSON")
    arguments = parser.parse_args(argv)
    findings = examine()
    there = usable(findings)
    if arguments.json:
        print(json.dumps({"usable": there, "findings": list(map(asdict, findings))}, indent=2))
    else:
        print(table(findings))
        print(f"usable: {', '.join(there) or 'none'}")
    return 0 if (arguments.device in there if arguments.device else there) else 1
