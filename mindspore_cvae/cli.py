"""The commands ``train`` and ``eval``.

What can be found wrong is found before mindspore is imported, which takes seconds.
"""

from __future__ import annotations

import _thread
import argparse
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mindspore_cvae import config as configuration
from mindspore_cvae import devices, modelarts, runs
from mindspore_cvae.config import Config
from mindspore_cvae.errors import CommandParser, InputError, run_command
from mindspore_cvae.options import SettingsParser, add_settings, number, settings
from mindspore_cvae.outputs import check_folder, check_output, write_output

if TYPE_CHECKING:
    from mindspore_cvae.data.corpus import Corpus

SIGNAL_EXIT = 128
"""What is added to a signal's number when it ended training."""


def train_main(argv: Sequence[str] | None = None) -> int:
    """The command ``train``.

    Args:
        argv: Its arguments; None takes the process's.

    Returns:
        The exit code: 0 done, 2 bad input or configuration, 143 and 130 after SIGTERM and SIGINT, 1
        anything else.
    """
    if argv is None:
        _keep_interrupts()
    return run_command(lambda: _train(argv))


def eval_main(argv: Sequence[str] | None = None) -> int:
    """The command ``eval``; arguments and exit codes as for :func:`train_main`."""
    if argv is None:
        _keep_interrupts()
    return run_command(lambda: _evaluate(argv))


