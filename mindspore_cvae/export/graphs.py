"""A run's model as files for serving.

    RUN/export/encoder.mindir        tokens (N, T + 1) and noise (N, noise size) to z (N, Z)
    RUN/export/decoder_start.mindir  z to the decoder's first state
    RUN/export/decoder_step.mindir   a word, z and the state to log p(next word) and the next state
    RUN/export/greedy.mindir         z to whole sentences
    RUN/export/weights.safetensors   the weights, under the names of :mod:`export.state_dicts`
    RUN/export/vocab.txt             the words, in the order of their numbers
    RUN/export/description.json      inputs, outputs and SHA-256 of every graph; written last

Every graph is loaded back and compared with the model before anything is written.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mindspore
import numpy as np
from mindspore import Tensor, nn

from mindspore_cvae import __version__
from mindspore_cvae.common import randomness
from mindspore_cvae.common.files import write_atomically
from mindspore_cvae.data.vocabulary import BEGIN, END, PAD, SPECIALS, UNKNOWN
from mindspore_cvae.export.state_dicts import to_state_dict, write_state_dict
from mindspore_cvae.generation.decoding import IMPOSSIBLE, MostProbable, WordByWord
from mindspore_cvae.model.equation import LatentVariableModel
from mindspore_cvae.model.posteriors import NoLatent
from mindspore_cvae.runs import folder as runs_folder
from mindspore_cvae.runs.loading import LoadedRun

TOLERANCE = 1e-5
"""Largest difference between a loaded graph and the model, absolute and relative."""


class Encode(nn.Cell):
    """z of sentences. For Gaussian and affine posteriors, noise 0 gives the posterior mean."""

    def __init__(self, model: LatentVariableModel):
        # Without prefixes: the model's parameters keep their names.
        super().__init__(auto_prefix=False)
        self.encoder = model.encoder
        self.posterior = model.posterior

    def construct(self, tokens: Tensor, noise=None) -> Tensor:
        """tokens (N, T + 1), noise (N, noise size) or None where the posterior takes none
        -> (N, Z)."""
        return self.posterior.sample(self.posterior(self.encoder(tokens)), noise)


class DecoderStart(nn.Cell):
    """The state before the first word, which is ``<s>``."""

    def __init__(self, decoder: nn.Cell):
        super().__init__(auto_prefix=False)
        self.decoder = decoder

    def construct(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(N, Z) -> hidden and cell state, each (1, N, H)."""
        return self.decoder.initial_state(z)


