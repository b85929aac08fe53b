"""The configuration: every key once, with its meaning, default and range; merging; YAML; ``--set``.

Later layers win: the defaults below < the system's row of the table < the YAML file < the file's
``per_system`` block of the chosen system < the command line. The text under a field is what
``--help`` and the docs print, its interval or choices are what :func:`load` checks.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import hashlib
import inspect
import itertools
import json
import math
import re
import sys
import textwrap
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from mindspore_cvae import systems
from mindspore_cvae.errors import InputError
from mindspore_cvae.files import read_regular, write_atomically

COMMAND_LINE = "command line"
"""Origin of the values that were given as options."""
DEFAULT_SYSTEM = "cvae_plus_mi"
DEFAULT_CONFIG = "quickstart"
"""Shipped configuration that is taken when none is named."""


def _option(default, interval: str | None = None, choices: tuple = (), free: bool = False):
    """A key of the configuration.

    Args:
        default: Its default.
        interval: Range of a number, ``[`` and ``]`` closed, ``(`` and ``)`` open.
        choices: The valid values, where they can be listed.
        free: Whether a resumed run may change it: it does not decide what a step computes. (What is
            validated, and when, does for the aggressive step, which looks at each validation's MI.)
    """
    metadata = {"interval": interval, "choices": choices, "free": free}
    return dataclasses.field(default=default, metadata=metadata)


_SIZE = "[1, 65536]"
_COUNT = "[1, 1e9]"


@dataclass(frozen=True)
class Data:
    """Corpus, vocabulary and length buckets."""

    dir: str | None = _option(None, free=True)
    """Folder with train.txt, valid.txt (or val.txt) and test.txt, or one text file, which is split
    90/5/5; null takes the embedded corpus."""
    vocabulary_size: int = _option(10002, "[5, 1e7]")
    """Words of the vocabulary, the four specials included; the most frequent ones are kept."""
    unk_alias: str | None = _option(None)
    """How the texts write an unknown word besides <unk> (Yahoo and Yelp: _UNK)."""
    lowercase: bool = _option(False)
    """Whether words are turned into lower case."""
    label_column: bool = _option(False)
    """Whether lines are label<TAB>sentence; the label is stripped."""
    too_long: str = _option("drop", choices=("drop", "truncate", "error"))
    """What happens to a sentence of more than max_words words."""
    max_words: int = _option(100, "[1, 100000]")
    """Most words of a sentence."""
    buckets: int = _option(8, "[1, 256]")
    """Most lengths to which sentences are padded; each costs a compilation of the training step."""
    batch_size: int = _option(32, "[1, 65536]")
    """Sentences of a training step, per process."""


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
    amp_level: str = _option("O0", choices=("O0", "O2"))
    """Mixed precision. O0: float32 (Ascend's LSTM computes in float16 all the same); O2: LSTMs and
    logits in float16, all else and the weights themselves in float32, and the loss is scaled."""
    vocabulary_multiple: int | None = _option(None, "[1, 65536]", free=True)
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
    before_training: bool = _option(False, free=True)
    """Whether the untrained model is validated too, as epoch 0."""
    max_sentences: int | None = _option(None, _COUNT, free=True)
    """Only the first so many sentences of the split; null for all."""
    rows: int = _option(128, "[1, 65536]", free=True)
    """Rows of one call of the decoder, at most; it bounds memory and changes no number."""
    tokens: int = _option(2048, "[1, 1e7]", free=True)
    """Words that one call of the decoder predicts, at most, padding included: calls with long
    sentences have fewer rows. It bounds memory and changes no number."""


@dataclass(frozen=True)
class Config:
    """The whole configuration, merged and checked; without arguments, the defaults."""

    system: str = _option(DEFAULT_SYSTEM, choices=tuple(systems.SYSTEMS))
    """Row of the table of systems (python -m mindspore_cvae.systems)."""
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

    def save(self, path: str | Path) -> None:
        """Write the whole configuration as YAML, atomically; :func:`read_saved` reads it back."""
        text = yaml.dump(self.to_dict(), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
        write_atomically(Path(path), text)

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
_SECTIONS = ("slots", "data", "model", "train", "eval")
_TYPE_NAMES = {int: "an integer", float: "a number", bool: "true or false", str: "a printable text"}


@dataclass(frozen=True)
class Option:
    """What is known of one key: ``section.name``, or ``name`` at the top."""

    key: str
    type: type
    nullable: bool
    default: object
    interval: str | None
    choices: tuple
    free: bool

    def expected(self) -> str:
        """What the value must be, in words."""
        if self.choices:
            words = "one of " + ", ".join(str(choice) for choice in self.choices)
        else:
            words = _TYPE_NAMES[self.type]
            if self.interval:
                words += f" in {self.interval}"
        return words + " or null" if self.nullable else words

    def parse(self, text: str, origin: str) -> object:
        """The value that the text of a ``--set`` pair means for this key, checked.

        Raises:
            InputError: It is not what the key takes.
        """
        if text == "null" and self.nullable:
            return None
        try:
            if self.type is bool:
                value = {"true": True, "false": False}[text.lower()]
            else:
                value = self.type(text)
        except (KeyError, ValueError):
            raise self._refusal(text, origin) from None
        return self.check(value, origin)

    def check(self, value: object, origin: str) -> object:
        """The value as this key's type, if it is valid.

        Raises:
            InputError: It has another type, is none of the choices, or lies outside the interval.
        """
        if value is None and self.nullable:
            return None
        if self.type is float and type(value) is int and abs(value) < 2**53:
            value = float(value)
        if type(value) is not self.type:
            raise self._refusal(value, origin)
        if self.choices and value not in self.choices:
            raise self._refusal(value, origin)
        if self.type is float and not math.isfinite(value):
            raise self._refusal(value, origin)
        if self.interval and not _within(value, self.interval):
            raise self._refusal(value, origin)
        if self.type is str and not (value and value.isprintable()):
            raise self._refusal(value, origin)
        return value

    def _refusal(self, value: object, origin: str) -> InputError:
        message = f"{origin}: {self.key} must be {self.expected()}, not {shown(value)}"
        if isinstance(value, str):
            message += _suggestion(value, [str(choice) for choice in self.choices])
        return InputError(message)


def _within(value: float, interval: str) -> bool:
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = value >= low if interval[0] == "[" else value > low
    below = value <= high if interval[-1] == "]" else value < high
    return above and below


def shown(value: object) -> str:
    """A value as messages print it: as YAML has it, and not too long."""
    if type(value) is int and value.bit_length() > 128:
        return "a huge number"
    names = {"None": "null", "True": "true", "False": "false"}
    return _shortened(names.get(repr(value), repr(value)))


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _legible(key: str) -> str:
    return _shortened(key if key and key.isprintable() else repr(key))


def _suggestion(word: str, known: Iterable[str]) -> str:
    by_case = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_case, n=1)
    return f"; did you mean {by_case[close[0]]}?" if close else ""


def _options() -> dict[str, Option]:
    options = {}
    for section, cls in {"": Config, **_section_classes()}.items():
        types = typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            if field.name in _SECTIONS and not section:
                continue
            key = f"{section}.{field.name}" if section else field.name
            kinds = [kind for kind in typing.get_args(types[field.name]) if kind is not type(None)]
            options[key] = Option(
                key=key,
                type=kinds[0] if kinds else types[field.name],
                nullable=bool(kinds) or section == "slots",
                default=None if section == "slots" else field.default,
                interval=field.metadata.get("interval", _SLOT_INTERVALS.get(field.name)),
                choices=field.metadata.get("choices", systems.CHOICES.get(field.name, ())),
                free=field.metadata.get("free", False),
            )
    return options


def _section_classes() -> dict[str, type]:
    return {name: type(getattr(Config, name)) for name in _SECTIONS}


OPTIONS: dict[str, Option] = _options()
"""Every key of the configuration, in the order of the classes above."""
USABLE_AFTER_TRAINING = tuple(
    key
    for key in OPTIONS
    if key.startswith("eval.")
    or key
    in (
        *("data.dir", "device_target", "device_id", "precision"),
        *("model.amp_level", "model.vocabulary_multiple"),
    )
)
"""The keys that leave a trained model what it is."""
LATER = (("model.amp_level", "O0"), ("slots.contrast_weight", 1.0), ("slots.free_bits", 0.0))
"""Keys that checkpoints may be older than, with the values that compute what was computed then: no
fingerprint has these."""
SHORT = {"data_dir": "data.dir", "amp_level": "model.amp_level"}
"""The keys of options whose name is another."""


@dataclass(frozen=True)
class _Setting:
    """A checked value on its way into the configuration, and where it came from."""

    value: object
    origin: str


class _Loader(yaml.SafeLoader):
    """YAML's safe loader without aliases (they grow without bound) and with 1e-3 as a number."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "aliases (*) are not supported", mark)
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    """Quotes whatever text :class:`_Loader` would read as a number, and makes no aliases."""

    def ignore_aliases(self, data):
        return True


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
        list("-+0123456789"),
    )


def _unknown_key(key: str, origin: str) -> InputError:
    section, _, name = key.rpartition(".")
    if section in _SECTIONS:
        names = [other.rpartition(".")[2] for other in OPTIONS if other.startswith(section + ".")]
        valid = f"keys of {section}: {', '.join(names)}"
        hint = _suggestion(key, OPTIONS)
    else:
        top = [other for other in OPTIONS if "." not in other]
        valid = f"keys: {', '.join(top)}, and those of the sections {', '.join(_SECTIONS)}"
        hint = _suggestion(key, OPTIONS)
        namesakes = [other for other in OPTIONS if other.endswith("." + (name or key))]
        if namesakes:
            hint = f"; did you mean {namesakes[0]}?"
    return InputError(f"{origin}: unknown key {_legible(key)}{hint} ({valid})")


def _read_yaml(
    path: Path, read: Callable[[Path], bytes] = Path.read_bytes
) -> tuple[dict[str, _Setting], dict[str, dict[str, _Setting]]]:
    """The settings of a YAML file by key, and those of its ``per_system`` by system and key."""
    try:
        text = read(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start})") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"configuration {path} cannot be read: {reason}") from None
    reader = _YamlReader(path)
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is not None:
            reader.walk(root, loader, "")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
        raise InputError(f"{where}: {reason}") from None
    except RecursionError:
        raise InputError(f"{path} is nested too deeply for a configuration") from None
    return reader.settings, reader.per_system


