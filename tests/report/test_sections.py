"""The page of a run: what it shows, what it leaves out, and that no text becomes markup."""

from __future__ import annotations

import dataclasses
import functools
import html.parser
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, find_browser
from made_run import TEST, write_made_run
from tiny_run import SENTENCES, write_run

from mindspore_cvae.commands import report, train
from mindspore_cvae.config import layers
from mindspore_cvae.data import grammar
from mindspore_cvae.data.corpus import load_corpus
from mindspore_cvae.data.vocabulary import UNKNOWN
from mindspore_cvae.errors import InputError, UserNotice
from mindspore_cvae.evaluation.columns import COLUMNS
from mindspore_cvae.report import sections
from mindspore_cvae.report.page import FOLDER, element
from mindspore_cvae.report.sections import compared, render, write_report, write_report_or_warn
from mindspore_cvae.report.specimens import (
    Groups,
    Specimens,
    label_groups,
    length_groups,
    make_specimens,
    principal_components,
    spread,
)
from mindspore_cvae.runs import folder as runs_folder
from mindspore_cvae.systems import SYSTEMS

HOSTILE = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "</title></svg></style><b>bold</b>",
    "&lt;b&gt; &amp;",
    "\x00\x01\x1b[31m\u202e\ufeffreversed",
)
VOID = ("meta", "br", "hr", "col")


