"""A process that measures one side of one part: told on standard input, it answers in JSON.

    python benchmarks/worker.py project|twin PART SYSTEM strict|fast [--data_dir DIR]
                                [--words 23] [--batch 32] [--vocabulary 10002]

Its first line is ``{"ready": seconds}``. Each line that it reads makes it measure a round and
answer ``{"milliseconds": [...], "tokens": [...]}``, one entry a repetition; when its input ends it
answers ``{"peak_gigabytes": ...}``. The sides run in processes of their own, so that neither
library's threads are in the other's way.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from floor import BASE

from mindspore_cvae.common import memory
from mindspore_cvae.config import keys, layers
from mindspore_cvae.data.batches import EpochPlan, batch_dataset, make_batch
from mindspore_cvae.data.corpus import Split, load_corpus
from mindspore_cvae.devices import choosing
from mindspore_cvae.training.noise import NoiseMaker

BETA = 0.5
STEPS = 10
"""Steps of a round."""
SAMPLES = 128
"""Draws of z a sentence in evaluation."""
SENTENCES = {"evaluation": 256, "decoding": 1280}
TWIN_SENTENCES = {"evaluation": 16, "decoding": 8}
"""Sentences of a round of the twin, which does one at a time."""
MAX_WORDS = 80
PTB_WIDTHS = [12, 17, 22, 27, 32, 40, 52, 83]
"""Of the buckets of configs/ptb.yaml, in predicted tokens."""


@dataclass(frozen=True)
class Case:
    """What is measured on."""

    settings: keys.Config
    words: int
    """Of every sentence of the step, which predicts one token more."""
    data_dir: str | None
    """PTB; None takes random words of as many lengths."""
    device: str = "CPU"

    @property
    def vocabulary(self) -> int:
        return self.settings.data.vocabulary_size

    @property
    def batch(self) -> int:
        return self.settings.data.batch_size


Measurement = tuple[float, int]
"""Milliseconds and predicted tokens of one repetition."""
Round = Callable[[], list[Measurement]]
"""Measures a round; whatever compiles or tunes itself has happened before."""


def sentences_of(lengths: np.ndarray, vocabulary_size: int, seed: int = 0) -> Split:
    """A split of random words."""
    random = np.random.default_rng(seed)
    words = [random.integers(4, vocabulary_size, length).astype(np.int32) for length in lengths]
    return Split("train", "random words", words, np.arange(1, len(words) + 1), {})


def training_split(case: Case) -> Split:
    """As many sentences of the step's length as an epoch of measurements takes."""
    return sentences_of(np.full(case.batch * 200, case.words), case.vocabulary)


def evaluated_split(case: Case) -> Split:
    """The first test sentences of a corpus; without one, random words of as many lengths."""
    count = SENTENCES["evaluation"]
    if case.data_dir is None:
        return sentences_of(np.linspace(1, MAX_WORDS - 1, count).astype(int), case.vocabulary)
    test = load_corpus(replace(case.settings.data, dir=case.data_dir)).test
    return Split("test", test.source, test.sentences[:count], test.lines[:count], {})


def timed(action: Callable[[], int]) -> Measurement:
    """Milliseconds of an action that returns its predicted tokens."""
    started = time.perf_counter()
    tokens = action()
    return 1000 * (time.perf_counter() - started), tokens


def project_model(case: Case):
    """The project's model of a configuration, in graph mode."""
    choosing.apply_precision(case.settings.precision)
    choosing.choose(case.device)
    from mindspore_cvae.model.building import build_model

    return build_model(case.settings.slots, case.settings.model, case.vocabulary, seed=0)


def project_steps(case: Case, split: Split, widths: list[int]) -> Callable[[], int]:
    """Does the next training step of an epoch, with making its noise and feeding its batch."""
    steps = training_steps(project_model(case), case, split, widths)
    return lambda: next(steps)[1]


