"""Memorisation and intervals: equal to known implementations; fidelity and memorisation right about known cases."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, recall_score

from cytolib.evaluate.fidelity import real_floor
from cytolib.evaluate.intervals import bootstrap_interval, paired_bootstrap, t_interval, with_bootstrap
from cytolib.evaluate.kernels import kernel_distance
from cytolib.evaluate.memorisation import authenticity, dcr_ratio, nearest_distance
from cytolib.evaluate.moments import frechet_distance
from cytolib.evaluate.neighbours import prdc


def test_nearest_distance_leaves_the_cell_itself_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cytolib.evaluate.memorisation.BLOCK", 2)
    X = np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 5.0]])
    distance, nearest = nearest_distance(X, X, exclude_self=True)
    np.testing.assert_allclose(distance, [5, 1, 1])
    assert nearest.tolist() == [1, 2, 1]
    np.testing.assert_allclose(nearest_distance(X, X)[0], 0)


def test_known_cases_are_told_apart() -> None:
    """Fresh, copied, collapsed and too wide cells in 64 dimensions: each metric sees what it is for, and no more."""
    mixing = np.random.default_rng(2).standard_normal((64, 64)) / 8
    train, test, oracle, noise = (np.random.default_rng(s).standard_normal((500, 64)) @ mixing for s in (3, 4, 5, 6))
    cases = {"oracle": oracle, "copied": train + 0.01 * noise, "collapsed": 0.7 * oracle, "wide": 1.3 * oracle}
    floor = real_floor(kernel_distance, train, test, 500)
    for name, cells in cases.items():
        precision, recall = (prdc(test, cells)[name] for name in ("precision", "recall"))
        kernel, ratio, authentic = (
            kernel_distance(test, cells),
            dcr_ratio(cells, train, test),
            authenticity(cells, train),
        )
        assert (ratio < 0.1) == (authentic < 0.1) == (name == "copied"), name
        assert (kernel > 5 * abs(floor)) == (name in ("collapsed", "wide")), (name, kernel, floor)
        assert (recall < 0.5) == (name == "collapsed"), (name, recall)
        assert (precision < 0.5) == (name == "wide"), (name, precision)
    assert dcr_ratio(cases["oracle"], train, test) == pytest.approx(1, abs=0.1)
    assert dcr_ratio(cases["wide"], train, test) > 1.1
    ordered = [frechet_distance(test, cases[name], n_components=16) for name in ("oracle", "collapsed", "wide")]
    assert ordered[0] < min(ordered[1:])


def test_bad_sets_are_refused() -> None:
    X = np.random.default_rng(7).standard_normal((20, 3))
    with pytest.raises(ValueError, match="sets of shape"):
        frechet_distance(X, X[:, :2])
    with pytest.raises(ValueError, match="NaN or infinity"):
        kernel_distance(X, np.where(X > 1, np.inf, X))
    with pytest.raises(ValueError, match="k is 20"):
        prdc(X, X, k=20)
    with pytest.raises(ValueError, match="n is 50"):
        real_floor(kernel_distance, X, X, 50)
    with pytest.raises(ValueError, match="exact copies"):
        dcr_ratio(X, X, X)


def test_t_interval_of_known_values() -> None:
    mean, low, high = t_interval(np.array([1.0, 2.0, 3.0]))
    assert (mean, high - mean) == (2.0, pytest.approx(4.302653 / 3**0.5)) and mean - low == pytest.approx(high - mean)
    with pytest.raises(ValueError, match="at least two seeds"):
        t_interval(np.array([1.0]))


def test_paired_bootstrap_finds_a_difference_and_no_other() -> None:
    rng = np.random.default_rng(8)
    y = np.array(list("aabbbc"))[rng.integers(6, size=600)]
    wrong = np.array(["b" if name == "a" else "a" for name in y])
    baseline = np.stack([np.where(rng.random(600) < 0.3, wrong, y) for _ in range(3)])
    better = np.stack([np.where(rng.random(600) < 0.2, wrong, y) for _ in range(3)])
    for metric in ("accuracy", "balanced_accuracy", "macro_f1"):
        mean, low, high = paired_bootstrap(y, better, baseline, metric, draws=300)
        assert 0.03 < low < mean < high < 0.2, metric
    mean, low, high = paired_bootstrap(y, baseline, baseline, draws=50)
    assert (mean, low, high) == (0, 0, 0)
    with pytest.raises(ValueError, match="expected \\(seeds, 600 cells\\)"):
        paired_bootstrap(y, better[:, :5], baseline[:, :5])


def test_bootstrap_scores_are_those_of_scikit_learn() -> None:
    """The centre is the metric itself; the spread of accuracy is that of a binomial; real classes only are averaged."""
    rng = np.random.default_rng(9)
    y = np.array(list("aab"))[rng.integers(3, size=3000)]
    called = np.where(rng.random(3000) < 0.9, y, "z")  # z is no true class: wrong, and in no average
    found = with_bootstrap(y, called, draws=400)
    assert found["accuracy"] == pytest.approx(accuracy_score(y, called))
    assert found["balanced_accuracy"] == pytest.approx(recall_score(y, called, labels=["a", "b"], average="macro"))
    assert found["macro_f1"] == pytest.approx(f1_score(y, called, labels=["a", "b"], average="macro"))
    half = (found["accuracy[high]"] - found["accuracy[low]"]) / 2
    assert half == pytest.approx(1.96 * np.sqrt(0.9 * 0.1 / 3000), rel=0.2)
    with pytest.raises(ValueError, match="metric is 'auc'"):
        bootstrap_interval(y, called, "auc")
