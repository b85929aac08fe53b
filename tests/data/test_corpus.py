"""Text files and the embedded corpus as splits of numbered sentences."""

import dataclasses
import io
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mindspore_cvae.commands.data import main as print_statistics
from mindspore_cvae.config.keys import Data
from mindspore_cvae.config.layers import load
from mindspore_cvae.data import grammar
from mindspore_cvae.data.corpus import load_corpus, true_scores
from mindspore_cvae.data.labels import listed
from mindspore_cvae.data.vocabulary import SPECIALS, Vocabulary
from mindspore_cvae.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path):
    """A folder with three good splits, for tests that change one of them."""
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.txt").write_text("a b c\na b\n")
    return tmp_path


def read(folder, train: str | bytes | None = None, **options):
    """The corpus of a folder, its training file written anew; options of the data section."""
    if train is not None:
        content = train if isinstance(train, bytes) else train.encode("utf-8")
        (folder / "train.txt").write_bytes(content)
    return load_corpus(Data(dir=str(folder), **options))


def texts(corpus, split="train"):
    return [corpus.vocabulary.decode(ids) for ids in getattr(corpus, split).sentences]


@pytest.fixture(scope="module")
def embedded():
    return load_corpus(Data())


# Folders


def test_a_folder_with_three_files(tmp_path):
    (tmp_path / "train.txt").write_text(" b a \n\nc\tb  a\n")
    (tmp_path / "valid.txt").write_text("a d\n")
    (tmp_path / "test.txt").write_text("d d b")
    corpus = load_corpus(Data(dir=str(tmp_path)))
    assert corpus.vocabulary.words == [*SPECIALS, "a", "b", "c"]
    assert [ids.tolist() for ids in corpus.train.sentences] == [[5, 4], [6, 5, 4]]
    assert [ids.tolist() for ids in corpus.valid.sentences] == [[4, 1]]
    assert [ids.tolist() for ids in corpus.test.sentences] == [[1, 1, 5]]
    assert {ids.dtype for split in corpus.splits for ids in split.sentences} == {np.dtype("int32")}
    assert corpus.train.lines.tolist() == [1, 3]
    assert corpus.train.counts == {
        "read": 3, "empty": 1, "dropped": 0, "truncated": 0, "unknown": 0,
    }  # fmt: skip
    assert corpus.test.counts["unknown"] == 2
    assert corpus.train.lengths.tolist() == [2, 3]
    assert (corpus.train.tokens, len(corpus.train)) == (7, 2)
    assert corpus.train.source == str(tmp_path / "train.txt")
    assert [split.name for split in corpus.splits] == ["train", "valid", "test"]
    assert corpus.train.log_probabilities is None and corpus.train.labels is None
    assert true_scores(corpus.test) is None
    assert corpus.messages == ()


def test_validation_may_be_named_val(folder):
    (folder / "valid.txt").rename(folder / "val.txt")
    assert read(folder).valid.source == str(folder / "val.txt")


