"""The embedded corpus: its probabilities, its unambiguity, its structure."""

import functools
import hashlib
import itertools
import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from mindspore_cvae.commands import grammar as commands_grammar
from mindspore_cvae.config.keys import Data
from mindspore_cvae.data import grammar, newswire
from mindspore_cvae.data.grammar import Grammar
from mindspore_cvae.errors import InputError

START = ("start",)


def small_grammar(alternatives):
    """A grammar from a table {name: [(weight, text)]}; words in capitals are symbols."""

    def of(symbol):
        return [
            (weight, tuple((word,) if word.isupper() else word for word in text.split()))
            for weight, text in alternatives[symbol[0]]
        ]

    return Grammar(START, of)


@pytest.fixture(scope="module")
def embedded():
    return grammar.embedded_grammar()


@pytest.fixture(scope="module")
def samples():
    return grammar.generate()


# Small grammars, worked by hand

AGREEMENT = {
    "start": [(3, "the NOUN runs"), (1, "NOUN NOUN")],
    "NOUN": [(1, "dog"), (2, "cat"), (1, "old NOUN")],
}
PALINDROMES = {"start": [(0.5, "S")], "S": [(0.25, "a S a"), (0.25, "b S b"), (0.5, "c")]}
RIGHT = {"start": [(1, "S")], "S": [(0.6, "a S"), (0.4, "b")]}
AMBIGUOUS = {
    "start": [(1, "X Y")],
    "X": [(0.5, "a"), (0.5, "a a")],
    "Y": [(0.3, "a"), (0.7, "a a")],
}


@pytest.mark.parametrize(
    ("table", "text", "probability"),
    [
        (AGREEMENT, "the dog runs", 3 / 4 * 1 / 4),
        (AGREEMENT, "the old old cat runs", 3 / 4 * 1 / 4 * 1 / 4 * 1 / 2),
        (AGREEMENT, "cat old dog", 1 / 4 * 1 / 2 * 1 / 4 * 1 / 4),
        (AGREEMENT, "the dog", 0),
        (AGREEMENT, "the dog runs runs", 0),
        (AGREEMENT, "the wolf runs", 0),
        (AGREEMENT, "", 0),
        (PALINDROMES, "a b c b a", 1 / 4 * 1 / 4 * 1 / 2),
        (PALINDROMES, "a b c a b", 0),
        (RIGHT, "a a b", 0.6 * 0.6 * 0.4),
        (AMBIGUOUS, "a a", 0.5 * 0.3),
        (AMBIGUOUS, "a a a", 0.5 * 0.7 + 0.5 * 0.3),
    ],
)
def test_log_probability_by_hand(table, text, probability):
    expected = math.log(probability) if probability else -math.inf
    assert small_grammar(table).log_probability(text.split()) == pytest.approx(expected)


def test_entropy_and_length_by_hand():
    # The number of a's is geometric.
    right = small_grammar(RIGHT)
    choice = -(0.6 * math.log(0.6) + 0.4 * math.log(0.4))
    assert right.entropy() == pytest.approx(choice / 0.4)
    assert right.expected_length() == pytest.approx(1 / 0.4)
    # H(NOUN) = H(1/4, 1/2, 1/4) + 1/4 H(NOUN); its expected length is 1 + 1/4 of itself.
    noun, length = 1.5 * math.log(2) / 0.75, 1 / 0.75
    first = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    agreement = small_grammar(AGREEMENT)
    assert agreement.entropy() == pytest.approx(first + 0.75 * noun + 0.25 * 2 * noun)
    assert agreement.expected_length() == pytest.approx(0.75 * (2 + length) + 0.25 * 2 * length)


