"""An executed notebook as a page of its own: in the report's style, with a way back, and nothing from the network."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from cytolib.run.artefacts import atomic_path, sha256
from cytolib.run.report.notebook_text import passages, saved_figures, title_and_question
from cytolib.run.report.rendering import environment, template_text
from cytolib.run.sources import read_notebook

# Without JavaScript a widget shows nothing, and its text is what it said before it began.
DROPPED = ("application/vnd.jupyter.widget-view+json", "application/javascript")
MAX_PAGE_HEAD = 4096


@dataclass(frozen=True)
class Link:
    """An entry of the navigation: its words and where it leads, relative to the page."""

    text: str
    href: str
    current: bool = False


def write_notebook_page(source: Path, page: Path, run: str, links: Sequence[Link], failed: bool = False) -> None:
    """Write ``page`` from the executed notebook ``source``, unless it was written from the same one already.

    Args:
        source: the executed notebook.
        page: where the HTML page goes.
        run: the run's name.
        links: the stages of the run, in order.
        failed: whether the notebook stopped with an error.

    Raises:
        ValueError: where nbconvert cannot convert it.
    """
    import importlib.metadata

    made_of = [
        *(sha256(source), run, failed, [asdict(link) for link in links], importlib.metadata.version("nbconvert")),
        *(template_text(name) for name in ("notebook.html.j2", "style.css", "notebook.css")),
        Path(__file__).read_text(encoding="utf-8"),
    ]
    mark = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
    if page.is_file() and f'content="{mark}"'.encode() in page.read_bytes()[:MAX_PAGE_HEAD]:
        return
    notebook = read_notebook(source)
    here = next((i for i, link in enumerate(links) if link.current), None)
    values = {
        "mark": mark,
        "run": run,
        "title": title_and_question(notebook)[0] or source.stem,
        "name": source.stem,
        "links": links,
        "before": links[here - 1] if here else None,
        "after": links[here + 1] if here is not None and here + 1 < len(links) else None,
        "failed": failed,
        "ipynb": source.name,
        "notebook_style": Markup(template_text("notebook.css")),
        "body": Markup(notebook_body(notebook, source)),  # noqa: S704 (made by nbconvert; the page runs no script)
    }
    html = environment().get_template("notebook.html.j2").render(values)
    with atomic_path(page) as temporary:
        temporary.write_text(html, encoding="utf-8")


def notebook_body(notebook: dict[str, Any], source: Path) -> str:
    """The cells as HTML, without the page around them. Formulas stay as TeX.

    Raises:
        ValueError: where nbconvert cannot convert it.
    """
    import nbconvert
    import nbformat

    exporter = nbconvert.HTMLExporter(template_name="basic", embed_images=True)
    exporter.exclude_anchor_links = True
    try:
        body, _ = exporter.from_notebook_node(nbformat.reads(json.dumps(_prepared(notebook)), as_version=4))
    except Exception as error:  # nbconvert raises whatever its templates and filters raise
        raise ValueError(f"{source}: not convertible to HTML ({type(error).__name__}: {error})") from error
    # Of what an output may contain, these would act on the whole page, whatever its security policy says.
    body = re.sub(r"<(?=/?(?:meta|base|link|title)\b)", "&lt;", body, flags=re.IGNORECASE)
    # pandas' own tables carry a style and a border, which the page's style replaces
    body = re.sub(r"<style scoped>.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r'<table border="1" class="dataframe"', '<table class="dataframe"', body)
    return _scrollable(body)


def _prepared(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with what the page needs: no widgets, and an alternative text for every picture."""
    known = dict(passages(notebook))
    cells, heading = [], ""
    for cell in notebook["cells"]:
        metadata = dict(cell["metadata"])
        if cell["cell_type"] == "markdown":
            found = re.findall(r"(?m)^#+\s+(.+)$", cell["source"])
            heading = found[-1] if found else heading
        names = saved_figures(cell["source"]) if cell["cell_type"] == "code" else []
        subject = known[names[0]].heading if names else heading
        metadata.setdefault("alt", f"Picture: {subject or 'output of this cell'}")
        outputs = [o for o in cell.get("outputs", []) if not any(kind in (o.get("data") or {}) for kind in DROPPED)]
        cells.append({**cell, "metadata": metadata, **({"outputs": outputs} if "outputs" in cell else {})})
    return {"nbformat": 4, "nbformat_minor": 5, **notebook, "cells": cells}


def _scrollable(body: str) -> str:
    """Wide tables and texts scroll in themselves, by keyboard too, and leave the page its width."""
    body = body.replace(
        '<table class="dataframe"',
        '<div class="scroll" tabindex="0" role="region" aria-label="table"><table class="dataframe"',
    )
    return re.sub(r"(<table class=\"dataframe\".*?</table>)", r"\1</div>", body, flags=re.DOTALL)
