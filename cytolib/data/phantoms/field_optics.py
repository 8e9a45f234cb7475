"""A field through the microscope: as a single cell (optics.py), with a focal plane that may be tilted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from cytolib.data.phantoms.noise import carpet
from cytolib.data.phantoms.optics import Exposure, Site, blur, kernel, to_pixels, transmitted

#: Painted beyond each side of the field: more than any blur reaches, and no object's window is cut, so that the same
#: objects come out whatever the focus.
MARGIN_UM = 20.0
STEP_UM = 0.45  # between the sharp and blurred pictures that stand for every defocus


@dataclass(frozen=True)
class FocalPlane:
    """Defocus (standard deviation of a blur, micrometres) over the field: |offset + slope . (x, y)|."""

    offset_um: float
    slope: tuple[float, float] = (0.0, 0.0)  # micrometres of blur a micrometre of field

    def defocus_um(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """At points in micrometres from the middle of the field."""
        return np.abs(self.offset_um + self.slope[0] * x + self.slope[1] * y)

    def worst_um(self, half_um: tuple[float, float]) -> float:
        """The largest defocus in a field of half width and half height `half_um`."""
        return abs(self.offset_um) + abs(self.slope[0]) * half_um[0] + abs(self.slope[1]) * half_um[1]


def random_focal_plane(half_um: tuple[float, float], rng: np.random.Generator) -> FocalPlane:
    """Mostly in focus, sometimes soft on one side: half a micrometre of blur from the middle to the edge at most."""
    tilt = 0.5 * rng.beta(1, 3) / max(half_um)
    angle = rng.uniform(0, 2 * np.pi)
    return FocalPlane(float(min(rng.exponential(0.06), 0.5)), (tilt * math.cos(angle), tilt * math.sin(angle)))


def expose_field(
    stains: np.ndarray,
    margin: int,
    um_per_px: float,
    half_um: tuple[float, float],
    plane: FocalPlane,
    site: Site,
    shot: Exposure,
    rng: np.random.Generator,
) -> np.ndarray:
    """Image (H, W, 3) uint8 of stain maps (4, H + 2 margin, W + 2 margin)."""
    light = _defocused(transmitted(stains, site, shot), margin, um_per_px, plane, plane.worst_um(half_um))
    taps = kernel(site.blur_um / um_per_px, site.sharpen)
    spare = margin - (len(taps) - 1)
    light = blur(light[:, spare : light.shape[1] - spare, spare : light.shape[2] - spare], taps)
    light *= shot.background.astype(np.float32)[:, None, None]
    height, width = light.shape[1:]
    if site.vignette:
        down, across = (np.linspace(-1, 1, side, dtype=np.float32) ** 2 for side in (height, width))
        light *= 1 - np.float32(site.vignette / 2) * (down[:, None] + across)
    light += np.float32(0.7 * site.noise) * carpet(rng, height, width, 3.0)
    for channel in light:
        channel += np.float32(0.6 * site.noise) * carpet(rng, height, width, None)
    return to_pixels(light)


def _defocused(light: np.ndarray, margin: int, um_per_px: float, plane: FocalPlane, worst_um: float) -> np.ndarray:
    """Light (3, h, w) blurred by as much as each place is out of focus: between the two nearest of a few blurs."""
    x, y = (
        ((np.arange(side) - (side - 1) / 2) * um_per_px).astype(np.float32) for side in (light.shape[2], light.shape[1])
    )
    level = plane.defocus_um(x[None, :], y[:, None]) / STEP_UM
    mixed = np.zeros_like(light)
    for k in range(math.ceil(worst_um / STEP_UM + 1e-9) + 1):
        share = np.clip(1 - np.abs(level - k), 0, 1).astype(np.float32)
        if not share.any():
            continue
        sigma = k * STEP_UM / um_per_px
        blurred = ndimage.gaussian_filter(light, (0, sigma, sigma), mode="nearest", truncate=3.0) if k else light
        mixed += share * blurred
    return mixed
