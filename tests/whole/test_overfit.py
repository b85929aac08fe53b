"""Every family of posteriors can learn eight sentences by heart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
from mindspore import Tensor, nn

SENTENCES = [
    [4, 5, 6, 7],
    [8, 9],
    [10, 4, 11],
    [12],
    [13, 6, 8, 10],
    [5, 11, 11],
    [9, 12, 7],
    [4, 13, 5, 6],
]
TOKENS = tiny.rows(SENTENCES, 5)
WEIGHT = np.ones(len(SENTENCES), np.float32)
SIZES = replace(tiny.SIZES, embedding_size=16, hidden_size=32, latent_size=8, decoder_dropout=0.0)
TRAINING = replace(tiny.TRAINING, learning_rate=1e-2, critic_learning_rate=1e-3, clip_norm=5.0)

FAMILIES = {
    "deterministic": tiny.combination("ae"),
    "gaussian": tiny.combination("vae"),
    "affine": tiny.combination("ivae"),
    "mlp": tiny.combination("ivae_mi", posterior="mlp"),
}
FAST = ("gaussian", "affine")


class Step(nn.Cell):
    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder

    def construct(self, words, z, hidden, cell):
        log_probabilities, (hidden, cell) = self.decoder.step(words, z, (hidden, cell))
        return log_probabilities.argmax(-1), hidden, cell


def read_back(training, noise):
    """What greedy decoding makes of each sentence's code, as rows like TOKENS."""
    model = training.model.set_train(False)
    with tiny.execution("pynative"):
        _, _, z = model.encode(tiny.tensors([TOKENS, None, noise.posterior]))
        hidden, cell = model.decoder.initial_state(z)
    words = np.full(len(TOKENS), tiny.START, np.int32)
    result, ended = [words], np.zeros(len(TOKENS), bool)
    step = Step(model.decoder)
    with tiny.execution("graph"):
        for _ in range(TOKENS.shape[1] - 1):
            predicted, hidden, cell = step(Tensor(words), z, hidden, cell)
            words = np.where(ended, tiny.PAD, predicted.asnumpy()).astype(np.int32)
            ended |= words == tiny.END
            result.append(words)
    return np.stack(result, 1)


@pytest.mark.parametrize(
    "family",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES],
)
def test_eight_sentences_are_reconstructed_exactly(family):
    assert FAMILIES[family].posterior == family
    training = tiny.Training(FAMILIES[family], SIZES, TRAINING, vocabulary=14)
    losses = []
    while not losses or np.mean(losses[-20:]) > 0.05:
        assert len(losses) < 600, f"{np.mean(losses[-20:]):.2f} nats a sentence are left"
        losses.append(training.run(len(losses), TOKENS, WEIGHT, beta=0.001)["rec"])
    # Codes drawn with noise that no step has seen.
    np.testing.assert_array_equal(read_back(training, training.noise(10_000, TOKENS)), TOKENS)
