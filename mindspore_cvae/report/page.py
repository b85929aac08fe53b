"""One page of HTML that needs nothing else: its template, its look, and markup for the charts.

The texts of a page come from corpora and run folders of anybody. Jinja2 escapes whatever a template
prints that is not markup, :func:`element` whatever enters an element; besides, the page's own
policy forbids scripts and everything from elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from mindspore_cvae.errors import InputError

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a browser may load or run for the page: its own style sheet and its own pictures."""
FOLDER = Path(__file__).parent
TEMPLATE = FOLDER / "page.html"
"""The shipped template; its style sheet lies beside it."""

# Characters that HTML forbids; they would break the page or vanish.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff]")


def cleaned(text: object) -> object:
    """A text without the characters that HTML forbids; markup stays as it is."""
    if isinstance(text, Markup):
        return text
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", str(text))


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """An element, for what is drawn rather than written.

    Args:
        tag: its name.
        children: markup, or texts that are escaped; None is left out.
        attributes: their values are escaped, None is left out. In the names, ``_`` stands for
            ``-`` but at the end, where it only avoids Python's keywords.
    """
    pairs = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(cleaned(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    inner = "".join(escape(cleaned(child)) for child in children if child is not None)
    return Markup(f"<{tag}{pairs}>{inner}</{tag}>")


def shortened(text: str, most: int = 600) -> str:
    """A text cut to ``most`` characters: a corpus may hold words of megabytes."""
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def fill(values: Mapping[str, object], template: str | Path | None = None) -> str:
    """The page of a template.

    Args:
        values: its names; ``policy`` and ``style`` are added.
        template: a file; None takes the shipped one, which another can extend as
            ``{% extends "page.html" %}``.

    Raises:
        InputError: The template cannot be read, is none, or prints what is not there.
    """
    path = TEMPLATE if template is None else Path(template)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([path.parent, FOLDER]),
        autoescape=True,
        finalize=cleaned,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["shortened"] = shortened
    style = Markup((FOLDER / "page.css").read_text(encoding="utf-8"))
    try:
        return environment.get_template(path.name).render(**values, policy=POLICY, style=style)
    except jinja2.TemplateNotFound as error:
        raise InputError(f"the template {error.name} is not there") from None
    except jinja2.TemplateSyntaxError as error:
        place = f"{error.filename or path}, line {error.lineno}"
        raise InputError(f"{place}: {error.message}") from None
    except (jinja2.TemplateError, TypeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the template does not fit the page: {error}") from None
