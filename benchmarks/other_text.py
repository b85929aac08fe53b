"""Sentences of two small grammars, for text that is not words between blanks.

    python benchmarks/other_text.py chinese|german FOLDER

writes FOLDER/train.txt (2,000 sentences), valid.txt and test.txt (200 each), and prints what the
test sentences cost a reader who knows the grammar: no model can be expected to need fewer nats.
"""

from __future__ import annotations

import argparse
import collections
import math
import random
import re
from collections.abc import Mapping
from pathlib import Path

Rules = Mapping[str, tuple[str, ...]]
"""Of each symbol its expansions, all as likely, with symbols in braces."""

GRAMMARS: dict[str, Rules] = {
    "chinese": {
        "S": ("{time}，{who}{where}{does}。", "{who}{time}{does}。", "{who}说{who}{where}{does}。"),
        "time": ("今天", "昨天早上", "每个星期天", "下雨的时候", "晚饭以后"),
        "who": ("老师", "{whose}朋友", "那位医生", "两个学生", "{whose}妹妹", "邻居家的猫"),
        "whose": ("我的", "他的", "王先生的"),
        "where": ("在公园里", "在学校旁边的书店", "在河边", "在家里"),
        "does": ("看{what}", "买了{what}", "慢慢地喝茶", "等一辆公共汽车", "学习写{what}", "睡觉"),
        "what": ("一本旧书", "新的小说", "三封信", "地图", "诗"),
    },
    "german": {
        "S": (
            "{when} {verb} {who} {where}.",
            "{when} {acts} {who} {where} {object}.",
            "{who} {acts} {when} {where} {object}!",
            "weiß {who}, dass {who} {where} wohnt?",
        ),
        "when": ("heute", "am späten Abend", "jeden Dienstag", "während des Frühstücks"),
        "who": ("der Bäcker", "die müde Ärztin", "{whose} Bruder", "Frau Müller", "das Mädchen"),
        "whose": ("mein", "ihr", "unser ältester"),
        "where": ("in Köln", "auf der Straße", "hinter dem grünen Häuschen", "am Flussufer"),
        "verb": ("läuft", "schläft", "wartet"),
        "acts": ("kauft", "sucht", "findet", "verkauft"),
        "object": ("Äpfel", "eine Zeitung", "alte Bücher", "den Schlüssel"),
    },
}


def sentence(rules: Rules, symbol: str, source: random.Random) -> str:
    """One expansion of a symbol."""
    expansion = source.choice(rules[symbol])
    return re.sub(r"\{(\w+)\}", lambda match: sentence(rules, match[1], source), expansion)


def probabilities(rules: Rules, symbol: str) -> dict[str, float]:
    """Every expansion of a symbol with its probability; there must be finitely many."""
    found: dict[str, float] = collections.defaultdict(float)
    for expansion in rules[symbol]:
        beginnings = {"": 1 / len(rules[symbol])}
        # Text and symbols take turns.
        for number, part in enumerate(re.split(r"\{(\w+)\}", expansion)):
            parts = probabilities(rules, part) if number % 2 else {part: 1.0}
            longer: dict[str, float] = collections.defaultdict(float)
            for begin, chance in beginnings.items():
                for end, of_end in parts.items():
                    longer[begin + end] += chance * of_end
            beginnings = longer
        for text, chance in beginnings.items():
            found[text] += chance
    return found


def capitalised(text: str) -> str:
    """A sentence with the first letter of a sentence."""
    return text[0].upper() + text[1:]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("language", choices=GRAMMARS)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    rules, source = GRAMMARS[arguments.language], random.Random(0)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", 2000), ("valid", 200), ("test", 200)):
        texts = [sentence(rules, "S", source) for _ in range(count)]
        lines = "".join(f"{capitalised(text)}\n" for text in texts)
        (arguments.folder / f"{name}.txt").write_text(lines, encoding="utf-8")
    chances = probabilities(rules, "S")
    nats = sum(-math.log(chances[text]) for text in texts) / len(texts)
    print(f"{arguments.folder}: {nats:.2f} nats a test sentence, to who knows the grammar")


if __name__ == "__main__":
    main()
