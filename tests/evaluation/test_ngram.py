"""Forward and reverse perplexity against KenLM's own query tool and numbers worked out by hand."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mindspore_cvae.commands import ngram as commands_ngram
from mindspore_cvae.errors import InputError, run_command
from mindspore_cvae.evaluation import ngram

ROOT = Path(__file__).resolve().parents[2]

TEXT = ["a b", "b a"]
# Order 2 by hand. Every bigram was seen once, so D1 = 0.5 holds; every unigram of the text
# continues two others, six in all, so D2 = 1 holds; uniform is 1/4 (a, b, </s>, the unknown word).
P_WORD = (2 - 1) / 6 + (3 * 1 / 6) * (1 / 4)
P_UNKNOWN = (3 * 1 / 6) * (1 / 4)
BACKOFF = 0.5 * 2 / 2
P_BIGRAM = (1 - 0.5) / 2 + BACKOFF * P_WORD


@pytest.fixture(scope="session")
def kenlm_programs():
    """KenLM's lmplz and query; built once for the checkout where there is a compiler."""
    try:
        ngram.find_program("lmplz")
        ngram.find_program("query")
        return
    except ngram.ProgramError:
        if os.environ.get("KENLM_BIN") or not shutil.which(os.environ.get("CXX", "c++")):
            pytest.skip("no lmplz here, and no C++ compiler to build it with")
    subprocess.run(
        ["bash", "scripts/build_kenlm.sh"],
        cwd=ROOT,
        env={**os.environ, "PYTHON": sys.executable},
        check=True,
    )


def query(arpa: Path, sentences: list[str], folder: Path) -> list[tuple[float, list[float]]]:
    """log10 p of each word of each sentence by KenLM's tool, ``</s>`` last, and the totals."""
    text = folder / "query.txt"
    text.write_text("".join(f"{sentence}\n" for sentence in sentences))
    printed = ngram.run_program("query", "-v", "sentence", "-v", "word", str(arpa), text=text)
    lines = printed.splitlines()
    assert len(lines) == len(sentences)
    return [[float(number) for number in re.findall(r"=\d+ \d+ (\S+)", line)] for line in lines]


@pytest.fixture(scope="module")
def tiny_model(kenlm_programs):
    return ngram.language_model(TEXT, order=2)


def test_probabilities_by_hand(tiny_model):
    def probability(sentence, end):
        score = ngram.perplexity(tiny_model, [sentence], end)
        return score.ppl**-score.tokens

    # Seen bigrams, an unseen one (backing off), an unknown word.
    assert probability("a b", end=True) == pytest.approx(P_BIGRAM**3, rel=1e-5)
    assert probability("b b", end=False) == pytest.approx(P_BIGRAM * BACKOFF * P_WORD, rel=1e-5)
    assert probability("x", end=False) == pytest.approx(BACKOFF * P_UNKNOWN, rel=1e-5)


def test_counts_of_a_score(tiny_model):
    score = ngram.perplexity(tiny_model, ["a x b", "", "x"], end_scored=True)
    assert (score.tokens, score.sentences, score.empty, score.unknown) == (7, 3, 1, 2)
    score = ngram.perplexity(tiny_model, ["a x b", "", "x"], end_scored=False)
    assert (score.tokens, score.sentences, score.empty, score.unknown) == (4, 3, 1, 2)


def test_padding_makes_a_distribution_over_the_vocabulary(kenlm_programs):
    model = ngram.language_model(TEXT, order=2, vocabulary_size=101)
    known = ["a", "b", "</s>"]

    def probability(word):
        return 10 ** model.score(word, bos=False, eos=False)

    # Each word that the text lacks has the same share of what interpolation sets aside.
    total = sum(map(probability, known)) + (101 - len(known)) * probability("lacking")
    assert total == pytest.approx(1.0, rel=1e-5)
    assert probability("lacking") == pytest.approx((3 * 1 / 6) / 101, rel=1e-5)


@pytest.mark.parametrize("prepare", [ngram.with_unknown_as_word, ngram.without_unknown])
def test_agrees_with_kenlms_query_tool_on_ptb(kenlm_programs, shared_data, tmp_path, prepare):
    train, valid = (
        prepare((shared_data / "ptb" / name).read_text().splitlines())
        for name in ("train.txt", "valid.txt")
    )
    arpa = tmp_path / "train.arpa"
    ngram.build(train, arpa)
    model = ngram.load(arpa)
    theirs = query(arpa, valid, tmp_path)
    for end_scored in (True, False):
        words = [word for line in theirs for word in (line if end_scored else line[:-1])]
        score = ngram.perplexity(model, valid, end_scored)
        assert score.tokens == len(words)
        assert score.ppl == pytest.approx(10 ** (-sum(words) / len(words)), rel=1e-3)


