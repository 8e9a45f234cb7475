"""Are synthetic cells copies of training cells? Nearest-neighbour answers, in blocks.

They find cells copied word for word, or nearly; none shows that training cells are anonymous (arXiv 2505.01524).
:mod:`cytolib.evaluate.membership` asks the stronger question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import pairwise_distances_argmin_min
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from cytolib.evaluate.blocks import BLOCK, check_pair
from cytolib.evaluate.resample import pairs_won

REGIONS, COMPONENTS = 3, 64  # of the copying statistic, as in the experiments of its paper
_LEAST = 20  # synthetic and test cells of a region of the copying statistic; with fewer it is left out
_FEW = 120  # with fewer cells than this, three regions would be too small to speak
_LEAST_OF_CLASS = 5  # cells of a class, synthetic and test each, for a ratio of its own


def nearest_distance(
    X: np.ndarray, reference: np.ndarray, *, exclude_self: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Euclidean distance of each row of ``X`` to its nearest row of ``reference``, and that row's index.

    ``exclude_self`` is for ``X is reference``: a cell is not its own neighbour, but an exact double of it is. Memory is
    linear in the number of cells. The distance is made from the two rows themselves, so that of a copy is exactly 0.
    """
    if exclude_self:
        search = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(reference)
        nearest = search.kneighbors(return_distance=False)[:, 0]
    else:
        nearest, _ = pairwise_distances_argmin_min(X, reference)
    distance = np.empty(len(X))
    for start in range(0, len(X), BLOCK):
        rows = slice(start, start + BLOCK)
        distance[rows] = np.linalg.norm(X[rows] - reference[nearest[rows]], axis=1)
    return distance, nearest


def dcr_ratio(synthetic: np.ndarray, train: np.ndarray, test: np.ndarray) -> float:
    """Distance to closest record: median distance synthetic to train over median distance test to train.

    About 1 for new cells of the same distribution, near 0 for copies, above 1 for cells too wide. A ratio near 1 shows
    that cells are not copied word for word; it does not show that training cells are anonymous (arXiv 2505.01524).
    """
    synthetic, train = check_pair(synthetic, train)
    test, _ = check_pair(test, train)
    return _ratio(nearest_distance(synthetic, train)[0], nearest_distance(test, train)[0])


def _ratio(distance: np.ndarray, floor: np.ndarray) -> float:
    middle = float(np.median(floor))
    if middle == 0:
        raise ValueError("half the test cells are exact copies of training cells; remove duplicates across the splits")
    return float(np.median(distance)) / middle


def dcr_by_class(
    synthetic: np.ndarray,
    y_synthetic: np.ndarray,
    train: np.ndarray,
    y_train: np.ndarray,
    test: np.ndarray,
    y_test: np.ndarray,
) -> pd.DataFrame:
    """:func:`dcr_ratio` within each class: a generator may copy the few cells of a rare class and no others.

    Returns:
        A row for each class of ``y_synthetic``: ``label``, ``value``, ``n`` (synthetic cells), ``floor_n`` (test
        cells). ``value`` is NaN for a class without training cells, or with fewer than five synthetic or test cells,
        of which a median would say nothing.
    """
    synthetic, train = check_pair(synthetic, train)
    test, _ = check_pair(test, train)
    sets = ((synthetic, y_synthetic, "y_synthetic"), (train, y_train, "y_train"), (test, y_test, "y_test"))
    for cells, labels, name in sets:
        if np.shape(labels) != (len(cells),):
            raise ValueError(f"{name} has shape {np.shape(labels)}, expected a label for each of {len(cells)} cells")
    rows = []
    for label in np.unique(y_synthetic):
        made, known, floor = (cells[np.asarray(labels) == label] for cells, labels, _ in sets)
        enough = len(known) > 0 and min(len(made), len(floor)) >= _LEAST_OF_CLASS
        value = _ratio(nearest_distance(made, known)[0], nearest_distance(floor, known)[0]) if enough else np.nan
        rows.append((label, value, len(made), len(floor)))
    return pd.DataFrame(rows, columns=["label", "value", "n", "floor_n"])


