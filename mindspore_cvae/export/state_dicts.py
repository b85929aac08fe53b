"""A model's weights under the names and shapes of PyTorch's state dicts, in a file: into a run, and
out of one. The command ``convert``.

The names are those of this package's parameters, which follow ``torch.nn``: an ``Embedding``'s
``weight`` (V, E), a ``Linear``'s ``weight`` (outputs, inputs) and ``bias``, an ``LSTM``'s
``weight_ih_l0`` (4 H, inputs), ``weight_hh_l0`` (4 H, H), ``bias_ih_l0`` and ``bias_hh_l0`` (4 H,),
with the gates in the order input, forget, cell, output, and both biases added. One parameter is
split: the last column of :data:`FOLDED` is the bias of the product that gives the logits.

Files are .npz or safetensors. Nothing is unpickled, and no array is read before its name, type and
shape are what the model asks for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import safetensors
import safetensors.numpy

from mindspore_cvae.common.arrays import UNREADABLE, read_array
from mindspore_cvae.common.files import write_atomically
from mindspore_cvae.data.vocabulary import Vocabulary
from mindspore_cvae.errors import InputError
from mindspore_cvae.runs import checkpoints
from mindspore_cvae.runs import folder as runs_folder

if TYPE_CHECKING:
    from mindspore_cvae.config.keys import Config


FOLDED = "decoder.vocabulary_weight"
"""(V, H + 1): the weight of the logits, and their bias as the last column."""

UNFOLDED = ("decoder.vocabulary.weight", "decoder.vocabulary.bias")
"""(V, H) and (V,): the same as a state dict has it."""

CRITICS = "divergence."
"""Beginning of the names of what only training and the critics' metrics need."""

SUFFIXES = (".npz", ".safetensors")

FLOATS = {"F16": "float16", "F32": "float32", "F64": "float64"}
"""Types that are read, as safetensors and as NumPy call them."""

Shapes = Mapping[str, tuple[int, ...]]


