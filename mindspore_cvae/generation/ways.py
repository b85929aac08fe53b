"""The ways to turn latent vectors into words; :mod:`generation.decoding` goes them."""

from __future__ import annotations

from dataclasses import dataclass

from mindspore_cvae.errors import InputError

METHODS = ("sample", "greedy", "beam")
METHOD_OF = {"temperature": "sample", "top_k": "sample", "top_p": "sample", "beam_size": "beam"}
"""Options that one method reads and the others would ignore."""


@dataclass(frozen=True)
class Decoding:
    """How words are chosen.

    Raises:
        InputError: A value is out of range, or for another method.
    """

    method: str = "greedy"
    """``greedy``: the most probable next word; ``sample``: one drawn from the next word's
    distribution; ``beam``: search for the most probable sentence of at most ``max_words`` words."""
    temperature: float = 1.0
    """Log-probabilities are divided by it before a draw."""
    top_k: int | None = None
    """Only so many of the most probable words can be drawn; None for all."""
    top_p: float | None = None
    """Only the fewest most probable words can be drawn whose probabilities (by temperature and
    top_k) add up to it; None for all."""
    beam_size: int = 5
    """Beginnings of a sentence that a search keeps."""
    max_words: int = 100
    """A sentence is cut after so many words."""
    no_unk: bool = False
    """Whether ``<unk>`` must not come out."""

    def __post_init__(self):
        for name, value, is_valid, range_ in (
            ("decoding", self.method, self.method in METHODS, f"one of {', '.join(METHODS)}"),
            ("temperature", self.temperature, 1e-3 <= self.temperature <= 1e3, "0.001 to 1000"),
            ("top_k", self.top_k, self.top_k is None or self.top_k >= 1, "1 or more"),
            ("top_p", self.top_p, self.top_p is None or 0 < self.top_p <= 1, "above 0, up to 1"),
            ("beam_size", self.beam_size, 1 <= self.beam_size <= 1000, "1 to 1000"),
            ("max_words", self.max_words, 1 <= self.max_words <= 100_000, "1 to 100000"),
        ):
            if not is_valid:
                raise InputError(f"{name} must be {range_}, not {value}")
        for name, method in METHOD_OF.items():
            if getattr(self, name) != getattr(type(self), name) and self.method != method:
                raise InputError(
                    f"{name} is for decoding by {method}, and this is {self.method}: choose one"
                )

    @property
    def has_nucleus(self) -> bool:
        """Whether top_p leaves any word out."""
        return self.top_p is not None and self.top_p < 1
