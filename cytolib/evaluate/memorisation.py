"""Are synthetic cells copies of training cells? Nearest-neighbour answers, in blocks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from sklearn.metrics import pairwise_distances_argmin_min
from sklearn.preprocessing import StandardScaler

from cytolib.evaluate.fidelity import BLOCK, check_pair


def nearest_distance(
    X: np.ndarray, reference: np.ndarray, *, exclude_self: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Euclidean distance of each row of ``X`` to its nearest row of ``reference``, and that row's index.

    ``exclude_self`` is for ``X is reference``: a cell is not its own neighbour. Memory: one block of distances.
    """
    if not exclude_self:
        nearest, distance = pairwise_distances_argmin_min(X, reference)
        return distance, nearest
    distances, indices = np.empty(len(X)), np.empty(len(X), dtype=np.int64)
    squares = np.einsum("ij,ij->i", reference, reference)
    for start in range(0, len(X), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(X)))
        squared = squares[rows, None] + squares - 2 * X[rows] @ reference.T
        squared[np.arange(len(rows)), rows] = np.inf
        indices[rows] = squared.argmin(axis=1)
        distances[rows] = np.linalg.norm(X[rows] - reference[indices[rows]], axis=1)
    return distances, indices


def dcr_ratio(synthetic: np.ndarray, train: np.ndarray, test: np.ndarray) -> float:
    """Distance to closest record: median distance synthetic to train over median distance test to train.

    About 1 for new cells of the same distribution, near 0 for copies, above 1 for cells too wide. A ratio near 1 shows
    that cells are not copied word for word; it does not show that training cells are anonymous (arXiv 2505.01524).
    """
    synthetic, train = check_pair(synthetic, train)
    test, _ = check_pair(test, train)
    floor = float(np.median(nearest_distance(test, train)[0]))
    if floor == 0:
        raise ValueError("half the test cells are exact copies of training cells; remove duplicates across the splits")
    return float(np.median(nearest_distance(synthetic, train)[0])) / floor


def authenticity(synthetic: np.ndarray, train: np.ndarray) -> float:
    """Share of synthetic cells farther from their nearest training cell than that one is from its own nearest.

    AuthPct of Alaa et al. 2022 (arXiv 2102.08921) as a share; new cells of the same distribution score above 0.5 in
    many dimensions, copies near 0: compare with the same figure for real test cells.
    """
    synthetic, train = check_pair(synthetic, train)
    distance, nearest = nearest_distance(synthetic, train)
    own, _ = nearest_distance(train, train, exclude_self=True)
    return float(np.mean(distance > own[nearest]))


def memorisation_table(
    train: np.ndarray, test: np.ndarray, synthetic: Mapping[str, np.ndarray], *, seed: int = 0
) -> pd.DataFrame:
    """Both metrics for every set of synthetic cells beside real test cells: columns metric, method, value, n.

    Dimensions are standardised by the training cells. Synthetic sets are cut to the number of test cells; real test
    cells (method ``real_floor``) have a ratio of 1 by definition.
    """
    scaler = StandardScaler().fit(train)
    train, test = scaler.transform(train), scaler.transform(test)
    rng = np.random.default_rng(seed)
    floor = authenticity(test, train)
    rows = [("dcr_ratio", "real_floor", 1.0, len(test)), ("authenticity", "real_floor", floor, len(test))]
    for method, X in synthetic.items():
        n = min(len(X), len(test))
        cells = scaler.transform(X[np.sort(rng.choice(len(X), n, replace=False))])
        rows.append(("dcr_ratio", method, dcr_ratio(cells, train, test), n))
        rows.append(("authenticity", method, authenticity(cells, train), n))
    return pd.DataFrame(rows, columns=["metric", "method", "value", "n"])
