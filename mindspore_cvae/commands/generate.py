"""The command ``generate``: sentences from a trained model, and what it makes of given ones."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mindspore_cvae.api import ContrastiveVAE, interpolation_weights
from mindspore_cvae.commands.options import (
    STANDARD_INPUT,
    SettingsParser,
    add_run,
    add_settings,
    has_no_input,
    number,
    settings,
)
from mindspore_cvae.common.arrays import UNREADABLE, read_array
from mindspore_cvae.common.files import read_regular
from mindspore_cvae.common.progress import tell_loading
from mindspore_cvae.config.keys import Config
from mindspore_cvae.data.sentences import number_sentences
from mindspore_cvae.data.text import decode_text, read_text
from mindspore_cvae.data.vocabulary import Vocabulary
from mindspore_cvae.errors import CommandParser, InputError, run_command, typed
from mindspore_cvae.generation.ways import METHODS, Decoding
from mindspore_cvae.runs import folder
from mindspore_cvae.runs.outputs import check_output, write_output


def generate_main(argv: Sequence[str] | None = None) -> int:
    """The command ``generate``.

    Args:
        argv: its arguments; None takes the process's.

    Returns:
        The exit code: 0 done, 2 bad input or configuration, 1 anything else.
    """
    return run_command(lambda: _generate(argv))


def _parser() -> CommandParser:
    parser = CommandParser(
        prog=typed("generate"),
        description="Sentences from a trained model, and what it makes of given ones.",
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(
        dest="action", required=True, metavar="ACTION", parser_class=SettingsParser
    )
    common = SettingsParser(add_help=False)
    add_run(common)
    common.add_argument("--output", metavar="FILE", help="where to write (standard output)")
    common.add_argument("--jsonl", action="store_true", help="one JSON object a line")
    add_settings(common)

    def add(action: str, text: str, *groups: Callable[[argparse.ArgumentParser], None]) -> None:
        command = actions.add_parser(
            action,
            help=text,
            description=text,
            parents=[common],
            allow_abbrev=False,
            usable_after_training=True,
        )
        for group in groups:
            group(command)

    add("sample", "Decode draws from the prior.", _count, _label, _decoding("sample"))
    add("reconstruct", "Encode sentences and decode them.", _input, _decoding("greedy"))
    add("interpolate", "Decode the line between two sentences.", _pair, _decoding("greedy"))
    add("encode", "Write posterior means, one row a sentence, as .npy.", _input, _seed)
    add("nearest", "Find the closest training sentences.", _input, _neighbours)
    add("decode", "Decode codes, the rows of an .npy file.", _codes, _decoding("greedy"))
    add("score", "How well the model describes sentences, nats each.", _input)
    add("arithmetic", "Decode a sum of codes: A - B + C.", _sum, _decoding("greedy"))
    return parser


def _count(command: argparse.ArgumentParser) -> None:
    command.add_argument("--n", type=int, default=10, metavar="N", help="sentences (10)")


def _label(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--label",
        metavar="L",
        help="decode the mean code of the training sentences with this label instead",
    )


def _seed(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seed", type=number(0), default=0, metavar="N", help="of all draws (0)")


def _decoding(default: str) -> Callable[[argparse.ArgumentParser], None]:
    def group(command: argparse.ArgumentParser) -> None:
        _seed(command)
        command.add_argument("--decoding", choices=METHODS, default=default, help=f"({default})")
        command.add_argument("--temperature", type=float, metavar="T", help="of draws (1)")
        command.add_argument("--top_k", type=int, metavar="K", help="draw among the K best words")
        command.add_argument(
            "--top_p", type=float, metavar="P", help="draw among the best words that sum up to P"
        )
        command.add_argument("--beam_size", type=int, metavar="B", help="width of the beam (5)")
        command.add_argument(
            "--max_words", type=int, metavar="N", help="longest sentence (data.max_words)"
        )
        command.add_argument(
            "--no_unk", action="store_true", default=None, help="no <unk> comes out"
        )

    return group


def _input(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "sentences",
        nargs="*",
        metavar="SENTENCE",
        help="words between blanks; - alone is standard input, one sentence a line",
    )
    command.add_argument(
        "--input",
        metavar="FILE",
        help="one sentence a line; - is standard input, which is read where nothing is given",
    )


def _pair(command: argparse.ArgumentParser) -> None:
    _input(command)
    command.add_argument("--steps", type=int, default=11, metavar="N", help="sentences (11)")


def _codes(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--codes",
        required=True,
        metavar="FILE",
        help="an array (N, Z), as encode writes it; - is standard input",
    )


def _sum(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "sentences",
        nargs="+",
        metavar="SENTENCE",
        help="with - or + between them; - alone is standard input, with each on a line of its own",
    )
    command.set_defaults(input=None)


def _neighbours(command: argparse.ArgumentParser) -> None:
    command.add_argument("--k", type=int, default=5, metavar="K", help="for each sentence (5)")


def _generate(argv: Sequence[str] | None) -> None:
    arguments = _parser().parse_args(argv)
    _check(arguments)
    config = folder.read_config(arguments.run, **settings(arguments))
    sentences = None
    if "sentences" in arguments:
        sentences = _read_sentences(arguments, config)
    tell_loading(f"checkpoint {arguments.checkpoint} of {arguments.run}")
    with _clean_standard_output():
        model = ContrastiveVAE.load(arguments.run, arguments.checkpoint, config=config)
        content = ACTIONS[arguments.action](model, arguments, sentences)
    if arguments.output is not None:
        try:
            write_output(arguments.output, content)
        except OSError:
            # What was computed is not lost; an array is nothing for a terminal.
            if isinstance(content, str):
                _print(content)
            raise
    elif isinstance(content, str):
        _print(content)


def _print(content: str) -> None:
    """Write text to standard output, as UTF-8 where it is a stream of bytes."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8")
    sys.stdout.write(content)


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what needs neither the run nor mindspore to be refused."""
    for name, lowest in (("n", 0), ("k", 1), ("steps", 2)):
        value = getattr(arguments, name, lowest)
        if value < lowest:
            raise InputError(f"--{name} must be {lowest} or more, not {value}")
    if arguments.action == "arithmetic":
        if arguments.sentences == [STANDARD_INPUT]:
            arguments.sentences = _lines_of(_standard_input())
        arguments.signs = ["+", *arguments.sentences[1::2]]
        arguments.sentences = arguments.sentences[::2]
        if set(arguments.signs) - {"+", "-"} or len(arguments.signs) != len(arguments.sentences):
            raise InputError('arithmetic takes sentences with - or + between them: "A" - "B" + "C"')
    if "decoding" in arguments:
        options = _options(arguments)
        Decoding(method=options.pop("decoding"), **options)
    if arguments.action == "encode" and arguments.output is None and not arguments.jsonl:
        raise InputError("encode writes an array: name its file with --output, or take --jsonl")
    if arguments.action == "decode" and arguments.codes == STANDARD_INPUT and has_no_input():
        raise InputError("no codes: --codes - reads what a pipe or a file brings")
    if arguments.output is not None:
        check_output(arguments.output)


def _read_sentences(arguments: argparse.Namespace, config: Config) -> list[str]:
    """The given sentences, after what is wrong with them has been told."""
    if arguments.sentences and arguments.input is not None:
        raise InputError("give sentences as arguments or with --input, not both")
    if arguments.sentences and arguments.sentences != [STANDARD_INPUT]:
        sentences, where = arguments.sentences, "sentence"
    else:
        name = STANDARD_INPUT if arguments.input is None else arguments.input
        if name == STANDARD_INPUT:
            text, where = _standard_input(), "standard input, line"
        else:
            text, where = read_text(name, may_be_pipe=True), f"{name}, line"
        sentences = _lines_of(text)
    if arguments.action == "interpolate" and len(sentences) != 2:
        raise InputError(f"interpolate takes two sentences, not {len(sentences)}")
    if not sentences:
        raise InputError(f"no sentence in {where.removesuffix(', line')}")
    vocabulary = Vocabulary.load(arguments.run / folder.VOCABULARY, config.data.unit)
    # Encoding numbers them again and warns then: lines and sentences have the same numbers.
    number_sentences(sentences, vocabulary, config.data, where, warn=lambda message: None)
    return list(sentences)


def _lines_of(text: str) -> list[str]:
    return text.removesuffix("\n").split("\n") if text else []


def _standard_input() -> str:
    if has_no_input():
        raise InputError("no sentences: give them as arguments, with --input FILE, or by a pipe")
    return decode_text(sys.stdin.buffer.read(), "standard input")


@contextlib.contextmanager
def _clean_standard_output() -> Iterator[None]:
    """Sends what libraries print meanwhile to standard error, their C++ parts included."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of decoding that were given."""
    names = ("temperature", "top_k", "top_p", "beam_size", "max_words", "no_unk")
    values = {name: getattr(arguments, name) for name in names}
    given = {name: value for name, value in values.items() if value is not None}
    return {"decoding": arguments.decoding, **given}


