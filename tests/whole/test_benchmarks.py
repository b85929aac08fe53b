"""The PyTorch twin of the benchmarks computes what the project computes."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny

from mindspore_cvae.config.layers import load

torch = pytest.importorskip(
    "torch", reason="the benchmarks' PyTorch twin needs pip install .[benchmark]"
)
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
STEPS = 5


@pytest.fixture
def twin(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import twin

    yield twin
    sys.modules.pop("twin", None)


@pytest.fixture
def rounding(twin):
    import rounding

    yield rounding
    sys.modules.pop("rounding", None)


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Rounded to the nearest number of 8 significant bits, ties to even."""
    mantissa, exponent = np.frexp(values.astype(np.float64))
    return np.ldexp(np.rint(mantissa * 256) / 256, exponent)


@pytest.mark.parametrize("name, bias", [("vae", True), ("cvae_plus_mi", False)])
def test_twin_has_the_losses_of_the_project(twin, name, bias):
    """Several steps, so that gradients, clipping and both optimizers take part."""
    slots = load("ptb", system=name).slots
    sizes = replace(tiny.SIZES, noise_size=4, critic_layers=2, first_state_bias=bias)
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
    from mindspore_cvae.generation.decoding import SentenceDecoder, prior_codes
    from mindspore_cvae.generation.ways import Decoding

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


def test_rounded_products_of_a_layer_and_of_its_gradients(rounding):
    source = np.random.default_rng(0)
    x, weight, above = (source.normal(size=size) for size in ((5, 7), (3, 7), (5, 3)))
    given = torch.tensor(x, dtype=torch.float32, requires_grad=True)
    layer = torch.nn.Linear(7, 3)
    layer.weight.data = torch.tensor(weight, dtype=torch.float32)
    layer.bias.data.fill_(0.1234567)
    with rounding.RoundedProducts():
        result = layer(given)
        result.backward(torch.tensor(above, dtype=torch.float32))
    x, weight, above = (to_bfloat16(np.float32(value)) for value in (x, weight, above))
    # The bias is no factor, and sums are not rounded.
    expected = x @ weight.T + np.float32(0.1234567)
    np.testing.assert_allclose(result.detach().numpy(), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(given.grad.numpy(), above @ weight, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(layer.weight.grad.numpy(), above.T @ x, rtol=1e-6, atol=1e-6)


def test_rounded_products_inside_an_lstm(rounding):
    torch.manual_seed(0)
    lstm = torch.nn.LSTM(6, 4)
    x = torch.randn(3, 2, 6)
    with torch.backends.mkldnn.flags(enabled=False), rounding.RoundedProducts():
        states, _ = lstm(x)

    def sigmoid(values):
        return 1 / (1 + np.exp(-values))

    from_input, from_state, *biases = (value.detach().numpy() for value in lstm.parameters())
    h, cell, expected = np.zeros((2, 4)), np.zeros((2, 4)), []
    for word in x.numpy():
        gates = to_bfloat16(word) @ to_bfloat16(from_input).T + sum(biases)
        gates += to_bfloat16(np.float32(h)) @ to_bfloat16(from_state).T
        first, forget, new, out = np.split(gates, 4, 1)
        cell = sigmoid(forget) * cell + sigmoid(first) * np.tanh(new)
        h = sigmoid(out) * np.tanh(cell)
        expected.append(h)
    np.testing.assert_allclose(states.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_forms_of_a_step_are_forms_of_the_same_step(twin):
    """The output layer that has its bias apart is put to the weights of the one that has not."""
    import forms

    slots = load("ptb", system="vae").slots
    training = replace(tiny.TRAINING, clip_norm=0.5)
    shipped, expected = None, None
    for form in forms.FORMS:
        with forms.written_as(form):
            made = tiny.Training(slots, training=training)
            start = made.state()
            if shipped is None:
                shipped = start["decoder.vocabulary_weight"]
            elif "decoder.plain_weight" in start:
                made.restore(
                    {
                        **start,
                        "decoder.plain_weight": shipped[:, :-1],
                        "decoder.output_bias": shipped[:, -1],
                    }
                )
            losses = [made.run()["loss"] for _ in range(STEPS)]
        expected = expected or losses
        np.testing.assert_allclose(losses, expected, rtol=1e-5, err_msg=form)
    assert losses[0] - losses[-1] > 0.01


def test_devices_are_compared_with_the_first(monkeypatch):
    """Rounding of one step, what training made of it, and what a device says that fails."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import devices

    steps = {"milliseconds": [900.0, 2.0, 4.0]}
    results = {
        "CPU": {"terms": [[8.0, -4.0], [4.0, -1.0], [2.0, 9.0]], **steps},
        "GPU": {"terms": [[8.0, -4.5], [4.0, -1.0], [2.5, 9.0]], **steps},
        "Ascend": {"failed": "no such device"},
    }
    assert devices.row("vae", results).split(" | ")[:5] == [
        *("vae", "3.00", "3.00", "6.2e-02", "2.5e-01")
    ]
    assert "Ascend: no such device" in devices.row("vae", results)