def test_derivations_follow_the_draws():
    draws = [0.2, 0.9, 0.5]  # the first rule, "old NOUN", "cat"
    derivation = small_grammar(AGREEMENT).derive(iter(draws))
    assert derivation.words == ["the", "old", "cat", "runs"]
    assert derivation.log_probability == pytest.approx(math.log(3 / 4 * 1 / 4 * 1 / 2))
    assert derivation.symbols == [START, ("NOUN",), ("NOUN",)]


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ({"start": []}, "needs distinct expansions"),
        ({"start": [(1, "")]}, "needs distinct expansions"),
        ({"start": [(1, "a"), (2, "a")]}, "needs distinct expansions"),
        ({"start": [(1, "a"), (0, "b")]}, "a weight that is not positive"),
        ({"start": [(1, "X a")], "X": [(1, "Y b")], "Y": [(1, "X"), (1, "c")]}, "begin its own"),
    ],
)
def test_grammars_that_cannot_be_used_are_refused(table, reason):
    with pytest.raises(ValueError, match=reason):
        small_grammar(table)


# Independent parsers


def bottom_up(rules, start, words):
    """Number of derivations of a sentence and their total probability, from the bottom up.

    Fills a chart of spans with all symbols and all beginnings of rules that cover them (CYK, with
    rules cut into steps of one symbol).
    """
    single, longer = defaultdict(list), defaultdict(list)
    for symbol, alternatives in rules.items():
        for probability, expansion in alternatives:
            table = single if len(expansion) == 1 else longer
            table[expansion[0]].append((symbol, probability, expansion))

    @functools.cache
    def height(part):
        return 1 + max((height(symbol) for symbol, _, _ in single[part]), default=0)

    complete, begun = {}, {}
    length = len(words)
    for size in range(1, length + 1):
        for left in range(length - size + 1):
            right = left + size
            found = defaultdict(lambda: (0, 0.0))
            open_rules = defaultdict(lambda: (0, 0.0))

            def add(table, key, number, probability):
                before = table[key]
                table[key] = before[0] + number, before[1] + probability

            if size == 1:
                found[words[left]] = (1, 1.0)
            for middle in range(left + 1, right):
                for (symbol, expansion, done), (n, p) in begun[left, middle].items():
                    m, q = complete[middle, right].get(expansion[done], (0, 0.0))
                    if m:
                        if done + 1 == len(expansion):
                            add(found, symbol, n * m, p * q)
                        else:
                            add(open_rules, (symbol, expansion, done + 1), n * m, p * q)
            # Rules of one part lead upwards: the part's own total must be final before.
            waiting = {part: height(part) for part in found}
            while waiting:
                part = max(waiting, key=waiting.get)
                del waiting[part]
                n, p = found[part]
                for symbol, probability, _ in single[part]:
                    add(found, symbol, n, p * probability)
                    waiting[symbol] = height(symbol)
                for symbol, probability, expansion in longer[part]:
                    add(open_rules, (symbol, expansion, 1), n, p * probability)
            complete[left, right], begun[left, right] = dict(found), dict(open_rules)
    return complete[0, length].get(start, (0, 0.0))


class Automata:
    """Sets of sentences as the minimal deterministic automata of finite languages.

    A state is (whether a sentence may end, next state for each word); equal states are one.
    """

    def __init__(self):
        self.states, self._numbers = [], {}
        self.nothing, self.end = self.state(False, {}), self.state(True, {})
        self._unions, self._products, self._counts = {}, {}, {}

    def state(self, ends, following):
        key = ends, frozenset(following.items())
        if key not in self._numbers:
            self._numbers[key] = len(self.states)
            self.states.append((ends, following))
        return self._numbers[key]

    def union(self, first, second):
        """Sentences in one set or the other."""
        if first == second or second == self.nothing:
            return first
        if first == self.nothing:
            return second
        key = min(first, second), max(first, second)
        if key not in self._unions:
            (ends, following), (other_ends, others) = self.states[first], self.states[second]
            following = dict(following)
            for word, state in others.items():
                following[word] = self.union(following.get(word, self.nothing), state)
            self._unions[key] = self.state(ends or other_ends, following)
        return self._unions[key]

    def product(self, first, second):
        """A sentence of one set followed by one of the other."""
        if first == self.end:
            return second
        if (first, second) not in self._products:
            ends, following = self.states[first]
            result = self.state(
                False, {word: self.product(state, second) for word, state in following.items()}
            )
            self._products[first, second] = self.union(result, second) if ends else result
        return self._products[first, second]

    def count(self, first):
        """How many different sentences there are."""
        if first not in self._counts:
            ends, following = self.states[first]
            self._counts[first] = ends + sum(map(self.count, following.values()))
        return self._counts[first]


