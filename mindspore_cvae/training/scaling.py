"""Dynamic loss scaling, which keeps the small gradients of half precision above its underflow.

    g = grad(S L) / S;    an update by a g that is not finite is not made

(Micikevicius et al. 2018, Mixed Precision Training, Section 3.2). S halves, but not below 1, after
a step with such an update, and doubles after a number of steps in a row without one.
"""

from __future__ import annotations

from mindspore import Parameter, Tensor, amp, nn, ops
from mindspore import dtype as mstype

PREFIX = "optimizer.loss_scaling"
"""Of the names of what a checkpoint keeps of the scaling."""
FACTOR = 2
"""By which the scale grows and shrinks: a power of 2 changes no digit of a gradient."""


class AdamIfFinite(nn.Adam):
    """Adam whose update is made only if all gradients are finite.

    Otherwise it is an update that changes nothing: m = 1 m + 0 g, v = 1 v + 0 g^2 and
    theta = theta - 0 m / sqrt(v), with g = 0. A branch of the graph would do as well, but in
    MindSpore 2.10 parameters that are used in a branch alone do not see a later ``set_data``.
    """

    beta1_power: Tensor
    beta2_power: Tensor

    def construct(self, gradients: tuple) -> Tensor:
        """Returns whether the update was made."""
        is_finite = amp.all_finite(gradients)
        zero, one = Tensor(0.0, mstype.float32), Tensor(1.0, mstype.float32)
        beta1 = ops.select(is_finite, self.beta1, one)
        beta2 = ops.select(is_finite, self.beta2, one)
        beta1_power, beta2_power = self.beta1_power * beta1, self.beta2_power * beta2
        self.beta1_power, self.beta2_power = beta1_power, beta2_power
        self.assignadd(self.global_step, is_finite.astype(mstype.int32))
        updates: tuple = ()
        for number in range(len(gradients)):
            gradient = gradients[number]
            updates += (
                self.opt(
                    self._parameters[number],
                    self.moment1[number],
                    self.moment2[number],
                    # Before the first update 1 - beta^t is 0, by which nothing can be divided.
                    ops.select(is_finite, beta1_power, zero),
                    ops.select(is_finite, beta2_power, zero),
                    ops.select(is_finite, self.get_lr(), zero),
                    beta1,
                    beta2,
                    self.eps,
                    ops.select(is_finite, gradient, ops.zeros_like(gradient)),
                ),
            )
        return ops.depend(is_finite, updates)


class Scaling(nn.Cell):
    """The loss as it is, and every update made."""

    optimizer = nn.Adam

    def scaled(self, loss: Tensor) -> Tensor:
        """S L with S = 1."""
        return loss

    def unscaled(self, gradients: tuple) -> tuple:
        """Gradients of S L, divided by S."""
        return gradients

    def made(self, update) -> Tensor:
        """Whether an update was made, given what its optimizer returned."""
        return ops.depend(Tensor(True), update)

    def end_step(self, updates: tuple):
        """Ends a training step, given what its optimizers returned at each update."""
        return updates

    def skipped_steps(self) -> int:
        """Steps in a row, up to now, of which an update was not made."""
        return 0

    def counts(self) -> dict[str, int]:
        """See :class:`training.steps.updates.TrainingStep`."""
        return {}

    def readings(self) -> dict[str, float]:
        """See :class:`training.steps.updates.TrainingStep`."""
        return {}


class DynamicScaling(Scaling):
    """One scale for all losses of a step; each update is made or not by its own gradients.

    The scale, the steps that count for its growth, and the steps skipped in a row are parameters,
    so that a checkpoint holds them.

    Args:
        initial: the first scale, 1 or more.
        window: good steps in a row after which the scale doubles.
    """

    optimizer = AdamIfFinite

    def __init__(self, initial: float, window: int):
        super().__init__(auto_prefix=False)
        self.scaler = amp.DynamicLossScaler(initial, FACTOR, window)
        self.scale = self.scaler.scale_value
        self.good = self.scaler.counter
        self.skipped = Parameter(Tensor(0, mstype.int32))
        for name in ("scale", "good", "skipped"):
            getattr(self, name).name = f"{PREFIX}.{name}"

    def scaled(self, loss: Tensor) -> Tensor:
        return self.scaler.scale(loss)

    def unscaled(self, gradients: tuple) -> tuple:
        return self.scaler.unscale(gradients)

    def made(self, update) -> Tensor:
        return update

    def end_step(self, updates: tuple) -> Tensor:
        """Adjusts the scale; returns whether all updates were made."""
        is_good = ops.stack(updates).all()
        self.scaler.adjust(is_good)
        ops.assign(self.skipped, ops.select(is_good, self.skipped * 0, self.skipped + 1))
        return is_good

    def skipped_steps(self) -> int:
        return int(self.skipped.asnumpy())

    def counts(self) -> dict[str, int]:
        """Whether the last step was skipped."""
        return {"skipped": int(self.skipped_steps() > 0)}

    def readings(self) -> dict[str, float]:
        """The scale that the next step takes."""
        return {"loss_scale": float(self.scale.asnumpy())}
