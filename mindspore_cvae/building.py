"""From names to parts: builds the model and the training step that a configuration describes."""

from __future__ import annotations

import zlib

import numpy as np
from mindspore import Parameter, Tensor, nn

from mindspore_cvae import devices
from mindspore_cvae.contrasts import CONTRASTS
from mindspore_cvae.divergences import DIVERGENCES
from mindspore_cvae.model import LatentVariableModel
from mindspore_cvae.networks import Decoder, Encoder, LanguageModel, NoEncoder
from mindspore_cvae.parallel import Alone
from mindspore_cvae.posteriors import POSTERIORS
from mindspore_cvae.scaling import DynamicScaling, NoScaling
from mindspore_cvae.steps import STEPS, adam
from mindspore_cvae.systems import System

NETWORKS = {"none": (NoEncoder, LanguageModel)}
"""Encoder and decoder of a posterior that does not take the usual ones."""
FIRST_LOSS_SCALES = {"O0": None, "O2": 65536.0}
"""Of a configuration that names none, by its level of mixed precision."""


def build_model(
    slots: System, sizes, vocabulary_size: int, seed: int, ranks: Alone | None = None
) -> LatentVariableModel:
    """The model of a row, with its parameters initialised from the seed.

    Args:
        slots: the resolved slots.
        sizes: a ``config.Model``.
        vocabulary_size: of the corpus, the four specials included.
        seed: of the run.
        ranks: the processes that share a batch; None for this one alone.
    """
    encoder_of, decoder_of = NETWORKS.get(slots.posterior, (Encoder, Decoder))
    encoder = encoder_of(
        vocabulary_size,
        sizes.embedding_size,
        sizes.hidden_size,
        slots.encoder_dropout,
        sizes.amp_level,
    )
    posterior = POSTERIORS[slots.posterior](
        hidden_size=sizes.hidden_size,
        latent_size=sizes.latent_size,
        noise_size=sizes.noise_size,
        layer_size=sizes.posterior_size,
        layers=sizes.posterior_layers,
    )
    decoder = decoder_of(
        vocabulary_size,
        sizes.embedding_size,
        sizes.hidden_size,
        sizes.latent_size,
        sizes.decoder_dropout,
        sizes.amp_level,
        sizes.vocabulary_multiple or devices.vocabulary_multiple(),
    )
    divergence = DIVERGENCES[slots.divergence](
        hidden_size=sizes.hidden_size,
        latent_size=sizes.latent_size,
        critic_size=sizes.critic_size,
        critic_layers=sizes.critic_layers,
        views=slots.views,
        critic_loss=slots.critic_loss,
        divergence_sign=slots.divergence_sign,
        squared_difference=slots.squared_difference,
        free_bits=slots.free_bits,
    )
    contrast = CONTRASTS[slots.contrast](
        on=slots.contrast_on,
        temperature=slots.temperature,
        negatives=slots.negatives,
        batch_mean_pair=slots.batch_mean_pair,
    )
    model = LatentVariableModel(
        encoder,
        posterior,
        decoder,
        divergence,
        contrast,
        slots.views,
        slots.refinement_steps,
        ranks,
        slots.contrast_weight,
    )
    model.update_parameters_name()
    initialise(model, sizes, seed)
    return model


def initialise(model: LatentVariableModel, sizes, seed: int) -> None:
    """Encoder, posterior and decoder uniform in +-init_scale; critics as dense layers usually are.

    Each parameter is drawn from a generator keyed by the seed and its own name, so that equal
    names start equal in every system, whatever else the system has.
    """
    critics = {parameter.name for parameter in model.divergence.get_parameters()}
    for parameter in model.get_parameters():
        if parameter.name in critics:
            # Uniform +-1/sqrt(inputs) for weights and biases: the default of dense layers.
            scale = 1.0 / np.sqrt(_inputs_of(parameter, model))
        elif parameter.name == "posterior.from_noise.weight" and sizes.noise_init_scale is not None:
            scale = sizes.noise_init_scale
        else:
            scale = sizes.init_scale
        key = np.array([seed, zlib.crc32(parameter.name.encode())], np.uint64)
        source = np.random.Generator(np.random.Philox(key=key))
        values = source.uniform(-scale, scale, parameter.shape).astype(np.float32)
        parameter.set_data(Tensor(values))


def _inputs_of(parameter: Parameter, model: nn.Cell) -> int:
    weight = model.parameters_dict()[parameter.name.rsplit(".", 1)[0] + ".weight"]
    return weight.shape[1]


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
        "together": [len(encoder) + len(decoder)],
        "separate": [len(group) for group in (encoder, decoder) if group],
    }[slots.clipping]

    scaling = NoScaling()
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
            "decoder_parameters": len(decoder),
        },
        "aggressive": lambda: {
            "encoder_optimizer": optimizer("encoder", encoder),
            "decoder_optimizer": optimizer("decoder", decoder),
        },
        "semi_amortized": lambda: {
            "optimizer": optimizer("model", encoder + decoder),
            "decoder_parameters": len(decoder),
        },
    }[slots.step]()
    step = STEPS[slots.step](model=model, groups=groups, clip_norm=training.clip_norm, **own_parts)
    return step.set_train()
