"""Texture of nucleus and cytoplasm: local binary patterns, co-occurrence, band energies, gradients, granules.

Every quantity is summed over four (co-occurrence) or eight (patterns) directions, so that a turn by 90 degrees or a
mirror changes nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cytolib.morphometry.colour import Array, Mask, Planes
from cytolib.morphometry.segment import Regions, window

_LEVELS = 16
_SIGMAS = (0.8, 1.6, 3.2, 6.4)  # pixels
_REACH = 19  # three times the widest sigma
_CIRCLE = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
_DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))


def _uniform_codes() -> NDArray[np.uint8]:
    """Rotation-invariant uniform pattern (0 to 9) of each of the 256 codes (Ojala, Pietikäinen & Mäenpää 2002)."""
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
    changes = (bits != np.roll(bits, 1, axis=1)).sum(axis=1)
    return np.where(changes <= 2, bits.sum(axis=1), 9).astype(np.uint8)


_UNIFORM = _uniform_codes()


def _shifted(padded: NDArray, margin: int, dy: int, dx: int, shape: tuple[int, ...]) -> NDArray:
    return padded[margin + dy : margin + dy + shape[0], margin + dx : margin + dx + shape[1]]


def binary_patterns(plane: Array, radius: int) -> NDArray[np.uint8]:
    """Rotation-invariant uniform local binary pattern (H, W) of ``plane`` on the 8 neighbours at ``radius`` pixels."""
    padded = np.pad(plane, radius, mode="edge")
    code = np.zeros(plane.shape, dtype=np.uint8)
    for bit, (dy, dx) in enumerate(_CIRCLE):
        neighbour = _shifted(padded, radius, dy * radius, dx * radius, plane.shape)
        code |= (neighbour >= plane + np.float32(0.01)).astype(np.uint8) << np.uint8(bit)
    return _UNIFORM[code]


def cooccurrence(levels: NDArray[np.intp], mask: Mask, distance: int) -> NDArray[np.float64]:
    """Symmetric, normalised grey-level co-occurrence matrix (16, 16) over pairs of pixels both inside ``mask``."""
    counts = np.zeros(_LEVELS * _LEVELS)
    height, width = levels.shape
    for dy, dx in _DIRECTIONS:
        y, x = dy * distance, dx * distance
        if y >= height or abs(x) >= width:
            continue
        a = (slice(0, height - y), slice(max(0, -x), width - max(0, x)))
        b = (slice(y, height), slice(max(0, x), width - max(0, -x)))
        both = mask[a] & mask[b]
        counts += np.bincount(levels[a][both] * _LEVELS + levels[b][both], minlength=_LEVELS * _LEVELS)
    matrix = counts.reshape(_LEVELS, _LEVELS)
    matrix = matrix + matrix.T
    total = matrix.sum()
    return matrix / total if total > 0 else np.eye(_LEVELS) / _LEVELS


def haralick(matrix: NDArray[np.float64]) -> dict[str, float]:
    """Contrast, homogeneity, entropy and correlation of a co-occurrence matrix (Haralick 1973)."""
    i = np.arange(_LEVELS)
    gap = i[:, None] - i[None, :]
    contrast = float((matrix * gap**2).sum())
    marginal = matrix.sum(axis=1)
    mean = float(marginal @ i)
    variance = float(marginal @ (i - mean) ** 2)
    present = matrix[matrix > 0]
    return {
        "log_contrast": float(np.log(contrast + 0.05)),
        "homogeneity": float((matrix / (1 + gap**2)).sum()),
        "entropy": float(-(present * np.log(present)).sum()),
        "correlation": 1.0 - 0.5 * contrast / (variance + 1e-3),
    }


def _log_sd(values: Array) -> float:
    return float(np.log(values.std() + 0.003))


def texture_features(planes: Planes, regions: Regions) -> dict[str, float]:
    """All texture features; windows are in pixels, so images come at the encoder's own size."""
    # every filter needs only the cell and the reach of the widest blur around it
    near = window(regions.cell | regions.cytoplasm | regions.nucleus, margin=_REACH)
    grey = planes.od[near][..., 1]
    lab = planes.lab[near]
    parts = {"nucleus": regions.nucleus[near], "cytoplasm": regions.cytoplasm[near]}
    result: dict[str, float] = {}
    for radius, wanted in ((1, parts), (3, {"cell": regions.cell[near]})):
        patterns = binary_patterns(grey, radius)
        for name, mask in wanted.items():
            share = np.bincount(patterns[mask], minlength=10) / mask.sum()
            result |= {f"{name}_lbp{radius}_{k}": float(np.sqrt(v)) for k, v in enumerate(share)}
    levels = np.clip(grey * (_LEVELS / 2.5), 0, _LEVELS - 1).astype(np.intp)
    for distance in (1, 3):
        for name, mask in parts.items():
            found = haralick(cooccurrence(levels, mask, distance))
            result |= {f"{name}_glcm{distance}_{k}": v for k, v in found.items()}
    result |= band_features({"grey": grey, "chroma": lab[..., 1] - lab[..., 2]}, parts)
    slope = np.hypot(ndimage.sobel(grey, axis=0), ndimage.sobel(grey, axis=1))
    for name, mask in parts.items():
        result[f"{name}_gradient_mean"] = float(np.log(slope[mask].mean() + 0.01))
    return result


def band_features(channels: dict[str, Array], parts: dict[str, Mask]) -> dict[str, float]:
    """Energy and skew of difference-of-Gaussian bands; density of dark and bright spots (granules, vacuoles)."""
    result: dict[str, float] = {}
    for channel, plane in channels.items():
        blurred = [plane] + [ndimage.gaussian_filter(plane, s, truncate=3.0) for s in _SIGMAS]
        for band in range(4):
            detail = blurred[band] - blurred[band + 1]
            for name, mask in parts.items():
                values = detail[mask]
                result[f"{name}_{channel}_band{band}"] = _log_sd(values)
                if band in (1, 2):
                    deviation = values - values.mean()
                    result[f"{name}_{channel}_skew{band}"] = float(
                        np.cbrt((deviation * deviation * deviation).mean()) / (values.std() + 0.003)
                    )
        if channel == "grey":
            detail = blurred[1] - blurred[2]
            dark = (detail == ndimage.maximum_filter(detail, size=3)) & (detail > 0.04)
            bright = (detail == ndimage.minimum_filter(detail, size=3)) & (detail < -0.04)
            for name, mask in parts.items():
                result[f"{name}_dark_spots"] = float(np.sqrt(dark[mask].mean()))
                result[f"{name}_bright_spots"] = float(np.sqrt(bright[mask].mean()))
    return result
