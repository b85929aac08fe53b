"""Rooms import one way, each names its files, and commands answer before MindSpore is loaded."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mindspore_cvae

PACKAGE = Path(mindspore_cvae.__file__).parent
NAME = PACKAGE.name
TESTS = Path(__file__).resolve().parents[1]

FLOORS = (
    ("common", "systems"),
    ("errors",),
    ("devices", "config"),
    ("data", "model"),
    ("runs",),
    ("generation",),
    ("evaluation",),
    ("training",),
    ("api",),
    ("report", "export", "toy", "audit"),
    ("reproduction",),
    ("commands",),
)
"""The rooms from the ground up; a room imports from the floors below its own."""
ABOVE = {"__init__", "__main__"}
"""The package's door and its program: they hand on to any room."""

WITHOUT_MINDSPORE = (
    "errors",
    "systems",
    "training.schedules",
    "training.noise",
    "common.files",
    "common.randomness",
    "config.layers",
    "evaluation.columns",
    "data.corpus",
    "data.batches",
    "data.widths",
    "commands.options",
    "commands.program",
    "commands.train",
    "commands.evaluate",
)
"""What --help and configuration errors need, and what only works on text and arrays."""


def is_type_checking(node):
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def statements(node):
    """Every statement that runs, in functions too; not what is imported for type hints alone."""
    for child in ast.iter_child_nodes(node):
        if not is_type_checking(child):
            yield child
            yield from statements(child)


def imported_modules(path):
    """Modules of the package that a file imports: ``data.corpus``, ``errors``."""
    modules = set()
    for node in statements(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            head, *rest = name.split(".")
            # The longest beginning that is a module; what follows is a name in it.
            while head == NAME and rest and ".".join(rest) not in FILES:
                rest = rest[:-1]
            if head == NAME and rest:
                modules.add(".".join(rest))
    return modules


FILES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in PACKAGE.rglob("*.py")
}
IMPORTS = {module: imported_modules(path) for module, path in FILES.items()}
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def room_of(module):
    return module.partition(".")[0]


def test_the_parser_sees_imports():
    assert IMPORTS["training.building"] >= {"model.equation", "training.steps.updates"}
    assert IMPORTS["model.networks"] == {"model.objectives"}


def test_every_room_has_a_floor_and_nothing_else_is_there():
    assert {room_of(module) for module in FILES} == {*FLOOR, *ABOVE}


@pytest.mark.parametrize("room", FLOOR)
def test_a_room_imports_from_the_floors_below(room):
    against = [
        f"{module} imports {imported}"
        for module in FILES
        if room_of(module) == room
        for imported in IMPORTS[module]
        if room_of(imported) != room and FLOOR[room_of(imported)] >= FLOOR[room]
    ]
    assert not against


def test_no_module_imports_itself_through_others():
    graphlib.TopologicalSorter(IMPORTS).prepare()


@pytest.mark.parametrize("room", ["model", "training", "evaluation"])
def test_no_signature_has_more_than_seven_names(room):
    long = []
    for module, path in FILES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if room_of(module) == room and isinstance(node, ast.FunctionDef):
                given = node.args
                names = [*given.posonlyargs, *given.args, *given.kwonlyargs]
                names += [splat for splat in (given.vararg, given.kwarg) if splat]
                names = [name.arg for name in names if name.arg not in ("self", "cls")]
                if len(names) > 7:
                    long.append(f"{module}.{node.name}: {', '.join(names)}")
    assert not long


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES.values()} - {PACKAGE}))
def test_a_room_says_what_its_files_are_and_holds_nothing_else(folder):
    (docstring,) = ast.parse((folder / "__init__.py").read_text(encoding="utf-8")).body
    if folder.name == "commands":
        return
    words = set(re.findall(r"\w+", docstring.value.value))
    inside = {path.stem for path in folder.iterdir() if path.suffix == ".py"}
    inside |= {path.parent.name for path in folder.glob("*/__init__.py")}
    assert inside - {"__init__"} <= words


