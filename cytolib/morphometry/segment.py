"""Nucleus and cell masks of the cell in the middle of an image: thresholds by Otsu, neighbours cut off by watershed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_multiotsu, threshold_otsu
from skimage.segmentation import watershed

from cytolib.morphometry.colour import Array, Densities, Mask

_BINS = 64
_DYE_MAX = 3.0
_CROSS = ndimage.generate_binary_structure(2, 1)
_FULL = ndimage.generate_binary_structure(2, 2)


@dataclass(frozen=True)
class Regions:
    """Masks (H, W) of one image, none of them empty.

    Attributes:
        nucleus: the strongly stained part of the central cell, all lobes; of a platelet, which has none, its granules.
        cell: the central cell, nucleus included.
        cytoplasm: the cell without its nucleus, else a thin ring around the nucleus.
        background: what is neither cell nor close to it.
        found: whether a nucleus was found; otherwise a central disc stands for it.
        thresholds: the dye levels that part background, cytoplasm and nucleus.
    """

    nucleus: Mask
    cell: Mask
    cytoplasm: Mask
    background: Mask
    found: bool
    thresholds: tuple[float, float]


def radius_map(shape: tuple[int, int], centre: tuple[float, float] | None = None) -> Array:
    """Distance (H, W) of every pixel to ``centre`` (row, column; default the middle), in shares of the shorter side."""
    row, column = centre if centre is not None else ((shape[0] - 1) / 2, (shape[1] - 1) / 2)
    rows = np.arange(shape[0], dtype=np.float32)[:, None] - np.float32(row)
    columns = np.arange(shape[1], dtype=np.float32)[None, :] - np.float32(column)
    return np.sqrt(rows * rows + columns * columns) / np.float32(min(shape))


@lru_cache(maxsize=32)
def _middle_weight(shape: tuple[int, int], sd: float) -> Array:
    """Gaussian weight (H * W,) of every pixel about the middle, ``sd`` in field fractions; not to be written to."""
    weight = np.exp(np.float32(-0.5) * (radius_map(shape) / np.float32(sd)) ** 2).ravel()
    weight.flags.writeable = False
    return weight


def window(mask: Mask, margin: int) -> tuple[slice, slice]:
    """The bounding box of a mask (not empty), widened by ``margin`` pixels, as slices of the image."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (
        slice(max(0, int(rows[0]) - margin), int(rows[-1]) + 1 + margin),
        slice(max(0, int(columns[0]) - margin), int(columns[-1]) + 1 + margin),
    )


def dye_thresholds(dye: Array) -> tuple[float, float]:
    """Two dye levels by multi-Otsu (Liao, Chen & Chung 2001) on the centre-weighted histogram, kept in sane bounds."""
    weight = _middle_weight(dye.shape, 0.22)
    index = np.clip(dye * np.float32(_BINS / _DYE_MAX), 0, _BINS - 1).astype(np.intp)
    histogram = np.bincount(index.ravel(), weights=weight, minlength=_BINS)
    centres = (np.arange(_BINS) + 0.5) * _DYE_MAX / _BINS
    try:
        low, high = threshold_multiotsu(hist=(histogram, centres), classes=3)
    except ValueError:  # fewer than three grey levels: nothing to part
        low, high = 0.35, 0.9
    return float(np.clip(low, 0.15, 0.6)), float(np.clip(high, 0.55, 1.25))


def central_parts(mask: Mask, reach: float, share: float) -> Mask:
    """The component nearest the middle (large ones preferred), with others within ``reach`` of it (field fractions)
    that have at least ``share`` of its area: the lobes of one nucleus."""
    labels, count = ndimage.label(mask, structure=_FULL)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:].astype(np.float64)
    merit = np.bincount(labels.ravel(), weights=_middle_weight(mask.shape, 0.13), minlength=count + 1)[1:]
    best = int(merit.argmax())
    seed = labels == best + 1
    if count == 1:
        return seed
    near = ndimage.distance_transform_edt(~seed) <= reach * min(mask.shape)
    touching = np.unique(labels[near & mask])
    keep = np.zeros(count + 1, dtype=bool)
    keep[touching] = True
    keep[0] = False
    keep[1:] &= sizes >= max(share * sizes[best], 3)
    keep[best + 1] = True
    return keep[labels]


