"""The one program: its commands, grouped by what people do with them.

Nothing here imports MindSpore, nor a command before it is called.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mindspore_cvae import __version__
from mindspore_cvae.commands.completion import complete
from mindspore_cvae.errors import COMPLETING, InputError, keep_interrupts, run_command

COMMANDS = {
    "Train and measure": {
        "train": ("train:train_main", "train a system and keep the run"),
        "eval": ("evaluate:eval_main", "the metrics of a run"),
        "ngram": ("ngram:main", "forward and reverse perplexity by KenLM; ngram build"),
        "probe": ("probe:main", "how well a linear classifier reads labels from the codes"),
        "report": ("report:main", "a run on one page, report.html"),
        "compare": ("compare:main", "several runs side by side on one page"),
    },
    "Use a trained model": {
        "generate": (
            "generate:generate_main",
            "sentences from a model, and what it makes of given ones",
        ),
        "export": ("export:export_main", "the graphs of a model as MindIR"),
        "convert": ("convert:convert_main", "weights of PyTorch's layout, in and out"),
    },
    "Repeat the paper": {
        "reproduce": ("reproduce:reproduce_main", "its tables and figures"),
        "toy": ("toy:toy_main", "the synthetic clustering experiment (Table 5)"),
    },
    "Prepare": {
        "data": ("data:main", "what is in a corpus; data get fetches one of the paper's"),
        "grammar": ("grammar:main", "write the embedded corpus, or a sentence's probability"),
        "systems": ("systems:main", "every slot of every system"),
        "config": ("config:main", "every key, its default and its meaning"),
        "columns": ("columns:main", "every column of the tables, and what it bounds"),
    },
    "Devices": {
        "doctor": ("doctor:main", "what each device needs, and what is here"),
        "audit": ("audit:audit_main", "which operators the graphs need, and which are missing"),
        "launcher": ("launcher:main", "start a command with CUDA 11 where MindSpore finds it"),
        "ranks": ("ranks:main", "start the processes of a data-parallel run"),
    },
}
"""By group and name: module and function below commands, and one line for ``--help``."""

SECOND_WORDS = {
    ("data", "get"): "get_data:main",
    ("ngram", "build"): "build_kenlm:main",
}
"""Commands of two words, which bring what the one of the first word needs; they import nothing but
the standard library, so that scripts can call them before anything is installed."""


def main(argv: Sequence[str] | None = None, command: str | None = None) -> int:
    """Run a command.

    Args:
        argv: its arguments, after its name where ``command`` is None; None takes the process's.
        command: the name, for a script that is one command.

    Returns:
        Its exit code; see :func:`errors.run_command`.
    """
    if argv is None:
        # Before a command imports numpy, which starts threads.
        keep_interrupts()
        argv = sys.argv[1:]
    arguments = [*([command] if command else []), *argv]
    return run_command(lambda: _run(arguments))


def _run(arguments: list[str]) -> object:
    targets = {name: target for group in COMMANDS.values() for name, (target, _) in group.items()}
    if COMPLETING in os.environ:
        complete(tuple(targets), lambda name: _command(targets[name])([]))
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        print(overview())
        return 0
    if name == "--version":
        print(f"mindspore_cvae {__version__}, MindSpore {_version_of('mindspore')}")
        return 0
    if name not in targets:
        near = difflib.get_close_matches(name, targets, 1)
        hint = f": did you mean {near[0]}?" if near else ""
        raise InputError(f"there is no command {name}{hint} ({_typed()} --help lists them)")
    target = SECOND_WORDS.get((name, rest[0])) if rest else None
    if target:
        del rest[0]
    return _command(target or targets[name])(rest)


def _command(target: str) -> Callable[[list[str]], object]:
    module, _, function = target.partition(":")
    return getattr(importlib.import_module(f"mindspore_cvae.commands.{module}"), function)


def overview() -> str:
    """What ``--help`` prints."""
    lines = [
        f"usage: {_typed()} COMMAND [OPTION ...]",
        "",
        "Contrastive latent variable models for text generation, in MindSpore.",
    ]
    for group, commands in COMMANDS.items():
        lines += ["", f"{group}:"]
        lines += [f"  {name:<10}  {line}" for name, (_, line) in commands.items()]
    lines += ["", f"{_typed()} COMMAND --help lists a command's options; --version, the versions."]
    return "\n".join(lines)


def _typed() -> str:
    is_module = Path(sys.argv[0]).name == "__main__.py"
    return "python -m mindspore_cvae" if is_module else "mindspore-cvae"


def _version_of(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "is not installed"
