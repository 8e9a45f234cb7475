"""Seeds of cells, and Gaussian noise that is a pure function of a cell's seed."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def cell_seeds(count: int, seed: int) -> np.ndarray:
    """(count,) int64 seeds of the cells of one call, (seed << 32) + k: no two calls of other seeds share a cell.

    Raises:
        ValueError: if ``seed`` is not from 0 to 2^31 - 1.
    """
    if not 0 <= seed < 2**31:
        raise ValueError(f"seed is {seed}, expected a whole number from 0 to 2^31 - 1")
    return np.arange(count, dtype=np.int64) + (seed << 32)


def noise_from_seeds(seeds: np.ndarray, dimensions: int) -> np.ndarray:
    """Standard normal noise (N, D) float32 whose row k depends on ``seeds[k]`` alone.

    Counter-based, so that all cells are drawn at once: dimension j of a cell is word j of the SplitMix64 stream
    (Steele, Lea & Flood 2014) of its seed, mapped through the normal quantile function.
    """
    seeds = np.asarray(seeds).astype(np.uint64)
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is the point
        streams = _mix(seeds + _GOLDEN)[:, None]
        words = _mix(streams + _GOLDEN * np.arange(1, dimensions + 1, dtype=np.uint64)[None, :])
    uniform = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return ndtri(uniform).astype(np.float32)


def _mix(words: np.ndarray) -> np.ndarray:
    """The SplitMix64 finaliser: every input bit changes every output bit with probability near one half."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
