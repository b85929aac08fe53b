"""From names to parts: builds the model that a configuration describes."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from mindspore_cvae.devices import choosing
from mindspore_cvae.devices.parallel import Processes
from mindspore_cvae.model.contrasts import CONTRASTS
from mindspore_cvae.model.divergences import DIVERGENCES
from mindspore_cvae.model.equation import LatentVariableModel
from mindspore_cvae.model.networks import Decoder, Encoder, LanguageModel, NoEncoder
from mindspore_cvae.model.posteriors import POSTERIORS
from mindspore_cvae.systems import System


def _encoder(slots: System, sizes, vocabulary_size: int) -> nn.Cell:
    return Encoder(
        vocabulary_size,
        sizes.embedding_size,
        sizes.hidden_size,
        slots.encoder_dropout,
        sizes.amp_level,
    )


ENCODERS = {"none": lambda slots, sizes, vocabulary_size: NoEncoder()}
DECODERS = {"none": LanguageModel}
"""Of a posterior that does not take the usual ones."""


def build_model(
    slots: System, sizes, vocabulary_size: int, seed: int, ranks: Processes | None = None
) -> LatentVariableModel:
    """The model of a row, with its parameters initialised from the seed.

    Args:
        slots: the resolved slots.
        sizes: a ``config.Model``.
        vocabulary_size: of the corpus, the four specials included.
        seed: of the run.
        ranks: the processes that share a batch; None for this one alone.
    """
    encoder = ENCODERS.get(slots.posterior, _encoder)(slots, sizes, vocabulary_size)
    decoder = DECODERS.get(slots.posterior, Decoder)(
        vocabulary_size,
        sizes.embedding_size,
        sizes.hidden_size,
        sizes.latent_size,
        sizes.decoder_dropout,
        sizes.amp_level,
        sizes.vocabulary_multiple or choosing.vocabulary_multiple(),
    )
    if sizes.first_state_bias:
        decoder.initial_hidden = nn.Dense(sizes.latent_size, sizes.hidden_size)
    model = LatentVariableModel(
        encoder,
        POSTERIORS[slots.posterior](sizes),
        decoder,
        DIVERGENCES[slots.divergence](slots, sizes),
        CONTRASTS[slots.contrast](slots),
        slots,
        ranks,
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


def put_values(cell: nn.Cell, values: Mapping[str, np.ndarray]) -> None:
    """Give a cell's parameters, the optimizers' state among them, new values.

    In place: a loop of a compiled graph sees no other tensor (training.steps.critics). When it
    returns, the values are there.

    Args:
        cell: its every parameter gets a value.
        values: by the parameters' names; others are not looked at.
    """
    parameters = list(cell.get_parameters())
    for parameter in parameters:
        ops.assign(parameter, Tensor(values[parameter.name]))
    # Operators outside of graphs are dispatched, not done, when their calls return; they are done
    # in their order, and reading waits. (mindspore.runtime.synchronize refuses a CPU.)
    for parameter in parameters[-1:]:
        parameter.asnumpy()


def _inputs_of(parameter: Parameter, model: nn.Cell) -> int:
    weight = model.parameters_dict()[parameter.name.rsplit(".", 1)[0] + ".weight"]
    return weight.shape[1]
