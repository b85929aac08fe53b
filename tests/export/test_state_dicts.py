"""State dicts of PyTorch's layout, into runs and out of them."""

from __future__ import annotations

import os
import pickle
import zipfile

import numpy as np
import numpy_twins as twins
import pytest
import safetensors.numpy
from tiny import rows
from tiny_run import SIZES, write_corpus, write_run

from mindspore_cvae.commands.convert import convert_main
from mindspore_cvae.commands.train import train_main
from mindspore_cvae.errors import InputError
from mindspore_cvae.export.state_dicts import (
    from_state_dict,
    read_state_dict,
    state_shapes,
    to_state_dict,
)
from mindspore_cvae.model.inference import Inference
from mindspore_cvae.runs import checkpoints
from mindspore_cvae.runs import folder as runs_folder
from mindspore_cvae.runs.loading import load_run

SHAPES = {"encoder.embedding.weight": (5, 2), "divergence.critic.weight": (3, 2)}
STATE = {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("convert"), "cvae_plus_mi")


def to_run(run, state, folder, *options):
    """The command that makes a run of a state dict with another run's words and sizes."""
    return convert_main(
        [
            *("to_run", "--state", str(state), "--output_dir", str(folder)),
            *("--vocabulary", str(run / runs_folder.VOCABULARY), "--system", "cvae_plus_mi"),
            *("--data_dir", str(run.parent / "data"), "--set", *SIZES, *options),
        ]
    )


def write_npz(path, arrays):
    np.savez(path, **arrays)


def random_state(run):
    """Numbers for every array of a run's model, unlike in every gate and bias."""
    source = np.random.default_rng(3)
    tensors = checkpoints.load(run / runs_folder.CHECKPOINTS).tensors
    shapes = state_shapes({name: values.shape for name, values in tensors.items()})
    return {name: source.normal(0, 0.7, shape).astype(np.float32) for name, shape in shapes.items()}


def test_the_bias_of_the_logits_is_the_last_column():
    folded = np.arange(12, dtype=np.float32).reshape(4, 3)
    state = to_state_dict({"decoder.vocabulary_weight": folded, "other": np.ones(2, np.float32)})
    assert state["decoder.vocabulary.weight"].tolist() == [[0, 1], [3, 4], [6, 7], [9, 10]]
    assert state["decoder.vocabulary.bias"].tolist() == [2, 5, 8, 11]
    assert all(values.flags.c_contiguous for values in state.values())
    shapes = {"decoder.vocabulary_weight": (4, 3), "other": (2,)}
    assert state_shapes(shapes) == {name: values.shape for name, values in state.items()}
    back = from_state_dict(state)
    assert back.keys() == {"decoder.vocabulary_weight", "other"}
    assert np.array_equal(back["decoder.vocabulary_weight"], folded)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_there_and_back_is_exact(run, tmp_path, suffix, capsys):
    path = tmp_path / f"state{suffix}"
    assert convert_main(["from_run", "--run", str(run), "--output", str(path)]) == 0
    assert to_run(run, path, tmp_path / "run") == 0
    assert capsys.readouterr().err == ""
    before = checkpoints.load(run / runs_folder.CHECKPOINTS).tensors
    after = checkpoints.load(tmp_path / "run" / runs_folder.CHECKPOINTS, "best")
    assert after.step == 0
    for name, values in before.items():
        assert np.array_equal(after.tensors[name], values), name
    again = tmp_path / f"again{suffix}"
    # Wherever it was trained, a run is read on the device that is asked for.
    argv = ["from_run", "--run", str(tmp_path / "run"), "--output", str(again)]
    argv += ["--device_target", "CPU"]
    assert convert_main(argv) == 0
    one, two = (read(file) for file in (path, again))
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[name], two[name]) for name in one)


def read(path):
    if path.suffix == ".safetensors":
        return safetensors.numpy.load_file(path)
    with np.load(path) as file:
        return dict(file)


