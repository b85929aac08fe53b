"""Exported graphs, loaded back, compute what the equations say."""

from __future__ import annotations

import hashlib
import json

import mindspore as ms
import numpy as np
import numpy_twins as twins
import pytest
import safetensors.numpy
from mindspore import Tensor, nn
from tiny import rows
from tiny_run import write_run

from mindspore_cvae.commands.export import export_main
from mindspore_cvae.export import graphs
from mindspore_cvae.runs.loading import load_run

BEGIN, END = 2, 3
ROWS, WORDS = 3, 6
LSTM = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


class Exported:
    """A folder that was exported: its graphs, and the same by NumPy from its weights."""

    def __init__(self, run):
        self.folder = run / "export"
        self.description = json.loads((self.folder / "description.json").read_text())
        weights = safetensors.numpy.load_file(self.folder / "weights.safetensors")
        self.weights = {name: values.astype(float) for name, values in weights.items()}

    def call(self, name, *inputs):
        """A graph of the folder, loaded and called."""
        with_graph = nn.GraphCell(ms.load(str(self.folder / f"{name}.mindir")))
        outputs = with_graph(*map(Tensor, inputs))
        outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
        return [output.asnumpy() for output in outputs]

    def lstm(self, part):
        return {name: self.weights[f"{part}.lstm.{name}"] for name in LSTM}

    def hidden(self, sentence):
        """The encoder's last state of ``<s> ... </s>``."""
        words = self.weights["encoder.embedding.weight"][sentence][:, None]
        zero = np.zeros((1, 8))
        return twins.lstm(self.lstm("encoder"), words, zero, zero)[-1, 0]

    def dense(self, name, x):
        bias = self.weights.get(f"{name}.bias", 0.0)
        return x @ self.weights[f"{name}.weight"].T + bias

    def scores(self, beginning, z):
        """log p(next word) of a beginning that starts with ``<s>``."""
        words = self.weights["decoder.embedding.weight"][beginning]
        hidden = np.zeros((1, 8))
        if "decoder.initial_hidden.weight" in self.weights:
            words = np.concatenate([words, np.tile(z, (len(beginning), 1))], 1)
            hidden = self.dense("decoder.initial_hidden", z)[None]
        states = twins.lstm(self.lstm("decoder"), words[:, None], hidden, np.zeros((1, 8)))
        return twins.log_softmax(self.dense("decoder.vocabulary", states[-1, 0]))

    def sentence(self, z, banned):
        """The most probable word each time: (WORDS,) with 0 after ``</s>``."""
        words = [BEGIN]
        while len(words) <= WORDS and words[-1] != END:
            scores = self.scores(words, z)
            scores[banned] = -np.inf
            words.append(int(scores.argmax()))
        return words[1:] + [0] * (WORDS + 1 - len(words))


def export(folder, system, *overrides, options=()):
    run = write_run(folder, system, *overrides)
    argv = ["--run", str(run), "--file_format", "MINDIR", "--rows", str(ROWS)]
    assert export_main([*argv, "--max_words", str(WORDS), *options]) == 0
    return Exported(run)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export(tmp_path_factory.mktemp("export"), "cvae_plus_mi")


TOKENS = rows([[4, 5, 6, 7, 8], [9, 10], [11, 12, 4]], WORDS + 1)
Z = np.random.default_rng(5).normal(0, 1, (ROWS, 4)).astype(np.float32)


def check_decoder(exported, banned):
    hidden, cell = exported.call("decoder_start", Z)
    words = np.full(ROWS, BEGIN, np.int32)
    beginnings = [[BEGIN] for _ in range(ROWS)]
    for following in ([5, 7, 9], [6, 6, 4]):
        found, hidden, cell = exported.call("decoder_step", words, Z, hidden, cell)
        expected = [
            exported.scores(beginning, z) for beginning, z in zip(beginnings, Z, strict=True)
        ]
        np.testing.assert_allclose(found, expected, atol=2e-5)
        words = np.array(following, np.int32)
        for beginning, word in zip(beginnings, following, strict=True):
            beginning.append(word)
    (sentences,) = exported.call("greedy", Z)
    assert sentences.tolist() == [exported.sentence(z, banned) for z in Z]
    assert len({tuple(sentence) for sentence in sentences.tolist()}) > 1


def test_the_encoder_is_the_equations(exported):
    noise = np.random.default_rng(6).normal(0, 1, (ROWS, 4)).astype(np.float32)
    (z,) = exported.call("encoder", TOKENS, noise)
    for row, tokens in enumerate(TOKENS):
        h = exported.hidden(tokens[tokens != 0])
        expected = exported.dense("posterior.from_hidden", h)
        expected = expected + exported.dense("posterior.from_noise", noise[row])
        np.testing.assert_allclose(z[row], expected, atol=2e-5)


