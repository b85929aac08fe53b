"""Input from anywhere is read or refused in one sentence; it runs no code and writes nowhere."""

import ast
import io
import json
import os
import pickle
import sys
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from forgery import forge
from hypothesis import example, given, settings
from hypothesis import strategies as st
from interruptions import STEP_KINDS, Parts, options, write_corpus
from tiny_run import write_run

from mindspore_cvae import ContrastiveVAE
from mindspore_cvae.commands import generate
from mindspore_cvae.commands.generate import generate_main
from mindspore_cvae.commands.train import train_main
from mindspore_cvae.config import keys, layers
from mindspore_cvae.data.batches import EpochPlan, batches
from mindspore_cvae.data.corpus import load_corpus
from mindspore_cvae.data.vocabulary import BEGIN, END, PAD, Vocabulary
from mindspore_cvae.data.widths import corpus_widths
from mindspore_cvae.errors import InputError
from mindspore_cvae.runs import checkpoints, lock
from mindspore_cvae.runs.checkpoints import Checkpoint, CheckpointError
from mindspore_cvae.runs.loading import load_run
from mindspore_cvae.training.trainer import TrainingState

PACKAGE = Path(__file__).resolve().parents[2] / "mindspore_cvae"
SYSTEM = STEP_KINDS["joint"]

PIECES = [
    *(b"a", b"b", b"word", b"<unk>", b"<UNK>", b"_UNK", b"<pad>", b"<s>", b"<S>", b"</s>"),
    *(b" ", b"  ", b"\t", b"\n", b"\n\n", b"\r\n", b"\r", b"\v", b"\f", b"\x1c", b"\0"),
    *("\x85", "\u2028", "\u2029", "\xa0", "\u3000", "\ufeff", "\u200b", "\u0130", "\u00df"),
    # Latin-1, UTF-16, a surrogate, and a character that was cut off.
    *(b"\xe9", "a b\n".encode("utf-16"), b"\xed\xa0\x80", b"\xe2\x80"),
]
TEXTS = st.lists(
    st.sampled_from([piece if isinstance(piece, bytes) else piece.encode() for piece in PIECES]),
    max_size=40,
).map(b"".join) | st.binary(max_size=60)
GOOD = b"a b\nb a word\n" * 20
READING = st.fixed_dictionaries(
    {
        "data.max_words": st.sampled_from(["1", "2", "100"]),
        "data.vocabulary_size": st.sampled_from(["5", "6", "100"]),
        "data.too_long": st.sampled_from(["drop", "truncate", "error"]),
        "data.lowercase": st.sampled_from(["true", "false"]),
        "data.label_column": st.sampled_from(["true", "false"]),
        "data.unk_alias": st.sampled_from(["null", "_UNK", "a", "<UNK>"]),
    }
)


def assert_refusal(error: InputError, path: Path) -> None:
    message = str(error)
    assert str(path) in message and "\n" not in message and len(message) < 400


@settings(max_examples=400)
@given(texts=st.tuples(TEXTS, TEXTS | st.just(GOOD), st.just(GOOD)), reading=READING)
def test_any_bytes_are_a_corpus_or_refused(tmp_path_factory, texts, reading):
    folder = tmp_path_factory.mktemp("corpus")
    for name, text in zip(("train", "valid", "test"), texts, strict=True):
        (folder / f"{name}.txt").write_bytes(text)
    data = layers.load(None, [f"{key}={value}" for key, value in reading.items()]).data
    data = layers.override(keys.Config(data=data), [f"data.dir={folder}"]).data
    try:
        corpus = load_corpus(data)
    except InputError as error:
        assert_refusal(error, folder)
        return
    words = len(corpus.vocabulary)
    corpus.vocabulary.save(folder / "vocab.txt")
    assert Vocabulary.load(folder / "vocab.txt").words == corpus.vocabulary.words
    widths = corpus_widths(corpus, 3)
    for split in corpus.splits:
        assert 1 <= split.lengths.min() and split.lengths.max() <= data.max_words
        ids = set(np.concatenate(split.sentences).tolist())
        assert max(ids) < words and not ids & {PAD, BEGIN, END}
        plan = EpochPlan(split.lengths, widths, 4)
        seen = np.concatenate([batch.index for batch in batches(split, plan)])
        assert sorted(seen[seen >= 0]) == list(range(len(split)))