def test_two_validation_files_are_refused(folder):
    (folder / "val.txt").write_text("a\n")
    with pytest.raises(InputError, match=r"both valid\.txt and val\.txt are there"):
        read(folder)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_a_missing_file_is_named(folder, split):
    (folder / f"{split}.txt").unlink()
    with pytest.raises(InputError, match=rf"no {split}\.txt.* in this folder"):
        read(folder)


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: cannot be read \(No such file.*--data_dir"):
        load_corpus(Data(dir=str(tmp_path / "nowhere")))
    with pytest.raises(InputError, match=rf"mindspore-cvae data get ptb {tmp_path}/ptb`"):
        load_corpus(Data(dir=str(tmp_path / "ptb")))


def test_a_split_of_unknown_words_is_told(folder):
    assert not any("<unk>" in message for message in read(folder).messages)
    (folder / "valid.txt").write_text("ganz andere worte\n")
    (message,) = read(folder).messages
    assert "valid.txt: 3 of 3 words are not in the vocabulary" in message


@pytest.mark.parametrize("content", ["", "\n", " \n\t\n\r\n"])
@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_a_split_without_a_sentence_is_refused(folder, split, content):
    (folder / f"{split}.txt").write_text(content)
    reason = rf"{split}\.txt: no sentence left of {content.count(chr(10))} lines"
    with pytest.raises(InputError, match=reason):
        read(folder)


# Lines and words


def test_only_a_line_feed_ends_a_line(folder):
    separators = "\v\f\x1c\x1d\x1e\x85\u2028\u2029"
    corpus = read(folder, "".join(f"a{separator}b " for separator in separators) + "\nc\n")
    assert len(corpus.train) == 2
    assert corpus.train.lengths.tolist() == [2 * len(separators), 1]
    assert corpus.train.lines.tolist() == [1, 2]


@pytest.mark.parametrize(
    "content",
    [
        b"a b\r\nc\r\n",
        b"\xef\xbb\xbfa b\nc\n",
        b"\xef\xbb\xbfa b\r\n\r\nc",
        b"a\xc2\xa0b\n\n\nc\n\n",
    ],
)
def test_line_ends_marks_and_blanks_of_other_systems(folder, content):
    assert texts(read(folder, content)) == ["a b", "c"]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"good\n\xff\n", 2),
        (b"\xef\xbb\xbf\n\n\xe9t\xe9\n", 3),
        (b"a\nb\nc\xc3", 3),
        ("é\nà\n".encode("utf-16"), 1),
    ],
)
def test_undecodable_bytes_are_located(folder, content, line):
    with pytest.raises(InputError, match=rf"train\.txt, line {line}: bytes that are not UTF-8"):
        read(folder, content)


def test_nul_bytes_are_located(folder):
    with pytest.raises(InputError, match=r"train\.txt, line 3: a NUL byte"):
        read(folder, b"\xef\xbb\xbfa\nb\nc\0\n")


def test_unknown_words_of_the_text(folder):
    corpus = read(folder, "a <unk> b\n<unk>\n")
    assert [ids.tolist() for ids in corpus.train.sentences] == [[4, 1, 5], [1]]
    assert corpus.train.counts["unknown"] == 2


@pytest.mark.parametrize("word", ["<pad>", "<s>", "</s>"])
def test_reserved_words_are_located(folder, word):
    (folder / "test.txt").write_text(f"a{word} {word}b\n\nb {word} c\n")
    with pytest.raises(InputError, match=rf"test\.txt, line 3: the word {word} is reserved"):
        read(folder)


def test_reserved_words_may_be_parts_of_words(folder):
    assert texts(read(folder, "a<s>b <pad>s\n")) == ["a<s>b <pad>s"]


def test_case(folder):
    assert texts(read(folder, "The THE the\n")) == ["The THE the"]
    assert texts(read(folder, "The THE the\n", lowercase=True)) == ["the the the"]


def test_lowercase_may_make_a_reserved_word(folder):
    with pytest.raises(InputError, match="line 1: the word <s> is reserved"):
        read(folder, "a <S>\n", lowercase=True)


@pytest.mark.parametrize("lowercase", [False, True])
def test_the_alias_of_unknown_words(folder, lowercase):
    corpus = read(folder, "_UNK a _UNK <unk> _UNKs\n", unk_alias="_UNK", lowercase=lowercase)
    word = "_unks" if lowercase else "_UNKs"
    assert texts(corpus) == [f"<unk> a <unk> <unk> {word}"]
    assert corpus.train.counts["unknown"] == 3
    assert "_UNK" not in corpus.vocabulary and "_unk" not in corpus.vocabulary


def test_labels_are_kept_beside_their_sentences(folder):
    lines = "1\ta\tb\n\n0\t\n5 Stars \tc\n\tD d\n2\ta b c D d\n"
    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt").write_text(lines)
    corpus = read(folder, label_column=True, lowercase=True, max_words=4)
    assert texts(corpus) == ["a b", "c", "d d"]
    assert corpus.train.counts["empty"] == 2 and corpus.train.counts["dropped"] == 1
    assert corpus.train.lines.tolist() == [1, 4, 5]
    assert corpus.valid.labels == ["1", "5 Stars", ""]


