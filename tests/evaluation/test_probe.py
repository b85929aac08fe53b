"""What a linear classifier reads from codes and words, against classifiers of another make."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import minimize
from tiny_run import SENTENCES, write_run

from mindspore_cvae import ContrastiveVAE
from mindspore_cvae.commands import probe as command
from mindspore_cvae.config.keys import Data
from mindspore_cvae.data.corpus import load_corpus
from mindspore_cvae.data.labels import label_numbers
from mindspore_cvae.errors import InputError
from mindspore_cvae.evaluation import probe as probing
from mindspore_cvae.evaluation.probe import STRENGTHS, probe, word_counts

COUNTS = {"train": 1500, "valid": 200, "test": 300}
NAMES = ["bad", "fair", "good"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Sentences of noise and one word that tells the label in two thirds of them; some labels are
    left out, and test has one that train lacks."""
    folder, random = tmp_path_factory.mktemp("probe"), np.random.default_rng(0)
    for name, count in COUNTS.items():
        lines = []
        for number in range(count):
            label = random.choice(3, p=(0.2, 0.3, 0.5))
            words = [f"word{word}" for word in random.integers(0, 20, 6)]
            words += [f"sign{label}"] if random.random() < 2 / 3 else []
            shown = "" if number % 10 == 9 else NAMES[label]
            shown = "unheard" if name == "test" and number < 3 else shown
            lines.append(f"{shown}\t{' '.join(words)}\n")
        (folder / f"{name}.txt").write_text("".join(lines))
    return load_corpus(Data(dir=str(folder), label_column=True))


@pytest.fixture(scope="module")
def codes(corpus):
    """Noise, and a direction for each label, of another scale and place in each dimension."""
    random = np.random.default_rng(1)
    codes = {}
    for split in corpus.splits:
        centres = 1.5 * np.eye(5)[label_numbers(split, NAMES) % 4]
        z = centres + random.normal(size=centres.shape)
        codes[split.name] = (z * (1, 1e-4, 1, 100, 1) + 7).astype(np.float32)
    return codes


def accuracy_of_twin(features, labels, strength, tested, expected):
    """Multinomial logistic regression as scikit-learn defines it, minimised by SciPy: the sum of
    -log p plus |W|^2 / 2C, biases free; the share of right answers on what is tested."""
    classes = labels.max() + 1
    extended, tested = (np.column_stack([x, np.ones(len(x))]) for x in (features, tested))

    def loss(flat):
        weights = flat.reshape(-1, classes)
        scores = extended @ weights
        scores -= np.logaddexp.reduce(scores, 1, keepdims=True)
        penalty = (weights[:-1] ** 2).sum() / (2 * strength)
        gradient = extended.T @ (np.exp(scores) - np.eye(classes)[labels])
        gradient[:-1] += weights[:-1] / strength
        return penalty - scores[np.arange(len(labels)), labels].sum(), gradient.ravel()

    start = np.zeros(extended.shape[1] * classes)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 2000})
    answers = (tested @ found.x.reshape(-1, classes)).argmax(1)
    return (answers == expected).mean()


def test_all_training_sentences_against_another_classifier(corpus, codes):
    made = probe(corpus, codes, subsets=1)
    labelled = {split.name: label_numbers(split, NAMES) for split in corpus.splits}
    kept = {name: labels >= 0 for name, labels in labelled.items()}
    labels = {name: labelled[name][kept[name]] for name in kept}
    seen = codes["train"][kept["train"]].astype(np.float64)
    mean, deviation = seen.mean(0), seen.std(0)
    scaled = {name: ((codes[name] - mean) / deviation)[kept[name]] for name in kept}
    words = {
        split.name: np.array(
            [np.bincount(ids, minlength=len(corpus.vocabulary)) for ids in split.sentences]
        )[kept[split.name]]
        for split in corpus.splits
    }
    for kind, features in (("codes", scaled), ("words", words)):

        def accuracy(strength, split, features=features):
            given = features["train"], labels["train"], strength
            return accuracy_of_twin(*given, features[split], labels[split])

        on_valid = {strength: accuracy(strength, "valid") for strength in STRENGTHS}
        (reading,) = (r for r in made.readings if r[:2] == (kind, len(labels["train"])))
        (best,) = reading.strengths
        # A sentence may lie between both solvers' ends.
        assert on_valid[best] >= max(on_valid.values()) - 1.5 / len(labels["valid"])
        assert min(on_valid.values()) < on_valid[best] - 0.05
        assert reading.accuracies == [pytest.approx(accuracy(best, "test"), abs=0.005)]
        assert reading.standard_error is None
    assert made.labels == dict(zip(NAMES, np.bincount(labels["train"]).tolist(), strict=True))
    assert made.sentences == {name: len(values) for name, values in labels.items()}
    assert made.majority == "good"
    assert made.majority_accuracy == pytest.approx(np.mean(labels["test"] == 2))
    assert (labels["test"] == 3).sum() == 3, "what train lacks counts, as not read"


