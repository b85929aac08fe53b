"""Settings that cannot stand together, refused with where each came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mindspore_cvae import systems
from mindspore_cvae.config.keys import Config, value_of
from mindspore_cvae.config.options import shown
from mindspore_cvae.errors import InputError


@dataclass(frozen=True)
class Setting:
    """A checked value on its way into the configuration, and where it came from."""

    value: Any
    origin: str


def _views_are_equal(slots: systems.System) -> bool:
    has_no_noise = slots.posterior == "deterministic" or slots.contrast_on == "h"
    return has_no_noise and slots.encoder_dropout == 0 and slots.augmentation == "dropout"


SCALED_STEPS = ("joint", "critic_then_model")
"""Steps whose loss can be scaled."""

_CONTRADICTIONS = (
    (
        lambda c: c.slots.contrast == "info_nce" and c.slots.views != 2,
        ("slots.contrast", "slots.views"),
        "the contrast info_nce compares two views of a sentence",
    ),
    (
        lambda c: c.slots.contrast == "info_nce" and c.data.batch_size < 2,
        ("slots.contrast", "data.batch_size"),
        "the contrast info_nce needs other sentences in the batch, so at least 2",
    ),
    (
        lambda c: c.slots.contrast == "info_nce" and _views_are_equal(c.slots),
        ("slots.posterior", "slots.contrast_on", "slots.encoder_dropout", "slots.augmentation"),
        "without noise, dropout or swaps both views of a sentence are equal and a contrast is void",
    ),
    (
        lambda c: (
            c.slots.contrast == "info_nce"
            and c.slots.contrast_on != "z"
            and c.slots.prior_negatives
        ),
        ("slots.prior_negatives", "slots.contrast_on"),
        "draws from the prior can only be negatives of a contrast on z",
    ),
    (
        lambda c: c.slots.swap_negatives and c.slots.contrast != "info_nce",
        ("slots.swap_negatives", "slots.contrast"),
        "swapped sentences can only be negatives of a contrast",
    ),
    (
        lambda c: c.slots.swap_negatives and c.slots.step == "semi_amortized",
        ("slots.swap_negatives", "slots.step"),
        "what the step semi_amortized refines is reconstructed, and negatives are not",
    ),
    (
        lambda c: c.model.first_state_bias and c.slots.posterior == "none",
        ("model.first_state_bias", "slots.posterior"),
        "a model that encodes nothing has no map from z to the decoder's first state",
    ),
    (
        lambda c: c.slots.reconstruction == "prior" and not c.slots.has_critics,
        ("slots.reconstruction", "slots.divergence"),
        "a reconstruction from the prior is Eq. 19's, of a divergence joint_dual or marginal_dual",
    ),
    (
        lambda c: c.slots.squared_difference != "none" and c.slots.views != 2,
        ("slots.squared_difference", "slots.views"),
        "L_SQ compares the critics' values of two views",
    ),
    (
        lambda c: c.slots.squared_difference != "none" and not c.slots.has_critics,
        ("slots.squared_difference", "slots.divergence"),
        "L_SQ needs critics, so a divergence joint_dual or marginal_dual",
    ),
    (
        lambda c: c.slots.divergence_sign == "printed" and c.slots.critic_loss == "dual",
        ("slots.divergence_sign", "slots.critic_loss"),
        "the printed sign is that of a circle loss (Eq. 15, 19)",
    ),
    (
        lambda c: c.slots.free_bits > 0 and c.slots.divergence != "gaussian_kl",
        ("slots.free_bits", "slots.divergence"),
        "free bits are of a KL by dimensions, so they need the divergence gaussian_kl",
    ),
    (
        lambda c: c.slots.divergence == "gaussian_kl" and c.slots.posterior != "gaussian",
        ("slots.divergence", "slots.posterior"),
        "the closed form gaussian_kl needs the posterior gaussian",
    ),
    (
        lambda c: c.slots.has_critics and c.slots.step != "critic_then_model",
        ("slots.divergence", "slots.step"),
        "a dual divergence has critics to train, so it needs the step critic_then_model",
    ),
    (
        lambda c: c.slots.step == "critic_then_model" and not c.slots.has_critics,
        ("slots.step", "slots.divergence"),
        "the step critic_then_model needs critics, so a divergence joint_dual or marginal_dual",
    ),
    (
        lambda c: (
            c.slots.step in ("aggressive", "semi_amortized") and c.slots.divergence != "gaussian_kl"
        ),
        ("slots.step", "slots.divergence"),
        "the steps aggressive and semi_amortized need the divergence gaussian_kl",
    ),
    (
        lambda c: (c.slots.refinement_steps > 0) != (c.slots.step == "semi_amortized"),
        ("slots.refinement_steps", "slots.step"),
        "refinement steps and the step semi_amortized need each other",
    ),
    (
        lambda c: c.slots.step == "semi_amortized" and c.precision == "fast",
        ("slots.step", "precision"),
        "products in bfloat16 are too coarse for the finite differences of the step semi_amortized",
    ),
    (
        lambda c: c.model.amp_level != "O0" and c.slots.step not in SCALED_STEPS,
        ("model.amp_level", "slots.step"),
        "half precision needs a loss that is scaled, as it can be in the steps joint and "
        "critic_then_model",
    ),
    (
        lambda c: c.train.loss_scale is not None and c.slots.step not in SCALED_STEPS,
        ("train.loss_scale", "slots.step"),
        "the loss can be scaled in the steps joint and critic_then_model",
    ),
    (
        lambda c: (
            c.slots.posterior == "none"
            and (c.slots.divergence != "none" or c.slots.contrast != "none")
        ),
        ("slots.posterior", "slots.divergence", "slots.contrast"),
        "without a latent variable nothing is left to regularise or to contrast",
    ),
    (
        lambda c: c.data.unit != "word" and c.data.dir is None,
        ("data.unit", "data.dir"),
        "the embedded corpus is made of words",
    ),
    (
        lambda c: c.data.unit != "word" and c.data.unk_alias is not None,
        ("data.unit", "data.unk_alias"),
        "an alias of <unk> is a word of a text that is made of words",
    ),
    (
        # <unk> is a piece, and one of the four specials of the vocabulary.
        lambda c: c.data.unit == "sentencepiece" and c.data.pieces > c.data.vocabulary_size - 3,
        ("data.pieces", "data.vocabulary_size"),
        "the vocabulary has no room for so many pieces beside its specials <pad>, <s> and </s>",
    ),
    (
        lambda c: c.data.unk_alias is not None and len(c.data.unk_alias.split()) != 1,
        ("data.unk_alias",),
        "an alias of <unk> must be one word",
    ),
)
"""What must not be, the keys that it lies in, and why. Slots left idle by another are no fault."""


def refuse_contradictions(config: Config, settings: dict[str, Setting]) -> None:
    for is_broken, keys, reason in _CONTRADICTIONS:
        if is_broken(config):
            where = "; ".join(
                f"{key} is {shown(value_of(config, key))} ({_origin(key, config, settings)})"
                for key in keys
            )
            raise InputError(f"{where}: {reason}")


def _origin(key: str, config: Config, settings: dict[str, Setting]) -> str:
    if key in settings and settings[key].value is not None:
        return settings[key].origin
    return f"row {config.system}" if key.startswith("slots.") else "default"
