"""Shape of nucleus and cell: sizes in field fractions, moments, lobes, concavities, distance-transform statistics."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull
from skimage.measure import moments_hu, moments_normalized, perimeter

from cytolib.morphometry.colour import Mask
from cytolib.morphometry.segment import Regions

_FULL = ndimage.generate_binary_structure(2, 2)
_DEPTHS = (0.02, 0.04, 0.06)  # field fractions


def _crop(mask: Mask) -> Mask:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.pad(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], 1)


def _hull_area(points: np.ndarray) -> float:
    """Area of the convex hull of pixel squares, from the corners of the first and last pixel of every row."""
    rows, first = np.unique(points[:, 0], return_index=True)
    last = np.append(first[1:], len(points)) - 1
    left, right = points[first, 1] - 0.5, points[last, 1] + 0.5
    corners = [(rows + dy, columns) for dy in (-0.5, 0.5) for columns in (left, right)]
    return float(ConvexHull(np.concatenate([np.stack(pair, axis=1) for pair in corners])).volume)


def mask_shape(mask: Mask, field: float) -> dict[str, float]:
    """Area (log of its field fraction), eccentricity, solidity, extent, boundary length and hole share of one mask.

    Args:
        mask: (H, W), not empty.
        field: pixels of the whole field.
    """
    small = _crop(mask)
    filled = ndimage.binary_fill_holes(small)
    points = np.argwhere(small).astype(np.float64)
    area = float(len(points))
    spread = np.cov(points.T) + np.eye(2) / 12 if len(points) > 1 else np.eye(2) / 12
    minor, major = np.linalg.eigvalsh(spread)
    boundary = max(float(perimeter(filled, neighborhood=8)), 1.0)
    hull = _hull_area(points)
    return {
        "log_area": float(np.log(area / field)),
        "eccentricity": float(np.sqrt(max(0.0, 1.0 - minor / major))),
        "solidity": area / hull,
        "extent": area / float(4.0 * np.pi * np.sqrt(minor * major)),  # 1 for a filled ellipse
        "log_roundness": float(np.log(4 * np.pi * area / boundary**2)),
        "holes": float(np.sqrt(1.0 - area / filled.sum())),
    }


def lobes(nucleus: Mask) -> dict[str, float]:
    """Lobes and thickness of a nucleus from its distance transform: how much survives, and into how many parts it
    falls, as it is eroded step by step (a segmented nucleus falls apart, a round one shrinks)."""
    side = min(nucleus.shape)
    small = _crop(nucleus)
    depth = ndimage.distance_transform_edt(small) / side
    inside = depth[small]
    area = float(small.sum())
    result: dict[str, float] = {"parts": float(np.log(ndimage.label(small, structure=_FULL)[1]))}
    for level in _DEPTHS:
        result[f"survives_{level}"] = float((inside > level).mean())
    for part in (0.4, 0.7):  # relative to the thickest place: scale-free
        labels, count = ndimage.label(depth > part * depth.max())
        result[f"parts_{part}"] = float(np.log(max(count, 1)))
        largest = float(np.bincount(labels.ravel())[1:].max()) if count else area
        result[f"largest_part_{part}"] = largest / max(float((labels > 0).sum()), 1.0)
    thickness = float(depth.max())
    result["log_thickness"] = float(np.log(thickness))
    result["relative_thickness"] = thickness / float(np.sqrt(area / np.pi) / side)
    result["depth_mean"] = float(inside.mean() / thickness)
    result["depth_sd"] = float(inside.std() / thickness)
    return result


def hu_moments(mask: Mask) -> dict[str, float]:
    """The first four Hu moments (Hu 1962), as signed logarithms: invariant to shift, scale and rotation."""
    small = _crop(mask).astype(np.float64)
    rows, columns = np.arange(small.shape[0], dtype=np.float64), np.arange(small.shape[1], dtype=np.float64)
    area = small.sum()
    y = rows - small.sum(axis=1) @ rows / area
    x = columns - small.sum(axis=0) @ columns / area
    central = np.vander(y, 4, increasing=True).T @ small @ np.vander(x, 4, increasing=True)
    invariants = moments_hu(moments_normalized(central))[:4]
    return {f"hu{k + 1}": float(np.log(np.abs(v) + 1e-6)) for k, v in enumerate(invariants)}


def shape_features(regions: Regions) -> dict[str, float]:
    """All shape features of the nucleus and the cell, and how they sit in each other."""
    field = float(regions.nucleus.size)
    side = min(regions.nucleus.shape)
    result = {f"nucleus_{k}": v for k, v in mask_shape(regions.nucleus, field).items()}
    result |= {f"cell_{k}": v for k, v in mask_shape(regions.cell, field).items()}
    result |= {f"nucleus_{k}": v for k, v in (lobes(regions.nucleus) | hu_moments(regions.nucleus)).items()}
    result["nuclear_share"] = float(regions.nucleus.sum() / regions.cell.sum())
    result["log_cytoplasm"] = float(np.log((regions.cell.sum() - regions.nucleus.sum()) / field + 0.001))
    middle = np.argwhere(regions.nucleus).mean(axis=0)
    result["eccentric_nucleus"] = float(np.hypot(*(middle - np.argwhere(regions.cell).mean(axis=0))) / side)
    distance = np.hypot(*(np.argwhere(regions.nucleus) - middle).T) / side
    result["hollow_nucleus"] = float(distance.min() / max(distance.max(), 1e-6))
    result["nucleus_found"] = float(regions.found)
    return result
