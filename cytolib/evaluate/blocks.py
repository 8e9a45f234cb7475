"""Sets of cells a block of rows at a time: what every metric checks first, and all of a large set that it holds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

BLOCK = 1024  # rows of a block, and of a tile of distances (8 MiB): memory does not grow with the number of cells


def row_blocks(X: np.ndarray, centre: NDArray[np.float64] | float = 0.0) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Slices of rows of ``X`` (N, D), and those rows less ``centre`` in float64; reads a memory map block by block."""
    for start in range(0, len(X), BLOCK):
        rows = slice(start, min(start + BLOCK, len(X)))
        yield rows, np.asarray(X[rows], dtype=np.float64) - centre


def check_pair(A: ArrayLike, B: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Two finite matrices (cells, dimensions) of equal width, or one sentence that says what is wrong.

    Neither is copied: numbers keep their type, a memory map stays on disk. Metrics turn blocks of rows into float64.

    Raises:
        ValueError: of other shapes, of fewer than two cells in a set, of NaN or infinity.
    """
    A, B = np.asarray(A), np.asarray(B)
    if A.ndim != 2 or B.ndim != 2 or A.shape[1] != B.shape[1] or min(len(A), len(B)) < 2:
        raise ValueError(f"sets of shape {A.shape} and {B.shape}, expected two cells or more of the same dimensions")
    for X in (A, B):
        if X.dtype.kind not in "fiub":
            raise ValueError(f"a set of embeddings has type {X.dtype}, expected numbers; pass an array of floats")
        check_finite(X)
    return A, B


def check_finite(X: np.ndarray) -> None:
    """Refuse a set with NaN or infinity; looks at a block of rows at a time."""
    for start in range(0, len(X), BLOCK):
        if not np.isfinite(X[start : start + BLOCK]).all():
            raise ValueError("a set of embeddings holds NaN or infinity, expected finite numbers; drop those cells")