def test_a_converted_run_computes_what_pytorch_defines(run, tmp_path):
    """Embedding, LSTM (gates i, f, g, o; two biases), Linear: with NumPy, from the state dict."""
    state = random_state(run)
    path = tmp_path / "state.npz"
    write_npz(path, state)
    assert to_run(run, path, tmp_path / "run") == 0
    loaded = load_run(tmp_path / "run")

    tokens = rows([[4, 5, 6, 7, 8], [9, 10], [11]], 6)
    h, _ = Inference(loaded.model).codes(load_tensor(tokens))
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    weights = {name: state[f"encoder.lstm.{name}"].astype(float) for name in names}
    for row, length in enumerate((7, 4, 3)):
        words = state["encoder.embedding.weight"].astype(float)[tokens[row, :length]]
        zero = np.zeros((1, 8))
        expected = twins.lstm(weights, words[:, None], zero, zero)[-1, 0]
        np.testing.assert_allclose(h.asnumpy()[row], expected, atol=1e-5)


def test_a_converted_run_computes_what_pytorch_itself_does(run, tmp_path):
    """PyTorch's own modules take the arrays by name, and give h, z's mean and -log p(x|z)."""
    torch = pytest.importorskip("torch", reason="PyTorch is missing: pip install .[benchmark]")
    state = random_state(run)
    path = tmp_path / "state.npz"
    write_npz(path, state)
    assert to_run(run, path, tmp_path / "run") == 0
    loaded = load_run(tmp_path / "run")
    sizes, count = loaded.config.model, len(loaded.vocabulary)
    linear, parts = torch.nn.Linear, torch.nn.ModuleDict
    embedding, hidden = sizes.embedding_size, sizes.hidden_size

    def half(inputs, **more):
        table = torch.nn.Embedding(count, embedding)
        return parts({"embedding": table, "lstm": torch.nn.LSTM(inputs, hidden), **more})

    model = parts(
        {
            "encoder": half(embedding),
            "posterior": parts(
                {
                    "from_hidden": linear(hidden, sizes.latent_size),
                    "from_noise": linear(sizes.noise_size, sizes.latent_size, bias=False),
                }
            ),
            "decoder": half(
                embedding + sizes.latent_size,
                initial_hidden=linear(sizes.latent_size, hidden, bias=False),
                vocabulary=linear(hidden, count),
            ),
        }
    )
    given = {name: torch.from_numpy(values) for name, values in state.items()}
    model.load_state_dict({name: v for name, v in given.items() if name.split(".")[0] in model})

    tokens = rows([[4, 5, 6, 7, 8], [9, 10], [11]], 6)
    found_h, statistics = Inference(loaded.model).codes(load_tensor(tokens))
    found_z = loaded.model.posterior.mean(statistics)
    found = loaded.model.decoder(load_tensor(tokens), found_z).asnumpy()
    for row, length in enumerate((7, 4, 3)):
        words = torch.from_numpy(tokens[row, :length]).long()
        with torch.no_grad():
            encoder, decoder = model["encoder"], model["decoder"]
            _, (h, _) = encoder["lstm"](encoder["embedding"](words))
            z = model["posterior"]["from_hidden"](h)
            start = decoder["initial_hidden"](z)
            read = torch.cat((decoder["embedding"](words[:-1]), z.expand(length - 1, -1)), 1)
            states, _ = decoder["lstm"](read, (start, torch.zeros_like(start)))
            logits = decoder["vocabulary"](states)
            nll = torch.nn.functional.cross_entropy(logits, words[1:], reduction="sum")
        np.testing.assert_allclose(found_h.asnumpy()[row], h[0], atol=1e-5)
        np.testing.assert_allclose(found_z.asnumpy()[row], z[0], atol=1e-5)
        np.testing.assert_allclose(found[row], nll, rtol=1e-5)


def load_tensor(values):
    from mindspore import Tensor

    return Tensor(values)


