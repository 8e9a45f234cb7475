"""The window of one cell: the cell in the middle of an image, centred, at one scale, on white glass.

Laboratories crop cells more or less tightly and their lamps differ in colour. What a small network need not learn is
taken out before it: the classical segmentation (``cytolib.morphometry``) finds the cell, the window is a fixed multiple
of its extent, and intensities are relative to the empty glass. Absolute size is lost by this; the classical features
have it.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cytolib import morphometry, run

LOOK = morphometry.IMAGE_SIZE  # pixels a side at which the cell is looked for: beside the classical features, only once
MARGIN = 1.35  # side of the window over the larger extent of the cell
SMALLEST = 0.2  # of the image's shorter side: the least window, for platelets
WHITE = 0.92  # what glass becomes: a little less than the brightest, so that brighter specks stay


def cell_window(
    image: Image.Image | morphometry.Sight,
    size: int,
    margin: float = MARGIN,
    resample: Image.Resampling = Image.Resampling.BICUBIC,
) -> NDArray[np.uint8]:
    """The window (size, size, 3) uint8 of the cell nearest the middle of ``image``, RGB.

    What lies beyond the image's edge is its mirror image.

    Args:
        image: RGB, any size; or the sight of it, where others look at it too.
        size: pixels a side of what comes out.
        margin: side of the window over the larger extent of the cell.
        resample: PIL's filter.
    """
    sight = image if isinstance(image, morphometry.Sight) else morphometry.Sight(image)
    rgb = sight.image if sight.image.mode == "RGB" else sight.image.convert("RGB")
    seen = sight.at(LOOK)
    cell = seen.regions.cell
    rows, columns = np.flatnonzero(cell.any(axis=1)), np.flatnonzero(cell.any(axis=0))
    # extents in shares of the image; half a pixel each side, since masks count pixels
    low = np.array([columns[0], rows[0]]) / LOOK
    high = (np.array([columns[-1], rows[-1]]) + 1) / LOOK
    extent = float(((high - low) * rgb.size).max())
    side = max(margin * extent, margin / MARGIN * SMALLEST * min(rgb.size))
    window = _cut(rgb, (low + high) / 2 * rgb.size, side, size, resample)
    return (window * (WHITE / seen.densities.glass)).clip(0, 255).round().astype(np.uint8)


def _cut(
    image: Image.Image, centre: NDArray[np.float64], side: float, size: int, resample: Image.Resampling
) -> NDArray[np.float32]:
    """The square about ``centre`` (x, y), ``side`` pixels wide, as (size, size, 3)."""
    corner = centre - side / 2
    beyond = np.ceil(np.concatenate([-corner, corner + side - image.size]).max())
    pad = int(min(max(beyond, 0), 4 * max(image.size)))
    if pad:
        image = Image.fromarray(np.pad(np.asarray(image), ((pad, pad), (pad, pad), (0, 0)), mode="symmetric"))
        corner = corner + pad
    left, top = np.maximum(corner, 0)
    box = (left, top, min(left + side, image.size[0]), min(top + side, image.size[1]))
    return np.asarray(image.resize((size, size), resample, box=box), dtype=np.float32)


@cache
def source_sha256() -> str:
    """SHA-256 of the code that decides a window's pixels: part of what identifies an embedding."""
    folder = Path(morphometry.__file__).parent
    files = (Path(__file__), *(folder / f"{name}.py" for name in ("__init__", "colour", "segment")))
    return hashlib.sha256("".join(run.sha256(file) for file in files).encode()).hexdigest()
