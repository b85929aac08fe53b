"""The project against its PyTorch twin: medians, spread and ratios of one run.

    python benchmarks/run.py [--only step|evaluation|decoding|data ...] [--systems NAME ...]
                             [--precisions strict fast] [--rounds 5] [--data_dir DIR] [--json FILE]

Both sides run alternately, a round each, in processes of their own that stay alive, so that a
change of the machine's speed meets both. A ratio is the twin's time over the project's, for the
same work: above 1 the project is faster. The twin has the rows vae and cvae_plus_mi; of the others
only the project is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

from mindspore_cvae.systems import SYSTEMS

TWIN_SYSTEMS = ("vae", "cvae_plus_mi")
PARTS = ("step", "evaluation", "decoding", "data")
FOLDER = Path(__file__).resolve().parent
UNITS = {
    "step": "milliseconds a step",
    "evaluation": "milliseconds a 1000 decoded tokens",
    "decoding": "milliseconds a 1000 decoded words",
    "data": "milliseconds a batch",
}
PER_TOKENS = {"evaluation": 1000, "decoding": 1000}
"""Parts whose repetitions differ in length: their times are given for so many tokens."""


class Worker:
    """One side of one part, in a process of its own."""

    def __init__(self, side: str, part: str, system: str, precision: str, data_dir: str | None):
        command = [sys.executable, FOLDER / "worker.py", side, part, system, precision]
        if data_dir is not None:
            command += ["--data_dir", data_dir]
        path = os.pathsep.join(filter(None, [str(FOLDER.parent), os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        self.part, self.name = part, f"{side} {part} {system} {precision}"
        self.times: list[float] = []
        self.seconds_to_first = self.answer()["ready"]

    def answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the worker ended ({self.name}); run it alone to see why")
        return json.loads(line)

    def round(self) -> None:
        """Measures one round more."""
        self.process.stdin.write("round\n")
        self.process.stdin.flush()
        answer = self.answer()
        milliseconds, tokens = answer["milliseconds"], answer["tokens"]
        unit = PER_TOKENS.get(self.part)
        if unit is None:
            self.times += milliseconds
        else:
            # A round spreads over all lengths: only its total compares with another round's.
            self.times.append(sum(milliseconds) / sum(tokens) * unit)

    def close(self) -> dict:
        """-> median, quartiles, peak memory, time to the first result."""
        self.process.stdin.close()
        peak = self.answer()["peak_gigabytes"]
        self.process.wait()
        low, median, high = spread(self.times)
        return {
            "ms": median,
            "quartiles_ms": [low, high],
            "measurements": len(self.times),
            "peak_gigabytes": peak,
            "start_seconds": self.seconds_to_first,
        }


def spread(values: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high


def compare(part: str, system: str, precision: str, rounds: int, data_dir: str | None) -> dict:
    """One row of the table: both sides, measured alternately."""
    sides = {"project": Worker("project", part, system, precision, data_dir)}
    if part != "data" and system in TWIN_SYSTEMS:
        sides["twin"] = Worker("twin", part, system, precision, data_dir)
    for number in range(rounds):
        # Who goes first changes, so that none always follows the other.
        for side in sorted(sides, reverse=number % 2 == 1):
            sides[side].round()
    row = {
        f"{side}_{name}": value
        for side, worker in sides.items()
        for name, value in worker.close().items()
    }
    if "twin_ms" in row:
        row["ratio"] = row["twin_ms"] / row["project_ms"]
        row["memory_ratio"] = row["project_peak_gigabytes"] / row["twin_peak_gigabytes"]
    return row


def shown(part: str, system: str, precision: str, row: dict) -> str:
    """A row as a line of the printed table."""
    cells = [f"{part:11}{system:14}{precision:8}"]
    for side in ("project", "twin"):
        if f"{side}_ms" in row:
            low, high = row[f"{side}_quartiles_ms"]
            cells.append(f"{side} {row[f'{side}_ms']:9.2f} ({low:.2f} to {high:.2f})")
    if "ratio" in row:
        cells.append(f"ratio {row['ratio']:.2f}, memory {row['memory_ratio']:.2f}")
    return "  ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--systems", nargs="+", choices=tuple(SYSTEMS), default=TWIN_SYSTEMS)
    parser.add_argument("--precisions", nargs="+", choices=("strict", "fast"), default=["strict"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data_dir", help="PTB; without it, random words of as many lengths")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    arguments = parser.parse_args()
    numbers: dict = {"machine": {"processor": platform.processor(), "cores": os.cpu_count()}}
    for part in arguments.only:
        print(f"{part}: {UNITS[part]}, median (quartiles)", flush=True)
        for system in arguments.systems:
            for precision in arguments.precisions:
                row = compare(part, system, precision, arguments.rounds, arguments.data_dir)
                numbers.setdefault(part, {}).setdefault(system, {})[precision] = row
                print(shown(part, system, precision, row), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