class DecoderStep(nn.Cell):
    """One word of every row."""

    def __init__(self, decoder: nn.Cell):
        super().__init__(auto_prefix=False)
        self.decoder = decoder

    def construct(
        self, words: Tensor, z: Tensor, hidden: Tensor, cell: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """words (N,), z (N, Z), hidden and cell (1, N, H) -> log p(next word) (N, V), hidden,
        cell."""
        log_probabilities, state = self.decoder.step(words, z, (hidden, cell))
        return log_probabilities, state[0], state[1]


class Greedy(nn.Cell):
    """Whole sentences, by the most probable word each time; ``<pad>`` and ``<s>`` never come out.

    Args:
        decoder: a :class:`model.networks.Decoder`.
        max_words: T.
        no_unk: whether ``<unk>`` is ruled out, too.
    """

    def __init__(self, decoder: nn.Cell, max_words: int, no_unk: bool):
        super().__init__(auto_prefix=False)
        penalty = np.zeros(decoder.vocabulary_weight.shape[0], np.float32)
        penalty[[PAD, BEGIN, UNKNOWN] if no_unk else [PAD, BEGIN]] = IMPOSSIBLE
        self.penalty = Tensor(penalty)
        self.decode = WordByWord(decoder, MostProbable(), max_words)

    def construct(self, z: Tensor) -> Tensor:
        """(N, Z) -> (N, T) int32: words, ``</s>`` where the sentence ended before, ``<pad>``."""
        return self.decode(z, self.penalty)


class Graph(NamedTuple):
    """What becomes one file."""

    cell: nn.Cell
    inputs: dict[str, np.ndarray]
    """Examples by name, whose shapes and types are the graph's."""
    outputs: tuple[str, ...]


def graphs(run: LoadedRun, rows: int, max_words: int, no_unk: bool) -> dict[str, Graph]:
    """The graphs of a run by the names of their files, with examples of their inputs.

    Args:
        run: the run. Without a latent variable it has no encoder.
        rows: N, sentences a call.
        max_words: T - 1 of the encoder, and T of greedy decoding.
        no_unk: whether greedy decoding rules ``<unk>`` out.
    """
    model, sizes = run.model, run.config.model
    source = randomness.generator(0, "generation", 0)
    z = randomness.normal(source, rows, sizes.latent_size)
    hidden, cell = (randomness.normal(source, 1, rows, sizes.hidden_size) for _ in range(2))
    words = source.integers(len(SPECIALS), len(run.vocabulary), rows).astype(np.int32)
    made = {}
    if not isinstance(model.posterior, NoLatent):
        inputs = {"tokens": _example_tokens(source, rows, max_words, len(run.vocabulary))}
        if model.posterior.noise_size:
            inputs["noise"] = randomness.normal(source, rows, model.posterior.noise_size)
        made["encoder"] = Graph(Encode(model), inputs, ("z",))
    made["decoder_start"] = Graph(DecoderStart(model.decoder), {"z": z}, ("hidden", "cell"))
    made["decoder_step"] = Graph(
        DecoderStep(model.decoder),
        {"words": words, "z": z, "hidden": hidden, "cell": cell},
        ("log_probabilities", "hidden", "cell"),
    )
    greedy = Greedy(model.decoder, max_words, no_unk)
    made["greedy"] = Graph(greedy, {"z": z}, ("sentences",))
    for graph in made.values():
        graph.cell.set_train(False)
    return made


def _example_tokens(
    source: np.random.Generator, rows: int, max_words: int, vocabulary_size: int
) -> np.ndarray:
    """(N, T + 1) int32: sentences of random words, of 1 to T - 1 words."""
    tokens = np.full((rows, max_words + 2), PAD, np.int32)
    for row in tokens:
        length = source.integers(1, max_words + 1)
        row[0], row[length + 1] = BEGIN, END
        row[1 : length + 1] = source.integers(len(SPECIALS), vocabulary_size, length)
    return tokens


def export_run(
    run: LoadedRun, rows: int = 1, max_words: int | None = None, no_unk: bool = False
) -> tuple[Path, dict[str, float]]:
    """Write ``RUN/export``.

    Args:
        run: from :func:`runs.loading.load_run`.
        rows: sentences that a call of a graph takes.
        max_words: longest sentence; None takes the run's ``data.max_words``.
        no_unk: whether greedy decoding rules ``<unk>`` out.

    Returns:
        The folder, and of every graph the largest difference between what it computes, loaded back,
        and what the model does.

    Raises:
        RuntimeError: A graph that was loaded back computes something else than the model.
        OSError: The folder cannot be written.
    """
    if max_words is None:
        max_words = run.config.data.max_words
    contents: dict[str, bytes] = {}
    descriptions: dict[str, dict[str, Any]] = {}
    for name, graph in graphs(run, rows, max_words, no_unk).items():
        file = f"{name}.mindir"
        contents[file], outputs, difference = _exported(name, graph)
        descriptions[name] = {
            "file": file,
            "sha256": hashlib.sha256(contents[file]).hexdigest(),
            "inputs": _described(graph.inputs),
            "outputs": _described(dict(zip(graph.outputs, outputs, strict=True))),
            "largest_difference": difference,
        }
    description = {
        "format": "MINDIR",
        "system": run.config.system,
        "checkpoint": run.checkpoint,
        "step": run.step,
        "version": __version__,
        "mindspore": mindspore.__version__,
        "device": mindspore.get_context("device_target"),
        "vocabulary": run.vocabulary.fingerprint(),
        "unit": run.config.data.unit,
        "no_unk": no_unk,
        "graphs": descriptions,
    }
    folder = run.folder / runs_folder.EXPORT
    folder.mkdir(exist_ok=True)
    # Graphs without a description are not finished.
    (folder / runs_folder.EXPORT_DESCRIPTION).unlink(missing_ok=True)
    for file, content in contents.items():
        write_atomically(folder / file, content)
    parameters = {item.name: item.asnumpy() for item in run.model.get_parameters()}
    write_state_dict(folder / runs_folder.EXPORT_WEIGHTS, to_state_dict(parameters))
    run.vocabulary.save(folder / runs_folder.VOCABULARY)
    write_atomically(
        folder / runs_folder.EXPORT_DESCRIPTION, json.dumps(description, indent=1) + "\n"
    )
    return folder, {name: graph["largest_difference"] for name, graph in descriptions.items()}


def _exported(name: str, graph: Graph) -> tuple[bytes, list[np.ndarray], float]:
    """A graph's file, the model's outputs for its examples, and how far the file's are from
    them."""
    inputs = [Tensor(values) for values in graph.inputs.values()]
    expected = _arrays(graph.cell(*inputs))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{name}.mindir")
        mindspore.export(graph.cell, *inputs, file_name=str(path), file_format="MINDIR")
        loaded = nn.GraphCell(mindspore.load(str(path)))
        found = _arrays(loaded(*inputs))
        content = path.read_bytes()
    difference = 0.0
    for output, ours, theirs in zip(graph.outputs, expected, found, strict=True):
        if not np.allclose(theirs, ours, rtol=TOLERANCE, atol=TOLERANCE):
            raise RuntimeError(f"{name}.mindir, loaded back, gives another {output} than the model")
        difference = max(difference, float(np.abs(theirs.astype(float) - ours).max()))
    return content, expected, difference


def _arrays(outputs: Tensor | Sequence[Tensor]) -> list[np.ndarray]:
    outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
    return [output.asnumpy() for output in outputs]


def _described(arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    return [
        {"name": name, "type": str(values.dtype), "shape": list(values.shape)}
        for name, values in arrays.items()
    ]
