"""Colour planes of one stained cell: optical density, Lab, saturation, stain channels, all relative to the glass.

Measuring against the image's own background (the empty glass) rather than against white takes most of a
scanner's lamp and white balance out of the numbers, as absorbance measurements do (Beer-Lambert).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import color

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

MAX_OD = np.float32(2.5)


@dataclass(frozen=True)
class Densities:
    """What segmentation needs of one image, each plane (H, W) float32, unless noted.

    Attributes:
        rgb: (H, W, 3) the image in [0, 1].
        glass: (3,) colour of the empty background in [0, 1].
        od: (H, W, 3) optical density per channel against the glass, in [-0.2, 2.5].
        dye: how much nuclear stain a pixel holds: the optical density of red and green together.
    """

    rgb: Array
    glass: Array
    od: Array
    dye: Array


@dataclass(frozen=True)
class Planes(Densities):
    """And what else features are measured in.

    Attributes:
        lab: (H, W, 3) CIE Lab of the glass-normalised image, divided by 100.
        saturation: HSV saturation of the glass-normalised image, in [0, 1].
    """

    lab: Array
    saturation: Array


def glass_colour(rgb: Array) -> Array:
    """Colour (3,) of the empty glass: the mode of the bright half of the green channel and the median RGB there."""
    green = (rgb[..., 1] * 63.999).astype(np.intp)
    counts = np.bincount(green.ravel(), minlength=64).astype(np.float64)
    median = int(np.searchsorted(counts.cumsum(), counts.sum() / 2))
    smooth = np.convolve(counts, [1, 2, 3, 2, 1], mode="same")
    mode = median + int(smooth[median:].argmax())
    glass = rgb[np.abs(green - mode) <= 2].T
    return np.array([np.median(channel) for channel in np.ascontiguousarray(glass)], dtype=np.float32)


def densities(image: NDArray[np.uint8]) -> Densities:
    """Optical densities of ``image`` (H, W, 3) uint8; defined (finite) for any image, black ones too."""
    rgb = image.astype(np.float32) / np.float32(255)
    glass = np.maximum(glass_colour(rgb), np.float32(0.1))
    od = np.minimum(-np.log(_relative(rgb, glass)), MAX_OD)
    dye = ndimage.gaussian_filter(od[..., 0] + np.float32(0.5) * od[..., 1], 0.7, truncate=3.0)
    return Densities(rgb, glass, od, dye)


def planes(known: Densities) -> Planes:
    """All colour planes, defined like ``densities``."""
    clipped = np.minimum(_relative(known.rgb, known.glass), np.float32(1))
    lab = (color.rgb2lab(clipped) / np.float32(100)).astype(np.float32)
    red, green, blue = (clipped[..., k] for k in range(3))  # a reduction over an axis of three is many times slower
    highest, lowest = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    saturation: Array = np.divide(highest - lowest, np.maximum(highest, np.float32(0.02)), dtype=np.float32)
    return Planes(known.rgb, known.glass, known.od, known.dye, lab, saturation)


def _relative(rgb: Array, glass: Array) -> Array:
    """Intensity against the glass, never black."""
    return np.clip(rgb / glass, np.float32(0.004), np.float32(1.2))