class _YamlReader:
    """Walks the nodes of a YAML file, whose marks tell the line of every key."""

    def __init__(self, path: Path):
        self.path = path
        self.settings: dict[str, _Setting] = {}
        self.per_system: dict[str, dict[str, _Setting]] = {}
        self.lines: dict[str, int] = {}

    def walk(self, node: yaml.Node, loader: _Loader, prefix: str) -> None:
        if not isinstance(node, yaml.MappingNode):
            what = prefix.rstrip(".") or "a configuration"
            line = node.start_mark.line + 1
            raise InputError(
                f"{self.path}, line {line}: {what} must be a mapping of keys to values"
            )
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            origin = f"{self.path}, line {line}"
            if not isinstance(key_node, yaml.ScalarNode):
                raise InputError(f"{origin}: a key must be a word")
            key = prefix + key_node.value
            if key in self.lines:
                raise InputError(
                    f"{origin}: {_legible(key)} is set twice (first in line {self.lines[key]})"
                )
            self.lines[key] = line
            self._enter(key, value_node, loader, origin)

    def _enter(self, key: str, node: yaml.Node, loader: _Loader, origin: str) -> None:
        settings, name = self.settings, key
        if key.startswith("per_system."):
            system, _, name = key.removeprefix("per_system.").partition(".")
            _SYSTEM.check(system, origin)
            settings = self.per_system.setdefault(system, {})
        if name == "system" and settings is not self.settings:
            raise InputError(f"{origin}: a per_system block cannot change the system")
        if name in OPTIONS:
            settings[name] = _Setting(self._value(OPTIONS[name], node, loader, origin), origin)
        elif name in ("", "per_system", *_SECTIONS):
            is_empty = isinstance(node, yaml.ScalarNode) and node.value in ("", "null", "~")
            if not is_empty:
                self.walk(node, loader, key + ".")
        else:
            raise _unknown_key(name, origin)

    @staticmethod
    def _value(option: Option, node: yaml.Node, loader: _Loader, origin: str) -> object:
        if not isinstance(node, yaml.ScalarNode):
            kind = "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"
            raise InputError(f"{origin}: {option.key} must be {option.expected()}, not {kind}")
        try:
            value = loader.construct_object(node)
        except (ValueError, LookupError, OverflowError):
            # It looks like a number or a date and is none: 2024-13-45, 5,000 digits, !!int x.
            value = node.value
        return option.check(value, origin)


