"""The project against its PyTorch twin and against the machine: one run, medians, spread, ratios.

    python benchmarks/run.py [--only PART ...] [--mode strict fast] [--systems NAME ...]
                             [--rounds 5] [--data_dir DIR] [--json FILE]

All sides and modes of a row run alternately, a round each, in processes of their own that stay
alive, so that a change of the machine's speed meets them all. A ratio is the twin's time over the
project's, for the same work: above 1 the project is faster. The twin has the rows vae and
cvae_plus_mi; of the others only the project is measured. floor.py explains the floors.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from floor import BASE, decoding_work, step_work

from mindspore_cvae.config import layers
from mindspore_cvae.errors import run_command
from mindspore_cvae.systems import SYSTEMS

TWIN_SYSTEMS = ("vae", "cvae_plus_mi")
PARTS = ("step", "evaluation", "decoding", "data", "startup", "axes")
MODES = ("strict", "fast")
FOLDER = Path(__file__).resolve().parent
UNITS = {
    "step": "milliseconds a step",
    "evaluation": "milliseconds a 1000 decoded tokens",
    "decoding": "milliseconds a 1000 decoded words",
    "data": "milliseconds a 1000 tokens",
    "startup": "seconds until a step of every PTB bucket is done",
    "axes": "microseconds a token of a step, one axis at a time",
}
PER_TOKENS = {"evaluation": 1000, "decoding": 1000, "data": 1000}
"""Parts whose repetitions differ in length: their times are given for so many tokens."""
WITH_FLOOR = ("step", "evaluation", "decoding")
AXES = {
    "words": (9, 23, 49, 89),
    "batch": (8, 32, 128, 256),
    "vocabulary": (1000, 10002, 50000),
}
COMPILER_CACHE = {"off": "0", "first": "1", "second": "1"}
"""MS_COMPILER_CACHE_ENABLE of each start of the part startup."""


def environment(**more: str) -> dict[str, str]:
    """A process's, in which the project is found wherever the benchmark was started."""
    path = os.pathsep.join(filter(None, [str(FOLDER.parent), os.environ.get("PYTHONPATH")]))
    return {**os.environ, **more, "PYTHONPATH": path}


FLAGS = ("avx2", "avx512f", "amx_tile", "amx_bf16")
"""Flags of a processor that decide how fast a product or a softmax can be."""
CPUINFO = Path("/proc/cpuinfo")


def processor(cpuinfo: str) -> dict:
    """Model and flags of the first processor in the text of Linux's /proc/cpuinfo.

    Returns ``model`` (None where the text names none) and ``flags``, those of :data:`FLAGS` that it
    has (None where the text lists no flags).
    """
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = fields.get("flags")
    if flags is not None:
        flags = [flag for flag in FLAGS if flag in flags.split()]
    return {"model": fields.get("model name"), "flags": flags}


def machine(rates: dict) -> dict:
    """What the numbers were measured on: processor, its flags, cores, rates of :mod:`floor`."""
    found = processor(CPUINFO.read_text() if CPUINFO.exists() else "")
    found["model"] = found["model"] or platform.processor()
    return {**found, "cores": os.cpu_count(), "rates": rates}


class Worker:
    """One side of one part, in a process of its own."""

    def __init__(
        self,
        side: str,
        part: str,
        system: str,
        mode: str,
        options: tuple[str, ...] = (),
        **variables: str,
    ):
        command = [sys.executable, str(FOLDER / "worker.py"), side, part, system, mode, *options]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment(**variables),
        )
        self.part, self.name = part, " ".join(command[2:])
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

    def close(self) -> float:
        """Ends the process -> its peak memory in gigabytes."""
        self.process.stdin.close()
        peak = self.answer()["peak_gigabytes"]
        self.process.wait()
        return peak

    def results(self) -> dict:
        """Ends the process -> median, quartiles, peak memory, time to the first result."""
        peak = self.close()
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


def measured_rates(mode: str) -> dict:
    """Operations and bytes a second of this machine, by floor.py."""
    answer = subprocess.run(
        [sys.executable, FOLDER / "floor.py", "rates", mode],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
        env=environment(),
    )
    return json.loads(answer.stdout)


def compare(
    part: str, system: str, modes: list[str], rounds: int, options: tuple[str, ...]
) -> dict[str, dict]:
    """One system of a part, all sides and modes measured alternately -> a row for each mode."""
    names = ["project"]
    if part != "data" and system in TWIN_SYSTEMS:
        names.append("twin")
    workers = {
        (side, mode): Worker(side, part, system, mode, options) for mode in modes for side in names
    }
    for number in range(rounds):
        # The order turns round, so that none always follows the same other.
        for worker in list(workers.values())[:: -1 if number % 2 else 1]:
            worker.round()
    rows: dict[str, dict] = {mode: {} for mode in modes}
    for (side, mode), worker in workers.items():
        rows[mode] |= {f"{side}_{name}": value for name, value in worker.results().items()}
    add_ratios(rows)
    return rows