def test_subsets_and_what_they_cannot_see(corpus, codes, monkeypatch):
    monkeypatch.setattr(probing, "STRENGTHS", (0.01, 0.1))
    made = probe(corpus, codes, subsets=3)
    sizes = [(reading.features, reading.sentences) for reading in made.readings]
    assert sizes == [(kind, size) for size in (100, 1000, 1350) for kind in ("codes", "words")]
    small = made.readings[0]
    assert len(set(small.accuracies)) > 1 and len(small.accuracies) == 3
    assert small.accuracy == pytest.approx(sum(small.accuracies) / 3)
    spread = sum((value - small.accuracy) ** 2 for value in small.accuracies)
    assert small.standard_error == pytest.approx((spread / 2 / 3) ** 0.5)
    assert made.readings[1].accuracy < made.readings[5].accuracy, "words take more sentences"
    assert probe(corpus, codes, subsets=1, seed=1).readings[0].accuracies != small.accuracies[:1]
    # Codes of the test split alone decide nothing but the accuracy.
    shuffled = {**codes, "test": codes["test"][::-1]}
    others = probe(corpus, shuffled, subsets=1).readings
    assert [r.strengths for r in others] == [r.strengths[:1] for r in made.readings]
    assert others[1].accuracies == made.readings[1].accuracies[:1], "the same subset"
    assert others[4].accuracy < 0.5 < made.readings[4].accuracy


def test_a_subset_that_knows_one_label(corpus):
    labels = np.array([1, 1, 2])
    train = probing._Part(np.ones((2, 3)), np.array([1, 1]))
    part = probing._Part(np.ones((3, 3)), labels)
    assert probing._read(train, part, part)[0] == pytest.approx(2 / 3)


def test_the_counts_of_words(corpus):
    counts = word_counts(corpus.valid, len(corpus.vocabulary))
    assert counts.shape == (200, len(corpus.vocabulary))
    for number in (0, 77, 199):
        expected = np.bincount(corpus.valid.sentences[number], minlength=len(corpus.vocabulary))
        np.testing.assert_array_equal(counts[[number]].toarray()[0], expected)
    assert (counts.data > 1).any()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"), "vae", "data.label_column=true")


def call(run, *arguments):
    return command.main(["--run", str(run), *map(str, arguments)])


def test_the_command(run, tmp_path, capsys, monkeypatch):
    model = ContrastiveVAE.load(run)
    monkeypatch.setattr(ContrastiveVAE, "load", lambda folder, checkpoint, config: model)
    call(run, "--subsets", 2)
    printed = capsys.readouterr().out
    document = json.loads((run / "probe.json").read_text())
    # So few sentences that all are taken: those of train, which are those of test.
    made = model.probe()
    assert [(r["features"], r["sentences"]) for r in document["readings"]] == [
        ("codes", len(SENTENCES)),
        ("words", len(SENTENCES)),
    ]
    for row, reading in zip(document["readings"], made.readings, strict=True):
        assert row["accuracies"] == reading.accuracies and row["accuracy"] == reading.accuracy
        assert f"{reading.accuracy:.1%}" in printed
    assert document["labels"] == {"bad": 3, "good": 5} and document["majority"] == {
        "label": "good",
        "accuracy": 5 / 8,
    }
    corpus = load_corpus(model.config.data, model.vocabulary)
    assert document["corpus"] == corpus.fingerprint()
    assert (document["checkpoint"], document["step"]) == ("best", 7)
    call(run, "--subsets", 2, "--output", tmp_path / "elsewhere.json")
    assert json.loads((tmp_path / "elsewhere.json").read_text()) == document
    with pytest.raises(InputError, match="files of the run"):
        call(run, "--output", run / "probe.json")


def test_what_keeps_a_probe_from_the_labels(run, corpus, tmp_path, monkeypatch):
    """Told before a model is loaded."""
    monkeypatch.setattr(ContrastiveVAE, "load", lambda *arguments, **options: pytest.fail("loaded"))
    data = run.parent / "data" / "test.txt"
    before = data.read_text()
    data.write_text("\tthe market fell\n")
    with pytest.raises(
        InputError, match="test.txt gives no sentence of test a label.*label_column"
    ):
        call(run)
    data.write_text(before)
    for count, told in ((1, "all labels of train are '0'"), (201, "201 labels.* at most 200")):
        labels = [str(number % count) for number in range(400)]
        split = SimpleNamespace(labels=labels, source="train.txt", name="train")
        with pytest.raises(InputError, match=told):
            probing.check_labels(SimpleNamespace(train=split, valid=split, test=split))
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(InputError, match="not installed: pip install scikit-learn"):
        call(run)
    (tmp_path / "lm").mkdir()
    with pytest.raises(InputError, match="lstm_lm has no latent variable"):
        call(write_run(tmp_path / "lm", "lstm_lm"))
