"""Bootstrap intervals of metrics between sets of cells: of means over cells, of ranks, and of Frechet distances.

All are percentile intervals and functions of a seed. They speak of the cells that are drawn again, at this n: what else
was fixed (the other set's support, principal axes, the generator) is not in them; seeds of the generator are repeats.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cytolib.evaluate.intervals import Interval
from cytolib.evaluate.moments import EXTRAPOLATION_GROUPS, frechet_of_groups, group_sums

CHUNK = 1 << 22  # numbers drawn at once


def mean_interval(values: np.ndarray, *, draws: int = 1000, level: float = 0.95, seed: int = 0) -> Interval:
    """Mean, low and high end for one value a cell (N,): cells are drawn with replacement."""
    values = _check(values, draws)
    return _percentiles(float(values.mean()), _drawn_means(values, draws, seed), level)


def ratio_interval(
    log_values: np.ndarray, log_reference: np.ndarray, *, draws: int = 1000, level: float = 0.95, seed: int = 0
) -> Interval:
    """exp(mean - mean of the reference) with its ends, for values (N,) and (M,) whose means are logarithms.

    Both sets are drawn again, apart from each other. For ``cytolib.evaluate.diversity.vendi_rows``.
    """
    parts = [_check(values, draws) for values in (log_values, log_reference)]
    drawn = [_drawn_means(values, draws, (seed, k)) for k, values in enumerate(parts)]
    return _percentiles(float(np.exp(parts[0].mean() - parts[1].mean())), np.exp(drawn[0] - drawn[1]), level)


def pairs_won(
    ours: np.ndarray, theirs: np.ndarray, counts: NDArray[np.float64], their_counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(S,) pairs of a value of ours (N,) and one of theirs (M,) in which ours is larger, a tie being half a pair.

    Of S bootstrap samples, which hold each value ``counts`` (S, N) and ``their_counts`` (S, M) times. Cumulative counts
    of the sorted values answer for all pairs at once.
    """
    order = np.argsort(theirs, kind="stable")
    below = np.concatenate([np.zeros((len(counts), 1)), their_counts[:, order].cumsum(axis=1)], axis=1)
    places = [np.searchsorted(theirs[order], ours, side) for side in ("left", "right")]
    return (counts * (below[:, places[0]] + below[:, places[1]]) / 2).sum(axis=1)


def frechet_intervals(
    real: np.ndarray,
    synthetic: np.ndarray,
    *,
    n_components: int | None = None,
    points: int = 3,
    groups: int = EXTRAPOLATION_GROUPS,
    draws: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[Interval, Interval]:
    """The Frechet distance, low and high end; and the same of its value at infinitely many cells (``points`` above 1).

    Random groups of rows of each set are drawn with replacement, and their moments merged: a draw costs what a distance
    of known moments costs, whatever the number of cells. A draw repeats cells, which raises a Frechet distance as fewer
    cells raise it (a plain percentile interval would lie wholly above the value), so draws are shifted to have the
    value as their mean. Where the distributions are equal the interval is too wide, as for every squared distance.

    Args:
        real, synthetic, n_components, points, seed: as in ``moments.frechet_distance_infinity``.
        groups: of random rows in each set; a row a group where cells are fewer.

    Raises:
        ValueError: as ``moments.frechet_distance``, and of no draw or too few groups.
    """
    sizes = [min(groups, len(X)) for X in (real, synthetic)]
    if min(draws, points) < 1 or min(sizes) < max(2, 4 * points):
        raise ValueError(
            f"{min(sizes)} groups of cells, {points} points, {draws} draws; expected {max(2, 4 * points)} groups, "
            "1 point and 1 draw or more"
        )
    sums = group_sums(real, synthetic, n_components=n_components, groups=groups, seed=seed)
    values = frechet_of_groups(*sums, (np.arange(sizes[0]), np.arange(sizes[1])), points)
    rng = np.random.default_rng((seed, 1))
    orders = [(rng.integers(sizes[0], size=sizes[0]), rng.integers(sizes[1], size=sizes[1])) for _ in range(draws)]
    drawn = np.array([frechet_of_groups(*sums, order, points, fast=True) for order in orders])
    drawn += np.array(values) - drawn.mean(axis=0)
    return _percentiles(values[0], drawn[:, 0], level), _percentiles(values[1], drawn[:, 1], level)


def _drawn_means(values: NDArray[np.float64], draws: int, seed: int | tuple[int, int]) -> NDArray[np.float64]:
    """(draws,) means of bootstrap samples, about ``CHUNK`` counts at a time."""
    n, rng = len(values), np.random.default_rng(seed)
    size = max(1, CHUNK // n)
    sizes = [min(size, draws - start) for start in range(0, draws, size)]
    return np.concatenate([rng.multinomial(n, np.full(n, 1 / n), size=part) @ values / n for part in sizes])


def _check(values: np.ndarray, draws: int) -> NDArray[np.float64]:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all() or draws < 1:
        raise ValueError(
            f"values of shape {values.shape} and {draws} draws, expected one finite number a cell, 1 draw or more"
        )
    return values


def _percentiles(value: float, drawn: NDArray[np.float64], level: float) -> Interval:
    low, high = np.quantile(drawn, [0.5 - level / 2, 0.5 + level / 2])
    return value, float(low), float(high)
