"""What sentences are made of: text comes back as it was, from units that hold no blank."""

import io
import json
import math
import sys

import numpy as np
import pytest
import sentencepiece
from hypothesis import example, given
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


# What a file can hold; the last is no character of Unicode.
LINES = st.text(st.characters(codec="utf-8", exclude_characters="\0\uffff"))
SPELLED = (
    "<s>",
    "</s>",
    "<pad>",
    "<unk>",
    "\u6211</s>\u597d <unk>,<unk> a",
    BLANK,
    "  a \u3000b\t",
)


def normal(text):
    """With one blank where there are several, and for every sign that stands for one."""
    return " ".join(text.replace(BLANK, " ").split())


@pytest.mark.parametrize("text", SPELLED)
def test_what_spells_a_special_is_text(pieces, text):
    """But for <unk>, which is one unit: no other word of a text may end a sentence."""
    for units in (CHARACTERS, pieces):
        split = units.split(text)
        assert normal(units.join(split)) == normal(text)
        assert split.count("<unk>") == text.count("<unk>")
        assert not {"<s>", "</s>", "<pad>"}.intersection(split)


@given(LINES)
def test_a_text_comes_back_from_its_characters(text):
    units = CHARACTERS.split(text)
    assert all(len(unit) == 1 and unit.split() == [unit] for unit in units if unit != "<unk>")
    assert normal(CHARACTERS.join(units)) == normal(text)


@given(LINES)
@example("\u00e9e\u0301 \u200d\ufeff\U0001f469\u200d\U0001f52c")
def test_a_text_comes_back_from_its_pieces(pieces, text):
    units = pieces.split(text)
    assert all(unit.split() == [unit] for unit in units)
    assert normal(pieces.join(units)) == normal(text)
    # A character that has no piece is a unit of its own.
    assert all(unit in pieces.known or len(unit) == 1 for unit in units if unit != "<unk>")


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


def learned_by_the_library(count):
    """With sentencepiece's own limit, which refuses what cannot be."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=written,
        vocab_size=count,
        normalization_rule_name="identity",
        character_coverage=1.0,
        bos_id=-1,
        eos_id=-1,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())


def test_as_many_pieces_as_there_are_and_no_fewer_than_characters(tmp_path):
    most = len(Pieces.learned(TEXTS, 5000).known) + 1
    assert learned_by_the_library(most).get_piece_size() == most
    with pytest.raises(RuntimeError, match=f"too high .*<= {most}."):
        learned_by_the_library(most + 1)
    place = write(tmp_path, TEXTS)
    told = load_corpus(Data(dir=place, unit="sentencepiece", pieces=5000)).messages
    assert told == (
        f"data.pieces is 5000, and the training text has no more than {most} pieces, <unk> counted:"
        " all of them are taken",
    )
    assert load_corpus(Data(dir=place, unit="sentencepiece", pieces=most)).messages == ()
    count = len({letter for text in TEXTS for letter in text if letter != " "})
    # The sign of a blank, and <unk>.
    message = f"^data.pieces is 5, and the characters of the training text alone make {count + 2}$"
    with pytest.raises(InputError, match=message):
        Pieces.learned(TEXTS, 5)


def test_pieces_that_the_training_text_lacks_are_known(tmp_path):
    """There a ``t`` is always the end of the piece ``hundert``, and has one of its own as well."""
    write(tmp_path, ["hundert Hunde", "Hunde", "hundert"] * 20)
    (tmp_path / "test.txt").write_text("tun\n")
    corpus = load_corpus(Data(dir=str(tmp_path), unit="sentencepiece"))
    there = set(np.concatenate(corpus.train.sentences))
    assert not there.intersection(corpus.vocabulary.encode("tun"))
    assert corpus.test.counts["unknown"] == 0
    assert corpus.vocabulary.decode(corpus.test.sentences[0]) == "tun"


def test_a_missing_library_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(InputError, match="the package sentencepiece: pip install sentencepiece$"):
        load_corpus(Data(dir=write(tmp_path, TEXTS), unit="sentencepiece"))


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
    again = Data(dir=str(path), unit="sentencepiece", max_words=1000)
    assert load_corpus(again, learned.vocabulary).fingerprint() == learned.fingerprint()


def test_perplexities_by_hand(tmp_path):
    place = write(tmp_path, ["ab  a", "b"])
    (tmp_path / "test.txt").write_text("ab \u00e4\nb\n")
    split = load_corpus(Data(dir=place, unit="character")).test
    assert split.counts["unknown"] == 1
    nats = {"neg_elbo": np.array([3.0, 2.0]), "iw_nll": np.array([2.5])}
    # The first has two words and four characters, the second one of each, and both end.
    assert text_perplexities(nats, split.text_lengths) == {
        "ppl_word": pytest.approx(math.exp(5 / 5)),
        "ppl_character": pytest.approx(math.exp(5 / 7)),
        "iw_ppl_word": pytest.approx(math.exp(2.5 / 3)),
        "iw_ppl_character": pytest.approx(math.exp(2.5 / 5)),
    }


def test_text_without_blanks_has_no_words(tmp_path):
    (place := tmp_path / "text").mkdir()
    assert load_corpus(Data(dir=write(place, ["a b"]))).test.text_lengths is None
    write(place, ["\u6211\u4eec\u53bb", "\u53bb"])
    lengths = load_corpus(Data(dir=str(place), unit="character")).test.text_lengths
    assert lengths.tolist() == [[1, 3], [1, 1]]
    found = text_perplexities({"neg_elbo": np.array([6.0, 3.0])}, lengths)
    assert found == {"ppl_word": None, "ppl_character": pytest.approx(math.exp(9 / 6))}
    huge = text_perplexities({"neg_elbo": np.array([5000.0])}, np.array([[2, 900]]))
    assert huge["ppl_word"] == math.inf, "null in the file"


def test_text_for_readers_of_words():
    assert Vocabulary([*SPECIALS, "a"]).spaced("a  b <unk>") == "a b <unk>"
    spaced = Vocabulary([*SPECIALS, "a"], CHARACTERS).spaced("ab c<unk>")
    assert spaced == f"a b {BLANK} c <unk>"


def test_a_run_of_pieces_reads_and_writes_text(tmp_path, capsys):
    settings = ("data.unit=sentencepiece", "data.pieces=40", "data.max_words=60", "data.buckets=1")
    run = write_run(tmp_path, "vae", *settings)
    assert (run / PIECES).is_file()
    argv = ["--run", str(run), "--samples", "1", "--iw_samples", "2", "--iw_proposal", "fit"]
    assert eval_main(argv) == 0
    loaded = Vocabulary.load(run / "vocab.txt", "sentencepiece")
    assert set(loaded.units.known) <= set(loaded.words)
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
