"""What an option is: how its values are read, checked and shown."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mindspore_cvae.errors import InputError

COMMAND_LINE = "command line"
"""Origin of the values that were given as options."""

_TYPE_NAMES = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a text without control characters",
}

_CONTROLS = frozenset(map(chr, (*range(0x20), *range(0x7F, 0xA0))))
"""No text that is a name has them. All else may be part of one: blanks of every script, characters
newer than Python's tables, and bytes that are no text, which Python reads as surrogates."""


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
    words: tuple[str, ...] = ()
    """What is a value besides those of the type: stands for one that is found later."""

    def expected(self) -> str:
        """What the value must be, in words."""
        if self.choices:
            words = "one of " + ", ".join(str(choice) for choice in self.choices)
        else:
            words = _TYPE_NAMES[self.type]
            if self.interval:
                words += f" in {self.interval}"
            words = " or ".join((words, *self.words))
        return words + " or null" if self.nullable else words

    def parse(self, text: str, origin: str) -> Any:
        """The value that the text of a ``--set`` pair means for this key, checked.

        Raises:
            InputError: It is not what the key takes.
        """
        if text == "null" and self.nullable:
            return None
        if text in self.words:
            return text
        try:
            if self.type is bool:
                value = {"true": True, "false": False}[text.lower()]
            else:
                value = self.type(text)
        except (KeyError, ValueError):
            raise self._refusal(text, origin) from None
        return self.check(value, origin)

    def check(self, value: Any, origin: str) -> Any:
        """The value as this key's type, if it is valid.

        Raises:
            InputError: It has another type, is none of the choices, or lies outside the interval.
        """
        if (value is None and self.nullable) or (isinstance(value, str) and value in self.words):
            return value
        if self.type is float and type(value) is int and abs(value) < 2**53:
            value = float(value)
        kind: Any = type(value)
        if kind is not self.type:
            raise self._refusal(value, origin)
        if self.choices and value not in self.choices:
            raise self._refusal(value, origin)
        if self.type is float and not math.isfinite(value):
            raise self._refusal(value, origin)
        if self.interval and not _within(value, self.interval):
            raise self._refusal(value, origin)
        if self.type is str and not (value and _CONTROLS.isdisjoint(value)):
            raise self._refusal(value, origin)
        return value

    def _refusal(self, value: object, origin: str) -> InputError:
        message = f"{origin}: {self.key} must be {self.expected()}, not {shown(value)}"
        if isinstance(value, str):
            message += suggestion(value, [str(choice) for choice in self.choices])
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
    return shortened(names.get(repr(value), repr(value)))


def shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def legible(key: str) -> str:
    return shortened(key if key and key.isprintable() else repr(key))


def suggestion(word: str, known: Iterable[str]) -> str:
    by_case = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_case, n=1)
    return f"; did you mean {by_case[close[0]]}?" if close else ""
