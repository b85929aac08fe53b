"""Run folders with small, random, untrained models: what generation needs, without training."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tiny import randomise

from mindspore_cvae.config import layers
from mindspore_cvae.data.corpus import load_corpus
from mindspore_cvae.data.vocabulary import Vocabulary
from mindspore_cvae.devices import choosing
from mindspore_cvae.model.building import build_model
from mindspore_cvae.runs import checkpoints
from mindspore_cvae.runs import folder as runs_folder

SENTENCES = [
    "the bank said it would sell its shares",
    "shares of the company fell in new york",
    "it would not sell",
    "the market fell",
    "the company said it would buy a bank in new york",
    "a bank fell",
    "new shares of a company fell in the market",
    "the bank would not buy the company",
]
SIZES = (
    *("model.embedding_size=6", "model.hidden_size=8", "model.latent_size=4"),
    *("model.noise_size=4", "model.critic_size=8", "model.posterior_size=8"),
    *("eval.samples=16", "eval.rows=8", "data.max_words=12", "device_target=CPU"),
)


def write_corpus(folder: Path, has_labels: bool = False) -> Path:
    """A folder with three texts of a few sentences, labelled ``good`` or ``bad``."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{_label(text)}\t{text}" if has_labels else text for text in SENTENCES]
    for name in ("train", "valid", "test"):
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _label(sentence: str) -> str:
    return "good" if "bank" in sentence or "sell" in sentence else "bad"


def write_run(folder: Path, system: str, *overrides: str) -> Path:
    """A run of a system at step 7 that has a best and a last checkpoint.

    Args:
        folder: an existing folder; corpus and run are made in it.
        system: row of the table.
        overrides: further settings.
    """
    choosing.choose("CPU")
    data = write_corpus(folder / "data", "data.label_column=true" in overrides)
    settings = layers.load(None, [*SIZES, *overrides], system=system, data_dir=str(data))
    words = Counter(word for sentence in SENTENCES for word in sentence.split())
    vocabulary = Vocabulary.from_counts(words, settings.data.vocabulary_size)
    if settings.data.unit != "word":
        vocabulary = load_corpus(settings.data).vocabulary
    assert vocabulary.words == load_corpus(settings.data).vocabulary.words
    model = build_model(settings.slots, settings.model, len(vocabulary), settings.seed)
    # Not small, as training starts: sentences would all be alike.
    randomise(model, scale=1.0)
    tensors = {parameter.name: parameter.asnumpy() for parameter in model.get_parameters()}
    fingerprints = {"vocabulary": vocabulary.fingerprint(), "config": settings.fingerprint()}
    with runs_folder.Run(folder / "run") as run:
        run.write_inputs(settings, vocabulary)
        run.open_log().close()
        checkpoints.save(run.checkpoints, 7, tensors, {}, fingerprints, best=True)
    return run.folder
