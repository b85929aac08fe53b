"""The audit of operators: what it reads, what it finds, and that its table is up to date."""

from __future__ import annotations

import json
import re
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from mindspore_cvae.audit import graphs as audit_graphs
from mindspore_cvae.audit import traces
from mindspore_cvae.audit import verdicts as audit_verdicts
from mindspore_cvae.audit.graphs import Graph, Node, Recorder, Type
from mindspore_cvae.commands import audit
from mindspore_cvae.model.contrasts import InfoNCE
from mindspore_cvae.systems import SYSTEMS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "machines" / "audit.md"
HALVES, SINGLES = Type(10, (16, 16)), Type(1, (16, 16))


def graph(*nodes):
    return Graph("vae", "training", "Cell", nodes)


@pytest.mark.parametrize(
    "primitive, platforms, source",
    [
        ("LSTM", ("GPU", "CPU"), "mindspore.ops.operations.LSTM"),
        ("DynamicRNN", ("Ascend",), "mindspore.ops.operations.DynamicRNN"),
        ("Exp", ("Ascend", "GPU", "CPU"), "mindspore.ops.exp"),
        ("SumExt", ("Ascend", "GPU", "CPU"), "mindspore.ops.auto_generate.sum_ext"),
        ("DynamicRNNGrad", None, ""),
        ("TupleGetItem", None, ""),
        ("NoSuchPrimitive", None, ""),
    ],
)
def test_statements_are_those_of_the_docstrings(primitive, platforms, source):
    said = audit_verdicts.statement(primitive)
    assert (said.platforms, said.source) == (platforms, source)


def test_platforms_of_a_docstring():
    text = "Something.\n\nSupported Platforms:\n    ``Ascend`` ``CPU``\n\nExamples:\n    ``GPU``"
    assert audit_verdicts.stated_platforms(text) == ("Ascend", "CPU")
    assert audit_verdicts.stated_platforms("Supported Platforms:\n    deprecated") is None
    assert audit_verdicts.stated_platforms("") is None


def recorded(device, cell, *inputs):
    """The one graph of a cell as a device is given it, and what its call returns."""
    ms.set_context(mode=ms.GRAPH_MODE)
    with audit_graphs.pretended(device), Recorder("training") as recorder:
        outputs = cell()(*map(Tensor, inputs))
    (made,) = recorder.graphs
    return made, outputs


class Recurrent(nn.Cell):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(16, 32)

    def construct(self, x):
        states, (hidden, _) = self.lstm(x)
        return states, hidden


SENTENCES = np.ones((4, 16, 16), np.float32)


def test_on_ascend_an_lstm_is_another_kernel_in_half_precision():
    made, (states, hidden) = recorded("Ascend", Recurrent, SENTENCES)
    primitives = [node.primitive for node in made.nodes]
    assert "DynamicRNN" in primitives and "LSTM" not in primitives
    (kernel,) = [node for node in made.nodes if node.primitive == "DynamicRNN"]
    assert {item.kind for item in kernel.inputs if item.kind in (1, 10)} == {10}
    assert kernel.outputs[0].shape == (4, 16, 32)
    # What is not computed has the shapes and types that it would have.
    assert (states.shape, hidden.shape) == ((4, 16, 32), (1, 16, 32))
    assert states.dtype == ms.float32
    assert audit_verdicts.findings([made], "Ascend") == []
    assert "missing" not in {row.verdict for row in audit_verdicts.verdicts([made], "Ascend")}


def test_a_graph_of_the_cpu_is_not_fit_for_ascend():
    made, _ = recorded("CPU", Recurrent, SENTENCES)
    verdicts = {
        device: {row.primitive: row.verdict for row in audit_verdicts.verdicts([made], device)}
        for device in audit_graphs.DEVICES
    }
    assert [verdicts[device]["LSTM"] for device in audit_graphs.DEVICES] == [
        "stated",
        "stated",
        "missing",
    ]


class Loop(nn.Cell):
    def construct(self, x):
        count = Tensor(0, ms.int32)
        while count < 3:
            x = ops.erf(x)
            count = count + 1
        return ops.exp(x.astype(ms.float16)), x.astype(ms.float64) * 2


