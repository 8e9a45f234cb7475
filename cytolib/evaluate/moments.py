"""Means and covariances of sets of cells, made in blocks and merged, and the Frechet distance between them.

The Frechet distance of n cells is biased upwards by about c / n, and c grows with the square of the dimension: with
few cells it measures n. So it stands beside its floor at the same n, is cut to principal components, or is extrapolated
to infinitely many cells (:func:`frechet_distance_infinity`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cytolib.evaluate.blocks import check_finite, row_blocks

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Moments:
    """What a Frechet distance needs of n cells in D dimensions; sets that were counted apart are added with ``+``."""

    n: int
    mean: Array  #: (D,)
    scatter: Array  #: (D, D), sum of the outer products of the cells less their mean

    @classmethod
    def of(cls, X: np.ndarray | Iterable[np.ndarray]) -> Moments:
        """Moments of an array or memory map (N, D), or of blocks of rows (n, D) that come one after another.

        Raises:
            ValueError: if there is no row, a block is no matrix, widths differ, or a number is not finite.
        """
        total: Moments | None = None
        for block in [X] if isinstance(X, np.ndarray) else X:
            block = np.asarray(block)
            if block.ndim != 2 or (total is not None and block.shape[1] != len(total.mean)):
                width = "dimensions" if total is None else len(total.mean)
                raise ValueError(f"a block of rows has shape {block.shape}, expected (cells, {width})")
            check_finite(block)
            for _, rows in row_blocks(block):
                mean = rows.mean(axis=0)
                rows -= mean
                part = cls(len(rows), mean, rows.T @ rows)
                total = part if total is None else total + part
        if total is None:
            raise ValueError("a set of 0 cells, expected one cell or more; check what was selected")
        return total

    def __add__(self, other: Moments) -> Moments:
        """Moments of both sets together (Chan, Golub & LeVeque 1983, pairwise update): no sum of large squares."""
        n = self.n + other.n
        shift = other.mean - self.mean
        scatter = self.scatter + other.scatter + np.outer(shift, shift) * (self.n * other.n / n)
        return Moments(n, self.mean + shift * (other.n / n), scatter)

    @property
    def covariance(self) -> Array:
        """(D, D), unbiased (divided by n - 1)."""
        if self.n < 2:
            raise ValueError(f"a covariance of {self.n} cell, expected two cells or more")
        return self.scatter / (self.n - 1)

    def projected(self, centre: Array, axes: Array) -> Moments:
        """Moments of ``(X - centre) @ axes``; axes is (D, C)."""
        return Moments(self.n, (self.mean - centre) @ axes, axes.T @ self.scatter @ axes)


def frechet_distance(
    real: np.ndarray | Moments, synthetic: np.ndarray | Moments, *, n_components: int | None = None
) -> float:
    """Squared Frechet distance of two Gaussians, |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) (Heusel et al. 2017).

    Args:
        real, synthetic: (N, D) embeddings, memory maps too (read once, in blocks), or their :class:`Moments`.
        n_components: first project both sets on that many principal components of the real one: with fewer cells than
            about ten a dimension, the full distance measures n, not the generator.

    Raises:
        ValueError: of sets of different widths or fewer than two cells, of NaN, of ``n_components`` out of range.
    """
    real, synthetic = (
        X if isinstance(X, Moments) else Moments.of(np.asarray(X)) for X in _check_widths(real, synthetic)
    )
    if n_components is not None:
        axes = principal_axes(real, n_components)
        real, synthetic = (part.projected(real.mean, axes) for part in (real, synthetic))
    return float(gaussian_frechet(real.mean, real.covariance, synthetic.mean, synthetic.covariance))


def _check_widths(real: Any, synthetic: Any) -> tuple[Any, Any]:
    """Both sets as they are, if they have two cells or more of the same dimensions."""
    shapes = [(X.n, len(X.mean)) if isinstance(X, Moments) else np.shape(X) for X in (real, synthetic)]
    if any(len(shape) != 2 for shape in shapes) or shapes[0][1] != shapes[1][1] or min(shapes)[0] < 2:
        raise ValueError(
            f"sets of shape {shapes[0]} and {shapes[1]}, expected two cells or more of the same dimensions"
        )
    return real, synthetic


def principal_axes(moments: Moments, n_components: int) -> Array:
    """(D, n_components) directions of the largest variance, the largest first."""
    if not 1 <= n_components <= len(moments.mean):
        raise ValueError(f"n_components is {n_components}, expected 1 to {len(moments.mean)} (dimensions)")
    _, axes = np.linalg.eigh(moments.covariance)
    return axes[:, ::-1][:, :n_components]


def gaussian_frechet(
    mean: Array, covariance: Array, other_mean: Array, other_covariance: Array, *, fast: bool = False
) -> Array:
    """Squared Frechet distance of Gaussians (..., D), (..., D, D), over the leading axes.

    tr (S1 S2)^(1/2) is the sum of the singular values of L1' L2 for S = L L', which needs no square root of a matrix
    that may be singular. ``fast`` takes them as roots of the eigenvalues of L1' S2 L1: half the time, and half the
    digits of those near 0, which is enough for the draws of an interval.
    """
    root = _root(covariance)
    rotated = np.swapaxes(root, -1, -2)
    if fast:
        cross = np.sqrt(np.linalg.eigvalsh(rotated @ other_covariance @ root).clip(0)).sum(axis=-1)
    else:
        cross = np.linalg.svd(rotated @ _root(other_covariance), compute_uv=False).sum(axis=-1)
    spread = np.trace(covariance + other_covariance, axis1=-2, axis2=-1)
    return np.square(mean - other_mean).sum(axis=-1) + spread - 2 * cross


def _root(covariance: Array) -> Array:
    """L with L L' = covariance."""
    variance, axes = np.linalg.eigh(covariance)
    return axes * np.sqrt(variance.clip(0))[..., None, :]


