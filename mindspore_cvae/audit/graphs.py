"""The graphs that MindSpore compiles, read back as nodes with types."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from unittest import mock

import numpy as np

from mindspore_cvae.devices import choosing

DEVICES = ("CPU", "GPU", "Ascend")

UNIT = choosing.MULTIPLES["Ascend"]
"""Ascend multiplies matrices in blocks of so many numbers."""

LSTMS = {"LSTM", "LSTMGrad", "LSTMGradData", "LSTMGradWeight"}
"""What it becomes elsewhere: in mixed precision it computes in float16."""

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
