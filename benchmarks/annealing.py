"""Two bounds of -log p(x) that know nothing of each other, on a few sentences of trained runs.

    python benchmarks/annealing.py --runs RUN [RUN ...] [--split valid] [--sentences 50]
                                   [--chains 8] [--temperatures 100] [--leaps 3] [--json FILE]

The first is the importance-weighted bound of ``eval.py --iw_samples 128``: its proposals come from
q(z|x). The second is annealed importance sampling from the prior (Neal 2001), which never sees
q(z|x). Both are upper bounds in expectation; where they agree within their errors, neither is loose
for a reason of its own. Errors are over sentences, that of the difference over pairs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from mindspore import Tensor

from mindspore_cvae.common import randomness
from mindspore_cvae.common.numbers import standard_error
from mindspore_cvae.data.batches import EpochPlan, batches
from mindspore_cvae.data.widths import corpus_widths
from mindspore_cvae.devices import choosing
from mindspore_cvae.errors import run_command
from mindspore_cvae.evaluation import annealing, bounds
from mindspore_cvae.evaluation.importance import ImportanceSampler
from mindspore_cvae.evaluation.scoring import Scorer
from mindspore_cvae.runs import folder as runs_folder
from mindspore_cvae.runs.folder import corpus_of_run
from mindspore_cvae.runs.loading import load_run

DRAWS = 128
AT_A_TIME = 10
"""Sentences of a passage; their chains share calls of the decoder."""


def annealed(sampler: ImportanceSampler, split, arguments) -> np.ndarray:
    """-log p(x) of the first sentences by annealing, (N,)."""
    evaluator, total = sampler.evaluator, arguments.sentences
    sizes = [AT_A_TIME] * len(evaluator.widths)
    plan = EpochPlan(split.lengths[:total], evaluator.widths, sizes, shuffle=False)
    result = np.zeros(total)
    for number, batch in enumerate(batches(split, plan)):
        tokens, real = Tensor(batch.tokens), batch.index >= 0
        log_weights = annealing.annealed_log_weights(
            lambda z, tokens=tokens: sampler.propose.likelihood(z, tokens),
            (len(tokens), arguments.chains, evaluator.latent_size),
            arguments.temperatures,
            arguments.leaps,
            randomness.generator(evaluator.seed, "annealing", number),
        )
        result[batch.index[real]] = bounds.importance_weighted_nll(log_weights)[real]
    return result


def shown(values: np.ndarray) -> str:
    """A mean and its standard error."""
    return f"{values.mean():.2f} ± {standard_error(values):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", nargs="+", type=Path, required=True)
    parser.add_argument("--split", choices=("valid", "test"), default="valid")
    parser.add_argument("--sentences", type=int, default=50)
    parser.add_argument("--chains", type=int, default=8)
    parser.add_argument("--temperatures", type=int, default=100)
    parser.add_argument("--leaps", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = {}
    print("| run | truth | proposals (which, ESS) | annealing | difference | seconds |")
    print("|---|---|---|---|---|---|")
    for folder in arguments.runs:
        config = runs_folder.read_config(folder)
        choosing.apply_precision(config.precision)
        choosing.choose("CPU")
        corpus = corpus_of_run(config, folder)
        loaded = load_run(folder, "best_valid", config)
        evaluator = Scorer(loaded.model, config, corpus_widths(corpus, config.data.buckets))
        split = {part.name: part for part in corpus.splits}[arguments.split]
        tuning = corpus.train if arguments.split == "valid" else corpus.valid
        sampler = ImportanceSampler(evaluator)
        scores = evaluator.score(split, DRAWS, arguments.sentences)
        started = time.monotonic()
        choice = sampler.choose(tuning, DRAWS, DRAWS)
        weighted = sampler.score(split, scores, DRAWS, choice)
        between = time.monotonic()
        by_annealing = annealed(sampler, split, arguments)
        seconds = between - started, time.monotonic() - between
        truth = split.log_probabilities
        truth = None if truth is None else -truth[: arguments.sentences]
        rows[folder.name] = {
            "system": config.system,
            "step": loaded.step,
            "truth": None if truth is None else truth.tolist(),
            "proposals": weighted.nll.tolist(),
            "proposal": choice.family,
            "ess": float(weighted.effective_samples.mean()),
            "annealing": by_annealing.tolist(),
            "seconds": seconds,
        }
        cells = (
            folder.name,
            "" if truth is None else shown(truth),
            f"{shown(weighted.nll)} ({choice.family}, {weighted.effective_samples.mean():.0f})",
            shown(by_annealing),
            shown(by_annealing - weighted.nll),
            f"{seconds[0]:.0f} and {seconds[1]:.0f}",
        )
        print(f"| {' | '.join(cells)} |", flush=True)
    if arguments.json:
        options = {name: value for name, value in vars(arguments).items() if name != "runs"}
        content = {"options": {**options, "json": None}, "rows": rows}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(run_command(main))
