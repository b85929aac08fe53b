"""Small cells, batches and steps that the tests of the core share."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import replace

import mindspore as ms
import numpy as np
from mindspore import Tensor

from mindspore_cvae.config.keys import Config, Model, Train
from mindspore_cvae.config.layers import override
from mindspore_cvae.model.building import build_model, put_values
from mindspore_cvae.systems import SYSTEMS
from mindspore_cvae.training.building import build_step
from mindspore_cvae.training.noise import NoiseMaker
from mindspore_cvae.training.steps.aggressive import AggressiveStep
from mindspore_cvae.training.steps.updates import STEP_TERMS

PAD, START, END = 0, 2, 3
MODES = {"graph": ms.GRAPH_MODE, "pynative": ms.PYNATIVE_MODE}


@contextlib.contextmanager
def execution(mode: str):
    """``graph`` or ``pynative`` for a while."""
    before = ms.get_context("mode")
    ms.set_context(mode=MODES[mode])
    try:
        yield
    finally:
        ms.set_context(mode=before)


def rows(sentences, width):
    """Lists of word ids as (N, width + 1) rows ``<s> w_1 ... w_n </s> <pad> ...``."""
    tokens = np.zeros((len(sentences), width + 1), np.int32)
    for row, sentence in zip(tokens, sentences, strict=True):
        row[: len(sentence) + 2] = [START, *sentence, END]
    return tokens


def tensors(arrays):
    """NumPy arrays as tensors; None stays None."""
    return [None if array is None else Tensor(array) for array in arrays]


def randomise(cell, seed=0, scale=0.7):
    """Fills a cell's parameters with normal numbers; returns them as float64 arrays by name."""
    random = np.random.default_rng(seed)
    for parameter in cell.get_parameters():
        values = random.normal(0, scale, parameter.shape).astype(np.float32)
        parameter.set_data(Tensor(values))
    return arrays(cell.get_parameters())


def arrays(parameters):
    """Float64 copies of parameters, by name."""
    return {parameter.name: parameter.asnumpy().astype(np.float64) for parameter in parameters}


SIZES = Model(
    embedding_size=6,
    hidden_size=8,
    latent_size=4,
    noise_size=3,
    critic_size=8,
    critic_layers=1,
    posterior_size=7,
    posterior_layers=1,
)
TRAINING = Train(learning_rate=1e-2, critic_learning_rate=1e-2, critic_updates=2, clip_norm=1e9)
VOCABULARY, WIDTH = 24, 6
TOKENS = rows([[4, 5, 6, 7, 8], [9, 10], [11, 12, 4], [13], [14, 15, 16, 17]], WIDTH)
WEIGHT = np.array([1, 1, 1, 1, 0], np.float32)
"""The last sentence is a filler, whose words 14 to 17 stand nowhere else."""
SEED = 7


class Training:
    """A model with its step, which can be put back to a state that it was in."""

    def __init__(self, system, sizes=SIZES, training=TRAINING, mode="graph", vocabulary=VOCABULARY):
        self.system, self.mode = system, mode
        self.training, self.sizes = training, sizes
        self.model = build_model(system, sizes, vocabulary, SEED)
        self.step = build_step(self.model, system, training)
        if isinstance(self.step, AggressiveStep):
            # A hundred updates of the encoder are many for one step of a test.
            self.step.most_updates = 3
        self.start = self.state()

    def noise(self, index=0, tokens=TOKENS, seed=SEED):
        maker = NoiseMaker(self.system, self.sizes, self.training.critic_updates, seed)
        return maker(index, tokens)

    def run(self, index=0, tokens=TOKENS, weight=WEIGHT, noise=None, seed=SEED, beta=0.3):
        """One step; returns its terms by name."""
        with execution(self.mode):
            terms = self.step(*self.arguments(index, tokens, weight, noise, seed, beta)).asnumpy()
        return dict(zip(STEP_TERMS, terms, strict=True))

    def arguments(self, index=0, tokens=TOKENS, weight=WEIGHT, noise=None, seed=SEED, beta=0.3):
        """What a step is called with."""
        noise = self.noise(index, tokens, seed) if noise is None else noise
        return tensors([tokens, weight, np.float32(beta), *noise])

    def state(self):
        """Copies of all parameters and of the optimizers' state, by name."""
        return {parameter.name: parameter.asnumpy().copy() for parameter in self.parameters()}

    def restore(self, state):
        put_values(self.step, state)
        return self

    def parameters(self):
        return self.step.get_parameters()

    def moved(self, before):
        """Names of the model's parameters that differ from a state."""
        return {
            parameter.name
            for parameter in self.model.get_parameters()
            if not np.array_equal(parameter.asnumpy(), before[parameter.name])
        }


def combination(system, **slots):
    """A row of the table with slots that the configuration overrides, checked as it checks them."""
    pairs = [f"slots.{slot}={value}" for slot, value in slots.items()]
    return override(Config(), pairs, system=system).slots


COMBINATIONS = {
    **SYSTEMS,
    "circle loss without a contrast": combination("ivae_mi", critic_loss="circle_mean"),
    "as released": combination(
        "cvae_plus_mi",
        posterior="mlp",
        squared_difference="released",
        batch_mean_pair="true",
        prior_negatives=3,
    ),
    "as printed": combination(
        "cvae_plus",
        critic_loss="circle_sum",
        divergence_sign="printed",
        squared_difference="printed",
        reconstruction="prior",
        contrast_on="h",
        negatives="first",
        augmentation="swap",
        swap_probability=0.5,
        swap_negatives="true",
        encoder_dropout=0,
    ),
    "autoencoder with a critic": combination("ivae_mi", posterior="deterministic"),
}
"""The rows of the table, and combinations of slots that only a configuration makes."""


def training(name):
    """The compiled :class:`Training` of one of :data:`COMBINATIONS`, as it was left."""
    # The schedule of beta lies outside of the step: rows that differ in nothing else share it.
    return _training(replace(COMBINATIONS[name], beta="constant", beta_max=1.0))


@functools.cache
def _training(system):
    return Training(system)