def _half(plane: NDArray) -> Array:
    """Means of 2 x 2 blocks (H/2, W/2) of ``plane`` (H, W), edges repeated to even sides: mirrors keep the blocks."""
    height, width = plane.shape
    even = plane.astype(np.float32)
    if height % 2 or width % 2:
        even = np.pad(even, ((0, height % 2), (0, width % 2)), mode="edge")
    rows = even[::2] + even[1::2]
    return (rows[:, ::2] + rows[:, 1::2]) * np.float32(0.25)


def cell_mask(planes: Densities, nucleus: Mask, low: float) -> Mask:
    """The central cell: foreground whose watershed basin (on half-size distance maps) belongs to the nucleus."""
    stained = np.maximum(planes.od[..., 1], planes.dye * np.float32(0.6))
    smooth = _half(ndimage.gaussian_filter(stained, 1.0, truncate=3.0))
    level = float(np.clip(threshold_otsu(np.minimum(smooth, 0.6)), 0.08, 0.2)) if np.ptp(smooth) > 0 else 0.2
    small = _half(nucleus) >= 0.5
    if not small.any():  # a nucleus so thin that half size cannot see it
        return nucleus
    foreground = ndimage.binary_fill_holes(smooth > level) | small
    depth = ndimage.distance_transform_edt(foreground)
    away = ndimage.distance_transform_edt(~small)
    scale = min(smooth.shape)
    peaks = (depth == ndimage.maximum_filter(depth, size=2 * int(0.05 * scale) + 1)) & (depth > 0.04 * scale)
    markers, _ = ndimage.label(peaks & (away > np.maximum(0.09 * scale, 0.75 * depth)), structure=_FULL)
    markers[small] = markers.max() + 1
    own = watershed(-depth, markers, mask=foreground) == markers.max()
    own &= away < 0.25 * scale
    own = ndimage.binary_opening(own, structure=_CROSS, iterations=2) | small
    labels, count = ndimage.label(own)
    kept = np.zeros(count + 1, dtype=bool)
    kept[labels[small]] = True
    own = kept[labels]
    full = np.repeat(np.repeat(own, 2, axis=0), 2, axis=1)[: nucleus.shape[0], : nucleus.shape[1]]
    return full | nucleus


def segment(planes: Densities) -> Regions:
    """Nucleus, cell, cytoplasm and background of the cell nearest the middle of the image."""
    shape = planes.dye.shape
    radius = radius_map(shape)
    low, high = dye_thresholds(planes.dye)
    # chromatin is coarse: smooth before the cut, so that clumps do not fall apart and small gaps close
    smooth = ndimage.gaussian_filter(planes.dye, 0.011 * min(shape), truncate=3.0)
    dark = ndimage.binary_opening(smooth > high, structure=_CROSS)
    nucleus = central_parts(dark & (radius < 0.42), reach=0.075, share=0.06)
    found = bool(nucleus.sum() >= 12)
    if not found:
        nucleus = radius < max(0.06, 1.5 / min(shape))
    cell = cell_mask(planes, nucleus, low)
    cytoplasm = cell & ~nucleus
    if cytoplasm.sum() < 12:
        cytoplasm = ndimage.binary_dilation(nucleus, structure=_FULL, iterations=2) & ~nucleus
    if not cytoplasm.any():
        cytoplasm = nucleus
    background = ~ndimage.binary_dilation(cell | nucleus, structure=_FULL, iterations=3)
    if not background.any():
        background = np.ones(shape, dtype=bool)
    return Regions(nucleus, cell, cytoplasm, background, found, (low, high))