def _keep_interrupts() -> None:
    """Brings SIGINT to Python's handler, whatever mindspore makes of it.

    Every call of a compiled graph replaces the process's handler by one that sends SIGTERM. So the
    signal is blocked here, and in all threads that this one starts, but for one that waits for it.
    Call it before numpy is imported, which starts threads.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

    def forward() -> None:
        while True:
            _thread.interrupt_main(signal.sigwait({signal.SIGINT}))

    threading.Thread(target=forward, daemon=True).start()


def _train_parser() -> CommandParser:
    parser = SettingsParser(
        prog="train",
        description="Train a system; without options, the quickstart on the embedded corpus.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", metavar="YAML", help="a file, or the name of a shipped one (quickstart)"
    )
    parser.add_argument("--system", metavar="NAME", help="row of the table of systems")
    parser.add_argument("--seed", type=int, metavar="N", help="key of all randomness (0)")
    parser.add_argument(
        "--output_dir", metavar="RUN", help="the run's folder (runs/<config>-<system>-<seed>)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the run from its latest good checkpoint"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="delete the run that lies there and start anew"
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="resume even if configuration, vocabulary or data are not those of the checkpoint",
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="write MindSpore's profile of ten steps, after the first twenty, into RUN/profile",
    )
    modelarts.add_urls(parser)
    add_settings(parser)
    return parser


def _train(argv: Sequence[str] | None) -> int:
    arguments = _train_parser().parse_args(argv)
    with modelarts.job(arguments):
        return _run_training(arguments)


def _run_training(arguments: argparse.Namespace) -> int:
    config, folder = _training_config(arguments)
    if not devices.is_rank():
        # Of several processes, only the one that will write may judge the folder.
        runs.check(folder, arguments.resume, arguments.overwrite)
    corpus = corpus_of_run(config, folder if arguments.resume else None)
    for line in _summary(corpus):
        print(line)

    devices.apply_precision(config.precision)
    from mindspore_cvae.trainer import train

    device = devices.choose(config.device_target, config.device_id)
    print(f"system {config.system}, device {device}, run {folder}", flush=True)
    reason = train(
        config,
        folder,
        arguments.resume,
        arguments.overwrite,
        corpus=corpus,
        device=device,
        force=arguments.force,
        profile=arguments.profile,
    )
    print(f"training ended ({reason}): {folder}")
    is_signal = reason in signal.Signals.__members__
    if config.train.report and not is_signal:
        from mindspore_cvae.parallel import is_first
        from mindspore_cvae.report import write_report_or_warn

        if is_first():
            write_report_or_warn(folder)
    return SIGNAL_EXIT + signal.Signals[reason] if is_signal else 0


def _training_config(arguments: argparse.Namespace) -> tuple[Config, Path]:
    """The merged configuration and the run's folder.

    A run that is resumed without ``--config`` starts from its own configuration. Either way, what
    decides what a step computes must be as it was.
    """
    options = {**settings(arguments), "system": arguments.system, "seed": arguments.seed}
    folder, config = arguments.output_dir and Path(arguments.output_dir), None
    if folder is None:
        config = configuration.load(arguments.config, **options)
        name = configuration.find(arguments.config).stem
        folder = Path("runs", f"{name}-{config.system}-{config.seed}")
    is_resumed = arguments.resume and runs.is_run(folder)
    # Read once: a pipe has nothing left for a second time.
    if config is None and not (is_resumed and arguments.config is None):
        config = configuration.load(arguments.config, **options)
    if not is_resumed:
        return config, folder

    saved = configuration.read_saved(folder / runs.CONFIG)
    if arguments.config is None:
        config = configuration.override(saved, **options)
    changed = configuration.differences(saved, config)
    if changed and not arguments.force:
        key, values = next(iter(changed.items()))
        old, new = map(configuration.shown, values)
        raise InputError(
            f"{key} was {old} in {folder / runs.CONFIG} and is {new} now: a run goes on with the "
            "settings that it began with, so leave it as it was, or --force"
        )
    return config, folder


def corpus_of_run(config: Config, run: Path | None) -> Corpus:
    """The corpus, numbered by the vocabulary of a run if there is one."""
    from mindspore_cvae.data import Vocabulary, load_corpus

    vocabulary = None
    if run is not None and (run / runs.VOCABULARY).exists():
        vocabulary = Vocabulary.load(run / runs.VOCABULARY)
    return load_corpus(config.data, vocabulary)


def _summary(corpus: Corpus) -> list[str]:
    """What a user should know of a corpus that was read."""
    lines = list(corpus.messages)
    for split in corpus.splits:
        counts = ", ".join(
            f"{count} {what}" for what, count in split.counts.items() if count and what != "read"
        )
        rest = f" ({counts})" if counts else ""
        lines.append(f"{split.name}: {len(split)} sentences, {split.tokens} tokens{rest}")
    return lines


def _eval_parser() -> CommandParser:
    parser = SettingsParser(
        prog="eval",
        description="Evaluate a run on a split and write RUN/metrics-<split>.json.",
        allow_abbrev=False,
        usable_after_training=True,
    )
    parser.add_argument("--run", required=True, metavar="RUN", help="the run's folder")
    parser.add_argument("--split", choices=("valid", "test"), default="test", help="(test)")
    parser.add_argument(
        "--samples", type=int, metavar="N", help="draws of z a sentence (eval.samples)"
    )
    parser.add_argument(
        "--iw_samples",
        type=number(1),
        metavar="K",
        help="draws of the importance-weighted likelihood bound a sentence (none)",
    )
    parser.add_argument(
        "--iw_proposal",
        choices=("auto", "fit", "product", "refined"),
        default="auto",
        help="where its draws come from: the best by another split (auto), a Gaussian fitted to "
        "q(z|x), its product with the prior, or that refined through the decoder",
    )
    parser.add_argument(
        "--refit_critic",
        action="store_true",
        help="fit fresh critics on half of the codes and read the dual KL on the other half",
    )
    parser.add_argument(
        "--per_sentence", type=Path, metavar="FILE", help="write every sentence's values as TSV"
    )
    parser.add_argument(
        "--checkpoint",
        choices=("best", "best_valid", "last"),
        default="best",
        help="which one (best)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="write the metrics there (RUN/metrics-<split>.json)",
    )
    add_settings(parser)
    return parser


def _evaluate(argv: Sequence[str] | None) -> int:
    arguments = _eval_parser().parse_args(argv)
    options = settings(arguments)
    if arguments.samples is not None:
        options["overrides"] = [*arguments.overrides, f"eval.samples={arguments.samples}"]
    folder = Path(arguments.run)
    config = runs.read_config(folder, **options)
    for name in ("per_sentence", "output"):
        place = getattr(arguments, name)
        if place is not None:
            check_output(place, f"--{name}")
    if arguments.output is None:
        check_folder(folder, "--run (--output writes elsewhere)")
    corpus = corpus_of_run(config, folder)

    devices.apply_precision(config.precision)
    from mindspore_cvae.evaluation import evaluate_run

    devices.choose(config.device_target, config.device_id)
    metrics, values = evaluate_run(
        folder,
        config,
        corpus,
        arguments.split,
        arguments.checkpoint,
        arguments.iw_samples,
        arguments.refit_critic,
        arguments.iw_proposal,
    )
    # Numbers that were computed are shown before anything can fail.
    print(metrics_table(metrics), flush=True)
    path = arguments.output
    if path is None:
        path = runs.write_metrics(folder, arguments.split, metrics)
    else:
        write_output(path, runs.json_text(metrics))
    if arguments.per_sentence is not None:
        write_output(arguments.per_sentence, _tab_separated(values))
    print(f"written to {path}")
    return 0


def _tab_separated(values: dict) -> str:
    """Columns as tab-separated text, one row a sentence, with their names in the first row."""
    rows = zip(*(column.tolist() for column in values.values()), strict=True)
    lines = ["\t".join(values), *("\t".join(map(str, row)) for row in rows)]
    return "\n".join(lines) + "\n"


METRIC_ROWS = (
    ("reconstruction", "rec", "rec"),
    ("-ELBO", "neg_elbo", "neg_elbo_valid"),
    ("KL", "kl", "kl_exact"),
    ("MI", "mi", "mi_exact"),
    ("KL of q(z)", "kl_z", None),
    ("KL, fresh critic", "kl_refit", None),
    ("KL of q(z), fresh", "kl_z_refit", None),
    ("active units", "au", None),
    ("PPL", "ppl", None),
    ("IW-NLL", None, "iw_nll"),
    ("IW-PPL", None, "iw_ppl"),
    ("effective samples", None, "ess"),
    ("true NLL", None, "true_nll"),
    ("true PPL", None, "true_ppl"),
)
"""Rows of the printed table: name, the paper's estimator, the valid one."""


def metrics_table(metrics: dict) -> str:
    """The metrics as text: the paper's columns and the valid ones side by side."""

    def shown(name: str | None) -> str:
        value = metrics.get(name)
        return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)

    lines = [
        f"{metrics['system']} on {metrics['split']}: {metrics['sentences']} sentences, "
        f"{metrics['tokens']} tokens, {metrics['draws']} draws a sentence (nats a sentence)",
        f"{'':20}{'paper':>12}{'valid':>12}",
    ]
    for title, paper, valid in METRIC_ROWS:
        if metrics.get(paper) is not None or metrics.get(valid) is not None:
            lines.append(f"{title:20}{shown(paper):>12}{shown(valid):>12}")
    ceiling = metrics.get("mi_exact_ceiling")
    if ceiling is not None:
        lines.append(f"the exact MI cannot exceed ln N = {ceiling:.3f}")
    lines.append(
        "bounds: the valid -ELBO and IW-NLL are upper bounds of the NLL in expectation; the "
        "paper's KL, and with it its -ELBO and PPL, bounds nothing where critics estimate it"
    )
    return "\n".join(lines)
