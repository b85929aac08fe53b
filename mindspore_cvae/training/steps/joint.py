"""One update of all parameters, the objective of a system without critics."""

from __future__ import annotations

from mindspore import Tensor, nn, ops

from mindspore_cvae.training.scaling import Scaling
from mindspore_cvae.training.steps.updates import Clipping, TrainingStep, by_reader, clip_groups


class JointStep(TrainingStep, nn.TrainOneStepCell):
    """One update of all parameters of the model together.

    Args:
        model: a :class:`model.equation.LatentVariableModel`.
        optimizer: of encoder, posterior and decoder, in this order.
        clipping: of the gradients; its groups add up to all.
        scaling: of the losses whose gradients are taken; see :mod:`training.scaling`.
    """

    def __init__(
        self,
        model: nn.Cell,
        optimizer: nn.Optimizer,
        clipping: Clipping,
        scaling: Scaling,
    ):
        super().__init__(model, optimizer)
        self.groups, self.clip_norm = clipping
        self.scaling = scaling
        self.value_and_grad = ops.value_and_grad(self.forward, None, self.weights, has_aux=True)

    def forward(self, *batch):
        """The model's terms, and before them what the gradient is taken of."""
        terms = self.network(*batch)
        return (self.scaling.scaled(terms[0]), *terms)

    def construct(self, tokens: Tensor, weight: Tensor, beta: Tensor, *noise) -> Tensor:
        views, _prior, loss_noise = by_reader(noise)
        (_scaled, loss, reconstruction, divergence, contrast), gradients = self.value_and_grad(
            views, (tokens, weight), beta, loss_noise
        )
        updates = (self.optimizer(self.clipped(gradients)),)
        loss = ops.depend(loss, self.scaling.end_step(updates))
        none = ops.zeros_like(loss)
        return ops.stack((loss, reconstruction, divergence, contrast, none, none))

    def ready(self, *arguments) -> None:
        """Compiles the step's one graph."""
        self.compile(*arguments)

    def clipped(self, gradients: tuple) -> tuple:
        """Gradients of the scaled loss summed over processes and unscaled, then each group clipped
        to its own norm."""
        gradients = self.scaling.unscaled(self.network.ranks.add(gradients))
        return clip_groups(gradients, self.groups, self.clip_norm)

    def counts(self) -> dict[str, int]:
        """What the scaling counts."""
        return self.scaling.counts()

    def readings(self) -> dict[str, float]:
        """What the scaling tells."""
        return self.scaling.readings()

    def skipped_steps(self) -> int:
        """See :class:`TrainingStep`."""
        return self.scaling.skipped_steps()
