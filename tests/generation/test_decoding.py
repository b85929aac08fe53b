"""Decoding in compiled graphs against plain loops in NumPy, one sentence at a time."""

from __future__ import annotations

import itertools

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from numpy_twins import log_softmax, lstm
from scipy import stats
from tiny import execution, randomise

from mindspore_cvae.data.vocabulary import BEGIN, END, PAD, UNKNOWN
from mindspore_cvae.devices import choosing
from mindspore_cvae.errors import InputError
from mindspore_cvae.generation.decoding import Drawn, SentenceDecoder, prior_codes
from mindspore_cvae.generation.ways import Decoding
from mindspore_cvae.model.networks import Decoder

LATENT = 4
WORDS = 9
ROWS = 8


class NumpyDecoder:
    """The decoder in float64, a word of a sentence at a time."""

    def __init__(self, decoder: Decoder):
        weights = {p.name: p.asnumpy().astype(np.float64) for p in decoder.get_parameters()}
        self.embedding = weights["embedding.weight"]
        self.initial_hidden = weights["initial_hidden.weight"]
        self.output = weights["vocabulary_weight"]
        self.lstm = {
            name.removeprefix("lstm."): value
            for name, value in weights.items()
            if name.startswith("lstm.")
        }

    def log_probabilities(self, words, z) -> np.ndarray:
        """log p(next word | words so far, z), (V,)."""
        inputs = [np.concatenate([self.embedding[word], z])[None] for word in [BEGIN, *words]]
        hidden = (self.initial_hidden @ z)[None]
        state = lstm(self.lstm, inputs, hidden, np.zeros_like(hidden))[-1, 0]
        return log_softmax(self.output @ np.append(state, 1.0))

    def greedy(self, z, max_words, allowed) -> list[int]:
        words: list[int] = []
        while len(words) < max_words:
            scores = self.log_probabilities(words, z)
            best = max(allowed, key=lambda word: scores[word])
            if best == END:
                break
            words.append(best)
        return words

    def score(self, words, z) -> float:
        """log p(words, </s> | z)."""
        targets = [*words, END]
        return sum(
            self.log_probabilities(targets[:position], z)[word]
            for position, word in enumerate(targets)
        )


def make_decoder(vocabulary: int, scale: float, bias: dict[int, float], seed: int = 0):
    """A random decoder; what ``bias`` holds is added to the scores of its words."""
    choosing.choose("CPU")
    decoder = Decoder(vocabulary, 5, 6, LATENT, 0.5)
    randomise(decoder, seed, scale)
    weight = decoder.vocabulary_weight.asnumpy().copy()
    for word, value in bias.items():
        weight[word, -1] += value
    decoder.vocabulary_weight.set_data(Tensor(weight))
    return decoder


@pytest.fixture(scope="module")
def decoder():
    """A decoder whose sentences end here and there."""
    return make_decoder(14, scale=1.0, bias={END: 1.0}, seed=1)


@pytest.fixture(scope="module")
def decode(decoder):
    return SentenceDecoder(decoder, ROWS)


@pytest.fixture(scope="module")
def twin(decoder):
    return NumpyDecoder(decoder)


@pytest.fixture(scope="module")
def z():
    return prior_codes(2 * ROWS + 3, LATENT, seed=5)


def as_lists(texts):
    return [text.tolist() for text in texts]


def test_greedy_equals_a_plain_loop(decode, twin, z):
    texts = as_lists(decode(z, Decoding("greedy", max_words=WORDS)))
    allowed = set(range(14)) - {PAD, BEGIN}
    assert texts == [twin.greedy(point, WORDS, allowed) for point in z]
    lengths = {len(text) for text in texts}
    assert WORDS in lengths and len(lengths) > 2, "some are cut, others end at different words"


def test_greedy_equals_a_plain_loop_in_pynative_mode(decoder, decode, z):
    texts = as_lists(decode(z[:3], Decoding("greedy", max_words=WORDS)))
    with execution("pynative"):
        for text, point in zip(texts, z, strict=False):
            latent = Tensor(point[None])
            state, word, words = decoder.initial_state(latent), BEGIN, []
            while len(words) < WORDS:
                scores, state = decoder.step(Tensor([word], ms.int32), latent, state)
                scores = scores.asnumpy()[0]
                scores[[PAD, BEGIN]] = -np.inf
                word = int(scores.argmax())
                if word == END:
                    break
                words.append(word)
            assert text == words