def test_what_a_loop_computes_and_in_which_type_is_found():
    made, _ = recorded("Ascend", Loop, np.ones((2, 3), np.float32))
    assert {"Erf", "Exp", "Muls"} <= {node.primitive for node in made.nodes}
    found = {
        (finding.check, finding.text.split()[1])
        for finding in audit_verdicts.findings([made], "Ascend")
    }
    assert ("float16", "Exp") in found
    assert {check for check, _ in found} == {"float16", "float64"}
    assert ("float16", "Erf") not in found


class Printing(nn.Cell):
    def construct(self, x):
        ops.print_(x)
        return x + 1


def test_a_callback_to_the_host_is_found():
    made, _ = recorded("CPU", Printing, np.ones(3, np.float32))
    (finding,) = audit_verdicts.findings([made], "CPU")
    assert finding.check == "host callback" and finding.is_missing
    assert "Print" in finding.text and "Printing" in finding.text


class Identity(nn.Cell):
    def construct(self, x):
        return ops.eye(x.shape[0], x.shape[0], x.dtype) * x


def test_a_faulty_kernel_is_found_where_it_is_faulty():
    for device, expected in (("CPU", []), ("GPU", [("kernel", True)])):
        made, _ = recorded(device, Identity, np.ones((3, 3), np.float32))
        found = audit_verdicts.findings([made], device)
        assert [(item.check, item.is_missing) for item in found] == expected


class OfCodes(nn.Cell):
    def __init__(self):
        super().__init__()
        self.contrast = InfoNCE(SYSTEMS["cvae_plus_mi"])

    def construct(self, z, weight):
        return self.contrast(z, z, None, weight)


def test_the_contrast_needs_no_faulty_kernel():
    """Its mask came from one: on a GPU the contrast was not a number after a few steps."""
    made, _ = recorded("GPU", OfCodes, np.ones((6, 4), np.float32), np.ones(3, np.float32))
    assert "Mul" in {node.primitive for node in made.nodes}
    assert audit_verdicts.findings([made], "GPU") == []


@pytest.mark.parametrize(
    "node, check, is_missing",
    [
        (Node("Exp", (Type(1, (-1, 16)),), (SINGLES,)), "static shapes", True),
        (Node("Exp", (SINGLES,), (Type(1, (16, -1)),)), "static shapes", True),
        (Node("DynamicRNN", (HALVES, SINGLES), (HALVES,)), "LSTM in float16", True),
        (Node("LogSoftmax", (HALVES,), (HALVES,)), "float16", True),
        (Node("MatMul", (Type(1, (16, 17)), SINGLES), ()), "multiples of 16", False),
        (Node("MatMul", (Type(1, (1, 16)), SINGLES), ()), None, None),
        (Node("Reshape", (HALVES,), (HALVES,)), None, None),
        (Node("DynamicRNN", (HALVES, HALVES), (HALVES,)), None, None),
    ],
)
def test_findings_of_a_node(node, check, is_missing):
    found = [
        (item.check, item.is_missing) for item in audit_verdicts.findings([graph(node)], "Ascend")
    ]
    assert found == ([] if check is None else [(check, is_missing)])


@pytest.mark.parametrize(
    "primitive, columns, level, is_found",
    [
        ("MatMul", 96, "O0", True),
        ("MatMul", 96, "O2", False),
        ("MatMul", 48, "O2", True),
        ("LogSoftmax", 96, "O2", True),
        ("LSTM", 48, "O0", True),
        ("LSTMGradData", 48, "O2", False),
    ],
)
def test_mixed_precision_is_for_lstms_and_logits_alone(primitive, columns, level, is_found):
    node = Node(primitive, (HALVES, Type(10, (16, columns))), ())
    for device in ("GPU", "Ascend"):
        found = audit_verdicts.findings([graph(node)], device, level)
        assert ["float16"] * is_found == [item.check for item in found]


