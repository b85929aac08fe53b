"""The least that a machine must do for a result, and how fast this machine does it.

    python benchmarks/floor.py rates strict|fast
    python benchmarks/floor.py run yahoo cvae_plus_mi --sentences 100000 --positions 81 \\
        --vocabulary 20001 --teraflops 67 --terabytes 4.8

The first prints the measured rates as JSON, the second what a whole training takes at the least of
a machine with such rates: its steps, the work of one, and hours. The floor of a time is the
floating-point operations of its matrix products over the rate of such products, and the bytes that
must pass through memory over the rate of a copy; whatever else a step does comes on top.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import dataclass

import numpy as np

from mindspore_cvae.config import layers
from mindspore_cvae.devices import choosing
from mindspore_cvae.errors import run_command

BASE = {"words": 23, "batch": 32, "vocabulary": 10002}
"""The step that is measured: PTB's size, sentences of 24 predicted tokens."""
FLOAT_BYTES = 4
TRAINING = 3
"""Products of a trained layer for each of its forward ones: itself, the gradient of its input, and
of its weights."""
ADAM_PASSES = 7
"""Reads of a parameter, its gradient and two moments, and writes of all but the gradient."""
LOGIT_PASSES = 5
"""Written, read by the softmax, whose gradient is written and read by two products."""


@dataclass(frozen=True)
class Work:
    """Floating-point operations of matrix products, and bytes through memory."""

    operations: float
    bytes: float

    def milliseconds(self, rates: dict) -> dict:
        """The floor by the rates of :func:`measured_rates`."""
        operations = 1000 * self.operations / rates["operations_a_second"]
        moved = 1000 * self.bytes / rates["bytes_a_second"]
        return {"operations_ms": operations, "bytes_ms": moved, "floor_ms": operations + moved}


def lstm_products(inputs: int, hidden: int) -> int:
    """Operations of a position, forward: four gates that read the input and the state."""
    return 2 * 4 * hidden * (inputs + hidden)


def perceptron_products(inputs: int, layer_size: int, layers: int) -> tuple[int, int]:
    """Operations of a row, forward: of the first layer, of the others up to the one output."""
    return 2 * inputs * layer_size, 2 * layer_size * (layer_size * (layers - 1) + 1)


def decoder_products(settings, vocabulary: int) -> int:
    """Operations of a decoded position, forward: the LSTM of [word ; z] and the output layer."""
    sizes = settings.model
    lstm = lstm_products(sizes.embedding_size + sizes.latent_size, sizes.hidden_size)
    return lstm + 2 * sizes.hidden_size * vocabulary


def parameters(settings, vocabulary: int) -> tuple[int, int]:
    """Numbers of encoder and decoder, and of both critics; the posterior's few are left out."""
    sizes = settings.model
    hidden, latent, word = sizes.hidden_size, sizes.latent_size, sizes.embedding_size
    lstms = 4 * hidden * (word + hidden) + 4 * hidden * (word + latent + hidden)
    model = vocabulary * (2 * word + hidden) + lstms
    critics = sum(
        sum(perceptron_products(inputs, sizes.critic_size, sizes.critic_layers)) // 2
        for inputs in (hidden + latent, latent)
    )
    return model, critics


def step_work(settings, positions: int, vocabulary: int) -> Work:
    """Of a training step on sentences of ``positions`` predicted tokens each."""
    slots, sizes = settings.slots, settings.model
    rows = slots.views * settings.data.batch_size
    encoder = lstm_products(sizes.embedding_size, sizes.hidden_size)
    decoder = decoder_products(settings, vocabulary)
    operations = TRAINING * rows * positions * (encoder + decoder)
    model, critics = parameters(settings, vocabulary)
    moved = ADAM_PASSES * model + LOGIT_PASSES * rows * positions * vocabulary
    if slots.step == "critic_then_model":
        updates = settings.train.critic_updates
        for inputs in (sizes.hidden_size + sizes.latent_size, sizes.latent_size):
            first, others = perceptron_products(inputs, sizes.critic_size, sizes.critic_layers)
            # Critics see draws of q and of p; their inputs are constants to them.
            operations += updates * 2 * rows * (2 * first + TRAINING * others)
            # The model's update goes through the critics of its own draws, whose weights stay.
            operations += rows * 2 * (first + others)
        moved += updates * ADAM_PASSES * critics
    return Work(operations, FLOAT_BYTES * moved)


def decoding_work(settings, vocabulary: int, tokens: int) -> Work:
    """Of so many decoded positions, forward only: logits are written and read once."""
    operations = tokens * decoder_products(settings, vocabulary)
    return Work(operations, FLOAT_BYTES * 2 * tokens * vocabulary)


def best_seconds(action, repetitions: int = 15) -> float:
    """The shortest of several times."""
    times = []
    for _ in range(repetitions):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return min(times)


def measured_rates(precision: str) -> dict:
    """-> operations and bytes a second: the best product of mindspore, the best copy of NumPy."""
    choosing.apply_precision(precision)
    choosing.choose("CPU")
    import mindspore as ms

    rates = []
    for rows, inner, columns in ((1536, 256, 10002), (1024, 1024, 1024), (4096, 512, 2048)):
        left, right = (
            ms.Tensor(np.random.default_rng(0).random(shape, np.float32))
            for shape in ((rows, inner), (inner, columns))
        )

        def product(a=left, b=right) -> None:
            ms.ops.matmul(a, b)
            ms.runtime.synchronize()

        seconds = best_seconds(product)
        rates.append(2 * rows * inner * columns / seconds)
    source = np.ones(64 * 1024**2, np.float32)
    target = np.empty_like(source)
    seconds = best_seconds(lambda: np.copyto(target, source))
    return {
        "operations_a_second": max(rates),
        "bytes_a_second": 2 * source.nbytes / seconds,
    }


def run_work(settings, sentences: int, positions: int, vocabulary: int, rates: dict) -> dict:
    """A training of all epochs on so many sentences: validations are left out."""
    work = step_work(settings, positions, vocabulary)
    steps = settings.train.epochs * math.ceil(sentences / settings.data.batch_size)
    step = work.milliseconds(rates)
    return {
        "epochs": settings.train.epochs,
        "steps": steps,
        "step_operations": work.operations,
        "step_bytes": work.bytes,
        **step,
        "hours": step["floor_ms"] * steps / 3_600_000,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    rates = commands.add_parser("rates")
    rates.add_argument("precision", choices=("strict", "fast"))
    run = commands.add_parser("run")
    run.add_argument("config")
    run.add_argument("system")
    for name in ("sentences", "positions", "vocabulary"):
        run.add_argument(f"--{name}", type=int, required=True)
    for name in ("teraflops", "terabytes"):
        run.add_argument(f"--{name}", type=float, required=True, help="a second")
    options = parser.parse_args()
    if options.command == "rates":
        print(json.dumps(measured_rates(options.precision)))
        return
    settings = layers.load(options.config, system=options.system)
    machine = {
        "operations_a_second": options.teraflops * 1e12,
        "bytes_a_second": options.terabytes * 1e12,
    }
    sizes = (options.sentences, options.positions, options.vocabulary)
    print(json.dumps(run_work(settings, *sizes, machine), indent=1))


if __name__ == "__main__":
    sys.exit(run_command(main))