TESTED_IN = {
    "common.files": "runs/test_outputs.py whole/test_inputs.py",
    "common.randomness": "training/test_noise.py",
    "config.contradictions": "config/test_layers.py",
    "config.keys": "config/test_layers.py",
    "config.options": "config/test_layers.py",
    "data.labels": "data/test_corpus.py evaluation/test_probe.py test_api.py",
    "data.newswire": "data/test_grammar.py",
    "data.text": "data/test_corpus.py",
    "devices.launcher": "devices/test_doctor.py",
    "devices.parallel": "whole/test_parallel.py",
    "errors": "commands/test_train.py",
    "evaluation.estimators": "evaluation/test_metrics.py",
    "evaluation.proposals": "evaluation/test_importance.py",
    "evaluation.scoring": "evaluation/test_metrics.py",
    "generation.encoding": "test_api.py",
    "generation.ways": "generation/test_decoding.py",
    "model.building": "model/test_networks.py",
    "model.equation": "training/test_steps.py",
    "model.inference": "model/test_refinement.py",
    "report.page": "report/test_sections.py",
    "report.specimens": "report/test_sections.py",
    "reproduction.collecting": "reproduction/test_running.py",
    "reproduction.jobs": "reproduction/test_running.py",
    "reproduction.markdown": "reproduction/test_running.py",
    "reproduction.paper": "reproduction/test_running.py",
    "reproduction.pictures": "reproduction/test_running.py",
    "reproduction.stages": "reproduction/test_running.py",
    "runs.loading": "test_api.py",
    "runs.lock": "runs/test_folder.py",
    "toy.pictures": "toy/test_experiment.py",
    "toy.systems": "toy/test_experiment.py",
    "toy.training": "toy/test_experiment.py",
    "training.building": "test_systems.py",
    "training.steps.critics": "training/test_steps.py",
    "training.steps.joint": "training/test_steps.py",
    "training.steps.semi_amortized": "model/test_refinement.py",
    "training.steps.updates": "training/test_steps.py",
    "audit.graphs": "audit/test_verdicts.py",
    "audit.traces": "audit/test_verdicts.py",
    "commands.audit": "audit/test_verdicts.py",
    "commands.build_kenlm": "evaluation/test_kenlm_building.py",
    "commands.columns": "evaluation/test_columns.py",
    "commands.compare": "report/test_comparison.py",
    "commands.config": "commands/test_program.py",
    "commands.convert": "export/test_state_dicts.py",
    "commands.data": "data/test_corpus.py",
    "commands.doctor": "devices/test_doctor.py",
    "commands.evaluate": "commands/test_train.py",
    "commands.export": "export/test_graphs.py",
    "commands.get_data": "data/test_published.py",
    "commands.grammar": "data/test_grammar.py",
    "commands.launcher": "devices/test_doctor.py",
    "commands.ngram": "evaluation/test_ngram.py",
    "commands.options": "commands/test_train.py",
    "commands.probe": "evaluation/test_probe.py",
    "commands.ranks": "devices/test_ranks.py",
    "commands.report": "report/test_sections.py",
    "commands.reproduce": "reproduction/test_running.py",
    "commands.systems": "commands/test_program.py",
    "commands.toy": "toy/test_experiment.py",
}
"""Where a module is tested that has no test file of its name in its room of the tests."""


def test_every_module_has_its_tests():
    def own(module):
        room, _, name = module.rpartition(".")
        return (TESTS / room.split(".")[0] / f"test_{name}.py").exists()

    modules = {module for module in FILES if not module.endswith("__")}
    assert {module for module in modules if not own(module)} == TESTED_IN.keys()
    assert all((TESTS / file).exists() for line in TESTED_IN.values() for file in line.split())


def test_tests_lie_in_the_rooms_of_what_they_test():
    rooms = {path.parent.name for path in FILES.values()} - {NAME, "steps"}
    there = {path.parent.name for path in TESTS.glob("*/test_*.py")}
    assert there <= rooms | {"whole"}
    assert not [path.name for path in (TESTS / "support").glob("test_*")]


def test_commands_answer_before_mindspore_is_loaded():
    imports = "\n".join(f"import {NAME}.{module}" for module in WITHOUT_MINDSPORE)
    check = f"import sys\n{imports}\nprint(sorted(m for m in sys.modules if m == 'mindspore'))"
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=PACKAGE.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
