"""Which metric sees which failure: four sets of synthetic cells of known making, and what each metric must say.

64 dimensions, 500 cells a set; the law of the cells is Gaussian with a random covariance. A metric that stays silent
where the table says so is as much part of the statement as one that speaks: no single figure finds every failure.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from cytolib.evaluate.diversity import vendi_score
from cytolib.evaluate.kernels import kernel_distance
from cytolib.evaluate.memorisation import authenticity, copying_statistic, dcr_ratio
from cytolib.evaluate.moments import frechet_distance
from cytolib.evaluate.neighbours import density_coverage, prdc
from cytolib.evaluate.two_sample import two_sample_test

CASES = ("fresh", "copied", "collapsed", "wide")
Metric = Callable[[np.ndarray, np.ndarray, np.ndarray], float]  # of training, test and synthetic cells


def _linear_test(train: np.ndarray, test: np.ndarray, cells: np.ndarray) -> float:
    X, y = np.concatenate([test, cells]), np.repeat([0, 1], [len(test), len(cells)])
    return float(cross_val_score(LogisticRegression(), X, y, cv=3).mean())


def _record_ratio(train: np.ndarray, test: np.ndarray, cells: np.ndarray) -> float:
    return dcr_ratio(cells, train, test)


def _copying(train: np.ndarray, test: np.ndarray, cells: np.ndarray) -> float:
    return copying_statistic(cells, train, test)


#: Name: the metric, what counts as an alarm, and the cases in which it must sound (and in no others).
PANEL: dict[str, tuple[Metric, Callable[[float], bool], set[str]]] = {
    "frechet distance over its floor": (
        lambda train, test, cells: frechet_distance(test, cells) / frechet_distance(test, train),
        lambda value: value > 1.5,
        {"collapsed", "wide"},
    ),
    "kernel distance": (
        lambda train, test, cells: kernel_distance(test, cells),
        lambda value: value > 0.01,
        {"collapsed", "wide"},
    ),
    "precision": (
        lambda train, test, cells: prdc(test, cells)["precision"],
        lambda value: value < 0.6,
        {"wide"},
    ),
    "recall": (
        lambda train, test, cells: prdc(test, cells)["recall"],
        lambda value: value < 0.4,
        {"collapsed"},
    ),
    "density": (
        lambda train, test, cells: density_coverage(test, cells)[0],
        lambda value: not 0.5 < value < 2,
        {"collapsed", "wide"},
    ),
    "coverage": (
        lambda train, test, cells: density_coverage(test, cells)[1],
        lambda value: value < 0.7,
        {"wide"},
    ),
    "tree two-sample test": (
        lambda train, test, cells: two_sample_test(test, cells, folds=3, max_cells=300).low,
        lambda value: value > 0.6,
        {"collapsed", "wide"},
    ),
    "linear two-sample test": (_linear_test, lambda value: value > 0.6, set()),
    "Vendi score over that of real cells": (
        lambda train, test, cells: vendi_score(cells) / vendi_score(test),
        lambda value: not 0.9 < value < 1.1,
        set(),
    ),
    "authenticity": (
        lambda train, test, cells: authenticity(cells, train),
        lambda value: value < 0.1,
        {"copied"},
    ),
    "distance to closest record": (_record_ratio, lambda value: value < 0.1, {"copied"}),
    "distance to closest record, upper end": (_record_ratio, lambda value: value > 1.1, {"wide"}),
    # cells drawn to the middle are nearer to training cells too: this one cannot tell them from copies
    "copying statistic": (_copying, lambda value: value < -4, {"copied", "collapsed"}),
    "copying statistic, upper end": (_copying, lambda value: value > 4, {"wide"}),
}


def _sets(seed: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Training and test cells, and the four cases."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((64, 64)) / 8
    train, test, fresh, noise = (rng.standard_normal((500, 64)) @ mixing for _ in range(4))
    made = (fresh, train + 0.01 * noise, 0.7 * fresh, 1.3 * fresh)
    return train, test, dict(zip(CASES, made, strict=True))


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", PANEL)
def test_metric_sounds_in_its_cases_and_in_no_other(name: str, seed: int) -> None:
    metric, alarm, expected = PANEL[name]
    train, test, cases = _sets(seed)
    values = {case: metric(train, test, cells) for case, cells in cases.items()}
    assert {case for case, value in values.items() if alarm(value)} == expected, values


def test_every_failure_is_seen_by_some_metric_and_fresh_cells_by_none() -> None:
    seen = set().union(*(cases for _, _, cases in PANEL.values()))
    assert seen == {"copied", "collapsed", "wide"}