@settings(max_examples=100)
@given(text=st.lists(TEXTS, max_size=8).map(b"\n".join))
def test_any_bytes_in_one_file_are_a_corpus_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("corpus") / "all.txt"
    path.write_bytes(text)
    try:
        corpus = load_corpus(layers.load(None, [f"data.dir={path}"]).data)
    except InputError as error:
        assert_refusal(error, path)
    else:
        assert all(len(split) for split in corpus.splits)


@pytest.mark.parametrize("too_long", ["drop", "truncate", "error"])
@pytest.mark.parametrize("line", ["x" * 5_000_000, "x " * 1_000_000], ids=["word", "words"])
def test_a_huge_line(tmp_path, line, too_long):
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.txt").write_text(f"a b\n{line}\nb a\n")
    data = layers.load(None, [f"data.dir={tmp_path}", f"data.too_long={too_long}"]).data
    if too_long == "error" and " " in line:
        with pytest.raises(InputError, match="train.txt, line 2: 1000000 words") as error:
            load_corpus(data)
        assert_refusal(error.value, tmp_path)
        return
    kept = 2 if too_long == "drop" and " " in line else 3
    assert len(load_corpus(data).train) == kept


@settings(max_examples=200)
@given(text=TEXTS | TEXTS.map(lambda text: b"<pad>\n<unk>\n<s>\n</s>\n" + text))
def test_any_bytes_are_a_vocabulary_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_bytes(text)
    try:
        words = Vocabulary.load(path).words
    except InputError as error:
        assert_refusal(error, path)
    else:
        assert len(set(words)) == len(words) and all(word.split() == [word] for word in words)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
STATE = {**vars(TrainingState(step=7)), "system": "vae"}


def checkpoint(state: dict) -> Checkpoint:
    return Checkpoint(7, {}, state, {}, Path("run/checkpoints/step-00000007.safetensors"))


@settings(max_examples=300)
@given(changes=st.dictionaries(st.sampled_from([*STATE, "other"]), JSON))
@example(changes={"step": -1})
@example(changes={"epoch": 0})
@example(changes={"batch": -1})
@example(changes={"epoch": 2**64})
@example(changes={"window": {"steps": "x"}})
@example(changes={"step_state": {"aggressive": True}})
def test_a_forged_state_is_one_that_a_training_could_have_or_refused(changes):
    assert TrainingState.read(checkpoint(STATE), {}) == TrainingState(step=7)
    try:
        state = TrainingState.read(checkpoint({**STATE, **changes}), {})
    except CheckpointError as error:
        assert "run/checkpoints: the checkpoint of step 7" in str(error)
        assert changes
    else:
        assert state.step == 7 and 1 <= state.epoch < 2**53 and 0 <= state.batch < 2**53
        assert state.step_state == {}
        assert all(type(value) is float for value in state.window.values())