def derivations_and_sentences(rules, start):
    """How many derivations a symbol without recursion has, and how many different sentences."""
    automata = Automata()

    @functools.cache
    def derivations(part):
        if isinstance(part, str):
            return 1
        return sum(math.prod(map(derivations, expansion)) for _, expansion in rules[part])

    @functools.cache
    def language(part):
        if isinstance(part, str):
            return automata.state(False, {part: automata.end})
        result = automata.nothing
        for _, expansion in rules[part]:
            sequence = automata.end
            for inner in reversed(expansion):
                sequence = automata.product(language(inner), sequence)
            result = automata.union(result, sequence)
        return result

    return derivations(start), automata.count(language(start))


def test_the_parsers_see_ambiguity():
    """So that the tests below can fail."""
    rules = small_grammar(AMBIGUOUS).rules
    assert bottom_up(rules, START, ["a"] * 3) == (2, pytest.approx(0.5))
    assert bottom_up(rules, START, ["a"] * 2) == (1, pytest.approx(0.15))
    assert bottom_up(rules, START, ["a"]) == (0, 0)
    assert derivations_and_sentences(rules, START) == (4, 3)
    attachment = {
        "start": [(1, "they saw N"), (1, "they saw N P")],
        "N": [(1, "men"), (1, "men P")],
        "P": [(1, "with dogs"), (1, "at night")],
    }
    rules = small_grammar(attachment).rules
    assert bottom_up(rules, START, "they saw men at night".split())[0] == 2
    assert bottom_up(rules, START, "they saw men at night with dogs".split())[0] == 1
    assert derivations_and_sentences(rules, START) == (9, 7)


# The embedded grammar


def test_probabilities_of_each_symbol_sum_to_one(embedded):
    assert len(embedded.rules) > 1000
    for symbol, rules in embedded.rules.items():
        assert math.fsum(rule.probability for rule in rules) == pytest.approx(1, abs=1e-12), symbol
        assert min(rule.probability for rule in rules) > 0


@pytest.mark.parametrize(
    "start", [("story", "weather"), pytest.param(newswire.START, marks=pytest.mark.slow)]
)
def test_every_sentence_of_the_grammar_has_one_derivation(embedded, start):
    """As many derivations as different sentences: a proof, for all of a language."""
    derivations, sentences = derivations_and_sentences(embedded.rules, start)
    assert derivations == sentences > 10**30


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_independent_parser_finds_one_derivation_of_equal_probability(embedded, samples, split):
    texts, log_probabilities, _ = samples[split]
    for text, log_probability in itertools.islice(zip(texts, log_probabilities, strict=True), 100):
        number, probability = bottom_up(embedded.rules, newswire.START, text.split())
        assert number == 1, text
        assert math.log(probability) == pytest.approx(log_probability, abs=1e-9)


def test_log_probabilities_of_samples_are_those_of_the_inside_algorithm(samples):
    for text, log_probability, _ in itertools.islice(zip(*samples["valid"], strict=True), 300):
        assert grammar.log_probability(text.split()) == pytest.approx(log_probability, abs=1e-9)


def test_log_probability_adds_up_to_one_over_a_language():
    """Over every sentence of a part of the grammar that is small enough to list."""
    start = ("agent", "persons", "markets", "plural", "past", 0)
    part = Grammar(start, newswire.alternatives)

    def listed(symbol):
        if isinstance(symbol, str):
            return [[symbol]]
        return [
            list(itertools.chain.from_iterable(parts))
            for rule in part.rules[symbol]
            for parts in itertools.product(*map(listed, rule.expansion))
        ]

    sentences = {tuple(words) for words in listed(start)}
    assert len(sentences) > 1000
    total = math.fsum(math.exp(part.log_probability(words)) for words in sentences)
    assert total == pytest.approx(1)


