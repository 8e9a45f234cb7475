"""Confidence intervals: over seeds, over test cells, and over both at once; paired where methods are compared."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

METRICS: tuple[str, ...] = ("balanced_accuracy", "macro_f1", "accuracy")
Interval = tuple[float, float, float]
Scores = dict[str, NDArray[np.float64]]


def t_interval(values: np.ndarray, *, level: float = 0.95) -> Interval:
    """Mean, low and high end of Student's t interval over the values of independent seeds.

    It holds for new seeds on the *same* split; use :func:`bootstrap_interval` to speak about new cells too.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"{values.size} value(s), expected one for each of at least two seeds")
    mean, error = float(values.mean()), float(stats.sem(values))
    half = float(stats.t.ppf(0.5 + level / 2, len(values) - 1)) * error
    return mean, mean - half, mean + half


def bootstrap_interval(
    y_true: np.ndarray,
    predictions: np.ndarray,
    metric: str = "balanced_accuracy",
    *,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean over seeds of a metric, with its percentile interval over test cells and training seeds together.

    Args:
        y_true: (M,) true classes of the test cells. predictions: (S, M) predicted classes, a row a seed.
        metric: one of ``METRICS``. draws: bootstrap samples; cells are drawn within their class, so none is lost.
    """
    values = _drawn_scores(y_true, predictions, metric, draws, seed)
    return _summary(values, level, seed)


def paired_bootstrap(
    y_true: np.ndarray,
    predictions: np.ndarray,
    baseline: np.ndarray,
    metric: str = "balanced_accuracy",
    *,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean difference of a metric between two methods, with its percentile interval over test cells and seeds together.

    Both methods are scored on the same draw of cells and of seeds (paired). Arguments as in
    :func:`bootstrap_interval`; ``predictions`` and ``baseline`` are (S, M) with the seeds in the same order.
    """
    if np.shape(np.atleast_2d(predictions)) != np.shape(np.atleast_2d(baseline)):
        raise ValueError(
            f"predictions {np.shape(predictions)} and baseline {np.shape(baseline)}, expected the same (seeds, cells)"
        )
    ours, theirs = (_drawn_scores(y_true, part, metric, draws, seed) for part in (predictions, baseline))
    return _summary(ours - theirs, level, seed)


def named_ends(metric: str, interval: Interval) -> dict[str, float]:
    """``metric``, ``metric[low]`` and ``metric[high]``: an interval as a result table has it."""
    return dict(zip((metric, f"{metric}[low]", f"{metric}[high]"), interval, strict=True))


def with_bootstrap(y_true: np.ndarray, y_pred: np.ndarray, *, draws: int = 1000, seed: int = 0) -> dict[str, float]:
    """All ``METRICS`` of one classifier, each with ``[low]`` and ``[high]``: its 95 % interval over test cells."""
    scores: dict[str, float] = {}
    for metric in METRICS:
        scores |= named_ends(metric, bootstrap_interval(y_true, y_pred, metric, draws=draws, seed=seed))
    return scores


def _summary(values: NDArray[np.float64], level: float, seed: int) -> Interval:
    """From (1 + draws, S) values, the first row being the cells as they are: their mean, and the interval."""
    centre, drawn = values[0].mean(), values[1:]
    runs = np.random.default_rng((seed, 1)).integers(drawn.shape[1], size=drawn.shape)
    means = np.take_along_axis(drawn, runs, axis=1).mean(axis=1)
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return float(centre), float(low), float(high)


def _drawn_scores(
    y_true: np.ndarray, predictions: np.ndarray, metric: str, draws: int, seed: int
) -> NDArray[np.float64]:
    """(1 + draws, S) values of a metric: on the cells as they are, then on each bootstrap sample of them.

    A sample is a count for each cell, so confusion matrices of all samples are one matrix product; equal ``y_true``,
    ``draws`` and ``seed`` give equal samples, which is what pairs two methods.
    """
    y_true, predictions = np.asarray(y_true), np.atleast_2d(predictions)
    if metric not in METRICS:
        raise ValueError(f"metric is {metric!r}, expected one of {', '.join(METRICS)}")
    if not len(y_true) or predictions.shape[1:] != y_true.shape:
        raise ValueError(f"predictions {predictions.shape}, expected (seeds, {len(y_true)} cells), one cell at least")
    classes, sizes = np.unique(y_true, return_counts=True)
    rng = np.random.default_rng(seed)
    # hits[d, c, k, s]: cells of class c called class k in sample d by seed s; the last k is any other class
    confusion = np.empty((1 + draws, len(classes), len(classes) + 1, len(predictions)))
    for c, (name, size) in enumerate(zip(classes, sizes, strict=True)):
        counts = np.ones((1 + draws, size))
        counts[1:] = rng.multinomial(size, np.full(size, 1 / size), size=draws)
        called = predictions[:, y_true == name]
        for k, other in enumerate(classes):
            confusion[:, c, k] = counts @ (called == other).T
        confusion[:, c, -1] = counts @ ~np.isin(called, classes).T
    hits = np.einsum("dccs->dcs", confusion[:, :, :-1])
    if metric == "accuracy":
        return hits.sum(axis=1) / len(y_true)
    if metric == "balanced_accuracy":
        return (hits / sizes[:, None]).mean(axis=1)
    return (2 * hits / (sizes[:, None] + confusion[:, :, :-1].sum(axis=1))).mean(axis=1)
