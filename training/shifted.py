"""Validation cells as another laboratory might show them: how well classes survive another stain and camera.

Each simulated laboratory has one colour of its light, one strength and tint of its stain (Beer-Lambert: optical
densities are multiplied), one sharpness and one magnification, all drawn once from a seed. Real cells of other
laboratories are opened for results only; this is what may be chosen by.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

SITES = 4
SEED = 4040


def shifted(image: NDArray[np.uint8], site: int) -> NDArray[np.uint8]:
    """The image (H, W, 3) as laboratory ``site`` shows it."""
    rng = np.random.default_rng([SEED, site])
    light = np.exp(rng.uniform(-0.12, 0.12, 3) - 0.08)
    stain = np.exp(rng.uniform(-0.35, 0.35) + rng.uniform(-0.25, 0.25, 3))
    sigma, zoom = rng.uniform(0.0, 1.5), np.exp(rng.uniform(-0.25, 0.25))
    seen = np.asarray(_magnified(Image.fromarray(image), zoom).filter(ImageFilter.GaussianBlur(sigma)))
    density = -np.log((seen + 1.0) / 256.0)
    return (256.0 * light * np.exp(-density * stain) - 1.0).clip(0, 255).round().astype(np.uint8)


def _magnified(image: Image.Image, zoom: float) -> Image.Image:
    """The middle magnified; beyond the frame, where it shrinks, its mirror image."""
    side = image.size[0]
    pad = math.ceil(side * max(0.0, 1 / zoom - 1) / 2)
    wide = Image.fromarray(np.pad(np.asarray(image), ((pad, pad), (pad, pad), (0, 0)), mode="reflect"))
    edge = (side + 2 * pad - side / zoom) / 2
    box = (edge, edge, edge + side / zoom, edge + side / zoom)
    return wide.resize((side, side), Image.Resampling.BICUBIC, box=box)