def _lines(rows: Sequence[dict], arguments: argparse.Namespace, text: Callable[[dict], str]) -> str:
    """Rows as JSON or as text, one line each."""
    if arguments.jsonl:
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return "".join(text(row) + "\n" for row in rows)


def _sample(model: ContrastiveVAE, arguments, sentences) -> str:
    if arguments.label is None:
        texts = model.sample(arguments.n, seed=arguments.seed, **_options(arguments))
    else:
        z, count = model.mean_code(arguments.label)
        print(f"{arguments.label}: the mean code of {count:,} training sentences", file=sys.stderr)
        z = np.repeat(z, arguments.n, 0)
        texts = model.decode(z, seed=arguments.seed, **_options(arguments))
    rows = [{"index": number, "sentence": text} for number, text in enumerate(texts)]
    return _lines(rows, arguments, lambda row: row["sentence"])


def _reconstruct(model: ContrastiveVAE, arguments, sentences) -> str:
    texts = model.reconstruct(sentences, seed=arguments.seed, **_options(arguments))
    rows = [
        {"sentence": sentence, "reconstruction": text}
        for sentence, text in zip(sentences, texts, strict=True)
    ]
    return _lines(rows, arguments, lambda row: row["reconstruction"])


def _interpolate(model: ContrastiveVAE, arguments, sentences) -> str:
    texts = model.interpolate(
        sentences[0],
        sentences[1],
        steps=arguments.steps,
        seed=arguments.seed,
        **_options(arguments),
    )
    weights = interpolation_weights(arguments.steps).round(12).tolist()
    rows = [
        {"lambda": weight, "sentence": text} for weight, text in zip(weights, texts, strict=True)
    ]
    return _lines(rows, arguments, lambda row: row["sentence"])