def test_a_state_dict_without_critics_makes_a_run_with_new_ones(run, tmp_path, capsys):
    state = random_state(run)
    present = {name: values for name, values in state.items() if "critic" not in name}
    assert present.keys() < state.keys()
    write_npz(tmp_path / "state.npz", present)
    assert to_run(run, tmp_path / "state.npz", tmp_path / "run") == 0
    assert "holds no critics" in capsys.readouterr().err
    tensors = checkpoints.load(tmp_path / "run" / runs_folder.CHECKPOINTS).tensors
    critics = [values for name, values in tensors.items() if name.startswith("divergence.")]
    assert critics and all(np.abs(values).max() > 0 for values in critics)


@pytest.mark.slow
def test_training_goes_on_from_a_converted_run(run, tmp_path):
    write_npz(tmp_path / "state.npz", random_state(run))
    folder = tmp_path / "run"
    assert to_run(run, tmp_path / "state.npz", folder, "train.epochs=1", "data.batch_size=4") == 0
    resume = ["--output_dir", str(folder), "--resume"]
    assert train_main(resume) == 2, "the file did not say what the words were learned from"
    assert train_main([*resume, "--force"]) == 0
    assert checkpoints.load(folder / runs_folder.CHECKPOINTS).step > 0
    assert (folder / runs_folder.LOG).read_text().startswith('{"event": "convert"')


class Trap:
    """Makes a folder if it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def truncated(path):
    write_npz(path, STATE)
    path.write_bytes(path.read_bytes()[:-40])


def twice(path):
    write_npz(path, STATE)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning):
        archive.writestr("encoder.embedding.weight.npy", b"")


def open_bracket(path):
    """A header that Python's tokenizer cannot end."""
    write_npz(path, STATE)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content.replace(b"}", b" "))


def claims_more(path):
    """A header that claims the right shape, and less content."""
    write_npz(path, STATE)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content[:-8])


def long_header(path):
    """A few bytes that unpack to a header of many."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in STATE:
            header = b"\x93NUMPY\x02\x00" + (2**24).to_bytes(4, "little")
            archive.writestr(name + ".npy", header + bytes(2**24))


def bad_lzma(path):
    """Compressed by LZMA, with a flipped byte."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for name in STATE:
            archive.writestr(name + ".npy", b"weights" * 99)
    content = bytearray(path.read_bytes())
    content[80:90] = b"\xff" * 10
    path.write_bytes(content)


def many_names(path):
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(20_000):
            archive.writestr(f"{number}.npy", b"")


BAD = {
    "no array": (
        lambda path: write_npz(path, {}),
        r"'divergence.critic.weight' is missing \(2 such\)",
    ),
    "one too many": (
        lambda path: write_npz(path, {**STATE, "x": np.ones(1)}),
        "'x' is no parameter",
    ),
    "shape": (
        lambda path: write_npz(path, {**STATE, "encoder.embedding.weight": np.ones((2, 5))}),
        r"has the shape \(2, 5\), but .* ask for \(5, 2\)",
    ),
    "huge": (
        lambda path: write_npz(path, {**STATE, "encoder.embedding.weight": np.ones(10**6)}),
        r"has the shape \(1000000,\)",
    ),
    "integers": (
        lambda path: write_npz(path, {**STATE, "encoder.embedding.weight": np.ones((5, 2), int)}),
        "has the type int64",
    ),
    "not finite": (
        lambda path: write_npz(
            path, {**STATE, "encoder.embedding.weight": np.full((5, 2), np.nan)}
        ),
        "not finite",
    ),
    "truncated": (truncated, "damaged"),
    "twice": (twice, "is there twice"),
    "short": (claims_more, "damaged"),
    "open": (open_bracket, "damaged"),
    "long header": (long_header, r"damaged.*version \(2, 0\)"),
    "lzma": (bad_lzma, "damaged"),
    "many names": (many_names, "is missing"),
    "empty": (lambda path: path.write_bytes(b""), "damaged"),
    "text": (lambda path: path.write_bytes(b"weights"), "damaged"),
    "folder": (lambda path: path.mkdir(), "not a file"),
    "absent": (lambda path: None, "does not exist"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_is_refused(tmp_path, what):
    path = tmp_path / "state.npz"
    make, message = BAD[what]
    make(path)
    with pytest.raises(InputError, match=message) as refusal:
        read_state_dict(path, SHAPES)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 64,
        (2**40).to_bytes(8, "little") + b"{}",
        safetensors.numpy.save(STATE)[:-4],
        safetensors.numpy.save({**STATE, "encoder.embedding.weight": np.ones((5, 2), np.int32)}),
    ],
)
def test_a_bad_safetensors_file_is_refused(tmp_path, content):
    path = tmp_path / "state.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="state.safetensors"):
        read_state_dict(path, SHAPES)