class Page(html.parser.HTMLParser):
    """A page read back: its elements, their attributes, its text, and what is out of order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.faults = [], []
        self.tags, self.pairs, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert self.open == [] and self.faults == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.pairs += [(name, value or "") for name, value in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append((tag, self.getpos()))

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data

    def values(self, name):
        return [value for other, value in self.pairs if other == name]


def specimens(texts=SENTENCES, absent=None):
    """Specimens that no model made."""
    codes = np.random.default_rng(0).normal(size=(len(texts), 3))
    points, explained = principal_components(codes)
    made = Specimens(list(texts), absent=absent or {})
    made.reconstructions = [(text, f"{text} again") for text in texts]
    made.paths = [(texts[0], texts[1], [texts[0], texts[0], texts[1]])]
    made.map, made.explained, made.mapped = points, explained, list(texts)
    lengths = np.array([len(text.split()) for text in texts])
    made.groups = [
        Groups("topic", list(texts[:2]), np.arange(len(texts)) % 2, False),
        length_groups(lengths),
    ]
    return made


def rendered(folder, made=None):
    return render(folder, runs_folder.read_config(folder), specimens() if made is None else made)


@pytest.fixture
def made(tmp_path):
    return write_made_run(tmp_path / "run", test={})


def test_a_page_has_every_section(made):
    page = Page(rendered(made))
    for title in ("Metrics", "By epoch", "Training", "Latent space", "Samples"):
        assert title in page.text
    for title in ("Reconstructions", "Interpolations", "Configuration"):
        assert title in page.text
    anchors = {value.removeprefix("#") for value in page.values("href")}
    assert anchors <= set(page.values("id")) and len(anchors) == 8
    # Six charts over epochs, eight over steps, two maps.
    assert page.tags.count("svg") == 6 + 8 + 2
    assert all(sentence in page.text for sentence in SENTENCES)
    assert "critic_learning_rate" in page.text


def test_a_page_needs_nothing_else(made):
    page = Page(rendered(made))
    assert not {"script", "img", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert not [name for name, _ in page.pairs if name.startswith("on") or name == "src"]
    assert all(value.startswith("#") for value in page.values("href"))
    style = (FOLDER / "page.css").read_text()
    assert "url(" not in style and "@import" not in style
    assert "default-src 'none'" in " ".join(page.values("content"))


def test_the_metrics_of_the_test_split_with_what_they_bound(made):
    page = Page(rendered(made))
    for value in ("79.00", "36.00", "160.00", "110.00", "3,761 sentences"):
        assert value in page.text
    titles = [column.title for column in COLUMNS.values() if column.key in TEST]
    assert all(title in page.text for title in titles)
    assert "no bound" in page.text and "upper bound" in page.text


def test_without_an_evaluation_the_best_validation_stands_there(tmp_path):
    page = Page(rendered(write_made_run(tmp_path / "run")))
    assert "Validation after epoch 4" in page.text and "eval.py" in page.text
    assert "true NLL" in page.text and "44.50" in page.text


def standing(system, key):
    """What a page says of a column of a system."""
    metric = COLUMNS[key]
    return metric.standing if isinstance(metric.standing, str) else metric.standing(SYSTEMS[system])


@pytest.mark.parametrize(
    ("system", "neg_elbo", "kl", "iw_nll"),
    [
        ("cvae_plus_mi", "no bound", "estimate", "upper bound"),
        ("ivae", "no bound", "estimate", "upper bound"),
        ("vae", "upper bound", "exact", "upper bound"),
        ("ae", "no bound", "no bound", "upper bound"),
        ("lstm_lm", "exact", "exact", "exact"),
    ],
)
def test_what_is_a_bound_depends_on_the_system(system, neg_elbo, kl, iw_nll):
    assert standing(system, "neg_elbo") == neg_elbo
    assert standing(system, "kl") == kl
    assert standing(system, "iw_nll") == iw_nll


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_has_a_page(tmp_path, system):
    page = Page(rendered(write_made_run(tmp_path / "run", system, test={})))
    terms = 2 + 2  # loss, reconstruction, beta, speed
    terms += SYSTEMS[system].divergence != "none"
    terms += SYSTEMS[system].contrast != "none"
    terms += 2 * (SYSTEMS[system].step == "critic_then_model")
    # Without a divergence, the made-up log has no MI.
    curves = 6 - (SYSTEMS[system].divergence == "none")
    assert page.tags.count("svg") == terms + curves + 2
    assert ("This system has no" in page.text) == (terms < 8)


def test_what_is_absent_is_said(made):
    reason = "there is no code of a sentence"
    some = Specimens(["a sample"])
    some.absent = dict.fromkeys(("reconstructions", "paths", "map"), reason)
    page = Page(rendered(made, some))
    assert page.text.count(reason) == 3 and "a sample" in page.text
    page = Page(rendered(made, "The model could not be read (checkpoints is empty)."))
    assert page.text.count("could not be read") == 4
    (made / runs_folder.LOG).write_text("")
    page = Page(rendered(made))
    assert "no curves" in page.text and "No training step" in page.text


def test_no_text_becomes_markup(tmp_path):
    name = '<b id="x">&amp;'
    folder = write_made_run(tmp_path / name, "vae", f"data.dir={HOSTILE[1]}", test={})
    plain = Page(rendered(write_made_run(tmp_path / "plain", "vae", "data.dir=x", test={})))
    rows = [
        {"event": "start", "device": HOSTILE[0], "splits": {HOSTILE[1]: {HOSTILE[0]: 3}}},
        {"event": "valid", "epoch": 1, "kl": HOSTILE[0], "rec": 3.0, "best": HOSTILE[1]},
        {"event": "end", "reason": HOSTILE[2]},
    ]
    with open(folder / runs_folder.LOG, "a") as log:
        log.write("".join(runs_folder.json.dumps(row) + "\n" for row in rows))
    runs_folder.write_metrics(folder, "test", {**TEST, "kl": HOSTILE[0], "tokens": HOSTILE[1]})
    page = Page(rendered(folder, specimens([*HOSTILE, "a b", "c d", "e f"])))
    assert set(page.tags) == set(plain.tags), "no element that a harmless run does not have"
    names = {name for name, _ in plain.pairs}
    assert {name for name, _ in page.pairs} == names
    for text in HOSTILE[:3]:
        assert text in page.text
    assert not set(page.text) & set(map(chr, [*range(9), *range(14, 32)]))


def test_any_log_has_a_page(made):
    rows = [
        "nothing",
        "[1]",
        '{"event": "valid"}',
        '{"event": "valid", "epoch": -1, "kl": 2}',
        '{"event": "valid", "epoch": 1e999, "kl": 1e999}',
        '{"event": "step", "step": true, "loss": 1}',
        f'{{"event": "step", "step": 1, "loss": 1{"0" * 400}}}',
        '{"event": "step", "step": 2, "loss": -1.7e308}',
        '{"event": "step", "step": 3, "loss": [1]}',
        '{"event": "start", "splits": [], "device": null}',
        '{"event": "end", "reason": null}',
        '{"event": "st',
    ]
    (made / runs_folder.LOG).write_text("\n".join(rows))
    (made / "metrics-test.json").write_text("[]")
    (made / "metrics-valid.json").write_text('{"kl": null, "ppl": true, "au": 1e999}')
    (made / "ngram.json").write_text('{"protocols": {"released": 3, "x": {"forward_ppl": {}}}}')
    Page(rendered(made))


def test_a_long_log_takes_the_memory_of_its_numbers(tmp_path):
    """Eight columns and the step, eight bytes each; rows as Python has them take ten times that."""
    count = 20_000
    with open(tmp_path / "log.jsonl", "w") as file:
        for step in range(count):
            row = {"event": "step", "step": step, "loss": step / 2, "con": None, "beta": True}
            file.write(json.dumps({**row, "further": list(range(9))}) + "\n")
        file.write(json.dumps({"event": "valid", "epoch": 1, "step": count}) + "\n")
    tracemalloc.start()
    log, steps = sections._read_log(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * 9 * 8 * count
    assert log == [{"event": "valid", "epoch": 1, "step": count}]
    np.testing.assert_array_equal(steps["step"], np.arange(count))
    np.testing.assert_array_equal(steps["loss"], np.arange(count) / 2)
    assert np.isnan([steps["con"], steps["rec"], steps["beta"]]).all()


def test_huge_words_are_cut(made):
    text = rendered(made, specimens(["x" * 1_000_000, *SENTENCES]))
    assert len(text) < 1_000_000


def test_ngram_numbers_are_shown(made):
    result = {"forward_ppl": 123.4, "reverse_ppl_test": 567.8, "reverse_ppl_train": 555.5}
    (made / "ngram.json").write_text(runs_folder.json.dumps({"protocols": {"released": result}}))
    page = Page(rendered(made))
    assert "released" in page.text and "123.40" in page.text and "567.80" in page.text


def test_elements():
    assert element("p", "a<b", class_="x", data_y='"') == '<p class="x" data-y="&#34;">a&lt;b</p>'
    assert element("p", element("b", "x"), None, 3) == "<p><b>x</b>3</p>"
    assert element("i", "a\x00", title=None) == "<i>a\N{REPLACEMENT CHARACTER}</i>"


def test_a_template_of_ones_own(made, tmp_path):
    config = runs_folder.read_config(made)
    template = tmp_path / "mine.html"
    template.write_text("{{ policy }}|{{ run.name }}|{{ facts.source }}|{{ '<' }}")
    text = render(made, config, specimens(), template)
    assert text.split("|")[1:] == [made.name, "test split", "&lt;"]
    template.write_text('{% extends "page.html" %}')
    assert render(made, config, specimens(), template) == rendered(made)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a\n{% if %}", "mine.html, line 2: "),
        ("{{ nothing }}", "mine.html: the template does not fit the page: 'nothing' is undefined"),
        ('{% include "other.html" %}', "the template other.html is not there"),
        (None, "the template mine.html is not there"),
    ],
)
def test_a_template_that_does_not_fit_is_one_sentence(made, tmp_path, capsys, text, reason):
    template = tmp_path / "mine.html"
    if text is not None:
        template.write_text(text)
    with pytest.raises(InputError, match=reason) as refused:
        render(made, runs_folder.read_config(made), specimens(), template)
    assert "\n" not in str(refused.value)


def test_principal_components_against_the_covariance():
    random = np.random.default_rng(3)
    codes = random.normal(size=(200, 4)) @ np.diag([5.0, 2.0, 0.3, 0.1]) + 7
    points, shares = principal_components(codes.astype(np.float32))
    values = np.sort(np.linalg.eigvalsh(np.cov(codes.T)))[::-1]
    np.testing.assert_allclose(points.var(0, ddof=1), values[:2], rtol=1e-4)
    np.testing.assert_allclose(shares, values[:2] / values.sum(), rtol=1e-4)
    assert abs(np.cov(points.T)[0, 1]) < 1e-3
    flipped, _ = principal_components(codes[::-1].astype(np.float32))
    np.testing.assert_allclose(flipped[::-1], points, atol=1e-3)
    for size in (1, 2):
        line, _ = principal_components(np.ones((3, size)))
        assert line.shape == (3, 2) and not line.any()


def test_groups_of_length_are_ordered_and_whole():
    lengths = np.array([1, 1, 2, 3, 5, 8, 13, 21, 34, 55])
    groups = length_groups(lengths)
    assert groups.numbers.tolist() == sorted(groups.numbers.tolist())
    assert groups.numbers.max() + 1 == len(groups.names) == 5
    assert length_groups(np.array([7, 7, 7])).names == ["7 words"]
    assert length_groups(np.array([7, 7, 7]), "pieces").names == ["7 pieces"]


def test_what_differs_is_marked_by_words_or_by_characters():
    assert compared("the bank fell", "the market fell") == [
        ("the", False), ("market", True), ("fell", False),
    ]  # fmt: skip
    assert compared("\u6211\u770b\u4e66", "\u6211\u5199\u4e66", "") == [
        ("\u6211", False), ("\u5199", True), ("\u4e66", False),
    ]  # fmt: skip


def test_spread():
    assert spread(range(3), 5) == [0, 1, 2]
    assert spread(range(100), 4) == [0, 25, 50, 75]


def test_the_report_of_a_run(tmp_path, capsys):
    folder = write_run(tmp_path, "cvae_plus_mi")
    report.main(["--run", str(folder)])
    assert capsys.readouterr().out == f"written to {folder / 'report.html'}\n"
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert "By sentence length" in page.text and "By topic" not in page.text
    assert page.tags.count("circle") == len(SENTENCES)
    assert all(sentence in page.text for sentence in SENTENCES)
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


class NoModel:
    """What specimens ask of a model, answered without one."""

    def __init__(self, system, vocabulary):
        self.config = layers.load(None, system=system)
        self.vocabulary, self.step = vocabulary, 7

    def sample(self, count):
        return ["a sample"] * count

    def encode_numbered(self, sentences):
        sentences = [self.vocabulary.decode(numbers) for numbers in sentences]
        return np.array([[len(text), text.count("e"), text.count("a")] for text in sentences])

    def decode(self, z):
        return [f"decoded {row[0]}" for row in z]

    def interpolate(self, a, b, steps):
        return [a, *["between"] * (steps - 2), b]


@pytest.fixture(scope="module")
def embedded():
    few = {"train": 100, "valid": 1200, "test": 10}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grammar, "generate", functools.partial(grammar.generate, counts=few))
        return load_corpus(layers.load(None).data)


def test_specimens_of_the_embedded_corpus(embedded):
    model = NoModel("cvae", embedded.vocabulary)
    made = make_specimens(model, lambda: embedded.valid)
    assert made.absent == {} and len(made.samples) == 12
    assert made.map.shape == (1000, 2) and len(made.mapped) == 1000
    topic, length = made.groups
    assert topic.by == "topic" and topic.names == sorted(grammar.TOPICS) and topic.rest == ""
    samples = grammar.generate(counts={"train": 0, "valid": 1000})["valid"]
    for number in (0, 1, 500, 999):
        assert made.mapped[number] == samples.texts[number]
        name = grammar.TOPICS[samples.topics[number]]
        assert topic.names[topic.numbers[number]] == topic.labels[number] == name
        low, high = length.names[length.numbers[number]].split()[0].split("\N{EN DASH}")
        assert int(low) <= len(samples.texts[number].split()) <= int(high)
    for text, decoded in made.reconstructions:
        assert decoded == f"decoded {len(text)}", "from the sentence's own code"
    assert len(made.paths) == 2
    for first, last, texts in made.paths:
        assert first != last and texts[0] == first and texts[-1] == last and len(texts) == 11


def test_the_most_frequent_labels_have_colours(made):
    labels = [letter for letter in "jihgfedcba" for _ in range("abcdefghij".index(letter) + 1)]
    groups = label_groups("label", [*labels, ""])
    assert groups.names == list("defghij") and groups.rest == "3 others or no label"
    assert [groups.numbers[labels.index(letter)] for letter in "dj"] == [0, 6]
    assert set(groups.numbers[labels.index("c") :]) == {-1}
    assert label_groups("label", list("abcdefgh")).rest == "h", "what is alone keeps its name"
    assert label_groups("topic", ["a", "", "b"]).rest == "no topic"
    some = specimens([*SENTENCES, *HOSTILE, "the end"])
    bearers = [*"abcdefgh", *HOSTILE, ""]
    some.groups = [label_groups("label", bearers)]
    page = Page(rendered(made, some))
    assert "By label" in page.text and "6 others or no label" in page.text
    assert f"a: {SENTENCES[0]}" in page.text, "where the pointer rests"
    assert page.values("class").count("rest") == 7 + 1, "their points, and the legend"


def test_specimens_without_what_they_need(embedded):
    def missing():
        raise InputError("data/x: no train.txt in this folder")

    made = make_specimens(NoModel("cvae", embedded.vocabulary), missing)
    assert made.samples and not made.paths and made.map is None
    assert all("no train.txt" in reason for reason in made.absent.values())
    made = make_specimens(NoModel("lstm_lm", embedded.vocabulary), missing)
    assert made.samples and "no latent variable" in made.absent["map"]
    two = dataclasses.replace(embedded.valid, sentences=embedded.valid.sentences[:2])
    made = make_specimens(NoModel("cvae", embedded.vocabulary), lambda: two)
    assert made.map is None and "three sentences" in made.absent["map"] and len(made.paths) == 1
    unknown = dataclasses.replace(two, sentences=[np.array([UNKNOWN])] * 2)
    made = make_specimens(NoModel("cvae", embedded.vocabulary), lambda: unknown)
    assert "No sentence" in made.absent["reconstructions"]


@pytest.mark.slow
def test_a_report_is_the_same_again(tmp_path):
    folder = write_run(tmp_path, "cvae_plus_mi")
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first


@pytest.mark.slow
@pytest.mark.parametrize("system", ["ae", "vae", "sa_vae", "lstm_lm", "ivae"])
def test_the_report_of_every_kind_of_system(tmp_path, system):
    overrides = ["slots.posterior=mlp"] if system == "ivae" else []
    page = Page(write_report(write_run(tmp_path, system, *overrides)).read_text("utf-8"))
    has_map = system != "lstm_lm"
    assert page.tags.count("svg") == has_map
    assert page.text.count("lstm_lm has no latent variable") == (0 if has_map else 3)


def test_a_run_without_a_model_has_a_page(made):
    path = write_report(made)
    page = Page(path.read_text(encoding="utf-8"))
    assert page.text.count("The model could not be read") == 4
    assert page.tags.count("svg") == 6 + 8


def test_bad_input_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(InputError, match="does not exist: give the --output_dir"):
        report.main(["--run", str(tmp_path / "none")])
    done = subprocess.run(
        [sys.executable, "-m", "mindspore_cvae", "report", "--run", str(tmp_path)],
        cwd=Path(sections.__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [RuntimeError("no\nmemory"), OSError(28, "full", "x"), KeyboardInterrupt(), MemoryError()],
)
def test_no_failure_of_the_report_fails_a_training(made, monkeypatch, capsys, error):
    def fail(*arguments):
        raise error

    before = {path.name: path.read_bytes() for path in made.iterdir() if path.is_file()}
    monkeypatch.setattr(sections, "render", fail)
    with pytest.warns(UserNotice, match="^the training is complete, but its report") as told:
        assert not write_report_or_warn(made)
    (line,) = (str(warning.message) for warning in told if "its report" in str(warning.message))
    assert "\n" not in line
    assert capsys.readouterr().out == ""
    assert {path.name: path.read_bytes() for path in made.iterdir() if path.is_file()} == before


@pytest.mark.parametrize(
    ("reason", "wanted", "expected"),
    [("epochs", True, 1), ("epochs", False, 0), ("SIGTERM", True, 0)],
)
def test_training_writes_it_at_its_end(tmp_path, monkeypatch, reason, wanted, expected):
    from mindspore_cvae.devices import choosing
    from mindspore_cvae.training import trainer

    asked = []
    monkeypatch.setattr(trainer, "train", lambda *arguments, **options: reason)
    monkeypatch.setattr(sections, "write_report_or_warn", asked.append)
    monkeypatch.setattr(choosing, "choose", lambda *arguments: "CPU")
    monkeypatch.setattr(train, "corpus_of_run", lambda *arguments: None)
    monkeypatch.setattr(train, "_summary", lambda corpus: [])
    pairs = ["--set", f"train.report={str(wanted).lower()}"]
    code = train.train_main(["--output_dir", str(tmp_path / "run"), *pairs])
    assert code == (143 if reason == "SIGTERM" else 0)
    assert asked == [tmp_path / "run"] * expected


def test_a_run_from_before_the_key_has_a_report(made):
    text = (made / "config.yaml").read_text()
    assert "  report: true\n" in text
    (made / "config.yaml").write_text(text.replace("  report: true\n", ""))
    assert layers.read_saved(made / "config.yaml").train.report


VISIBLE = """
(() => {
  const shown = (node) => {
    const box = node.getBoundingClientRect();
    return box.width > 0 && box.height > 0;
  };
  const drawings = [...document.querySelectorAll("svg")];
  return {
    text: document.body.innerText,
    drawings: drawings.length,
    shown: drawings.filter(shown).length,
    curves: [...document.querySelectorAll("polyline")].filter(shown).length,
    dots: [...document.querySelectorAll(".dots circle")].filter(shown).length,
    overflow: document.documentElement.scrollWidth - window.innerWidth,
    paper: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.body).color,
    scripts: document.scripts.length,
  };
})()
"""


def brightness(colour):
    """Of ``rgb(r, g, b)``, 0 to 255."""
    numbers = colour.removeprefix("rgb(").removesuffix(")").split(",")
    return sum(map(int, numbers)) / 3


def test_a_browser_shows_the_page(made):
    program = find_browser()
    if program is None:
        pytest.skip("no browser is installed (Debian: apt-get install chromium)")
    path = made / "report.html"
    path.write_text(rendered(made, specimens([*SENTENCES, *HOSTILE])), encoding="utf-8")
    with Browser(program) as browser:
        for width, height, scheme in ((1280, 900, "light"), (390, 844, "dark")):
            browser.open(path, width, height, scheme)
            seen = browser.evaluate(VISIBLE)
            assert browser.complaints == []
            assert browser.requests == [path.resolve().as_uri()]
            assert seen["drawings"] == seen["shown"] == 6 + 8 + 2
            assert seen["curves"] >= 14 and seen["dots"] == 2 * len([*SENTENCES, *HOSTILE])
            for text in (*SENTENCES, *HOSTILE[:3], "upper bound", "Latent space", "79.00"):
                assert text in seen["text"]
            assert seen["overflow"] <= 0, "nothing sticks out of the screen"
            assert seen["scripts"] == 0
            is_light = brightness(seen["paper"]) > brightness(seen["ink"])
            assert is_light == (scheme == "light")
            assert abs(brightness(seen["paper"]) - brightness(seen["ink"])) > 150
