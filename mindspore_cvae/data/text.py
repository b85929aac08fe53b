"""Reading plain text: what cannot be read is told with its file and line."""

import codecs
import os
from pathlib import Path

from mindspore_cvae.common.files import read_regular
from mindspore_cvae.errors import InputError


def read_text(path: str | os.PathLike, may_be_pipe: bool = False) -> str:
    """The UTF-8 text of a file, without its byte order mark.

    Args:
        path: the file.
        may_be_pipe: whether anything but a regular file will do, since it is read this once only.

    Raises InputError, with the file and, for undecodable bytes and NUL bytes, the line.
    """
    try:
        content = Path(path).read_bytes() if may_be_pipe else read_regular(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return decode_text(content, str(path))


def decode_text(content: bytes, place: str) -> str:
    """UTF-8 bytes as text, without the byte order mark.

    Raises InputError, with the place and the line, for undecodable bytes and NUL bytes.
    """
    content = content.removeprefix(codecs.BOM_UTF8)

    def line_of(position: int) -> int:
        return content.count(b"\n", 0, position) + 1

    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{place}, line {line_of(error.start)}: bytes that are not UTF-8; "
            "save the file as UTF-8 text"
        ) from error
    if (position := content.find(b"\0")) >= 0:
        raise InputError(
            f"{place}, line {line_of(position)}: a NUL byte; this is not a plain text file"
        )
    return text
