"""Sentences on the line between two (Section 4.5, Table 6): many pairs, in numbers and a picture.

    python benchmarks/interpolation.py --runs RUN [RUN ...] [--pairs 200] [--steps 11]
                                       [--split test] [--checkpoint best_valid]
                                       [--json FILE] [--picture FILE.png]

Sentences 2i - 1 and 2i of the split are the ends of pair i. Each end is the mean of
``eval.samples`` draws from q(z|x), as the paper has it, and every z between the two is decoded
greedily. By lambda, the weight of the first sentence:

grammatical  share of the decoded sentences that the embedded corpus's grammar can produce; left
             out on other text
to_first     likeness of the decoded sentence to the first one, 0 to 1: twice the words of matching
             blocks over the words of both (``difflib.SequenceMatcher.ratio``)
to_second    the same, to the second one
to_next      the same, to the next sentence of the path; its least value along the path, over pairs,
             is ``widest_step``

``to_first`` and ``grammatical`` have their standard errors over pairs in ``..._error``; and
``different`` says how many different sentences a path has: a model whose decoder does not listen
to z has one, the same for all pairs, and one that jumps has two.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import pairwise
from pathlib import Path

import numpy as np

from mindspore_cvae.api import ContrastiveVAE, interpolation_weights
from mindspore_cvae.common.files import write_atomically
from mindspore_cvae.common.numbers import standard_error
from mindspore_cvae.data import grammar
from mindspore_cvae.errors import InputError, run_command
from mindspore_cvae.runs.folder import corpus_of_run
from mindspore_cvae.runs.loading import CHECKPOINTS

Words = Sequence[str]


def likeness(first: Words, second: Words) -> float:
    """Of two sentences, 0 to 1."""
    return SequenceMatcher(None, first, second, autojunk=False).ratio()


def measure(paths: list[list[Words]], ends: list[tuple[Words, Words]], has_grammar: bool) -> dict:
    """What the module describes.

    Args:
        paths: P paths of S decoded sentences each, the first sentence's end first.
        ends: P pairs of given sentences.
        has_grammar: whether the text is the embedded corpus.

    Returns:
        Lists of S numbers by lambda (S - 1 of ``to_next``), and single numbers.
    """
    both = list(zip(paths, ends, strict=True))
    to_first = np.array([[likeness(text, first) for text in path] for path, (first, _) in both])
    to_second = np.array([[likeness(text, second) for text in path] for path, (_, second) in both])
    to_next = np.array([[likeness(*texts) for texts in pairwise(path)] for path in paths])
    found = {
        "pairs": len(paths),
        "to_first": to_first.mean(0).tolist(),
        "to_first_error": standard_error(to_first).tolist(),
        "to_second": to_second.mean(0).tolist(),
        "to_next": to_next.mean(0).tolist(),
        "widest_step": float(to_next.min(1).mean()),
        "different": float(np.mean([len({tuple(text) for text in path}) for path in paths])),
    }
    if has_grammar:
        is_grammatical = np.array(
            [[grammar.log_probability(text) > -math.inf for text in path] for path in paths]
        )
        found["grammatical"] = is_grammatical.mean(0).tolist()
        found["grammatical_error"] = standard_error(is_grammatical).tolist()
    return found


def interpolate(run: Path, pairs: int, steps: int, split: str, checkpoint: str) -> dict:
    """A run's numbers, and its first path."""
    model = ContrastiveVAE.load(run, checkpoint)
    config = model.config
    sentences = {part.name: part for part in corpus_of_run(config, run).splits}[split].sentences
    if len(sentences) < 2 * pairs:
        raise InputError(
            f"--pairs: {pairs} pairs take {2 * pairs} sentences, and {split} has {len(sentences)}"
        )
    chosen = sentences[: 2 * pairs]
    z = model.encode_numbered(chosen, config.eval.samples).reshape(-1, 2, model.latent_size)
    weights = interpolation_weights(steps)[None, :, None].astype(np.float32)
    points = weights * z[:, :1] + (1 - weights) * z[:, 1:]
    texts = model.decode(points.reshape(-1, model.latent_size))
    words = [text.split() for text in texts]
    paths: list[list[Words]] = [
        list(words[place : place + steps]) for place in range(0, len(words), steps)
    ]
    given = [model.vocabulary.decode(sentence).split() for sentence in chosen]
    ends = list(zip(given[::2], given[1::2], strict=True))
    return {
        "run": run.name,
        "system": config.system,
        "seed": config.seed,
        "checkpoint": checkpoint,
        **measure(paths, ends, config.data.dir is None),
        "first_path": texts[:steps],
    }


def picture(documents: list[dict], path: Path) -> None:
    """Likeness to the first sentence by lambda, and the rate of grammatical sentences."""
    from matplotlib import pyplot

    keys = {"to_first": "likeness to the first sentence"}
    if all("grammatical" in document for document in documents):
        keys["grammatical"] = "share of grammatical sentences"
    figure, panels = pyplot.subplots(
        *(1, len(keys)), figsize=(4.2 * len(keys) + 2, 3.6), squeeze=False, layout="constrained"
    )
    palette = pyplot.get_cmap("tab10")
    for panel, (key, title) in zip(panels[0], keys.items(), strict=True):
        for place, document in enumerate(documents):
            values = document[key]
            panel.plot(
                interpolation_weights(len(values)),
                values,
                "os^Dv"[place // palette.N % 5] + "-",
                markersize=3,
                color=palette(place % palette.N),
                label=document["run"] if panel is panels[0][0] else None,
            )
        panel.invert_xaxis()
        panel.set_ylim(0, 1)
        panel.set_xlabel("\N{GREEK SMALL LETTER LAMDA}, weight of the first sentence")
        panel.set_ylabel(title)
        panel.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=9, frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    pyplot.close(figure)
    write_atomically(path, content.getvalue())


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, nargs="+", required=True, metavar="RUN")
    parser.add_argument("--pairs", type=int, default=200, metavar="N", help="(200)")
    parser.add_argument("--steps", type=int, default=11, metavar="N", help="(11)")
    parser.add_argument("--split", choices=("valid", "test"), default="test", help="(test)")
    parser.add_argument("--checkpoint", choices=CHECKPOINTS, default="best_valid")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--picture", type=Path, metavar="FILE.png")
    arguments = parser.parse_args()
    documents = []
    for run in arguments.runs:
        documents.append(
            interpolate(
                *(run, arguments.pairs, arguments.steps, arguments.split, arguments.checkpoint)
            )
        )
        shown = {key: value for key, value in documents[-1].items() if key != "first_path"}
        print(json.dumps(shown), *documents[-1]["first_path"], sep="\n", flush=True)
    if arguments.json is not None:
        write_atomically(arguments.json, json.dumps(documents, indent=1) + "\n")
    if arguments.picture is not None:
        picture(documents, arguments.picture)


if __name__ == "__main__":
    sys.exit(run_command(main))