_SYSTEM = OPTIONS["system"]


def parse_overrides(pairs: Iterable[str], **options: object) -> dict[str, _Setting]:
    """The command line's settings: ``KEY=VALUE`` pairs, then options that were given (not None)."""
    settings = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise InputError(f"{COMMAND_LINE}: --set takes KEY=VALUE, not {_shortened(repr(pair))}")
        if key not in OPTIONS:
            raise _unknown_key(key, COMMAND_LINE)
        settings[key] = _Setting(OPTIONS[key].parse(text, COMMAND_LINE), COMMAND_LINE)
    for name, value in options.items():
        if value is not None:
            key = SHORT.get(name, name)
            settings[key] = _Setting(OPTIONS[key].check(value, COMMAND_LINE), COMMAND_LINE)
    return settings


def find(name: str | Path | None) -> Path:
    """The YAML file that a name means: a path, or a shipped one (``ptb``, ``configs/ptb.yaml``).

    Raises:
        InputError: There is no such file.
    """
    path = Path(name if name is not None else DEFAULT_CONFIG)
    if name is not None and path.exists() and not path.is_dir():
        return path
    package = Path(__file__).resolve().parent
    # Installed, the files lie inside of the package; in a checkout, beside it.
    folders = (package / "configs", package.parent / "configs")
    if path.name in (path.stem, path.stem + ".yaml") and path.parent.name in ("", "configs"):
        for folder in folders:
            if (folder / f"{path.stem}.yaml").is_file():
                return folder / f"{path.stem}.yaml"
    shipped = sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})
    hint = _suggestion(path.stem, shipped)
    raise InputError(
        f"configuration {path} does not exist{hint} (a YAML file, or one of {', '.join(shipped)})"
    )