def test_entropy_is_the_mean_of_the_samples(samples):
    log_probabilities = samples["train"].log_probabilities
    error = log_probabilities.std() / math.sqrt(len(log_probabilities))
    assert error < 0.15
    assert abs(-log_probabilities.mean() - grammar.entropy()) < 4 * error


def test_expected_length_is_the_mean_of_the_samples(samples):
    lengths = np.array([text.count(" ") + 1 for text in samples["train"].texts])
    error = lengths.std() / math.sqrt(len(lengths))
    assert error < 0.1
    assert abs(lengths.mean() - grammar.expected_length()) < 4 * error


def test_topics_come_at_their_rates(samples):
    topics = samples["train"].topics
    total = sum(topic.weight for topic in newswire.TOPICS.values())
    for number, topic in enumerate(newswire.TOPICS.values()):
        rate = topic.weight / total
        error = math.sqrt(rate * (1 - rate) / len(topics))
        assert abs((topics == number).mean() - rate) < 4 * error


def test_sentences_are_of_reasonable_length(embedded, samples):
    @functools.cache
    def longest(part):
        if isinstance(part, str):
            return 1
        return max(sum(map(longest, rule.expansion)) for rule in embedded.rules[part])

    assert longest(newswire.START) <= Data().max_words
    lengths = np.array([text.count(" ") + 1 for text in samples["train"].texts])
    assert ((lengths >= 6) & (lengths <= 30)).mean() > 0.9


def test_the_vocabulary_is_of_some_hundreds_and_each_word_occurs(embedded, samples):
    words = embedded.words()
    assert 500 < len(words) < 1000
    occurring = set(itertools.chain.from_iterable(map(str.split, samples["train"].texts)))
    assert occurring == set(words)
    assert not {"<pad>", "<unk>", "<s>", "</s>"} & set(words)


def test_verbs_belong_to_one_topic_and_direction():
    """The words from which a reader can tell both, whatever else is shared."""
    owners = defaultdict(set)
    for name, topic in newswire.TOPICS.items():
        for verbs in (topic.happening, topic.acting):
            for direction, members in verbs.items():
                for verb in members:
                    for form in verb:
                        owners[form].add((name, direction))
    assert {form: places for form, places in owners.items() if len(places) > 1} == {}


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("the price rises", "the price rise"),
        ("the prices rise", "the prices rises"),
        ("the price of the banks rises again", "the price of the banks rise again"),
        ("traders who trust the bank sell bonds", "traders who trusts the bank sell bonds"),
        ("the banks sold their bonds", "the banks sold its bonds"),
        ("the bank said that it sold bonds", "the bank said that they sold bonds"),
        ("prices fell last week", "prices fell next week"),
        ("prices will fall next week", "prices will fall last week"),
        ("prices fell because banks sold bonds", "prices fell because banks sell bonds"),
        ("prices fell because banks sold bonds", "prices fell because banks raised bonds"),
        ("prices fell although banks raised bonds", "prices fell although banks sold bonds"),
        ("prices fell because banks sold bonds", "prices fell because storms worsened"),
        ("if prices fall , banks will sell bonds", "if prices will fall , banks will sell bonds"),
        ("an airline sold bonds", "a airline sold bonds"),
        ("a university developed drugs", "an university developed drugs"),
    ],
)
def test_agreement_over_distance(good, bad):
    assert grammar.log_probability(good.split()) > -100
    assert grammar.log_probability(bad.split()) == -math.inf


# Samples


def test_samples_follow_the_seed():
    counts = {"train": 50, "valid": 20}
    first, again = (grammar.generate(3, counts) for _ in range(2))
    assert first["train"].texts == again["train"].texts
    np.testing.assert_array_equal(first["valid"].topics, again["valid"].topics)
    assert first["train"].texts[:20] != first["valid"].texts
    seeds = (3, 4, 2**63, 2**64 - 2, 2**64 - 1)
    assert len({tuple(grammar.generate(seed, counts)["train"].texts) for seed in seeds}) == 5


