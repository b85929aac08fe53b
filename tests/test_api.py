"""The Python interface on small untrained models."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import numpy as np
import pytest
from numpy_twins import lstm
from tiny import execution
from tiny_run import SENTENCES, write_run

from mindspore_cvae import ContrastiveVAE, api
from mindspore_cvae.api import interpolation_weights
from mindspore_cvae.commands.evaluate import eval_main
from mindspore_cvae.data.corpus import load_corpus
from mindspore_cvae.data.vocabulary import BEGIN, END, Vocabulary
from mindspore_cvae.errors import InputError, UserNotice
from mindspore_cvae.evaluation import metrics
from mindspore_cvae.evaluation.metrics import paper_metrics
from mindspore_cvae.evaluation.scoring import Scorer
from mindspore_cvae.runs import checkpoints, folder, loading
from mindspore_cvae.runs.loading import load_run
from mindspore_cvae.training.trainer import Trainer

PAIR = ("the bank said it would sell its shares", "the market fell")


@pytest.fixture(scope="module")
def runs_of(tmp_path_factory):
    """The run of a system, written once."""
    folders = {}

    def run_of(system, *overrides):
        key = (system, *overrides)
        if key not in folders:
            folders[key] = write_run(tmp_path_factory.mktemp(system), system, *overrides)
        return folders[key]

    return run_of


@pytest.fixture(scope="module")
def model(runs_of):
    return ContrastiveVAE.load(runs_of("cvae_plus_mi"))


def test_loading_says_nothing(runs_of):
    """MindSpore's own log too: what it refuses on a CPU it prints as an error, and goes on."""
    program = f"from mindspore_cvae import ContrastiveVAE as c; c.load({str(runs_of('ae'))!r})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_using_a_model_says_nothing(runs_of, capsys):
    """What a command tells of its work, first compilations among it, is not a program's output."""
    model = ContrastiveVAE.load(runs_of("ae"))
    model.reconstruct(list(PAIR))
    assert capsys.readouterr() == ("", "")


def test_a_vocabulary_of_another_order_is_refused(tmp_path):
    """Every word would stand for another, and the numbers would look like numbers."""
    run = write_run(tmp_path, "ae")
    words = (run / "vocab.txt").read_text().splitlines()
    (run / "vocab.txt").write_text("\n".join([*words[:4], words[5], words[4], *words[6:]]) + "\n")
    with pytest.raises(InputError, match="vocab.txt is not the vocabulary that .* trained with"):
        load_run(run)


