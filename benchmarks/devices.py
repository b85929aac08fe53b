"""The same training steps on several devices: what differs, and how long a step takes on each.

    python benchmarks/devices.py --devices CPU GPU [--systems ...] [--steps 20] [--json FILE]

Every device computes in a process of its own, from the same seed, batches and noise, at the size of
floor.py's base point. Of each system the table shows the greatest relative difference to the first
device in any term of the first step (rounding of one step) and in the loss of the last (rounding
that training has carried on), and the median time of the second half of the steps. A system that a
device cannot compute is shown with what it said.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from floor import BASE
from worker import Case, project_model, training_split, training_steps

from mindspore_cvae.config import layers
from mindspore_cvae.errors import run_command
from mindspore_cvae.systems import SYSTEMS


def computed(system: str, device: str, steps: int) -> dict:
    """A system's steps in this process: terms and milliseconds of each."""
    settings = layers.load("ptb", system=system)
    case = Case(settings, BASE["words"], None, device)
    rows = training_steps(project_model(case), case, training_split(case), [case.words + 1])
    terms, milliseconds = [], []
    for _ in range(steps):
        started = time.perf_counter()
        terms.append(next(rows)[0].astype(float).tolist())
        milliseconds.append(1000 * (time.perf_counter() - started))
    return {"terms": terms, "milliseconds": milliseconds}


def child(system: str, device: str, steps: int) -> dict:
    """The steps in a process of their own; ``{"failed": its last line}`` if it did not end well."""
    command = [sys.executable, __file__, "--devices", device, "--systems", system]
    done = subprocess.run(
        [*command, "--steps", str(steps), "--child"], capture_output=True, text=True
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {"failed": lines[-1], "output": done.stderr[-4000:]}
    return json.loads(done.stdout.splitlines()[-1])


def difference(one: object, other: object) -> float:
    """The greatest difference of two lists of numbers, relative to the second's greatest number."""
    one, other = np.array(one, float), np.array(other, float)
    return float(np.abs(one - other).max() / np.abs(other).max())


def row(system: str, results: dict[str, dict]) -> str:
    """A line of the table; the first device is what the others are compared with."""
    cells = [system]
    first = next(iter(results.values()))
    for device, result in results.items():
        if "failed" in result:
            cells += [f"{device}: {result['failed']}", "", ""]
            continue
        half = result["milliseconds"][len(result["milliseconds"]) // 2 :]
        cells.append(f"{statistics.median(half):.2f}")
        if result is not first:
            known = "failed" not in first
            terms = result["terms"], first.get("terms")
            cells.append(f"{difference(terms[0][0], terms[1][0]):.1e}" if known else "")
            cells.append(f"{difference(terms[0][-1][:1], terms[1][-1][:1]):.1e}" if known else "")
    return " | ".join(cells)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", nargs="+", default=["CPU", "GPU"])
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(computed(arguments.systems[0], arguments.devices[0], arguments.steps)))
        return 0
    first, *others = arguments.devices
    columns = [f"{first} ms"]
    for device in others:
        columns += [f"{device} ms", f"{device}: first step differs by", "last loss differs by"]
    print(" | ".join(["system", *columns]))
    everything = {}
    for system in arguments.systems:
        results = {device: child(system, device, arguments.steps) for device in arguments.devices}
        everything[system] = results
        print(row(system, results), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(everything) + "\n")
    return int(
        any("failed" in result for results in everything.values() for result in results.values())
    )


if __name__ == "__main__":
    sys.exit(run_command(main))
