"""A run read back: configuration, vocabulary, and the model with the weights of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mindspore
import numpy as np
from mindspore import nn

from mindspore_cvae.config import layers
from mindspore_cvae.config.keys import Config
from mindspore_cvae.data.units import PIECES, Pieces
from mindspore_cvae.data.vocabulary import Vocabulary
from mindspore_cvae.errors import InputError, warn_user
from mindspore_cvae.model.building import build_model, put_values
from mindspore_cvae.model.equation import LatentVariableModel
from mindspore_cvae.runs import checkpoints
from mindspore_cvae.runs import folder as runs_folder

LARGEST = 1e18
"""Largest size of a weight: float32 ends at 3.4e38, and weights are multiplied with each other."""

_WIDTHS = (
    ("hidden_size", "decoder.lstm.weight_hh_l0", 1),
    ("embedding_size", "decoder.embedding.weight", 1),
    ("latent_size", "decoder.initial_hidden.weight", 1),
    ("noise_size", "posterior.from_noise.weight", 1),
    ("posterior_size", "posterior.layers.0.weight", 0),
    ("critic_size", "divergence.joint_critic.layers.0.weight", 0),
    ("critic_size", "divergence.marginal_critic.layers.0.weight", 0),
)
"""Sizes of the configuration, each with a parameter and the axis that has it."""

CHECKPOINTS = {"best": "best", "best_valid": "best_valid", "last": "latest"}
"""What a checkpoint is called on the command line, and in the run folder."""


@dataclass(frozen=True)
class LoadedRun:
    """What a run folder holds."""

    config: Config
    vocabulary: Vocabulary
    model: LatentVariableModel
    checkpoint: str
    """One of :data:`CHECKPOINTS`."""
    step: int
    """Training steps behind the weights."""
    folder: Path


def load_run(
    run_folder: str | Path, checkpoint: str = "best", config: Config | None = None
) -> LoadedRun:
    """Read a run. The device must have been chosen before (:func:`devices.choosing.choose`).

    Args:
        run_folder: what training wrote.
        checkpoint: ``best`` on validation by ``train.select``, ``best_valid`` by the valid bound
            (the last, with a warning, where no validation was fit to choose one), or ``last``.
        config: what :func:`runs.folder.read_config` made of the run's configuration and
            further settings; None takes the run's own.

    Raises:
        InputError: There is no such run or checkpoint, or its files do not fit each other.
    """
    folder = Path(run_folder)
    if checkpoint not in CHECKPOINTS:
        raise InputError(f"checkpoint must be one of {', '.join(CHECKPOINTS)}, not {checkpoint!r}")
    if config is None:
        config = runs_folder.read_config(folder)
    is_mark = checkpoint in checkpoints.MARKS
    if is_mark and not checkpoints.has_mark(folder / runs_folder.CHECKPOINTS, checkpoint):
        warn_user(f"{folder}: no validation was fit to choose a best checkpoint; the last is taken")
        checkpoint = "last"
    vocabulary = Vocabulary.load(folder / runs_folder.VOCABULARY, config.data.unit)
    saved = checkpoints.load(folder / runs_folder.CHECKPOINTS, CHECKPOINTS[checkpoint])
    _check_trained_with(saved, folder, vocabulary)
    _check_widths(saved, folder, config)
    model = build_model(config.slots, config.model, len(vocabulary), config.seed)
    restore(model, saved.tensors, str(saved.path))
    return LoadedRun(config, vocabulary, model.set_train(False), checkpoint, saved.step, folder)


def _check_trained_with(
    saved: checkpoints.Checkpoint, folder: Path, vocabulary: Vocabulary
) -> None:
    """Refuse a vocabulary that the checkpoint was not trained with, since its words would stand for
    others; warn of a configuration that was changed by hand or by ``--force``."""
    if saved.fingerprints.get("vocabulary") != vocabulary.fingerprint():
        pieces = f" with {PIECES}" if isinstance(vocabulary.units, Pieces) else ""
        raise InputError(
            f"{folder / runs_folder.VOCABULARY}{pieces} is not the vocabulary that {saved.path} "
            "was trained with: put the run's own file back"
        )
    path = folder / runs_folder.CONFIG
    if saved.fingerprints.get("config") != layers.read_saved(path).fingerprint():
        warn_user(
            f"{path} is not what {saved.path} was trained with: what is computed may be of another "
            "model or text"
        )


def _check_widths(saved: checkpoints.Checkpoint, folder: Path, config: Config) -> None:
    """Refuse sizes that the checkpoint does not have before a model of them fills the memory."""
    for size, name, axis in _WIDTHS:
        shape = saved.tensors[name].shape if name in saved.tensors else ()
        width = getattr(config.model, size)
        if len(shape) > axis and shape[axis] != width:
            raise InputError(
                f"{folder / runs_folder.CONFIG}: model.{size} is {width}, but {name} of "
                f"{saved.path} has the shape {shape}: put the run's own file back"
            )


def restore(cell: nn.Cell, tensors: dict[str, np.ndarray], source: str) -> None:
    """Give a model, or a training step, its parameters of a checkpoint; others are left alone.

    Args:
        cell: from :mod:`model.building`.
        tensors: by the parameters' names.
        source: where they come from, for messages.

    Raises:
        InputError: A parameter is missing or has another shape than configuration and vocabulary
            say, or another type, or holds numbers that are not finite.
    """
    for parameter in cell.get_parameters():
        if parameter.name not in tensors:
            raise InputError(
                f"{source} lacks {parameter.name}: it does not belong to the run's config.yaml"
            )
        values = tensors[parameter.name]
        if values.shape != parameter.shape:
            raise InputError(
                f"{source}: {parameter.name} has the shape {values.shape}, but config.yaml and "
                f"vocab.txt of the run ask for {parameter.shape}"
            )
        if values.dtype != mindspore.dtype_to_nptype(parameter.dtype):
            raise InputError(f"{source}: {parameter.name} has the type {values.dtype} of no run")
        if not (np.abs(values) <= LARGEST).all():
            raise InputError(
                f"{source}: {parameter.name} holds numbers that are not finite, or whose products "
                "are not, so the model is of no use: take another checkpoint (--checkpoint last, "
                "best), or train anew"
            )
    put_values(cell, tensors)
