"""The vocabulary: order, numbering, the file."""

import string
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindspore_cvae.data.vocabulary import BEGIN, END, PAD, SPECIALS, UNKNOWN, Vocabulary
from mindspore_cvae.errors import InputError

WORDS = [*SPECIALS, "rise", "prices", "fall"]


@pytest.fixture
def vocabulary():
    return Vocabulary(WORDS)


def test_specials_have_the_first_ids():
    assert (PAD, UNKNOWN, BEGIN, END) == (0, 1, 2, 3)
    assert Vocabulary(SPECIALS).words == ["<pad>", "<unk>", "<s>", "</s>"]


def test_words_rank_by_frequency_then_alphabet():
    counts = Counter({"b": 2, "a": 2, "c": 5, "B": 2, "never": 0})
    assert Vocabulary.from_counts(counts, 100).words[4:] == ["c", "B", "a", "b", "never"]


def test_size_counts_the_specials():
    counts = Counter("aaabbc")
    assert Vocabulary.from_counts(counts, 6).words == [*SPECIALS, "a", "b"]
    assert len(Vocabulary.from_counts(counts, 6)) == 6


def test_unknown_words_of_the_text_take_no_second_place():
    assert Vocabulary.from_counts(Counter({"<unk>": 9, "a": 1}), 10).words == [*SPECIALS, "a"]


@pytest.mark.parametrize("size", [-1, 0, 4])
def test_a_size_without_room_for_words_is_refused(size):
    with pytest.raises(InputError, match=f"vocabulary_size is {size}; .* must be 5 or more"):
        Vocabulary.from_counts(Counter("a"), size)


def test_encode(vocabulary):
    ids = vocabulary.encode("prices rise and <unk> fall".split())
    assert ids.tolist() == [5, 4, UNKNOWN, UNKNOWN, 6]
    assert ids.dtype == np.int32
    assert vocabulary.encode([]).shape == (0,)


@given(st.lists(st.lists(st.sampled_from([*WORDS, "other"]), max_size=5), max_size=8))
def test_encode_all_is_encode_of_each(sentences):
    vocabulary = Vocabulary(WORDS)
    together = vocabulary.encode_all(sentences)
    assert [ids.tolist() for ids in together] == [
        vocabulary.encode(words).tolist() for words in sentences
    ]


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([5, 4], "prices rise"),
        ([BEGIN, 5, 4, END, 6, PAD], "prices rise"),
        ([5, PAD, UNKNOWN, PAD], "prices <unk>"),
        ([END], ""),
        ([], ""),
    ],
)
def test_decode(vocabulary, ids, text):
    assert vocabulary.decode(ids) == text
    assert vocabulary.decode(np.array(ids, np.int32)) == text


def test_contains(vocabulary):
    assert "rise" in vocabulary and "<unk>" in vocabulary and "other" not in vocabulary


@given(st.lists(st.text(string.printable + "éß\u200b中\ufeff"), unique=True))
def test_what_was_saved_is_loaded(tmp_path_factory, texts):
    words = dict.fromkeys([*SPECIALS, *("_".join(text.split()) for text in texts)])
    vocabulary = Vocabulary(word for word in words if word)
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    vocabulary.save(path)
    assert Vocabulary.load(path).words == vocabulary.words
    assert path.read_bytes().decode("utf-8").split("\n") == [*vocabulary.words, ""]


def test_files_from_other_systems_are_read(tmp_path, vocabulary):
    path = tmp_path / "vocab.txt"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(WORDS).encode())
    assert Vocabulary.load(path).words == vocabulary.words


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([], "begins with the words <pad> <unk> <s> </s>"),
        (["<unk>", "<pad>", "<s>", "</s>"], "begins with the words"),
        ([*WORDS, "two words"], "'two words' at number 8 is not one"),
        ([*WORDS, "", "more"], "'' at number 8 is not one"),
        ([*WORDS, "rise"], "'rise' is there at numbers 5 and 8"),
        ([*WORDS, "<s>"], "'<s>' is there at numbers 3 and 8"),
    ],
)
def test_a_file_that_is_no_vocabulary_is_refused(tmp_path, lines, reason):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError) as error:
        Vocabulary.load(path)
    assert str(path) in str(error.value) and reason in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="vocab.txt: cannot be read"):
        Vocabulary.load(tmp_path / "vocab.txt")


def test_fingerprints_tell_words_and_their_order():
    fingerprints = {
        Vocabulary([*SPECIALS, *words]).fingerprint()
        for words in ([], ["a"], ["a", "b"], ["b", "a"], ["ab"])
    }
    assert len(fingerprints) == 5
    assert Vocabulary([*SPECIALS, "a"]).fingerprint() in fingerprints