def training_steps(
    model, case: Case, split: Split, widths: list[int]
) -> Iterator[tuple[np.ndarray, int]]:
    """Does an epoch's training steps; yields the terms of each, and its predicted tokens."""
    settings = case.settings
    from mindspore import Tensor

    from mindspore_cvae.training.building import build_step

    step = build_step(model, settings.slots, settings.train)
    draw = NoiseMaker(settings.slots, settings.model, settings.train.critic_updates, seed=0)
    plan = EpochPlan(split.lengths, widths, case.batch)

    def attach(position, batch):
        return draw(position, batch.tokens).present()

    def arguments():
        rows = batch_dataset(split, plan, attach=attach).create_tuple_iterator(num_epochs=1)
        for tokens, weight, _index, *noise in rows:
            yield tokens, weight, draw.restored(noise)

    beta, begun = Tensor(np.float32(BETA)), set()
    for tokens, weight, noise in arguments():
        # As the trainer does at the first step of a width.
        if tokens.shape not in begun:
            step.ready(tokens, weight, beta, *noise)
            memory.give_back()
            begun.add(tokens.shape)
        terms = step(tokens, weight, beta, *noise).asnumpy()
        yield terms, case.batch * (tokens.shape[1] - 1)


def project_step(case: Case) -> Round:
    return warm_round(project_steps(case, training_split(case), [case.words + 1]))


def project_startup(case: Case) -> Round:
    """A step of every width of PTB: what a start compiles before an epoch runs at full speed."""
    lengths = np.repeat(np.array(PTB_WIDTHS) - 1, case.batch)
    once = project_steps(case, sentences_of(lengths, case.vocabulary), PTB_WIDTHS)
    for _ in PTB_WIDTHS:
        once()
    return lambda: [(0.0, 0)]


def twin_step(case: Case) -> Round:
    settings = case.settings
    import torch
    from twin import OwnNoise, Twin, TwinStep

    use_precision(settings.precision)
    torch.manual_seed(0)
    split = training_split(case)
    step = TwinStep(Twin(settings.slots, settings.model, case.vocabulary), settings.train)
    plan = EpochPlan(split.lengths, [case.words + 1], case.batch)
    feed, draw = iter(range(len(plan))), OwnNoise()

    def once() -> int:
        width, indices = plan[next(feed)]
        batch = make_batch(split.sentences, width, indices, case.batch)
        step(torch.from_numpy(batch.tokens).long(), BETA, draw)
        return case.batch * (case.words + 1)

    return warm_round(once)


def warm_round(once: Callable[[], int]) -> Round:
    """A round of several repetitions; the first ones, which compile and tune, are not counted."""
    for _ in range(12):
        once()
    return lambda: [timed(once) for _ in range(STEPS)]


def project_evaluation(case: Case) -> Round:
    model, settings = project_model(case), case.settings
    from mindspore_cvae.data.widths import bucket_widths
    from mindspore_cvae.evaluation.scoring import DRAWS_PER_CALL, Scorer

    split = evaluated_split(case)
    widths = bucket_widths(split.lengths, settings.data.buckets)
    evaluator = Scorer(model, settings, widths)
    # A few draws compile every graph: their shapes do not depend on the number of draws.
    evaluator.score(split, DRAWS_PER_CALL)

    def once() -> int:
        evaluator.score(split, SAMPLES)
        return evaluator.draws_of(SAMPLES) * split.tokens

    return lambda: [timed(once)]


def twin_evaluation(case: Case) -> Round:
    settings = case.settings
    import torch
    from twin import Twin

    use_precision(settings.precision)
    torch.manual_seed(0)
    split = evaluated_split(case)
    model = Twin(settings.slots, settings.model, case.vocabulary).eval()
    # Every round spreads over all lengths.
    order = np.argsort(split.lengths, kind="stable")
    every = len(order) // TWIN_SENTENCES["evaluation"]

    def score(number: int) -> int:
        width = int(split.lengths[number]) + 1
        tokens = make_batch(split.sentences, width, [number], 1).tokens
        model.score(torch.from_numpy(tokens).long(), SAMPLES)
        return SAMPLES * width

    score(order[0])
    offsets = itertools.cycle(range(every))
    return lambda: [timed(partial(score, number)) for number in order[next(offsets) :: every]]


