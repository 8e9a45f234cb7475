"""The classifier two-sample test: silent on equal sets, loud on unequal ones, and right about its own uncertainty."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from cytolib.evaluate.two_sample import two_sample_test


def _cells(seed: int, n: int, d: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


def test_spread_and_shift_are_seen_and_equal_sets_are_not() -> None:
    real, fresh = _cells(0, 300), _cells(1, 300)
    equal = two_sample_test(real, fresh)
    assert equal.low < 0.5 < equal.high and equal.p_value > 0.05
    shifted, collapsed = two_sample_test(real, fresh + 0.7), two_sample_test(real, 0.5 * fresh)
    for found in (shifted, collapsed):
        assert found.accuracy > 0.7 and found.auc > 0.75 and found.p_value < 1e-6
        assert 0.5 < found.low < found.accuracy < found.high < 1
    assert two_sample_test(real, real + 10).accuracy > 0.99


def test_calls_are_out_of_fold() -> None:
    """In-sample, trees tell any two sets apart: 200 cells of 30 dimensions would be called right without exception."""
    assert two_sample_test(_cells(2, 100, 30), _cells(3, 100, 30)).accuracy < 0.65


def test_p_values_under_equal_distributions_are_not_too_small() -> None:
    """The binomial tail fails this: without its correction about a tenth of these pairs is called different at 0.05."""
    p_values = np.array([two_sample_test(_cells(s, 40, 3), _cells(s + 500, 40, 3), seed=s).p_value for s in range(60)])
    assert (p_values < 0.05).mean() <= 0.05
    assert 0.35 < p_values.mean() < 0.65  # and half of them on either side


def test_interval_is_that_of_nadeau_and_bengio() -> None:
    found = two_sample_test(_cells(4, 100), _cells(5, 100) + 0.5, folds=4)
    spread = np.sqrt(found.accuracy * (1 - found.accuracy) / 200 * (1 + 4 / 3))
    assert found.high - found.accuracy == pytest.approx(1.959964 * spread, rel=1e-5)
    assert found.accuracy - found.low == pytest.approx(1.959964 * spread, rel=1e-5)
    expected = norm.sf((found.accuracy - 0.5) / np.sqrt(0.25 / 200 * (1 + 4 / 3)))
    assert found.p_value == pytest.approx(expected)


def test_sets_are_cut_to_one_size_and_a_seed_fixes_all() -> None:
    real, synthetic = _cells(6, 90), _cells(7, 250)
    first = two_sample_test(real, synthetic, seed=3)
    assert first.n == 90 and first == two_sample_test(real, synthetic, seed=3)
    assert first != two_sample_test(real, synthetic, seed=4)
    assert two_sample_test(real, synthetic, max_cells=50).n == 50
    # a large surplus on one side is no difference: without the cut, always calling the larger side would be right
    assert two_sample_test(_cells(8, 40), _cells(9, 1000)).accuracy < 0.7


def test_components_look_past_a_feature_of_whole_numbers() -> None:
    """A counted feature gives every continuous generator away; the large components do not hold it."""
    rng = np.random.default_rng(10)
    factors = rng.standard_normal((600, 3))
    X = np.repeat(factors, 8, axis=1) + 0.1 * rng.standard_normal((600, 24))
    X = np.concatenate([X, rng.integers(0, 4, size=(600, 1))], axis=1)
    real, synthetic = X[:300], X[300:].copy()
    synthetic[:, -1] += rng.uniform(0.05, 0.45, size=300)
    assert two_sample_test(real, synthetic).accuracy > 0.95
    inside = two_sample_test(real, synthetic, n_components=3)
    assert inside.low < 0.5
    units = np.where(np.arange(25) == 24, 1e3, 1.0)  # no part of the question
    assert two_sample_test(real * units, synthetic * units, n_components=3).low < 0.5


def test_bad_arguments_are_refused() -> None:
    X = _cells(11, 20)
    with pytest.raises(ValueError, match="20 cells a set in 11 folds"):
        two_sample_test(X, X, folds=11)
    with pytest.raises(ValueError, match="n_components is 7, expected 1 to 6"):
        two_sample_test(X, X, n_components=7)
    with pytest.raises(ValueError, match="sets of shape"):
        two_sample_test(X, X[:, :2])
