"""README.md keeps up with the code."""

import re
from pathlib import Path

from mindspore_cvae.systems import SYSTEMS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_table_of_systems_has_every_row():
    rows = re.findall(r"^\| `(\w+)` \|", README, flags=re.MULTILINE)
    assert rows == list(SYSTEMS)


def test_layout_has_every_file():
    layout = README.split("\n## Layout\n")[1].split("\n## ")[0]
    listed = set(re.findall(r"\b(\w+\.(?:py|sh))\b", layout))
    there = {
        path.name
        for pattern in ("*.py", "*.sh", "scripts/*.sh", "mindspore_cvae/*.py")
        for path in ROOT.glob(pattern)
    } - {"setup.py", "__init__.py"}
    assert listed == there


def test_links_lead_somewhere():
    for page in (ROOT / "README.md", *ROOT.glob("docs/*.md")):
        for link in re.findall(r"\]\(([\w./-]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
