"""Sentences of two small grammars, for text that is not words between blanks.

    python benchmarks/other_text.py chinese|german FOLDER

writes FOLDER/train.txt (2,000 sentences), valid.txt and test.txt (200 each).
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

GRAMMARS = {
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
            "{time} {does} {who} {where}.",
            "{who} {does} {time} {where}!",
            "Weiß {who}, dass {who} {where} wohnt?",
        ),
        "time": ("Heute", "Am späten Abend", "Jeden Dienstag", "Während des Frühstücks"),
        "who": ("der Bäcker", "die müde Ärztin", "{whose} Bruder", "Frau Müller", "das Mädchen"),
        "whose": ("mein", "ihr", "unser ältester"),
        "where": ("in Köln", "auf der Straße", "hinter dem grünen Häuschen", "am Flussufer"),
        "does": ("läuft", "kauft Äpfel", "hört Musik", "öffnet die Tür", "liest eine Zeitung"),
    },
}
"""Rules: of each symbol its expansions, all as likely, with symbols in braces."""


def sentence(rules: dict[str, tuple[str, ...]], symbol: str, source: random.Random) -> str:
    """One expansion of a symbol."""
    text = source.choice(rules[symbol])
    while "{" in text:
        before, _, rest = text.partition("{")
        inner, _, after = rest.partition("}")
        text = before + sentence(rules, inner, source) + after
    return text


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("language", choices=GRAMMARS)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    source = random.Random(0)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", 2000), ("valid", 200), ("test", 200)):
        texts = (sentence(GRAMMARS[arguments.language], "S", source) for _ in range(count))
        lines = (text[0].upper() + text[1:] + "\n" for text in texts)
        (arguments.folder / f"{name}.txt").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
