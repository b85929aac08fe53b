"""What a code host reads: the citation, the automatic tests, the forms for issues."""

import re
from pathlib import Path

import pytest
import yaml

from mindspore_cvae import __version__

ROOT = Path(__file__).resolve().parents[2]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def read(path):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_the_citation_is_of_this_version_and_of_the_readmes_paper():
    citation = read("CITATION.cff")
    assert citation.keys() >= {"cff-version", "title", "message", "authors"}
    assert citation["cff-version"] == "1.2.0" and citation["version"] == __version__
    entry = dict(re.findall(r"^      (\w+) += \{(.*)\}", (ROOT / "README.md").read_text(), re.M))
    paper = citation["preferred-citation"]
    assert paper["title"] == entry["title"] and str(paper["year"]) == entry["year"]
    assert paper["collection-title"] == entry["booktitle"]
    names = [f"{author['family-names']}, {author['given-names']}" for author in paper["authors"]]
    assert " and ".join(names) == entry["author"]


def test_the_workflow_runs_what_is_there():
    workflow = read(".github/workflows/ci.yml")
    # YAML 1.1 reads the word `on` as true.
    assert workflow.keys() == {"name", True, "jobs"}
    commands = [
        step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step
    ]
    assert "bash scripts/test.sh" in commands
    for script in re.findall(r"bash (\S+)", "\n".join(commands)):
        assert (ROOT / script).is_file()
    assert workflow["jobs"]["tests"]["strategy"]["matrix"]["python"] == ["3.10", "3.12"]
    assert any("pip wheel" in command for command in commands)
    tests = (ROOT / "scripts" / "test.sh").read_text()
    assert all(tool in tests for tool in ("ruff check", "ruff format --check", "mypy", "pytest"))


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_asks_something(path):
    form = read(path)
    assert form["name"] and form["description"]
    fields = [field["id"] for field in form["body"]]
    assert len(fields) == len(set(fields)) > 0
    assert any(field.get("validations", {}).get("required") for field in form["body"])


def test_a_report_of_a_fault_has_the_machine():
    text = (ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text()
    assert "mindspore-cvae doctor" in text and "mindspore-cvae --version" in text
