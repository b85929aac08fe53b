"""The command generate: what it prints, what it refuses, and with which exit code."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_run import SENTENCES, write_run

from mindspore_cvae import ContrastiveVAE
from mindspore_cvae.commands.generate import generate_main

ROOT = Path(__file__).resolve().parents[2]
PAIR = ("the bank said it would sell its shares", "the market fell")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("command"), "cvae_plus_mi")


@pytest.fixture(scope="module")
def model(run):
    return ContrastiveVAE.load(run)


@pytest.fixture
def call(run, model, capfd, monkeypatch):
    """Runs the command in this process: exit code, lines on standard output, standard error.

    The model is loaded and its graphs are compiled once for all tests but :func:`test_the_script`.
    """
    monkeypatch.setattr(ContrastiveVAE, "load", lambda folder, checkpoint, config: model)

    def command(action, *arguments, run=run):
        code = generate_main([action, "--run", str(run), *map(str, arguments)])
        captured = capfd.readouterr()
        assert not captured.out or captured.out.endswith("\n")
        return code, captured.out.split("\n")[:-1], captured.err

    return command


@pytest.fixture
def typed(monkeypatch):
    """Puts bytes on standard input."""

    def put(content: bytes):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    return put


def test_sample_prints_one_sentence_a_line(call, model):
    code, lines, _ = call("sample", "--n", 11, "--seed", 1)
    assert code == 0
    assert lines == model.sample(11, seed=1)
    assert call("sample", "--seed", 1)[1] == lines[:10]
    assert call("sample", "--n", 0)[:2] == (0, [])


def test_a_label_is_decoded_from_its_mean_code(call, model, monkeypatch):
    code, lines, errors = call("sample", "--label", "market")
    assert (code, lines) == (2, []) and "label_column=true" in errors
    z = model.encode(["the market fell"])
    monkeypatch.setattr(model, "mean_code", {"market": (z, 1234)}.__getitem__)
    _, lines, errors = call("sample", "--label", "market", "--n", 3, "--seed", 1)
    assert lines == model.decode(np.repeat(z, 3, 0), "sample", seed=1)
    assert errors.splitlines().count("market: the mean code of 1,234 training sentences") == 1
    _, greedy, _ = call("sample", "--label", "market", "--n", 2, "--decoding", "greedy")
    assert greedy == 2 * model.reconstruct(["the market fell"])


def test_options_of_decoding_take_effect(call, model):
    given = ("--decoding", "sample", "--temperature", 2, "--top_k", 5, "--top_p", 0.9)
    _, lines, _ = call("sample", *given, "--max_words", 4, "--no_unk")
    options = {"temperature": 2.0, "top_k": 5, "top_p": 0.9, "max_words": 4, "no_unk": True}
    assert lines == model.sample(10, **options)
    _, lines, _ = call("sample", "--decoding", "beam", "--beam_size", 2, "--max_words", 4)
    assert lines == model.sample(10, "beam", beam_size=2, max_words=4)


def test_json_lines_of_samples(call, model):
    _, lines, _ = call("sample", "--n", 3, "--decoding", "greedy", "--jsonl")
    rows = [{"index": i, "sentence": text} for i, text in enumerate(model.sample(3, "greedy"))]
    assert [json.loads(line) for line in lines] == rows


def test_interpolate_goes_from_the_first_to_the_second(call, model):
    code, lines, _ = call("interpolate", *PAIR)
    assert code == 0
    assert lines == model.interpolate(*PAIR) and len(lines) == 11
    _, rows, _ = call("interpolate", *PAIR, "--steps", 3, "--jsonl")
    rows = [json.loads(row) for row in rows]
    assert [row["lambda"] for row in rows] == [1.0, 0.5, 0.0]
    assert [row["sentence"] for row in rows] == [lines[0], lines[5], lines[10]]
    z = model.encode(PAIR, samples=model.config.eval.samples)
    assert [rows[0]["sentence"], rows[2]["sentence"]] == model.decode(z)
    assert rows[0]["sentence"] != rows[2]["sentence"]


def test_sentences_come_from_arguments_a_file_or_standard_input(call, model, tmp_path, typed):
    file = tmp_path / "sentences.txt"
    file.write_text("\n".join(PAIR), encoding="utf-8")
    expected = model.reconstruct(PAIR)
    assert call("reconstruct", *PAIR)[:2] == (0, expected)
    assert call("reconstruct", "--input", file)[:2] == (0, expected)
    typed("\n".join([*PAIR, ""]).encode())
    assert call("reconstruct", "--input", "-")[:2] == (0, expected)
    typed("\n".join(PAIR).encode())
    assert call("reconstruct")[:2] == (0, expected)


@pytest.mark.parametrize("action", ["reconstruct", "interpolate", "nearest", "score", "encode"])
def test_a_dash_is_standard_input(call, typed, action):
    given = ("--jsonl", "--seed", 1) if action in ("reconstruct", "interpolate") else ("--jsonl",)
    expected = call(action, *PAIR, *given)[:2]
    assert expected[0] == 0 and expected[1]
    typed("\n".join(PAIR).encode())
    assert call(action, "-", *given)[:2] == expected


def test_a_dash_is_standard_input_of_arithmetic_and_of_codes(call, model, typed):
    expected = call("arithmetic", PAIR[0], "-", PAIR[1])[:2]
    typed(f"{PAIR[0]}\n-\n{PAIR[1]}\n".encode())
    assert call("arithmetic", "-")[:2] == expected
    file = io.BytesIO()
    np.save(file, model.encode(PAIR))
    typed(file.getvalue())
    assert call("decode", "--codes", "-")[:2] == (0, model.reconstruct(PAIR))
    typed(b"no array")
    code, _, told = call("decode", "--codes", "-")
    assert code == 2 and told.startswith("error: standard input is no .npy file")


def test_reconstruct_as_json_lines(call, model):
    _, lines, _ = call("reconstruct", *PAIR, "--jsonl")
    assert [json.loads(line) for line in lines] == [
        {"sentence": sentence, "reconstruction": text}
        for sentence, text in zip(PAIR, model.reconstruct(PAIR), strict=True)
    ]


def test_encode_writes_an_array(call, model, tmp_path):
    file = tmp_path / "codes"
    code, lines, _ = call("encode", *PAIR, "--output", file)
    assert (code, lines) == (0, [])
    z = np.load(file)
    assert z.dtype == np.float32
    np.testing.assert_array_equal(z, model.encode(PAIR))
    _, rows, _ = call("encode", *PAIR, "--jsonl")
    rows = [json.loads(row) for row in rows]
    assert [row["sentence"] for row in rows] == list(PAIR)
    np.testing.assert_allclose([row["z"] for row in rows], z, rtol=1e-6)


def test_nearest_prints_neighbours(call, model):
    query = SENTENCES[3]
    _, lines, _ = call("nearest", query, "--k", 2)
    assert lines[0] == query and len(lines) == 3
    assert lines[1] == f"0.0000\t{query}"
    found = model.nearest([query], k=2)[0]
    assert lines[2] == f"{found[1].distance:.4f}\t{found[1].sentence}"
    _, rows, _ = call("nearest", query, "--k", 2, "--jsonl")
    neighbours = [near._asdict() for near in found]
    assert json.loads(rows[0]) == {"sentence": query, "neighbours": neighbours}


def test_output_goes_to_a_file(call, model, tmp_path):
    file = tmp_path / "samples.txt"
    assert call("sample", "--n", 4, "--output", file)[:2] == (0, [])
    assert file.read_text(encoding="utf-8") == "".join(f"{text}\n" for text in model.sample(4))


def test_unknown_words_alone_are_no_error(call):
    code, lines, errors = call("reconstruct", "xyzzy plugh")
    assert code == 0 and len(lines) == 1
    assert "sentence 1" in errors and "<unk>" in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "--n", "-1"], "--n must be 0 or more"),
        (["sample", "--seed", "-1"], "--seed: '-1' is not a whole number from 0 to 4294967295"),
        (["sample", "--seed", str(2**32)], "--seed: '4294967296' is not"),
        (["sample", "--temperature", "0"], "temperature must be"),
        (["sample", "--top_p", "2"], "top_p must be"),
        (["sample", "--max_words", "0"], "max_words must be"),
        (["sample", "--decoding", "best"], "--decoding"),
        (["sample", "--set", "model.hidden_size=9"], "model.hidden_size"),
        (["interpolate", "the market fell"], "two sentences, not 1"),
        (["interpolate", *PAIR, "--steps", "1"], "--steps must be 2 or more"),
        (["reconstruct", "the market", ""], "sentence 2 has no words"),
        (["reconstruct", "fell " * 13], "sentence 1 has 13 words"),
        (["reconstruct", "--input", "no-such-file"], "no-such-file"),
        (["reconstruct", "the market", "--input", "file"], "not both"),
        (["encode", "the market"], "--output"),
        (["encode", "the market", "--output", "no/such/folder/z.npy"], "no/such/folder"),
        (["nearest", "the market", "--k", "0"], "--k must be 1 or more"),
        (["dream"], "dream"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_sentence(call, arguments, message):
    action, *rest = arguments
    code, lines, errors = call(action, *rest)
    assert (code, lines) == (2, [])
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert message in errors


def test_bad_lines_of_a_file_are_named(call, tmp_path, typed):
    file = tmp_path / "sentences.txt"
    file.write_text("the market\n\nfell\n", encoding="utf-8")
    code, lines, errors = call("encode", "--input", file, "--output", tmp_path / "z.npy")
    assert (code, lines) == (2, [])
    assert f"{file}, line 2 has no words" in errors
    assert not (tmp_path / "z.npy").exists()
    file.write_text("", encoding="utf-8")
    assert f"no sentence in {file}" in call("reconstruct", "--input", file)[2]
    typed(b"the \xff market\n")
    code, _, errors = call("reconstruct")
    assert code == 2 and "standard input, line 1: bytes that are not UTF-8" in errors
    typed(b"the market\n\0\n")
    assert "standard input, line 2: a NUL byte" in call("reconstruct")[2]


def test_a_byte_order_mark_is_no_part_of_the_first_word(call, typed):
    told = []
    for start in (b"", b"\xef\xbb\xbf"):
        typed(start + b"the market fell\n")
        told.append(call("reconstruct"))
    assert told[0] == told[1] and told[0][0] == 0


def test_what_is_no_run_is_refused(call, tmp_path):
    code, _, errors = call("sample", run=tmp_path / "none")
    assert code == 2 and "does not exist" in errors
    code, _, errors = call("sample", run=tmp_path)
    assert code == 2 and "is not a run" in errors


@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_the_script(run, model, checkpoint):
    options = ("sample", "--run", str(run), "--n", "3", "--checkpoint", checkpoint)
    done = subprocess.run(
        [sys.executable, str(ROOT / "generate.py"), *options],
        capture_output=True,
        text=True,
        cwd=run,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(f"{text}\n" for text in model.sample(3))


def test_help_and_refusals_do_not_wait_for_mindspore(run):
    check = (
        "import sys; from mindspore_cvae.commands.generate import generate_main;"
        f"code = generate_main(['reconstruct', '--run', {str(run)!r}, '']);"
        "assert (code, 'mindspore' in sys.modules) == (2, False)\n"
        "try: generate_main(['sample', '--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'mindspore' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "--top_p" in done.stdout


def test_codes_are_decoded_as_encode_wrote_them(call, model, tmp_path):
    codes = tmp_path / "z.npy"
    assert call("encode", "--output", codes, *PAIR)[0] == 0
    code, lines, _ = call("decode", "--codes", codes)
    assert code == 0 and lines == model.reconstruct(PAIR)


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00", "nan", "objects"])
def test_codes_that_are_none_are_one_sentence(call, tmp_path, content):
    codes = tmp_path / "z.npy"
    if isinstance(content, bytes):
        codes.write_bytes(content)
    else:
        made = np.full((2, 4), np.nan) if content == "nan" else np.array([{}, []], object)
        np.save(codes, made, allow_pickle=True)
    code, lines, errors = call("decode", "--codes", codes)
    assert (code, lines) == (2, [])
    assert errors.startswith(f"error: {codes} is no .npy file of finite numbers")


def test_scores_of_sentences(call, model):
    expected = model.score(PAIR)
    code, lines, _ = call("score", *PAIR)
    assert code == 0
    for number, line in enumerate(lines):
        *numbers, sentence = line.split("\t")
        assert sentence == PAIR[number]
        values = expected.neg_elbo, expected.rec, expected.kl, expected.tokens
        assert numbers[3] == str(expected.tokens[number])
        np.testing.assert_allclose(
            [float(text) for text in numbers], [value[number] for value in values], atol=1e-4
        )
    _, rows, _ = call("score", "--jsonl", PAIR[0])
    assert json.loads(rows[0])["rec"] == pytest.approx(expected.rec[0], rel=1e-5)


def test_arithmetic_decodes_the_sum_of_codes(call, model):
    a, b, c = (*PAIR, PAIR[0])
    z = model.encode([a, b, c])
    code, lines, _ = call("arithmetic", a, "-", b, "+", c)
    assert code == 0 and lines == model.decode(z[:1] - z[1:2] + z[2:])
    assert call("arithmetic", a)[1] == model.reconstruct([a])


@pytest.mark.parametrize("expression", [["a", "-"], ["a", "b"], ["a", "*", "b"]])
def test_arithmetic_needs_signs_between_sentences(call, expression):
    code, _, errors = call("arithmetic", *expression)
    assert code == 2 and "with - or + between them" in errors
