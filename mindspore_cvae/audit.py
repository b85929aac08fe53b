"""Which operators the graphs of every system need, and what MindSpore says of them on each device.

``python -m mindspore_cvae.audit [--device CPU|GPU|Ascend] [--system NAME ...] [--amp_level O0|O2]
[--json]``; the exit code is 0 if nothing is known to be missing.

The graphs of training, evaluation and decoding are those that the package's own code calls, at
tiny sizes. Each is compiled by MindSpore's front end as for an export, and nothing is computed. To
see what Ascend would be given, the code that builds networks is told that the device is Ascend:
``nn.LSTM`` then takes DynamicRNN. What MindSpore states is read from the docstrings of the
installed version: the primitive's own, or that of the function which it refers to.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from unittest import mock

import numpy as np

from mindspore_cvae import config as configuration
from mindspore_cvae import devices
from mindspore_cvae.config import Config
from mindspore_cvae.data import Split
from mindspore_cvae.data.vocabulary import BEGIN, END, SPECIALS
from mindspore_cvae.decoding import Decoding
from mindspore_cvae.errors import CommandParser, run_command
from mindspore_cvae.systems import SYSTEMS, System

DEVICES = ("CPU", "GPU", "Ascend")
STAGES = ("training", "evaluation", "decoding")
STATED, MISSING, NOT_STATED = "stated", "missing", "not stated"
"""What MindSpore says: the device is among the platforms that it states, it is not among them, or
no platforms are stated."""
UNIT = devices.MULTIPLES["Ascend"]
"""Ascend multiplies matrices in blocks of so many numbers."""
ROWS, WIDTH, VOCABULARY = 16, 16, 90
"""Sentences, predicted tokens and words of the graphs that are compiled; the words, like those of
the shipped configurations, are no multiple of :data:`UNIT`."""
LOGITS = {VOCABULARY, -(-VOCABULARY // UNIT) * UNIT}
"""Columns that only logits have, as they are and padded."""
SIZES = (
    *("model.embedding_size", "model.hidden_size", "model.latent_size", "model.noise_size"),
    *("model.critic_size", "model.posterior_size", "data.batch_size"),
)
"""Keys of the configuration that are sizes of matrices."""
MODULES = (
    "mindspore.ops.operations",
    "mindspore.ops.auto_generate",
    "mindspore.ops.operations._grad_ops",
    "mindspore.ops.operations._inner_ops",
)
"""Where a primitive's class may stand."""
FUNCTIONS = ("mindspore.ops", "mindspore.ops.auto_generate")
"""Where a function that a docstring refers to may stand."""
HOST = {
    *("PyFunc", "PyExecute", "PyInterpret", "CallbackImpl", "Custom", "Print", "Assert"),
    *("TensorDump", "ScalarSummary", "TensorSummary", "HistogramSummary", "ImageSummary"),
}
"""Primitives that call the host's Python, or write from the middle of a graph."""
PRODUCTS = {"MatMul", "MatMulExt", "BatchMatMul", "BatchMatMulExt", "DynamicRNN"}
"""Primitives that multiply matrices."""
RECURRENT = {"DynamicRNN", "DynamicRNNGrad"}
"""What ``nn.LSTM`` becomes on Ascend: it computes in float16."""
LSTMS = {"LSTM", "LSTMGrad", "LSTMGradData", "LSTMGradWeight"}
"""What it becomes elsewhere: in mixed precision it computes in float16."""
MOVING = {
    *("Load", "Depend", "UpdateState", "MakeTuple", "TupleGetItem", "Return", "Reshape", "Cast"),
    *("Transpose", "Concat", "Split", "SplitWithSize", "StridedSlice", "StridedSliceGrad"),
    *("ExpandDims", "Squeeze", "ZerosLike", "Zeros", "FillV2", "TensorMove", "Slice"),
}
"""Primitives that move numbers without computing, in whatever type."""
FLOAT32, FLOAT16, FLOAT64 = 1, 10, 11
KINDS = {
    FLOAT32: np.float32,
    2: np.uint8,
    3: np.int8,
    6: np.int32,
    7: np.int64,
    9: np.bool_,
    FLOAT16: np.float16,
    FLOAT64: np.float64,
}
"""Types of numbers by MindIR's ``TensorProto.DataType``."""


