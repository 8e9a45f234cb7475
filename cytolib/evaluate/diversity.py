"""How many different cells are there in a set? The Vendi score, beside that of as many real cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cytolib.evaluate.blocks import check_pair, row_blocks

Array = NDArray[np.float64]


def vendi_score(X: np.ndarray) -> float:
    """Vendi score of order 1 with the cosine kernel (Friedman & Dieng 2023, arXiv 2210.02410): 1 for equal cells.

    The exponential of the entropy of the eigenvalues of K / n, K the (N, N) matrix of cosines; they are those of the
    (D, D) matrix U'U / n of the unit vectors U, which is summed in blocks of rows. At most min(N, D), and growing with
    n: compare sets of the same n. Blind to how far from the origin cells lie, so it does not see cells that shrank
    towards the mean of a standardised set.

    Raises:
        ValueError: of sets that :func:`~cytolib.evaluate.blocks.check_pair` refuses, of a cell of zeros.
    """
    X, _ = check_pair(X, X)
    values, _ = np.linalg.eigh(_cosine_dual(X))
    return float(np.exp(_entropy(values)))


def vendi_rows(X: np.ndarray) -> Array:
    """(N,) values whose mean is the log of the Vendi score, and whose deviations are its influence function.

    The entropy of rho = U'U / n is -tr(rho log rho) = mean of -u' log(rho) u; to first order, another sample of the
    same cells changes it by these terms alone, so a bootstrap of their mean gives an interval without an eigenvalue
    problem a draw (and cells drawn twice do not lower it, as they lower the score itself).
    """
    X, _ = check_pair(X, X)
    values, axes = np.linalg.eigh(_cosine_dual(X))
    kept = values > values[-1] * 1e-12  # no cell has a part in the others
    axes, logs = axes[:, kept], np.log(values[kept])
    rows = np.empty(len(X))
    for part, block in row_blocks(X):
        rows[part] = -np.square(_unit(block) @ axes) @ logs
    return rows


def vendi_by_class(
    real: np.ndarray, y_real: np.ndarray, synthetic: np.ndarray, y_synthetic: np.ndarray, *, seed: int = 0
) -> pd.DataFrame:
    """Vendi score of each class of the real cells, synthetic beside real, at the same n.

    Returns:
        One row a class: label, n (both are cut to the smaller, at random), value, real (the floor), ratio, and reason:
        one sentence where there is no value, else empty.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for label in np.unique(y_real):
        parts = [np.flatnonzero(np.asarray(y) == label) for y in (y_real, y_synthetic)]
        n = min(map(len, parts))
        row = {"label": label, "n": n, "value": np.nan, "real": np.nan, "ratio": np.nan, "reason": ""}
        if n < 2:
            row["reason"] = f"{n} cells of {label} in a set, a Vendi score needs two; draw more cells of this class"
        else:
            reals, made = (rng.permutation(part)[:n] for part in parts)
            row["value"], row["real"] = vendi_score(synthetic[np.sort(made)]), vendi_score(real[np.sort(reals)])
            row["ratio"] = row["value"] / row["real"]
        rows.append(row)
    return pd.DataFrame(rows)


def _cosine_dual(X: np.ndarray) -> Array:
    """U'U / n (D, D)."""
    total = np.zeros((X.shape[1], X.shape[1]))
    for _, block in row_blocks(X):
        unit = _unit(block)
        total += unit.T @ unit
    return total / len(X)


def _unit(block: Array) -> Array:
    lengths = np.linalg.norm(block, axis=1, keepdims=True)
    if not lengths.all():
        raise ValueError("a cell of zeros has no direction, expected cells off the origin; drop it or standardise")
    return block / lengths


def _entropy(eigenvalues: Array) -> float:
    positive = eigenvalues[eigenvalues > 0]
    return float(-(positive * np.log(positive)).sum())
