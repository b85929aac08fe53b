"""Logits padded to a multiple: no number may change but by rounding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
from mindspore import Tensor

from mindspore_cvae.audit import graphs
from mindspore_cvae.evaluation.scoring import Likelihood
from mindspore_cvae.generation.decoding import SentenceDecoder, prior_codes
from mindspore_cvae.generation.ways import Decoding
from mindspore_cvae.model.building import build_model
from mindspore_cvae.model.networks import Decoder
from mindspore_cvae.model.refinement import Descent

PADDED = replace(tiny.SIZES, vocabulary_multiple=16)
"""24 words become 32 columns, and 8 + 1 inputs become 16."""


def decoders():
    """The same decoder without padding and with."""
    sizes = tiny.VOCABULARY, 6, 8, 4, 0.4
    pair = Decoder(*sizes), Decoder(*sizes, vocabulary_multiple=16)
    for decoder in pair:
        decoder.update_parameters_name()
        weights = tiny.randomise(decoder, scale=0.8)
    return pair, weights


def test_padded_columns_have_probability_zero_and_parameters_are_as_ever():
    (plain, padded), _ = decoders()
    states = Tensor(np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32))
    with tiny.execution("pynative"):
        expected, inner = plain.logits(states).asnumpy(), padded.logits(states).asnumpy()
        logits = padded.word_likelihood.logits(*padded.factors(states)).asnumpy()
        assert plain.factors(states)[1].shape == (24, 9)
    assert logits.shape == (5, 32)
    np.testing.assert_allclose(logits[:, :24], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(inner, logits[:, :24])
    assert (np.exp(logits[:, 24:] - logits.max(1, keepdims=True)) == 0).all()
    shapes = [
        {name: parameter.shape for name, parameter in decoder.parameters_dict().items()}
        for decoder in (plain, padded)
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("amp_level", ["O0", pytest.param("O2", marks=pytest.mark.slow)])
def test_training_with_padding_gives_the_same_losses_and_gradients(amp_level):
    plain = tiny.training("vae")
    if amp_level == "O2":
        plain = tiny.Training(plain.system, sizes=replace(tiny.SIZES, amp_level="O2"))
    padded = tiny.Training(plain.system, sizes=replace(PADDED, amp_level=amp_level))
    plain.restore(plain.start)
    for index in range(2):
        assert padded.run(index) == pytest.approx(plain.run(index), rel=2e-5, abs=1e-6)
    moments = {name: values for name, values in plain.state().items() if ".moment1." in name}
    tolerance = {"O0": 1e-5, "O2": 2e-3}[amp_level]
    assert moments
    for name, values in moments.items():
        error = np.linalg.norm(padded.state()[name] - values)
        assert error <= tolerance * np.linalg.norm(values) + 1e-8, name


@pytest.mark.parametrize(
    "way",
    [
        Decoding("greedy", max_words=6),
        Decoding("sample", max_words=6, temperature=1000.0),
        Decoding("sample", max_words=6, top_k=100, top_p=0.9),
        Decoding("beam", max_words=6, beam_size=3),
    ],
    ids=lambda way: f"{way.method} {way.top_k or ''}",
)
def test_decoding_with_padding_gives_the_same_sentences(way):
    (plain, padded), _ = decoders()
    z = prior_codes(8, 4, seed=3)
    with tiny.execution("graph"):
        texts = [
            [text.tolist() for text in SentenceDecoder(decoder, 8)(z, way, seed=1)]
            for decoder in (plain, padded)
        ]
    assert texts[0] == texts[1]
    assert max(max(text, default=0) for text in texts[0]) < tiny.VOCABULARY
    assert len({tuple(text) for text in texts[0]}) > 1


def test_refinement_and_weights_of_importance_are_the_same_with_padding():
    """Both go through the decoder's likelihood: one by its gradient at z, one by many draws."""
    random = np.random.default_rng(1)
    system = tiny.COMBINATIONS["sa_vae"]
    rows = len(tiny.TOKENS)
    parameters, velocity = random.normal(size=(2, rows, 8)).astype(np.float32)
    noise = random.normal(size=(rows, 4)).astype(np.float32)
    draws = random.normal(size=(rows, 3, 4)).astype(np.float32)
    results = []
    for sizes in (tiny.SIZES, PADDED):
        model = build_model(system, sizes, tiny.VOCABULARY, 0)
        tiny.randomise(model, scale=0.8)
        descent, likelihood = Descent(model), Likelihood(model).set_train(False)
        with tiny.execution("graph"):
            arguments = [parameters, velocity, noise, tiny.TOKENS, np.float32(0.5), None, None]
            moved = descent(*tiny.tensors(arguments))
            nll = likelihood(Tensor(tiny.TOKENS), Tensor(draws))
        results.append([item.asnumpy() for item in (*moved, nll)])
    for plain, padded in zip(*results, strict=True):
        np.testing.assert_allclose(padded, plain, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("device, columns", [("CPU", 24), ("GPU", 24), ("Ascend", 32)])
def test_a_device_has_logits_as_it_wants_them(device, columns):
    with graphs.pretended(device):
        decoder = build_model(tiny.COMBINATIONS["lstm_lm"], tiny.SIZES, 24, 0).decoder
    assert decoder.vocabulary_size + decoder.more_words == columns
    assert decoder.vocabulary_weight.shape == (24, 9)
