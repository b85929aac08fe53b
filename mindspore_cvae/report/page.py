"""One page of HTML that needs nothing else: elements that escape their texts, and the look.

The texts of a page come from corpora and run folders of anybody. Only :func:`element` makes
markup, and whatever it is given that is not markup is escaped; besides, the page's own policy
forbids scripts and everything from elsewhere.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a browser may load or run for the page: its own style sheet and its own pictures."""


class Html(str):
    """Text that is markup already. All other text is escaped when it enters an element."""


_VOID = ("meta", "br", "hr", "col")
# Characters that HTML forbids; they would break the page or vanish.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff]")


def escaped(text: object) -> Html:
    """A text as it may stand in an element or in a quoted attribute; markup stays as it is."""
    if isinstance(text, Html):
        return text
    return Html(html.escape(_FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", str(text))))


def element(tag: str, *children: object, **attributes: object) -> Html:
    """An element.

    Args:
        tag: its name.
        children: markup, or texts that are escaped; None is left out.
        attributes: their values are escaped, None is left out. In the names, ``_`` stands for
            ``-`` but at the end, where it only avoids Python's keywords.
    """
    pairs = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escaped(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Html(f"<{tag}{pairs}>")
    return Html(f"<{tag}{pairs}>{joined(*children)}</{tag}>")


def joined(*parts: object) -> Html:
    """Parts one after the other."""
    return Html("".join(escaped(part) for part in parts if part is not None))


def shortened(text: str, most: int = 600) -> str:
    """A text cut to ``most`` characters: a corpus may hold words of megabytes."""
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def table(head: tuple[object, ...], rows: Iterable[tuple[object, ...]], class_: str) -> Html:
    """A table that scrolls within itself where the screen is too narrow.

    Args:
        head: titles of the columns; none for no line of titles.
        rows: cells; a row of a single cell is a title over the rows that follow.
        class_: of the table.
    """
    lines = []
    for row in rows:
        if len(row) == 1 < len(head):
            title = element("th", *row, colspan=len(head), scope="colgroup")
            lines.append(element("tr", title, class_="group"))
        else:
            lines.append(element("tr", *(element("td", cell) for cell in row)))
    titles = element("tr", *(element("th", title, scope="col") for title in head))
    parts = [element("thead", titles) if head else None, element("tbody", *lines)]
    whole = element("table", *parts, class_=class_)
    return element("div", whole, class_="scroll", tabindex=0)


def sentence(text: str) -> Html:
    """A text from a corpus or a model, kept apart from the direction of writing around it."""
    text = shortened(text)
    return element("bdi", text or "\N{EMPTY SET}", class_="sentence" if text else "sentence empty")


def document(title: str, *body: object) -> str:
    """The whole page."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Html(STYLE)),
    )
    return f"<!DOCTYPE html>\n{element('html', head, element('body', *body), lang='en')}\n"


STYLE = """
:root {
  color-scheme: light dark;
  --paper: #f7f6f2; --card: #fffefb; --ink: #1d1f23; --soft: #62666e; --line: #dedbd2;
  --accent: #1f5f8b; --wash: #e8eef3; --good: #2f6f4f; --good-wash: #e3efe7;
  --warn: #8a5a00; --warn-wash: #f6ebd3; --mark: #ffe7b3;
  --c0: #2f6db5; --c1: #d9722e; --c2: #3b9156; --c3: #b0407f; --c4: #7a63c7; --c5: #8c7a1f;
  --s0: #cfae2b; --s1: #74ad4f; --s2: #2b9484; --s3: #2f6690; --s4: #43266f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14161a; --card: #1c1f25; --ink: #e7e6e1; --soft: #a0a4ac; --line: #343942;
    --accent: #85bfe8; --wash: #243140; --good: #8fd0a8; --good-wash: #1e3429;
    --warn: #e8be6a; --warn-wash: #3a2f18; --mark: #5a4510;
    --c0: #6aa9ee; --c1: #f2985b; --c2: #6cc48a; --c3: #e27db6; --c4: #a995f0; --c5: #d3bf55;
    --s0: #f6e05a; --s1: #9bd46a; --s2: #45b8a4; --s3: #5b94cf; --s4: #9270d6;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; scroll-behavior: smooth; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
header, main, footer { max-width: 1120px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 40px; }
footer { padding-top: 24px; padding-bottom: 48px; color: var(--soft); font-size: .875rem; }
h1 { margin: 0; font-size: clamp(1.7rem, 5vw, 2.4rem); line-height: 1.15; letter-spacing: -.02em; }
h2 { margin: 0 0 4px; font-size: 1.25rem; letter-spacing: -.01em; }
h3 { margin: 24px 0 8px; font-size: 1rem; }
p { margin: 0 0 12px; max-width: 72ch; }
a { color: var(--accent); }
.kicker { color: var(--accent); font-size: .8125rem; font-weight: 600; letter-spacing: .04em; }
.lead, .note { color: var(--soft); }
.lead { margin-top: 8px; }
.kicker { margin-bottom: 4px; }
.note { font-size: .875rem; }
section { margin-top: 40px; scroll-margin-top: 12px; }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; margin-top: 16px; font-size: .9375rem; }
nav a { text-decoration: none; padding: 4px 0; }
nav a:hover { text-decoration: underline; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: .85em; overflow-wrap: anywhere; }
pre { margin: 0; padding: 14px 16px; overflow-x: auto; background: var(--wash);
  border-radius: 8px; line-height: 1.5; white-space: pre; }

.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr));
  gap: 1px; margin: 24px 0 0; padding: 0; background: var(--line);
  border: 1px solid var(--line); border-radius: 12px; overflow: hidden; }
