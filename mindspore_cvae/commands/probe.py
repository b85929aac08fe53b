"""Command probe: how well a linear classifier reads labels from the codes of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mindspore_cvae.api import ContrastiveVAE
from mindspore_cvae.commands.options import SettingsParser, add_run, add_settings, number, settings
from mindspore_cvae.errors import InputError, typed
from mindspore_cvae.evaluation.probe import Probe, check_labels
from mindspore_cvae.runs import folder as runs_folder
from mindspore_cvae.runs.outputs import check_folder, check_output, write_output


def main(argv: Sequence[str] | None = None) -> None:
    """The command. Raises what :meth:`api.ContrastiveVAE.probe` raises."""
    parser = SettingsParser(
        prog=typed("probe"),
        description="How well a linear classifier reads the labels of test sentences from their "
        "posterior means, beside a bag of words; writes RUN/probe.json.",
        allow_abbrev=False,
        usable_after_training=True,
    )
    add_run(parser)
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write it there (RUN/probe.json)"
    )
    parser.add_argument(
        "--subsets",
        type=number(1, 1000),
        default=10,
        metavar="N",
        help="how many of 100 and of 1,000 training sentences are drawn (10)",
    )
    parser.add_argument("--seed", type=number(0), default=0, metavar="N", help="of the subsets (0)")
    add_settings(parser)
    arguments = parser.parse_args(argv)
    folder = arguments.run
    config = runs_folder.read_config(folder, **settings(arguments))
    if config.slots.posterior == "none":
        raise InputError(f"{folder}: {config.system} has no latent variable, so no codes to read")
    if arguments.output is None:
        check_folder(folder, "--run (--output writes elsewhere)")
    else:
        check_output(arguments.output)
    corpus = runs_folder.corpus_of_run(config, folder)
    check_labels(corpus)
    model = ContrastiveVAE.load(folder, arguments.checkpoint, config=config)
    probe = model.probe(corpus, arguments.subsets, arguments.seed)
    # Numbers that were computed are shown before anything can fail.
    print(probe_table(probe), flush=True)
    document = {
        "labels": probe.labels,
        "sentences": probe.sentences,
        "majority": {"label": probe.majority, "accuracy": probe.majority_accuracy},
        "readings": [
            {
                **reading._asdict(),
                "accuracy": reading.accuracy,
                "standard_error": reading.standard_error,
            }
            for reading in probe.readings
        ],
        "system": config.system,
        "checkpoint": model.checkpoint,
        "step": model.step,
        "subsets": arguments.subsets,
        "seed": arguments.seed,
        "precision": config.precision,
        "data_dir": config.data.dir,
        "corpus": corpus.fingerprint(),
    }
    path = folder / runs_folder.PROBE if arguments.output is None else arguments.output
    if arguments.output is None:
        runs_folder.write_json(path, document)
    else:
        write_output(path, runs_folder.json_text(document))
    print(f"written to {path}")


def probe_table(probe: Probe) -> str:
    """The accuracies as text: one row a number of training sentences."""
    shown = {}
    for reading in probe.readings:
        error = reading.standard_error
        text = f"{reading.accuracy:.1%}" + ("" if error is None else f" ± {error:.1%}")
        shown[reading.features, reading.sentences] = text
    test = probe.sentences["test"]
    lines = [
        f"accuracy on {test:,} test sentences of {len(probe.labels)} labels (mean ± standard error "
        "over subsets)",
        f"{'training sentences':>18}{'codes':>18}{'bag of words':>18}",
    ]
    for size in sorted({size for _, size in shown}):
        lines.append(f"{size:>18,}{shown['codes', size]:>18}{shown['words', size]:>18}")
    lines.append(
        f"always {probe.majority!r:.60}, the most frequent label: {probe.majority_accuracy:.1%}"
    )
    # Of a share p among N, sqrt(p (1 - p) / N).
    lines.append(
        f"being of {test:,} sentences, each is uncertain by up to ± {0.5 / test**0.5:.1%} (one "
        "standard error)"
    )
    return "\n".join(lines)
