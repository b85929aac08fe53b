"""The report's sentences and codes in TensorBoard: its tab of texts, and its projector."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from mindspore_cvae.report.page import shortened
from mindspore_cvae.report.specimens import Specimens
from mindspore_cvae.runs import events


def show_specimens(run: Path, specimens: Specimens) -> None:
    """Writes ``RUN/tensorboard/report/`` anew: samples, reconstructions and interpolations as text,
    and the codes of the map with their sentences and every group that the map is coloured by.

    Args:
        run: the run's folder.
        specimens: what its model makes.

    Raises:
        InputError: tensorboardX is not installed, or the folder cannot be written.
    """
    events.require()
    file = events.EventFile(run, events.REPORT)
    texts = {
        "samples": _blocks([[text] for text in specimens.samples]),
        "reconstructions": _blocks(specimens.reconstructions),
        "interpolations": _blocks(path for _, _, path in specimens.paths),
    }
    for name, text in texts.items():
        if text:
            file.add_text(name, text, specimens.step)
    file.close()
    if specimens.codes is None:
        return
    columns: dict[str, Sequence[str]] = {"sentence": list(map(shortened, specimens.mapped))}
    for groups in specimens.groups:
        columns[groups.by] = groups.labels or [groups.names[number] for number in groups.numbers]
    events.write_codes(file.folder, specimens.codes, columns)


def _blocks(groups: Iterable[Iterable[str]]) -> str:
    """Groups of sentences, each a line, as Markdown that shows them as they are: ``<unk>`` would be
    taken for an element of HTML elsewhere."""
    lines = ("".join(f"    {shortened(text)}\n" for text in group) for group in groups)
    return "    \n".join(lines)