def load(
    path: str | Path | None = None,
    overrides: Iterable[str] = (),
    *,
    system: str | None = None,
    seed: int | None = None,
    data_dir: str | None = None,
    device_target: str | None = None,
    device_id: int | None = None,
    precision: str | None = None,
    amp_level: str | None = None,
) -> Config:
    """Merge the defaults, a system's row, a YAML file and the command line, and check the whole.

    Args:
        path: The YAML file, or the name of a shipped one; None takes ``quickstart``.
        overrides: ``KEY=VALUE`` pairs of ``--set``; the last value of a key wins.
        system, seed, data_dir, device_target, device_id, precision, amp_level: Options of the
            command line, which win over the pairs; None where they were not given.

    Raises:
        InputError: An unknown key, a wrong type, a value out of range, or settings that contradict
            each other; the message names the key and where it was set.
    """
    command = parse_overrides(
        overrides,
        system=system,
        seed=seed,
        data_dir=data_dir,
        device_target=device_target,
        device_id=device_id,
        precision=precision,
        amp_level=amp_level,
    )
    settings, per_system = _read_yaml(find(path))
    name = _merge(settings, command).get("system", _Setting(DEFAULT_SYSTEM, "default")).value
    return _build(_merge(settings, per_system.get(name, {}), command))


def read_saved(path: str | Path) -> Config:
    """The configuration that :meth:`Config.save` wrote; a key that the file lacks has its default.

    Raises:
        InputError: The file is missing or is no valid configuration.
    """
    settings, _ = _read_yaml(Path(path), read_regular)
    return _build(settings)


def override(config: Config, overrides: Iterable[str] = (), **options: object) -> Config:
    """A finished configuration with settings of the command line over it.

    Args:
        config: The configuration.
        overrides: ``KEY=VALUE`` pairs. A slot that is set to null takes the row's value.
        options: As for :func:`load`. Another ``system`` brings all slots of its own row.

    Raises:
        InputError: As for :func:`load`.
    """
    command = parse_overrides(overrides, **options)
    settings = {key: _Setting(value, "this run") for key, value in flatten(config).items()}
    if "system" in command and command["system"].value != config.system:
        settings = {key: value for key, value in settings.items() if not key.startswith("slots.")}
    return _build(_merge(settings, command))