def test_reserved_words_never_come_out():
    likely = {PAD: 30.0, BEGIN: 20.0, UNKNOWN: 10.0, END: -5.0}
    decode = SentenceDecoder(make_decoder(10, scale=0.3, bias=likely), ROWS)
    z = prior_codes(20, LATENT, seed=0)
    for method in ("greedy", "sample", "beam"):
        size = {"beam_size": 2} if method == "beam" else {}
        way = Decoding(method, max_words=4, **size)
        assert all(set(text) == {UNKNOWN} for text in as_lists(decode(z, way)))
        way = Decoding(method, max_words=4, no_unk=True, **size)
        texts = as_lists(decode(z, way))
        assert len(texts) == 20
        assert not {PAD, UNKNOWN, BEGIN, END} & set(itertools.chain(*texts))


def chi_square(counts, probabilities):
    """p-value of counts under probabilities; what is impossible must not have happened."""
    possible = probabilities > 0
    assert not counts[~possible].any()
    expected = probabilities[possible] / probabilities[possible].sum() * counts.sum()
    assert expected.min() > 4, "the test needs more draws"
    return stats.chisquare(counts[possible], expected).pvalue


def cut(log_probabilities, temperature=1.0, top_k=None, top_p=None):
    """The distribution of the next word, in words: sort, cut, renormalise."""
    probabilities = np.exp(log_probabilities / temperature)
    probabilities[[PAD, BEGIN]] = 0.0
    ranked = np.argsort(-probabilities, kind="stable")[:top_k]
    kept = np.zeros_like(probabilities)
    kept[ranked] = probabilities[ranked] / probabilities[ranked].sum()
    if top_p is not None:
        total = 0.0
        for word in ranked:
            if total >= top_p:
                kept[word] = 0.0
            total += kept[word]
    return kept / kept.sum()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0, "top_k": 4},
        {"top_p": 0.7},
        {"temperature": 1.5, "top_k": 5, "top_p": 0.8},
    ],
    ids=str,
)
def test_sampled_words_have_the_models_frequencies(options):
    decoder = make_decoder(10, scale=0.4, bias={})
    twin = NumpyDecoder(decoder)
    point = prior_codes(1, LATENT, seed=3)[0]
    draws = 4000
    decode = SentenceDecoder(decoder, rows=1000)
    way = Decoding("sample", max_words=2, **options)
    texts = as_lists(decode(np.tile(point, (draws, 1)), way, seed=1))
    first = np.bincount([text[0] if text else END for text in texts], minlength=10)
    assert chi_square(first, cut(twin.log_probabilities([], point), **options)) > 0.001

    # The next word: after the most frequent first one, and so independent of how that was drawn.
    word = int(first[END + 1 :].argmax()) + END + 1
    follow = [text[1] if len(text) > 1 else END for text in texts if text[:1] == [word]]
    counts = np.bincount(follow, minlength=10)
    assert chi_square(counts, cut(twin.log_probabilities([word], point), **options)) > 0.001


@pytest.mark.parametrize("spread", [0.2, 4.0], ids=["all sorted", "the best sorted"])
def test_nucleus_of_a_large_vocabulary(spread):
    """Words of the nucleus are found whether or not they are among the first that are sorted."""
    source = np.random.default_rng(0)
    rows, size, top_p = 16, 1500, 0.9
    logits = spread * source.standard_normal((rows, size))
    probabilities = np.exp(log_softmax(logits))
    uniform = (np.arange(rows) + 0.5) / rows
    expected = []
    for row, number in zip(probabilities, uniform, strict=True):
        ranked = np.argsort(-row)
        before = np.cumsum(row[ranked]) - row[ranked]
        nucleus = ranked[before < top_p]
        cumulated = np.cumsum(row[nucleus])
        expected.append(nucleus[np.searchsorted(cumulated, number * cumulated[-1], "right")])
    sizes = (np.cumsum(-np.sort(-probabilities), 1) < top_p).sum(1)
    assert (sizes.min() > 1024) if spread < 1 else (sizes.max() < 1024)

    choosing.choose("CPU")
    words = Drawn(None, True)(
        Tensor(np.log(probabilities).astype(np.float32)),
        Tensor(uniform.astype(np.float32)),
        Tensor(1.0, ms.float32),
        Tensor(top_p, ms.float32),
    )
    assert words.asnumpy().tolist() == expected