def add_ratios(rows: dict[str, dict]) -> None:
    """Adds to each mode's row the twin's time over the project's: in the same mode (``ratio``), and
    where both modes were measured, in the faster of the twin's (``ratio_to_better_twin``)."""
    twins = [row["twin_ms"] for row in rows.values() if "twin_ms" in row]
    if not twins:
        return
    for row in rows.values():
        row["ratio"] = row["twin_ms"] / row["project_ms"]
        row["memory_ratio"] = row["project_peak_gigabytes"] / row["twin_peak_gigabytes"]
        if len(twins) == len(MODES):
            row["ratio_to_better_twin"] = min(twins) / row["project_ms"]


def with_floor(row: dict, part: str, system: str, mode: str, rates: dict, **point: int) -> dict:
    """The row, with what the machine needs at least and the share of the time that this is."""
    point = BASE | point
    settings = layers.load("ptb", [f"data.batch_size={point['batch']}"], system=system)
    if part in PER_TOKENS:
        work = decoding_work(settings, point["vocabulary"], PER_TOKENS[part])
    else:
        work = step_work(settings, point["words"] + 1, point["vocabulary"])
    row |= work.milliseconds(rates[mode])
    row["floor_share"] = row["floor_ms"] / row["project_ms"]
    return row


def shown(part: str, system: str, mode: str, row: dict) -> str:
    """A row as a line of the printed table."""
    cells = [f"{part:11}{system:14}{mode:8}"]
    for side in ("project", "twin"):
        if f"{side}_ms" in row:
            low, high = row[f"{side}_quartiles_ms"]
            cells.append(f"{side} {row[f'{side}_ms']:9.2f} ({low:.2f} to {high:.2f})")
    if "ratio" in row:
        cells.append(f"ratio {row['ratio']:.2f}, memory {row['memory_ratio']:.2f}")
    if "ratio_to_better_twin" in row:
        cells.append(f"to the better twin {row['ratio_to_better_twin']:.2f}")
    if "floor_ms" in row:
        cells.append(f"floor {row['floor_ms']:.1f}")
    return "  ".join(cells)


def startup(system: str, mode: str) -> dict:
    """Seconds of a start without the compiler cache, and of a first and a second one with it."""
    row: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, enable in COMPILER_CACHE.items():
            cache = {"MS_COMPILER_CACHE_ENABLE": enable, "MS_COMPILER_CACHE_PATH": folder}
            worker = Worker("project", "startup", system, mode, **cache)
            worker.close()
            row[f"{name}_seconds"] = worker.seconds_to_first
    row["ratio"] = row["first_seconds"] / row["second_seconds"]
    print(f"startup    {system:14}{mode:8}{json.dumps(row)}", flush=True)
    return row


def axes(system: str, mode: str, rounds: int, rates: dict) -> dict:
    """-> {axis: {value: row}}: the project's step along each axis from the base point."""
    found: dict = {}
    for axis, values in AXES.items():
        for value in values:
            options = (f"--{axis}", str(value))
            worker = Worker("project", "step", system, mode, options)
            for _ in range(rounds):
                worker.round()
            row = {f"project_{name}": each for name, each in worker.results().items()}
            row = with_floor(row, "step", system, mode, rates, **{axis: value})
            point = BASE | {axis: value}
            row["microseconds_a_token"] = (
                1000 * row["project_ms"] / (point["words"] + 1) / point["batch"]
            )
            found.setdefault(axis, {})[str(value)] = row
            print(
                f"axes       {system:14}{mode:8}{axis:11}{value:6}  "
                f"{row['microseconds_a_token']:7.1f} us a token, {row['project_ms']:8.1f} ms, "
                f"floor {row['floor_ms']:.1f}",
                flush=True,
            )
    return found


def measure(part: str, arguments: argparse.Namespace, rates: dict) -> dict:
    """A part of the file: {system: {mode: row}}; prints as it goes."""
    found: dict = {}
    options = () if arguments.data_dir is None else ("--data_dir", arguments.data_dir)
    for system in arguments.systems:
        if part == "axes":
            rows = {mode: axes(system, mode, arguments.rounds, rates) for mode in arguments.mode}
        elif part == "startup":
            rows = {mode: startup(system, mode) for mode in arguments.mode}
        else:
            rows = compare(part, system, arguments.mode, arguments.rounds, options)
            for mode, row in rows.items():
                if part in WITH_FLOOR:
                    with_floor(row, part, system, mode, rates)
                print(shown(part, system, mode, row), flush=True)
        found[system] = rows
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--systems", nargs="+", choices=tuple(SYSTEMS), default=TWIN_SYSTEMS)
    parser.add_argument("--mode", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data_dir", help="PTB; without it, random words of as many lengths")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    arguments = parser.parse_args()
    rates = {mode: measured_rates(mode) for mode in arguments.mode}
    numbers: dict = {"machine": machine(rates)}
    print(json.dumps(numbers["machine"]))
    for part in arguments.only:
        print(f"{part}: {UNITS[part]}, median (quartiles)", flush=True)
        numbers[part] = measure(part, arguments, rates)
        if arguments.json:
            arguments.json.write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(run_command(main))