def test_a_configuration_that_was_changed_is_told(tmp_path):
    run = write_run(tmp_path, "ae")
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("max_words: 12", "max_words: 11"))
    with pytest.warns(UserNotice, match=r"config.yaml is not what"):
        load_run(run)
    (run / "config.yaml").write_text(text.replace("rows: 8", "rows: 9"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_run(run)


def test_sizes_that_the_checkpoint_lacks_are_refused_before_anything_is_built(tmp_path):
    """An LSTM of this width has 68 GB."""
    run = write_run(tmp_path, "cvae_plus_mi")
    text = (run / "config.yaml").read_text()
    for size in ("hidden", "embedding", "latent", "noise", "critic"):
        changed, times = re.subn(rf"{size}_size: \d+", f"{size}_size: 65536", text)
        assert times == 1
        (run / "config.yaml").write_text(changed)
        with (
            mock.patch.object(loading, "build_model", side_effect=AssertionError),
            pytest.raises(InputError, match=f"model.{size}_size is 65536, but .* has the shape"),
        ):
            load_run(run)


def hidden_states(run, sentences):
    """h of sentences by NumPy, one at a time, and the checkpoint's tensors."""
    tensors = checkpoints.load(run / "checkpoints").tensors
    tensors = {name: values.astype(np.float64) for name, values in tensors.items()}
    prefix = "encoder.lstm."
    weights = {
        name.removeprefix(prefix): values
        for name, values in tensors.items()
        if name.startswith(prefix)
    }
    vocabulary = Vocabulary.load(run / "vocab.txt")
    states = []
    for sentence in sentences:
        ids = [BEGIN, *vocabulary.encode(sentence.split()), END]
        inputs = tensors["encoder.embedding.weight"][ids][:, None]
        zeros = np.zeros((1, weights["weight_hh_l0"].shape[1]))
        states.append(lstm(weights, inputs, zeros, zeros)[-1, 0])
    return np.array(states), tensors


def affine_mean(h, tensors):
    return h @ tensors["posterior.from_hidden.weight"].T + tensors["posterior.from_hidden.bias"]


def gaussian_mean(h, tensors):
    name = "posterior.mean_and_log_variance"
    return np.split(h @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"], 2, 1)[0]


def point(h, tensors):
    return h @ tensors["posterior.latent.weight"].T + tensors["posterior.latent.bias"]


@pytest.mark.parametrize(
    ("system", "mean"), [("cvae_plus_mi", affine_mean), ("vae", gaussian_mean), ("ae", point)]
)
def test_encode_gives_posterior_means(runs_of, system, mean):
    run = runs_of(system)
    # More than a call's rows, of different lengths.
    sentences = [*SENTENCES, "shares fell"]
    z = ContrastiveVAE.load(run).encode(sentences)
    assert z.shape == (len(sentences), 4) and z.dtype == np.float32
    np.testing.assert_allclose(z, mean(*hidden_states(run, sentences)), rtol=1e-4, atol=1e-5)


def test_means_of_samples_approach_the_closed_form(model):
    exact = model.encode(PAIR)
    few, many = (model.encode(PAIR, samples=samples) for samples in (16, 4000))
    assert np.abs(few - exact).max() > 0.2
    assert np.abs(many - exact).max() < 0.1
    np.testing.assert_array_equal(many, model.encode(PAIR, samples=4000))
    assert (many != model.encode(PAIR, samples=4000, seed=1)).any()


def test_an_implicit_posterior_is_averaged_over_samples(runs_of):
    model = ContrastiveVAE.load(runs_of("ivae", "slots.posterior=mlp"))
    z = model.encode(PAIR)
    np.testing.assert_array_equal(z, model.encode(PAIR, samples=16))
    # A sentence's draws are keyed by its number, so that company changes nothing.
    np.testing.assert_allclose(z[:1], model.encode(PAIR[:1]), atol=1e-6)


def test_sample_is_decoded_from_the_prior(model):
    texts = model.sample(5, seed=3)
    assert len(texts) == 5 and len(set(texts)) > 1
    assert texts == model.sample(5, seed=3)
    assert texts[:2] == model.sample(2, seed=3)
    assert texts != model.sample(5, seed=4)
    known = set(model.vocabulary.words)
    assert {word for text in texts for word in text.split()} <= known
    assert max(len(text.split()) for text in texts) <= model.config.data.max_words


def test_reconstruct_decodes_the_encoded(model):
    assert model.reconstruct(PAIR) == model.decode(model.encode(PAIR))
    assert model.reconstruct([]) == []


def test_interpolation_goes_from_a_to_b(model):
    a, b = PAIR
    texts = model.interpolate(a, b, steps=3)
    z_a, z_b = model.encode([a, b], samples=model.config.eval.samples)
    assert texts == model.decode(np.stack([z_a, (z_a + z_b) / 2, z_b]))
    backwards = model.interpolate(a, b)
    assert len(backwards) == 11
    assert (backwards[0], backwards[-1]) == (texts[0], texts[-1])
    assert texts[0] != texts[-1]
    np.testing.assert_allclose(interpolation_weights(11), [1 - i / 10 for i in range(11)])
    with pytest.raises(InputError, match="steps"):
        model.interpolate(a, b, steps=1)


def test_nearest_are_the_closest_training_sentences(model):
    queries = ["the market fell", "a bank would buy shares"]
    z, training = model.encode(queries), model.encode(SENTENCES)
    distances = np.linalg.norm(z[:, None].astype(np.float64) - training[None], axis=2)
    for found, row in zip(model.nearest(queries, k=3), distances, strict=True):
        order = np.argsort(row)[:3]
        assert [near.sentence for near in found] == [SENTENCES[i] for i in order]
        assert [near.line for near in found] == [i + 1 for i in order]
        np.testing.assert_allclose([near.distance for near in found], row[order], atol=1e-5)
    assert model.nearest(queries, k=1)[0][0].distance < 1e-5, "it is a training sentence itself"
    assert len(model.nearest(queries, k=100)[0]) == len(SENTENCES)


def test_the_training_codes_are_kept_while_nothing_changes(tmp_path):
    run = write_run(tmp_path, "ae")
    text = tmp_path / "data" / "train.txt"

    def encoded(model):
        """How many sentences a call encodes, and what it finds."""
        with mock.patch.object(model, "_encoder", wraps=model._encoder) as encoder:
            encoder.has_closed_form = model._encoder.has_closed_form
            found = model.nearest([PAIR[1]], k=3)
        return sum(len(call.args[0]) for call in encoder.call_args_list), found

    model = ContrastiveVAE.load(run)
    count, found = encoded(model)
    assert count == 1 + len(SENTENCES)
    assert encoded(model) == (1, found), "the model itself remembers"
    model._training = None
    assert encoded(model) == (1, found), "the run's folder does"
    weight = next(iter(model._model.get_parameters()))
    weight.set_data(weight + 0.25)
    model._training = None
    count, other = encoded(model)
    assert count == 1 + len(SENTENCES), "other weights"
    model._training = None
    text.write_text("".join(f"{line}\n" for line in SENTENCES[:-1]))
    assert encoded(model)[0] == len(SENTENCES), "another text"


def test_nearest_names_a_sentence_once(tmp_path):
    run = write_run(tmp_path, "ae")
    text = tmp_path / "data" / "train.txt"
    text.write_text("the market fell\n" * 3 + "a bank fell\n", encoding="utf-8")
    found = ContrastiveVAE.load(run).nearest(["the market fell"])[0]
    assert [(near.sentence, near.line) for near in found] == [
        ("the market fell", 1),
        ("a bank fell", 4),
    ]


def test_the_mean_code_of_a_label(runs_of, model):
    labelled = ContrastiveVAE.load(runs_of("cvae_plus_mi", "data.label_column=true"))
    z, count = labelled.mean_code("bad")
    # The same seed, and the same words: the same model.
    others = [text for text in SENTENCES if "bank" not in text and "sell" not in text]
    assert count == len(others) == 3
    np.testing.assert_allclose(z, model.encode(others).mean(0)[None], rtol=1e-5)
    with pytest.raises(InputError, match="label 'stars': the labels are bad, good$"):
        labelled.mean_code("stars")
    with pytest.raises(InputError, match="train.txt gives no sentence of train a label"):
        model.mean_code("good")


def test_no_draws_are_refused(model):
    for call in (model.score, model.encode):
        with pytest.raises(InputError, match="samples must be 1 or more, not 0"):
            call(SENTENCES, samples=0)


@pytest.mark.parametrize("system", ["cvae_plus_mi", "vae", "ae"])
def test_scores_are_those_of_the_evaluation(runs_of, system):
    model = ContrastiveVAE.load(runs_of(system))
    scores = model.score(SENTENCES, samples=3)
    split = load_corpus(model.config.data, model.vocabulary).test
    run = load_run(runs_of(system))
    evaluator = Scorer(run.model, run.config, (12,))
    metrics = paper_metrics(evaluator.score(split, samples=3), run.config.slots)
    assert scores.tokens.tolist() == [len(sentence.split()) + 1 for sentence in SENTENCES]
    assert scores.rec.shape == (len(SENTENCES),)
    np.testing.assert_allclose(scores.rec.mean(), metrics["rec"], rtol=1e-5)
    np.testing.assert_allclose(scores.kl.mean(), metrics["kl"], rtol=1e-4)
    np.testing.assert_allclose(scores.neg_elbo, scores.rec + scores.kl)


def test_unknown_words_are_warned_of(model, capfd):
    with pytest.warns(UserNotice, match="sentence 2") as told:
        model.encode(["the market fell", "xyzzy plugh"])
    (warning,) = told
    assert "sentence 1" not in str(warning.message)
    assert warning.filename == __file__, "it is the caller's line that is shown"
    assert capfd.readouterr() == ("", ""), "nothing is printed"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        z = model.encode(["<unk> <unk>", "xyzzy plugh"])
    np.testing.assert_array_equal(z[0], z[1])


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        (["the market", " "], "sentence 2 has no words"),
        (["a " * 13], "sentence 1 has 13 words.*max_words=12"),
        (["the <pad> market"], "sentence 1 holds <pad>"),
    ],
)
def test_bad_sentences_are_named(model, sentences, message):
    with pytest.raises(InputError, match=message):
        model.encode(sentences)


def test_text_is_read_as_in_training(runs_of):
    model = ContrastiveVAE.load(runs_of("ae", "data.lowercase=true", "data.unk_alias=_UNK"))
    z = model.encode(["The MARKET fell", "the market fell", "the _unk", "the <unk>"])
    np.testing.assert_array_equal(z[0], z[1])
    np.testing.assert_array_equal(z[2], z[3])
    assert (z[1] != z[2]).any()


def test_wrong_arguments_are_refused(model):
    with pytest.raises(TypeError, match="list of texts"):
        model.encode("the market fell")
    with pytest.raises(InputError, match=r"\(N, 4\)"):
        model.decode(np.zeros((2, 3)))
    with pytest.raises(TypeError, match="colour"):
        model.sample(1, colour="red")
    with pytest.raises(InputError, match="k must be"):
        model.nearest(PAIR, k=0)
    with pytest.raises(InputError, match="no sentence"):
        model.score([])


def test_loading_refuses_what_is_not_whole(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        ContrastiveVAE.load(tmp_path / "none")
    run = write_run(tmp_path, "ae")
    with pytest.raises(InputError, match="one of best, best_valid, last, not 'first'"):
        ContrastiveVAE.load(run, "first")
    assert ContrastiveVAE.load(run, "last").step == 7
    (run / folder.CHECKPOINTS / checkpoints.BEST).unlink()
    with pytest.warns(UserNotice, match="no validation"):
        assert ContrastiveVAE.load(run).step == 7

    vocabulary = run / folder.VOCABULARY
    words = vocabulary.read_text(encoding="utf-8")
    vocabulary.write_text(words + "another\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"embedding\.weight|vocabulary"):
        ContrastiveVAE.load(run)
    vocabulary.write_text(words, encoding="utf-8")

    saved = checkpoints.load(run / folder.CHECKPOINTS)
    tensors = {name: saved.tensors[name] for name in saved.tensors if "posterior" not in name}
    checkpoints.save(run / folder.CHECKPOINTS, 8, tensors, {}, saved.fingerprints)
    with pytest.raises(InputError, match="lacks posterior"):
        ContrastiveVAE.load(run, "last")


def test_the_package_is_imported_without_mindspore():
    check = (
        "import sys, mindspore_cvae; mindspore_cvae.ContrastiveVAE;"
        "assert 'mindspore' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


def test_threads_take_turns_with_a_model(runs_of):
    """Without a lock MindSpore ends the process by a segmentation fault."""
    model = ContrastiveVAE.load(runs_of("vae"))
    expected = model.encode(PAIR)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: model.encode(PAIR), range(12)))
    for codes in found:
        np.testing.assert_array_equal(codes, expected)


def test_a_forked_process_is_refused(model, monkeypatch):
    monkeypatch.setattr(api.os, "getpid", lambda: -1)
    for call in (lambda: model.encode(PAIR), lambda: ContrastiveVAE.load(model.folder)):
        with pytest.raises(InputError, match="forked .*spawn"):
            call()


SMALL = {
    "model.embedding_size": 4,
    "model.hidden_size": 6,
    "model.latent_size": 3,
    "data.batch_size": 4,
    "data.buckets": 1,
    "eval.rows": 4,
    "eval.best_valid_sentences": 0,
    "train.epochs": 1,
    "device_target": "CPU",
}
TEXT = [
    f"{who} {did} {when}"
    for who in ("a cat", "the dog", "a bird", "the sun", "we")
    for did in ("ran", "sat", "slept", "fell")
    for when in ("today", "soon", "again", "here", "alone")
]


def without_mindspore(captured):
    """Standard output, and the lines of standard error that are not of MindSpore's log, which
    :func:`devices.choosing.apply_precision` silences only in a process that has not imported it."""
    theirs = re.compile(r"\.mindspore\.log\.|^\[WARNING\] \w+\(")
    return captured.out, [line for line in captured.err.splitlines() if not theirs.search(line)]


def test_training_from_python(tmp_path, capfd):
    folder = tmp_path / "runs" / "mine"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = ContrastiveVAE.fit(TEXT, folder, "vae", progress=False, **SMALL)
    assert without_mindspore(capfd.readouterr()) == ("", [])
    assert model.step > 0 and model.encode(TEXT[:2]).shape == (2, 3)
    assert (tmp_path / "runs" / "mine.txt").read_text().splitlines() == TEXT
    again = ContrastiveVAE.fit(TEXT, folder, "vae", progress=False, **SMALL)
    assert again.step == model.step, "it had ended"
    np.testing.assert_array_equal(again.encode(TEXT), model.encode(TEXT))
    more = {**SMALL, "train.epochs": 2}
    assert ContrastiveVAE.fit(None, folder, progress=False, **more).step == 2 * model.step
    with pytest.raises(InputError, match="mine.txt holds other sentences"):
        ContrastiveVAE.fit(TEXT[1:], folder, "vae", **SMALL)
    with pytest.raises(InputError, match="model.latent_size was 3 in .* and is 4 now"):
        ContrastiveVAE.fit(TEXT, folder, **{**SMALL, "model.latent_size": 4})


@pytest.mark.parametrize(
    ("text", "reason"),
    [(["a", "b\nc"], "sentence 2 must be one line"), ([3], "sentence 1 must be one line of text")],
)
def test_training_refuses_what_is_no_sentence(tmp_path, text, reason):
    with pytest.raises(InputError, match=reason):
        ContrastiveVAE.fit(text, tmp_path / "run", "vae", **SMALL)
    assert not any(tmp_path.iterdir())


def test_a_signal_ends_a_training_after_it_was_saved(tmp_path, monkeypatch):
    save = Trainer.save

    def save_and_stop(self, *arguments):
        save(self, *arguments)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, "save", save_and_stop)
    stopped = pytest.raises(KeyboardInterrupt, match="SIGTERM ended training; called again")
    with stopped, pytest.warns(UserNotice, match="SIGTERM: finishing the step and saving"):
        ContrastiveVAE.fit(TEXT, tmp_path / "run", "vae", progress=False, **SMALL)
    assert checkpoints.load(tmp_path / "run" / "checkpoints").step == 0


def test_evaluating_is_what_the_command_does(runs_of, capfd):
    run = runs_of("vae")
    model = ContrastiveVAE.load(run)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    capfd.readouterr()
    metrics = model.evaluate("valid", samples=3, progress=False)
    assert without_mindspore(capfd.readouterr()) == ("", [])
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    assert eval_main(["--run", str(run), "--split", "valid", "--samples", "3"]) == 0
    assert metrics == folder.read_metrics(run, "metrics-valid.json")
    assert metrics["samples"] == 3 and metrics["sentences"] == len(SENTENCES)


def test_an_evaluation_takes_the_options_of_the_command(tmp_path, monkeypatch):
    made = {"split": "test", "rec": 2.0}, {"line": np.array([1, 2]), "rec": np.array([1.5, 2.5])}
    given = []
    monkeypatch.setattr(metrics, "evaluate_loaded", lambda *all: given.append(all) or made)
    run = write_run(tmp_path, "ae")
    model = ContrastiveVAE.load(run)
    assert model.evaluate(samples=5, iw_samples=7) == made[0]
    assert model.evaluate(iw_samples=7, iw_proposal="fit", refit_critic=True, write=True) == made[0]
    (loaded, config, corpus, *first), (_, plain, _, *second) = given
    assert (loaded.step, config.eval.samples, plain.eval.samples) == (model.step, 5, 16)
    assert len(corpus.test) == len(SENTENCES)
    assert first == ["test", metrics.Weighing(7), False]
    assert second == ["test", metrics.Weighing(7, ("fit",)), True]
    assert folder.read_metrics(run, "metrics-test.json") == made[0]
    assert folder.read_sentences(run / "sentences-test.tsv")["rec"] == ["1.5", "2.5"]


def test_an_evaluation_refuses_what_it_cannot_do(model):
    for options, reason in (
        ({"split": "train"}, "split must be valid or test, not 'train'"),
        ({"samples": 0}, "samples must be 1 or more, not 0"),
        ({"iw_samples": 0}, "iw_samples must be 1 or more, not 0"),
        ({"iw_proposal": "best"}, "iw_proposal must be one of auto, fit, .*, not 'best'"),
    ):
        with pytest.raises(InputError, match=reason):
            model.evaluate(**options)


def test_a_process_that_is_left_alone_keeps_device_and_mode(runs_of, monkeypatch):
    import mindspore

    run, mode = runs_of("vae"), mindspore.get_context("mode")

    def refuse(*arguments, **options):
        raise AssertionError("the process's settings were touched")

    environment = dict(os.environ)
    for name in ("set_context", "set_device"):
        monkeypatch.setattr(mindspore, name, refuse)
    codes = ContrastiveVAE.load(run, configure=False).encode(PAIR)
    assert os.environ == environment and mindspore.get_context("mode") == mode
    with pytest.raises(AssertionError, match="touched"):
        ContrastiveVAE.load(run)
    with pytest.raises(InputError, match="configure=False leaves the device alone"):
        ContrastiveVAE.load(run, configure=False, device_target="CPU")
    monkeypatch.undo()
    np.testing.assert_array_equal(ContrastiveVAE.load(run).encode(PAIR), codes)
    with execution("pynative"), pytest.raises(InputError, match="in graph mode: mindspore.set_con"):
        ContrastiveVAE.load(run, configure=False)
