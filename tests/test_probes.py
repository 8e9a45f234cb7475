"""Probes: tuned on validation cells, one scaler for all arms."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from cytolib.classify.probes import adjust_logits, balanced_accuracy, knn_probe, tune_logistic_regression


def cells(n: int, seed: int, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n)
    X = rng.standard_normal((n, 12)) * noise
    X[:, :3] += 2.0 * np.eye(3)[y]
    return X * 50 + 7, np.array(["basophil", "blast", "monocyte"])[y]


def test_path_equals_separate_fits_and_keeps_the_best() -> None:
    (X, y), (X_val, y_val) = cells(400, 0), cells(400, 1)
    Cs = (0.001, 0.1, 10.0)
    probe = tune_logistic_regression(X, y, X_val, y_val, Cs=Cs, tol=1e-7, max_iter=5000)
    scaler = StandardScaler().fit(X)
    for C in Cs:
        alone = LogisticRegression(C=C, tol=1e-8, max_iter=5000).fit(scaler.transform(X), y)
        assert probe.validation_scores_[C] == pytest.approx(
            balanced_accuracy(y_val, alone.predict(scaler.transform(X_val))), abs=0.01
        )
        if C == probe.C_:
            np.testing.assert_allclose(probe[-1].coef_, alone.coef_, atol=2e-2)
    assert probe.validation_score_ == max(probe.validation_scores_.values()) and probe.converged_
    assert probe.validation_score_ == balanced_accuracy(y_val, probe.predict(X_val))


def test_equal_scores_take_the_strongest_penalty() -> None:
    (X, y), (X_val, y_val) = cells(300, 0, noise=0.05), cells(300, 1, noise=0.05)
    assert tune_logistic_regression(X, y, X_val, y_val, Cs=(10.0, 1.0, 0.1)).C_ == 0.1


def test_given_scaler_is_used_as_it_is() -> None:
    (X, y), (X_val, y_val) = cells(300, 0), cells(300, 1)
    scaler = StandardScaler().fit(X)
    mean = scaler.mean_.copy()
    probe = tune_logistic_regression(X[:50] + 1000, y[:50], X_val, y_val, scaler=scaler)
    assert probe[0] is scaler
    np.testing.assert_array_equal(scaler.mean_, mean)


def test_class_weights_and_adjusted_logits_call_rare_classes() -> None:
    (X, y), (X_val, y_val) = cells(300, 0), cells(300, 1)
    rare = np.flatnonzero((y != "blast") | (np.arange(300) < 40))
    X, y = X[rare], y[rare]
    plain = tune_logistic_regression(X, y, X_val, y_val, Cs=[0.1])
    balanced = tune_logistic_regression(X, y, X_val, y_val, Cs=[0.1], class_weight="balanced")
    assert (balanced.predict(X_val) == "blast").sum() > (plain.predict(X_val) == "blast").sum()
    odds = plain.predict_proba(X_val) / [np.mean(y == name) for name in plain.classes_]
    adjusted = adjust_logits(plain, y)(X_val)
    np.testing.assert_array_equal(adjusted, plain.classes_[odds.argmax(axis=1)])
    assert (adjusted == "blast").sum() > (plain.predict(X_val) == "blast").sum()


def test_knn_probe_chooses_k() -> None:
    (X, y), (X_val, y_val) = cells(300, 0), cells(300, 1)
    probe = knn_probe(X, y, X_val, y_val, neighbors=(1, 15, 1000))
    assert probe.n_neighbors_ == 15 and set(probe.validation_scores_) == {1, 15}
    assert balanced_accuracy(y_val, probe.predict(X_val)) == probe.validation_score_


def test_balanced_accuracy_is_over_the_classes_of_the_target(recwarn: pytest.WarningsRecorder) -> None:
    assert balanced_accuracy(np.array(["a", "a", "b", "b"]), np.array(["a", "c", "b", "b"])) == 0.75
    assert not recwarn.list


def test_bad_input_is_refused() -> None:
    (X, y), (X_val, y_val) = cells(50, 0), cells(50, 1)
    with pytest.raises(ValueError, match="X_train, row 3 holds NaN"):
        tune_logistic_regression(np.where(np.arange(50)[:, None] == 3, np.nan, X), y, X_val, y_val)
    with pytest.raises(ValueError, match="single class"):
        tune_logistic_regression(X, np.full(50, "blast"), X_val, y_val)
    with pytest.raises(ValueError, match="Cs is"):
        tune_logistic_regression(X, y, X_val, y_val, Cs=[0.0, 1.0])
    with pytest.raises(ValueError, match="X_val has shape"):
        tune_logistic_regression(X, y, X_val, y_val[:-1])