def test_nothing_is_unpickled(tmp_path):
    marker = tmp_path / "executed"
    trap = np.array([Trap(marker)] * 10, object).reshape(5, 2)
    np.savez(tmp_path / "state.npz", **{**STATE, "encoder.embedding.weight": trap})
    (tmp_path / "state.pth").write_bytes(pickle.dumps(Trap(marker)))
    with pytest.raises(InputError, match="has the type object"):
        read_state_dict(tmp_path / "state.npz", SHAPES)
    with pytest.raises(InputError, match="may run code"):
        read_state_dict(tmp_path / "state.pth", SHAPES)
    assert not marker.exists()


def test_half_and_double_precision_become_single(tmp_path):
    state = {
        "encoder.embedding.weight": np.full((5, 2), 0.5, np.float16),
        "divergence.critic.weight": np.full((3, 2), 0.25, np.float64),
    }
    for path, write in (
        (tmp_path / "state.npz", write_npz),
        (
            tmp_path / "state.safetensors",
            lambda file, arrays: safetensors.numpy.save_file(arrays, file),
        ),
    ):
        write(path, state)
        found = read_state_dict(path, SHAPES)
        assert {name: str(values.dtype) for name, values in found.items()} == {
            "encoder.embedding.weight": "float16",
            "divergence.critic.weight": "float64",
        }
    folded = np.ones((2, 3), np.float64)
    state = to_state_dict({"decoder.vocabulary_weight": folded})
    assert from_state_dict(state)["decoder.vocabulary_weight"].dtype == np.float32


@pytest.mark.parametrize(
    "argv, message",
    [
        (["from_run", "--run", "RUN", "--output", "x.pth"], ".npz or .safetensors"),
        (["from_run", "--run", "nowhere", "--output", "x.npz"], "does not exist"),
        (["to_run", "--state", "x.npz", "--vocabulary", "none", "--output_dir", "new"], "none"),
        (["to_run", "--state", "x.npz", "--vocabulary", "none", "--output_dir", "RUN"], "already"),
    ],
)
def test_bad_commands_are_one_line(run, argv, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert convert_main([str(run) if word == "RUN" else word for word in argv]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and message in told[0]
    assert not list(tmp_path.iterdir())


def test_a_run_that_fails_leaves_no_folder(run, tmp_path, capsys):
    write_npz(tmp_path / "state.npz", {"x": np.ones(1)})
    assert to_run(run, tmp_path / "state.npz", tmp_path / "run") == 2
    assert not (tmp_path / "run").exists()


def test_the_corpus_is_not_needed(run, tmp_path):
    write_npz(tmp_path / "state.npz", random_state(run))
    elsewhere = run.parent / "data"
    moved = elsewhere.rename(run.parent / "moved")
    try:
        assert to_run(run, tmp_path / "state.npz", tmp_path / "run") == 0
    finally:
        moved.rename(elsewhere)
    assert write_corpus(elsewhere) == elsewhere
