"""Probes: simple classifiers on frozen embeddings, tuned on real validation cells."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import f_classif
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

Predict = Callable[[np.ndarray], np.ndarray]  #: (M, D) embeddings to (M,) classes
DEFAULT_CS: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


def balanced_accuracy(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """Mean recall over the classes of ``y_true``; calling a class that it lacks is an error like any other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return float(balanced_accuracy_score(y_true, y_pred))


@threadpool_limits.wrap(limits=1)  # threads that share so small matrices take up to ten times as long
def tune_logistic_regression(
    X_train: np.ndarray,
    y_train: np.ndarray,
    X_val: np.ndarray,
    y_val: np.ndarray,
    *,
    Cs: Sequence[float] = DEFAULT_CS,
    class_weight: str | dict | None = None,
    scaler: StandardScaler | None = None,
    max_iter: int = 1000,
    tol: float = 1e-4,
) -> Pipeline:
    """Logistic regression on standardised embeddings; its inverse penalty ``C`` has the best validation score.

    The score is the balanced accuracy of real validation cells.

    The grid is walked from the strongest to the weakest penalty, each fit starting from the last (warm start), so the
    whole path costs little more than its last fit.

    Args:
        X_train: (N, D) training embeddings, real, synthetic or both. y_train: (N,) classes.
        X_val: (M, D) real validation embeddings. y_val: (M,) classes.
        Cs: inverse penalty strengths; equal scores go to the strongest penalty.
        class_weight, max_iter, tol: as in scikit-learn.
        scaler: a fitted StandardScaler to share, so that every arm of a table has the preprocessing of the *real*
            training cells; None fits one on ``X_train``.

    Returns:
        A fitted ``Pipeline(scaler, classifier)`` with the attributes ``C_`` (chosen), ``validation_score_``,
        ``validation_scores_`` (dict, C to score) and ``converged_`` (whether the chosen fit met ``tol``).

    Raises:
        ValueError: for cells that do not fit or are not finite, a single class, or a penalty that is not positive.
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
            path.fit(Z_train, y_train)
        scores[C] = balanced_accuracy(y_val, path.predict(Z_val))
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


def adjust_logits(probe: Pipeline, y_train: np.ndarray) -> Predict:
    """A fitted probe called by argmax of log p(y | x) - log p(y), p(y) the frequencies of ``y_train`` (N,).

    The post-hoc logit adjustment of Menon et al. (arXiv 2007.07314) with tau = 1, its value for balanced error.
    """
    log_prior = np.log(np.unique(y_train, return_counts=True)[1] / len(y_train))
    return lambda X: probe.classes_[np.argmax(probe.predict_log_proba(X) - log_prior, axis=1)]


def knn_probe(
    X_train: np.ndarray,
    y_train: np.ndarray,
    X_val: np.ndarray,
    y_val: np.ndarray,
    *,
    neighbors: Sequence[int] = (1, 5, 10, 20),
    scaler: StandardScaler | None = None,
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
    scores = {k: balanced_accuracy(y_val, classifier.set_params(n_neighbors=k).predict(Z_val)) for k in candidates}
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