@dataclass(frozen=True)
class Type:
    """Of a tensor in a graph: a key of :data:`KINDS`, and a shape."""

    kind: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Node:
    """One call of a primitive."""

    primitive: str
    inputs: tuple[Type, ...]
    outputs: tuple[Type, ...]


@dataclass(frozen=True)
class Graph:
    """What one cell of the package was compiled to."""

    system: str
    stage: str
    cell: str
    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class Statement:
    """What MindSpore says of a primitive."""

    platforms: tuple[str, ...] | None
    """None where it says nothing."""
    source: str
    """The class or function whose docstring says it."""


@dataclass(frozen=True)
class Verdict:
    """A primitive that a device is given."""

    device: str
    primitive: str
    verdict: str
    said: Statement
    stages: tuple[str, ...]
    systems: tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """Something in the graphs that a device cannot be given, or that costs time or accuracy."""

    device: str
    check: str
    is_missing: bool
    text: str


def statement(primitive: str) -> Statement:
    """What the docstrings of the installed MindSpore say of a primitive's platforms."""
    for module in MODULES:
        kernel = getattr(importlib.import_module(module), primitive, None)
        if kernel is None:
            continue
        text = inspect.getdoc(kernel) or ""
        platforms = stated_platforms(text)
        if platforms is not None:
            return Statement(platforms, f"{module}.{primitive}")
        reference = re.search(r"Refer to\s+:func:`mindspore\.ops\.(\w+)`", text)
        for place in FUNCTIONS if reference else ():
            function = getattr(importlib.import_module(place), reference[1], None)
            platforms = stated_platforms(inspect.getdoc(function) or "")
            if function is not None and platforms is not None:
                return Statement(platforms, f"{place}.{reference[1]}")
    return Statement(None, "")


def stated_platforms(docstring: str) -> tuple[str, ...] | None:
    """The names after ``Supported Platforms:``; None where a docstring has no such line."""
    match = re.search(r"Supported Platforms:\s*\n\s*((?:``\w+``[ \t]*)+)", docstring)
    return tuple(re.findall(r"``(\w+)``", match[1])) if match else None


@contextlib.contextmanager
def pretended(device: str) -> Iterator[None]:
    """Networks that are built and compiled meanwhile are told that they are for a device."""
    import mindspore.context
    from mindspore import ops

    asked = mindspore.context.get_context

    def answer(key: str) -> object:
        return device if key == "device_target" else asked(key)

    kernel = _lstm_of_gpu() if device == "GPU" else ops.LSTM
    with (
        mock.patch.object(mindspore.context, "get_context", answer),
        mock.patch.object(ops, "LSTM", kernel),
    ):
        yield


def _lstm_of_gpu() -> type:
    """The primitive LSTM with the gradient that MindSpore gives it on GPU: which one it gives is
    decided below Python, by the device of the process."""
    from mindspore import nn, ops
    from mindspore.ops.operations._grad_ops import LSTMGradData, LSTMGradWeight

    forward = ops.LSTM

    class CudnnLSTM(nn.Cell):
        def __init__(self, *sizes):
            super().__init__()
            self.forward = forward(*sizes)
            self.data_gradient = LSTMGradData(*sizes)
            self.weight_gradient = LSTMGradWeight(*sizes)

        def construct(self, x, hidden, cell, weights):
            return self.forward(x, hidden, cell, weights)

        def bprop(self, x, hidden, cell, weights, outputs, gradients):
            y, _, _, reserved, state = outputs
            given = (y, *gradients[:3], weights, hidden, cell, reserved, state)
            of_x, of_hidden, of_cell = self.data_gradient(*given)
            # cuDNN reads in the second call what it wrote in the first.
            x = ops.depend(x, of_x)
            return of_x, of_hidden, of_cell, self.weight_gradient(x, hidden, y, reserved, state)

    return CudnnLSTM


