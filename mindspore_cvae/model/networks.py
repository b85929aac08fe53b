"""Encoder x -> h, decoder (x, z) -> -log p(x|z), critics: the networks that the systems share.

Sequences run time-major inside (the layout of the recurrent kernels, no transposed copies of large
tensors); token ids come in batch-major, as (N, T + 1) rows ``<s> w_1 ... w_n </s> <pad> ...``.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from mindspore_cvae.model import objectives

PAD = 0
"""Id of ``<pad>``: marks the positions after ``</s>``."""
LEAKY_SLOPE = 0.01
NO_WORD = -1e4
"""Logit of a column that stands for no word: finite in float16, and of probability 0 in float32."""


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


class LSTM(nn.LSTM):
    """A recurrent layer: float32 in and out, time-major, whatever computes it.

    MindSpore's layer is LSTM on CPU (oneDNN) and GPU (cuDNN), and DynamicRNN on Ascend. In half
    precision it gets inputs, states and weights in float16, and gives outputs and states in
    float16; its parameters, and so their gradients, are float32. DynamicRNN computes in float16
    either way. The CPU has no such kernel: MindSpore casts what comes and goes around the one of
    float32, so that inputs, first states, weights and outputs are rounded, but not what goes from
    one position to the next inside.

    Args:
        inputs, hidden_size: widths.
        amp_level: ``O0`` for float32, ``O2`` for half precision.
    """

    def __init__(self, inputs: int, hidden_size: int, amp_level: str = "O0"):
        super().__init__(inputs, hidden_size)
        self.is_half = amp_level == "O2"

    def construct(self, inputs: Tensor, state=None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """inputs (T, N, I), hidden and cell state (1, N, H) each or None for zeros -> outputs
        (T, N, H), state after the last position."""
        if state is None:
            zeros = ops.zeros((inputs.shape[1], self.hidden_size), inputs.dtype)
            hidden, cell = zeros, zeros
        else:
            # Not state[0][0]: on CPU a slice takes a millisecond, a third of a decoded word.
            hidden, cell = state[0].squeeze(0), state[1].squeeze(0)
        if self.is_half:
            inputs = inputs.astype(ms.float16)
            hidden, cell = hidden.astype(ms.float16), cell.astype(ms.float16)
        # The one layer of nn.LSTM, whose own construct would slice each layer's state out of all.
        outputs, last = self.rnn(
            inputs,
            (hidden, cell),
            None,
            self.w_ih_list[0],
            self.w_hh_list[0],
            self.b_ih_list[0],
            self.b_hh_list[0],
        )
        shape = (1, inputs.shape[1], self.hidden_size)
        hidden, cell = last[0].reshape(shape), last[1].reshape(shape)
        return outputs.astype(ms.float32), (hidden.astype(ms.float32), cell.astype(ms.float32))


class Encoder(nn.Cell):
    """h = the last LSTM state of a sentence, at ``</s>`` (Section 3.2)."""

    def __init__(
        self,
        vocabulary_size: int,
        embedding_size: int,
        hidden_size: int,
        dropout_rate: float,
        amp_level: str = "O0",
    ):
        super().__init__()
        self.dropout_rate = dropout_rate
        self.embedding = Embedding(vocabulary_size, embedding_size)
        self.lstm = LSTM(embedding_size, hidden_size, amp_level)

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

    def construct(self, tokens: Tensor, random_bytes=None) -> Tensor:
        """tokens (N, T + 1) -> (N, 1)."""
        return ops.zeros((tokens.shape[0], 1), ms.float32)


class WordLikelihood(nn.Cell):
    """-log p(word) of rows of states under a softmax, with a gradient of its own.

    With logits a = S W^T and p = softmax(a), of the words w, the likeliest words r = argmax p and
    incoming gradients g:

        nll_i = -log p_{i, w_i} = a_{i, r_i} - a_{i, w_i} - log p_{i, r_i},
        d nll_i / d a_i = p_i - onehot(w_i),
        dS_i = g_i (p W - W_w)_i,   dW = p^T (g S) - sum_i onehot(w_i) (g S)_i

    What MindSpore derives instead passes over the logits three times more, and on a processor
    without AVX-512 takes a gradient of log-softmax that is no vector code: a quarter of a step.
    Here p is made once, for the value and for the gradient; the way over r, of which p is 1 / V at
    least, is exact where p of w is below the least number of float32; and g is multiplied into
    states, which are much smaller than logits.

    Args:
        amp_level: ``O0``; or ``O2``, which computes the products in float16.
    """

    def __init__(self, amp_level: str = "O0"):
        super().__init__()
        self.is_half = amp_level == "O2"
        # Products with flags make no transposed copies of their factors.
        self.times = ops.MatMul()
        self.times_transposed = ops.MatMul(transpose_b=True)
        self.transposed_times = ops.MatMul(transpose_a=True)
        # Three times as fast on a CPU as the greatest values alone.
        self.likeliest = ops.ArgMaxWithValue(axis=1)

    def product(self, multiply, left: Tensor, right: Tensor) -> Tensor:
        """The product in the precision of ``amp_level``, in float32."""
        if self.is_half:
            return multiply(left.astype(ms.float16), right.astype(ms.float16)).astype(ms.float32)
        return multiply(left, right)

    def logits(self, states: Tensor, weight: Tensor) -> Tensor:
        """a = S W^T: (M, H), (V, H) -> (M, V)."""
        return self.product(self.times_transposed, states, weight)

    def construct(self, states: Tensor, weight: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """S (M, H), W (V, H), words (M,) int32 -> nll (M,), p (M, V); the gradient is the
        nll's, and p is there to be read."""
        logits = self.logits(states, weight)
        probabilities = ops.softmax(logits, -1)
        likeliest, probability = self.likeliest(probabilities)
        nll = objectives.word_negative_log_likelihood(logits, words, likeliest, probability)
        return nll, probabilities

    def bprop(self, states, weight, words, results, gradients) -> tuple[Tensor, Tensor, Tensor]:
        """dS, dW and, of the words, zeros."""
        probabilities, g = results[1], gradients[0].expand_dims(1)
        weighted = g * states
        expected = self.product(self.times, probabilities, weight)
        at_states = g * (expected - ops.gather(weight, words, 0))
        at_weight = ops.tensor_scatter_add(
            self.product(self.transposed_times, probabilities, weighted),
            words.reshape(-1, 1),
            -weighted,
        )
        return at_states, at_weight, ops.zeros_like(words)