def test_labels_change_nothing_of_what_is_trained(folder):
    plain = "".join(f"word{number} a b\n" for number in range(300))
    labelled = "".join(f"{number % 3}\t{line}\n" for number, line in enumerate(plain.splitlines()))
    for name in ("train", "valid", "test", "all"):
        (folder / f"{name}.txt").write_text(plain)
        (folder / f"{name}-labelled.txt").write_text(labelled)
    without = read(folder / "all.txt")
    corpus = read(folder / "all-labelled.txt", label_column=True)
    assert corpus.fingerprint() == without.fingerprint()
    assert [split.labels for split in without.splits] == [None] * 3
    for split in corpus.splits:
        assert split.labels == [str((line - 1) % 3) for line in split.lines]
    for name in ("train", "valid", "test"):
        (folder / f"{name}.txt").write_text("\ta b\n")
    assert read(folder, label_column=True).train.labels is None, "a column without a label"


def test_yelps_format_on_generated_text(tmp_path):
    """Stars, a tab, a review in which rare words are _UNK: read by the shipped configuration."""
    rare = {"insurers", "dividend"}
    expected = {}
    for split, sample in grammar.generate(1, {"train": 300, "valid": 40, "test": 40}).items():
        expected[split] = [
            " ".join("<unk>" if word in rare else word for word in text.split())
            for text in sample.texts
        ]
        lines = [
            f"{1 + number % 5}\t{text.replace('<unk>', '_UNK')}\n"
            for number, text in enumerate(expected[split])
        ]
        (tmp_path / f"{split}.txt").write_text("".join(lines))
    corpus = load_corpus(load("yelp", data_dir=str(tmp_path)).data)
    for split in expected:
        known = {*corpus.vocabulary.words, "<unk>"}
        assert texts(corpus, split) == [
            " ".join(word if word in known else "<unk>" for word in text.split())
            for text in expected[split]
        ]
    assert texts(corpus) == expected["train"]
    unknown = " ".join(expected["train"]).split().count("<unk>")
    assert corpus.train.counts["unknown"] == unknown > 0
    assert not {"_UNK", *"12345"} & set(corpus.vocabulary.words)


def test_a_line_without_a_label_is_located(folder):
    with pytest.raises(InputError, match=r"train\.txt, line 2: no tab behind a label"):
        read(folder, "1\ta\n2 b\n", label_column=True)


def test_a_vocabulary_that_is_given_is_used(folder):
    vocabulary = Vocabulary([*SPECIALS, "b"])
    corpus = load_corpus(Data(dir=str(folder)), vocabulary)
    assert corpus.vocabulary is vocabulary
    assert corpus.train.sentences[0].tolist() == [1, 4, 1]


# Long sentences


LONG = "a a a\na a\nb b b b\na\n"


def test_too_long_sentences_are_dropped(folder):
    corpus = read(folder, LONG, max_words=2)
    assert texts(corpus) == ["a a", "a"]
    assert corpus.train.counts["dropped"] == 2 and corpus.train.counts["truncated"] == 0
    assert corpus.train.lines.tolist() == [2, 4]
    assert "b" not in corpus.vocabulary


def test_too_long_sentences_are_truncated(folder):
    corpus = read(folder, LONG, max_words=2, too_long="truncate")
    assert texts(corpus) == ["a a", "a a", "b b", "a"]
    assert corpus.train.counts["dropped"] == 0 and corpus.train.counts["truncated"] == 2


def test_too_long_sentences_are_located(folder):
    with pytest.raises(InputError, match=r"train\.txt, line 3: 4 words, and data\.max_words is 3"):
        read(folder, LONG, max_words=3, too_long="error")
    assert len(read(folder, LONG, max_words=4, too_long="error").train) == 4


def test_dropping_every_sentence_is_refused(folder):
    with pytest.raises(InputError, match=r"left of 3 lines \(1 empty, 2 of more than data\.max_"):
        read(folder, "a a\n\nb b b\n", max_words=1)


# One file


@pytest.fixture
def one_file(tmp_path):
    path = tmp_path / "all.txt"
    lines = [f"sentence number {number % 4000}" for number in range(6000)]
    path.write_text("\n".join(lines) + "\n\n\n")
    return path