class Recorder:
    """Compiles every graph that is called meanwhile, and computes none: outputs are zeros.

    Args:
        stage: what the graphs are for.

    Attributes:
        graphs: what was compiled; a graph that is called again is there once.
    """

    def __init__(self, stage: str):
        self.stage = stage
        self.graphs: list[Graph] = []
        self._outputs: dict[tuple, list[Type]] = {}
        self._cells: list[object] = []

    def __enter__(self) -> Recorder:
        from mindspore import nn

        recorder = self

        def call(cell, *arguments, **named):
            return recorder.call(cell, *arguments, *named.values())

        self._patch = mock.patch.object(nn.Cell, "compile_and_run", call)
        self._patch.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._patch.stop()

    def call(self, cell, *arguments):
        """In the place of a compiled cell's call."""
        from mindspore import Tensor

        shapes = tuple(
            (tuple(item.shape), str(item.dtype)) if isinstance(item, Tensor) else item
            for item in arguments
        )
        key = (id(cell), shapes)
        if key not in self._outputs:
            # An id is that of one cell as long as the cell is kept.
            self._cells.append(cell)
            nodes, self._outputs[key] = read_graph(compiled(cell, arguments))
            self.graphs.append(Graph("", self.stage, type(cell).__name__, tuple(nodes)))
        zeros = tuple(
            Tensor(np.zeros(output.shape, KINDS[output.kind])) for output in self._outputs[key]
        )
        return zeros[0] if len(zeros) == 1 else zeros


def compiled(cell, arguments: Sequence) -> object:
    """What MindSpore's front end makes of a cell, as MindIR's ``ModelProto``.

    As mindspore.export does it, which asks besides that every parameter lie in the cell itself.
    """
    from mindspore.common.api import _cell_graph_executor
    from mindspore.train.mind_ir_pb2 import ModelProto

    graph, _ = _cell_graph_executor.compile(
        cell, *arguments, phase="export.mindir", do_convert=False
    )
    model = ModelProto()
    model.ParseFromString(_cell_graph_executor._get_func_graph_proto(cell, graph, "mind_ir"))
    return model


def read_graph(model) -> tuple[list[Node], list[Type]]:
    """The primitives of a ``ModelProto`` in all of its graphs, and the types of its outputs."""
    names = {f"REF::{item.name}": item.op_type for item in model.primitives}
    graphs = [model.graph, *model.functions]
    types: dict[str, list[Type]] = {}
    for graph in graphs:
        for item in [*graph.input, *graph.output]:
            types[item.name] = [*map(_type, item.tensor), *_types(item.attr_info)]
        for item in graph.parameter:
            types[item.name] = [_type(item)]
        for node in graph.node:
            shapes = (item for item in node.attribute if item.name in ("shape", "value"))
            types[node.output[0]] = [kind for item in shapes for kind in _types(item)]
    nodes = [
        Node(
            names[node.op_type],
            tuple(kind for name in node.input for kind in types.get(name, ())),
            tuple(types[node.output[0]]),
        )
        for graph in graphs
        for node in graph.node
        if node.op_type in names
    ]
    return nodes, [kind for item in model.graph.output for kind in types[item.name]]


def _types(attribute) -> list[Type]:
    """Of an ``AttributeProto``, however deep its tuples are."""
    inner = (kind for item in attribute.values for kind in _types(item))
    return [*map(_type, attribute.tensors), *inner]


def _type(tensor) -> Type:
    return Type(tensor.data_type, tuple(tensor.dims))


def _model(system: str, amp_level: str = "O0"):
    """A model of a system at tiny sizes, and its configuration."""
    from mindspore_cvae.building import build_model

    settings = [*(f"{key}={UNIT}" for key in SIZES), "train.critic_updates=1"]
    config = configuration.load(None, settings, system=system, amp_level=amp_level)
    return build_model(config.slots, config.model, VOCABULARY, config.seed), config


def _tokens() -> np.ndarray:
    """(ROWS, WIDTH + 1) int32: sentences of one word to as many as there is room for."""
    tokens = np.zeros((ROWS, WIDTH + 1), np.int32)
    for number, row in enumerate(tokens):
        length = 1 + number % (WIDTH - 1)
        row[: length + 2] = [BEGIN, *range(len(SPECIALS), len(SPECIALS) + length), END]
    return tokens