def authenticity(synthetic: np.ndarray, train: np.ndarray) -> float:
    """Share of synthetic cells farther from their nearest training cell than that one is from its own nearest.

    AuthPct of Alaa et al. 2022 (arXiv 2102.08921) as a share; new cells of the same distribution score above 0.5 in
    many dimensions, copies near 0: compare with the same figure for real test cells.
    """
    synthetic, train = check_pair(synthetic, train)
    distance, nearest = nearest_distance(synthetic, train)
    own, _ = nearest_distance(train, train, exclude_self=True)
    return float(np.mean(distance > own[nearest]))


def copying_statistic(
    synthetic: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    *,
    regions: int = REGIONS,
    n_components: int = COMPONENTS,
    seed: int = 0,
) -> float:
    """C_T of Meehan, Chaudhuri & Dasgupta 2020 (arXiv 2004.05675): are synthetic cells nearer to training than test?

    Cells are projected on ``n_components`` principal components of the training cells, and divided into k-means regions
    of those. In each region, the distances of synthetic and of test cells to the nearest training cell of that region
    are compared by the z of the Mann-Whitney test; the result is the mean of z, weighted by the test cells of a region.
    As in the paper, a region in which synthetic cells are too few to compare (20) is left out; so is one with fewer
    than 20 test cells. A single region is never left out.

    Far below 0: copying, or cells drawn to the middle, which lie nearer to training cells as well (recall tells these
    apart). Far above 0: cells too far from all training cells (underfitting). About 0, with a standard deviation of at
    most 1, for new cells of the same distribution. Like every z, it grows with the square root of n.

    Raises:
        ValueError: if no region holds 20 synthetic and 20 test cells, or for arguments that do not fit.
    """
    synthetic, train = check_pair(synthetic, train)
    test, _ = check_pair(test, train)
    if not 1 <= regions <= len(train):
        raise ValueError(f"regions is {regions}, expected 1 to {len(train)} (training cells)")
    if n_components < 1:
        raise ValueError(f"n_components is {n_components}, expected 1 or more; the paper takes {COMPONENTS}")
    made, floor = _region_distances(train, [synthetic, test], regions, n_components, seed)
    parts = _shared_regions(made, floor)
    if not parts:
        raise ValueError(
            f"none of {regions} regions holds {_LEAST} synthetic and {_LEAST} test cells (of {len(synthetic)} and "
            f"{len(test)} in all); lower regions"
        )
    return float(_weighted_z(parts)[0])


Regional = tuple[np.ndarray, np.ndarray]  # (N,) region of each cell, (N,) distance to its nearest training cell there


def _region_distances(
    train: np.ndarray, sets: Sequence[np.ndarray], regions: int, n_components: int, seed: int
) -> list[Regional]:
    """Regions and nearest distances of several sets of cells; the regions are made of the training cells alone."""
    pca = PCA(min(n_components, *train.shape), svd_solver="covariance_eigh").fit(train)
    Z = pca.transform(train)
    clusters = KMeans(regions, n_init=4, random_state=seed).fit(Z)
    found = []
    for X in sets:
        P = pca.transform(X)
        places = clusters.predict(P)
        distance = np.empty(len(P))
        for region in np.unique(places):
            inside = places == region
            distance[inside] = nearest_distance(P[inside], Z[clusters.labels_ == region])[0]
        found.append((places, distance))
    return found


def _shared_regions(made: Regional, floor: Regional) -> list[tuple[np.ndarray, np.ndarray]]:
    """(synthetic, test) distances of every region that has enough of both; a single region has."""
    places = np.union1d(made[0], floor[0])
    parts = [(made[1][made[0] == place], floor[1][floor[0] == place]) for place in places]
    return parts if len(parts) == 1 else [pair for pair in parts if min(map(len, pair)) >= _LEAST]


def _weighted_z(
    parts: list[tuple[np.ndarray, np.ndarray]], draws: int = 0, rng: np.random.Generator | None = None
) -> np.ndarray:
    """(1 + draws,) mean z over regions, weighted by test cells: of the cells as they are, then of bootstrap samples."""
    total, weight = np.zeros(1 + draws), 0
    for made, floor in parts:
        m, n = len(made), len(floor)
        counts = [np.ones((1 + draws, size)) for size in (m, n)]
        if rng is not None:
            for count in counts:
                size = count.shape[1]
                count[1:] = rng.multinomial(size, np.full(size, 1 / size), size=draws)
        pairs = pairs_won(made, np.sort(floor), *counts)  # in which the synthetic cell is the farther one
        total += n * (pairs - m * n / 2) / np.sqrt(m * n * (m + n + 1) / 12)
        weight += n
    return total / weight


