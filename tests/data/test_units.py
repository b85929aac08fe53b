"""What sentences are made of: text comes back as it was, from units that hold no blank."""

import json
import math

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from tiny_run import SENTENCES, write_run

from mindspore_cvae.commands.evaluate import eval_main
from mindspore_cvae.commands.generate import generate_main
from mindspore_cvae.config.keys import Data
from mindspore_cvae.data.corpus import load_corpus
from mindspore_cvae.data.units import BLANK, CHARACTERS, PIECES, WORDS, Pieces, load_units
from mindspore_cvae.data.vocabulary import SPECIALS, Vocabulary
from mindspore_cvae.errors import InputError
from mindspore_cvae.evaluation.metrics import text_perplexities

TEXTS = [f"Der Hund Nr. {i} l\u00e4uft \u00fcber die Stra\u00dfe, oft." for i in range(60)]


@pytest.fixture(scope="module")
def pieces():
    return Pieces.learned(TEXTS, 50)


def normal(text):
    """With one blank where there are several, and for every sign that stands for one."""
    return " ".join(text.replace(BLANK, " ").split())


@given(st.text())
def test_a_text_comes_back_from_its_characters(text):
    units = CHARACTERS.split(text)
    assert all(len(unit) == 1 and unit.split() == [unit] for unit in units)
    assert normal(CHARACTERS.join(units)) == normal(text)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_a_text_comes_back_from_its_pieces(pieces, text):
    units = pieces.split(text)
    assert all(unit.split() == [unit] for unit in units)
    assert normal(pieces.join(units)) == normal(text)


def test_pieces_are_those_of_the_library(pieces):
    processor = sentencepiece.SentencePieceProcessor(model_proto=pieces.content)
    assert processor.get_piece_size() <= 50
    for text in TEXTS:
        assert pieces.split(text) == processor.encode(text, out_type=str)
        assert pieces.join(pieces.split(text)) == text == processor.decode(pieces.split(text))
    assert len(pieces.split(TEXTS[0])) < len(CHARACTERS.split(TEXTS[0]))


def test_the_same_text_gives_the_same_model(pieces):
    assert Pieces.learned(TEXTS, 50).content == pieces.content
    assert Pieces.learned(TEXTS[1:], 50).content != pieces.content


def test_as_many_pieces_as_there_are_and_no_fewer_than_characters():
    many = Pieces.learned(TEXTS, 5000)
    assert many.split("Der Hund") == Pieces.learned(TEXTS, 4000).split("Der Hund")
    count = len({letter for text in TEXTS for letter in text if letter != " "})
    # The sign of a blank, and <unk>.
    message = f"^data.pieces is 5, and the characters of the training text alone make {count + 2}$"
    with pytest.raises(InputError, match=message):
        Pieces.learned(TEXTS, 5)


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="pieces.model: cannot be read"):
        load_units("sentencepiece", tmp_path)
    (tmp_path / PIECES).write_bytes(b"weights")
    with pytest.raises(InputError, match="pieces.model: it is no model of sentencepiece"):
        load_units("sentencepiece", tmp_path)


def test_a_vocabulary_keeps_its_units(tmp_path, pieces):
    words = [*SPECIALS, BLANK, "a"]
    vocabularies = [Vocabulary(words, units) for units in (WORDS, CHARACTERS, pieces)]
    assert len({vocabulary.fingerprint() for vocabulary in vocabularies}) == 3
    vocabularies[2].save(tmp_path / "vocab.txt")
    again = Vocabulary.load(tmp_path / "vocab.txt", "sentencepiece")
    assert again.fingerprint() == vocabularies[2].fingerprint()
    assert again.decode([5, 4, 5, 3, 5]) == "a a"
    assert Vocabulary.load(tmp_path / "vocab.txt").decode([5, 4, 5]) == f"a {BLANK} a"


def write(folder, lines):
    for name in ("train", "valid", "test"):
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(folder)


