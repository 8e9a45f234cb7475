"""Nearest-neighbour metrics between real and synthetic cells: precision and recall, density and coverage.

A set's support is the union of the balls around its cells, each as wide as the distance to the k-th nearest other cell
of the set. Distances are made in square tiles: memory does not grow with the number of cells, time with its square.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cytolib.evaluate.blocks import check_pair, row_blocks

Array = NDArray[np.float64]
SLACK = 1 + 1e-10  # of squared radii: a cell on the rim is inside, however a tile's sums were rounded


def density_coverage(real: np.ndarray, synthetic: np.ndarray, *, k: int = 5) -> tuple[float, float]:
    """Density and coverage alone (:func:`prdc`): only real cells have balls, so a million synthetic cells may stand
    against a few thousand real ones.
    """
    real, synthetic = check_pair(real, synthetic)
    rows = _inside(real, synthetic, k, knn_radii(real, k=k), None)
    return float(rows["density"].mean()), float(rows["coverage"].mean())


def prdc(real: np.ndarray, synthetic: np.ndarray, *, k: int = 5) -> dict[str, float]:
    """Precision, recall, density and coverage of (M, D) real and (N, D) synthetic cells, from the same distances.

    ``precision``: share of synthetic cells within the k-nearest-neighbour ball of some real cell; ``recall``: the
    reverse (Kynkaanniemi et al. 2019, arXiv 1904.06991). ``density``: real balls that hold a synthetic cell, a
    synthetic cell, over k (about 1 for equal distributions, unbounded for cells crowded where real ones are);
    ``coverage``: share of real balls that hold a synthetic cell (Naeem et al. 2020, arXiv 2002.09797).
    """
    return {name: float(rows.mean()) for name, rows in prdc_rows(real, synthetic, k=k).items()}


def prdc_rows(
    real: np.ndarray, synthetic: np.ndarray, *, k: int = 5, real_radii: Array | None = None
) -> dict[str, Array]:
    """What the four metrics are means of: precision and density (N,) a synthetic cell, recall and coverage (M,) a real
    one; all but density are 0 or 1.

    Args:
        real: (M, D). synthetic: (N, D). k: which neighbour sets the radius, 1 to cells of the smaller set - 1.
        real_radii: :func:`knn_radii` of the real cells at the same k, where several sets are scored against them.
    """
    real, synthetic = check_pair(real, synthetic)
    _check_k(k, min(len(real), len(synthetic)))
    real_radii = knn_radii(real, k=k) if real_radii is None else real_radii
    return _inside(real, synthetic, k, real_radii, knn_radii(synthetic, k=k))


def knn_radii(X: np.ndarray, *, k: int = 5) -> Array:
    """(N,) distance of each row of ``X`` (N, D) to its k-th nearest other row (0 where k rows equal it)."""
    X, _ = check_pair(X, X)
    _check_k(k, len(X))
    centre = _centre(X)
    radii = np.empty(len(X))
    for rows, A in row_blocks(X, centre):
        nearest = np.full((len(A), k), np.inf)
        squares = np.einsum("ij,ij->i", A, A)
        for columns, B in row_blocks(X, centre):
            squared = _squared_distances(A, squares, B)
            if columns.start == rows.start:
                np.fill_diagonal(squared, np.inf)
            if squared.shape[1] > k:
                squared = np.partition(squared, k - 1, axis=1)[:, :k]
            nearest = np.partition(np.concatenate([nearest, squared], axis=1), k - 1, axis=1)[:, :k]
        radii[rows] = np.sqrt(nearest[:, k - 1])
    return radii


def _inside(
    real: np.ndarray, synthetic: np.ndarray, k: int, real_radii: Array, synthetic_radii: Array | None
) -> dict[str, Array]:
    """One pass over all real-synthetic distances; no recall without the radii of the synthetic cells."""
    if real_radii.shape != (len(real),):
        raise ValueError(f"real_radii has shape {real_radii.shape}, expected ({len(real)},), a radius a real cell")
    centre = _centre(real)
    reach = np.square(real_radii) * SLACK
    other_reach = None if synthetic_radii is None else np.square(synthetic_radii) * SLACK
    balls = np.zeros(len(synthetic))
    covered, recalled = np.zeros(len(real), bool), np.zeros(len(real), bool)
    for columns, B in row_blocks(synthetic, centre):
        squares = np.einsum("ij,ij->i", B, B)
        for rows, A in row_blocks(real, centre):
            squared = _squared_distances(B, squares, A)
            within = squared <= reach[rows]
            balls[columns] += np.count_nonzero(within, axis=1)
            covered[rows] |= within.any(axis=0)
            if other_reach is not None:
                recalled[rows] |= (squared <= other_reach[columns, None]).any(axis=0)
    found = {"precision": (balls > 0).astype(np.float64)}
    if other_reach is not None:
        found["recall"] = recalled.astype(np.float64)
    return found | {"density": balls / k, "coverage": covered.astype(np.float64)}


def _squared_distances(A: Array, squares: Array, B: Array) -> Array:
    """(m, n) squared distances of the rows of two blocks; ``squares`` (m,) are the squared norms of ``A``."""
    squared = A @ B.T
    squared *= -2
    squared += squares[:, None]
    squared += np.einsum("ij,ij->i", B, B)
    return squared.clip(0, out=squared)


def _centre(X: np.ndarray) -> Array:
    """A place among the cells: distances of cells far from the origin would lose digits."""
    return np.asarray(X[: min(len(X), 1000)], dtype=np.float64).mean(axis=0)


def _check_k(k: int, smaller: int) -> None:
    if not 1 <= k < smaller:
        raise ValueError(f"k is {k}, expected 1 to {smaller - 1} (cells of the smaller set - 1)")