.facts div { background: var(--card); padding: 14px 16px; }
.facts dt { color: var(--soft); font-size: .8125rem; }
.facts dd { margin: 2px 0 0; font-size: 1.5rem; font-weight: 600; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums; line-height: 1.25; }
.facts small { display: block; color: var(--soft); font-size: .75rem; font-weight: 400;
  letter-spacing: 0; line-height: 1.4; }

.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(320px, 100%), 1fr));
  gap: 16px; margin-top: 12px; }
.maps { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(400px, 100%), 1fr));
  gap: 16px; margin-top: 12px; }
.maps figure { max-width: 640px; }
figure { margin: 0; background: var(--card);
  border: 1px solid var(--line); border-radius: 12px; min-width: 0; }
figure { padding: 12px 12px 6px; display: flex; flex-direction: column; }
figcaption { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0 10px; padding: 0 4px;
  font-size: .875rem; }
figcaption b { font-weight: 600; }
figcaption span { color: var(--soft); font-size: .8125rem; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 14px; margin: 2px 0 0; padding: 0 4px;
  list-style: none; color: var(--soft); font-size: .8125rem; }
.legend i { display: inline-block; width: 14px; height: 0; margin-right: 6px;
  vertical-align: middle; border-top: 3px solid currentColor; border-radius: 2px; }
.legend i.dashed { border-top-style: dashed; border-top-width: 2px; border-radius: 0; }
.legend i.dot { width: 9px; height: 9px; border: 0; border-radius: 50%;
  background: currentColor; }
