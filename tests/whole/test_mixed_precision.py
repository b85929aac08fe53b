"""Half precision: what is rounded and what is not, and that training stays near to float32."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import numpy_twins as twins
import pytest
import tiny
from mindspore import Tensor, ops
from tiny_run import write_run

from mindspore_cvae.commands.evaluate import eval_main
from mindspore_cvae.data.vocabulary import BEGIN, PAD, UNKNOWN
from mindspore_cvae.generation.decoding import SentenceDecoder
from mindspore_cvae.generation.ways import Decoding
from mindspore_cvae.model.building import build_model
from mindspore_cvae.model.networks import LSTM, Decoder
from mindspore_cvae.runs import loading

LENGTH, SENTENCES, INPUTS, HIDDEN = 7, 4, 6, 8
RANDOM = np.random.default_rng(2)
SEQUENCES = RANDOM.normal(size=(LENGTH, SENTENCES, INPUTS)).astype(np.float32)
STATE = RANDOM.normal(size=(2, 1, SENTENCES, HIDDEN)).astype(np.float32)
HALF_SIZES = replace(tiny.SIZES, amp_level="O2")
RELATIVE = 2.0**-10
"""A step of float16, whose numbers have 11 binary digits, as a share of the number."""


def rounded(values):
    """The nearest numbers of float16, as float64."""
    return np.asarray(values, np.float32).astype(np.float16).astype(np.float64)


def is_half(values):
    """Whether every number is one of float16."""
    return np.array_equal(rounded(values), values)


def sigmoid(x):
    return np.float16(1) / (np.float16(1) + np.exp(-x))


def lstm_in_float16(weights, inputs, hidden, cell):
    """Every product, sum and state in NumPy's float16."""
    half = {name: values.astype(np.float16) for name, values in weights.items()}
    inputs, hidden, cell = (np.asarray(item, np.float16) for item in (inputs, hidden, cell))
    states = []
    for x in inputs:
        gates = x @ half["weight_ih_l0"].T + hidden @ half["weight_hh_l0"].T
        gates = gates + half["bias_ih_l0"] + half["bias_hh_l0"]
        enters, keeps, new, leaves = np.split(gates, 4, 1)
        cell = sigmoid(keeps) * cell + sigmoid(enters) * np.tanh(new)
        hidden = sigmoid(leaves) * np.tanh(cell)
        states.append(hidden)
    assert hidden.dtype == np.float16
    return np.stack(states)


@pytest.fixture(scope="module")
def layers():
    """The layer in half precision and in float32 with the same weights, and these."""
    half, single = LSTM(INPUTS, HIDDEN, "O2"), LSTM(INPUTS, HIDDEN)
    tiny.randomise(single, scale=0.5)
    return half, single, tiny.randomise(half, scale=0.5)


def outputs_of(layer):
    with tiny.execution("graph"):
        states, (hidden, cell) = layer(Tensor(SEQUENCES), (Tensor(STATE[0]), Tensor(STATE[1])))
    return states.asnumpy(), hidden.asnumpy(), cell.asnumpy()


def test_an_lstm_in_half_precision_rounds_what_comes_and_goes(layers):
    half, single, weights = layers
    states, hidden, cell = outputs_of(half)
    assert all(item.dtype == np.float32 and is_half(item) for item in (states, hidden, cell))
    assert not is_half(outputs_of(single)[0])
    halves = {name: rounded(values) for name, values in weights.items()}
    # The kernel has one bias, the sum of both.
    halves["bias_ih_l0"] = rounded(weights["bias_ih_l0"] + weights["bias_hh_l0"])
    halves["bias_hh_l0"] = 0.0
    expected = twins.lstm(halves, rounded(SEQUENCES), *rounded(STATE[:, 0]))
    np.testing.assert_allclose(states, expected, rtol=RELATIVE, atol=1e-6)
    np.testing.assert_array_equal(hidden[0], states[-1])


def test_an_lstm_in_half_precision_is_near_to_both_references(layers):
    half, single, weights = layers
    states, _, cell = outputs_of(half)
    in_numpy = lstm_in_float16(weights, SEQUENCES, *STATE[:, 0])
    np.testing.assert_allclose(states, in_numpy, atol=5e-3)
    in_single, _, single_cell = outputs_of(single)
    np.testing.assert_allclose(states, in_single, atol=3e-3)
    np.testing.assert_allclose(cell, single_cell, atol=6e-3)
    assert np.abs(states - in_single).max() > 1e-5


def test_without_a_first_state_it_is_zero(layers):
    half, _, _ = layers
    zeros = Tensor(np.zeros_like(STATE[0]))
    with tiny.execution("graph"):
        without = half(Tensor(SEQUENCES))[0].asnumpy()
        given = half(Tensor(SEQUENCES), (zeros, zeros))[0].asnumpy()
    np.testing.assert_array_equal(without, given)