def flatten(config: Config) -> dict[str, object]:
    """Value by key."""
    return {key: _value_of(config, key) for key in OPTIONS}


def differences(saved: Config, config: Config) -> dict[str, tuple[object, object]]:
    """The keys that decide what a training step computes and differ, with both values."""
    pairs = ((key, _value_of(saved, key), _value_of(config, key)) for key in OPTIONS)
    return {key: (old, new) for key, old, new in pairs if old != new and not OPTIONS[key].free}


def _value_of(config: Config, key: str) -> object:
    section, _, name = key.rpartition(".")
    return getattr(getattr(config, section) if section else config, name)


def _merge(*layers: Mapping[str, _Setting]) -> dict[str, _Setting]:
    return {key: setting for layer in layers for key, setting in layer.items()}


def _build(settings: dict[str, _Setting]) -> Config:
    """The configuration of merged settings, once nothing contradicts."""

    def given(section: str) -> dict[str, object]:
        return {
            key.rpartition(".")[2]: setting.value
            for key, setting in settings.items()
            if key.rpartition(".")[0] == section
            and not (section == "slots" and setting.value is None)
        }

    top = given("")
    row = systems.SYSTEMS[top.get("system", DEFAULT_SYSTEM)]
    sections = {
        name: cls(**given(name)) for name, cls in _section_classes().items() if name != "slots"
    }
    config = Config(**top, slots=dataclasses.replace(row, **given("slots")), **sections)
    _refuse_contradictions(config, settings)
    return config


def _views_are_equal(slots: systems.System) -> bool:
    has_no_noise = slots.posterior == "deterministic" or slots.contrast_on == "h"
    return has_no_noise and slots.encoder_dropout == 0 and slots.augmentation == "dropout"


