"""Colour statistics of the regions, colour histograms of the cell, and profiles about the nucleus."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from cytolib.morphometry.colour import Array, Mask, Planes
from cytolib.morphometry.segment import Regions, radius_map, window

_CHANNELS = ("red", "green", "blue")
_HISTOGRAMS = {  # plane: (lower edge, upper edge) of 6 equal bins; what lies outside goes to the outer bins
    "red_od": (0.0, 1.6),
    "green_od": (0.0, 2.4),
    "blue_od": (0.0, 1.4),
    "a": (0.0, 0.6),
    "b": (-0.6, 0.1),
}
_BINS = 6
_RINGS = (0.0, 0.04, 0.08, 0.12, 0.16, 0.2, 0.26, 0.34)  # field fractions
_SHELLS = (-0.06, -0.03, 0.0, 0.02, 0.045, 0.08, 0.13)  # signed distance to the nucleus, field fractions


def _moments(values: Array, name: str, skew: bool = True) -> dict[str, float]:
    """Mean, log standard deviation and (cube-rooted) skewness of ``values`` (n,)."""
    mean = float(values.mean())
    deviation = values - mean
    square = deviation * deviation  # a power of 3 would go through the logarithm
    sd = float(np.sqrt(square.mean()))
    result = {f"{name}_mean": mean, f"{name}_sd": float(np.log(sd + 0.01))}
    if skew:
        result[f"{name}_skew"] = float(np.cbrt((square * deviation).mean()) / (sd + 0.01))
    return result


def _quantiles(values: Array, name: str) -> dict[str, float]:
    """10th and 90th percentile of ``values`` (n,), nearest rank."""
    ordered = np.sort(values)
    last = len(ordered) - 1
    return {f"{name}_p{q}": float(ordered[round(last * q / 100)]) for q in (10, 90)}


def region_statistics(planes: Planes, mask: Mask, name: str) -> dict[str, float]:
    """Moments and percentiles of optical density, Lab and saturation in one region."""
    result: dict[str, float] = {}
    od, lab = planes.od[mask], planes.lab[mask]
    for k, channel in enumerate(_CHANNELS):
        result |= _moments(od[:, k], f"{name}_{channel}_od")
        result |= _quantiles(od[:, k], f"{name}_{channel}_od")
    for k, axis in enumerate(("a", "b"), start=1):
        result |= _moments(lab[:, k], f"{name}_{axis}", skew=False)
    result[f"{name}_saturation_mean"] = float(planes.saturation[mask].mean())
    return result


def field_statistics(planes: Planes, regions: Regions) -> dict[str, float]:
    """Glass colour and background: what the slide and the scanner add."""
    result = {f"glass_{c}": float(planes.glass[k]) for k, c in enumerate(_CHANNELS)}
    behind = planes.od[regions.background]
    for k, channel in enumerate(_CHANNELS):
        result[f"background_{channel}_od"] = float(behind[:, k].mean())
    return result


def colour_histograms(planes: Planes, mask: Mask, name: str, wanted: tuple[str, ...]) -> dict[str, float]:
    """Square roots of 6-bin histogram shares (the Hellinger map) of optical densities and Lab a, b in one region."""
    values = np.concatenate([planes.od[mask], planes.lab[mask][:, 1:]], axis=1)
    result: dict[str, float] = {}
    for k, (plane, (low, high)) in enumerate(_HISTOGRAMS.items()):
        if plane not in wanted:
            continue
        index = np.clip((values[:, k] - low) * (_BINS / (high - low)), 0, _BINS - 1).astype(np.intp)
        share = np.bincount(index, minlength=_BINS) / len(index)
        result |= {f"{name}_{plane}_bin{b}": float(np.sqrt(v)) for b, v in enumerate(share)}
    return result


def _profile(od: Array, distance: Array, edges: tuple[float, ...], name: str) -> dict[str, float]:
    index = np.digitize(distance, np.asarray(edges[1:], dtype=np.float32)).ravel()
    counts = np.bincount(index, minlength=len(edges) + 1).astype(np.float64)
    result: dict[str, float] = {}
    for k, channel in enumerate(_CHANNELS[:2]):
        sums = np.bincount(index, weights=od[..., k].ravel(), minlength=len(edges) + 1)
        means = sums / np.maximum(counts, 1.0)
        result |= {f"{name}{b}_{channel}_od": float(means[b]) for b in range(len(edges) - 1)}
    return result


def profiles(planes: Planes, regions: Regions) -> dict[str, float]:
    """Mean optical density in rings about the nucleus' centre, and in shells inside and outside its border."""
    rows, columns = np.nonzero(regions.nucleus)
    rings = radius_map(regions.nucleus.shape, (float(rows.mean()), float(columns.mean())))
    side = np.float32(min(regions.nucleus.shape))
    near = window(regions.nucleus, margin=int(_SHELLS[-1] * side) + 2)  # beyond it no shell reaches
    nucleus = regions.nucleus[near]
    border = (ndimage.distance_transform_edt(~nucleus) - ndimage.distance_transform_edt(nucleus)) / side
    return _profile(planes.od, rings, _RINGS, "ring") | _profile(planes.od[near], border, _SHELLS, "shell")
