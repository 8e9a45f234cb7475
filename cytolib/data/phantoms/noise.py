"""Banks of band-pass noise, made once a process: a texture cut out of one costs microseconds, a filter milliseconds."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

TILE = 384  # px; larger than any cell patch or image, so that a crop never wraps
BANDWIDTH = 0.6  # octaves (standard deviation): narrower looks like a lattice, wider like fog
_GRID = 2  # wavelengths are kept at this many steps an octave


@lru_cache(maxsize=64)
def _tile(step: int) -> np.ndarray:
    """Gaussian noise (TILE, TILE) of unit variance around one wavelength, 2**(step / 2) px; step -1 is white."""
    rng = np.random.default_rng([20230, step + 1])
    field = rng.standard_normal((TILE, TILE))
    if step >= 0:
        frequency = np.hypot(np.fft.fftfreq(TILE)[:, None], np.fft.rfftfreq(TILE)[None, :])
        octaves = np.log2(np.maximum(frequency, 1e-9) * 2.0 ** (step / _GRID))
        field = np.fft.irfft2(np.fft.rfft2(field) * np.exp(-0.5 * (octaves / BANDWIDTH) ** 2), s=field.shape)
        field /= field.std()
    # On a coarse grid, so that the last bit of another machine's Fourier transform does not show in an image.
    tile = (np.round(field * 256) / 256).astype(np.float32)
    tile.setflags(write=False)
    return tile


def _cut(rng: np.random.Generator, tile: np.ndarray, height: int, width: int) -> np.ndarray:
    """A random window of the tile, mirrored or not: a view, so it must not be written to."""
    down, right, mirror = rng.random(3).tolist()
    top, left = int(down * (TILE - height + 1)), int(right * (TILE - width + 1))
    window = tile[top : top + height, left : left + width]
    return window[:: 1 if mirror < 0.5 else -1, :: 1 if mirror % 0.5 < 0.25 else -1]


def texture(rng: np.random.Generator, height: int, width: int, wavelength_px: float) -> np.ndarray:
    """Band-pass noise (height, width) float32 of zero mean and unit variance; wavelength in px, at least 2."""
    step = round(_GRID * math.log2(min(max(wavelength_px, 2.0), 128.0)))
    return _cut(rng, _tile(step), height, width)


def white(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """White noise (height, width) float32 of zero mean and unit variance."""
    return _cut(rng, _tile(-1), height, width)