svg { display: block; width: 100%; height: auto; margin-top: auto; padding-top: 4px; }
svg text { fill: var(--soft); font-size: 11px; font-variant-numeric: tabular-nums;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
.grid { stroke: var(--line); stroke-width: 1; }
.zero { stroke: var(--soft); stroke-width: 1; opacity: .6; }
.line { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round;
  stroke-linecap: round; }
.line.dashed { stroke-dasharray: 5 5; stroke-width: 1.5; }
.band { fill: currentColor; opacity: .16; }
.point { fill: currentColor; stroke: var(--card); stroke-width: 1; }
.point.chosen { fill: var(--card); stroke: currentColor; stroke-width: 2.5; }
.dots circle { fill: currentColor; opacity: .7; }
.c0 { color: var(--c0); } .c1 { color: var(--c1); } .c2 { color: var(--c2); }
.c3 { color: var(--c3); } .c4 { color: var(--c4); } .c5 { color: var(--c5); }
.s0 { color: var(--s0); } .s1 { color: var(--s1); } .s2 { color: var(--s2); }
.s3 { color: var(--s3); } .s4 { color: var(--s4); }
.legend .name { color: var(--soft); }

.scroll { overflow-x: auto; margin-top: 12px; border: 1px solid var(--line);
  border-radius: 12px; background: var(--card); }
table { border-collapse: collapse; width: 100%; font-size: .9375rem; }
th, td { padding: 9px 14px; text-align: left; vertical-align: top;
  border-top: 1px solid var(--line); }
thead th { border-top: 0; color: var(--soft); font-size: .8125rem; font-weight: 600;
  white-space: nowrap; }
.metrics td:nth-child(1) { font-weight: 600; white-space: nowrap; }
.metrics td:nth-child(2) { text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
.metrics td:nth-child(4) { color: var(--soft); min-width: 20em; }
.metrics thead th:nth-child(2) { text-align: right; }
.keys td:nth-child(1) { white-space: nowrap; width: 22em; }
.group th { padding-top: 18px; color: var(--accent); font-size: .8125rem; font-weight: 600; }
tbody tr:first-child > * { border-top-color: transparent; }
thead + tbody tr:first-child > * { border-top-color: var(--line); }
.badge { display: inline-block; padding: 1px 9px; border-radius: 99px; white-space: nowrap;
  font-size: .8125rem; font-weight: 500; background: var(--wash); color: var(--ink); }
.badge.good { background: var(--good-wash); color: var(--good); }
.badge.warn { background: var(--warn-wash); color: var(--warn); }
.sentence { unicode-bidi: isolate; overflow-wrap: anywhere;
  font-family: ui-serif, Charter, "Iowan Old Style", Georgia, "DejaVu Serif", serif; }
.empty { color: var(--soft); }
ol.samples { margin: 12px 0 0; padding: 0; list-style: none; counter-reset: sample;
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(420px, 100%), 1fr));
  gap: 8px; }
ol.samples li { padding: 10px 14px; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; }
ol.pairs, ol.path { margin: 12px 0 0; padding: 0; list-style: none; background: var(--card);
  border: 1px solid var(--line); border-radius: 12px; overflow: hidden; }
ol.pairs li { padding: 12px 16px; border-top: 1px solid var(--line); display: grid;
  grid-template-columns: 6.5em 1fr; gap: 2px 12px; }
ol.path li { padding: 7px 16px; display: grid; grid-template-columns: 3em 1fr; gap: 12px;
  border-top: 1px solid var(--line); }
ol.pairs li:first-child, ol.path li:first-child { border-top: 0; }
ol.path li.same { border-top-color: transparent; }
ol.path li.end { background: var(--wash); }
ol .tag { color: var(--soft); font-size: .8125rem; line-height: 1.9;
  font-variant-numeric: tabular-nums; }
ol mark { background: var(--mark); color: inherit; border-radius: 3px; padding: 0 2px; }
.same .sentence { color: var(--soft); }
details { margin-top: 16px; }
summary { cursor: pointer; color: var(--accent); padding: 6px 0; }
details pre { margin-top: 8px; }
.absent { padding: 14px 16px; border: 1px dashed var(--line); border-radius: 12px;
  color: var(--soft); max-width: none; margin: 12px 0 0; }
@media (max-width: 560px) {
  header, main, footer { padding-left: 14px; padding-right: 14px; }
  header { padding-top: 26px; }
  .facts { grid-template-columns: 1fr 1fr; }
  .facts div:last-child:nth-child(odd) { grid-column: 1 / -1; }
  ol.pairs li { grid-template-columns: 1fr; gap: 0; }
  th, td { padding: 8px 12px; }
  .metrics, .metrics tbody, .metrics tr { display: block; }
  .metrics thead { display: none; }
  .metrics tr { display: grid; grid-template-columns: 1fr auto; gap: 2px 12px;
    padding: 10px 14px; border-top: 1px solid var(--line); }
  .metrics tr:first-child { border-top: 0; }
  .metrics tr.group { padding-bottom: 0; }
  .metrics .group th { border: 0; padding: 8px 0 0; grid-column: 1 / -1; }
  .metrics td { border: 0; padding: 0; }
  .metrics td:nth-child(3), .metrics td:nth-child(4) { grid-column: 1 / -1; min-width: 0; }
  .metrics td:nth-child(4) { font-size: .875rem; }
}
@media print {
  body { background: #fff; }
  figure, .facts div, li { break-inside: avoid; }
}
"""
"""The page's style sheet: one column on a phone, several on a desk; light or dark as the reader's
system is."""
