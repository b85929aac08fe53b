"""Small cells, batches and steps that the tests of the core share."""

from __future__ import annotations

import contextlib

import mindspore as ms
import numpy as np
from mindspore import Tensor

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