def damaged_headers(content: bytes, changes: dict) -> bytes:
    """A file of tensors with something else in its header."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["a"].update(changes)
    encoded = json.dumps(header).encode()
    return len(encoded).to_bytes(8, "little") + encoded + content[8 + size :]


@settings(max_examples=300)
@given(
    changes=st.dictionaries(
        st.sampled_from(["dtype", "shape", "data_offsets", "other"]),
        JSON
        | st.lists(st.integers(-3, 30), max_size=3)
        | st.sampled_from(["F64", "BF16", "F8_E4M3", "BOOL", "I4"]),
    ),
    tail=st.binary(max_size=4),
)
def test_forged_tensors_are_tensors_or_refused(tmp_path_factory, changes, tail):
    folder = tmp_path_factory.mktemp("checkpoints")
    tensors = {"a": np.arange(6, dtype=np.float32), "b": np.ones(2, np.int32)}
    path = checkpoints.save(folder, 7, tensors, {}, {})
    content = damaged_headers(path.read_bytes(), changes) + tail
    path.write_bytes(content)
    digest = checkpoints._digest(path)
    stored = {"file": path.name, "bytes": len(content), "sha256": digest}
    forge(folder / "step-00000007.json", tensors=stored)
    try:
        loaded = checkpoints.load(folder, 7)
    except CheckpointError as error:
        assert str(path) in str(error)
    else:
        assert loaded.tensors.keys() == {"a", "b"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"), "cvae_plus_mi")


@pytest.fixture(scope="module")
def model(run):
    return ContrastiveVAE.load(run)


def called(main, argv) -> tuple[int, str, str]:
    """Exit code and what a command prints; what is refused has one line of error."""
    out, errors = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    with redirect_stdout(out), redirect_stderr(errors):
        code = main([str(word) for word in argv])
    out.flush()
    printed, told = out.buffer.getvalue().decode(), errors.getvalue()
    assert code in (0, 2), told
    if code == 2:
        lines = told.splitlines()
        assert lines[-1].startswith("error: ")
        assert not [line for line in lines[:-1] if not line.startswith("warning: ")], told
    return code, printed, told


# Command lines come as text in which bytes that are not UTF-8 are surrogates.
TYPED = st.lists(
    st.sampled_from(
        ["market", "xyzzy", "<unk>", "<pad>", "</s>", " ", "\t", "\n", "\u2028", "\x00", "\udcff"]
    )
    | st.text(max_size=3),
    max_size=16,
).map("".join)


@pytest.mark.parametrize("action", ["reconstruct", "interpolate", "encode", "nearest"])
@settings(max_examples=25)
@given(sentences=st.lists(TYPED, min_size=1, max_size=3))
@example(sentences=["\udcff", "market"])
@example(sentences=["xyzzy plugh", "xyzzy"])
@example(sentences=["", "market"])
@example(sentences=["market " * 13, "market"])
def test_any_sentences_are_used_or_refused(run, model, action, sentences):
    argv = [action, "--run", run, "--jsonl", "--", *sentences]
    with (
        mock.patch.object(generate.ContrastiveVAE, "load", return_value=model),
        # A sentence that is a dash stands for it.
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the market\n"))),
    ):
        code, printed, _ = called(generate_main, argv)
    assert code == 0 or printed == ""
    if code == 0:
        expected = 11 if action == "interpolate" else len(sentences)
        assert len([json.loads(row) for row in printed.split("\n")[:-1]]) == expected


@settings(max_examples=200)
@given(content=st.binary(max_size=60) | TYPED.map(lambda text: text.encode("utf-8", "replace")))
def test_any_file_of_sentences_is_used_or_refused(tmp_path_factory, run, content):
    path = tmp_path_factory.mktemp("input") / "sentences.txt"
    path.write_bytes(content)
    stop = InputError("stopped before loading")
    with mock.patch.object(generate.ContrastiveVAE, "load", side_effect=stop):
        code, _, told = called(generate_main, ["encode", "--run", run, "--jsonl", "--input", path])
    assert code == 2 and ("stopped" in told or str(path) in told)


WORDS = st.sampled_from(
    [
        *("sample", "reconstruct", "interpolate", "encode", "nearest", "--run", "RUN", "--n", "5"),
        *("--seed", "-1", "1e9", "--decoding", "beam", "--temperature", "nan", "--top_k", "0"),
        *("--top_p", "1.5", "--beam_size", "--max_words", "--no_unk", "--steps", "--k", "--output"),
        *("/", "/dev/null/x", "--jsonl", "--input", "-", "--checkpoint", "best", "--set", "a=b"),
        *("eval.rows=3", "the market fell", "--", "=", "\x00", "\udcff", "x" * 300),
    ]
)


@settings(max_examples=300)
@given(argv=st.lists(WORDS, max_size=8))
def test_any_command_line_of_generate_is_refused_in_one_line(run, argv):
    argv = [str(run) if word == "RUN" else word for word in argv]
    stop = InputError("stopped before loading")
    with (
        mock.patch.object(generate.ContrastiveVAE, "load", side_effect=stop),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the market\n"))),
    ):
        code, _, _ = called(generate_main, argv)
    assert code == 2


def test_a_corpus_of_one_word_is_trained_on(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for name in ("train", "valid", "test"):
        (data / f"{name}.txt").write_text("word")
    argv = options(STEP_KINDS["critic_then_model"], data, tmp_path / "run", "train.epochs=2")
    assert train_main(argv) == 0


class Trap:
    """Runs a command if it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def traps(marker: Path) -> dict[str, bytes]:
    """Contents that would make a folder, were they trusted."""
    return {
        "pickle": pickle.dumps(Trap(marker), protocol=0),
        "yaml": f"seed: !!python/object/apply:os.mkdir [{str(marker)!r}]\n".encode(),
        "yaml name": f"data: {{dir: !!python/name:os.mkdir {marker}}}\n".encode(),
        "python": f"__import__('os').mkdir({str(marker)!r})\n".encode(),
        "array": np.array([Trap(marker)], object).dumps(),
    }


