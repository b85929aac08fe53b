"""The PyTorch twin of the benchmarks computes what the project computes."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny

from mindspore_cvae.config import load

torch = pytest.importorskip(
    "torch", reason="the benchmarks' PyTorch twin needs pip install .[benchmark]"
)
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
STEPS = 5


@pytest.fixture
def twin(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import twin

    yield twin
    sys.modules.pop("twin", None)


@pytest.mark.parametrize("name", ["vae", "cvae_plus_mi"])
def test_twin_has_the_losses_of_the_project(twin, name):
    """Several steps, so that gradients, clipping and both optimizers take part."""
    slots = load("ptb", system=name).slots
    sizes = replace(tiny.SIZES, noise_size=4, critic_layers=2)
    training = replace(tiny.TRAINING, learning_rate=1e-3, critic_updates=3, clip_norm=0.5)
    ours = tiny.Training(slots, sizes, training)
    tokens = tiny.TOKENS[:4]
    model = twin.Twin(slots, sizes, tiny.VOCABULARY)
    start = {
        parameter.name: parameter.asnumpy().copy() for parameter in ours.model.get_parameters()
    }
    model.load_state_dict(twin.state_of(start))
    step = twin.TwinStep(model, training)
    noise = ours.noise(0, tokens)
    losses = []
    for _ in range(STEPS):
        expected = ours.run(tokens=tokens, weight=np.ones(4, np.float32), noise=noise)
        terms = step(torch.from_numpy(tokens).long(), 0.3, twin.FedNoise(noise._asdict()))
        np.testing.assert_allclose(terms, list(expected.values()), rtol=2e-5, atol=2e-5)
        losses.append(terms[0])
    # The updates were large enough to be seen in what was compared.
    assert losses[0] - losses[-1] > 0.01


def test_twin_decodes_the_same_words(twin):
    from mindspore_cvae.decoding import Decoding
    from mindspore_cvae.generation import SentenceDecoder, prior_codes

    slots = load("ptb", system="vae").slots
    ours = tiny.Training(slots, tiny.SIZES).model
    tiny.randomise(ours)
    model = twin.Twin(slots, tiny.SIZES, tiny.VOCABULARY)
    model.load_state_dict(twin.state_of({p.name: p.asnumpy() for p in ours.get_parameters()}))
    z = prior_codes(6, tiny.SIZES.latent_size, seed=1)
    with tiny.execution("graph"):
        decode = SentenceDecoder(ours.decoder.set_train(False), 6)
        expected = decode(z, Decoding("greedy", max_words=9))
    words = [model.greedy(torch.from_numpy(code[None]), 9) for code in z]
    assert [list(sentence) for sentence in expected] == words