GENERATED = ["a b c", "", "a <unk> b", "a b c"]
REAL = {"train": ["a b c", "c <unk> a b", "b c a"], "test": ["a c b", "<unk> d"]}
VOCABULARY = ["<pad>", "<unk>", "<s>", "</s>", "a", "b", "c", "d"]


def test_released_protocol_against_the_tools(kenlm_programs, tmp_path):
    result = ngram.measure(ngram.PROTOCOLS["released"], GENERATED, REAL, VOCABULARY, order=3)

    def by_tool(learnt, scored):
        arpa = tmp_path / "model.arpa"
        ngram.build(learnt, arpa, order=3)
        words = [word for line in query(arpa, scored, tmp_path) for word in line[:-1]]
        return 10 ** (-sum(words) / len(words))

    # Both models learn without <unk>; the scored text keeps it; </s> is not scored.
    of_real = ["a b c", "c a b", "b c a"]
    of_generated = ["a", "b", "c", "d", "a b c", "", "a b", "a b c"]
    assert result["forward_ppl"] == pytest.approx(by_tool(of_real, GENERATED), rel=1e-5)
    for split in ("train", "test"):
        expected = by_tool(of_generated, REAL[split])
        assert result[f"reverse_ppl_{split}"] == pytest.approx(expected, rel=1e-5)
    assert result["reverse_ppl"] == result["reverse_ppl_train"]
    assert result["reverse"]["test"]["unknown"] == 1  # <unk>; the vocabulary's lines hold d
    assert result["empty_sentences"] == 1
    assert result["distinct_sentences"] == 3


def test_sampled_protocol_against_the_tools(kenlm_programs, tmp_path):
    result = ngram.measure(ngram.PROTOCOLS["sampled"], GENERATED, REAL, VOCABULARY, order=3)

    def as_word(sentences):
        return [sentence.replace("<unk>", "unknown") for sentence in sentences]

    def by_tool(learnt, scored):
        arpa = tmp_path / "model.arpa"
        ngram.build(as_word(learnt), arpa, order=3, vocabulary_size=len(VOCABULARY) - 2)
        words = [word for line in query(arpa, as_word(scored), tmp_path) for word in line]
        return 10 ** (-sum(words) / len(words))

    assert result["forward_ppl"] == pytest.approx(by_tool(REAL["train"], GENERATED), rel=1e-5)
    for split in ("train", "test"):
        expected = by_tool(GENERATED, REAL[split])
        assert result[f"reverse_ppl_{split}"] == pytest.approx(expected, rel=1e-5)
    assert result["reverse_ppl"] == result["reverse_ppl_test"]
    reference = by_tool(REAL["train"], REAL["test"])
    assert result["train_to_test_ppl"] == pytest.approx(reference, rel=1e-5)


def test_reverse_perplexity_sees_what_was_not_covered(kenlm_programs):
    real = {"train": REAL["train"] * 20, "test": ["a b c", "c a b", "b c a"] * 5}
    protocol = ngram.PROTOCOLS["sampled"]
    varied = ngram.measure(protocol, real["train"], real, VOCABULARY)
    collapsed = ngram.measure(protocol, ["a b c"] * 60, real, VOCABULARY)
    assert collapsed["forward_ppl"] < varied["forward_ppl"] * 1.5
    assert collapsed["reverse_ppl"] > varied["reverse_ppl"] * 1.5
    assert varied["reverse_ppl"] == varied["train_to_test_ppl"]


def test_nothing_generated_is_one_error(kenlm_programs):
    for empty in ([], [""], ["", "  "]):
        with pytest.raises(InputError, match="generated sentences are empty"):
            ngram.measure(ngram.PROTOCOLS["released"], empty, REAL, VOCABULARY)


def test_text_that_cannot_be_learnt_or_scored(tiny_model, tmp_path):
    with pytest.raises(InputError, match="2 sentences without a word"):
        ngram.build(["", " "], tmp_path / "model.arpa")
    with pytest.raises(InputError, match="reserved word </s>"):
        ngram.build(["a </s> b"], tmp_path / "model.arpa")
    with pytest.raises(InputError, match="no perplexity"):
        ngram.perplexity(tiny_model, ["", ""], end_scored=False)
    assert not list(tmp_path.iterdir())


