"""Semi-amortized training: the posterior is refined, and the gradient goes back through it."""

from __future__ import annotations

from mindspore import ParameterTuple, Tensor, nn, ops

from mindspore_cvae.model.refinement import Descent, ReversedDescent
from mindspore_cvae.training.steps.updates import (
    Clipping,
    TrainingStep,
    by_reader,
    clip,
    clip_groups,
)


class EncoderPass(nn.Cell):
    """Encoder inputs (V N, T + 1), bytes of its dropout or None, targets of all processes ->
    h (V N, H), statistics of q(z|x) (V N, P), own targets of every view (V N, T + 1)."""

    def __init__(self, model: nn.Cell):
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, encoder_tokens: Tensor, encoder_bytes, tokens: Tensor) -> tuple:
        h = self.model.encoder(encoder_tokens, encoder_bytes)
        own = self.model.ranks.own(tokens)
        return h, self.model.posterior(h), ops.tile(own, (self.model.views, 1))


class CodesGradients(nn.Cell):
    """The terms of a batch, given h and the statistics of q(z|x), and the gradients of its loss
    with respect to both and to the decoder.

    Args:
        model: a :class:`model.equation.LatentVariableModel` without critics.
        weights: parameters of the decoder.
    """

    def __init__(self, model: nn.Cell, weights: ParameterTuple):
        super().__init__(auto_prefix=False)
        self.model = model
        self.value_and_grad = ops.value_and_grad(self.forward, (0, 1), weights, has_aux=True)

    def forward(self, h, statistics, noise, *batch):
        """The model's objective of z drawn from q(z|x)."""
        z = self.model.posterior.sample(statistics, noise)
        return self.model.objective((h, statistics, z), *batch)

    def construct(
        self,
        h: Tensor,
        statistics: Tensor,
        noise: Tensor,
        tokens: Tensor,
        weight: Tensor,
        beta: Tensor,
        *loss_noise,
    ) -> tuple:
        """-> (:data:`STEP_TERMS`, at h, at the statistics of q(z|x), at each of the decoder's)."""
        (loss, reconstruction, divergence, contrast), gradients = self.value_and_grad(
            h, statistics, noise, (tokens, weight), beta, None, loss_noise
        )
        none = ops.zeros_like(loss)
        terms = ops.stack((loss, reconstruction, divergence, contrast, none, none))
        (at_h, at_statistics), at_decoder = gradients
        return (terms, at_h, at_statistics, *self.model.ranks.add(at_decoder))


class EncoderUpdate(nn.Cell):
    """Pulls gradients at h and at the statistics of q(z|x) back through the encoder, and updates
    encoder and decoder.

    Args:
        model: a :class:`model.equation.LatentVariableModel`.
        optimizer, clipping: see :class:`JointStep`.
    """

    def __init__(
        self,
        model: nn.Cell,
        optimizer: nn.Optimizer,
        clipping: Clipping,
    ):
        super().__init__(auto_prefix=False)
        self.model = model
        self.optimizer = optimizer
        self.groups, self.clip_norm = clipping
        decoder_parameters = len(model.decoder.trainable_params())
        self.encoder_weights = ParameterTuple(optimizer.parameters[:-decoder_parameters])

    def encode(self, tokens, noise):
        """h and the statistics of q(z|x); None may stand in a tuple, not as an argument of vjp."""
        (encoder_bytes,) = noise
        h = self.model.encoder(tokens, encoder_bytes)
        return h, self.model.posterior(h)

    def construct(
        self,
        encoder_tokens: Tensor,
        encoder_bytes,
        at_h: Tensor,
        at_statistics: Tensor,
        *at_decoder,
    ):
        _codes, pull_back = ops.vjp(
            self.encode, encoder_tokens, (encoder_bytes,), weights=self.encoder_weights
        )
        at_encoder = self.model.ranks.add(pull_back((at_h, at_statistics))[-1])
        gradients = at_encoder + at_decoder
        return self.optimizer(clip_groups(gradients, self.groups, self.clip_norm))


class SemiAmortizedStep(TrainingStep, nn.Cell):
    """One update of all parameters through the refinement of the posterior (Kim et al. 2018,
    Algorithm 1): the encoder gives the start, SVI refines it, the loss is taken at its end, and the
    gradient comes back through every step of SVI to encoder and decoder.

    Each step of SVI draws z anew, and so does the loss, from the noise of the training step; the
    dropout of the decoder is the same throughout.

    Args:
        model: a :class:`model.equation.LatentVariableModel` with a Gaussian posterior.
        optimizer, clipping: see :class:`JointStep`.
    """

    def __init__(
        self,
        model: nn.Cell,
        optimizer: nn.Optimizer,
        clipping: Clipping,
    ):
        super().__init__(auto_prefix=False)
        self.network = model
        decoder_parameters = len(model.decoder.trainable_params())
        decoder_weights = ParameterTuple(optimizer.parameters[-decoder_parameters:])
        self.encode = EncoderPass(model)
        self.descend = Descent(model)
        self.at_end = CodesGradients(model, decoder_weights)
        self.return_through = ReversedDescent(model, decoder_weights, clip)
        self.update = EncoderUpdate(model, optimizer, clipping)

    def __call__(self, tokens: Tensor, weight: Tensor, beta: Tensor, *noise) -> Tensor:
        terms, *gradients = self.gradients(tokens, weight, beta, *noise)
        encoder_tokens, encoder_bytes, *_ = noise
        self.update(encoder_tokens, encoder_bytes, *gradients)
        return terms

    def gradients(self, tokens: Tensor, weight: Tensor, beta: Tensor, *noise) -> list[Tensor]:
        """:data:`STEP_TERMS`, then the gradients at h, at the encoder's statistics of q(z|x), and
        at each of the decoder's parameters; the posterior's noise is (S + 1, V N, Z)."""
        (encoder_tokens, encoder_bytes, posterior), _prior, loss_noise = by_reader(noise)
        h, statistics, every_view = self.encode(encoder_tokens, encoder_bytes, tokens)
        shared = (every_view, beta, *loss_noise[1:])
        *steps, last = (posterior[number] for number in range(len(posterior)))
        velocity, visited = ops.zeros_like(statistics), []
        for draw in steps:
            visited.append((statistics, draw))
            statistics, velocity = self.descend(statistics, velocity, draw, *shared)
        terms, at_h, at_statistics, *at_decoder = self.at_end(
            h, statistics, last, tokens, weight, beta, *loss_noise
        )
        gradients = (at_statistics, ops.zeros_like(statistics), *at_decoder)
        for statistics, draw in reversed(visited):
            gradients = self.return_through(statistics, draw, *shared, *gradients)
        at_statistics, _at_velocity, *at_decoder = gradients
        return [terms, at_h, at_statistics, *at_decoder]
