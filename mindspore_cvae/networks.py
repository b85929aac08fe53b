"""Encoder x -> h, decoder (x, z) -> -log p(x|z), critics: the networks that the systems share.

Sequences run time-major inside (the layout of the recurrent kernels, no transposed copies of large
tensors); token ids come in batch-major, as (N, T + 1) rows ``<s> w_1 ... w_n </s> <pad> ...``.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from mindspore_cvae import objectives

PAD = 0
"""Id of ``<pad>``: marks the positions after ``</s>``."""
LEAKY_SLOPE = 0.01


def leaky_relu(x: Tensor) -> Tensor:
    """max(x, 0.01 x), written with relu because that runs 1.6 times as fast on CPU."""
    return LEAKY_SLOPE * x + (1.0 - LEAKY_SLOPE) * ops.relu(x)


class LeakyReLU(nn.Cell):
    """:func:`leaky_relu` as a layer."""

    def construct(self, x: Tensor) -> Tensor:
        return leaky_relu(x)


def multilayer_perceptron(
    inputs: int, layer_size: int, layers: int, outputs: int, activation=LeakyReLU
) -> nn.SequentialCell:
    """``layers`` hidden layers of ``layer_size``, each followed by the activation, then a linear
    one."""
    cells: list[nn.Cell] = []
    for _ in range(layers):
        cells += [nn.Dense(inputs, layer_size), activation()]
        inputs = layer_size
    return nn.SequentialCell(*cells, nn.Dense(inputs, outputs))


def dropout_threshold(rate: float) -> int:
    """The rate as a number of 256ths: a random byte below it is dropped (0.3 becomes 77/256).

    At most 255, so that a rate below 1 never drops everything.
    """
    return min(round(rate * 256), 255)


def dropout(x: Tensor, random_bytes, rate: float) -> Tensor:
    """Inverted dropout with randomness that comes in as an argument.

    Args:
        x: any shape.
        random_bytes: uint8 of the shape of x, uniform in 0 ... 255; None switches dropout off.
        rate: chance of being dropped, taken in steps of 1/256.
    """
    threshold = dropout_threshold(rate)
    if random_bytes is None or threshold == 0:
        return x
    kept = (random_bytes >= Tensor(threshold, ms.uint8)).astype(x.dtype)
    return x * (kept * (256.0 / (256 - threshold)))


class Embedding(nn.Cell):
    """Word vectors: ids of any shape -> (..., size)."""

    def __init__(self, vocabulary_size: int, size: int):
        super().__init__()
        self.weight = Parameter(np.zeros((vocabulary_size, size), np.float32))

    def construct(self, ids: Tensor) -> Tensor:
        return ops.gather(self.weight, ids, 0)


class Encoder(nn.Cell):
    """h = the last LSTM state of a sentence, at ``</s>`` (Section 3.2)."""

    def __init__(
        self, vocabulary_size: int, embedding_size: int, hidden_size: int, dropout_rate: float
    ):
        super().__init__()
        self.dropout_rate = dropout_rate
        self.embedding = Embedding(vocabulary_size, embedding_size)
        self.lstm = nn.LSTM(embedding_size, hidden_size)

    def construct(self, tokens: Tensor, random_bytes=None) -> Tensor:
        """tokens (N, T + 1), random_bytes (T + 1, N, E) or None for no dropout -> h (N, H)."""
        sentences = tokens.shape[0]
        embedded = dropout(self.embedding(tokens.T), random_bytes, self.dropout_rate)
        states, _ = self.lstm(embedded)
        # Padding is on the right, so the state at </s> has seen the sentence and nothing else.
        last = ops.relu((tokens != PAD).astype(ms.int32).sum(1) - 1)
        rows = last * sentences + ops.arange(sentences).astype(ms.int32)
        return ops.gather(states.reshape(-1, states.shape[-1]), rows, 0)


class NoEncoder(nn.Cell):
    """h = 0, for a model that encodes nothing; no parameters."""

    def __init__(self, *unused):
        super().__init__()

    def construct(self, tokens: Tensor, random_bytes=None) -> Tensor:
        """tokens (N, T + 1) -> (N, 1)."""
        return ops.zeros((tokens.shape[0], 1), ms.float32)


class Decoder(nn.Cell):
    """p(x|z): an LSTM that reads [previous word ; z] and starts from a linear map of z (Section
    3.1)."""

    def __init__(
        self,
        vocabulary_size: int,
        embedding_size: int,
        hidden_size: int,
        latent_size: int,
        dropout_rate: float,
    ):
        super().__init__()
        self.dropout_rate = dropout_rate
        self.embedding = Embedding(vocabulary_size, embedding_size)
        self.initial_hidden = nn.Dense(latent_size, hidden_size, has_bias=False)
        self.lstm = nn.LSTM(embedding_size + latent_size, hidden_size)
        # The last column is the bias: folded into the product, it saves a pass over the logits.
        self.vocabulary_weight = Parameter(np.zeros((vocabulary_size, hidden_size + 1), np.float32))
        # Unlike a product with weight.T, it makes no transposed copy of the weight.
        self.times_transposed = ops.MatMul(transpose_b=True)

    def initial_state(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z (N, Z) -> hidden and cell state of the first step, each (1, N, H)."""
        hidden = self.initial_hidden(z).expand_dims(0)
        return hidden, ops.zeros_like(hidden)

    def inputs(self, embedded: Tensor, z: Tensor) -> Tensor:
        """What the LSTM reads: embedded words (T, N, E), z (N, Z) -> (T, N, E + Z)."""
        each_step = ops.broadcast_to(z, (embedded.shape[0], z.shape[0], z.shape[1]))
        return ops.concat((embedded, each_step), 2)

    def logits(self, states: Tensor) -> Tensor:
        """LSTM outputs (M, H) -> log p(word) up to a constant a row, (M, V)."""
        ones = ops.ones((states.shape[0], 1), states.dtype)
        return self.times_transposed(ops.concat((states, ones), 1), self.vocabulary_weight)

    def log_probabilities(self, states: Tensor) -> Tensor:
        """LSTM outputs (M, H) -> log p(word) (M, V)."""
        return ops.log_softmax(self.logits(states), -1)

    def advance(self, words: Tensor, z: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        """Reads a word of each row: words (N,), z (N, Z), state -> LSTM output (N, H), state."""
        inputs = self.inputs(self.embedding(words).expand_dims(0), z)
        outputs, state = self.lstm(inputs, state)
        return outputs[0], state

    def step(self, words: Tensor, z: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        """One word of each row: words (N,), z (N, Z), state -> log p(next word) (N, V), state."""
        outputs, state = self.advance(words, z, state)
        return self.log_probabilities(outputs), state

    def construct(
        self, tokens: Tensor, z: Tensor, embedding_bytes=None, output_bytes=None
    ) -> Tensor:
        """-log p(x|z) of every row.

        Args:
            tokens: (N, T + 1).
            z: (N, Z).
            embedding_bytes: (T, N, E) random bytes, or None for no dropout.
            output_bytes: (T, N, H) random bytes, or None for no dropout.

        Returns:
            (N,) nats a sentence.
        """
        previous, targets = tokens[:, :-1].T, tokens[:, 1:].T
        embedded = dropout(self.embedding(previous), embedding_bytes, self.dropout_rate)
        states, _ = self.lstm(self.inputs(embedded, z), self.initial_state(z))
        states = dropout(states, output_bytes, self.dropout_rate)
        log_probabilities = self.log_probabilities(states.reshape(-1, states.shape[-1]))
        mask = (targets != PAD).astype(log_probabilities.dtype)
        return objectives.sentence_negative_log_likelihood(log_probabilities, targets, mask)


class LanguageModel(Decoder):
    """p(x): the decoder without a latent variable. z is ignored, and the first state is zero."""

    def __init__(
        self,
        vocabulary_size: int,
        embedding_size: int,
        hidden_size: int,
        latent_size: int,
        dropout_rate: float,
    ):
        super().__init__(vocabulary_size, embedding_size, hidden_size, latent_size, dropout_rate)
        del self.initial_hidden
        self.lstm = nn.LSTM(embedding_size, hidden_size)

    def initial_state(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Of as many rows as z has: zeros, each (1, N, H)."""
        zeros = ops.zeros((1, z.shape[0], self.lstm.hidden_size), z.dtype)
        return zeros, zeros

    def inputs(self, embedded: Tensor, z: Tensor) -> Tensor:
        """The embedded words alone."""
        return embedded


class Critic(nn.Cell):
    """The auxiliary function of the dual form: f(x, z) reads [z ; h], g(z) reads z (Eq. 3 and
    7)."""

    def __init__(self, inputs: int, layer_size: int, layers: int):
        super().__init__()
        self.layers = multilayer_perceptron(inputs, layer_size, layers, 1)

    def construct(self, inputs: Tensor) -> Tensor:
        """(N, inputs) -> (N,)."""
        return self.layers(inputs).squeeze(1)
