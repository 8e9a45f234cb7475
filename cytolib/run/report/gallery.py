"""The figures of a stage with their sizes and captions, for the report's gallery."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from cytolib.run.report.notebook_text import Passage, passages

_NUMBERED = re.compile(r"figure_(\d+)_(.+)")


@dataclass(frozen=True)
class Figure:
    """A figure: file names relative to its stage's folder, size in pixels (None where unreadable), and its words."""

    png: str
    pdf: str | None
    size: tuple[int, int] | None
    title: str
    text: str


def stage_figures(folder: Path, outputs: dict[str, Any], notebook: dict[str, Any] | None) -> list[Figure]:
    """All ``figures/*.png`` among the outputs of a stage, by name (numbers by size: figure_2 before figure_10)."""
    known = passages(notebook) if notebook else []
    names = [name for name in outputs if name.startswith("figures/") and name.endswith(".png")]
    return [_figure(folder, name, outputs, known) for name in sorted(names, key=_by_number)]


def _by_number(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _figure(folder: Path, name: str, outputs: dict[str, Any], known: list[tuple[str, Passage]]) -> Figure:
    stem = name.removeprefix("figures/").removesuffix(".png")
    passage = next((p for pattern, p in known if re.fullmatch(pattern, stem)), Passage("", ""))
    pdf = f"figures/{stem}.pdf"
    title, text = words(stem, passage)
    return Figure(name, pdf if pdf in outputs else None, _size(folder / name), title, text)


def words(stem: str, passage: Passage) -> tuple[str, str]:
    """Title and text of a figure from its file name and the passage before it: ``figure_3_x`` is Figure 3."""
    title = stem.replace("_", " ").strip()
    title = title[:1].upper() + title[1:]
    number = _NUMBERED.fullmatch(stem)
    if number:
        title = f"Figure {number[1]}: {number[2].replace('_', ' ')}"
        if passage.heading.startswith(f"Figure {number[1]}:"):
            title = passage.heading
        return title, passage.text
    return title, passage.text or passage.heading


def _size(path: Path) -> tuple[int, int] | None:
    try:
        with Image.open(path) as picture:
            return picture.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return None  # the browser shows the alternative text