@pytest.mark.parametrize(
    "nodes, code",
    [
        ([Node("Exp", (SINGLES,), (SINGLES,))], 0),
        ([Node("DynamicRNNGrad", (HALVES,), (HALVES,))], 0),
        ([Node("LSTM", (SINGLES,), (SINGLES,))], 1),
        ([Node("PyFunc", (SINGLES,), (SINGLES,))], 1),
    ],
)
def test_the_exit_code_is_what_is_known_to_be_missing(nodes, code, monkeypatch, capsys):
    monkeypatch.setattr(audit_verdicts, "traces", lambda systems, device, level: [graph(*nodes)])
    assert audit.audit_main(["--device", "Ascend", "--json"]) == code
    content = json.loads(capsys.readouterr().out)
    assert content["missing"] is bool(code)
    assert audit.audit_main(["--device", "Ascend"]) == code
    printed = capsys.readouterr().out
    assert printed.startswith("primitive") and audit_verdicts.LIMITS in printed
    if nodes[0].primitive == "DynamicRNNGrad":
        assert re.search(r"DynamicRNNGrad +training +not stated", printed)
        assert "Ascend: 0 stated, 1 not stated, 0 missing" in printed


def test_bad_commands_are_one_line(capsys):
    assert audit.audit_main(["--device", "TPU"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_shipped_configurations_have_no_odd_sizes(monkeypatch):
    assert audit_verdicts.odd_sizes() == []
    monkeypatch.setattr(audit_verdicts, "UNIT", 24)
    texts = [finding.text for finding in audit_verdicts.odd_sizes()]
    assert "ptb.yaml: model.hidden_size is 256" in texts


def page_verdicts(device):
    """Verdict by primitive, as the table of the page has it."""
    rows = re.findall(r"^\| (.*) \|$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    cells = [row.split(" | ") for row in rows]
    heading = next(row for row in cells if row[0] == "primitive")
    table = [dict(zip(heading, row, strict=True)) for row in cells if len(row) == len(heading)]
    return {row["primitive"]: row[device] for row in table if row[device] not in ("-", device)}


@pytest.mark.skipif(not ms.__version__.startswith("2.10."), reason="the page is of MindSpore 2.10")
@pytest.mark.parametrize("device", ["GPU", "Ascend"])
def test_the_page_has_the_verdicts_of_a_training_step(device):
    ms.set_context(mode=ms.GRAPH_MODE)
    with audit_graphs.pretended(device), Recorder("training") as recorder:
        traces._train(*traces._model("ae"))
    rows = audit_verdicts.verdicts(recorder.graphs, device)
    assert len(rows) > 20
    assert (
        traces.VOCABULARY % audit_graphs.UNIT
        and audit_verdicts.findings(recorder.graphs, device) == []
    )
    assert {row.primitive: row.verdict for row in rows}.items() <= page_verdicts(device).items()


@pytest.mark.slow
@pytest.mark.parametrize("device", audit_graphs.DEVICES)
def test_nothing_is_known_to_be_missing_and_the_page_says_what_is_stated(device):
    rows, found = audit_verdicts.audit(SYSTEMS, [device])
    assert {row.primitive: row.verdict for row in rows} == page_verdicts(device)
    assert {row.verdict for row in rows} == {audit_verdicts.STATED, audit_verdicts.NOT_STATED}
    assert not [finding for finding in found if finding.is_missing]
    assert {stage for row in rows for stage in row.stages} == set(traces.STAGES)
    everywhere = {name for row in rows for name in row.systems}
    assert everywhere == set(SYSTEMS)


@pytest.mark.slow
@pytest.mark.parametrize("device", ["GPU", "Ascend"])
def test_nothing_but_lstms_and_logits_is_in_half_precision(device):
    ms.set_context(mode=ms.GRAPH_MODE)
    graphs = traces.traces(["cvae_plus_mi"], device, "O2")
    assert not [item for item in audit_verdicts.findings(graphs, device, "O2") if item.is_missing]
    assert {item.check for item in audit_verdicts.findings(graphs, device, "O0")} >= {"float16"}
    assert audit_verdicts.MISSING not in {
        row.verdict for row in audit_verdicts.verdicts(graphs, device)
    }


@pytest.mark.parametrize(
    "device, gradients", [("CPU", {"LSTMGrad"}), ("GPU", {"LSTMGradData", "LSTMGradWeight"})]
)
def test_an_lstm_has_the_gradient_of_its_device(device, gradients):
    assert gradients == {name for name in page_verdicts(device) if name.startswith("LSTMGrad")}
