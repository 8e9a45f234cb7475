"""Cells out of whole fields: a square of fixed side around each, written as PNG into a scratch folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cytolib import run


def need_scratch(scratch: Path | None, dataset: str) -> Path:
    """``scratch``, which sets of whole fields cannot do without.

    Raises:
        ValueError: if it is None.
    """
    if scratch is None:
        raise ValueError(f"{dataset}: scratch is None; its cells are cut out of fields, pass a folder to write them to")
    return scratch


def cut_square(pixels: NDArray[np.uint8], centre: tuple[float, float], side: int) -> NDArray[np.uint8]:
    """A square of ``side`` pixels around ``centre`` (row, column) of ``pixels`` (H, W) or (H, W, 3).

    The side is the same for every cell, so that a frame does not tell a cell's size. Where it leaves the field it is
    filled: with the field's median colour, which is mostly empty slide, or, in a mask (H, W), with 0.
    """
    ground = np.median(pixels, axis=(0, 1)).astype(np.uint8) if pixels.ndim == 3 else np.uint8(0)
    square = np.empty((side, side, *pixels.shape[2:]), dtype=np.uint8)
    square[...] = ground
    top, left = (round(middle - side / 2) for middle in centre)
    rows = slice(max(top, 0), min(top + side, pixels.shape[0]))
    columns = slice(max(left, 0), min(left + side, pixels.shape[1]))
    square[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = pixels[rows, columns]
    return square


def write_png(pixels: NDArray[np.uint8], path: Path) -> None:
    """Write ``pixels`` losslessly; the same pixels give the same bytes, and so the same ``cell_id``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with run.atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")
