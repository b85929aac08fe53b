"""What a step's noise costs: made on the host, against the step that it is for.

    python benchmarks/masks.py [--config yahoo] [--system cvae_plus_mi] [--width 100] [--rounds 5]
                               [--steps 3]

Three things are timed in turn, a round of each: the noise alone; the step with noise that is there;
and the step as training calls it, with noise that the data set's thread makes while the step before
computes. The network has the sizes of the configuration and random words.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import sys
import time
from collections.abc import Callable

import numpy as np
from worker import BETA, sentences_of

from mindspore_cvae import __version__
from mindspore_cvae.config import layers
from mindspore_cvae.data.batches import EpochPlan, batch_dataset, make_batch
from mindspore_cvae.devices import choosing
from mindspore_cvae.errors import run_command
from mindspore_cvae.training.noise import NoiseMaker


def milliseconds(action: Callable[[], object], times: int) -> float:
    """Of one of several calls."""
    started = time.perf_counter()
    for _ in range(times):
        action()
    return 1000 * (time.perf_counter() - started) / times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="yahoo")
    parser.add_argument("--system", default="cvae_plus_mi")
    parser.add_argument("--width", type=int, default=100, help="predicted tokens of a sentence")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="of a round")
    arguments = parser.parse_args()
    settings = layers.load(arguments.config, system=arguments.system)
    choosing.apply_precision(settings.precision)
    from mindspore import Tensor

    from mindspore_cvae.model.building import build_model
    from mindspore_cvae.training.building import build_step

    device = choosing.choose("auto")
    vocabulary_size, batch_size = settings.data.vocabulary_size, settings.data.batch_size
    model = build_model(settings.slots, settings.model, vocabulary_size, seed=0)
    step = build_step(model, settings.slots, settings.train)
    draw = NoiseMaker(settings.slots, settings.model, settings.train.critic_updates, seed=0)

    # The first steps compile and tune; the data set makes a few rows more than are asked for.
    steps = 6 + arguments.rounds * arguments.steps
    lengths = np.full(batch_size * (steps + 20), arguments.width - 1)
    split = sentences_of(lengths, vocabulary_size)
    plan = EpochPlan(split.lengths, [arguments.width], batch_size)
    batch = make_batch(split.sentences, *plan[0], batch_size)
    noise = draw(0, batch.tokens)
    numbers = itertools.count()

    def attach(position, batch):
        return draw(position, batch.tokens).present()

    rows = batch_dataset(split, plan, attach=attach).create_tuple_iterator(num_epochs=1)
    beta = Tensor(np.float32(BETA))
    tensors = [
        None if array is None else Tensor(array) for array in (batch.tokens, batch.weight, *noise)
    ]

    def fixed():
        step(*tensors[:2], beta, *tensors[2:]).asnumpy()

    def fed():
        tokens, weight, _index, *made = next(rows)
        step(tokens, weight, beta, *draw.restored(made)).asnumpy()

    parts = {
        "noise": lambda: draw(next(numbers), batch.tokens),
        "step with noise that is there": fixed,
        "step with noise from the data set": fed,
    }
    for _ in range(3):
        fixed()
        fed()
    measured: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(arguments.rounds):
        for name, action in parts.items():
            measured[name].append(milliseconds(action, arguments.steps))

    size = sum(array.nbytes for array in noise if array is not None) / 1e6
    masks = sum(array.nbytes for array in noise if array is not None and array.dtype == np.uint8)
    print(
        f"{arguments.config}, {arguments.system}, {batch_size} sentences of {arguments.width} "
        f"predicted tokens, vocabulary {vocabulary_size}: device {device}, precision "
        f"{settings.precision}, version {__version__}, {platform.processor() or platform.machine()}"
    )
    print(f"noise of a step: {size:.1f} MB, {masks / 1e6:.1f} MB of them masks")
    medians = {name: float(np.median(values)) for name, values in measured.items()}
    for name, values in measured.items():
        print(
            f"{name}: {medians[name]:.1f} ms (median of {arguments.rounds} rounds of "
            f"{arguments.steps}; {min(values):.1f} to {max(values):.1f})"
        )
    made, alone, together = medians.values()
    print(f"making the noise takes {100 * made / alone:.2f}% of the step's time")
    print(f"where it is made beside the step, that takes {together / alone:.3f} times as long")


if __name__ == "__main__":
    sys.exit(run_command(main))
