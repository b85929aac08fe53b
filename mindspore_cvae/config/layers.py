"""The configuration: every key once, with its meaning, default and range; merging; YAML; ``--set``.

Later layers win: the defaults below < the system's row of the table < the YAML file < the file's
``per_system`` block of the chosen system < the command line. The text under a field is what
``--help`` and the docs print, its interval or choices are what :func:`load` checks.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from mindspore_cvae import systems
from mindspore_cvae.common.files import read_regular
from mindspore_cvae.config.contradictions import Setting, refuse_contradictions
from mindspore_cvae.config.keys import (
    DEFAULT_SYSTEM,
    OPTIONS,
    SECTIONS,
    SHORT,
    Config,
    _Dumper,
    flatten,
    section_classes,
    value_of,
)
from mindspore_cvae.config.options import COMMAND_LINE, Option, legible, shortened, suggestion
from mindspore_cvae.errors import InputError

DEFAULT_CONFIG = "quickstart"
"""Shipped configuration that is taken when none is named."""


class _Loader(yaml.SafeLoader):
    """YAML's safe loader without aliases (they grow without bound) and with 1e-3 as a number."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "aliases (*) are not supported", mark)
        return super().compose_node(parent, index)


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
        list("-+0123456789"),
    )


def _unknown_key(key: str, origin: str) -> InputError:
    section, _, name = key.rpartition(".")
    if section in SECTIONS:
        names = [other.rpartition(".")[2] for other in OPTIONS if other.startswith(section + ".")]
        valid = f"keys of {section}: {', '.join(names)}"
        hint = suggestion(key, OPTIONS)
    else:
        top = [other for other in OPTIONS if "." not in other]
        valid = f"keys: {', '.join(top)}, and those of the sections {', '.join(SECTIONS)}"
        hint = suggestion(key, OPTIONS)
        namesakes = [other for other in OPTIONS if other.endswith("." + (name or key))]
        if namesakes:
            hint = f"; did you mean {namesakes[0]}?"
    return InputError(f"{origin}: unknown key {legible(key)}{hint} ({valid})")


def _read_yaml(
    path: Path, read: Callable[[Path], bytes] = Path.read_bytes
) -> tuple[dict[str, Setting], dict[str, dict[str, Setting]]]:
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
        self.settings: dict[str, Setting] = {}
        self.per_system: dict[str, dict[str, Setting]] = {}
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
                    f"{origin}: {legible(key)} is set twice (first in line {self.lines[key]})"
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
            settings[name] = Setting(self._value(OPTIONS[name], node, loader, origin), origin)
        elif name in ("", "per_system", *SECTIONS):
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
        except (ValueError, LookupError, OverflowError, AttributeError, TypeError):
            # It looks like a number or a date and is none: 2024-13-45, 5,000 digits, !!int x,
            # !!timestamp x.
            value = node.value
        return option.check(value, origin)


_SYSTEM = OPTIONS["system"]


def parse_overrides(pairs: Iterable[str], **options: Any) -> dict[str, Setting]:
    """The command line's settings: ``KEY=VALUE`` pairs, then options that were given (not None)."""
    settings = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise InputError(f"{COMMAND_LINE}: --set takes KEY=VALUE, not {shortened(repr(pair))}")
        if key not in OPTIONS:
            raise _unknown_key(key, COMMAND_LINE)
        settings[key] = Setting(OPTIONS[key].parse(text, COMMAND_LINE), COMMAND_LINE)
    for name, value in options.items():
        if value is not None:
            key = SHORT.get(name, name)
            settings[key] = Setting(OPTIONS[key].check(value, COMMAND_LINE), COMMAND_LINE)
    return settings


def find(name: str | Path | None) -> Path:
    """The YAML file that a name means: a path, or a shipped one (``ptb``, ``configs/ptb.yaml``).

    Raises:
        InputError: There is no such file.
    """
    path = Path(name if name is not None else DEFAULT_CONFIG)
    if name is not None and path.exists() and not path.is_dir():
        return path
    package = Path(__file__).resolve().parents[1]
    # Installed, the files lie inside of the package; in a checkout, beside it.
    folders = (package / "configs", package.parent / "configs")
    if path.name in (path.stem, path.stem + ".yaml") and path.parent.name in ("", "configs"):
        for folder in folders:
            if (folder / f"{path.stem}.yaml").is_file():
                return folder / f"{path.stem}.yaml"
    shipped = sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})
    hint = suggestion(path.stem, shipped)
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
        path: the YAML file, or the name of a shipped one; None takes ``quickstart``.
        overrides: ``KEY=VALUE`` pairs of ``--set``; the last value of a key wins.
        system, seed, data_dir, device_target, device_id, precision, amp_level: options of the
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
    name = _merge(settings, command).get("system", Setting(DEFAULT_SYSTEM, "default")).value
    return _build(_merge(settings, per_system.get(name, {}), command))


def read_saved(path: str | Path) -> Config:
    """The configuration that :meth:`Config.save` wrote; a key that the file lacks has its default.

    Raises:
        InputError: The file is missing or is no valid configuration.
    """
    settings, _ = _read_yaml(Path(path), read_regular)
    return _build(settings)


def override(config: Config, overrides: Iterable[str] = (), **options: Any) -> Config:
    """A finished configuration with settings of the command line over it.

    Args:
        config: the configuration.
        overrides: ``KEY=VALUE`` pairs. A slot that is set to null takes the row's value.
        options: as for :func:`load`. Another ``system`` brings all slots of its own row.

    Raises:
        InputError: As for :func:`load`.
    """
    command = parse_overrides(overrides, **options)
    settings = {key: Setting(value, "this run") for key, value in flatten(config).items()}
    if "system" in command and command["system"].value != config.system:
        settings = {key: value for key, value in settings.items() if not key.startswith("slots.")}
    return _build(_merge(settings, command))


def differences(saved: Config, config: Config) -> dict[str, tuple[object, object]]:
    """The keys that decide what a training step computes and differ, with both values. A word that
    stands for a value does not differ from the one that a run found for it."""
    pairs = ((key, value_of(saved, key), value_of(config, key)) for key in OPTIONS)
    return {
        key: (old, new)
        for key, old, new in pairs
        if old != new and not OPTIONS[key].free and new not in OPTIONS[key].words
    }


def _merge(*layers: Mapping[str, Setting]) -> dict[str, Setting]:
    return {key: setting for layer in layers for key, setting in layer.items()}


def _build(settings: dict[str, Setting]) -> Config:
    """The configuration of merged settings, once nothing contradicts."""

    def given(section: str) -> dict[str, Any]:
        return {
            key.rpartition(".")[2]: setting.value
            for key, setting in settings.items()
            if key.rpartition(".")[0] == section
            and not (section == "slots" and setting.value is None)
        }

    top = given("")
    row = systems.SYSTEMS[top.get("system", DEFAULT_SYSTEM)]
    sections = {
        name: cls(**given(name)) for name, cls in section_classes().items() if name != "slots"
    }
    config = Config(**top, slots=dataclasses.replace(row, **given("slots")), **sections)
    refuse_contradictions(config, settings)
    return config