def _encode(model: ContrastiveVAE, arguments, sentences) -> str | bytes:
    z = model.encode(sentences, seed=arguments.seed)
    if arguments.jsonl:
        rows = [
            {"sentence": sentence, "z": code}
            for sentence, code in zip(sentences, z.tolist(), strict=True)
        ]
        return _lines(rows, arguments, str)
    file = io.BytesIO()
    np.save(file, z)
    return file.getvalue()


def _decode(model: ContrastiveVAE, arguments, sentences) -> str:
    if arguments.codes == STANDARD_INPUT:
        name, content = "standard input", sys.stdin.buffer.read()
    else:
        name, content = arguments.codes, read_regular(Path(arguments.codes))
    try:
        z = read_array(io.BytesIO(content), lambda kind, shape: None)
        is_good = z.dtype.kind == "f" and bool(np.isfinite(z).all())
    except UNREADABLE:
        is_good = False
    if not is_good:
        raise InputError(f"{name} is no .npy file of finite numbers, as encode writes it")
    texts = model.decode(z, seed=arguments.seed, **_options(arguments))
    rows = [{"index": number, "sentence": text} for number, text in enumerate(texts)]
    return _lines(rows, arguments, lambda row: row["sentence"])


def _score(model: ContrastiveVAE, arguments, sentences) -> str:
    scores = model.score(sentences)
    columns = {name: getattr(scores, name) for name in ("neg_elbo", "rec", "kl", "tokens")}
    rows = [
        {
            "sentence": sentence,
            **{
                name: None if values is None else values[number].item()
                for name, values in columns.items()
            },
        }
        for number, sentence in enumerate(sentences)
    ]

    def text(row: dict) -> str:
        numbers = [row[name] for name in columns]
        shown = [
            "-" if n is None else f"{n:.4f}" if isinstance(n, float) else str(n) for n in numbers
        ]
        return "\t".join([*shown, row["sentence"]])

    return _lines(rows, arguments, text)


def _arithmetic(model: ContrastiveVAE, arguments, sentences) -> str:
    signs = np.array([1.0 if sign == "+" else -1.0 for sign in arguments.signs])
    z = (signs[:, None] * model.encode(sentences, seed=arguments.seed)).sum(0, keepdims=True)
    (text,) = model.decode(z, seed=arguments.seed, **_options(arguments))
    return _lines([{"sentence": text}], arguments, lambda row: row["sentence"])


def _nearest(model: ContrastiveVAE, arguments, sentences) -> str:
    found = model.nearest(sentences, arguments.k)
    rows = [
        {"sentence": sentence, "neighbours": [neighbour._asdict() for neighbour in neighbours]}
        for sentence, neighbours in zip(sentences, found, strict=True)
    ]

    def text(row: dict) -> str:
        return "\n".join(
            [
                row["sentence"],
                *(f"{near['distance']:.4f}\t{near['sentence']}" for near in row["neighbours"]),
            ]
        )

    return _lines(rows, arguments, text)


ACTIONS = {
    "sample": _sample,
    "reconstruct": _reconstruct,
    "interpolate": _interpolate,
    "encode": _encode,
    "nearest": _nearest,
    "decode": _decode,
    "score": _score,
    "arithmetic": _arithmetic,
}
"""What each action makes: the content of its output."""
