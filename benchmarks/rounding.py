"""What products of matrices in bfloat16 change in training: an epoch of the twin, with and without.

    python benchmarks/rounding.py --run RUN --output_dir DIR

``RUN`` is an epoch or more of train.py with a system that the twin has. The twin begins with the
run's first weights and is fed the run's batches and noise: once in float32, and once with both
factors of every product rounded to bfloat16, those of gradients and inside LSTMs included. Sums
stay in float32. So rounds a processor with a matrix unit that may (``--precision fast``), and one
without it can show what comes of that. Writes the curves of the run and of both twins as
``DIR/rounding.json`` and ``DIR/rounding.png``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from twin import FedNoise, Twin, TwinStep, state_of

from mindspore_cvae.common.files import write_atomically
from mindspore_cvae.common.progress import progress
from mindspore_cvae.config import keys
from mindspore_cvae.data.batches import EpochPlan, make_batch
from mindspore_cvae.data.corpus import Corpus, load_corpus
from mindspore_cvae.data.widths import corpus_widths
from mindspore_cvae.devices import choosing
from mindspore_cvae.errors import run_command
from mindspore_cvae.runs import folder
from mindspore_cvae.training.noise import NoiseMaker
from mindspore_cvae.training.schedules import SCHEDULES

TERMS = ("loss", "rec", "div", "con")
SETTLED = 500
"""Steps at an epoch's end whose mean is shown."""
GROUP = 5
"""Rows of the log that are shown as one, since batches of long and of short sentences alternate."""
FIRST_FACTOR = {
    torch.ops.aten.mm.default: 0,
    torch.ops.aten.bmm.default: 0,
    torch.ops.aten.addmm.default: 1,
    torch.ops.aten.baddbmm.default: 1,
}
"""By product: which argument its first factor is; the second follows."""


class RoundedProducts(TorchDispatchMode):
    """Within it, products of matrices take their factors rounded to bfloat16."""

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        first = FIRST_FACTOR.get(function)
        if first is not None:
            arguments = list(arguments)
            for number in (first, first + 1):
                arguments[number] = arguments[number].bfloat16().float()
        return function(*arguments, **(options or {}))


PRODUCTS: dict[str, Callable] = {
    "float32": contextlib.nullcontext,
    "bfloat16": RoundedProducts,
}


def first_weights(settings: keys.Config, vocabulary_size: int) -> dict[str, np.ndarray]:
    """What a run of these settings begins with."""
    choosing.choose("CPU")
    from mindspore_cvae.model.building import build_model

    model = build_model(settings.slots, settings.model, vocabulary_size, settings.seed)
    return {parameter.name: parameter.asnumpy() for parameter in model.get_parameters()}


def epoch_of_twin(
    settings: keys.Config, corpus: Corpus, weights: dict[str, np.ndarray], products: str
) -> np.ndarray:
    """The losses of an epoch, (steps, 4); its last batch is left out, since it may not be full
    and the twin knows no weights of sentences."""
    slots, train = settings.slots, settings.train
    model = Twin(slots, settings.model, len(corpus.vocabulary))
    model.load_state_dict(state_of(weights))
    step = TwinStep(model, train)
    draw = NoiseMaker(slots, settings.model, train.critic_updates, settings.seed)
    widths = corpus_widths(corpus, settings.data.buckets)
    size = settings.data.batch_size
    plan = EpochPlan(corpus.train.lengths, widths, size, settings.seed, epoch=1)
    beta = SCHEDULES[slots.beta](len(plan), slots.beta_max)
    losses = []
    bar = progress(f"twin, {products}", len(plan) - 1, "steps")
    # oneDNN's LSTM is one operator; without it the LSTM consists of products that can be rounded.
    with torch.backends.mkldnn.flags(enabled=False), PRODUCTS[products]():
        for number in range(len(plan) - 1):
            batch = make_batch(corpus.train.sentences, *plan[number], size)
            noise = FedNoise(draw(number, batch.tokens)._asdict())
            terms = step(torch.from_numpy(batch.tokens).long(), beta(number), noise)
            losses.append(terms[: len(TERMS)])
            bar.update(1)
    bar.close()
    return np.array(losses)