def project_decoding(case: Case) -> Round:
    model, settings = project_model(case), case.settings
    from mindspore_cvae.generation.decoding import SentenceDecoder, prior_codes
    from mindspore_cvae.generation.ways import Decoding

    z = prior_codes(SENTENCES["decoding"], settings.model.latent_size, seed=0)
    decode = SentenceDecoder(model.decoder.set_train(False), settings.eval.rows)
    way = Decoding("greedy", max_words=MAX_WORDS)
    decode(z[:1], way)
    return lambda: [timed(lambda: sum(map(len, decode(z, way))))]


def twin_decoding(case: Case) -> Round:
    settings = case.settings
    import torch
    from twin import Twin

    use_precision(settings.precision)
    torch.manual_seed(0)
    model = Twin(settings.slots, settings.model, case.vocabulary).eval()
    z = torch.randn(TWIN_SENTENCES["decoding"], 1, settings.model.latent_size)
    model.greedy(z[0], MAX_WORDS)
    return lambda: [timed(lambda code=code: len(model.greedy(code, MAX_WORDS))) for code in z]


def use_precision(precision: str) -> None:
    """PyTorch's switch that corresponds to the project's."""
    import torch

    torch.set_float32_matmul_precision({"strict": "highest", "fast": "medium"}[precision])


def project_data(case: Case) -> Round:
    """Batches with their noise, as the step gets them, and nothing else: a whole epoch of them,
    since what is prefetched comes in no time."""
    settings = case.settings
    choosing.apply_precision(settings.precision)
    split = training_split(case)
    draw = NoiseMaker(settings.slots, settings.model, settings.train.critic_updates, seed=0)
    plan = EpochPlan(split.lengths, [case.words + 1], case.batch)

    def attach(position, batch):
        return draw(position, batch.tokens).present()

    def once() -> int:
        rows = batch_dataset(split, plan, attach=attach).create_tuple_iterator(num_epochs=1)
        return sum(case.batch * (row[0].shape[1] - 1) for row in rows)

    once()
    return lambda: [timed(once)]


TASKS = {
    ("project", "step"): project_step,
    ("twin", "step"): twin_step,
    ("project", "evaluation"): project_evaluation,
    ("twin", "evaluation"): twin_evaluation,
    ("project", "decoding"): project_decoding,
    ("twin", "decoding"): twin_decoding,
    ("project", "data"): project_data,
    ("project", "startup"): project_startup,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("side", choices=("project", "twin"))
    parser.add_argument("part")
    parser.add_argument("system")
    parser.add_argument("precision", choices=("strict", "fast"))
    parser.add_argument("--data_dir")
    for axis, value in BASE.items():
        parser.add_argument(f"--{axis}", type=int, default=value)
    arguments = parser.parse_args()
    started = time.perf_counter()
    settings = layers.load(
        "ptb",
        [
            f"precision={arguments.precision}",
            f"data.batch_size={arguments.batch}",
            f"data.vocabulary_size={arguments.vocabulary}",
        ],
        system=arguments.system,
    )
    case = Case(settings, arguments.words, arguments.data_dir)
    measure = TASKS[arguments.side, arguments.part](case)
    print(json.dumps({"ready": time.perf_counter() - started}), flush=True)
    for _line in sys.stdin:
        milliseconds, tokens = zip(*measure(), strict=True)
        print(json.dumps({"milliseconds": milliseconds, "tokens": tokens}), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(json.dumps({"peak_gigabytes": peak}), flush=True)


if __name__ == "__main__":
    main()