@dataclass(frozen=True, eq=False)
class GroupSums:
    """Sums over G random groups of cells about one centre: any choice of groups has its moments by a matrix product."""

    n: Array  #: (G,) cells
    first: Array  #: (G, C) sums of the cells
    second: Array  #: (G, C, C) sums of their outer products

    def moments(self, weights: Array) -> tuple[Array, Array, Array]:
        """Cells (...), mean (..., C) and covariance (..., C, C) of the groups with weights (..., G)."""
        n = weights @ self.n
        mean = weights @ self.first / n[..., None]
        second = (weights @ self.second.reshape(len(self.n), -1)).reshape(*mean.shape, -1)
        outer = mean[..., :, None] * mean[..., None, :] * n[..., None, None]
        return n, mean, (second - outer) / (n - 1)[..., None, None]


def group_sums(
    real: np.ndarray, synthetic: np.ndarray, *, n_components: int | None, groups: int, seed: int
) -> tuple[GroupSums, GroupSums]:
    """Both sets in ``groups`` groups of random rows (fewer where cells are fewer), about the mean of the real one."""
    real, synthetic = _check_widths(real, synthetic)
    whole = Moments.of(np.asarray(real))
    # Projected first: G matrices of all dimensions would not fit for a large encoder.
    axes = np.eye(len(whole.mean)) if n_components is None else principal_axes(whole, n_components)
    sums = []
    for X, rng in zip((real, synthetic), np.random.default_rng(seed).spawn(2), strict=True):
        rows = np.array_split(rng.permutation(len(X)), min(groups, len(X)))
        places = (np.asarray(X)[np.sort(part)] for part in rows)
        parts = [Moments.of((cells.astype(np.float64) - whole.mean) @ axes) for cells in places]
        n, means = np.array([part.n for part in parts], dtype=np.float64), np.stack([part.mean for part in parts])
        second = np.stack([part.scatter + part.n * np.outer(part.mean, part.mean) for part in parts])
        sums.append(GroupSums(n, means * n[:, None], second))
    return sums[0], sums[1]


