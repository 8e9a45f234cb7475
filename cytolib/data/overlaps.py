"""Frames that show the same piece of a slide: pairs that a perceptual hash misses, because the frame was moved.

Cells that were cut out of one photograph by hand can share pixels: two frames around neighbours, or the same cell cut
out twice, a few micrometres apart. A hash of the whole frame is far apart for these, their pixels are equal where the
frames overlap. Here every pair of frames is laid over each other at the shift where their fine detail fits best, and is
called a pair if the pixels of the overlap agree there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import fft, ndimage

from cytolib.data.images import load_image

COLUMNS = ("first", "second", "dy", "dx", "correlation")
_BATCH = 128  # pairs transformed at once


def overlapping_frames(
    frames: Sequence[NDArray[np.uint8]], *, min_overlap: float = 0.2, min_correlation: float = 0.65, step: int = 2
) -> pd.DataFrame:
    """Pairs of frames that overlap on the slide.

    Args:
        frames: greys (H, W) of any sizes, all at one scale.
        min_overlap: share of the smaller frame that must be common to both.
        min_correlation: correlation of fine detail (what a Gaussian of 3 px takes away) over the overlap.
        step: frames are compared at every ``step``-th pixel, after averaging.

    Returns:
        ``first``, ``second`` (positions in ``frames``), ``dy``, ``dx`` (pixel of the second frame at which the first
        one begins, in pixels) and ``correlation``; the surest first.

    Raises:
        ValueError: for no frames, or one that is no grey picture of at least a few steps a side.
    """
    bad = [k for k, frame in enumerate(frames) if np.ndim(frame) != 2 or min(np.shape(frame)) < 8 * step]
    if bad or not len(frames):
        what = f"frame {bad[0]} has shape {np.shape(frames[bad[0]])}" if bad else "there are no frames"
        raise ValueError(f"frames: {what}; expected greys (H, W) of at least {8 * step} pixels a side")
    small = [_shrink(frame, step) for frame in frames]
    detail = [_detail(frame) for frame in small]
    side = fft.next_fast_len(2 * max(max(frame.shape) for frame in small), real=True)
    spectra = np.stack([fft.rfft2(frame, (side, side)) for frame in detail])
    rows = []
    for first, second in _batches(len(frames)):
        fits = fft.irfft2(np.conj(spectra[first]) * spectra[second], (side, side))
        for a, b, fit in zip(first, second, fits, strict=True):
            dy, dx = _best_shift(fit, detail[a].shape, detail[b].shape, min_overlap)
            correlation = _agreement(detail[a], detail[b], dy, dx)
            if correlation >= min_correlation:
                rows.append((a, b, step * dy, step * dx, correlation))
    return pd.DataFrame(rows, columns=list(COLUMNS)).sort_values("correlation", ascending=False, ignore_index=True)


def overlapping_cells(cells: pd.DataFrame, root: Path) -> pd.DataFrame:
    """Pairs of cells whose frames share pixels, among the frames of each domain.

    Args:
        cells: with columns ``cell_id``, ``path`` and ``domain``. root: the folder that paths are relative to.

    Returns:
        ``first``, ``second`` (cell ids) and ``correlation``.
    """
    found = []
    for _, part in cells.groupby("domain", sort=True):
        pairs = overlapping_frames([np.asarray(load_image(root / path).convert("L")) for path in part["path"]])
        ids = part["cell_id"].to_numpy()
        found.append(pairs.assign(first=ids[pairs["first"]], second=ids[pairs["second"]]))
    return pd.concat(found, ignore_index=True)[["first", "second", "correlation"]]


def _shrink(frame: NDArray[np.uint8], step: int) -> NDArray[np.float32]:
    height, width = (side // step * step for side in frame.shape)
    blocks = frame[:height, :width].reshape(height // step, step, width // step, step)
    return blocks.mean(axis=(1, 3), dtype=np.float32)


def _detail(frame: NDArray[np.float32]) -> NDArray[np.float32]:
    """A frame without its slow changes: those agree for any two round dark cells."""
    rest = frame - ndimage.gaussian_filter(frame, 1.5)
    return rest / max(float(np.linalg.norm(rest)), 1e-6)


def _batches(n: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    first, second = np.triu_indices(n, k=1)
    for start in range(0, len(first), _BATCH):
        yield first[start : start + _BATCH], second[start : start + _BATCH]


def _best_shift(
    fit: NDArray[np.float32], shape: tuple[int, ...], other: tuple[int, ...], min_overlap: float
) -> tuple[int, int]:
    """Where the first frame begins in the second: the highest fit among shifts that leave enough in common."""
    shifts = [np.arange(-a + 1, b) for a, b in zip(shape, other, strict=True)]
    common = [np.minimum(s + a, b) - np.maximum(s, 0) for s, a, b in zip(shifts, shape, other, strict=True)]
    needed = min_overlap * min(np.prod(shape), np.prod(other))
    allowed = np.outer(*common) >= needed
    window = np.where(allowed, fit[np.ix_(shifts[0] % len(fit), shifts[1] % fit.shape[1])], -np.inf)
    row, column = np.unravel_index(int(window.argmax()), window.shape)
    return int(shifts[0][row]), int(shifts[1][column])


def _agreement(a: NDArray[np.float32], b: NDArray[np.float32], dy: int, dx: int) -> float:
    """Correlation of two frames over what they share, the first beginning at pixel (dy, dx) of the second."""
    height, width = min(a.shape[0] + dy, b.shape[0]), min(a.shape[1] + dx, b.shape[1])
    top, left = max(dy, 0), max(dx, 0)
    mine = a[top - dy : height - dy, left - dx : width - dx].ravel()
    theirs = b[top:height, left:width].ravel()
    mine, theirs = mine - mine.mean(), theirs - theirs.mean()
    return float(mine @ theirs / max(float(np.linalg.norm(mine) * np.linalg.norm(theirs)), 1e-12))
