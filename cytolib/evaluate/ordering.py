"""How well a score orders cells along stages: rank correlations, pairs in the right order, errors, with intervals."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from cytolib.evaluate.resample import pairs_won

_METRICS = ("spearman", "kendall_tau_b", "concordance", "adjacent_concordance", "mean_absolute_error")


def ordering_metrics(
    scores: np.ndarray,
    stages: ArrayLike,
    *,
    in_stages: bool = True,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, float]:
    """How well scores order cells, each metric with ``[low]`` and ``[high]``.

    ``spearman``; ``kendall_tau_b``, and as ``kendall_tau_b[ceiling]`` what a perfect order would reach, for stages are
    ties and scores are not; ``concordance`` and ``adjacent_concordance``, shares of pairs of cells of two stages (of
    two neighbouring stages) in the right order, every pair of stages of equal weight, 0.5 by chance;
    ``mean_absolute_error`` in stages, every stage of equal weight.

    The interval is a percentile bootstrap over cells within their stage and, where ``scores`` has several rows, over
    those (draws of the folds) as well. It does not speak about other patients or stains.

    Args:
        scores: (N,) or (S, N), a row a draw of the folds; the value is the mean over rows.
        stages: (N,) true stages. in_stages: false where a score has no unit: no error is given then.

    Raises:
        ValueError: for shapes that do not fit, a score that is not finite, or a single stage.
    """
    scores, stages = np.atleast_2d(np.asarray(scores, dtype=np.float64)), np.asarray(stages)
    if stages.shape != scores.shape[1:] or len(np.unique(stages)) < 2 or not np.isfinite(scores).all():
        raise ValueError(
            f"scores are {scores.shape}, stages {stages.shape} with {len(np.unique(stages))} different; expected a "
            "finite score and a stage a cell, and two stages or more"
        )
    rng = np.random.default_rng(seed)
    drawn = _counts(stages, draws, rng)
    metrics = {name: np.empty((1 + draws, len(scores))) for name in _METRICS if in_stages or name != _METRICS[-1]}
    for row, score in enumerate(scores):
        for name, values in _drawn_metrics(score, stages, drawn).items():
            if name in metrics:
                metrics[name][:, row] = values
    runs = rng.integers(len(scores), size=(draws, len(scores)))
    result: dict[str, float] = {}
    for name, values in metrics.items():
        means = np.take_along_axis(values[1:], runs, axis=1).mean(axis=1)
        low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
        result |= {name: float(values[0].mean()), f"{name}[low]": float(low), f"{name}[high]": float(high)}
    sizes = np.unique(stages, return_counts=True)[1]
    pairs = (len(stages) ** 2 - (sizes**2).sum()) / (len(stages) * (len(stages) - 1))
    return result | {"kendall_tau_b[ceiling]": float(np.sqrt(pairs))}


def _counts(stages: NDArray[np.int64], draws: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(1 + draws, N) how often each cell stands in a bootstrap sample; the first is the cells as they are."""
    counts = np.ones((1 + draws, len(stages)))
    for stage in np.unique(stages):
        size = int((stages == stage).sum())
        counts[1:, stages == stage] = rng.multinomial(size, np.full(size, 1 / size), size=draws)
    return counts


def _drawn_metrics(
    score: NDArray[np.float64], stages: NDArray[np.int64], counts: NDArray[np.float64]
) -> Mapping[str, NDArray[np.float64]]:
    """(1 + draws,) values of every metric, all from the share of ordered pairs between each two stages."""
    levels, sizes = np.unique(stages, return_counts=True)
    members = [stages == stage for stage in levels]
    shares, weights, adjacent = [], [], []
    for young in range(len(levels)):
        for old in range(young + 1, len(levels)):
            cells = (members[old], members[young])
            right = pairs_won(*(score[part] for part in cells), *(counts[:, part] for part in cells))
            weights.append(sizes[young] * sizes[old])
            shares.append(right / weights[-1])
            adjacent.append(old == young + 1)
    share, weight = np.array(shares), np.array(weights, dtype=np.float64)
    repeats = np.unique(score, return_counts=True)[1]
    pairs = len(score) * (len(score) - 1) / 2
    # A cell drawn twice is no tie of the score's making, so ties are counted once, in the cells as they are.
    untied = max(pairs - (repeats * (repeats - 1) / 2).sum(), 1.0)
    error = np.mean([counts[:, m] @ np.abs(score - stages)[m] / m.sum() for m in members], axis=0)
    return {
        "spearman": _weighted_spearman(score, stages, counts),
        "kendall_tau_b": weight @ (2 * share - 1) / np.sqrt(weight.sum() * untied),
        "concordance": share.mean(axis=0),
        "adjacent_concordance": share[np.array(adjacent)].mean(axis=0),
        "mean_absolute_error": error,
    }


def _weighted_spearman(
    score: NDArray[np.float64], stages: NDArray[np.int64], counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(1 + draws,) rank correlations of bootstrap samples, cells with their counts as weights."""
    order = np.argsort(score, kind="stable")
    place = rankdata(score, method="dense").astype(np.int64) - 1
    by_value = np.add.reduceat(counts[:, order], np.unique(score[order], return_index=True)[1], axis=1)
    mid = np.cumsum(by_value, axis=1) - by_value / 2  # mid-rank of each distinct score in each sample
    a = mid[:, place] - len(score) / 2
    b = rankdata(stages) - (len(score) + 1) / 2  # stages keep their sizes, so their ranks are the same in all samples
    covariance = (counts * a * b).sum(axis=1)
    spread = np.sqrt((counts * a**2).sum(axis=1) * (counts * b**2).sum(axis=1))
    return np.divide(covariance, spread, out=np.zeros(len(counts)), where=spread > 0)