def frechet_of_groups(
    real: GroupSums,
    synthetic: GroupSums,
    order: tuple[NDArray[np.int64], NDArray[np.int64]],
    points: int,
    *,
    fast: bool = False,
) -> tuple[float, float]:
    """Frechet distance of the groups in two lists, and its value at infinitely many such cells (the same at 1 point).

    Point j deals both lists into j parts and takes the mean over the parts, so that it uses every cell; the line is in
    1 / m + 1 / n.
    """
    inverse, values = np.empty(points), np.empty(points)
    for j in range(1, points + 1):
        moments = []
        for sums, groups in zip((real, synthetic), order, strict=True):
            weights = np.zeros((j, len(sums.n)))
            np.add.at(weights, (np.arange(len(groups)) % j, groups), 1)
            moments.append(sums.moments(weights))
        (m, *of_real), (n, *of_synthetic) = moments
        inverse[j - 1] = np.mean(1 / m + 1 / n)
        values[j - 1] = gaussian_frechet(*of_real, *of_synthetic, fast=fast).mean()
    return float(values[0]), float(values[0] if points == 1 else np.polyfit(inverse, values, 1)[1])


def frechet_distance_infinity(
    real: np.ndarray, synthetic: np.ndarray, *, n_components: int | None = None, points: int = 3, seed: int = 0
) -> float:
    """Frechet distance extrapolated to infinitely many cells (Chong & Forsyth 2020, arXiv 1911.07023).

    The distance is taken at n, n / 2, ..., n / ``points`` cells of *both* sets (m and n may differ) and a straight line
    in 1 / n gives its value at 0. A size is the mean over disjoint random subsets which together are the whole set: the
    line is less noisy than over one subset a size. May be slightly negative for equal distributions. The line is
    straight only where n / ``points`` is several times the dimension: pass ``n_components`` otherwise.

    Raises:
        ValueError: as :func:`frechet_distance`, and of fewer than 4 cells a part.
    """
    n = min(len(real), len(synthetic))
    if points < 2 or n < 4 * points:
        raise ValueError(f"points is {points} for {n} cells, expected 2 or more and at least {4 * points} cells")
    sums = group_sums(real, synthetic, n_components=n_components, groups=EXTRAPOLATION_GROUPS, seed=seed)
    return frechet_of_groups(*sums, (np.arange(len(sums[0].n)), np.arange(len(sums[1].n))), points)[1]


EXTRAPOLATION_GROUPS = 60  # of equal size for parts of 1, 2, 3, 4, 5 and 6


def frechet_by_class(
    real: np.ndarray,
    y_real: np.ndarray,
    synthetic: np.ndarray,
    y_synthetic: np.ndarray,
    *,
    n_components: int | None = None,
    cells_per_dimension: int = 10,
    floor: tuple[np.ndarray, np.ndarray] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Frechet distance within each class of the real cells, and why there is none where cells are too few.

    Args:
        real, synthetic: (N, D) embeddings with classes (N,). n_components: principal components of the real class.
        cells_per_dimension: cells needed in both sets for each dimension (or component).
        floor: other real cells and their classes (training cells beside test cells), scored like synthetic ones.

    Returns:
        One row a class: label, n (cells of each set: all are cut to the same number), value, floor (where given), and
        reason: one sentence where the value is NaN, else empty.
    """
    dimensions = np.shape(real)[1] if n_components is None else n_components
    sets = [(real, y_real), (synthetic, y_synthetic), *([floor] if floor is not None else [])]
    needed = max(2, cells_per_dimension * dimensions)
    rng = np.random.default_rng(seed)
    rows = []
    for label in np.unique(y_real):
        parts = [np.flatnonzero(np.asarray(y) == label) for _, y in sets]
        n = min(len(part) for part in parts)
        values = {"value": np.nan} if floor is None else {"value": np.nan, "floor": np.nan}
        row = {"label": label, "n": n, **values, "reason": ""}
        if n < needed:
            fewer = n // cells_per_dimension
            row["reason"] = (
                f"{n} cells of {label} for {dimensions} dimensions, a Frechet distance needs {needed}; use kernel_test"
                + (f", or n_components up to {fewer}" if fewer else "")
            )
        else:
            cut = [X[np.sort(rng.permutation(part)[:n])] for part, (X, _) in zip(parts, sets, strict=True)]
            row["value"] = frechet_distance(cut[0], cut[1], n_components=n_components)
            if floor is not None:
                row["floor"] = frechet_distance(cut[0], cut[2], n_components=n_components)
        rows.append(row)
    return pd.DataFrame(rows)
