"""TensorBoard's event files read back, record by record, without what writes them."""

from __future__ import annotations

import struct
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event


def read_events(path: Path) -> list[Event]:
    """The events of a file: records of a length, its checksum, that many bytes, their checksum."""
    content, position, events = path.read_bytes(), 0, []
    while position < len(content):
        (length,) = struct.unpack_from("<Q", content, position)
        begin = position + 12
        assert begin + length + 4 <= len(content), f"{path} ends within a record"
        events.append(Event.FromString(content[begin : begin + length]))
        position = begin + length + 4
    return events


def event_file(folder: Path) -> Path:
    """The one event file in a folder."""
    (path,) = folder.glob("*tfevents*")
    return path


def points(path: Path) -> list[tuple[str, int, float, float]]:
    """Name, step, value and time of every scalar of a file."""
    return [
        (value.tag, event.step, value.simple_value, event.wall_time)
        for event in read_events(path)
        for value in event.summary.value
        if value.WhichOneof("value") == "simple_value"
    ]


def texts(path: Path) -> dict[str, tuple[int, str]]:
    """Step and text of every text of a file by name."""
    return {
        value.tag: (event.step, value.tensor.string_val[0].decode())
        for event in read_events(path)
        for value in event.summary.value
        if value.metadata.plugin_data.plugin_name == "text"
    }