def memorisation_table(
    train: np.ndarray, test: np.ndarray, synthetic: Mapping[str, np.ndarray], *, seed: int = 0, draws: int = 200
) -> pd.DataFrame:
    """The three metrics for every set of synthetic cells beside real test cells, with 95 % bootstrap intervals.

    Dimensions are standardised by the training cells. Synthetic sets are cut to the number of test cells. Intervals are
    over synthetic and test cells, for these training cells; of ``copying_statistic`` they say what other cells of the
    same two distributions would score. What real cells score, method ``real_floor``:

    - ``dcr_ratio``: 1 by definition; its interval is the ratio of two bootstrap samples of the test distances, so it
      is where new real cells would fall.
    - ``authenticity``: that of the test cells.
    - ``copying_statistic``: one half of the test cells, drawn at random, against the other; ``n`` is that of a half.
      The statistic takes three regions; a single one where a set has fewer than 120 cells, or where no region holds
      enough of both sets.

    Returns:
        ``metric``, ``method``, ``value``, ``low``, ``high``, ``n``.
    """
    train, test = check_pair(train, test)
    scaler = StandardScaler().fit(train)
    train, test = scaler.transform(train), scaler.transform(test)
    rng = np.random.default_rng(seed)
    sets = {}
    for method, X in synthetic.items():
        X, _ = check_pair(X, train)
        sets[method] = scaler.transform(X[np.sort(rng.choice(len(X), min(len(X), len(test)), replace=False))])
    own, _ = nearest_distance(train, train, exclude_self=True)
    floor, floor_nearest = nearest_distance(test, train)
    rows = []
    for method, cells in {"real_floor": test, **sets}.items():
        distance, nearest = (floor, floor_nearest) if method == "real_floor" else nearest_distance(cells, train)
        medians = [
            np.median(values[rng.integers(len(values), size=(draws, len(values)))], axis=1)
            for values in (distance, floor)
        ]
        ratio = _ratio(distance, floor)
        rows.append(("dcr_ratio", method, ratio, *_percentiles(medians[0] / medians[1]), len(cells)))
        authentic = float(np.mean(distance > own[nearest]))
        drawn = rng.binomial(len(cells), authentic, size=draws) / len(cells)  # the bootstrap of a share
        rows.append(("authenticity", method, authentic, *_percentiles(drawn), len(cells)))
    order = np.random.default_rng((seed, 1)).permutation(len(test))  # whatever the number of methods
    halves = (order[: len(test) // 2], order[len(test) // 2 :])
    for method, parts in _copying_parts(train, test, sets, halves, seed).items():
        values = _weighted_z(parts, draws, rng)
        n = len(halves[0]) if method == "real_floor" else len(sets[method])
        rows.append(("copying_statistic", method, float(values[0]), *_percentiles(values[1:]), n))
    return pd.DataFrame(rows, columns=["metric", "method", "value", "low", "high", "n"])


def _percentiles(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _copying_parts(
    train: np.ndarray,
    test: np.ndarray,
    sets: Mapping[str, np.ndarray],
    halves: tuple[np.ndarray, np.ndarray],
    seed: int,
) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """(synthetic, test) distances by region, for the floor and every set; the test cells are looked up once."""
    regions = 1 if min(len(test) // 2, *map(len, sets.values()), len(train)) < _FEW else REGIONS
    floor, *made = _region_distances(train, [test, *sets.values()], regions, COMPONENTS, seed)
    first, second = ((floor[0][rows], floor[1][rows]) for rows in halves)
    parts = {"real_floor": _shared_regions(first, second)}
    parts |= {method: _shared_regions(cells, floor) for method, cells in zip(sets, made, strict=True)}
    lacking = [method for method in sets if not parts[method]]
    if lacking:
        floor, *made = _region_distances(train, [test, *(sets[method] for method in lacking)], 1, COMPONENTS, seed)
        parts |= {method: _shared_regions(cells, floor) for method, cells in zip(lacking, made, strict=True)}
    return parts
