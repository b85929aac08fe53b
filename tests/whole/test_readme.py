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


CHINESE = (ROOT / "README_CN.md").read_text(encoding="utf-8")
NAMES = {"README.md", "README_CN.md"}


def code_of(page):
    """Indented lines, as they are."""
    return [line for line in page.splitlines() if line.startswith("    ")]


def tables_of(page):
    """Of every row of a table, how many cells it has and what stands in it as code."""
    rows = [line for line in page.splitlines() if line.startswith("|")]
    return [(row.replace("\\|", "").count("|"), re.findall("`([^`]+)`", row)) for row in rows]


def test_the_chinese_page_has_the_same_sections_commands_tables_and_links():
    assert [re.match("#*", line).group() for line in README.splitlines() if line[:1] == "#"] == [
        re.match("#*", line).group() for line in CHINESE.splitlines() if line[:1] == "#"
    ]
    assert code_of(CHINESE) == code_of(README)
    assert tables_of(CHINESE) == tables_of(README)
    links = [set(re.findall(r"\]\(([^)]+)\)", page)) - NAMES for page in (README, CHINESE)]
    assert links[0] == links[1]
    assert "](README_CN.md)" in README and "](README.md)" in CHINESE


def test_the_chinese_page_has_the_same_numbers_and_code():
    for pattern in (r"\d+\.\d+", r"`([^`]+)`"):
        pages = (" ".join(page.split()) for page in (README, CHINESE))
        found = [sorted(re.findall(pattern, page)) for page in pages]
        assert found[0] == found[1]
