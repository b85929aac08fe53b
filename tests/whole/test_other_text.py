"""Text that is not words between blanks, from the file to the page: Chinese and German of small
grammars, by the commands that docs/use/own-data.md shows."""

import json
import math
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mindspore_cvae.commands import program
from mindspore_cvae.commands.export import export_main
from mindspore_cvae.data.units import BLANK, CHARACTERS, PIECES, Pieces

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "use" / "own-data.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("### Text that is not words between blanks")[2].partition("\n## ")[0]


def commands():
    """Those of the section, each without ``python``."""
    block = "\n".join(re.findall(r"^ {4}(.*)$", SECTION, re.M)).replace("\\\n", " ")
    return [shlex.split(line, comments=True)[1:] for line in block.splitlines()]


@pytest.fixture
def other_text(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import other_text

    yield other_text
    sys.modules.pop("other_text", None)


def chance(rules, text, symbol="S"):
    """Of a text, by its ways to be read from the left: no expansion is written down."""

    def ends(parts, start):
        """Where a part of an expansion may end, with the probability of what was read."""
        if not parts:
            return {start: 1.0}
        found = {}
        symbol, *rest = parts
        if symbol in rules:
            first = {}
            for expansion in rules[symbol]:
                inner = [part for part in re.split(r"[{}]", expansion) if part]
                for end, value in ends(inner, start).items():
                    first[end] = first.get(end, 0.0) + value / len(rules[symbol])
        else:
            first = {start + len(symbol): 1.0} if text.startswith(symbol, start) else {}
        for middle, value in first.items():
            for end, further in ends(rest, middle).items():
                found[end] = found.get(end, 0.0) + value * further
        return found

    return ends([symbol], 0).get(len(text), 0.0)


@pytest.mark.parametrize("language", ["chinese", "german"])
def test_the_sentences_are_the_grammar_s(tmp_path, capsys, monkeypatch, other_text, language):
    rules = other_text.GRAMMARS[language]
    assert sum(other_text.probabilities(rules, "S").values()) == pytest.approx(1)
    monkeypatch.setattr(sys, "argv", ["other_text.py", language, str(tmp_path)])
    other_text.main()
    lines = {
        name: (tmp_path / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        for name in ("train", "valid", "test")
    }
    assert [len(texts) for texts in lines.values()] == [2000, 200, 200]
    nats = [-math.log(chance(rules, uncapitalised(text, rules))) for text in lines["test"]]
    assert f": {sum(nats) / 200:.2f} nats a test sentence" in capsys.readouterr().out
    text = "".join(lines["train"])
    if language == "chinese":
        assert text.split() == [text] and "\N{IDEOGRAPHIC FULL STOP}" in text
    else:
        assert set("\u00e4\u00f6\u00fc\u00df\u00c4M?!., ") <= set(text)


def uncapitalised(text, rules):
    """As the grammar has it, or as it is where the grammar has that."""
    return text if chance(rules, text) else text[0].lower() + text[1:]


def test_the_first_command_of_the_section(tmp_path, monkeypatch):
    """Which trains as every other would; its text is read by characters."""
    monkeypatch.chdir(tmp_path)
    Path("mydata").mkdir()
    for name in ("train", "valid", "test"):
        Path("mydata", f"{name}.txt").write_text("Gr\u00fc\u00dfe aus K\u00f6ln!\n" * 3)
    trained = []
    monkeypatch.setattr(
        "mindspore_cvae.training.trainer.train",
        lambda config, *arguments, corpus, **options: trained.append((config, corpus)) or "epochs",
    )
    monkeypatch.setattr("mindspore_cvae.report.sections.write_report_or_warn", lambda folder: True)
    script, *arguments = commands()[0]
    assert script == "train.py" and program.main(["train", *arguments]) == 0
    ((config, corpus),) = trained
    assert corpus.vocabulary.units is CHARACTERS and config.data.max_words == 200
    assert corpus.vocabulary.decode(corpus.train.sentences[0]) == "Gr\u00fc\u00dfe aus K\u00f6ln!"


@pytest.mark.slow
@pytest.mark.parametrize("language, unit", [("chinese", "character"), ("german", "sentencepiece")])
def test_the_commands_of_the_section(tmp_path, monkeypatch, capsys, other_text, language, unit):
    monkeypatch.chdir(tmp_path)
    _, write, *others = commands()
    script = [str(ROOT / write[0]), *(part.replace("chinese", language) for part in write[1:])]
    subprocess.run([sys.executable, *script], check=True)
    run = Path("RUN")
    for script, *arguments in others:
        arguments = [
            part.replace("chinese", language).replace("character", unit) for part in arguments
        ]
        capsys.readouterr()
        assert program.main([Path(script).stem, *arguments]) == 0
    rules = other_text.GRAMMARS[language]
    samples = capsys.readouterr().out.splitlines()
    assert len(samples) == 4 and not any(BLANK in text for text in samples)
    assert sum(chance(rules, uncapitalised(text, rules)) > 0 for text in samples) >= 2

    metrics = json.loads((run / "metrics-test.json").read_text())
    texts = Path(language, "test.txt").read_text(encoding="utf-8").splitlines()
    true = sum(-math.log(chance(rules, uncapitalised(text, rules))) for text in texts) / 200
    assert true - 0.2 < metrics["iw_nll"] < true + 2
    characters = sum(len(text) + 1 for text in texts) / 200
    assert metrics["iw_ppl_character"] == pytest.approx(math.exp(metrics["iw_nll"] / characters))
    words = sum(len(text.split()) + 1 for text in texts) / 200
    per_word = math.exp(metrics["iw_nll"] / words)
    assert metrics["iw_ppl_word"] == (pytest.approx(per_word) if language == "german" else None)
    assert BLANK not in (run / "report.html").read_text(encoding="utf-8")

    assert program.main(["generate", "nearest", "--run", "RUN", texts[0]]) == 0
    near = capsys.readouterr().out
    train = Path(language, "train.txt").read_text(encoding="utf-8").splitlines()
    assert BLANK not in near and any(text in near for text in train)
    assert export_main(["--run", "RUN"]) == 0
    # Text and units are those that the checkpoint was written with.
    resume = ["train", "--output_dir", "RUN", "--resume"]
    assert program.main(resume) == 0
    if unit == "sentencepiece":
        assert (run / "export" / PIECES).read_bytes() == (run / PIECES).read_bytes()
        (run / PIECES).write_bytes(Pieces.learned(texts, 150).content)
        capsys.readouterr()
        assert program.main(resume) == 2
        assert "was written with another vocabulary" in capsys.readouterr().err
