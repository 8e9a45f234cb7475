"""What embeddings know: linear probes for attributes of a cell that have a name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_numeric_dtype
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeClassifierCV, RidgeCV
from sklearn.metrics import balanced_accuracy_score, r2_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

_ALPHAS = np.logspace(-1, 4, 11)
_COMPONENTS = 128  # enough for a linear probe, and small enough that a dozen of them take seconds
_LEAST = 10  # cells of a value, in training and test each; rarer values are left out
_DRAWS = 200
_SHUFFLES = 5


def attribute_probes(
    X_train: NDArray[np.float32],
    attributes_train: pd.DataFrame,
    X_test: NDArray[np.float32],
    attributes_test: pd.DataFrame,
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """How well each attribute can be read off the embeddings with a straight line.

    Skill is R² for numbers, and for categories the balanced accuracy rescaled so that guessing is 0 and no error is 1;
    with a 95 % bootstrap interval over test cells, and beside it the mean skill of the same probe on shuffled training
    values, which should be about 0.

    Args:
        X_train: (N, D) embeddings; X_test: (M, D).
        attributes_train: N rows, a column an attribute, numbers or categories; null where not known.
        attributes_test: M rows with the same columns.
        seed: of the bootstrap and the shuffling.

    Returns:
        ``attribute``, ``kind`` (number or category), ``skill``, ``low``, ``high``, ``shuffled``, ``n`` (test cells);
        the best known first. Attributes with a single value, or with too few cells, are left out.

    Raises:
        ValueError: if rows or columns do not fit.
    """
    check_attributes(X_train, attributes_train, X_test, attributes_test)
    space = whitening(X_train).fit(X_train)
    Z_train, Z_test = space.transform(X_train), space.transform(X_test)
    rows = []
    for name in attributes_train.columns:
        found = _probe(Z_train, attributes_train[name], Z_test, attributes_test[name], seed)
        if found:
            rows.append({"attribute": name, **found})
    columns = ["attribute", "kind", "skill", "low", "high", "shuffled", "n"]
    return pd.DataFrame(rows, columns=columns).sort_values("skill", ascending=False, ignore_index=True)


def check_attributes(X_train: np.ndarray, train: pd.DataFrame, X_test: np.ndarray, test: pd.DataFrame) -> None:
    """Refuse tables of attributes that have not one row a cell, or not the same columns."""
    if len(X_train) != len(train) or len(X_test) != len(test):
        raise ValueError(
            f"{len(X_train)} and {len(X_test)} embeddings, {len(train)} and {len(test)} rows of attributes; expected "
            "one row a cell"
        )
    if list(train.columns) != list(test.columns):
        raise ValueError("training and test attributes have other columns; take both from one table")


def whitening(X: np.ndarray) -> Pipeline:
    """The unfitted map of (N, D) embeddings to the whitened components that probes of attributes read."""
    return make_pipeline(StandardScaler(), PCA(min(_COMPONENTS, *X.shape), whiten=True, random_state=0))


def _probe(
    Z_train: NDArray[Any], train: pd.Series, Z_test: NDArray[Any], test: pd.Series, seed: int
) -> dict[str, Any] | None:
    """Skill, interval and control of one attribute; None where it cannot be asked."""
    number = is_numeric_dtype(train)
    known, asked = train.notna().to_numpy(), test.notna().to_numpy()
    if not number:
        common = (set(part.value_counts()[lambda n: n >= _LEAST].index) for part in (train, test))
        enough = set.intersection(*common)
        known, asked = known & train.isin(enough).to_numpy(), asked & test.isin(enough).to_numpy()
    y, truth = (
        np.asarray(s[rows].to_numpy(), dtype=float if number else str) for s, rows in ((train, known), (test, asked))
    )
    if min(len(y), len(truth)) < _LEAST or len(np.unique(y)) < 2 or len(np.unique(truth)) < 2:
        return None
    rng = np.random.default_rng(seed)
    called = _fit(number, Z_train[known], y).predict(Z_test[asked])
    drawn = [rng.integers(0, len(truth), len(truth)) for _ in range(_DRAWS)]
    skills = [_skill(number, truth[rows], called[rows]) for rows in drawn if len(np.unique(truth[rows])) > 1]
    shuffled = [_fit(number, Z_train[known], rng.permutation(y)).predict(Z_test[asked]) for _ in range(_SHUFFLES)]
    low, high = np.quantile(skills, [0.025, 0.975])
    return {
        "kind": "number" if number else "category",
        "skill": _skill(number, truth, called),
        "low": float(low),
        "high": float(high),
        "shuffled": float(np.mean([_skill(number, truth, wrong) for wrong in shuffled])),
        "n": len(truth),
    }


def _fit(number: bool, Z: NDArray[Any], y: NDArray[Any]) -> Any:
    """A ridge probe, its penalty chosen by leave-one-out on the training cells."""
    return (RidgeCV(_ALPHAS) if number else RidgeClassifierCV(_ALPHAS, class_weight="balanced")).fit(Z, y)


def _skill(number: bool, truth: NDArray[Any], called: NDArray[Any]) -> float:
    if number:
        return float(r2_score(truth, called))
    return float(balanced_accuracy_score(truth, called, adjusted=True))