def test_one_file_is_shared_out(one_file):
    corpus = load_corpus(Data(dir=str(one_file)))
    written = one_file.read_text().split("\n")
    by_split = [{written[line - 1] for line in split.lines} for split in corpus.splits]
    assert set.union(*by_split) == {f"sentence number {number}" for number in range(4000)}
    # Equal sentences share a split.
    assert sum(map(len, by_split)) == 4000
    assert sum(map(len, corpus.splits)) == 6000
    lines = np.concatenate([split.lines for split in corpus.splits])
    assert sorted(lines) == list(range(1, 6001))
    # 4,000 independent draws: four standard deviations are 1.9 and 1.4 per cent.
    assert abs(len(by_split[0]) / 4000 - 0.90) < 0.019
    assert abs(len(by_split[1]) / 4000 - 0.05) < 0.014
    assert abs(len(by_split[2]) / 4000 - 0.05) < 0.014
    assert sum(split.counts["read"] for split in corpus.splits) == 6002
    assert sum(split.counts["empty"] for split in corpus.splits) == 2
    (message,) = corpus.messages
    assert str(one_file) in message and "90/5/5" in message and "hash" in message


def test_a_sentences_split_does_not_depend_on_the_others(one_file):
    def splits_of_texts():
        corpus, written = load_corpus(Data(dir=str(one_file))), one_file.read_text().split("\n")
        return {written[line - 1]: split.name for split in corpus.splits for line in split.lines}

    before = splits_of_texts()
    lines = one_file.read_text().split("\n")
    one_file.write_text("another first line\n" + "\n".join(reversed(lines[::2])))
    after = splits_of_texts()
    del after["another first line"]
    assert len(after) == 2000
    assert after.items() <= before.items()


def test_sentences_that_become_equal_share_a_split(tmp_path):
    path = tmp_path / "all.txt"
    path.write_text("".join(f"{number % 500} a tail {number}\n" for number in range(5000)))
    corpus = load_corpus(Data(dir=str(path), too_long="truncate", max_words=2))
    by_split = [{(line - 1) % 500 for line in split.lines} for split in corpus.splits]
    assert sum(map(len, by_split)) == 500
    assert sum(split.counts["truncated"] for split in corpus.splits) == 5000


def test_a_file_of_too_few_sentences_is_refused(tmp_path):
    path = tmp_path / "all.txt"
    path.write_text("just one sentence\n")
    with pytest.raises(InputError, match=r"all\.txt: none of its 1 sentences falls into"):
        load_corpus(Data(dir=str(path)))


def test_one_empty_file_is_refused(tmp_path):
    path = tmp_path / "all.txt"
    path.write_text("\n\n")
    with pytest.raises(InputError, match=r"all\.txt: no sentence left of 2 lines \(2 empty"):
        load_corpus(Data(dir=str(path)))


# Fingerprints


def test_fingerprints_tell_corpora_apart(folder):
    first = read(folder, "a b\nc\n").fingerprint()
    assert read(folder, "a b\nc\n").fingerprint() == first
    assert read(folder, "\n a  b\r\nc").fingerprint() == first
    changed = ["a b\nd\n", "a\nb c\n", "c\na b\n", "a b c\n", "a b\nc\nc\n"]
    others = {read(folder, content).fingerprint() for content in changed}
    assert len(others | {first}) == len(changed) + 1


def test_fingerprints_tell_the_splits_borders(folder):
    fingerprints = set()
    for train, valid in (("a\na\n", "a\n"), ("a\n", "a\na\n")):
        (folder / "valid.txt").write_text(valid)
        fingerprints.add(read(folder, train).fingerprint())
    assert len(fingerprints) == 2


# The embedded corpus