def test_sentences_do_not_depend_on_the_batch(decoder, decode, z):
    other = SentenceDecoder(decoder, rows=5)
    for way in (
        Decoding("greedy", max_words=WORDS),
        Decoding("sample", max_words=WORDS),
        Decoding("beam", max_words=WORDS, beam_size=3),
    ):
        texts = as_lists(decode(z, way, seed=2))
        assert texts == as_lists(other(z, way, seed=2))
        assert texts[:3] == as_lists(decode(z[:3], way, seed=2))


def test_draws_are_those_of_the_seed(decode, z):
    way = Decoding("sample", max_words=WORDS)
    texts = as_lists(decode(z, way, seed=1))
    assert texts == as_lists(decode(z, way, seed=1))
    assert texts != as_lists(decode(z, way, seed=2))
    same = as_lists(decode(np.tile(z[:1], (5, 1)), way, seed=1))
    assert len(set(map(tuple, same))) > 1, "rows draw numbers of their own"


def test_what_is_not_part_of_the_graph_takes_effect(decode, z):
    """A compiled graph serves every temperature, top-p and choice of words."""
    cold = as_lists(decode(z, Decoding("sample", max_words=WORDS, temperature=0.001), seed=1))
    assert cold == as_lists(decode(z, Decoding("greedy", max_words=WORDS)))
    narrow = as_lists(decode(z, Decoding("sample", max_words=WORDS, top_p=1e-6), seed=1))
    assert narrow == cold
    wide = as_lists(decode(z, Decoding("sample", max_words=WORDS, top_p=0.999999), seed=1))
    assert wide != cold


@pytest.mark.parametrize("no_unk", [False, True])
def test_beam_search_equals_exhaustive_search(no_unk):
    size, longest = 7, 3
    decoder = make_decoder(size, scale=2.0, bias={END: -1.0}, seed=3)
    twin = NumpyDecoder(decoder)
    words = [word for word in range(size) if word not in (PAD, BEGIN, END)]
    if no_unk:
        words.remove(UNKNOWN)
    candidates = [
        text for length in range(longest + 1) for text in itertools.product(words, repeat=length)
    ]
    z = prior_codes(4, LATENT, seed=7)
    # As many beginnings as there are of any length: none is ever lost.
    beams = len(words) ** longest
    decode = SentenceDecoder(decoder, rows=4 * beams)
    way = Decoding("beam", max_words=longest, beam_size=beams, no_unk=no_unk)
    texts = as_lists(decode(z, way))
    best = [list(max(candidates, key=lambda text: twin.score(text, point))) for point in z]
    assert texts == best
    assert len({len(text) for text in texts}) > 1


def test_a_beam_of_one_is_greedy_and_more_is_better(decode, twin, z):
    greedy = as_lists(decode(z, Decoding("greedy", max_words=WORDS)))
    one = as_lists(decode(z, Decoding("beam", max_words=WORDS, beam_size=1)))
    three = as_lists(decode(z, Decoding("beam", max_words=WORDS, beam_size=3)))
    assert one == greedy
    gains = [
        twin.score(wide, point) - twin.score(narrow, point)
        for wide, narrow, point in zip(three, one, z, strict=True)
    ]
    assert sum(gains) > 0.1


def test_nothing_to_decode(decode):
    assert decode(np.zeros((0, LATENT)), Decoding("greedy", max_words=WORDS)) == []
    assert prior_codes(0, LATENT, seed=0).shape == (0, LATENT)


def test_prior_codes_are_standard_normal_and_keyed_by_their_number():
    codes = prior_codes(500, LATENT, seed=3)
    assert codes.dtype == np.float32
    assert (codes[:7] == prior_codes(7, LATENT, seed=3)).all()
    assert not (codes[:7] == prior_codes(7, LATENT, seed=4)).any()
    assert stats.kstest(codes.ravel(), "norm").pvalue > 0.001


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"method": "best"}, "decoding"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"beam_size": 0}, "beam_size"),
        ({"max_words": 0}, "max_words"),
        ({"temperature": 0.5}, "temperature is for decoding by sample, and this is greedy"),
        ({"method": "beam", "top_k": 5}, "top_k is for"),
        ({"method": "beam", "top_p": 0.5}, "top_p is for"),
        ({"method": "sample", "beam_size": 3}, "beam_size is for decoding by beam"),
    ],
)
def test_settings_out_of_range_are_refused(options, named):
    with pytest.raises(InputError, match=named):
        Decoding(**options)
