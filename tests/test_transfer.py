"""Label fidelity: equal to scikit-learn, and right about wrong labels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import recall_score
from sklearn.pipeline import Pipeline

from cytolib.classify.probes import tune_logistic_regression
from cytolib.evaluate.transfer import label_fidelity, wilson_interval

Cells = tuple[np.ndarray, np.ndarray]


def _cells(seed: int, n: int) -> Cells:
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=n)
    return rng.standard_normal((n, 6)) + 2 * np.eye(6)[labels], np.array(["a", "b", "c"])[labels]


@pytest.fixture(scope="module")
def real() -> tuple[Pipeline, Cells]:
    """A probe of real training cells, and test cells."""
    return tune_logistic_regression(*_cells(0, 300), *_cells(1, 150)), _cells(2, 200)


def test_label_fidelity_finds_the_class_with_wrong_labels(real: tuple[Pipeline, Cells]) -> None:
    probe, test = real
    X, y = _cells(5, 300)
    wrong = y.copy()
    wrong[np.flatnonzero(y == "b")[::2]] = "c"  # asked for c, looks like b
    table = label_fidelity(probe, X, wrong, *test).set_index("label")
    names = ["a", "b", "c"]
    for column, cells, labels in (("recall", X, wrong), ("floor", *test)):
        expected = recall_score(labels, probe.predict(cells), labels=names, average=None)
        np.testing.assert_allclose(table.loc[names, column], expected)
        assert table.loc["all", column] == pytest.approx(expected.mean())
    assert table.loc["c", "high"] < table.loc["c", "floor_low"]
    assert table.loc["a", "low"] < table.loc["a", "floor"] < table.loc["a", "high"]
    assert table.loc["c", "n"] == (wrong == "c").sum() and table.loc["c", "floor_n"] == (test[1] == "c").sum()
    assert table.loc["all", "n"] == 300 and table.loc["all", "floor_n"] == 200
    share, n = table.loc[names, "floor"], table.loc[names, "floor_n"]
    half = 1.959964 * np.sqrt((share * (1 - share) / n).sum()) / 3
    assert table.loc["all", "floor_high"] - table.loc["all", "floor"] == pytest.approx(half, rel=1e-5)


def test_a_class_without_test_cells_has_no_floor(real: tuple[Pipeline, Cells]) -> None:
    probe, (X_test, y_test) = real
    kept = y_test != "c"
    table = label_fidelity(probe, *_cells(6, 200), X_test[kept], y_test[kept]).set_index("label")
    assert np.isnan(table.loc["c", "floor"]) and table.loc["c", "floor_n"] == 0 and table.loc["c", "recall"] > 0.5
    assert table.loc["all", "recall"] == pytest.approx(table.loc[["a", "b"], "recall"].mean())


def test_wilson_interval_is_scipys() -> None:
    for hits, n in ((0, 7), (3, 10), (50, 50), (499, 1000)):
        interval = binomtest(hits, n).proportion_ci(method="wilson")
        np.testing.assert_allclose(wilson_interval(hits, n), (hits / n, interval.low, interval.high), atol=1e-12)
    assert np.isnan(wilson_interval(0, 0)).all()


def test_bad_classes_are_refused(real: tuple[Pipeline, Cells]) -> None:
    probe, (X_test, y_test) = real
    X, y = _cells(7, 20)
    others = (X_test[y_test == "b"], y_test[y_test == "b"])
    with pytest.raises(ValueError, match=r"y_synthetic holds \['z'\].*not trained on"):
        label_fidelity(probe, X, np.full(20, "z"), X_test, y_test)
    with pytest.raises(ValueError, match="no class of y_synthetic is in y_test"):
        label_fidelity(probe, X[y == "a"], y[y == "a"], *others)
