"""What the forms that a step is written in are worth: each against its plain form, in one run.

    python benchmarks/forms.py [--system cvae_plus_mi] [--rounds 10] [--forms FORM ...] [--profile]

The plain forms are the framework's own: a log-softmax, with the shipped gradient or with the one
that it derives; its cross entropy; the output layer as a product with the transposed weight and an
addition of the bias; its clipping by a global norm. Steps with one of them, with all of them and
with none (or those of ``--forms``) are timed in turn, at the size of floor.py's base point. With
``--profile``, they are also shown by operator.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
from floor import BASE
from mindspore import Parameter, nn, ops
from worker import STEPS, Case, project_steps, timed, training_split

from mindspore_cvae.config import layers
from mindspore_cvae.errors import run_command
from mindspore_cvae.model import building, networks
from mindspore_cvae.training import profiling
from mindspore_cvae.training.steps import updates


def by_log_softmax(logits, words):
    """Logits (M, V), words (M,) -> -log p(word) (M,), log p (M, V)."""
    log_probabilities = ops.log_softmax(logits, -1)
    nll = -ops.gather_elements(log_probabilities, 1, words.reshape(-1, 1)).squeeze(1)
    return nll, log_probabilities


class DerivedGradient(nn.Cell):
    """The shipped equation with the gradient that the framework derives from it."""

    def __init__(self, amp_level="O0"):
        super().__init__()
        self.times_transposed = ops.MatMul(transpose_b=True)

    def logits(self, states, weight):
        return self.times_transposed(states, weight)

    def construct(self, states, weight, words):
        return by_log_softmax(self.logits(states, weight), words)


class LogSoftmax(networks.WordLikelihood):
    """The shipped gradient from a log-softmax, whose exponentials are taken again for it."""

    def construct(self, states, weight, words):
        return by_log_softmax(self.logits(states, weight), words)

    def bprop(self, states, weight, words, results, gradients):
        results = (results[0], ops.exp(results[1]))
        return super().bprop(states, weight, words, results, gradients)


class PlainCrossEntropy(DerivedGradient):
    """The framework's cross entropy, with its gradient."""

    def construct(self, states, weight, words):
        logits = self.logits(states, weight)
        # The pad's id is 0, and a pad costs nothing.
        nll = ops.cross_entropy(logits, words, ignore_index=networks.PAD, reduction="none")
        return nll, logits


class PlainOutput(networks.Decoder):
    """A product with the transposed weight, and a bias of its own, in the place of one product."""

    def __init__(self, vocabulary_size, embedding_size, hidden_size, *others):
        super().__init__(vocabulary_size, embedding_size, hidden_size, *others)
        del self.vocabulary_weight
        self.plain_weight = Parameter(np.zeros((vocabulary_size, hidden_size), np.float32))
        self.output_bias = Parameter(np.zeros(vocabulary_size, np.float32))
        self.word_likelihood.logits = self.biased

    def biased(self, states, weight):
        return ops.matmul(states, weight.T) + self.output_bias

    def factors(self, states):
        return states, self.plain_weight


def plain_clip(gradients: tuple, limit: float) -> tuple:
    """The framework's own."""
    return ops.clip_by_global_norm(gradients, limit)


SHIPPED = (networks.Decoder, networks.WordLikelihood, updates.clip)
FORMS = {
    "as shipped": SHIPPED,
    "log-softmax": (networks.Decoder, LogSoftmax, updates.clip),
    "derived gradient": (networks.Decoder, DerivedGradient, updates.clip),
    "plain cross entropy": (networks.Decoder, PlainCrossEntropy, updates.clip),
    "plain output layer, derived gradient": (PlainOutput, DerivedGradient, updates.clip),
    "plain clipping": (networks.Decoder, networks.WordLikelihood, plain_clip),
    "all plain": (PlainOutput, PlainCrossEntropy, plain_clip),
}


@contextlib.contextmanager
def written_as(form: str) -> Iterator[None]:
    """Steps that are built and compiled meanwhile have these forms."""
    decoder, likelihood, clip = FORMS[form]
    with (
        mock.patch.object(building, "Decoder", decoder),
        mock.patch.object(networks, "WordLikelihood", likelihood),
        mock.patch.object(updates, "clip", clip),
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
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=FORMS, metavar="FORM")
    parser.add_argument("--profile", action="store_true", help="also by operator")
    arguments = parser.parse_args()
    settings = layers.load("ptb", system=arguments.system)
    case = Case(settings, BASE["words"], None)
    split = training_split(case)
    made: dict[str, Callable[[], int]] = {}
    for form in arguments.forms:
        with written_as(form):
            made[form] = project_steps(case, split, [case.words + 1])
            # The first steps compile and tune.
            for _ in range(6):
                made[form]()
    measured: dict[str, list[float]] = {form: [] for form in arguments.forms}
    for number in range(arguments.rounds):
        # The order turns round, so that none always follows the same other.
        for form in arguments.forms[:: -1 if number % 2 else 1]:
            measured[form] += [timed(made[form])[0] for _ in range(STEPS)]
    first = float(np.median(measured[arguments.forms[0]]))
    print("| form | ms a step (quartiles) | to the first |\n|---|---|---|")
    for form, times in measured.items():
        low, median, high = np.percentile(times, (25, 50, 75))
        print(f"| {form} | {median:.0f} ({low:.0f} to {high:.0f}) | {median / first:.2f} |")
    if arguments.profile:
        for form in arguments.forms:
            print(f"\n| operator, {form} | calls a step | share |\n|---|---|---|")
            for name, (share, calls) in shares(made[form]).items():
                if share >= 1:
                    print(f"| {name} | {calls:g} | {share:.1f}% |")


if __name__ == "__main__":
    sys.exit(run_command(main))