def test_the_embedded_corpus(embedded):
    assert [len(split) for split in embedded.splits] == [20_000, 2_000, 2_000]
    assert set(grammar.embedded_grammar().words()) == set(embedded.vocabulary.words[4:])
    samples = grammar.generate()
    for split in embedded.splits:
        assert all(split.counts[key] == 0 for key in ("empty", "dropped", "truncated", "unknown"))
        sample = samples[split.name]
        assert texts(embedded, split.name) == sample.texts
        np.testing.assert_array_equal(split.log_probabilities, sample.log_probabilities)
        assert split.labels == [grammar.TOPICS[topic] for topic in sample.topics]
    assert embedded.messages == ()


@pytest.fixture
def fewer_sentences(monkeypatch):
    """The embedded corpus, but small."""
    counts = {"train": 400, "valid": 40, "test": 40}
    generate = grammar.generate
    monkeypatch.setattr(grammar, "generate", lambda seed: generate(seed, counts))


@pytest.mark.usefixtures("fewer_sentences")
def test_how_files_are_written_does_not_concern_the_embedded_corpus():
    data = Data(lowercase=True, label_column=True, unk_alias="the")
    assert load_corpus(data).fingerprint() == load_corpus(Data()).fingerprint()


@pytest.mark.usefixtures("fewer_sentences")
def test_another_seed_gives_another_embedded_corpus():
    first, again, other = (load_corpus(Data(), seed_of_embedded=seed) for seed in (0, 0, 1))
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    assert first.vocabulary.words[4:] != other.vocabulary.words[4:]
    assert set(first.vocabulary.words) == set(other.vocabulary.words)


def test_true_scores(embedded):
    total = -sum(embedded.test.log_probabilities[:3])
    tokens = sum(len(sentence) + 1 for sentence in embedded.test.sentences[:3])
    scores = true_scores(embedded.test, 3)
    assert scores.nll == pytest.approx(total / 3)
    assert scores.perplexity == pytest.approx(math.exp(total / tokens))
    everything = true_scores(embedded.test)
    assert everything == true_scores(embedded.test, 2000)
    assert everything.nll == pytest.approx(-embedded.test.log_probabilities.mean())
    assert everything.perplexity == pytest.approx(
        math.exp(-embedded.test.log_probabilities.sum() / embedded.test.tokens)
    )


@pytest.mark.usefixtures("fewer_sentences")
@pytest.mark.parametrize(
    "options",
    [{"max_words": 20}, {"max_words": 20, "too_long": "truncate"}, {"vocabulary_size": 200}],
)
def test_no_truth_about_sentences_that_are_not_the_grammars(options):
    corpus = load_corpus(Data(**options))
    for split in corpus.splits:
        assert split.log_probabilities is None and true_scores(split) is None
        assert len(split.labels) == len(split)
    (message,) = corpus.messages
    assert "true probabilities of train, valid, test are left out" in message


@pytest.mark.usefixtures("fewer_sentences")
def test_topics_stay_with_their_sentences_when_others_are_dropped():
    every, short = load_corpus(Data()), load_corpus(Data(max_words=20))
    kept = every.train.lengths <= 20
    assert 0 < kept.sum() < len(every.train)
    assert short.train.labels == list(np.array(every.train.labels)[kept])


# Statistics


def test_statistics(folder, capsys):
    (folder / "train.txt").write_text("1\ta a a\n\n0\tb _UNK\n1\ta b c d e\n")
    (folder / "valid.txt").write_text("1\ta x\n")
    (folder / "test.txt").write_text("1\ta\n1\tb\n")
    print_statistics(
        ["--stats", str(folder), "--label_column", "--unk_alias", "_UNK"]
        + ["--max_words", "3", "--vocabulary_size", "6"]
    )
    header, train, valid, test, vocabulary, labels = capsys.readouterr().out.splitlines()
    names = header.split()
    assert dict(zip(names, train.split(), strict=True)) == {
        "split": "train", "lines": "4", "empty": "1", "dropped": "1", "truncated": "0",
        "sentences": "2", "words": "5", "tokens": "7", "mean": "2.50", "min": "2", "p50": "2",
        "p90": "3", "p99": "3", "max": "3", "<unk>": "20.00%",
    }  # fmt: skip
    assert dict(zip(names, valid.split(), strict=True))["<unk>"] == "50.00%"
    assert dict(zip(names, test.split(), strict=True))["tokens"] == "4"
    assert vocabulary == "vocabulary: 6 words, the four specials included"
    assert labels == "labels of train: 0 1, 1 1"


