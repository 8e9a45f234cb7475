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


def _cut(draws: list[float], tile: np.ndarray, height: int, width: int) -> np.ndarray:
    """The window of the tile that three uniform draws name, mirrored or not: a view, so it must not be written to."""
    down, right, mirror = draws
    top, left = int(down * (TILE - height + 1)), int(right * (TILE - width + 1))
    window = tile[top : top + height, left : left + width]
    return window[:: 1 if mirror < 0.5 else -1, :: 1 if mirror % 0.5 < 0.25 else -1]


def texture(rng: np.random.Generator, height: int, width: int, wavelength_px: float) -> np.ndarray:
    """Band-pass noise (height, width) float32 of zero mean and unit variance; wavelength in px, at least 2."""
    return _cut(rng.random(3).tolist(), _tile(_step(wavelength_px)), height, width)


def crossfade(
    rng: np.random.Generator, height: int, width: int, first_px: float, second_px: float, share: float
) -> np.ndarray:
    """A texture on its way from one wavelength (share 0) to another (share 1), of unit variance all the way.

    It takes as many random numbers as `texture`, and at share 0 and 1 is what `texture` gives.
    """
    draws = rng.random(3).tolist()
    first, second = _step(first_px), _step(second_px)
    if first == second or share <= 0:
        return _cut(draws, _tile(first), height, width)
    if share >= 1:
        return _cut(draws, _tile(second), height, width)
    # The two are independent: weights whose squares sum to 1 keep the variance.
    angle = share * math.pi / 2
    noise = np.float32(math.cos(angle)) * _cut(draws, _tile(first), height, width)
    noise += np.float32(math.sin(angle)) * _cut(draws, _tile(second), height, width)
    return noise


def white(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """White noise (height, width) float32 of zero mean and unit variance."""
    return _cut(rng.random(3).tolist(), _tile(-1), height, width)


def carpet(rng: np.random.Generator, height: int, width: int, wavelength_px: float | None) -> np.ndarray:
    """A texture (white noise for None) of any size: the tile laid again and again, which is seamless and repeats."""
    tile = _tile(-1 if wavelength_px is None else _step(wavelength_px))
    top, left = (int(draw * TILE) for draw in rng.random(2))
    rows, columns = (np.arange(height) + top) % TILE, (np.arange(width) + left) % TILE
    return tile[np.ix_(rows, columns)]


def _step(wavelength_px: float) -> int:
    """The tile nearest to a wavelength."""
    return round(_GRID * math.log2(min(max(wavelength_px, 2.0), 128.0)))
