"""The configuration's files as a JSON Schema, from which editors complete and check them."""

from __future__ import annotations

from typing import Any

from mindspore_cvae import systems
from mindspore_cvae.config.keys import OPTIONS, SECTIONS, meanings
from mindspore_cvae.config.options import Option

_TYPES = {int: "integer", float: "number", bool: "boolean", str: "string"}


def schema() -> dict[str, Any]:
    """The schema (draft 2020-12) of what ``--config`` reads: keys in sections, or written with
    dots, and the blocks of ``per_system``. Contradictions between keys are beyond it."""
    explained = meanings()
    values = {key: _value(option, explained[key]) for key, option in OPTIONS.items()}
    whole = _mapping(values)
    one_system = _mapping({key: value for key, value in values.items() if key != "system"})
    blocks = {name: {"$ref": "#/$defs/settings"} for name in systems.SYSTEMS}
    whole["properties"]["per_system"] = {
        "description": "What is set for one system alone.",
        "type": ["object", "null"],
        "properties": blocks,
        "additionalProperties": False,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mindspore_cvae configuration",
        **whole,
        "$defs": {"settings": one_system},
    }


def _mapping(values: dict[str, dict]) -> dict[str, Any]:
    """Values by key -> a mapping that has them in sections or under their whole keys."""
    sections = {
        section: {
            "type": ["object", "null"],
            "properties": {
                key.removeprefix(f"{section}."): value
                for key, value in values.items()
                if key.startswith(f"{section}.")
            },
            "additionalProperties": False,
        }
        for section in SECTIONS
    }
    return {
        "type": "object",
        "properties": {**sections, **values},
        "additionalProperties": False,
    }


def _value(option: Option, meaning: str) -> dict[str, Any]:
    """What one key may be."""
    kinds: list[dict[str, Any]] = []
    if option.choices:
        kinds.append({"enum": list(option.choices)})
    else:
        kinds.append({"type": _TYPES[option.type], **_limits(option)})
    if option.words:
        kinds.append({"enum": list(option.words)})
    if option.nullable:
        kinds.append({"type": "null"})
    value = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    # A slot that is not set has the row's value, which is no default of the key.
    default = {} if option.key.startswith("slots.") else {"default": option.default}
    return {"description": meaning, **default, **value}


def _limits(option: Option) -> dict[str, Any]:
    if option.type is str:
        return {"minLength": 1, "not": {"pattern": "[\\u0000-\\u001f\\u007f-\\u009f]"}}
    if option.interval is None:
        return {}
    low, high = (float(end) for end in option.interval[1:-1].split(","))
    return {
        "minimum" if option.interval[0] == "[" else "exclusiveMinimum": low,
        "maximum" if option.interval[-1] == "]" else "exclusiveMaximum": high,
    }