def test_of_many_labels_the_first_are_listed():
    assert listed(["a", "b" * 50]) == "a, " + "b" * 40
    assert listed([str(number) for number in range(22)]).endswith("18, 19, and 2 more")


def test_statistics_of_one_file_say_how_it_was_split(one_file, capsys):
    print_statistics(["--stats", str(one_file)])
    assert "90/5/5" in capsys.readouterr().out.splitlines()[0]


def run_statistics(*arguments):
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "mindspore_cvae", "data", *arguments],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip


def test_statistics_of_the_embedded_corpus_come_without_mindspore():
    result = run_statistics("--stats")
    assert result.returncode == 0
    assert "20,000" in result.stdout
    imported = [line.rpartition("|")[2].strip() for line in result.stderr.splitlines()]
    assert "mindspore_cvae.data.grammar" in imported and "mindspore" not in imported


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--stats", "nowhere"], "nowhere: cannot be read"),
        (["--stats", "--max_words", "0"], "data.max_words must be an integer in [1, 100000]"),
        (["--stats", "--too_long", "drops"], "did you mean drop?"),
        (["--stats", "--vocabulary_size", "many"], "data.vocabulary_size must be an integer"),
        ([], "--stats"),
    ],
)
def test_bad_arguments_end_with_one_sentence_and_code_2(arguments, reason):
    result = run_statistics(*arguments)
    assert result.returncode == 2 and result.stdout == ""
    message = [line for line in result.stderr.splitlines() if not line.startswith("import time:")]
    assert len(message) == 1 and reason in message[0]


# Data sets


def test_ptb_has_its_published_size(shared_data):
    corpus = load_corpus(Data(dir=str(shared_data / "ptb")))
    assert [len(split) for split in corpus.splits] == [42_068, 3_370, 3_761]
    assert [split.tokens for split in corpus.splits] == [929_589, 73_760, 82_430]
    assert len(corpus.vocabulary) == 10_002


def test_ptb_is_read_quickly(shared_data):
    seconds = []
    for _ in range(2):
        began = time.process_time()
        load_corpus(Data(dir=str(shared_data / "ptb")))
        seconds.append(time.process_time() - began)
    assert min(seconds) < 1.5


def test_yahoo_writes_unknown_words_its_own_way(shared_data):
    data = Data(dir=str(shared_data / "yahoo"), max_words=200, vocabulary_size=20_001)
    corpus = load_corpus(dataclasses.replace(data, unk_alias="_UNK"))
    assert [len(split) for split in corpus.splits] == [6_000, 1_000, 1_000]
    assert "_UNK" not in corpus.vocabulary
    assert "_UNK" in load_corpus(data).vocabulary


def test_the_identity_of_a_text_is_its_content(tmp_path):
    def texts(name, test):
        folder = tmp_path / name
        folder.mkdir()
        for split, text in (("train", "a b\nb a\n"), ("valid", "a\n"), ("test", test)):
            (folder / f"{split}.txt").write_text(text)
        corpus = load_corpus(Data(dir=str(folder)))
        return {split.name: corpus.text(split.name) for split in corpus.splits}

    first, same, other = texts("x", "b b\n"), texts("y", "b b\n"), texts("z", "b\nb\n")
    assert first == same and len(set(first.values())) == 3
    assert first["valid"] == other["valid"] and first["test"] != other["test"]


def test_statistics_of_standard_input(folder, monkeypatch, capsys):
    text = "".join(f"sentence number {number}\n" for number in range(100))
    path = folder / "text.txt"
    path.write_text(text)
    print_statistics(["--stats", str(path)])
    expected = capsys.readouterr().out.replace(str(path), "standard input")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    print_statistics(["--stats", "-"])
    assert capsys.readouterr().out == expected and "100" in expected
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"one\n\xff\n")))
    with pytest.raises(InputError, match="^standard input, line 2: bytes that are not UTF-8"):
        print_statistics(["--stats", "-"])