def _tensors(arrays) -> list:
    from mindspore import Tensor

    return [None if array is None else Tensor(array) for array in arrays]


def _train(model, config: Config) -> None:
    from mindspore_cvae.building import build_step
    from mindspore_cvae.noise import NoiseMaker

    tokens, weight = _tokens(), np.ones(ROWS, np.float32)
    noise = NoiseMaker(config.slots, config.model, config.train.critic_updates, config.seed)
    step = build_step(model, config.slots, config.train)
    step(*_tensors([tokens, weight, np.float32(1.0), *noise(0, tokens)]))


def _evaluate(model, config: Config) -> None:
    from mindspore_cvae.refit import refitted_kl
    from mindspore_cvae.scoring import Evaluator

    tokens = _tokens()
    sentences = [row[1 : 1 + (row > END).sum()] for row in tokens]
    split = Split("valid", "none", sentences, np.arange(ROWS), {})
    evaluator = Evaluator(
        *(model, config.slots, (WIDTH,)),
        *(ROWS, ROWS * WIDTH, config.model.latent_size, config.seed),
    )
    scores = evaluator.score(split, samples=4)
    z = np.zeros((ROWS, 4, config.model.latent_size), np.float32)
    evaluator.likelihood(*_tensors([tokens, z]))
    if evaluator.has_critics:
        refitted_kl(scores.hidden, scores.codes, config.model, config.seed, updates=1)


def _encode(model, config: Config) -> None:
    from mindspore_cvae.encoding import SentenceEncoder
    from mindspore_cvae.posteriors import NoLatent

    if isinstance(model.posterior, NoLatent):
        return
    encoder = SentenceEncoder(model, config.model.latent_size, WIDTH - 1, ROWS)
    for samples in (None, 4):
        if samples is not None or encoder.has_closed_form:
            encoder([np.full(3, len(SPECIALS), np.int32)], samples)


def _decode(model, config: Config) -> None:
    from mindspore_cvae.generation import SentenceDecoder

    words = WIDTH - 1
    decoder = SentenceDecoder(model.decoder, ROWS)
    for way in (
        Decoding(method="greedy", max_words=words),
        Decoding(method="sample", max_words=words),
        Decoding(method="sample", max_words=words, top_k=8),
        Decoding(method="sample", max_words=words, top_p=0.9),
        Decoding(method="beam", max_words=words, beam_size=4),
    ):
        decoder(np.zeros((1, config.model.latent_size), np.float32), way)


PARTS: tuple[tuple[str, Callable, Callable[[System], object]], ...] = (
    ("training", _train, lambda slots: replace(slots, beta="constant", beta_max=1.0)),
    (
        "evaluation",
        _evaluate,
        lambda slots: (slots.posterior, slots.divergence, slots.refinement_steps),
    ),
    ("decoding", _encode, lambda slots: (slots.posterior, slots.refinement_steps)),
    ("decoding", _decode, lambda slots: slots.posterior == "none"),
)
"""Stage, what calls its graphs, and what of a system they depend on."""


def traces(systems: Iterable[str], device: str, amp_level: str = "O0") -> list[Graph]:
    """The graphs of systems as a device would be given them. What is the same for several systems
    is compiled once.

    Args:
        systems: Rows of the table.
        device: CPU, GPU or Ascend; it need not be there.
        amp_level: O0, or O2 for mixed precision.
    """
    import mindspore

    mindspore.set_context(mode=mindspore.GRAPH_MODE, device_target="CPU")
    made: dict[tuple, list[Graph]] = {}
    graphs = []
    for system in systems:
        print(f"{device}: {system}", file=sys.stderr, flush=True)
        with pretended(device):
            model, config = _model(system, amp_level)
            for stage, call, part_of in PARTS:
                key = (call, part_of(SYSTEMS[system]))
                if key not in made:
                    with Recorder(stage) as recorder:
                        call(model, config)
                    made[key] = recorder.graphs
                graphs += [replace(graph, system=system) for graph in made[key]]
    return graphs


