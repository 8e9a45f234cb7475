"""Train on synthetic, test on real, and the reverse: equal to scikit-learn, and right about wrong labels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score, recall_score
from sklearn.preprocessing import StandardScaler

from cytolib.classify.probes import tune_logistic_regression
from cytolib.evaluate.transfer import train_real_test_synthetic, train_synthetic_test_real, wilson_interval

Cells = tuple[np.ndarray, np.ndarray]


def _cells(seed: int, n: int) -> Cells:
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=n)
    return rng.standard_normal((n, 6)) + 2 * np.eye(6)[labels], np.array(["a", "b", "c"])[labels]


@pytest.fixture(scope="module")
def real() -> tuple[Cells, Cells, Cells, StandardScaler]:
    train, val, test = _cells(0, 300), _cells(1, 150), _cells(2, 200)
    return train, val, test, StandardScaler().fit(train[0])


def test_synthetic_cells_of_the_truth_train_as_well_as_real_ones(
    real: tuple[Cells, Cells, Cells, StandardScaler],
) -> None:
    train, val, test, scaler = real
    baseline = train_synthetic_test_real(*train, *val, *test, scaler=scaler)
    found = train_synthetic_test_real(*_cells(3, 300), *val, *test, scaler=scaler)
    assert (
        found["balanced_accuracy"] == pytest.approx(baseline["balanced_accuracy"], abs=0.05) and found["accuracy"] > 0.8
    )
    probe = tune_logistic_regression(*train, *val, scaler=scaler)
    assert baseline["balanced_accuracy"] == balanced_accuracy_score(test[1], probe.predict(test[0]))
    X, y = _cells(4, 300)
    swapped = np.where(y == "a", "b", np.where(y == "b", "a", y))
    assert train_synthetic_test_real(X, swapped, *val, *test, scaler=scaler)["recall[a]"] < 0.4


def test_label_fidelity_finds_the_class_with_wrong_labels(real: tuple[Cells, Cells, Cells, StandardScaler]) -> None:
    train, val, test, scaler = real
    X, y = _cells(5, 300)
    wrong = y.copy()
    wrong[np.flatnonzero(y == "b")[::2]] = "c"  # asked for c, looks like b
    table = train_real_test_synthetic(*train, *val, *test, X, wrong, scaler=scaler).set_index("label")
    probe = tune_logistic_regression(*train, *val, scaler=scaler)
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


def test_a_class_without_test_cells_has_no_floor(real: tuple[Cells, Cells, Cells, StandardScaler]) -> None:
    train, val, (X_test, y_test), scaler = real
    kept = y_test != "c"
    X, y = _cells(6, 200)
    table = train_real_test_synthetic(*train, *val, X_test[kept], y_test[kept], X, y, scaler=scaler).set_index("label")
    assert np.isnan(table.loc["c", "floor"]) and table.loc["c", "floor_n"] == 0 and table.loc["c", "recall"] > 0.5
    assert table.loc["all", "recall"] == pytest.approx(table.loc[["a", "b"], "recall"].mean())


def test_wilson_interval_is_scipys() -> None:
    for hits, n in ((0, 7), (3, 10), (50, 50), (499, 1000)):
        interval = binomtest(hits, n).proportion_ci(method="wilson")
        np.testing.assert_allclose(wilson_interval(hits, n), (hits / n, interval.low, interval.high), atol=1e-12)
    assert np.isnan(wilson_interval(0, 0)).all()


def test_bad_classes_are_refused(real: tuple[Cells, Cells, Cells, StandardScaler]) -> None:
    train, val, test, scaler = real
    X, y = _cells(7, 20)
    others = (test[0][test[1] == "b"], test[1][test[1] == "b"])
    with pytest.raises(ValueError, match=r"y_synthetic holds .*'z'.*no training cells"):
        train_real_test_synthetic(*train, *val, *test, X, np.full(20, "z"), scaler=scaler)
    with pytest.raises(ValueError, match="no class of y_synthetic is in y_test"):
        train_real_test_synthetic(*train, *val, *others, X[y == "a"], y[y == "a"], scaler=scaler)
    with pytest.raises(ValueError, match="single class"):
        train_synthetic_test_real(X, np.full(20, "a"), *val, *test, scaler=scaler)