class Decoder(nn.Cell):
    """p(x|z): an LSTM that reads [previous word ; z] and starts from a linear map of z (Section
    3.1).

    Args:
        vocabulary_size, embedding_size, hidden_size, latent_size: V, E, H, Z.
        dropout_rate: of embedded words and of the LSTM's outputs.
        amp_level: ``O0``; or ``O2``, which computes LSTM and logits in float16.
        vocabulary_multiple: to multiples of which the sizes of the logits' product are padded.
    """

    def __init__(
        self,
        vocabulary_size: int,
        embedding_size: int,
        hidden_size: int,
        latent_size: int,
        dropout_rate: float,
        amp_level: str = "O0",
        vocabulary_multiple: int = 1,
    ):
        super().__init__()
        self.dropout_rate = dropout_rate
        self.amp_level = amp_level
        self.vocabulary_size = vocabulary_size
        self.embedding = Embedding(vocabulary_size, embedding_size)
        self.initial_hidden = nn.Dense(latent_size, hidden_size, has_bias=False)
        self.lstm = LSTM(embedding_size + latent_size, hidden_size, amp_level)
        # The last column is the bias: folded into the product, it saves a pass over the logits.
        self.vocabulary_weight = Parameter(np.zeros((vocabulary_size, hidden_size + 1), np.float32))
        self.word_likelihood = WordLikelihood(amp_level)
        # Padding is made in the graph: parameters have the same shapes on every device.
        self.more_words = -vocabulary_size % vocabulary_multiple
        self.more_columns = -(hidden_size + 1) % vocabulary_multiple
        no_words = np.zeros((self.more_words, hidden_size + 1 + self.more_columns), np.float32)
        no_words[:, hidden_size] = NO_WORD
        self.no_words = Tensor(no_words) if self.more_words else None

    def initial_state(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z (N, Z) -> hidden and cell state of the first step, each (1, N, H)."""
        hidden = self.initial_hidden(z).expand_dims(0)
        return hidden, ops.zeros_like(hidden)

    def inputs(self, embedded: Tensor, z: Tensor) -> Tensor:
        """What the LSTM reads: embedded words (T, N, E), z (N, Z) -> (T, N, E + Z)."""
        each_step = ops.broadcast_to(z, (embedded.shape[0], z.shape[0], z.shape[1]))
        return ops.concat((embedded, each_step), 2)

    def factors(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """LSTM outputs (M, H) -> the factors (M, H'), (V', H') of the logits."""
        return self.with_ones(states), self.output_weight()

    def with_ones(self, states: Tensor) -> Tensor:
        """The first factor: (M, H) with a column more for the bias, and columns that pad it."""
        states = ops.concat((states, ops.ones((states.shape[0], 1), states.dtype)), 1)
        return self.widened(states) if self.more_columns else states

    def output_weight(self, penalty: Tensor | None = None) -> Tensor:
        """The second factor, (V', H'): columns and rows that pad it, of which rows have
        probability 0.

        Args:
            penalty: (V,), added to the logits of the words by way of the bias; None for none.
        """
        weight = self.vocabulary_weight
        if penalty is not None:
            hidden = weight.shape[1] - 1
            biases = weight[:, hidden:] + penalty.expand_dims(1)
            weight = ops.concat((weight[:, :hidden], biases), 1)
        if self.more_columns:
            weight = self.widened(weight)
        if self.more_words:
            weight = ops.concat((weight, self.no_words))
        return weight

    def widened(self, matrix: Tensor) -> Tensor:
        """(M, H + 1) with columns of zeros up to the multiple."""
        zeros = ops.zeros((matrix.shape[0], self.more_columns), matrix.dtype)
        return ops.concat((matrix, zeros), 1)

    def logits(self, states: Tensor, weight: Tensor | None = None) -> Tensor:
        """LSTM outputs (M, H) -> log p(word) up to a constant a row, (M, V); by a weight of
        :meth:`output_weight`, which a loop makes once."""
        if weight is None:
            weight = self.output_weight()
        logits = self.word_likelihood.logits(self.with_ones(states), weight)
        if self.more_words:
            logits = logits[:, : self.vocabulary_size]
        return logits

    def log_probabilities(self, states: Tensor) -> Tensor:
        """LSTM outputs (M, H) -> log p(word) (M, V)."""
        return ops.log_softmax(self.logits(states), -1)

    def advance(self, words: Tensor, z: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        """Reads a word of each row: words (N,), z (N, Z), state -> LSTM output (N, H), state."""
        inputs = self.inputs(self.embedding(words).expand_dims(0), z)
        outputs, state = self.lstm(inputs, state)
        return outputs.squeeze(0), state

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
        factors = self.factors(states.reshape(-1, states.shape[-1]))
        nll, _ = self.word_likelihood(*factors, targets.reshape(-1))
        mask = (targets != PAD).astype(nll.dtype)
        return objectives.sentence_negative_log_likelihood(nll.reshape(targets.shape), mask)


class LanguageModel(Decoder):
    """p(x): the decoder without a latent variable. z is ignored, and the first state is zero."""

    def __init__(
        self,
        vocabulary_size: int,
        embedding_size: int,
        hidden_size: int,
        latent_size: int,
        dropout_rate: float,
        amp_level: str = "O0",
        vocabulary_multiple: int = 1,
    ):
        super().__init__(
            vocabulary_size,
            embedding_size,
            hidden_size,
            latent_size,
            dropout_rate,
            amp_level,
            vocabulary_multiple,
        )
        del self.initial_hidden
        self.lstm = LSTM(embedding_size, hidden_size, amp_level)

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