def verdicts(graphs: Sequence[Graph], device: str) -> list[Verdict]:
    """What MindSpore says of every primitive of the graphs, in alphabetical order."""
    places: dict[str, set[tuple[str, str]]] = {}
    for graph in graphs:
        for node in graph.nodes:
            places.setdefault(node.primitive, set()).add((graph.stage, graph.system))
    rows = []
    for primitive, where in sorted(places.items()):
        said = statement(primitive)
        if said.platforms is None:
            verdict = NOT_STATED
        else:
            verdict = STATED if device in said.platforms else MISSING
        stages = tuple(stage for stage in STAGES if any(stage == item[0] for item in where))
        systems = tuple(name for name in SYSTEMS if any(name == item[1] for item in where))
        rows.append(Verdict(device, primitive, verdict, said, stages, systems))
    return rows


def findings(graphs: Sequence[Graph], device: str, amp_level: str = "O0") -> list[Finding]:
    """What else is to be said of the graphs: shapes, host callbacks, types, sizes."""
    is_half = partial(_is_half, amp_level=amp_level)
    found = [
        *_named(graphs, device, "static shapes", True, _is_dynamic, "a shape is not known before"),
        *_named(graphs, device, "host callback", True, lambda node: node.primitive in HOST, "in"),
    ]
    if device != "CPU":
        found += _named(graphs, device, "float16", True, is_half, "computes in float16")
    if device == "Ascend":
        found += [
            *_named(graphs, device, "float64", True, _has(FLOAT64), "computes in float64"),
            *_named(graphs, device, "LSTM in float16", True, _is_full, "is not given float16"),
            *_named(graphs, device, f"multiples of {UNIT}", False, _is_odd, "has another size"),
        ]
    return found


def _named(graphs, device: str, check: str, is_missing: bool, is_so, what: str) -> list[Finding]:
    """A finding for every primitive and stage of which a condition is true."""
    found: dict[tuple[str, str], set[str]] = {}
    for graph in graphs:
        for node in filter(is_so, graph.nodes):
            found.setdefault((graph.stage, node.primitive), set()).add(graph.cell)
    return [
        Finding(
            device, check, is_missing, f"{stage}: {primitive} {what} ({', '.join(sorted(cells))})"
        )
        for (stage, primitive), cells in sorted(found.items())
    ]


def _is_dynamic(node: Node) -> bool:
    return any(size < 0 for item in (*node.inputs, *node.outputs) for size in item.shape)


def _has(kind: int):
    return lambda node: any(item.kind == kind for item in (*node.inputs, *node.outputs))


def _is_half(node: Node, amp_level: str) -> bool:
    """Whether a node computes in float16 that should not."""
    allowed = MOVING | RECURRENT
    if amp_level == "O2":
        allowed |= LSTMS | (PRODUCTS if _is_of_logits(node) else set())
    return _has(FLOAT16)(node) and node.primitive not in allowed


def _is_of_logits(node: Node) -> bool:
    return any(LOGITS & set(item.shape) for item in (*node.inputs, *node.outputs))


def _is_full(node: Node) -> bool:
    return node.primitive in RECURRENT and any(
        item.kind in (FLOAT32, FLOAT64) for item in node.inputs
    )


def _is_odd(node: Node) -> bool:
    sizes = (size for item in node.inputs for size in item.shape[-2:] if len(item.shape) > 1)
    return node.primitive in PRODUCTS and any(size % UNIT for size in sizes if size > 1)


def odd_sizes() -> list[Finding]:
    """Sizes of the shipped configurations that are no multiples of :data:`UNIT`, but for the
    vocabularies, which are padded."""
    found = []
    for path in sorted(configuration.find(None).parent.glob("*.yaml")):
        settings = configuration.flatten(configuration.load(path))
        for key in SIZES:
            if settings[key] % UNIT:
                text = f"{path.name}: {key} is {settings[key]}"
                found.append(Finding("Ascend", f"multiples of {UNIT}", False, text))
    return found


