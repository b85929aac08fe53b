"""From names to parts: builds the training step that a configuration describes."""

from __future__ import annotations

from mindspore import Parameter, nn

from mindspore_cvae.model.equation import LatentVariableModel
from mindspore_cvae.systems import System
from mindspore_cvae.training.scaling import DynamicScaling, Scaling
from mindspore_cvae.training.steps.aggressive import AggressiveStep
from mindspore_cvae.training.steps.critics import CriticThenModel
from mindspore_cvae.training.steps.joint import JointStep
from mindspore_cvae.training.steps.semi_amortized import SemiAmortizedStep
from mindspore_cvae.training.steps.updates import Clipping, adam

FIRST_LOSS_SCALES = {"O0": None, "O2": 65536.0}
"""Of a configuration that names none, by its level of mixed precision."""


def build_step(model: LatentVariableModel, slots: System, training) -> nn.Cell:
    """The training step of a row.

    Args:
        model: from :func:`build_model`.
        slots: the resolved slots.
        training: a ``config.Train``.
    """
    encoder = [*model.encoder.trainable_params(), *model.posterior.trainable_params()]
    decoder = list(model.decoder.trainable_params())
    critics = list(model.divergence.trainable_params())
    groups = {
        "together": (len(encoder) + len(decoder),),
        "separate": tuple(len(group) for group in (encoder, decoder) if group),
    }[slots.clipping]

    scaling = Scaling()
    first_scale = training.loss_scale or FIRST_LOSS_SCALES[model.decoder.amp_level]
    if first_scale is not None:
        scaling = DynamicScaling(first_scale, training.loss_scale_window)

    def optimizer(name: str, parameters: list[Parameter], rate: float = training.learning_rate):
        return adam(parameters, rate, f"optimizer.{name}", scaling.optimizer)

    own_parts = {
        "joint": lambda: {
            "optimizer": optimizer("model", encoder + decoder),
            "scaling": scaling,
        },
        "critic_then_model": lambda: {
            "optimizer": optimizer("model", encoder + decoder),
            "scaling": scaling,
            "critic_optimizer": optimizer("critics", critics, training.critic_learning_rate),
            "critic_updates": training.critic_updates,
        },
        "aggressive": lambda: {
            "encoder_optimizer": optimizer("encoder", encoder),
            "decoder_optimizer": optimizer("decoder", decoder),
        },
        "semi_amortized": lambda: {
            "optimizer": optimizer("model", encoder + decoder),
        },
    }[slots.step]()
    step = STEPS[slots.step](
        model=model, clipping=Clipping(groups, training.clip_norm), **own_parts
    )
    return step.set_train()


STEPS = {
    "joint": JointStep,
    "critic_then_model": CriticThenModel,
    "aggressive": AggressiveStep,
    "semi_amortized": SemiAmortizedStep,
}
"""The values of the slot ``step``."""
