"""What the forms that a step is written in are worth: each against its plain form, in one run.

    python benchmarks/forms.py [--system cvae_plus_mi] [--rounds 10] [--profile]

The plain forms are the framework's own: its cross entropy; the output layer as a product with the
transposed weight and an addition of the bias; its clipping by a global norm. Steps with one of
them, with all of them and with none are timed in turn, at the size of floor.py's base point. With
``--profile``, the steps with all of them and with none are also shown by operator.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
from floor import BASE
from mindspore import Parameter, ops
from worker import STEPS, Case, project_steps, timed, training_split

from mindspore_cvae import building, config, networks, profiling, steps


class PlainCrossEntropy(networks.Decoder):
    """The framework's cross entropy in the place of log-softmax and a gather."""

    def construct(self, tokens, z, embedding_bytes=None, output_bytes=None):
        previous, targets = tokens[:, :-1].T, tokens[:, 1:].T
        embedded = self.embedding(previous)
        embedded = networks.dropout(embedded, embedding_bytes, self.dropout_rate)
        states, _ = self.lstm(self.inputs(embedded, z), self.initial_state(z))
        states = networks.dropout(states, output_bytes, self.dropout_rate)
        logits = self.padded_logits(states.reshape(-1, states.shape[-1]))
        # The pad's id is 0, and a pad costs nothing.
        losses = ops.cross_entropy(
            logits, targets.reshape(-1), ignore_index=networks.PAD, reduction="none"
        )
        return losses.reshape(targets.shape).sum(0)


class PlainOutput(networks.Decoder):
    """A product with the transposed weight, and a bias of its own, in the place of one product."""

    def __init__(self, vocabulary_size, embedding_size, hidden_size, *others):
        super().__init__(vocabulary_size, embedding_size, hidden_size, *others)
        del self.vocabulary_weight
        self.output_weight = Parameter(np.zeros((vocabulary_size, hidden_size), np.float32))
        self.output_bias = Parameter(np.zeros(vocabulary_size, np.float32))

    def padded_logits(self, states):
        return ops.matmul(states, self.output_weight.T) + self.output_bias


class PlainDecoder(PlainOutput, PlainCrossEntropy):
    """Both."""


def plain_clip(gradients: tuple, limit: float) -> tuple:
    """The framework's own."""
    return ops.clip_by_global_norm(gradients, limit)


FORMS = {
    "as shipped": (networks.Decoder, steps.clip),
    "plain cross entropy": (PlainCrossEntropy, steps.clip),
    "plain output layer": (PlainOutput, steps.clip),
    "plain clipping": (networks.Decoder, plain_clip),
    "all three plain": (PlainDecoder, plain_clip),
}


@contextlib.contextmanager
def written_as(form: str) -> Iterator[None]:
    """Steps that are built and compiled meanwhile have these forms."""
    decoder, clip = FORMS[form]
    with (
        mock.patch.object(building, "Decoder", decoder),
        mock.patch.object(steps, "clip", clip),
    ):
        yield


def shares(once: Callable[[], int]) -> dict[str, tuple[float, float]]:
    """-> by operator: its share of a step in percent, its calls a step."""
    with tempfile.TemporaryDirectory() as folder:
        profiler = profiling.StepProfiler(Path(folder), "CPU")
        for _ in range(profiling.FIRST_STEP + profiling.STEPS):
            once()
            profiler.step()
        (path,) = Path(folder).rglob("cpu_op_type_info_0.csv")
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    times, calls = Counter(), Counter()
    for row in rows:
        times[row["op_type"]] += float(row["total_compute_time"])
        calls[row["op_type"]] += int(row["type_occurrences"])
    total = sum(times.values())
    return {
        name: (100 * value / total, calls[name] / profiling.STEPS)
        for name, value in times.most_common()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--system", default="cvae_plus_mi")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--profile", action="store_true", help="also by operator")
    arguments = parser.parse_args()
    settings = config.load("ptb", system=arguments.system)
    case = Case(settings, BASE["words"], None)
    split = training_split(case)
    made: dict[str, Callable[[], int]] = {}
    for form in FORMS:
        with written_as(form):
            made[form] = project_steps(case, split, [case.words + 1])
            # The first steps compile and tune.
            for _ in range(6):
                made[form]()
    measured: dict[str, list[float]] = {form: [] for form in FORMS}
    for number in range(arguments.rounds):
        # The order turns round, so that none always follows the same other.
        for form in list(FORMS)[:: -1 if number % 2 else 1]:
            measured[form] += [timed(made[form])[0] for _ in range(STEPS)]
    shipped = float(np.median(measured["as shipped"]))
    print("| form | ms a step (quartiles) | to the shipped one |\n|---|---|---|")
    for form, times in measured.items():
        low, median, high = np.percentile(times, (25, 50, 75))
        print(f"| {form} | {median:.0f} ({low:.0f} to {high:.0f}) | {median / shipped:.2f} |")
    if arguments.profile:
        for form in ("all three plain", "as shipped"):
            print(f"\n| operator, {form} | calls a step | share |\n|---|---|---|")
            for name, (share, calls) in shares(made[form]).items():
                if share >= 1:
                    print(f"| {name} | {calls:g} | {share:.1f}% |")


if __name__ == "__main__":
    main()