def test_a_corpus_of_characters(tmp_path):
    place = write(tmp_path, ["\u6211\u4eec\u53bb", "", "a  <s> b", "\u6211" * 9])
    data = Data(dir=place, unit="character", max_words=8)
    corpus = load_corpus(data)
    decoded = [corpus.vocabulary.decode(numbers) for numbers in corpus.train.sentences]
    assert decoded == ["\u6211\u4eec\u53bb", "a <s> b"]
    assert corpus.train.lengths.tolist() == [3, 7] and corpus.train.lines.tolist() == [1, 3]
    counts = {"read": 4, "empty": 1, "dropped": 1, "truncated": 0, "unknown": 0}
    assert corpus.train.counts == counts
    cut = load_corpus(Data(dir=place, unit="character", max_words=8, too_long="truncate"))
    assert cut.vocabulary.decode(cut.train.sentences[2]) == "\u6211" * 8
    with pytest.raises(InputError, match="line 4: 9 characters, and data.max_words is 8"):
        load_corpus(Data(dir=place, unit="character", max_words=8, too_long="error"))


def test_a_file_is_split_alike_whatever_its_units(tmp_path):
    path = tmp_path / "all.txt"
    lines = (f"sentence {'abcdefgh'[i % 8]} of {'file' * (1 + i // 8)}" for i in range(200))
    path.write_text("\n".join(lines) + "\n")
    words, characters, learned = (
        load_corpus(Data(dir=str(path), unit=unit, max_words=1000))
        for unit in ("word", "character", "sentencepiece")
    )
    for split, other, third in zip(words.splits, characters.splits, learned.splits, strict=True):
        assert split.lines.tolist() == other.lines.tolist() == third.lines.tolist()
        texts = [
            [corpus.vocabulary.decode(numbers) for numbers in part.sentences]
            for corpus, part in ((words, split), (characters, other), (learned, third))
        ]
        assert texts[0] == texts[1] == texts[2]
    # As a run reads its text again.
    assert load_corpus(
        Data(dir=str(path), unit="sentencepiece", max_words=1000), learned.vocabulary
    ).fingerprint() == (learned.fingerprint())


def test_perplexities_by_hand():
    vocabulary = Vocabulary([*SPECIALS, BLANK, "a", "b"], CHARACTERS)
    sentences = [np.array([5, 6, 4, 5]), np.array([6])]
    found = text_perplexities(
        {"neg_elbo": np.array([3.0, 2.0]), "iw_nll": np.array([2.5])}, sentences, vocabulary
    )
    # "ab a" has two words and four characters, "b" one of each, and both end.
    assert found == {
        "ppl_word": pytest.approx(math.exp(5 / 5)),
        "ppl_character": pytest.approx(math.exp(5 / 7)),
        "iw_ppl_word": pytest.approx(math.exp(2.5 / 3)),
        "iw_ppl_character": pytest.approx(math.exp(2.5 / 5)),
    }


def test_a_run_of_pieces_reads_and_writes_text(tmp_path, capsys):
    settings = ("data.unit=sentencepiece", "data.pieces=40", "data.max_words=60")
    run = write_run(tmp_path, "vae", *settings)
    assert (run / PIECES).is_file()
    argv = ["--run", str(run), "--samples", "1", "--iw_samples", "2"]
    assert eval_main(argv) == 0
    metrics = json.loads((run / "metrics-test.json").read_text())
    tokens = sum(len(text.split()) + 1 for text in SENTENCES)
    nats = metrics["neg_elbo"] * len(SENTENCES)
    assert metrics["ppl_word"] == pytest.approx(math.exp(nats / tokens))
    assert metrics["iw_ppl_word"] > 1 and "PPL a word" in capsys.readouterr().out
    assert generate_main(["sample", "--run", str(run), "--n", "3"]) == 0
    assert BLANK not in capsys.readouterr().out
    assert generate_main(["reconstruct", "--run", str(run), "the market"]) == 0
    capsys.readouterr()
    other = Pieces.learned(SENTENCES[1:], 40)
    (run / PIECES).write_bytes(other.content)
    assert generate_main(["sample", "--run", str(run)]) == 2
    assert "vocab.txt with pieces.model is not the vocabulary" in capsys.readouterr().err
    (run / PIECES).unlink()
    assert generate_main(["sample", "--run", str(run)]) == 2
    assert "pieces.model: cannot be read" in capsys.readouterr().err
