"""Morphometry: classical colour, texture and shape features of one stained cell, and the segmentation they stand on.

An encoder without weights: every number has a name, a meaning and a unit, and it runs on a laptop. Groups, in the
order of ``FEATURE_NAMES``:

- shape: sizes (logarithms of field fractions), eccentricity, solidity, extent, roundness, holes, Hu moments, lobes and
  thickness from the distance transform, nucleus-to-cell share and position;
- colour of nucleus and cytoplasm: moments and percentiles of the optical densities, Lab a and b, saturation;
- slide: colour of the empty glass, mean optical densities of the background;
- histograms (square roots of bin shares) of optical densities and Lab a, b in cell and cytoplasm;
- texture: local binary patterns at two radii, co-occurrence at two distances, band energies, granules, gradient;
- profiles of optical density: rings about the nucleus' centre, shells about its border.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cytolib.morphometry.colour import Densities, densities, planes
from cytolib.morphometry.segment import Regions, segment
from cytolib.morphometry.shape import shape_features
from cytolib.morphometry.statistics import colour_histograms, field_statistics, profiles, region_statistics
from cytolib.morphometry.texture import texture_features

__all__ = ["FEATURE_NAMES", "IMAGE_SIZE", "Seen", "Sight", "extract", "measure", "regions", "resize", "see"]

IMAGE_SIZE = 128


def resize(image: Image.Image, size: int = IMAGE_SIZE) -> NDArray[np.uint8]:
    """``image`` as (size, size, 3) uint8 RGB: a direct resize, antialiased (Lanczos), with no crop."""
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    if rgb.size != (size, size):
        rgb = rgb.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(rgb)


def _at_size(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"image is {found}; expected a uint8 array (H, W, 3), RGB in 0 to 255")
    if 0 in image.shape:
        raise ValueError(f"image has shape {image.shape}; expected at least one pixel")
    return resize(Image.fromarray(image), size)


@dataclass(frozen=True)
class Seen:
    """An image as the segmentation sees it: its optical densities, and the regions found in them."""

    densities: Densities
    regions: Regions


def see(image: NDArray[np.uint8]) -> Seen:
    """Densities and regions of ``image`` (H, W, 3) uint8, at the size it has."""
    found = densities(image)
    return Seen(found, segment(found))


class Sight:
    """An image (PIL, RGB), and what the segmentation sees of it at a size: looked at once, however many ask."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        self._seen: dict[int, Seen] = {}

    def at(self, size: int = IMAGE_SIZE) -> Seen:
        """What is seen of the image at ``size`` pixels a side."""
        if size not in self._seen:
            self._seen[size] = see(resize(self.image, size))
        return self._seen[size]


def _features(seen: Seen) -> dict[str, float]:
    colours, parts = planes(seen.densities), seen.regions
    return (
        shape_features(parts)
        | region_statistics(colours, parts.nucleus, "nucleus")
        | region_statistics(colours, parts.cytoplasm, "cytoplasm")
        | field_statistics(colours, parts)
        | colour_histograms(colours, parts.cell, "cell", ("red_od", "green_od", "blue_od", "a", "b"))
        | colour_histograms(colours, parts.cytoplasm, "cytoplasm", ("red_od", "a", "b"))
        | texture_features(colours, parts)
        | profiles(colours, parts)
    )


FEATURE_NAMES: tuple[str, ...] = tuple(_features(see(np.full((32, 32, 3), 255, dtype=np.uint8))))


def measure(seen: Seen) -> NDArray[np.float32]:
    """Features (D,) float32 of what is seen of a cell, in the order of ``FEATURE_NAMES``."""
    values = np.fromiter(_features(seen).values(), dtype=np.float64)
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)


def extract(image: NDArray[np.uint8], size: int = IMAGE_SIZE) -> NDArray[np.float32]:
    """Features (D,) float32 of the cell in the middle of ``image``, in the order of ``FEATURE_NAMES``.

    Finite for any image; the same numbers for the same pixels. A mirror or a turn by 90 degrees changes
    them little.

    Args:
        image: (H, W, 3) uint8 RGB; resized to ``size`` pixels a side, since texture windows are in pixels.
        size: pixels a side at which to measure, at least 32.

    Raises:
        ValueError: for another dtype or shape, or a size under 32.
    """
    if size < 32:
        raise ValueError(f"size is {size}; expected at least 32 pixels a side")
    return measure(see(_at_size(image, size)))


def regions(image: NDArray[np.uint8], size: int = IMAGE_SIZE) -> Regions:
    """The masks that ``extract`` measures in, each (size, size) bool, for pictures and checks."""
    return see(_at_size(image, size)).regions