def test_missing_program_is_one_line_and_exit_code_1(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KENLM_BIN", str(tmp_path / "nowhere"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run_command(lambda: ngram.find_program("lmplz")) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "lmplz was not found" in error
    assert "mindspore-cvae ngram build" in error


@pytest.mark.parametrize(
    "body", ["echo counting >&2; echo out of memory >&2; exit 3", "kill -9 $$"]
)
def test_failing_program_is_an_error(tmp_path, monkeypatch, body):
    program = tmp_path / "lmplz"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv("KENLM_BIN", str(tmp_path))
    expected = "status 3: out of memory" if "exit 3" in body else "status -9: it said nothing"
    with pytest.raises(ngram.ProgramError, match=expected):
        ngram.build(TEXT, tmp_path / "model.arpa")


def test_program_that_writes_nothing_is_an_error(tmp_path, monkeypatch):
    program = tmp_path / "lmplz"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    monkeypatch.setenv("KENLM_BIN", str(tmp_path))
    with pytest.raises(OSError, match="model.arpa"):
        ngram.language_model(TEXT)


@pytest.fixture
def run_folder(tmp_path):
    """A run whose model is not needed: its texts are made up by the tests."""
    from mindspore_cvae.config import layers
    from mindspore_cvae.runs import folder as runs_folder

    corpus, folder = tmp_path / "corpus", tmp_path / "run"
    corpus.mkdir()
    (folder / runs_folder.CHECKPOINTS).mkdir(parents=True)
    for split, sentences in {**REAL, "valid": REAL["test"]}.items():
        (corpus / f"{split}.txt").write_text("\n".join(sentences))
    layers.load(None, [], data_dir=str(corpus)).save(folder / runs_folder.CONFIG)
    (folder / runs_folder.VOCABULARY).write_text("".join(f"{word}\n" for word in VOCABULARY))
    return folder


def test_command_writes_both_protocols(kenlm_programs, run_folder, monkeypatch, capsys):
    asked = []

    def load(folder, checkpoint, *, config):
        assert (folder, checkpoint, config.eval.rows) == (run_folder, "best", 5)
        return SimpleNamespace(sample=sample, checkpoint="last", step=7)

    def sample(n, decoding, *, seed, max_words):
        asked.append((n, decoding, seed, max_words))
        return [GENERATED[number % 4] for number in range(n)]

    monkeypatch.setattr(commands_ngram.ContrastiveVAE, "load", load)
    commands_ngram.main(["--run", str(run_folder), "--seed", "5", "--set", "eval.rows=5"])
    # The longest training sentence has 4 words; the training split has 3 sentences.
    assert asked == [
        (1280, "greedy", 5, 80),
        (3, "sample", 5, 4),
    ]
    written = json.loads((run_folder / "ngram.json").read_text())
    released, sampled = written["protocols"]["released"], written["protocols"]["sampled"]
    assert {key: value for key, value in written.items() if key != "protocols"} == released
    assert released["forward_ppl"] > 1
    assert math.isfinite(released["reverse_ppl"])
    assert (released["generated_sentences"], sampled["generated_sentences"]) == (1280, 3)
    assert (released["decoding"], sampled["decoding"]) == ("greedy", "sample")
    assert (released["reverse_split"], sampled["reverse_split"]) == ("train", "test")
    for result in (released, sampled):
        assert result["order"] == 5
        # What was read, where no checkpoint was the best.
        assert (result["checkpoint"], result["step"], result["n"]) == ("last", 7, None)
        assert {"unk", "end_of_sentence", "smoothing", "max_words", "seed"} <= result.keys()
    assert "released: forward" in capsys.readouterr().out

    # What was measured alike stays; what was measured otherwise does not.
    asked.clear()
    options = ["--run", str(run_folder), "--seed", "5", "--set", "eval.rows=5"]
    commands_ngram.main([*options, "--protocol", "sampled"])
    assert len(asked) == 1
    again = json.loads((run_folder / "ngram.json").read_text())
    assert again["protocols"] == written["protocols"] and again["protocol"] == "sampled"
    commands_ngram.main([*options, "--protocol", "sampled", "--order", "3"])
    assert list(json.loads((run_folder / "ngram.json").read_text())["protocols"]) == ["sampled"]


@pytest.mark.parametrize("options", [["--n", "0"], ["--order", "9"], ["--protocol", "best"], []])
def test_bad_options_are_exit_code_2(options, tmp_path, capsys):
    code = run_command(lambda: commands_ngram.main(["--run", str(tmp_path / "none"), *options]))
    assert code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_installation_without_kenlm_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(ngram.importlib.util, "find_spec", lambda name: None)
    assert run_command(ngram.check_kenlm) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "pip install kenlm" in error
