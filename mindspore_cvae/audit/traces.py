"""The graphs of every system: training, evaluation, encoding, decoding."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from mindspore_cvae.audit.graphs import UNIT, Graph, Recorder, pretended
from mindspore_cvae.config import layers as configuration
from mindspore_cvae.config.keys import Config
from mindspore_cvae.data.corpus import Split
from mindspore_cvae.data.vocabulary import BEGIN, END, SPECIALS
from mindspore_cvae.devices import choosing
from mindspore_cvae.generation.ways import Decoding
from mindspore_cvae.systems import SYSTEMS, System

STAGES = ("training", "evaluation", "decoding")

ROWS, WIDTH, VOCABULARY = 16, 16, 90
"""Sentences, predicted tokens and words of the graphs that are compiled; the words, like those of
the shipped configurations, are no multiple of :data:`UNIT`."""

SIZES = (
    "model.embedding_size",
    "model.hidden_size",
    "model.latent_size",
    "model.noise_size",
    "model.critic_size",
    "model.posterior_size",
    "data.batch_size",
)
"""Keys of the configuration that are sizes of matrices."""


def _model(system: str, amp_level: str = "O0"):
    """A model of a system at tiny sizes, and its configuration."""
    from mindspore_cvae.model.building import build_model

    settings = [*(f"{key}={UNIT}" for key in SIZES), "train.critic_updates=1"]
    config = configuration.load(None, settings, system=system, amp_level=amp_level)
    return build_model(config.slots, config.model, VOCABULARY, config.seed), config


def _tokens() -> np.ndarray:
    """(ROWS, WIDTH + 1) int32: sentences of one word to as many as there is room for."""
    tokens = np.zeros((ROWS, WIDTH + 1), np.int32)
    for number, row in enumerate(tokens):
        length = 1 + number % (WIDTH - 1)
        row[: length + 2] = [BEGIN, *range(len(SPECIALS), len(SPECIALS) + length), END]
    return tokens


def _tensors(arrays) -> list:
    from mindspore import Tensor

    return [None if array is None else Tensor(array) for array in arrays]


def _train(model, config: Config) -> None:
    from mindspore_cvae.training.building import build_step
    from mindspore_cvae.training.noise import NoiseMaker

    tokens, weight = _tokens(), np.ones(ROWS, np.float32)
    noise = NoiseMaker(config.slots, config.model, config.train.critic_updates, config.seed)
    step = build_step(model, config.slots, config.train)
    step(*_tensors([tokens, weight, np.float32(1.0), *noise(0, tokens)]))


def _evaluate(model, config: Config) -> None:
    from mindspore_cvae.evaluation.fresh_critics import refitted_kl
    from mindspore_cvae.evaluation.scoring import Scorer

    tokens = _tokens()
    sentences = [row[1 : 1 + (row > END).sum()] for row in tokens]
    split = Split("valid", "none", sentences, np.arange(ROWS), {})
    limits = replace(config.eval, rows=ROWS, tokens=ROWS * WIDTH)
    evaluator = Scorer(model, replace(config, eval=limits), (WIDTH,))
    scores = evaluator.score(split, samples=4)
    z = np.zeros((ROWS, 4, config.model.latent_size), np.float32)
    evaluator.likelihood(*_tensors([tokens, z]))
    if evaluator.has_critics:
        refitted_kl(scores.hidden, scores.codes, config.model, config.seed, updates=1)


def _encode(model, config: Config) -> None:
    from mindspore_cvae.generation.encoding import SentenceEncoder
    from mindspore_cvae.model.posteriors import NoLatent

    if isinstance(model.posterior, NoLatent):
        return
    encoder = SentenceEncoder(model, config.model.latent_size, WIDTH - 1, ROWS)
    for samples in (None, 4):
        if samples is not None or encoder.has_closed_form:
            encoder([np.full(3, len(SPECIALS), np.int32)], samples)


def _decode(model, config: Config) -> None:
    from mindspore_cvae.generation.decoding import SentenceDecoder

    words = WIDTH - 1
    decoder = SentenceDecoder(model.decoder, ROWS)
    for way in (
        Decoding(method="greedy", max_words=words),
        Decoding(method="sample", max_words=words),
        Decoding(method="sample", max_words=words, top_k=8),
        Decoding(method="sample", max_words=words, top_p=0.9),
        Decoding(method="beam", max_words=words, beam_size=4),
    ):
        decoder(np.zeros((1, config.model.latent_size), np.float32), way)


PARTS: tuple[tuple[str, Callable, Callable[[System], object]], ...] = (
    ("training", _train, lambda slots: replace(slots, beta="constant", beta_max=1.0)),
    (
        "evaluation",
        _evaluate,
        lambda slots: (slots.posterior, slots.divergence, slots.refinement_steps),
    ),
    ("decoding", _encode, lambda slots: (slots.posterior, slots.refinement_steps)),
    ("decoding", _decode, lambda slots: slots.posterior == "none"),
)
"""Stage, what calls its graphs, and what of a system they depend on."""


def traces(systems: Iterable[str], device: str, amp_level: str = "O0") -> list[Graph]:
    """The graphs of systems as a device would be given them. What is the same for several systems
    is compiled once.

    Args:
        systems: rows of the table.
        device: CPU, GPU or Ascend; it need not be there.
        amp_level: O0, or O2 for mixed precision.
    """
    choosing.choose("CPU")
    made: dict[tuple, list[Graph]] = {}
    graphs = []
    for system in systems:
        print(f"{device}: {system}", file=sys.stderr, flush=True)
        with pretended(device):
            model, config = _model(system, amp_level)
            for stage, call, part_of in PARTS:
                key = (call, part_of(SYSTEMS[system]))
                if key not in made:
                    with Recorder(stage) as recorder:
                        call(model, config)
                    made[key] = recorder.graphs
                graphs += [replace(graph, system=system) for graph in made[key]]
    return graphs
