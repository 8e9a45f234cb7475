"""Do synthetic cells look like real ones, as a population? Frechet and kernel distance, precision and recall.

Every figure belongs beside its *floor*: the same metric between real training and real test cells at the same n. All
three depend on n, and none of them sees copying (:mod:`cytolib.evaluate.memorisation` does).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pandas as pd
import scipy.linalg
from sklearn.preprocessing import StandardScaler

FRECHET_COMPONENTS = 64  # of the panel's Frechet distance
BLOCK = 2048  # rows of a block of distances: memory stays linear in the number of cells


def check_pair(A: np.ndarray, B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two finite float64 matrices (cells, dimensions) of equal width, or one sentence that says what is wrong."""
    A, B = np.asarray(A, dtype=np.float64), np.asarray(B, dtype=np.float64)
    if A.ndim != 2 or B.ndim != 2 or A.shape[1] != B.shape[1] or min(len(A), len(B)) < 2:
        raise ValueError(f"sets of shape {A.shape} and {B.shape}, expected two cells or more of the same dimensions")
    if not (np.isfinite(A).all() and np.isfinite(B).all()):
        raise ValueError("a set of embeddings holds NaN or infinity, expected finite numbers; drop those cells")
    return A, B


def frechet_distance(real: np.ndarray, synthetic: np.ndarray, *, n_components: int | None = None) -> float:
    """Squared Frechet distance of two Gaussians, |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) (Heusel et al. 2017).

    In float64; tr (S1 S2)^(1/2) is the sum of the singular values of L1' L2 for S = L L', which needs no square root
    of a matrix that may be singular. ``n_components`` first projects both sets on that many principal components of the
    real one: with fewer cells than about ten a dimension, the full distance measures n, not the generator.
    """
    real, synthetic = check_pair(real, synthetic)
    if n_components is not None:
        centre = real.mean(axis=0)
        _, axes = np.linalg.eigh(np.cov(real, rowvar=False))
        axes = axes[:, ::-1][:, :n_components]
        real, synthetic = (real - centre) @ axes, (synthetic - centre) @ axes
    shift = real.mean(axis=0) - synthetic.mean(axis=0)
    roots = [_covariance_root(A) for A in (real, synthetic)]
    cross = scipy.linalg.svdvals(roots[0].T @ roots[1]).sum()
    spread = sum(float(np.square(root).sum()) for root in roots)
    return float(shift @ shift + spread - 2 * cross)


def _covariance_root(A: np.ndarray) -> np.ndarray:
    """L with L L' = covariance (D, D)."""
    variance, axes = np.linalg.eigh(np.atleast_2d(np.cov(A, rowvar=False)))
    return axes * np.sqrt(variance.clip(0))


def kernel_distance(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy with the cubic kernel (x.y / D + 1)^3 (KID, Binkowski et al. 2018).

    Over all cells rather than over random subsets, in blocks; may be slightly negative for equal distributions.
    """
    real, synthetic = check_pair(real, synthetic)
    m, n = len(real), len(synthetic)
    within = (_kernel_sum(real, real) - _kernel_diagonal(real)) / (m * (m - 1))
    within += (_kernel_sum(synthetic, synthetic) - _kernel_diagonal(synthetic)) / (n * (n - 1))
    return within - 2 * _kernel_sum(real, synthetic) / (m * n)


def _kernel_sum(A: np.ndarray, B: np.ndarray) -> float:
    blocks = (A[start : start + BLOCK] for start in range(0, len(A), BLOCK))
    return float(sum(((block @ B.T / A.shape[1] + 1) ** 3).sum() for block in blocks))


def _kernel_diagonal(A: np.ndarray) -> float:
    return float(((np.einsum("ij,ij->i", A, A) / A.shape[1] + 1) ** 3).sum())


def precision_recall(real: np.ndarray, synthetic: np.ndarray, *, k: int = 5) -> tuple[float, float]:
    """Improved precision and recall (Kynkaanniemi et al. 2019, arXiv 1904.06991).

    Precision: share of synthetic cells within the k-nearest-neighbour ball of some real cell; recall: the reverse.
    Distances are made in blocks of rows, so memory is linear in the number of cells.
    """
    real, synthetic = check_pair(real, synthetic)
    if not 1 <= k < min(len(real), len(synthetic)):
        raise ValueError(f"k is {k}, expected 1 to {min(len(real), len(synthetic)) - 1} (cells of the smaller set - 1)")
    return _covered(synthetic, real, k), _covered(real, synthetic, k)


def _covered(points: np.ndarray, support: np.ndarray, k: int) -> float:
    """Share of points within the k-NN radius of at least one support point."""
    radius = np.concatenate([np.partition(block, k, axis=1)[:, k] for block in _squared_distances(support, support)])
    inside = [(block <= radius).any(axis=1) for block in _squared_distances(points, support)]
    return float(np.concatenate(inside).mean())


def _squared_distances(A: np.ndarray, B: np.ndarray) -> Iterator[np.ndarray]:
    """Squared distances, a block of rows of ``A`` at a time."""
    squares = np.einsum("ij,ij->i", B, B)
    for start in range(0, len(A), BLOCK):
        rows = A[start : start + BLOCK]
        yield (np.einsum("ij,ij->i", rows, rows)[:, None] + squares - 2 * rows @ B.T).clip(0)


def real_floor(
    metric: Callable[[np.ndarray, np.ndarray], float], train: np.ndarray, test: np.ndarray, n: int, *, seed: int = 0
) -> float:
    """``metric(test, n training cells)``: what a perfect generator of n cells would score."""
    if not 1 < n <= len(train):
        raise ValueError(f"n is {n}, expected 2 to {len(train)} (training cells); draw fewer synthetic cells")
    rows = np.sort(np.random.default_rng(seed).choice(len(train), size=n, replace=False))
    return metric(test, train[rows])


def fidelity_table(
    train: np.ndarray, test: np.ndarray, synthetic: Mapping[str, np.ndarray], *, seed: int = 0
) -> pd.DataFrame:
    """All metrics for every set of synthetic cells beside the floor: columns metric, method, value, n.

    Dimensions are standardised by the training cells. Every set, the floor (method ``real_floor``) too, is cut to the
    same n, the smallest of all; which cells stay is a function of ``seed``.
    """
    scaler = StandardScaler().fit(train)
    test = scaler.transform(test)
    sets = {"real_floor": train, **synthetic}
    n = min([len(test), *(len(cells) for cells in sets.values())])
    rng = np.random.default_rng(seed)
    drawn = {name: scaler.transform(X[np.sort(rng.choice(len(X), n, replace=False))]) for name, X in sets.items()}
    rows: list[tuple[str, str, float]] = []
    for method, cells in drawn.items():
        components = min(FRECHET_COMPONENTS, test.shape[1])
        precision, recall = precision_recall(test, cells, k=min(5, n - 1))
        rows += [
            ("frechet_distance_pca", method, frechet_distance(test, cells, n_components=components)),
            ("kernel_distance", method, kernel_distance(test, cells)),
            ("precision", method, precision),
            ("recall", method, recall),
        ]
    return pd.DataFrame(rows, columns=["metric", "method", "value"]).assign(n=n)
