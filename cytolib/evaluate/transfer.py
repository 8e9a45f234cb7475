"""Label fidelity: does a synthetic cell look like the class that was asked for?"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import norm
from sklearn.pipeline import Pipeline


def label_fidelity(
    probe: Pipeline, synthetic: np.ndarray, y_synthetic: np.ndarray, X_test: np.ndarray, y_test: np.ndarray
) -> pd.DataFrame:
    """TRTS, train on real and test on synthetic cells: the share of each class that a probe calls by its name.

    Each stands beside its floor, the same for real test cells. Well below the floor, labels are wrong; above it, cells
    are more typical of their class than real ones (variety is missing, or guidance too strong), which is no merit.

    The reverse, TSTR (the classification accuracy score of Ravuri & Vinyals 2019, arXiv 1905.10887), needs no function:
    ``classification_metrics(y_test, probe.predict(X_test))`` of a probe that was trained on the synthetic cells.

    Args:
        probe: a fitted classifier of real training cells.
        synthetic: (N, D) embeddings, y_synthetic: (N,) the classes that were asked for.
        X_test: (M, D) real test cells, y_test: (M,) their classes.

    Returns:
        A row for each class of ``y_synthetic``, and ``all``, the mean over those classes that have test cells:
        ``label``, ``recall``, ``low``, ``high``, ``n``, and of real test cells ``floor``, ``floor_low``,
        ``floor_high``, ``floor_n``. Intervals are of 95 %, after Wilson; of the means, the normal one. A class without
        test cells has a floor of NaN.

    Raises:
        ValueError: if a class was asked for that the probe does not know, or none of the classes has test cells.
    """
    y_synthetic, y_test = np.asarray(y_synthetic), np.asarray(y_test)
    unknown = sorted(set(y_synthetic.tolist()) - set(probe.classes_.tolist()))
    if unknown:
        raise ValueError(f"y_synthetic holds {unknown}, which the probe was not trained on; leave those cells out")
    shared = set(y_synthetic.tolist()) & set(y_test.tolist())
    if not shared:
        raise ValueError(
            "no class of y_synthetic is in y_test, expected one at least; take test cells of these classes"
        )
    right = [probe.predict(X) == y for X, y in ((synthetic, y_synthetic), (X_test, y_test))]
    rows = []
    for label in np.unique(y_synthetic):
        made, floor = right[0][y_synthetic == label], right[1][y_test == label]
        recall, expected = (wilson_interval(int(hits.sum()), len(hits)) for hits in (made, floor))
        rows.append((label, *recall, len(made), *expected, len(floor)))
    columns = ["label", "recall", "low", "high", "n", "floor", "floor_low", "floor_high", "floor_n"]
    table = pd.DataFrame(rows, columns=columns)
    return pd.concat([table, _mean_of_classes(table[table["label"].isin(shared)])], ignore_index=True)


def _mean_of_classes(table: pd.DataFrame) -> pd.DataFrame:
    """The row ``all``: every class of equal weight, with the normal interval of a mean of independent shares."""
    row: dict[str, object] = {"label": "all"}
    for share, low, high, n in (("recall", "low", "high", "n"), ("floor", "floor_low", "floor_high", "floor_n")):
        value = float(table[share].mean())
        variance = (table[share] * (1 - table[share]) / table[n]).sum() / len(table) ** 2
        half = float(norm.ppf(0.975) * np.sqrt(variance))
        row |= {share: value, low: max(value - half, 0.0), high: min(value + half, 1.0), n: int(table[n].sum())}
    return pd.DataFrame([row], columns=table.columns)


def wilson_interval(hits: int, n: int, *, level: float = 0.95) -> tuple[float, float, float]:
    """A share, and the low and high end of its interval after Wilson (1927); three NaN where n is 0."""
    if n == 0:
        return np.nan, np.nan, np.nan
    z, share = float(norm.ppf(0.5 + level / 2)), hits / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return share, float(max(centre - half, 0.0)), float(min(centre + half, 1.0))