def test_logits_are_products_in_half_precision():
    decoder = Decoder(12, 5, HIDDEN, 4, 0.4, "O2")
    decoder.update_parameters_name()
    weight = tiny.randomise(decoder)["vocabulary_weight"]
    states = RANDOM.normal(size=(5, HIDDEN)).astype(np.float32)

    with tiny.execution("pynative"):
        logits = decoder.logits(Tensor(states)).asnumpy()
        log_probabilities = decoder.log_probabilities(Tensor(states)).asnumpy()
    exact = rounded(states) @ rounded(weight[:, :-1]).T + rounded(weight[:, -1])
    assert logits.dtype == np.float32 and is_half(logits)
    np.testing.assert_allclose(logits, exact, rtol=RELATIVE, atol=1e-5)
    # The softmax is not in half precision.
    np.testing.assert_allclose(log_probabilities, twins.log_softmax(logits), rtol=1e-5)
    assert not is_half(log_probabilities)


@pytest.mark.parametrize(
    "way", [Decoding("greedy", max_words=6), Decoding("sample", max_words=6, top_k=3)]
)
def test_what_must_not_come_out_does_not_in_half_precision_either(way):
    """Its penalty, which float16 makes minus infinity, rides on the bias of a padded product."""
    decoder = Decoder(12, 5, HIDDEN, 4, 0.0, "O2", vocabulary_multiple=16)
    decoder.update_parameters_name()
    weight = tiny.randomise(decoder)["vocabulary_weight"].copy()
    # Without the penalty, nothing else would come.
    weight[[PAD, BEGIN, UNKNOWN], -1] = 50.0
    decoder.vocabulary_weight.set_data(Tensor(weight))
    z = RANDOM.normal(size=(6, 4)).astype(np.float32)
    texts = SentenceDecoder(decoder.set_train(False), rows=4)(z, replace(way, no_unk=True))
    words = np.concatenate(texts)
    assert len(texts) == 6 and len(words) and not np.isin(words, [PAD, BEGIN, UNKNOWN]).any()


@pytest.fixture(scope="module", params=["vae", "ivae_mi"])
def half(request):
    """A compiled step of each kind that can scale its loss, in half precision."""
    return tiny.Training(tiny.COMBINATIONS[request.param], sizes=HALF_SIZES)


def gradients(training):
    """The terms of one step, and its gradients by name: 10 times the first moments, which began at
    zero."""
    terms = training.restore(training.start).run()
    moments = {
        name.split(".moment1.")[1]: 10 * values
        for name, values in training.state().items()
        if ".moment1." in name
    }
    assert moments
    return terms, moments


def test_losses_and_gradients_are_near_to_those_of_float32(half):
    plain = tiny.training("ivae_mi" if half.system.step == "critic_then_model" else "vae")
    for name, values in half.start.items():
        if name in plain.start:
            np.testing.assert_array_equal(values, plain.start[name])
            assert values.dtype == plain.start[name].dtype
    terms, moments = gradients(half)
    assert half.step.readings() == {"loss_scale": 65536.0}, "scaled without being told"
    expected_terms, expected = gradients(plain)
    for name, value in expected_terms.items():
        assert terms[name] == pytest.approx(value, rel=2e-3, abs=2e-3), name
    assert terms["rec"] != expected_terms["rec"]
    assert moments.keys() == expected.keys()
    for name, values in expected.items():
        error = np.linalg.norm(moments[name] - values)
        assert error <= 1e-2 * np.linalg.norm(values) + 1e-7, name


def test_an_overflow_of_half_precision_is_skipped_and_counted(half):
    """A scale that float32 bears well."""
    half.restore(half.start)
    ops.assign(half.step.scaling.scale, Tensor(np.float32(2.0**24)))
    before = half.state()
    terms = half.run()
    assert np.isfinite(list(terms.values())).all()
    assert half.step.counts() == {"skipped": 1} and half.step.skipped_steps() == 1
    assert half.step.readings() == {"loss_scale": 2.0**23}
    critics = {parameter.name for parameter in half.model.divergence.get_parameters()}
    assert half.moved(before) == critics, "critics compute in float32"


def test_weights_and_moments_stay_in_float32(half):
    half.restore(half.start)
    for index in range(3):
        half.run(index)
    kinds = {str(parameter.dtype) for parameter in half.step.get_parameters()}
    assert kinds == {"Float32", "Int32"}
    weights = half.state()
    for name in ("decoder.lstm.weight_hh_l0", "decoder.vocabulary_weight"):
        assert not is_half(weights[name]), f"{name} has more digits than a half"


def test_weights_of_one_level_load_under_the_other(half):
    half.restore(half.start)
    half.run()
    saved = {parameter.name: parameter.asnumpy() for parameter in half.step.get_parameters()}
    single = build_model(half.system, tiny.SIZES, tiny.VOCABULARY, 1)
    loading.restore(single, saved, "a checkpoint")
    for parameter in single.get_parameters():
        np.testing.assert_array_equal(parameter.asnumpy(), saved[parameter.name])


def test_a_run_in_half_precision_is_evaluated_at_both_levels(tmp_path):
    run = write_run(tmp_path, "ae", "model.amp_level=O2")
    metrics = {}
    for level in ("O2", "O0"):
        argv = ["--run", str(run), *(["--amp_level", "O0"] if level == "O0" else [])]
        assert eval_main(argv) == 0
        metrics[level] = json.loads((run / "metrics-test.json").read_text())
        assert metrics[level]["amp_level"] == level
    assert metrics["O2"]["rec"] != metrics["O0"]["rec"]
    assert metrics["O2"]["rec"] == pytest.approx(metrics["O0"]["rec"], rel=2e-3)
