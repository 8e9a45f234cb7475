"""The kernel distance: equal to torchmetrics and to its definition, unbiased, and a test that keeps its level."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from torchmetrics.image.kid import KernelInceptionDistance

from cytolib.evaluate import kernels
from cytolib.evaluate.kernels import kernel_distance, kernel_test
from tests.test_fidelity_moments import Identity, mixed


def by_definition(real: np.ndarray, synthetic: np.ndarray, kernel: str, bandwidth: float = 1.0) -> float:
    """Means over ordered pairs of different cells, one pair at a time."""

    def k(x: np.ndarray, y: np.ndarray) -> float:
        if kernel == "cubic":
            return float((x @ y / len(x) + 1) ** 3)
        return float(np.exp(-((x - y) ** 2).sum() / (2 * bandwidth**2)))

    within = sum(np.mean([k(x, y) for x, y in permutations(X, 2)]) for X in (real, synthetic))
    return within - 2 * float(np.mean([k(x, y) for x in real for y in synthetic]))


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
@pytest.mark.parametrize(
    ("n", "d", "mean", "scale"), [(130, 7, 0, 1), (15, 40, 0, 1), (130, 7, 1e3, 1), (90, 12, 0, 1e-3), (90, 12, 5, 1e3)]
)
def test_kernel_distance_equals_torchmetrics(
    n: int, d: int, mean: float, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, synthetic = (scale * mixed(seed, n, d) + mean for seed in (0, 1))
    metric = KernelInceptionDistance(feature=Identity(d), subset_size=n, subsets=1).set_dtype(torch.float64)
    for values, is_real in ((real, True), (synthetic, False)):
        metric.update(torch.from_numpy(values), real=is_real)
    monkeypatch.setattr("cytolib.evaluate.blocks.BLOCK", 37)  # several blocks
    assert kernel_distance(real, synthetic) == pytest.approx(float(metric.compute()[0]), rel=1e-6)


@pytest.mark.parametrize("kernel", ["cubic", "rbf"])
def test_kernel_distance_is_its_definition(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, synthetic = mixed(0, 23, 3), mixed(1, 31, 3)
    expected = by_definition(real, synthetic, kernel, 2.5)
    monkeypatch.setattr("cytolib.evaluate.blocks.BLOCK", 7)
    assert kernel_distance(real, synthetic, kernel=kernel, bandwidth=2.5) == pytest.approx(expected)
    for groups in (2, 5, 50):  # groups of several sizes, with rows left over and without
        tested = kernel_test(real, synthetic, kernel=kernel, bandwidth=2.5, groups=groups, permutations=3, draws=9)
        assert tested.value == pytest.approx(expected)


def test_default_bandwidth_is_the_median_distance_of_the_pooled_cells() -> None:
    real, synthetic = mixed(0, 40, 3), mixed(1, 30, 3) + 100
    pooled = np.concatenate([real, synthetic])
    distances = np.linalg.norm(pooled[:, None] - pooled, axis=2)[np.triu_indices(70, 1)]
    expected = kernel_distance(real, synthetic, kernel="rbf", bandwidth=float(np.median(distances)))
    assert kernel_distance(real, synthetic, kernel="rbf") == pytest.approx(expected)
    assert kernel_distance(synthetic, real, kernel="rbf") == pytest.approx(expected)


def test_mean_over_equal_distributions_is_zero_at_few_cells() -> None:
    """With the pairs of a cell with itself, it would be about (E k(x, x) - E k(x, y)) (1 / m + 1 / n) = 0.5 here."""
    rng = np.random.default_rng(0)
    values = [kernel_distance(rng.standard_normal((6, 2)), rng.standard_normal((9, 2)), kernel="rbf", bandwidth=1.0)
              for _ in range(600)]  # fmt: skip
    assert abs(np.mean(values)) < 4 * np.std(values) / 600**0.5 < 0.04


@pytest.mark.parametrize(("m", "n", "groups", "kernel"), [(9, 7, 50, "rbf"), (43, 31, 5, "cubic"), (40, 40, 10, "rbf")])
def test_p_values_are_uniform_where_distributions_are_equal(m: int, n: int, groups: int, kernel: str) -> None:
    """p takes 1/20 ... 20/20, each once in twenty; skewed cells, a row a group and groups with rows left over."""
    rng = np.random.default_rng(m)
    p = [
        kernel_test(
            rng.exponential(size=(m, 2)), rng.exponential(size=(n, 2)), kernel=kernel, permutations=19, groups=groups,
            draws=1, seed=k,
        ).p_value
        for k in range(600)
    ]  # fmt: skip
    counts = np.bincount(np.round(np.array(p) * 20).astype(int), minlength=21)[1:]
    assert counts.sum() == 600
    assert np.square(counts - 30).sum() / 30 < 43.8  # 99.9 % of chi squared with 19 degrees of freedom
    assert 0.03 < np.mean(np.array(p) <= 0.05) < 0.08


def test_a_shift_and_a_collapse_are_found_with_few_cells() -> None:
    rng = np.random.default_rng(1)
    real, same, other = (rng.standard_normal((16, 8)) for _ in range(3))
    assert kernel_test(real, same).p_value > 0.05
    assert kernel_test(real, other + 1.5).p_value == pytest.approx(1 / 200)
    wide = rng.standard_normal((2, 300, 8))
    tested = kernel_test(wide[0], 0.6 * wide[1])
    assert tested.p_value == pytest.approx(1 / 200) and 0 < tested.low < tested.value < tested.high
    # Equal sets: every pair of a cell and its copy counts between, and none within.
    copied = kernel_test(real, real)
    assert copied.value < 0 and copied.p_value == 1
    alike = np.random.default_rng(3).standard_normal((1, 8)).repeat(6, axis=0)
    assert kernel_test(alike, alike).p_value == 1  # permutations that tie with what was observed count against it


def test_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    found = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        real, synthetic = rng.standard_normal((120, 3)), rng.standard_normal((90, 3)) + 0.7
        tested = kernel_test(real, synthetic, kernel="rbf", bandwidth=1.5, permutations=1, draws=200, seed=seed)
        found.append((tested.value, tested.low, tested.high))
    value, low, high = np.array(found).T
    truth = value.mean()  # unbiased
    assert np.mean((low <= truth) & (truth <= high)) > 0.87
    assert np.mean(high - low) / 3.92 == pytest.approx(value.std(), rel=0.25)


def test_the_order_of_a_table_says_nothing() -> None:
    """Tables are sorted by class: groups of neighbouring rows would differ, and widen interval and permutations."""
    rng = np.random.default_rng(4)
    real, synthetic = rng.standard_normal((2, 400, 2)) * [5, 1]
    synthetic = synthetic + [1, 0]
    ordered = [X[np.argsort(X[:, 0])] for X in (real, synthetic)]
    shuffled, tested = (kernel_test(*sets, kernel="rbf", groups=20) for sets in ((real, synthetic), ordered))
    assert tested.high - tested.low == pytest.approx(shuffled.high - shuffled.low, rel=0.5)
    assert tested.p_value == pytest.approx(shuffled.p_value, abs=0.05)


def test_a_draw_compares_no_group_with_itself() -> None:
    """A group drawn three times and another once: the only pairs within are those of the two."""
    rng = np.random.default_rng(2)
    sums = rng.random((5, 5))
    sums += sums.T
    weights = [np.array([[3.0, 1.0, 0.0]]), np.array([[1.0, 1.0]])]
    found = kernels._drawn_discrepancy(sums, weights, np.array([0, 3, 5]), 2)
    cross = (3 * (sums[0, 3] + sums[0, 4]) + sums[1, 3] + sums[1, 4]) / (4 * 2)
    assert found == pytest.approx((sums[0, 1] + sums[3, 4] - 2 * cross) / 4)


def test_results_are_functions_of_the_seed_and_bad_arguments_are_refused() -> None:
    real, synthetic = mixed(0, 60, 3), mixed(0, 50, 3)[:, ::-1]
    assert kernel_test(real, synthetic, seed=1) == kernel_test(real, synthetic, seed=1)
    assert kernel_test(real, synthetic, seed=1).low != kernel_test(real, synthetic, seed=2).low
    with pytest.raises(ValueError, match="kernel is 'linear'"):
        kernel_distance(real, synthetic, kernel="linear")
    with pytest.raises(ValueError, match="bandwidth is 0"):
        kernel_distance(real, synthetic, kernel="rbf", bandwidth=0)
    with pytest.raises(ValueError, match="permutations 0"):
        kernel_test(real, synthetic, permutations=0)
    with pytest.raises(ValueError, match="NaN or infinity"):
        kernel_test(real, np.where(synthetic > 1, np.nan, synthetic))