def test_the_decoder_is_the_equations(exported):
    check_decoder(exported, [0, BEGIN])


def test_the_description_fits_the_files(exported):
    description = exported.description
    assert description["graphs"].keys() == {
        *("encoder", "decoder_start", "decoder_step", "greedy"),
    }
    for graph in description["graphs"].values():
        content = (exported.folder / graph["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == graph["sha256"]
        assert graph["largest_difference"] <= graphs.TOLERANCE
    words = (exported.folder / "vocab.txt").read_text().split("\n")[:-1]
    assert description["graphs"]["decoder_step"]["outputs"][0] == {
        "name": "log_probabilities",
        "type": "float32",
        "shape": [ROWS, len(words)],
    }
    assert description["graphs"]["encoder"]["inputs"] == [
        {"name": "tokens", "type": "int32", "shape": [ROWS, WORDS + 2]},
        {"name": "noise", "type": "float32", "shape": [ROWS, 4]},
    ]
    assert description["step"] == 7 and description["checkpoint"] == "best"
    assert description["unit"] == "word"


@pytest.mark.slow
@pytest.mark.parametrize("system", ["ae", "vae", "sa_vae"])
def test_other_posteriors(tmp_path, system):
    exported = export(tmp_path, system, options=["--no_unk"])
    if system == "ae":
        (z,) = exported.call("encoder", TOKENS)
    else:
        noise = np.random.default_rng(6).normal(0, 1, (ROWS, 4)).astype(np.float32)
        (z,) = exported.call("encoder", TOKENS, noise)
    for row, tokens in enumerate(TOKENS):
        h = exported.hidden(tokens[tokens != 0])
        if system == "ae":
            expected = exported.dense("posterior.latent", h)
        else:
            both = exported.dense("posterior.mean_and_log_variance", h)
            expected = both[:4] + np.exp(both[4:] / 2) * noise[row]
        np.testing.assert_allclose(z[row], expected, atol=2e-5, rtol=1e-4)
    check_decoder(exported, [0, 1, BEGIN])


@pytest.mark.slow
def test_an_implicit_posterior(tmp_path):
    exported = export(tmp_path, "ivae_mi", "slots.posterior=mlp")
    noise = np.random.default_rng(6).normal(0, 1, (ROWS, 4)).astype(np.float32)
    (z,) = exported.call("encoder", TOKENS, noise)
    layers = [
        tuple(exported.weights[f"posterior.layers.{number}.{part}"] for part in ("weight", "bias"))
        for number in (0, 2, 4)
    ]
    for row, tokens in enumerate(TOKENS):
        h = exported.hidden(tokens[tokens != 0])
        expected = twins.multilayer_perceptron(layers, np.concatenate([h, noise[row]]))
        np.testing.assert_allclose(z[row], expected, atol=2e-5)


@pytest.mark.slow
def test_a_language_model_has_no_encoder(tmp_path):
    exported = export(tmp_path, "lstm_lm")
    assert "encoder" not in exported.description["graphs"]
    assert not (exported.folder / "encoder.mindir").exists()
    (sentences,) = exported.call("greedy", Z)
    assert sentences.tolist() == [exported.sentence(z, [0, BEGIN]) for z in Z]


def test_a_graph_that_computes_something_else_is_not_written(exported, tmp_path, monkeypatch):
    run = load_run(write_run(tmp_path, "ae"))
    start = graphs.graphs(run, ROWS, WORDS, False)["decoder_start"]
    monkeypatch.setattr(graphs, "graphs", lambda *unused: {"decoder_start": start})
    load, other = ms.load, str(exported.folder / "decoder_start.mindir")
    monkeypatch.setattr(ms, "load", lambda path: load(other))
    with pytest.raises(
        RuntimeError, match="decoder_start.mindir, loaded back, gives another hidden"
    ):
        graphs.export_run(run, ROWS, WORDS)
    assert not (run.folder / "export").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        (["--file_format", "ONNX"], "MINDIR"),
        (["--rows", "0"], "--rows"),
        (["--set", "model.hidden_size=16"], "model.hidden_size"),
        (["--run", "nowhere"], "nowhere"),
    ],
)
def test_bad_commands_are_one_line(exported, options, message, capsys):
    assert export_main(["--run", str(exported.folder.parent), *options]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and message in told[0]


def test_a_link_is_not_followed(exported, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    for path in exported.folder.parent.iterdir():
        if path.name != "export":
            (run / path.name).symlink_to(path)
    (run / "export").symlink_to(tmp_path)
    assert export_main(["--run", str(run)]) == 2
    assert "is a link" in capsys.readouterr().err