def snapshot(folder: Path) -> dict[Path, bytes | None]:
    return {
        path: path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if path.name != lock.LOCK
    }


@pytest.mark.parametrize("trap", traps(Path("x")))
@pytest.mark.parametrize(
    "name",
    [
        *("config.yaml", "vocab.txt", "checkpoints/step-00000007.json", "checkpoints/latest.json"),
        *("checkpoints/step-00000007.safetensors", "checkpoints/best.json"),
    ],
)
def test_no_file_of_a_run_is_executed(tmp_path, trap, name):
    run, marker = write_run(tmp_path, "ae"), tmp_path / "executed"
    (run / name).write_bytes(traps(marker)[trap])
    before = snapshot(tmp_path)
    refusals = [called(train_main, ["--output_dir", run, "--resume"])[0] == 2]
    for checkpoint in ("best", "last"):
        try:
            refusals.append(load_run(run, checkpoint) is None)
        except InputError as error:
            assert_refusal(error, run)
            refusals.append(True)
    # The latest checkpoint is found without its pointer, the best one is not.
    expected = {"latest.json": [True, False, False], "best.json": [True, True, False]}
    assert refusals == expected.get(Path(name).name, [True, True, True])
    assert not marker.exists()
    assert snapshot(tmp_path) == before


FORBIDDEN = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load"),
    *("yaml.full_load", "yaml.unsafe_load", "pickle.load", "pickle.loads", "marshal.loads"),
    *("np.load", "numpy.load", "mindspore.load_checkpoint", "ms.load_checkpoint", "torch.load"),
    *("mindspore.load", "ms.load", "shelve.open", "runpy.run_path"),
}
OWN_FILES = {
    ("graphs.py", "mindspore.load"),
    ("pictures.py", "np.load"),
}
"""Calls that read back what was written a moment before, or arrays alone (allow_pickle=False)."""


def calls(path: Path) -> Counter:
    """How often a file calls each name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return Counter(ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call))


def test_no_function_is_used_that_could_execute_what_it_reads():
    assert calls(Path(__file__))["pickle.dumps"] == 1, "the search finds what is there"
    found = {(path.name, name) for path in PACKAGE.rglob("*.py") for name in calls(path)}
    assert {call for call in found if call[1] in FORBIDDEN} == OWN_FILES


class Audit:
    """What Python's audit hook tells of files that are opened for writing, and of code."""

    CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.link")
    CODE = ("exec", "compile", "pickle.find_class", "marshal.loads", "subprocess.Popen")
    SHELL = ("os.system", "os.exec", "os.posix_spawn", "os.fork")
    WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

    def __init__(self):
        self.is_on = False
        self.written: set[str] = set()
        self.executed: list[tuple] = []
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple) -> None:
        if not self.is_on:
            return
        if event == "open" and not isinstance(arguments[0], int) and arguments[2] & self.WRITING:
            self.written.add(os.fsdecode(arguments[0]))
        elif event in self.CHANGES:
            self.written |= {
                os.fsdecode(path) for path in arguments if isinstance(path, (str, bytes, Path))
            }
        elif event in (*self.CODE, *self.SHELL):
            self.executed.append((event, arguments))

    def __enter__(self):
        self.is_on, self.written, self.executed = True, set(), []
        return self

    def __exit__(self, *error):
        self.is_on = False


def test_a_run_is_written_nowhere_but_in_its_folder(tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    data, audit = write_corpus(tmp_path / "data"), Audit()
    run = tmp_path / "run"
    with Parts():
        # First of all a training whose graphs are compiled, which MindSpore does by exec.
        assert train_main(options(SYSTEM, data, tmp_path / "first", "train.max_steps=2")) == 0
        begin = options(SYSTEM, data, run, "train.max_steps=2")
        resume = options(SYSTEM, data, run, "train.max_steps=4")
        with audit:
            assert train_main(begin) == 0
            assert train_main(resume) == 0
    assert audit.executed == []
    assert audit.written and {Path(path) for path in audit.written} == {
        path for path in map(Path, audit.written) if path == run or path.is_relative_to(run)
    }
    assert not list(elsewhere.iterdir())
