"""What a sentence is made of: words, characters, or pieces that sentencepiece has learned.

A unit is what the model predicts, and holds no blank. Where one stands between characters or
pieces, it is :data:`BLANK`, sentencepiece's own sign, so that text comes back as it was, but for
blanks in a row, which become one, and for signs :data:`BLANK` of the text itself, which become
blanks. :data:`UNKNOWN_UNIT` in a text is one unit, whatever the others are.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from mindspore_cvae.common.files import read_regular, write_atomically
from mindspore_cvae.errors import InputError

BLANK = "\N{LOWER ONE EIGHTH BLOCK}"
UNKNOWN_UNIT = "<unk>"
_STAND_IN = "\uffff"
"""Of :data:`UNKNOWN_UNIT` while a text is split: no character of Unicode, and no piece."""
PIECES = "pieces.model"
"""The file of sentencepiece's model, beside the vocabulary."""
LONGEST = 1 << 20
"""Bytes of a line that sentencepiece learns from."""


class Words:
    """Words between blanks, taken as they stand."""

    name = "words"
    identity = b""
    """What a vocabulary's fingerprint says besides its units."""
    known: tuple[str, ...] = ()
    """Units that a vocabulary holds though the training text, split, has none of them."""

    def split(self, text: str) -> list[str]:
        """A sentence -> its units."""
        return text.split()

    def join(self, units: Iterable[str]) -> str:
        """Units -> the sentence."""
        return " ".join(units)

    def save(self, folder: Path) -> None:
        """Write what splitting takes besides a vocabulary: nothing."""


class Characters(Words):
    """Unicode characters, with :data:`BLANK` between words."""

    name = "characters"
    identity = b"character"

    def split(self, text: str) -> list[str]:
        return _with_unknown(BLANK.join(text.replace(UNKNOWN_UNIT, _STAND_IN).split()))

    def join(self, units: Iterable[str]) -> str:
        return "".join(units).replace(BLANK, " ").strip()


class Pieces(Characters):
    """Pieces of words, by a unigram model of sentencepiece.

    Args:
        content: the model's bytes.

    Raises:
        InputError: sentencepiece is missing, or the bytes are no model of it.
    """

    name = "pieces"

    def __init__(self, content: bytes):
        self.content = content
        self.identity = b"sentencepiece" + content
        self._processor = _sentencepiece().SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(content)
        except (RuntimeError, OSError):
            raise InputError("it is no model of sentencepiece") from None
        numbers = range(self._processor.get_piece_size())
        self.known = tuple(
            self._processor.id_to_piece(number)
            for number in numbers
            if not self._processor.is_unknown(number) and not self._processor.is_control(number)
        )
        self._known = frozenset(self.known)

    @classmethod
    def learned(cls, texts: Sequence[str], count: int) -> Pieces:
        """The pieces of a training text: the same for the same text, on one thread.

        Args:
            texts: sentences.
            count: of pieces, at most (``data.pieces``), with ``<unk>``; a small text has fewer.

        Raises:
            InputError: sentencepiece is missing, or the text has more characters than that.
        """
        written = io.BytesIO()
        try:
            _sentencepiece().SentencePieceTrainer.train(
                sentence_iterator=(text.replace(UNKNOWN_UNIT, " ") for text in texts),
                model_writer=written,
                vocab_size=count,
                hard_vocab_limit=False,
                normalization_rule_name="identity",
                character_coverage=1.0,
                num_threads=1,
                max_sentence_length=LONGEST,
                unk_id=0,
                bos_id=-1,
                eos_id=-1,
                pad_id=-1,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise InputError(_told(str(error), count)) from None
        return cls(written.getvalue())

    def split(self, text: str) -> list[str]:
        text = " ".join(text.replace(UNKNOWN_UNIT, _STAND_IN).split())
        # What has no piece is given back as one, however long, and might spell <s> or </s>.
        pieces = self._processor.encode(text, out_type=str)
        return _with_unknown(
            unit for piece in pieces for unit in ((piece,) if piece in self._known else piece)
        )

    def save(self, folder: Path) -> None:
        write_atomically(folder / PIECES, self.content)


WORDS = Words()
CHARACTERS = Characters()
UNITS = {"word": WORDS, "character": CHARACTERS}
"""The values of ``data.unit`` that need nothing to be learned."""


def load_units(unit: str, folder: Path) -> Words:
    """The units of a run.

    Args:
        unit: a value of ``data.unit``.
        folder: where the vocabulary lies, and :data:`PIECES` beside it.

    Raises:
        InputError: sentencepiece is missing, or its model is missing or damaged.
    """
    if unit in UNITS:
        return UNITS[unit]
    path = folder / PIECES
    try:
        return Pieces(read_regular(path))
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}): it holds the pieces that the run was "
            "trained with"
        ) from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _with_unknown(units: Iterable[str]) -> list[str]:
    return [UNKNOWN_UNIT if unit == _STAND_IN else unit for unit in units]


def _sentencepiece():
    try:
        import sentencepiece
    except ImportError:
        raise InputError(
            "data.unit=sentencepiece needs the package sentencepiece: pip install sentencepiece"
        ) from None
    return sentencepiece


def _told(message: str, count: int) -> str:
    """What sentencepiece's message says of ``data.pieces``, in a sentence."""
    least = re.search(r"required_chars\. \d+ vs (\d+)", message)
    if least:
        return (
            f"data.pieces is {count}, and the characters of the training text alone make {least[1]}"
        )
    return f"sentencepiece cannot learn {count} pieces from the training text: {message.strip()}"