def test_the_embedded_corpus_stays_what_it_was(samples):
    """Numbers measured on it would mean nothing otherwise; a change needs new ones."""
    texts = "".join(f"{text}\n" for sample in samples.values() for text in sample.texts)
    assert hashlib.sha256(texts.encode()).hexdigest() == (
        "9f3faac2d3fa5fc0cd4f308db6f19c2291a0130a1c8a555e412c5b2a37d22ddb"
    )


def test_more_sentences_begin_with_the_same(samples):
    few = grammar.generate(counts={"train": 10, "valid": 0, "test": 5})
    assert few["train"].texts == samples["train"].texts[:10]
    assert few["test"].texts == samples["test"].texts[:5]
    assert [array.shape for array in few["valid"][1:]] == [(0,), (0,)]
    assert few["train"].topics.dtype == np.int64


def test_the_topic_is_that_of_the_verbs(samples):
    topic_of = {
        form: number
        for number, topic in enumerate(newswire.TOPICS.values())
        for verbs in (topic.happening, topic.acting)
        for verb in itertools.chain.from_iterable(verbs.values())
        for form in verb
    }
    for text, _, topic in itertools.islice(zip(*samples["test"], strict=True), 500):
        assert {topic_of[word] for word in text.split() if word in topic_of} == {topic}


def test_sentences_are_hardly_ever_repeated(samples):
    counts = Counter(itertools.chain.from_iterable(sample.texts for sample in samples.values()))
    assert len(counts) > 0.98 * 24_000


# The command


def run(folder, *arguments):
    commands_grammar.main(["--output_dir", str(folder), *arguments])


def test_the_command_writes_texts_and_log_probabilities(tmp_path, samples, capsys):
    folder = tmp_path / "a" / "b"
    run(folder)
    assert {path.name for path in folder.iterdir()} == {
        "train.txt", "valid.txt", "test.txt", "log_probabilities.tsv",
    }  # fmt: skip
    for split, sample in samples.items():
        text = (folder / f"{split}.txt").read_bytes().decode("ascii")
        assert text == "".join(f"{sentence}\n" for sentence in sample.texts)
    header, *rows = (folder / "log_probabilities.tsv").read_text().splitlines()
    assert header.split("\t") == ["split", "number", "log_probability", "topic"]
    expected = [
        (split, number, log_probability, grammar.TOPICS[topic])
        for split, sample in samples.items()
        for number, (_, log_probability, topic) in enumerate(zip(*sample, strict=True), 1)
    ]
    found = [row.split("\t") for row in rows]
    assert [(row[0], int(row[1]), float(row[2]), row[3]) for row in found] == expected
    assert f"entropy {grammar.entropy():.3f} nats" in capsys.readouterr().out


def test_the_command_writes_anew_but_never_over_other_texts(tmp_path, monkeypatch):
    generate = grammar.generate
    counts = {"train": 8, "valid": 2, "test": 2}
    monkeypatch.setattr(grammar, "generate", lambda seed: generate(seed, counts))
    run(tmp_path, "--seed", "1")
    before = (tmp_path / "train.txt").read_text()
    run(tmp_path, "--seed", "2")
    assert (tmp_path / "train.txt").read_text() != before

    other = tmp_path / "other"
    other.mkdir()
    (other / "valid.txt").write_text("mine\n")
    with pytest.raises(InputError, match=r"valid\.txt is there and not from this command"):
        run(other)
    assert [path.name for path in other.iterdir()] == ["valid.txt"]
    assert (other / "valid.txt").read_text() == "mine\n"
    # A table of that name alone does not make the texts ours.
    (other / "log_probabilities.tsv").write_text("word\tlog_probability\n")
    with pytest.raises(InputError, match=r"valid\.txt is there and not from this command"):
        run(other)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/folder: cannot be written"):
        run(tmp_path / "file" / "folder")


@pytest.mark.parametrize("arguments", [["--seed", "-1"], ["--seed", str(2**64)], ["--seed", "x"]])
def test_bad_seeds_are_refused(tmp_path, arguments):
    with pytest.raises(InputError, match="--seed"):
        run(tmp_path / "new", *arguments)
    assert not (tmp_path / "new").exists()
