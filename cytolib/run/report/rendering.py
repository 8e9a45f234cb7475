"""Templates, style sheet and links: what the report's pages have in common."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from urllib.parse import quote

import jinja2
from markupsafe import Markup

_TEMPLATES = Path(__file__).with_name("templates")


@cache
def environment() -> jinja2.Environment:
    """Templates that escape everything and refuse a missing value."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["style"] = Markup(template_text("style.css"))
    made.globals["href"] = href
    made.globals["anchor"] = anchor
    return made


@cache
def template_text(name: str) -> str:
    """The text of a template or style sheet."""
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def href(*parts: str) -> str:
    """A relative link to a file from its path's parts, whatever characters its name has.

    The colon is quoted too, so that no file name can be taken for a scheme.
    """
    return "/".join(quote(part, safe="/") for part in parts)


def anchor(name: str) -> str:
    """The id of a stage's section."""
    return "stage-" + quote(name, safe="").replace("%", "_")
