"""Which operators the graphs of every system need, and what MindSpore says of them on each device.

``python -m mindspore_cvae audit [--device CPU|GPU|Ascend] [--system NAME ...] [--amp_level O0|O2]
[--json]``; the exit code is 0 if nothing is known to be missing.

The graphs of training, evaluation and decoding are those that the package's own code calls, at
tiny sizes. Each is compiled by MindSpore's front end as for an export, and nothing is computed. To
see what Ascend would be given, the code that builds networks is told that the device is Ascend:
``nn.LSTM`` then takes DynamicRNN. What MindSpore states is read from the docstrings of the
installed version: the primitive's own, or that of the function which it refers to.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from mindspore_cvae.audit.graphs import DEVICES, FLOAT16, FLOAT32, FLOAT64, LSTMS, UNIT, Graph, Node
from mindspore_cvae.audit.traces import SIZES, STAGES, VOCABULARY, traces
from mindspore_cvae.config import keys
from mindspore_cvae.config import layers as configuration
from mindspore_cvae.systems import SYSTEMS

STATED, MISSING, NOT_STATED = "stated", "missing", "not stated"
"""What MindSpore says: the device is among the platforms that it states, it is not among them, or
no platforms are stated."""

LOGITS = {VOCABULARY, -(-VOCABULARY // UNIT) * UNIT}
"""Columns that only logits have, as they are and padded."""

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
    "PyFunc",
    "PyExecute",
    "PyInterpret",
    "CallbackImpl",
    "Custom",
    "Print",
    "Assert",
    "TensorDump",
    "ScalarSummary",
    "TensorSummary",
    "HistogramSummary",
    "ImageSummary",
}
"""Primitives that call the host's Python, or write from the middle of a graph."""

FAULTY = {"GPU": {"Eye"}}
"""Primitives of which a device's kernel gives wrong values. MindSpore 2.10's Eye for GPU clears its
output on another stream than the one that it, and whoever used that memory before, computes on: now
and then the matrix keeps old numbers. Seen on a real GPU as a contrast that is not finite."""

PRODUCTS = {"MatMul", "MatMulExt", "BatchMatMul", "BatchMatMulExt", "DynamicRNN"}
"""Primitives that multiply matrices."""

RECURRENT = {"DynamicRNN", "DynamicRNNGrad"}
"""What ``nn.LSTM`` becomes on Ascend: it computes in float16."""

MOVING = {
    "Load",
    "Depend",
    "UpdateState",
    "MakeTuple",
    "TupleGetItem",
    "Return",
    "Reshape",
    "Cast",
    "Transpose",
    "Concat",
    "Split",
    "SplitWithSize",
    "StridedSlice",
    "StridedSliceGrad",
    "ExpandDims",
    "Squeeze",
    "ZerosLike",
    "Zeros",
    "FillV2",
    "TensorMove",
    "Slice",
}
"""Primitives that move numbers without computing, in whatever type."""


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
        name = reference[1] if reference else ""
        for place in FUNCTIONS if name else ():
            function = getattr(importlib.import_module(place), name, None)
            platforms = stated_platforms(inspect.getdoc(function) or "")
            if function is not None and platforms is not None:
                return Statement(platforms, f"{place}.{name}")
    return Statement(None, "")


def stated_platforms(docstring: str) -> tuple[str, ...] | None:
    """The names after ``Supported Platforms:``; None where a docstring has no such line."""
    match = re.search(r"Supported Platforms:\s*\n\s*((?:``\w+``[ \t]*)+)", docstring)
    return tuple(re.findall(r"``(\w+)``", match[1])) if match else None


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
    """What else is to be said of the graphs: shapes, callbacks, faulty kernels, types, sizes."""
    is_half = partial(_is_half, amp_level=amp_level)
    faulty = FAULTY.get(device, ())
    found = [
        *_named(graphs, device, "static shapes", True, _is_dynamic, "a shape is not known before"),
        *_named(graphs, device, "host callback", True, lambda node: node.primitive in HOST, "in"),
        *_named(
            graphs,
            device,
            "kernel",
            True,
            lambda node: node.primitive in faulty,
            "has wrong values there",
        ),
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
        settings = keys.flatten(configuration.load(path))
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
        systems: rows of the table.
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
