"""Every key of a configuration: its default, its interval, its meaning; what ``--help`` prints."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import inspect
import itertools
import json
import textwrap
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mindspore_cvae import systems
from mindspore_cvae.common.files import write_atomically
from mindspore_cvae.config.options import Option, shown

DEFAULT_SYSTEM = "cvae_plus_mi"


def _option(
    default,
    interval: str | None = None,
    choices: tuple = (),
    free: bool = False,
    words: tuple[str, ...] = (),
):
    """A key of the configuration.

    Args:
        default: its default.
        interval: range of a number, ``[`` and ``]`` closed, ``(`` and ``)`` open.
        choices: the valid values, where they can be listed.
        free: whether a resumed run may change it: it does not decide what a step computes. (What is
            validated, and when, does for the aggressive step, which looks at each validation's MI.)
        words: values of another kind, which stand for one that is found later.
    """
    metadata = {"interval": interval, "choices": choices, "free": free, "words": words}
    return dataclasses.field(default=default, metadata=metadata)


_SIZE = "[1, 65536]"

_COUNT = "[1, 1e9]"


@dataclass(frozen=True)
class Data:
    """Corpus, vocabulary and length buckets."""

    dir: str | None = _option(None, free=True)
    """Folder with train.txt, valid.txt (or val.txt) and test.txt, or one text file, which is split
    90/5/5; null takes the embedded corpus."""
    unit: str = _option("word", choices=("word", "character", "sentencepiece"))
    """What a sentence is made of: words between blanks, characters, or pieces that sentencepiece
    learns from the training text; what is said of words elsewhere is said of these."""
    pieces: int = _option(8000, "[2, 1e6]")
    """Pieces that sentencepiece learns, ``<unk>`` counted, at most: a small text has fewer."""
    vocabulary_size: int = _option(10002, "[5, 1e7]")
    """Words of the vocabulary, the four specials included; the most frequent ones are kept."""
    unk_alias: str | None = _option(None)
    """How the texts write an unknown word besides <unk> (Yahoo and Yelp: _UNK)."""
    lowercase: bool = _option(False)
    """Whether words are turned into lower case."""
    label_column: bool = _option(False)
    """Whether lines are label<TAB>sentence; no word of the label is trained."""
    too_long: str = _option("drop", choices=("drop", "truncate", "error"))
    """What happens to a sentence of more than max_words words."""
    max_words: int = _option(100, "[1, 100000]")
    """Most words of a sentence."""
    buckets: int | str = _option(8, "[1, 256]", words=("auto",))
    """Most lengths to which sentences are padded; each costs a compilation of the training step.
    auto weighs padding against compilation when a run begins, and the run keeps that number."""
    batch_size: int = _option(32, "[1, 65536]")
    """Sentences of a training step, per process."""
    batches: str = _option("mixed", choices=("mixed", "same_length"))
    """Which sentences share a training step: any of a bucket, or of one length, as in the released
    code, where the last step of a length has fewer. Then length tells a contrast nothing."""


@dataclass(frozen=True)
class Model:
    """Sizes of the networks, their initial values, and how they compute."""

    embedding_size: int = _option(256, _SIZE)
    """Width of the word embeddings, of the encoder's and of the decoder's."""
    hidden_size: int = _option(256, _SIZE)
    """Width of both LSTMs."""
    latent_size: int = _option(32, _SIZE)
    """Dimensions of z."""
    noise_size: int = _option(32, _SIZE)
    """Dimensions of eps, the noise of an implicit posterior."""
    critic_size: int = _option(512, _SIZE)
    """Width of the critics' hidden layers."""
    critic_layers: int = _option(3, "[1, 16]")
    """Hidden layers of each critic."""
    posterior_size: int = _option(256, _SIZE)
    """Width of the hidden layers of the posterior mlp."""
    posterior_layers: int = _option(2, "[1, 16]")
    """Hidden layers of the posterior mlp."""
    decoder_dropout: float = _option(0.5, "[0, 1)")
    """Dropout rate of the decoder's embedded words and of its outputs."""
    init_scale: float = _option(0.1, "(0, 10]")
    """Encoder and decoder start uniform in [-init_scale, init_scale]."""
    noise_init_scale: float | None = _option(None, "[0, 10]")
    """The same for the weights that the noise of the posterior affine meets; null takes
    init_scale."""
    first_state_bias: bool = _option(False)
    """Whether the map from z to the decoder's first state has a bias, as in the released code."""
    amp_level: str = _option("O0", choices=("O0", "O2"))
    """Mixed precision. O0: float32 (Ascend's LSTM computes in float16 all the same); O2: LSTMs and
    logits in float16, all else and the weights themselves in float32, and the loss is scaled."""
    vocabulary_multiple: int | None = _option(None, "[1, 65536]")
    """Multiple to which the logits and their inputs are padded while they are computed; null takes
    16 on Ascend and 1 elsewhere."""


@dataclass(frozen=True)
class Train:
    """Optimisation, selection of the best checkpoint, and what is written while training."""

    epochs: int = _option(40, _COUNT, free=True)
    """Passes over the training sentences."""
    max_steps: int | None = _option(None, _COUNT, free=True)
    """Steps after which training stops, if its epochs have not ended before; null for no limit."""
    learning_rate: float = _option(1e-3, "(0, 10]")
    """Adam's learning rate of encoder and decoder."""
    critic_learning_rate: float = _option(1e-5, "(0, 10]")
    """Adam's learning rate of the critics."""
    critic_updates: int = _option(5, "[1, 1000]")
    """Updates of the critics in a training step (Algorithm 1 has one, the release five)."""
    clip_norm: float = _option(5.0, "(0, 1e9]")
    """Norm to which gradients are clipped."""
    loss_scale: float | None = _option(None, "[1, 8.5e37]")
    """First scale of the loss, for gradients in half precision: it halves at a step whose gradients
    overflow, which is skipped; null takes 65536 where model.amp_level is O2, and else scales
    nothing and ends training there."""
    loss_scale_window: int = _option(2000, _COUNT)
    """Steps in a row without an overflow after which the scale of the loss doubles."""
    max_skipped_steps: int = _option(50, _COUNT, free=True)
    """Skipped steps in a row that end training."""
    log_every_steps: int = _option(10, _COUNT, free=True)
    """Steps between two rows of log.jsonl."""
    select: str = _option("neg_elbo", choices=("neg_elbo", "rec", "iw_nll"))
    """Validation metric whose lowest value marks the best checkpoint."""
    patience: int | None = _option(None, _COUNT, free=True)
    """Validations without a better value that end training, counted once beta has reached its end
    value; null never stops early."""
    checkpoint_every_steps: int | None = _option(None, _COUNT, free=True)
    """Steps between two checkpoints besides those at the ends of epochs; null for none."""
    keep_checkpoints: int = _option(2, "[1, 10000]", free=True)
    """How many of the last checkpoints stay, besides the best."""
    report: bool = _option(True, free=True)
    """Whether report.html is written into the run's folder when training ends."""
    tensorboard: bool = _option(False, free=True)
    """Whether TensorBoard gets the log and what the report shows, in tensorboard/ of the run's
    folder; it needs the package tensorboardX."""


@dataclass(frozen=True)
class Evaluation:
    """Evaluation of a split."""

    samples: int = _option(128, "[1, 1e6]", free=True)
    """Draws of z a sentence."""
    valid_samples: int = _option(8, "[1, 1e6]", free=True)
    """The same for the validation after an epoch."""
    valid_iw_samples: int = _option(16, "[1, 1e6]", free=True)
    """Draws of the importance-weighted bound a sentence in the validation after an epoch."""
    best_valid_sentences: int = _option(500, "[0, 1e9]", free=True)
    """Sentences of the validation split, the first ones, whose bound chooses the checkpoint
    best_valid; 0 for none of that. A training with train.select=iw_nll takes all."""
    best_valid_refined: bool = _option(False, free=True)
    """Whether the proposals of that bound are refined, as an evaluation's are: a tighter bound, a
    second or so a sentence at the paper's size. Of an implicit posterior the other proposals have
    one or two effective draws, and may mark a checkpoint too early; 64 sentences do."""
    before_training: bool = _option(False, free=True)
    """Whether the untrained model is validated too, as epoch 0."""
    max_sentences: int | None = _option(None, _COUNT, free=True)
    """Only the first so many sentences of the split; null for all."""
    grammatical_samples: int = _option(500, "[1, 1e6]", free=True)
    """Of the embedded corpus: sentences from the prior of which it is read how many its grammar can
    produce. A rate of one half has a standard error of 0.02 with 500, 0.007 with 5,000."""
    rows: int = _option(128, "[1, 65536]", free=True)
    """Rows of one call of the decoder, at most; it bounds memory, and moves numbers in the tenth
    digit at most."""
    tokens: int = _option(2048, "[1, 1e7]", free=True)
    """Words that one call of the decoder predicts, at most, padding included: calls with long
    sentences have fewer rows. It bounds memory, and moves numbers in the tenth digit at most."""


@dataclass(frozen=True)
class Config:
    """The whole configuration, merged and checked; without arguments, the defaults."""

    system: str = _option(DEFAULT_SYSTEM, choices=tuple(systems.SYSTEMS))
    """Row of the table of systems (python -m mindspore_cvae systems)."""
    seed: int = _option(0, "[0, 4294967295]")
    """Key of all noise, of the order of the batches and of the initial values."""
    precision: str = _option("strict", choices=("strict", "fast"))
    """strict: float32 everywhere; fast: bfloat16 matrix products on CPUs that have them."""
    device_target: str = _option("auto", choices=("auto", "CPU", "GPU", "Ascend"), free=True)
    """Device; auto takes Ascend, else GPU, else CPU."""
    device_id: int | None = _option(None, "[0, 1023]", free=True)
    """Number of the device; null takes DEVICE_ID or ASCEND_DEVICE_ID of the environment, else 0."""
    slots: systems.System = systems.SYSTEMS[DEFAULT_SYSTEM]
    """The parts of the system; null takes the row's."""
    data: Data = Data()
    model: Model = Model()
    train: Train = Train()
    eval: Evaluation = Evaluation()

    def to_dict(self) -> dict:
        """Nested dictionaries of plain values, every key included."""
        return dataclasses.asdict(self)

    def save(self, path: str | Path, comment: str = "") -> None:
        """Write the whole configuration as YAML, atomically; :func:`read_saved` reads it back.

        Args:
            path: the file.
            comment: its first line, with the leading ``#`` and the line's end.
        """
        text = yaml.dump(self.to_dict(), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
        write_atomically(Path(path), comment + text)

    def fingerprint(self) -> str:
        """SHA-256 of the keys that decide what a training step computes (all but the free ones)."""
        fixed = {
            key: value
            for key, value in flatten(self).items()
            if not OPTIONS[key].free and (key, value) not in LATER
        }
        return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()


_SLOT_INTERVALS = {
    "encoder_dropout": "[0, 1)",
    "swap_probability": "[0, 1]",
    "temperature": "(0, 1000]",
    "contrast_weight": "[0, 1000]",
    "free_bits": "[0, 1000]",
    "prior_negatives": "[0, 1000]",
    "beta_max": "[0, 1000]",
    "refinement_steps": "[0, 1000]",
}

SECTIONS = ("slots", "data", "model", "train", "eval")


def _options() -> dict[str, Option]:
    options = {}
    for section, cls in {"": Config, **section_classes()}.items():
        types = typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            if field.name in SECTIONS and not section:
                continue
            key = f"{section}.{field.name}" if section else field.name
            kinds = [kind for kind in typing.get_args(types[field.name]) if kind is not type(None)]
            options[key] = Option(
                key=key,
                type=kinds[0] if kinds else types[field.name],
                nullable=len(kinds) < len(typing.get_args(types[field.name])) or section == "slots",
                default=None if section == "slots" else field.default,
                interval=field.metadata.get("interval", _SLOT_INTERVALS.get(field.name)),
                choices=field.metadata.get("choices", systems.CHOICES.get(field.name, ())),
                free=field.metadata.get("free", False),
                words=field.metadata.get("words", ()),
            )
    return options


def section_classes() -> dict[str, type]:
    return {name: type(getattr(Config, name)) for name in SECTIONS}


OPTIONS: dict[str, Option] = _options()
"""Every key of the configuration, in the order of the classes above."""

USABLE_AFTER_TRAINING = tuple(
    key
    for key in OPTIONS
    if key.startswith("eval.")
    or key
    in (
        "data.dir",
        "device_target",
        "device_id",
        "precision",
        "model.amp_level",
        "model.vocabulary_multiple",
    )
)
"""The keys that leave a trained model what it is."""

LATER = (
    *(("data.unit", "word"), ("data.pieces", 8000), ("data.batches", "mixed")),
    *(("model.amp_level", "O0"), ("model.vocabulary_multiple", None)),
    ("model.first_state_bias", False),
    *(("slots.contrast_weight", 1.0), ("slots.free_bits", 0.0)),
    *(("slots.reconstruction", "posterior"), ("slots.swap_negatives", False)),
)
"""Keys that checkpoints may be older than, with the values that compute what was computed then: no
fingerprint has these."""

SHORT = {"data_dir": "data.dir", "amp_level": "model.amp_level"}
"""The keys of options whose name is another."""


class _Dumper(yaml.SafeDumper):
    """Quotes whatever text :class:`_Loader` would read as a number, and makes no aliases."""

    def ignore_aliases(self, data):
        return True


def flatten(config: Config) -> dict[str, Any]:
    """Value by key."""
    return {key: value_of(config, key) for key in OPTIONS}


def value_of(config: Config, key: str) -> object:
    section, _, name = key.rpartition(".")
    return getattr(getattr(config, section) if section else config, name)


def _meanings(cls: type) -> dict[str, str]:
    """The text under each field of a class, on one line."""
    (definition,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(definition, ast.ClassDef)
    meanings = {}
    for field, text in itertools.pairwise(definition.body):
        match field, text:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(meaning))),
            ):
                meanings[name] = " ".join(meaning.replace("``", "").split())
    return meanings


def meanings() -> dict[str, str]:
    """What every key means, in words."""
    return {
        f"{section}.{name}" if section else name: meaning
        for section, cls in {"": Config, **section_classes()}.items()
        for name, meaning in _meanings(cls).items()
    }


def describe(usable_after_training: bool = False) -> str:
    """Every key with its default, valid values and meaning: what ``--help`` prints.

    Args:
        usable_after_training: only the keys that commands may change that use a trained model.
    """
    explained = meanings()
    lines = []
    for option in OPTIONS.values():
        if usable_after_training and option.key not in USABLE_AFTER_TRAINING:
            continue
        default = option.default if isinstance(option.default, str) else shown(option.default)
        if option.key.startswith("slots."):
            default = "the row's"
        entry = f"{option.key}  ({option.expected()}; default {default})"
        for text, indent in ((entry, "  "), (explained[option.key], "      ")):
            lines += textwrap.wrap(text, 100, initial_indent=indent, subsequent_indent="      ")
    return "\n".join(lines)
