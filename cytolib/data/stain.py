"""Stain as optical density, for real and drawn images alike: measuring it, and changing it as a laboratory would.

Beer-Lambert: a stain of concentration c and optical density vector v lets through I = I0 exp(-c v) of the light I0 that
comes through the empty glass, so that optical densities, -log(I / I0), add up over stains and double when a stain
doubles (Ruifrok & Johnston, Quantification of histochemical staining by color deconvolution, Anal Quant Cytol Histol
23:291-299, 2001). Grey levels are taken for light, as is usual there; a camera's gamma is not undone.

Nothing here assumes which stains were used, so it serves every Romanowsky variant (Giemsa, May-Gruenwald, Wright, ...).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

Image = NDArray[np.uint8]
FloatArray = NDArray[np.float32]


def estimate_background(image: Image) -> FloatArray:
    """Colour (3,) float32 in grey levels of the empty glass: median RGB at the brightest common level of green.

    Every stain takes green light, so the glass is the brightest level that much of the picture has: the last peak of
    the histogram that is at least a third as high as the highest of the bright half, which may be the red cells'. A
    brightest pixel would be noise or a reflection. An image without empty glass gives its palest large part instead.
    image: (H, W, 3) uint8. Raises TypeError or ValueError for anything else.
    """
    _check_image(image)
    green = image[..., 1]
    counts = np.bincount(green.ravel(), minlength=256)
    smooth = np.convolve(counts, np.hanning(15)[1:-1], mode="same")
    median = int(np.median(green))
    level = np.arange(256)
    beside = np.pad(smooth, 1)
    peak = (smooth >= beside[:-2]) & (smooth >= beside[2:]) & (level >= median)
    peak[median:] &= smooth[median:] >= smooth[median:].max() / 3
    mode = int(level[peak].max()) if peak.any() else median + int(smooth[median:].argmax())
    glass = np.median(image[np.abs(green.astype(np.int16) - mode) <= 6], axis=0)
    return np.maximum(glass, 1).astype(np.float32)  # no light at all is no background to measure against


def optical_density(image: Image, background: ArrayLike | None = None) -> FloatArray:
    """Optical density (H, W, 3) float32, natural logarithm, against the empty glass; a little below 0 where brighter.

    image: (H, W, 3) uint8; black counts as half a grey level, hence at most log(510). background: colour (3,) of the
    glass in grey levels, above 0; None estimates it. Raises TypeError or ValueError for anything else.
    """
    _check_image(image)
    glass = estimate_background(image) if background is None else _colour(background)
    return np.log(np.maximum(glass, np.float32(0.5)) / np.maximum(image, np.float32(0.5)))


def from_optical_density(density: FloatArray, background: ArrayLike) -> Image:
    """Image (H, W, 3) uint8 of an optical density (H, W, 3) over glass of colour (3,); the inverse to half a level."""
    light = _colour(background) * np.exp(-np.asarray(density, np.float32))
    return np.clip(np.rint(light), 0, 255).astype(np.uint8)


def jitter_stain(
    image: Image,
    rng: np.random.Generator,
    strength: float = 0.12,
    channel: float = 0.05,
    mixing: float = 0.03,
    background: ArrayLike | None = None,
) -> Image:
    """The same cell from another batch of stain: optical density times a random matrix near 1, glass as it was.

    strength: standard deviation of the factor on all three densities (more or less stain), channel: of the factor on
    each (bluer or redder dyes), mixing: of the six matrix entries that carry density from one channel to another.
    All zero gives the image itself. image: (H, W, 3) uint8. Raises TypeError or ValueError for bad arguments.
    """
    for name, value in (("strength", strength), ("channel", channel), ("mixing", mixing)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}, expected a standard deviation from 0 to 1; pass for example 0.1")
    glass = estimate_background(image) if background is None else _colour(background)
    draws = rng.standard_normal(10)
    matrix = mixing * draws[:9].reshape(3, 3)
    matrix[np.diag_indices(3)] = np.exp(strength * draws[9] + channel * draws[[0, 4, 8]])
    density = optical_density(image, glass)
    return from_optical_density(density @ matrix.astype(np.float32), glass)


def defocus(image: Image, blur_px: float) -> Image:
    """Gaussian blur of standard deviation `blur_px` pixels: of light, as a lens blurs, not of optical density.

    A blurred dark spot therefore loses more density than it hands to its surroundings. image: (H, W, 3) uint8.
    Raises TypeError or ValueError for bad arguments.
    """
    _check_image(image)
    if not 0 <= blur_px <= 64:
        raise ValueError(f"blur_px is {blur_px}, expected a standard deviation of 0 to 64 pixels; pass for example 1.5")
    light = ndimage.gaussian_filter(image.astype(np.float32), (blur_px, blur_px, 0), mode="nearest")
    return np.rint(light).astype(np.uint8)


def _check_image(image: Image) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        found = getattr(image, "dtype", type(image).__name__)
        raise TypeError(f"image is {found}, expected a uint8 array (H, W, 3); pass np.asarray(image.convert('RGB'))")
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"image has shape {image.shape}, expected (H, W, 3) RGB; pass one colour image")


def _colour(background: ArrayLike) -> FloatArray:
    glass = np.asarray(background, np.float32)
    if glass.shape != (3,) or not ((glass > 0) & (glass <= 255)).all():
        found = np.asarray(background).tolist()
        raise ValueError(
            f"background is {found}, expected three grey levels above 0 and up to 255; None estimates them"
        )
    return glass
