"""Algorithm 1: the critics' updates, then the model's."""

from __future__ import annotations

import mindspore as ms
from mindspore import ParameterTuple, Tensor, nn, ops

from mindspore_cvae.training.scaling import Scaling
from mindspore_cvae.training.steps.joint import JointStep
from mindspore_cvae.training.steps.updates import Clipping, by_reader


class CriticThenModel(JointStep):
    """Algorithm 1: updates of the critics on fixed codes (it writes one), then one of the model.

    The sentence is encoded once: the critics read its codes as constants, and the encoder's
    gradient is pulled back through the same pass once the model's gradient at the codes is known.

    The critics' updates are a loop of the graph. What stands in a branch or a loop alone, as their
    moments do, does not see a later ``set_data`` in MindSpore 2.10: values are put into parameters
    with ``ops.assign``, which writes in place.

    Args:
        model, optimizer, clipping, scaling: see :class:`JointStep`.
        critic_optimizer: of both critics.
        critic_updates: updates of the critics a step.
    """

    def __init__(
        self,
        model: nn.Cell,
        optimizer: nn.Optimizer,
        clipping: Clipping,
        scaling: Scaling,
        critic_optimizer: nn.Optimizer,
        critic_updates: int,
    ):
        super().__init__(model, optimizer, clipping, scaling)
        self.critic_optimizer = critic_optimizer
        self.critic_updates = critic_updates
        decoder_parameters = len(model.decoder.trainable_params())
        self.encoder_weights = ParameterTuple(self.weights[:-decoder_parameters])
        self.decoder_weights = ParameterTuple(self.weights[-decoder_parameters:])
        self.critic_value_and_grad = ops.value_and_grad(
            self.critic_forward, None, critic_optimizer.parameters, has_aux=True
        )
        self.codes_value_and_grad = ops.value_and_grad(
            self.codes_forward, (0, 1, 2), self.decoder_weights, has_aux=True
        )

    def encode(self, tokens, views):
        """The model's ``encode``; vjp wants a Tensor before the tuple."""
        return self.network.encode(views)

    def critic_forward(self, h, z, prior, weight):
        """Both critics' losses: (their sum, scaled; joint, marginal)."""
        joint, marginal = self.network.divergence.critic_losses(h, z, prior, weight)
        return self.scaling.scaled(joint + marginal), joint, marginal

    def codes_forward(self, h, statistics, z, *batch):
        """The model's terms given the codes, and before them what the gradient is taken of.

        PyNative mode takes no gradient at a tuple, so the codes come one by one.
        """
        terms = self.network.objective((h, statistics, z), *batch)
        return (self.scaling.scaled(terms[0]), *terms)

    def construct(self, tokens: Tensor, weight: Tensor, beta: Tensor, *noise) -> Tensor:
        views, prior, loss_noise = by_reader(noise)
        codes, pull_back = ops.vjp(self.encode, tokens, views, weights=self.encoder_weights)
        h, z = self.network.of_views(codes[0]), self.network.of_views(codes[2])
        ranks = self.network.ranks
        every_h, every_z = ranks.gather(ops.stop_gradient(h)), ranks.gather(ops.stop_gradient(z))
        joint, marginal = ops.zeros((), z.dtype), ops.zeros((), z.dtype)
        number, made = Tensor(0, ms.int32), Tensor(True)
        # A loop of the graph: written out, five updates are most of what a width compiles.
        while number < self.critic_updates:
            (_scaled, joint, marginal), gradients = self.critic_value_and_grad(
                every_h, every_z, ops.gather(prior, number, 0), weight
            )
            # Every process computes the same; the mean keeps their last bits from drifting apart.
            gradients = self.scaling.unscaled(ranks.average(gradients))
            made = ops.logical_and(made, self.scaling.made(self.critic_optimizer(gradients)))
            # The next update, and the model's, must see the critics as this one leaves them.
            weight = ops.depend(weight, made)
            number = number + 1
        terms, gradients = self.codes_value_and_grad(
            *codes, (tokens, weight), beta, prior[self.critic_updates], loss_noise
        )
        at_codes, decoder_gradients = gradients
        encoder_gradients = pull_back(at_codes)[-1]
        updates = made, self.optimizer(self.clipped(encoder_gradients + decoder_gradients))
        _scaled, loss, reconstruction, divergence, contrast = terms
        loss = ops.depend(loss, self.scaling.end_step(updates))
        return ops.stack((loss, reconstruction, divergence, contrast, joint, marginal))
