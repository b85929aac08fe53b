"""What proposals, and how many steps of refinement, are worth to the importance-weighted bound.

    python benchmarks/proposals.py --run RUN [--split valid] [--sentences 128]
                                   [--refinements 4 8 16 32] [--json FILE]

Each family with 128 draws of the first sentences of a split, and the last one with 512: the bound's
mean, its change to the last row (paired), effective samples, seconds beside those of the plain
scores with as many draws. Widths are chosen on another split, as ``eval.py`` does.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from unittest import mock

from mindspore_cvae.common.numbers import signed_with_error, standard_error
from mindspore_cvae.data.widths import corpus_widths
from mindspore_cvae.devices import choosing
from mindspore_cvae.errors import run_command
from mindspore_cvae.evaluation import proposals
from mindspore_cvae.evaluation.importance import ImportanceSampler
from mindspore_cvae.evaluation.scoring import Scorer
from mindspore_cvae.runs import folder
from mindspore_cvae.runs.folder import corpus_of_run
from mindspore_cvae.runs.loading import load_run

DRAWS, MANY_DRAWS = 128, 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--split", choices=("valid", "test"), default="valid")
    parser.add_argument("--sentences", type=int, default=128)
    parser.add_argument("--refinements", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    config = folder.read_config(arguments.run)
    choosing.apply_precision(config.precision)
    choosing.choose("CPU")
    corpus = corpus_of_run(config, arguments.run)
    loaded = load_run(arguments.run, "best_valid", config)
    evaluator = Scorer(loaded.model, config, corpus_widths(corpus, config.data.buckets))
    split = {part.name: part for part in corpus.splits}[arguments.split]
    tuning = corpus.train if arguments.split == "valid" else corpus.valid
    sampler = ImportanceSampler(evaluator)
    # The first call compiles.
    evaluator.score(split, DRAWS, arguments.sentences)
    started = time.monotonic()
    scores = evaluator.score(split, DRAWS, arguments.sentences)
    plain = time.monotonic() - started
    rows = []

    def measured(name: str, family: str, draws: int) -> None:
        choice = sampler.choose(tuning, DRAWS, DRAWS, (family,))
        started = time.monotonic()
        result = sampler.score(split, scores, draws, choice)
        seconds = time.monotonic() - started
        rows.append((name, draws, choice, result.nll, result.effective_samples, seconds))

    measured("fit", "fit", DRAWS)
    measured("product", "product", DRAWS)
    for steps in arguments.refinements:
        with mock.patch.object(proposals, "REFINEMENT_STEPS", steps):
            measured(f"refined, {steps} steps", "refined", DRAWS)
            if steps == arguments.refinements[-1]:
                measured(f"refined, {steps} steps", "refined", MANY_DRAWS)
    last = rows[-1][3]
    print(f"plain scores with {DRAWS} draws: {plain:.1f} s")
    print("| proposals | K | s, widening | bound | to the last row | ESS | least | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for name, draws, choice, nll, effective, seconds in rows:
        difference = nll - last
        print(
            f"| {name} | {draws} | {choice.inflation}, {choice.widening} "
            f"| {nll.mean():.2f} ± {standard_error(nll):.2f} "
            f"| {signed_with_error(difference.mean(), standard_error(difference))} "
            f"| {effective.mean():.1f} | {effective.min():.1f} | {seconds:.0f} |"
        )
    if arguments.json:
        content = {
            "run": arguments.run.name,
            "system": config.system,
            "step": loaded.step,
            "split": arguments.split,
            "sentences": arguments.sentences,
            "plain_seconds": plain,
            "rows": [
                {
                    "proposals": name,
                    "draws": draws,
                    "inflation": choice.inflation,
                    "widening": choice.widening,
                    "nll": float(nll.mean()),
                    "nll_error": float(standard_error(nll)),
                    "to_last": float((nll - last).mean()),
                    "to_last_error": float(standard_error(nll - last)),
                    "ess": float(effective.mean()),
                    "least_ess": float(effective.min()),
                    "seconds": seconds,
                }
                for name, draws, choice, nll, effective, seconds in rows
            ],
        }
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(run_command(main))
