"""The pictures of Table 5: runs in rows, snapshots in columns, points of z coloured by category."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mindspore_cvae.common.arrays import UNREADABLE
from mindspore_cvae.common.files import read_regular, write_atomically
from mindspore_cvae.errors import InputError

TOY_RESULT = "toy.json"
SNAPSHOTS = "snapshots.npz"
LABELS = "labels"


def save_snapshots(folder: Path, labels: np.ndarray, snapshots: dict[int, np.ndarray]) -> None:
    """Writes ``snapshots.npz``: labels (N,), and z (N, 2) named by its iteration."""
    content = io.BytesIO()
    np.savez(content, **{LABELS: labels}, **{str(step): z for step, z in snapshots.items()})
    write_atomically(folder / SNAPSHOTS, content.getvalue())


def load_snapshots(folder: Path) -> tuple[dict, np.ndarray, dict[int, np.ndarray]]:
    """What a finished run wrote: toy.json, labels, z by iteration in ascending order.

    Raises:
        InputError: The folder holds no finished run.
    """
    try:
        result = json.loads(read_regular(folder / TOY_RESULT))
        with np.load(io.BytesIO(read_regular(folder / SNAPSHOTS)), allow_pickle=False) as arrays:
            labels = arrays[LABELS]
            steps = sorted(int(name) for name in arrays.files if name != LABELS)
            return result, labels, {step: arrays[str(step)] for step in steps}
    except (OSError, *UNREADABLE):
        raise InputError(
            f"{folder} holds no finished run of the toy: give the --output_dir of one"
        ) from None


def draw(folders: Sequence[Path], path: Path) -> None:
    """Writes the figure of one run or several.

    Args:
        folders: of finished runs, one row each.
        path: a .png file.

    Raises:
        InputError: No folder is given, one holds no finished run, or the path is no .png.
    """
    if path.suffix != ".png" or not folders:
        raise InputError("a figure takes a .png to write, then the folder of at least one run")
    loaded = [load_snapshots(Path(folder)) for folder in folders]
    # Without pyplot, whose state and backend belong to whoever imports this.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # A run that stopped early shows its last picture in a column of its own place.
    columns = max(len(snapshots) for _, _, snapshots in loaded)
    figure = Figure(figsize=(1.8 * columns + 0.3, 1.9 * len(loaded)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(loaded), columns, squeeze=False)
    for row, (result, labels, snapshots) in zip(axes, loaded, strict=True):
        for axis in row[len(snapshots) :]:
            axis.set_visible(False)
        for axis, (step, z) in zip(row, snapshots.items(), strict=False):
            colours = "tab10" if result["categories"] <= 10 else "tab20"
            axis.scatter(*z.T, c=_colours(labels, colours), s=2, linewidths=0)
            axis.set_title(f"{step:,}", fontsize=8)
            axis.tick_params(labelsize=6)
        row[0].set_ylabel(f"{result['system']}, K = {result['categories']}", fontsize=8)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    write_atomically(path, content.getvalue())


def _colours(labels: np.ndarray, colour_map: str) -> np.ndarray:
    """A colour of the map for each label, repeated where there are more labels than colours."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    listed = colormaps[colour_map]
    assert isinstance(listed, ListedColormap)
    colours = np.array(listed.colors)
    return colours[labels % len(colours)]
