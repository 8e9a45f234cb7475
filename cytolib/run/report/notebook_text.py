"""What an executed notebook says of itself: its title and question, and the words before each figure that it saves."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import Any

MAX_WORDS = 240  # characters of a caption


@dataclass(frozen=True)
class Passage:
    """The heading that a figure stands under, and the text right before it."""

    heading: str
    text: str


def plain_text(markdown: str) -> str:
    """Markdown of one paragraph or heading as plain text on one line."""
    import mistune
    from markupsafe import Markup

    return " ".join(Markup(mistune.html(markdown)).striptags().split())  # noqa: S704 (only to take the tags away)


def blocks(markdown: str) -> list[tuple[bool, str]]:
    """Headings (True) and paragraphs (False) of a Markdown cell as plain text; no lists, quotes, tables or code."""
    found = []
    for block in re.split(r"\n\s*\n|\n(?=#)|(?<=\n)(?<!\n\n)(?=#)", markdown.strip()):
        head, _, rest = block.strip().partition("\n")
        if head.startswith("#"):
            found.append((True, plain_text(head.lstrip("#").strip())))
            block = rest.strip()
        if block and not re.match(r"[>*\-|`<]|\d+\.|\s{4}", block):
            found.append((False, plain_text(block)))
        elif block.startswith("**"):
            found.append((False, plain_text(block)))
    return [(heading, text) for heading, text in found if text]


def title_and_question(notebook: dict[str, Any]) -> tuple[str, str]:
    """The first heading and, where the first cell asks one, its question; empty texts where there is none."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    parts = blocks(cells[0]["source"]) if cells else []
    title = next((text for heading, text in parts if heading), "")
    question = next((text for heading, text in parts if not heading and text.startswith("Question ")), "")
    return title, question.removeprefix("Question ").strip()


def saved_figures(source: str) -> list[str]:
    """Patterns of the names that a cell passes to ``save_figure``; what an f-string fills in matches anything."""
    try:
        tree = ast.parse(re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", source))
    except (SyntaxError, ValueError, RecursionError):
        return []
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or getattr(node.func, "attr", "") != "save_figure":
            continue
        named = [k.value for k in node.keywords if k.arg == "name"] or node.args[1:2]
        if named and isinstance(named[0], ast.Constant):
            found.append(re.escape(str(named[0].value)))
        elif named and isinstance(named[0], ast.JoinedStr):
            parts = [re.escape(str(p.value)) if isinstance(p, ast.Constant) else ".+" for p in named[0].values]
            found.append("".join(parts))
    return found


def passages(notebook: dict[str, Any]) -> list[tuple[str, Passage]]:
    """A pattern of names and the passage before it, for each figure that the notebook saves."""
    found = []
    heading, text = "", ""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            text = ""
            for is_heading, words in blocks(cell["source"]):
                heading, text = (words, "") if is_heading else (heading, text or _shortened(words))
        elif cell["cell_type"] == "code":
            names = saved_figures(cell["source"])
            found += [(name, Passage(heading, text)) for name in names]
            if names:
                text = ""  # the words belong to the figures right after them
    return found


def _shortened(text: str) -> str:
    """The first sentences, as many as a caption holds; a trailing colon, which announced the figure, becomes a stop."""
    kept = ""
    for sentence in re.split(r"(?<=[.?!])\s+", text):
        if kept and len(kept) + len(sentence) > MAX_WORDS:
            break
        kept = f"{kept} {sentence}".strip()
    kept = kept if len(kept) <= 2 * MAX_WORDS else kept[: 2 * MAX_WORDS] + "…"
    return kept[:-1] + "." if kept.endswith(":") else kept
