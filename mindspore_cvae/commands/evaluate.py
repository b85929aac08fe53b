"""Command eval: the metrics of a run's checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mindspore_cvae.commands.options import SettingsParser, add_run, add_settings, number, settings
from mindspore_cvae.common.progress import tell_loading
from mindspore_cvae.devices import choosing
from mindspore_cvae.errors import CommandParser, run_command, typed
from mindspore_cvae.evaluation.columns import printed_rows
from mindspore_cvae.runs import folder as runs_folder
from mindspore_cvae.runs.folder import corpus_of_run
from mindspore_cvae.runs.outputs import check_folder, check_output, write_output


def eval_main(argv: Sequence[str] | None = None) -> int:
    """The command ``eval``; arguments and exit codes as for :func:`train_main`."""
    return run_command(lambda: _evaluate(argv))


def _eval_parser() -> CommandParser:
    parser = SettingsParser(
        prog=typed("eval"),
        description="Evaluate a run on a split and write RUN/metrics-<split>.json.",
        allow_abbrev=False,
        usable_after_training=True,
    )
    add_run(parser)
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
    folder = arguments.run
    config = runs_folder.read_config(folder, **options)
    for name in ("per_sentence", "output"):
        place = getattr(arguments, name)
        if place is not None:
            check_output(place, f"--{name}")
    if arguments.output is None:
        check_folder(folder, "--run (--output writes elsewhere)")
    corpus = corpus_of_run(config, folder)

    tell_loading(f"checkpoint {arguments.checkpoint} of {folder}")
    choosing.apply_precision(config.precision)
    from mindspore_cvae.evaluation.metrics import Weighing, evaluate_run
    from mindspore_cvae.evaluation.proposals import FAMILIES

    choosing.choose(config.device_target, config.device_id)
    weighing = None
    if arguments.iw_samples is not None:
        name = arguments.iw_proposal
        families = tuple(FAMILIES) if name == "auto" else (name,)
        weighing = Weighing(arguments.iw_samples, families)
    metrics, values = evaluate_run(
        folder,
        config,
        corpus,
        arguments.split,
        arguments.checkpoint,
        weighing,
        arguments.refit_critic,
    )
    # Numbers that were computed are shown before anything can fail.
    print(metrics_table(metrics), flush=True)
    path, columns = arguments.output, {name: column.tolist() for name, column in values.items()}
    if path is None:
        path = runs_folder.write_metrics(folder, arguments.split, metrics, columns)
    else:
        write_output(path, runs_folder.json_text(metrics))
    if arguments.per_sentence is not None:
        write_output(arguments.per_sentence, runs_folder.tab_separated(columns))
    print(f"written to {path}")
    return 0


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
    if "read" in metrics:
        lines.insert(
            1,
            f"of {metrics['read']} lines {metrics['empty']} empty, {metrics['dropped']} dropped, "
            f"{metrics['truncated']} truncated; {metrics['unk_rate']:.2%} of the words are <unk>",
        )
    for title, paper, valid in printed_rows():
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
