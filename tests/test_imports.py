"""Imports point one way, and commands answer before MindSpore is loaded."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import mindspore_cvae

PACKAGE = Path(mindspore_cvae.__file__).parent
NAME = PACKAGE.name

ARROWS = {
    "errors": set(),
    "systems": set(),
    "schedules": set(),
    "files": set(),
    "config": {"errors", "files", "systems"},
    "devices": {"errors"},
    "objectives": set(),
    "networks": {"objectives"},
    "posteriors": {"networks", "objectives"},
    "divergences": {"networks", "objectives"},
    "contrasts": {"networks", "objectives"},
    "parallel": {"devices"},
    "model": {"objectives", "parallel"},
    "refinement": {"objectives"},
    "scaling": set(),
    "steps": {"model", "objectives", "refinement", "scaling"},
    "noise": {"systems"},
    "building": {
        *("systems", "networks", "posteriors", "divergences", "contrasts", "model", "scaling"),
        *("steps", "parallel", "devices"),
    },
}
"""What each part of the core may import from the package; all else stands above the core."""

WITHOUT_MINDSPORE = (
    "errors",
    "systems",
    "schedules",
    "files",
    "config",
    "noise",
    "data",
    "options",
    "cli",
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
    """Modules of the package that a file imports, by their first name: ``data``, ``objectives``."""
    modules = set()
    for node in statements(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        parts = [name.split(".") for name in names]
        modules |= {part[1] for part in parts if part[0] == NAME and len(part) > 1}
    return {module for module in modules if module in MODULES}


def files_of(module):
    path = PACKAGE / module
    return sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


MODULES = {path.stem for path in PACKAGE.iterdir() if (path / "__init__.py").exists()} | {
    path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__"
}
IMPORTS = {
    module: set().union(*map(imported_modules, files_of(module))) - {module} for module in MODULES
}


def test_the_parser_sees_imports():
    assert IMPORTS["building"] >= {"networks", "model", "steps"}
    assert IMPORTS["networks"] == {"objectives"}


@pytest.mark.parametrize("module", ARROWS)
def test_the_core_imports_only_what_lies_below(module):
    assert IMPORTS[module] <= ARROWS[module]


def test_no_module_imports_itself_through_others():
    graphlib.TopologicalSorter(IMPORTS).prepare()


@pytest.mark.parametrize("top", ["trainer", "cli"])
def test_the_top_is_imported_by_no_part_below(top):
    below = {"data", "evaluation", "generation", "checkpoints", "runs", "devices", *ARROWS}
    assert not {module for module in below & MODULES if top in IMPORTS[module]}


def test_commands_answer_before_mindspore_is_loaded():
    imports = "\n".join(f"import {NAME}.{module}" for module in WITHOUT_MINDSPORE)
    check = f"import sys\n{imports}\nprint(sorted(m for m in sys.modules if m == 'mindspore'))"
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=PACKAGE.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
