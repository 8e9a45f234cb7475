"""Probes: simple classifiers on frozen embeddings, tuned on real validation cells."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import f_classif
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

DEFAULT_CS: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


def score(y_true: np.ndarray, y_pred: np.ndarray, metric: str = "balanced_accuracy") -> float:
    """Balanced accuracy, macro F1 (over the classes of ``y_true``) or accuracy."""
    if metric == "balanced_accuracy":
        with warnings.catch_warnings():  # a prediction of a class that y_true lacks is an error like any other
            warnings.simplefilter("ignore", UserWarning)
            return float(balanced_accuracy_score(y_true, y_pred))
    if metric == "macro_f1":
        return float(f1_score(y_true, y_pred, labels=np.unique(y_true), average="macro", zero_division=0.0))
    if metric == "accuracy":
        return float(accuracy_score(y_true, y_pred))
    raise ValueError(f"metric is {metric!r}, expected 'balanced_accuracy', 'macro_f1' or 'accuracy'")


def tune_logistic_regression(
    X_train: np.ndarray,
    y_train: np.ndarray,
    X_val: np.ndarray,
    y_val: np.ndarray,
    *,
    Cs: Sequence[float] = DEFAULT_CS,
    class_weight: str | dict | None = None,
    sample_weight: np.ndarray | None = None,
    scaler: StandardScaler | None = None,
    metric: str = "balanced_accuracy",
    max_iter: int = 1000,
    tol: float = 1e-4,
) -> Pipeline:
    """Logistic regression on standardised embeddings, its inverse penalty ``C`` chosen on real validation cells.

    The grid is walked from the strongest to the weakest penalty, each fit starting from the last (warm start), so the
    whole path costs little more than its last fit.

    Args:
        X_train: (N, D) training embeddings, real, synthetic or both. y_train: (N,) classes.
        X_val: (M, D) real validation embeddings. y_val: (M,) classes.
        Cs: inverse penalty strengths; equal scores go to the strongest penalty.
        class_weight: as in scikit-learn. sample_weight: (N,) weights, or None.
        scaler: a fitted StandardScaler to share, so that every arm of a table has the preprocessing of the *real*
            training cells; None fits one on ``X_train``.
        metric: 'balanced_accuracy', 'macro_f1' or 'accuracy'.

    Returns:
        A fitted ``Pipeline(scaler, classifier)`` with the attributes ``C_`` (chosen), ``validation_score_``,
        ``validation_scores_`` (dict, C to score) and ``converged_`` (whether the chosen fit met ``tol``).
    """
    X_train, y_train = _check_cells(X_train, y_train, "X_train")
    X_val, y_val = _check_cells(X_val, y_val, "X_val")
    if len(np.unique(y_train)) < 2:
        raise ValueError(f"y_train holds the single class {y_train[0]!r}, expected at least two; add cells of another")
    if not len(Cs) or min(Cs) <= 0:
        raise ValueError(f"Cs is {list(Cs)}, expected one or more positive numbers")
    scaler = StandardScaler().fit(X_train) if scaler is None else scaler
    # float32 halves the time of a fit and moves no score by more than its tolerance does
    Z_train, Z_val = (np.ascontiguousarray(scaler.transform(X), dtype=np.float32) for X in (X_train, X_val))
    scores: dict[float, float] = {}
    best: LogisticRegression | None = None
    path = LogisticRegression(class_weight=class_weight, max_iter=max_iter, tol=tol, warm_start=True)
    for C in sorted(Cs):
        path.set_params(C=C)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # reported through converged_
            path.fit(Z_train, y_train, sample_weight=sample_weight)
        scores[C] = score(y_val, path.predict(Z_val), metric)
        if best is None or scores[C] > scores[best.C]:
            best = _snapshot(path)
    assert best is not None
    probe = Pipeline([("scaler", scaler), ("classifier", best)])
    probe.C_ = best.C
    probe.validation_score_ = scores[best.C]
    probe.validation_scores_ = scores
    probe.converged_ = bool(np.max(best.n_iter_) < max_iter)
    return probe


def _snapshot(classifier: LogisticRegression) -> LogisticRegression:
    """A copy that later warm-started fits do not touch."""
    copy = LogisticRegression(**classifier.get_params())
    for name in ("coef_", "intercept_", "classes_", "n_iter_"):
        setattr(copy, name, np.array(getattr(classifier, name)))
    copy.n_features_in_ = classifier.n_features_in_
    return copy


def knn_probe(
    X_train: np.ndarray,
    y_train: np.ndarray,
    X_val: np.ndarray,
    y_val: np.ndarray,
    *,
    neighbors: Sequence[int] = (1, 5, 10, 20),
    scaler: StandardScaler | None = None,
    metric: str = "balanced_accuracy",
) -> Pipeline:
    """k nearest neighbours on standardised embeddings, ``k`` chosen on real validation cells.

    Arguments and return value are those of :func:`tune_logistic_regression`, with the attribute ``n_neighbors_`` for
    the chosen ``k``; values of ``neighbors`` above the number of training cells are left out.
    """
    X_train, y_train = _check_cells(X_train, y_train, "X_train")
    X_val, y_val = _check_cells(X_val, y_val, "X_val")
    scaler = StandardScaler().fit(X_train) if scaler is None else scaler
    candidates = [k for k in sorted(neighbors) if 1 <= k <= len(X_train)]
    if not candidates:
        raise ValueError(f"neighbors is {list(neighbors)}, expected one between 1 and {len(X_train)} (cells)")
    Z_train, Z_val = (np.ascontiguousarray(scaler.transform(X), dtype=np.float32) for X in (X_train, X_val))
    classifier = KNeighborsClassifier(algorithm="brute").fit(Z_train, y_train)
    scores = {k: score(y_val, classifier.set_params(n_neighbors=k).predict(Z_val), metric) for k in candidates}
    best = max(candidates, key=lambda k: scores[k])
    probe = Pipeline([("scaler", scaler), ("classifier", classifier.set_params(n_neighbors=best))])
    probe.n_neighbors_ = best
    probe.validation_score_ = scores[best]
    probe.validation_scores_ = scores
    return probe


def rank_dimensions(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Dimensions of (N, D) embeddings, the most telling first: by variance between over within classes (F)."""
    X, y = _check_cells(X, y, "X")
    varies = X.std(axis=0) > 0
    ratios = np.full(X.shape[1], -np.inf)
    ratios[varies] = f_classif(X[:, varies], y)[0]
    return np.argsort(-ratios, kind="stable")


def _check_cells(X: np.ndarray, y: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    X, y = np.asarray(X), np.asarray(y)
    if X.ndim != 2 or len(X) == 0 or len(X) != len(y):
        raise ValueError(f"{name} has shape {X.shape} with {len(y)} labels, expected a row and a label a cell")
    if not np.isfinite(X).all():
        row = int(np.argmax(~np.isfinite(X).all(axis=1)))
        raise ValueError(f"{name}, row {row} holds NaN or infinity, expected finite numbers; drop that cell")
    return X, y