SCALED_STEPS = ("joint", "critic_then_model")
"""Steps whose loss can be scaled."""
_CONTRADICTIONS = (
    (
        lambda c: c.slots.contrast == "info_nce" and c.slots.views != 2,
        ("slots.contrast", "slots.views"),
        "the contrast info_nce compares two views of a sentence",
    ),
    (
        lambda c: c.slots.contrast == "info_nce" and c.data.batch_size < 2,
        ("slots.contrast", "data.batch_size"),
        "the contrast info_nce needs other sentences in the batch, so at least 2",
    ),
    (
        lambda c: c.slots.contrast == "info_nce" and _views_are_equal(c.slots),
        ("slots.posterior", "slots.contrast_on", "slots.encoder_dropout", "slots.augmentation"),
        "without noise, dropout or swaps both views of a sentence are equal and a contrast is void",
    ),
    (
        lambda c: (
            c.slots.contrast == "info_nce"
            and c.slots.contrast_on != "z"
            and c.slots.prior_negatives
        ),
        ("slots.prior_negatives", "slots.contrast_on"),
        "draws from the prior can only be negatives of a contrast on z",
    ),
    (
        lambda c: c.slots.squared_difference != "none" and c.slots.views != 2,
        ("slots.squared_difference", "slots.views"),
        "L_SQ compares the critics' values of two views",
    ),
    (
        lambda c: c.slots.squared_difference != "none" and not c.slots.has_critics,
        ("slots.squared_difference", "slots.divergence"),
        "L_SQ needs critics, so a divergence joint_dual or marginal_dual",
    ),
    (
        lambda c: c.slots.divergence_sign == "printed" and c.slots.critic_loss == "dual",
        ("slots.divergence_sign", "slots.critic_loss"),
        "the printed sign is that of a circle loss (Eq. 15, 19)",
    ),
    (
        lambda c: c.slots.free_bits > 0 and c.slots.divergence != "gaussian_kl",
        ("slots.free_bits", "slots.divergence"),
        "free bits are of a KL by dimensions, so they need the divergence gaussian_kl",
    ),
    (
        lambda c: c.slots.divergence == "gaussian_kl" and c.slots.posterior != "gaussian",
        ("slots.divergence", "slots.posterior"),
        "the closed form gaussian_kl needs the posterior gaussian",
    ),
    (
        lambda c: c.slots.has_critics and c.slots.step != "critic_then_model",
        ("slots.divergence", "slots.step"),
        "a dual divergence has critics to train, so it needs the step critic_then_model",
    ),
    (
        lambda c: c.slots.step == "critic_then_model" and not c.slots.has_critics,
        ("slots.step", "slots.divergence"),
        "the step critic_then_model needs critics, so a divergence joint_dual or marginal_dual",
    ),
    (
        lambda c: (
            c.slots.step in ("aggressive", "semi_amortized") and c.slots.divergence != "gaussian_kl"
        ),
        ("slots.step", "slots.divergence"),
        "the steps aggressive and semi_amortized need the divergence gaussian_kl",
    ),
    (
        lambda c: (c.slots.refinement_steps > 0) != (c.slots.step == "semi_amortized"),
        ("slots.refinement_steps", "slots.step"),
        "refinement steps and the step semi_amortized need each other",
    ),
    (
        lambda c: c.slots.step == "semi_amortized" and c.precision == "fast",
        ("slots.step", "precision"),
        "products in bfloat16 are too coarse for the finite differences of the step semi_amortized",
    ),
    (
        lambda c: c.model.amp_level != "O0" and c.slots.step not in SCALED_STEPS,
        ("model.amp_level", "slots.step"),
        "half precision needs a loss that is scaled, as it can be in the steps joint and "
        "critic_then_model",
    ),
    (
        lambda c: c.train.loss_scale is not None and c.slots.step not in SCALED_STEPS,
        ("train.loss_scale", "slots.step"),
        "the loss can be scaled in the steps joint and critic_then_model",
    ),
    (
        lambda c: (
            c.slots.posterior == "none"
            and (c.slots.divergence != "none" or c.slots.contrast != "none")
        ),
        ("slots.posterior", "slots.divergence", "slots.contrast"),
        "without a latent variable nothing is left to regularise or to contrast",
    ),
    (
        lambda c: c.data.unk_alias is not None and len(c.data.unk_alias.split()) != 1,
        ("data.unk_alias",),
        "an alias of <unk> must be one word",
    ),
)
"""What must not be, the keys that it lies in, and why. Slots left idle by another are no fault."""


def _refuse_contradictions(config: Config, settings: dict[str, _Setting]) -> None:
    for is_broken, keys, reason in _CONTRADICTIONS:
        if is_broken(config):
            where = "; ".join(
                f"{key} is {shown(_value_of(config, key))} ({_origin(key, config, settings)})"
                for key in keys
            )
            raise InputError(f"{where}: {reason}")


def _origin(key: str, config: Config, settings: dict[str, _Setting]) -> str:
    if key in settings and settings[key].value is not None:
        return settings[key].origin
    return f"row {config.system}" if key.startswith("slots.") else "default"


def _meanings(cls: type) -> dict[str, str]:
    """The text under each field of a class, on one line."""
    body = ast.parse(inspect.getsource(cls)).body[0].body
    return {
        field.target.id: " ".join(text.value.value.replace("``", "").split())
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


def describe(usable_after_training: bool = False) -> str:
    """Every key with its default, valid values and meaning: what ``--help`` prints.

    Args:
        usable_after_training: Only the keys that commands may change that use a trained model.
    """
    meanings = {
        f"{section}.{name}" if section else name: meaning
        for section, cls in {"": Config, **_section_classes()}.items()
        for name, meaning in _meanings(cls).items()
    }
    lines = []
    for option in OPTIONS.values():
        if usable_after_training and option.key not in USABLE_AFTER_TRAINING:
            continue
        default = option.default if isinstance(option.default, str) else shown(option.default)
        if option.key.startswith("slots."):
            default = "the row's"
        entry = f"{option.key}  ({option.expected()}; default {default})"
        for text, indent in ((entry, "  "), (meanings[option.key], "      ")):
            lines += textwrap.wrap(text, 100, initial_indent=indent, subsequent_indent="      ")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(describe() + "\n")