def to_state_dict(parameters: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A model's parameters by name -> the arrays of its state dict by name."""
    state = {}
    for name, values in parameters.items():
        if name == FOLDED:
            state[UNFOLDED[0]], state[UNFOLDED[1]] = values[:, :-1], values[:, -1]
        else:
            state[name] = values
    return {name: np.ascontiguousarray(values) for name, values in state.items()}


def from_state_dict(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a state dict by name -> a model's parameters by name, float32."""
    rest = {name: values for name, values in state.items() if name not in UNFOLDED}
    weight, bias = (state[name] for name in UNFOLDED)
    folded = np.concatenate((weight, bias[:, None]), axis=1)
    return {name: values.astype(np.float32) for name, values in {**rest, FOLDED: folded}.items()}


def state_shapes(parameters: Shapes) -> dict[str, tuple[int, ...]]:
    """Shapes of a model's parameters by name -> those of its state dict by name."""
    shapes = {name: shape for name, shape in parameters.items() if name != FOLDED}
    words, inputs = parameters[FOLDED]
    return {**shapes, UNFOLDED[0]: (words, inputs - 1), UNFOLDED[1]: (words,)}


def read_state_dict(path: Path, expected: Shapes) -> dict[str, np.ndarray]:
    """The arrays of a file.

    Args:
        path: .npz or .safetensors.
        expected: shapes by name. All must be there and no others; but the critics' may be absent
            all together.

    Returns:
        Arrays of float16, float32 or float64, by name.

    Raises:
        InputError: The file cannot be read, or a name, type, shape or number is not as it must be;
            the message names file and array.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(
            f"{path} is neither .npz nor .safetensors; files of torch.save may run code when they "
            "are read, so write the state dict by safetensors.torch.save_file, or numpy.savez"
        )
    if not path.is_file():
        raise InputError(f"{path} does not exist or is not a file")
    reader = _read_npz if path.suffix == ".npz" else _read_safetensors
    try:
        state = reader(path, expected)
    except (safetensors.SafetensorError, *UNREADABLE) as error:
        raise InputError(f"{path} is damaged or not in the format of its name: {error}") from None
    for name, values in state.items():
        if not np.isfinite(values).all():
            raise InputError(f"{path}: {name} holds numbers that are not finite")
    return state


def _read_npz(path: Path, expected: Shapes) -> dict[str, np.ndarray]:
    state = {}
    with zipfile.ZipFile(path) as archive:
        files = archive.namelist()
        _check_names(path, [name.removesuffix(".npy") for name in files], expected)
        for file in files:
            name = file.removesuffix(".npy")
            with archive.open(file) as stream:
                state[name] = read_array(stream, partial(_check_array, path, name, expected))
    return state


def _read_safetensors(path: Path, expected: Shapes) -> dict[str, np.ndarray]:
    state = {}
    with safetensors.safe_open(path, "numpy") as file:
        _check_names(path, list(file.keys()), expected)
        for name in file.keys():
            stored = file.get_slice(name)
            kind = FLOATS.get(stored.get_dtype(), stored.get_dtype())
            _check_array(path, name, expected, kind, tuple(stored.get_shape()))
            state[name] = file.get_tensor(name)
    return state


def _check_names(path: Path, names: Sequence[str], expected: Shapes) -> None:
    repeated = {name for name, times in Counter(names).items() if times > 1}
    missing = expected.keys() - set(names)
    if missing == {name for name in expected if name.startswith(CRITICS)}:
        missing = set()
    unknown = set(names) - expected.keys()
    for found, problem in (
        (repeated, "is there twice"),
        (missing, "is missing"),
        (unknown, "is no parameter of this model"),
    ):
        if found:
            raise InputError(
                f"{path}: {min(found)!r} {problem} ({len(found)} such): the model that system and "
                "sizes of the configuration describe has other parameters"
            )


def _check_array(path: Path, name: str, expected: Shapes, kind: str, shape: tuple) -> None:
    if kind not in FLOATS.values():
        raise InputError(
            f"{path}: {name} has the type {kind}: only {', '.join(FLOATS.values())} are read"
        )
    if shape != expected[name]:
        raise InputError(
            f"{path}: {name} has the shape {shape}, but configuration and vocabulary ask for "
            f"{expected[name]}"
        )


def write_state_dict(
    path: Path,
    state: Mapping[str, np.ndarray],
    write: Callable[[Path, bytes], None] = write_atomically,
) -> None:
    """Write arrays by name, all at once.

    Args:
        path: .npz or .safetensors.
        state: from :func:`to_state_dict`.
        write: what writes the bytes: :func:`runs.outputs.write_output` for a place that
            a user named.

    Raises:
        InputError: The name has another ending.
        OSError: The file cannot be written.
    """
    if path.suffix == ".safetensors":
        content = safetensors.numpy.save(dict(state))
    elif path.suffix == ".npz":
        buffer = io.BytesIO()
        np.savez(buffer, **state)
        content = buffer.getvalue()
    else:
        raise InputError(f"{path}: --output must end with {' or '.join(SUFFIXES)}")
    write(path, content)


def into_run(state_path: Path, vocabulary: Vocabulary, config: Config, folder: Path) -> bool:
    """Make a run, at step 0, of a state dict. The device must have been chosen before.

    Args:
        state_path: the file; see :func:`read_state_dict`.
        vocabulary: its words are the rows of the embeddings.
        config: of the model, and of its further training.
        folder: where the run is to lie.

    Returns:
        Whether the file held the critics, if the system has any. If not, they are as the
        configuration's seed initialises them.

    Raises:
        InputError: The file does not fit, or the folder is not free.
    """
    from mindspore import Tensor

    from mindspore_cvae.model.building import build_model
    from mindspore_cvae.training.building import build_step
    from mindspore_cvae.training.trainer import TrainingState

    runs_folder.check(folder)
    model = build_model(config.slots, config.model, len(vocabulary), config.seed)
    parameters = {parameter.name: parameter for parameter in model.get_parameters()}
    shapes = {name: parameter.shape for name, parameter in parameters.items()}
    given = from_state_dict(read_state_dict(state_path, state_shapes(shapes)))
    for name, values in given.items():
        parameters[name].set_data(Tensor(values))
    # With the optimizers' state, as new: training can go on from here.
    step = build_step(model, config.slots, config.train)
    tensors = {parameter.name: parameter.asnumpy() for parameter in step.get_parameters()}
    fingerprints = {"config": config.fingerprint(), "vocabulary": vocabulary.fingerprint()}
    with runs_folder.Run(folder) as run:
        run.write_inputs(config, vocabulary)
        log = run.open_log()
        digest = hashlib.sha256(state_path.read_bytes()).hexdigest()
        log.write({"event": "convert", "step": 0, "file": state_path.name, "sha256": digest})
        training = TrainingState(log_rows=log.sync(), step_state=step.state())
        log.close()
        state = {"system": config.system, **dataclasses.asdict(training)}
        checkpoints.save(run.checkpoints, 0, tensors, state, fingerprints, best=True)
    return given.keys() == parameters.keys()


def run_state_dict(
    folder: Path, checkpoint: str = "best", config: Config | None = None
) -> dict[str, np.ndarray]:
    """The state dict of a run. The device must have been chosen before.

    Args:
        folder: the run.
        checkpoint: ``best`` or ``last``.
        config: see :func:`runs.loading.load_run`.

    Raises:
        InputError: There is no such run or checkpoint.
    """
    from mindspore_cvae.runs.loading import load_run

    model = load_run(folder, checkpoint, config).model
    return to_state_dict({item.name: item.asnumpy() for item in model.get_parameters()})
