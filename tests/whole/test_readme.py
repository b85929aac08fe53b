"""README.md keeps up with the code."""

import re
from pathlib import Path

from mindspore_cvae.systems import SYSTEMS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_table_of_systems_has_every_row():
    rows = re.findall(r"^\| `(\w+)` \|", README, flags=re.MULTILINE)
    assert rows == list(SYSTEMS)


def test_layout_has_every_room():
    layout = README.split("\n## Layout\n")[1].split("\n## ")[0]
    package, _, checkout = layout.partition("    train.py")
    there = {path.parent.name + "/" for path in ROOT.glob("mindspore_cvae/*/__init__.py")}
    there |= {path.name for path in ROOT.glob("mindspore_cvae/[a-z]*.py")}
    assert set(re.findall(r"^ {6}(\w+(?:/|\.py))", package, flags=re.MULTILINE)) == there
    scripts = {path.name for path in ROOT.glob("*.py")} - {"setup.py"}
    assert set(re.findall(r"\w+\.py", "train.py" + checkout)) == scripts


def test_links_lead_somewhere():
    for page in (ROOT / "README.md", *ROOT.rglob("docs/**/*.md")):
        for link in re.findall(r"\]\(([\w./-]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