def logged(run: Path, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Of a run's first steps: the steps at which it wrote to its log, and the mean losses since
    the row before, (rows, 4)."""
    rows = map(json.loads, (run / folder.LOG).read_text(encoding="utf-8").splitlines())
    rows = [row for row in rows if row["event"] == "step" and row["step"] <= steps]
    values = [[row[name] or 0.0 for name in TERMS] for row in rows]
    return np.array([row["step"] for row in rows]), np.array(values)


def windows(losses: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Means of (steps, 4) between the given steps, (rows, 4)."""
    return np.array([part.mean(0) for part in np.split(losses, ends)[: len(ends)]])


def grouped(rows: np.ndarray) -> np.ndarray:
    """Means over groups of rows; what does not fill a group is left out."""
    groups = len(rows) // GROUP
    return rows[: groups * GROUP].reshape(groups, GROUP, -1).mean(1)


def table(curves: dict[str, np.ndarray], ends: np.ndarray) -> str:
    """Every curve's end, and its greatest distance from the twin in float32."""
    settled = ends > ends[-1] - SETTLED
    lines = [
        f"| of the last {SETTLED} steps | loss | rec | div | greatest difference of a point |",
        "|---|---|---|---|---|",
    ]
    reference = grouped(curves["twin, float32"])
    for name, values in curves.items():
        loss, rec, div, _con = values[settled].mean(0)
        away = np.abs(grouped(values)[:, 0] / reference[:, 0] - 1).max()
        lines.append(f"| {name} | {loss:.3f} | {rec:.3f} | {div:.3f} | {100 * away:.2g}% |")
    return "\n".join(lines) + "\n"


def picture(curves: dict[str, np.ndarray], ends: np.ndarray) -> bytes:
    """The losses, and how far they are from the twin's in float32."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4))
    left, right = figure.subplots(1, 2)
    points = ends[GROUP - 1 :: GROUP]
    reference = grouped(curves["twin, float32"])[:, 0]
    for (name, values), style in zip(curves.items(), ("-", "--", ":"), strict=True):
        losses = grouped(values)[:, 0]
        left.plot(points, losses, style, label=name)
        right.plot(points, 100 * (losses / reference - 1), style, label=name)
    left.set_ylabel("loss, nats a sentence")
    left.legend(frameon=False)
    right.set_ylabel("to the twin in float32, %")
    for cell in (left, right):
        cell.set_xlabel("step")
        cell.grid(alpha=0.3)
    figure.tight_layout()
    content = io.BytesIO()
    figure.savefig(content, dpi=130, format="png")
    return content.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="an epoch or more of train.py")
    parser.add_argument("--output_dir", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    settings = folder.read_config(options.run)
    corpus = load_corpus(settings.data)
    weights = first_weights(settings, len(corpus.vocabulary))
    twins = {
        f"twin, {products}": epoch_of_twin(settings, corpus, weights, products)
        for products in PRODUCTS
    }
    ends, project = logged(options.run, len(twins["twin, float32"]))
    curves = {"project": project, **{name: windows(each, ends) for name, each in twins.items()}}
    options.output_dir.mkdir(parents=True, exist_ok=True)
    document = {
        "system": settings.system,
        "seed": settings.seed,
        "steps": ends.tolist(),
        "terms": TERMS,
        "curves": {name: values.round(4).tolist() for name, values in curves.items()},
    }
    text = json.dumps(document, allow_nan=False) + "\n"
    write_atomically(options.output_dir / "rounding.json", text)
    write_atomically(options.output_dir / "rounding.png", picture(curves, ends))
    print(table(curves, ends))


if __name__ == "__main__":
    sys.exit(run_command(main))
