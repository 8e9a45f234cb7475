"""Do synthetic cells look like real ones, as a population? All metrics of fidelity and diversity in one table.

Every figure belongs beside its *floor*: the same metric between real training and real test cells at the same n. Most
depend on n, and none of them sees copying (:mod:`cytolib.evaluate.memorisation` does).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pandas as pd
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from cytolib.evaluate.blocks import check_pair
from cytolib.evaluate.diversity import vendi_rows
from cytolib.evaluate.kernels import kernel_test
from cytolib.evaluate.neighbours import knn_radii, prdc_rows
from cytolib.evaluate.resample import frechet_intervals, mean_interval, ratio_interval

FRECHET_COMPONENTS = 64  # of the panel's Frechet distance


def real_floor(
    metric: Callable[[np.ndarray, np.ndarray], float], train: np.ndarray, test: np.ndarray, n: int, *, seed: int = 0
) -> float:
    """``metric(test, n training cells)``: what a perfect generator of n cells would score."""
    if not 1 < n <= len(train):
        raise ValueError(f"n is {n}, expected 2 to {len(train)} (training cells); draw fewer synthetic cells")
    rows = np.sort(np.random.default_rng(seed).choice(len(train), size=n, replace=False))
    return metric(test, train[rows])


@threadpool_limits.wrap(limits=1)  # of its many small matrices: threads that share each are many times slower
def fidelity_table(
    train: np.ndarray, test: np.ndarray, synthetic: Mapping[str, np.ndarray], *, seed: int = 0, draws: int = 200
) -> pd.DataFrame:
    """All metrics for every set of synthetic cells beside the floor: columns metric, method, value, low, high, n.

    Dimensions are standardised by the training cells. Every set, the floor (method ``real_floor``) too, is cut to the
    same n, the smallest of all; which cells stay is a function of ``seed``. ``low`` and ``high`` are ends of 95 %
    bootstrap intervals of ``draws`` draws (NaN for the p value of the kernel distance): over both sets for the Frechet
    and kernel distances and the ratio of Vendi scores, over the cells that the metric is a mean of for the others.

    Raises:
        ValueError: of NaN, of sets of other widths, of fewer than 12 cells in the smallest set.
    """
    train, test = check_pair(train, test)
    scaler = StandardScaler().fit(train)
    test = scaler.transform(test)
    sets = {"real_floor": train, **synthetic}
    n = min([len(test), *(len(cells) for cells in sets.values())])
    rng = np.random.default_rng(seed)
    k = min(5, n - 1)
    drawn = {name: scaler.transform(X[np.sort(rng.choice(len(X), n, replace=False))]) for name, X in sets.items()}
    radii = knn_radii(test, k=k)
    same_n = vendi_rows(test if len(test) == n else test[np.sort(rng.choice(len(test), n, replace=False))])
    rows = []
    for method, cells in drawn.items():
        for metric, (value, low, high) in _metrics(test, cells, k, radii, same_n, seed, draws):
            rows.append((metric, method, value, low, high))
    return pd.DataFrame(rows, columns=["metric", "method", "value", "low", "high"]).assign(n=n)


def _metrics(
    test: np.ndarray, cells: np.ndarray, k: int, radii: np.ndarray, vendi_of_test: np.ndarray, seed: int, draws: int
) -> Iterator[tuple[str, tuple[float, float, float]]]:
    components = min(FRECHET_COMPONENTS, test.shape[1])
    here, at_infinity = frechet_intervals(test, cells, n_components=components, draws=draws, seed=seed)
    yield "frechet_distance_pca", here
    yield "frechet_distance_infinity", at_infinity
    kernel = kernel_test(test, cells, draws=draws, seed=seed)
    yield "kernel_distance", (kernel.value, kernel.low, kernel.high)
    yield "kernel_p_value", (kernel.p_value, np.nan, np.nan)
    found = prdc_rows(test, cells, k=k, real_radii=radii)
    for name in ("precision", "recall", "density", "coverage"):
        yield name, mean_interval(found[name], draws=draws, seed=seed)
    yield "vendi_ratio", ratio_interval(vendi_rows(cells), vendi_of_test, draws=draws, seed=seed)
