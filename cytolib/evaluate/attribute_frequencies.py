"""Do synthetic cells of a class have its attributes as often as real ones? Band nuclei, vacuoles, pink granules.

A classifier that sees the class alone does not notice a generator that makes every neutrophil multilobed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype
from sklearn.linear_model import LogisticRegression

from cytolib.classify.attributes import check_attributes, whitening
from cytolib.evaluate.blocks import check_pair

REAL, TRUTH = "real_test", "annotated"  # methods that are no generator
_PENALTY = 0.03  # inverse, on whitened components; frequencies hardly depend on it
_LEAST = 10  # training cells of a value, and annotated test cells of a class
_DRAWS = 1000


def attribute_frequencies(
    X_train: np.ndarray,
    attributes_train: pd.DataFrame,
    X_test: np.ndarray,
    y_test: np.ndarray,
    attributes_test: pd.DataFrame,
    synthetic: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """How often each value of each attribute occurs in the cells of each class, real and synthetic.

    A linear probe for each attribute is fitted on annotated real training cells, and calls the attributes of all other
    cells. Probes err, so synthetic cells belong beside method ``real_test``, test cells as called by the same probe
    (the same bias), and not beside ``annotated``, what the annotators said of them. Both are there: their difference is
    the probe's bias. It may also differ between real and synthetic cells where these lie outside the real ones.

    Args:
        X_train: (N, D) embeddings of training cells; X_test: (M, D) of test cells, of classes ``y_test``.
        attributes_train, attributes_test: N and M rows, a column an attribute, null where not known. Columns of numbers
            are left out.
        synthetic: by method, (K, D) embeddings and (K,) classes.
        seed: of the bootstrap.

    Returns:
        ``label``, ``attribute``, ``value``, ``method``, ``frequency``, ``low``, ``high`` (95 % bootstrap interval over
        cells), ``n`` (cells). A row for each value with at least 10 training cells, also where its frequency is 0, and
        for each class with at least 10 annotated test cells: of other classes a probe knows nothing. Rarer values are
        in no denominator.

    Raises:
        ValueError: if rows or columns do not fit, a method is called like a real set, or no attribute is left.
    """
    X_train, X_test = check_pair(X_train, X_test)
    check_attributes(X_train, attributes_train, X_test, attributes_test)
    if np.shape(y_test) != (len(X_test),):
        raise ValueError(f"y_test has shape {np.shape(y_test)}, expected a class for each of {len(X_test)} cells")
    cells = {REAL: (X_test, np.asarray(y_test))}
    for method, (X, y) in synthetic.items():
        X, _ = check_pair(X, X_train)
        if method in (REAL, TRUTH) or np.shape(y) != (len(X),):
            raise ValueError(
                f"synthetic set {method!r} has {len(X)} cells and classes of shape {np.shape(y)}; expected a class a "
                f"cell, and a name other than {REAL} and {TRUTH}"
            )
        cells[method] = (X, np.asarray(y))
    space = whitening(X_train)
    Z_train = space.fit_transform(X_train)
    projected = {method: space.transform(X) for method, (X, _) in cells.items()}
    rng = np.random.default_rng(seed)
    rows: list[tuple[object, ...]] = []
    for name in attributes_train.columns:
        if is_numeric_dtype(attributes_train[name]):
            continue
        named, asked = (_names(table[name]) for table in (attributes_train, attributes_test))
        counted = named.value_counts()
        values = sorted(counted.index[counted >= _LEAST])
        if len(values) < 2:
            continue
        probe = _fit(Z_train, named, values)
        known = asked.isin(values).to_numpy()
        truth = asked.to_numpy()[known].astype(str)
        classes, counts = np.unique(np.asarray(y_test)[known], return_counts=True)
        found = {TRUTH: (truth, np.asarray(y_test)[known])}
        found |= {method: (probe.predict(Z), cells[method][1]) for method, Z in projected.items()}
        for label in classes[counts >= _LEAST]:
            for method, (called, y) in found.items():
                rows += [(label, name, *row) for row in _shares(called[y == label], values, method, rng)]
    if not rows:
        raise ValueError(
            f"no attribute among {list(attributes_train.columns)} has two values of {_LEAST} training cells and a "
            f"class with {_LEAST} annotated test cells; annotate more cells"
        )
    return pd.DataFrame(rows, columns=["label", "attribute", "value", "method", "frequency", "low", "high", "n"])


def _names(attribute: pd.Series) -> pd.Series:
    """Values as text; null stays null."""
    values = attribute.astype(object)
    return values.where(values.isna(), values.map(str))


def _fit(Z: np.ndarray, attribute: pd.Series, values: list[str]) -> LogisticRegression:
    """The probe of an attribute. Values weigh by their cells: it is frequencies that are asked.

    Logistic regression, because a ridge classifier hardly ever calls a value between two others.
    """
    known = attribute.isin(values).to_numpy()
    return LogisticRegression(C=_PENALTY, max_iter=1000).fit(Z[known], attribute.to_numpy()[known].astype(str))


def _shares(
    called: np.ndarray, values: list[str], method: str, rng: np.random.Generator
) -> Iterator[tuple[object, ...]]:
    """Value, method, frequency, interval and n of every value; nothing for a set without cells of the class."""
    n = len(called)
    if not n:
        return
    shares = np.array([np.mean(called == value) for value in values])
    drawn = rng.multinomial(n, shares / shares.sum(), size=_DRAWS) / n  # the bootstrap over cells, in one draw
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    for i, value in enumerate(values):
        yield value, method, float(shares[i]), float(low[i]), float(high[i]), n


def attribute_gap(frequencies: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Mean total variation distance of attribute frequencies between synthetic and real test cells of a class.

    The distance of an attribute is half the sum over its values of |synthetic - real_test|: the share of cells that
    would have to change. Between finite samples of one distribution it is above 0, so each stands beside its floor:
    what as many real cells, of the frequencies of the test cells, would score.

    Args:
        frequencies: of :func:`attribute_frequencies`. seed: of the bootstrap.

    Returns:
        ``method``, ``label``, ``gap`` (0 to 1), ``low``, ``high``; then ``floor``, the mean over draws of as many real
        cells, and ``floor_high``, which 95 % of them do not pass. The interval resamples the cells of both sides, and
        is shifted to have the value as its mean, for a draw adds a distance of its own. Frequencies do not tell how the
        attributes of a cell hang together; ends (and ``floor_high``) are taken for full dependence, so they are too
        wide rather than too narrow.

    Raises:
        ValueError: if there are no rows of ``real_test``, or no synthetic set.
    """
    methods = [name for name in frequencies["method"].unique() if name not in (REAL, TRUTH)]
    if not methods or REAL not in set(frequencies["method"]):
        raise ValueError(f"frequencies of {methods} without {REAL}, expected both; use attribute_frequencies")
    rng = np.random.default_rng(seed)
    rows = []
    for (method, label), found in frequencies[frequencies["method"].isin(methods)].groupby(["method", "label"]):
        real = frequencies[(frequencies["method"] == REAL) & (frequencies["label"] == label)].set_index("attribute")
        parts = [_distances(made, real.loc[[name]], rng) for name, made in found.groupby("attribute")]
        gap, low, high, floor, floor_high = np.mean(parts, axis=0)
        rows.append((method, label, gap, max(low, 0.0), min(high, 1.0), floor, floor_high))
    return pd.DataFrame(rows, columns=["method", "label", "gap", "low", "high", "floor", "floor_high"])


def _distances(
    made: pd.DataFrame, real: pd.DataFrame, rng: np.random.Generator
) -> tuple[float, float, float, float, float]:
    """Distance of one attribute, low and high end, and mean and 95 % quantile of that of equal distributions."""
    real = real.set_index("value").loc[made["value"]]
    p, q, n, m = made["frequency"].to_numpy(), real["frequency"].to_numpy(), made["n"].iloc[0], real["n"].iloc[0]
    value = float(np.abs(p - q).sum() / 2)
    ours, theirs, fresh = (
        rng.multinomial(size, share / share.sum(), size=_DRAWS) / size for size, share in ((n, p), (m, q), (n, q))
    )
    drawn, floor = (np.abs(a - theirs).sum(axis=1) / 2 for a in (ours, fresh))
    low, high = value + np.quantile(drawn, [0.025, 0.975]) - drawn.mean()
    return value, float(low), float(high), float(floor.mean()), float(np.quantile(floor, 0.95))