def audit(
    systems: Iterable[str] = tuple(SYSTEMS),
    targets: Iterable[str] = DEVICES,
    amp_level: str = "O0",
) -> tuple[list[Verdict], list[Finding]]:
    """Verdicts and findings of systems on devices, none of which need be there.

    Args:
        systems: Rows of the table.
        targets: CPU, GPU, Ascend; which of them.
        amp_level: O0, or O2 for mixed precision.

    Raises:
        InputError: A system has no mixed precision, and O2 was asked for.
    """
    rows, found = [], []
    for device in targets:
        graphs = traces(systems, device, amp_level)
        rows += verdicts(graphs, device)
        found += findings(graphs, device, amp_level)
        if device == "Ascend":
            found += odd_sizes()
    return rows, found


def table(rows: Sequence[Verdict]) -> list[list[str]]:
    """Rows of text: primitive, stages, the verdict on each device (``-`` where no graph of it has
    the primitive), the platforms that MindSpore states, and where; the heading first."""
    names = [device for device in DEVICES if any(row.device == device for row in rows)]
    by_primitive: dict[str, dict[str, Verdict]] = {}
    for row in rows:
        by_primitive.setdefault(row.primitive, {})[row.device] = row
    lines = [["primitive", "in", *names, "platforms", "stated by"]]
    for primitive, verdict in sorted(by_primitive.items()):
        stages = [stage for stage in STAGES if any(stage in row.stages for row in verdict.values())]
        cells = [verdict[name].verdict if name in verdict else "-" for name in names]
        said = next(iter(verdict.values())).said
        platforms = ", ".join(said.platforms or ("-",))
        lines.append([primitive, ", ".join(stages), *cells, platforms, said.source or "-"])
    return lines


LIMITS = (
    "This proves nothing about what is not stated; nor that what is stated works for these types "
    "and shapes, in this version of a driver, or fast enough; nor what a device's own compiler "
    "makes of the graphs after the front end; nor any number. Operators that Python calls between "
    "the graphs are not in it."
)


def audit_main(argv: Sequence[str] | None = None) -> int:
    """The command ``audit``.

    Args:
        argv: Its arguments; None takes the process's.

    Returns:
        The exit code: 0 if nothing is known to be missing, 1 if something is, 2 bad input.
    """
    return run_command(lambda: _audit(argv))


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m mindspore_cvae.audit",
        description="What MindSpore states of every operator that the systems' graphs need.",
        allow_abbrev=False,
    )
    parser.add_argument("--device", choices=DEVICES, help="(all three)")
    parser.add_argument(
        "--system", nargs="+", choices=tuple(SYSTEMS), metavar="NAME", help="rows (all)"
    )
    parser.add_argument(
        "--amp_level", choices=("O0", "O2"), default="O0", help="mixed precision (O0)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--markdown", action="store_true", help="the table as Markdown")
    return parser


def _audit(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    devices.apply_precision("strict")
    targets = [arguments.device] if arguments.device else DEVICES
    named = arguments.system or [
        name
        for name, row in SYSTEMS.items()
        if arguments.amp_level == "O0" or row.step in configuration.SCALED_STEPS
    ]
    rows, found = audit(named, targets, arguments.amp_level)
    missing = [row for row in rows if row.verdict == MISSING]
    is_missing = bool(missing) or any(finding.is_missing for finding in found)
    if arguments.json:
        content = {
            "missing": is_missing,
            "primitives": [asdict(row) for row in rows],
            "findings": [asdict(finding) for finding in found],
            "limits": LIMITS,
        }
        print(json.dumps(content, indent=1))
        return int(is_missing)
    print("\n".join(_markdown(table(rows)) if arguments.markdown else _aligned(table(rows))))
    print()
    for finding in found:
        state = MISSING if finding.is_missing else "costs"
        print(f"{state}: {finding.device}, {finding.check}: {finding.text}")
    for device in targets:
        counts = [
            f"{sum(row.verdict == verdict for row in rows if row.device == device)} {verdict}"
            for verdict in (STATED, NOT_STATED, MISSING)
        ]
        print(f"{device}: {', '.join(counts)}")
    print(LIMITS)
    return int(is_missing)


def _markdown(lines: list[list[str]]) -> list[str]:
    heading, *rest = (f"| {' | '.join(cells)} |" for cells in lines)
    return [heading, "|" + "---|" * len(lines[0]), *rest]


def _aligned(lines: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in lines
    ]


if __name__ == "__main__":
    sys.exit(audit_main())
