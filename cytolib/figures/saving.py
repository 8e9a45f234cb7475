"""Writing figures so that equal figures are equal bytes: resolution, fonts and metadata in one place."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from cytolib.run.artefacts import atomic_path

DPI = 150
FORMATS = ("png", "pdf")
# Text stays text in a PDF; no date, no version note.
_SETTINGS = {"pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "cytolib"}
_METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "ModDate": None, "Producer": None},
}


def write_figure(figure: Figure, path: str | Path) -> None:
    """Write one picture, complete or not at all: a PNG of 150 dpi or a PDF, by the name's ending.

    Raises:
        ValueError: for another ending.
    """
    path = Path(path)
    kind = path.suffix.removeprefix(".")
    if kind not in FORMATS:
        raise ValueError(f"{path}: a figure ends in .{' or .'.join(FORMATS)}, found {path.suffix!r}; rename it")
    with matplotlib.rc_context(_SETTINGS), atomic_path(path) as temporary:  # type: ignore[arg-type]
        figure.savefig(temporary, dpi=DPI, metadata=_METADATA[kind])


def save_figure(figure: Figure, folder: str | Path, name: str) -> list[Path]:
    """Write ``<name>.png`` and ``<name>.pdf`` into ``folder``; returns their paths."""
    paths = [Path(folder) / f"{name}.{kind}" for kind in FORMATS]
    for path in paths:
        write_figure(figure, path)
    return paths
