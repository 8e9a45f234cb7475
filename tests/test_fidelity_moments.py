"""Moments and Frechet distances: equal to torchmetrics, merged without loss, extrapolated to the known truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.image.fid import FrechetInceptionDistance

from cytolib.evaluate.moments import Moments, frechet_by_class, frechet_distance, frechet_distance_infinity
from cytolib.evaluate.resample import frechet_intervals


class Identity(torch.nn.Module):
    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def mixed(seed: int, n: int, d: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) * 0.6 + 0.3 * seed


@pytest.mark.parametrize(
    ("n", "d", "mean", "scale"), [(150, 7, 0, 1), (20, 40, 0, 1), (150, 7, 1e3, 1), (90, 12, 0, 1e-3), (90, 12, 5, 1e3)]
)
def test_frechet_distance_equals_torchmetrics(n: int, d: int, mean: float, scale: float) -> None:
    real, synthetic = (scale * mixed(seed, n - 10 * seed, d) + mean for seed in (0, 1))
    metric = FrechetInceptionDistance(feature=Identity(d)).set_dtype(torch.float64)
    for values, is_real in ((real, True), (synthetic, False)):
        metric.update(torch.from_numpy(values), real=is_real)
    assert frechet_distance(real, synthetic) == pytest.approx(float(metric.compute()), rel=1e-6)


def test_frechet_distance_of_known_gaussians() -> None:
    X = np.random.default_rng(1).standard_normal((500, 3))
    assert frechet_distance(X, X) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(X, X + [1, 2, 0]) == pytest.approx(5)
    assert frechet_distance(X, X + [1, 2, 0], n_components=3) == pytest.approx(5)
    assert frechet_distance(X, 3 * (X - X.mean(axis=0)) + X.mean(axis=0)) == pytest.approx(4 * np.trace(np.cov(X.T)))
    flat = np.concatenate([X, np.zeros((500, 4))], axis=1)  # singular covariance
    assert frechet_distance(flat, flat + 1) == pytest.approx(7)


def test_components_are_those_of_the_real_cells() -> None:
    real, synthetic = mixed(0, 200, 9), mixed(1, 150, 9)
    axes = np.linalg.svd(real - real.mean(axis=0))[2][:4].T
    expected = frechet_distance(real @ axes, synthetic @ axes)
    assert frechet_distance(real, synthetic, n_components=4) == pytest.approx(expected)
    assert frechet_distance(synthetic, real, n_components=4) != pytest.approx(expected, rel=1e-3)
    assert frechet_distance(Moments.of(real), Moments.of(synthetic), n_components=4) == pytest.approx(expected)


@pytest.mark.parametrize("mean", [0.0, 1e6])
def test_moments_of_blocks_merged_are_moments_of_all(
    mean: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cytolib.evaluate.blocks.BLOCK", 17)
    X = mixed(2, 101, 5) + mean
    stored = np.memmap(tmp_path / "X", X.dtype, "w+", shape=X.shape)
    stored[:] = X
    merged = Moments.of(X[:1]) + Moments.of(X[1:40]) + Moments.of(X[40:])
    for moments in (Moments.of(X), Moments.of(stored), Moments.of(iter([X[:3], X[3:90], X[90:]])), merged):
        assert moments.n == 101
        np.testing.assert_allclose(moments.mean, X.mean(axis=0), rtol=1e-13)
        np.testing.assert_allclose(moments.covariance, np.cov(X, rowvar=False), rtol=1e-8)


def test_float32_and_whole_numbers_are_summed_in_float64() -> None:
    X = mixed(3, 300, 6).astype(np.float32) + np.float32(100)
    assert frechet_distance(X, X + np.float32(1)) == pytest.approx(
        frechet_distance(X.astype(float), (X + np.float32(1)).astype(float)), rel=1e-12
    )
    counts = np.random.default_rng(0).integers(9, size=(50, 3))
    assert frechet_distance(counts, counts + 2) == pytest.approx(12)


def test_bad_sets_are_refused() -> None:
    X = mixed(4, 20, 3)
    with pytest.raises(ValueError, match=r"sets of shape \(20, 3\) and \(20, 2\)"):
        frechet_distance(X, X[:, :2])
    with pytest.raises(ValueError, match="two cells or more"):
        frechet_distance(X, Moments.of(X[:1]))
    with pytest.raises(ValueError, match="NaN or infinity"):
        frechet_distance(X, np.where(X > 1, np.inf, X))
    with pytest.raises(ValueError, match="n_components is 4, expected 1 to 3"):
        frechet_distance(X, X, n_components=4)
    with pytest.raises(ValueError, match=r"block of rows has shape \(3,\)"):
        Moments.of([X[0]])
    with pytest.raises(ValueError, match=r"shape \(20, 2\), expected \(cells, 3\)"):
        Moments.of([X, X[:, :2]])
    with pytest.raises(ValueError, match="a set of 0 cells"):
        Moments.of([])
    with pytest.raises(ValueError, match="covariance of 1 cell"):
        Moments.of(X[:1]).covariance  # noqa: B018, the property refuses
    with pytest.raises(ValueError, match="points is 3 for 11 cells, expected 2 or more and at least 12"):
        frechet_distance_infinity(X, X[:11])
    with pytest.raises(ValueError, match="5 groups of cells"):
        frechet_intervals(X, X, groups=5)


def test_extrapolation_takes_the_bias_of_few_cells_away() -> None:
    """Truth: 0 between equal Gaussians; d / 4 for a shift of 1/2 in each dimension. Sets of different sizes."""
    d, found = 16, []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        real, same = rng.standard_normal((1200, d)), rng.standard_normal((800, d))
        found.append(
            [
                frechet_distance(real, same),
                frechet_distance_infinity(real, same, seed=seed),
                frechet_distance_infinity(real, same + 0.5, seed=seed),
            ]
        )
    plain, at_infinity, shifted = np.mean(found, axis=0)
    # To second order: (1 / m + 1 / n) times d from the means, and d (d + 1) / 4 from a quarter of |S1 - S2|^2.
    assert plain == pytest.approx((d + d * (d + 1) / 4) * (1 / 1200 + 1 / 800), rel=0.1)
    assert abs(at_infinity) < plain / 8
    assert shifted == pytest.approx(d / 4, rel=0.04)
    rows = np.random.default_rng(0).standard_normal((2, 300, 3))
    assert frechet_distance_infinity(*rows, seed=1) == frechet_distance_infinity(*rows, seed=1)
    assert frechet_distance_infinity(*rows, seed=1) != frechet_distance_infinity(*rows, seed=2)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Of the distance itself the truth is its mean over draws of both sets (its bias included); at infinity, d / 4."""
    d, covered, plain = 6, [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        real, synthetic = rng.standard_normal((300, d)), rng.standard_normal((250, d)) + 0.5
        here, there = frechet_intervals(real, synthetic, draws=100, seed=seed)
        assert here[0] == pytest.approx(frechet_distance(real, synthetic))
        assert there[0] == pytest.approx(frechet_distance_infinity(real, synthetic, seed=seed))
        plain.append(here)
        covered.append(there[1] <= d / 4 <= there[2])
    value, low, high = np.array(plain).T
    assert np.mean(covered) > 0.85
    assert np.mean((low <= value.mean()) & (value.mean() <= high)) > 0.85
    assert np.mean(high - low) / 3.92 == pytest.approx(value.std(), rel=0.35)
    np.testing.assert_allclose((low + high) / 2, value, rtol=0.2)  # centred: repeated cells do not push it up


def test_few_cells_of_a_class_get_a_reason_and_not_a_number() -> None:
    rng = np.random.default_rng(5)
    y = np.repeat(["blast", "monocyte"], [60, 29])
    real, train, made = (rng.standard_normal((89, 3)) for _ in range(3))
    made[y == "blast"] += 1
    table = frechet_by_class(real, y, made[::-1], y[::-1], floor=(train, y)).set_index("label")
    assert table.loc["blast", "n"] == 60 and table.loc["blast", "reason"] == ""
    assert table.loc["blast", "value"] == pytest.approx(frechet_distance(real[:60], made[:60]))
    assert table.loc["blast", "value"] > 5 * table.loc["blast", "floor"]
    assert np.isnan(table.loc["monocyte", ["value", "floor"]].astype(float)).all()
    for part in ("29 cells of monocyte", "3 dimensions", "needs 30", "kernel_test", "n_components up to 2"):
        assert part in table.loc["monocyte", "reason"]
    cut = frechet_by_class(real, y, made, y, n_components=2, cells_per_dimension=3)
    assert (cut["reason"] == "").all() and cut["value"].notna().all() and "floor" not in cut
    many, y_many = np.concatenate([made, made + 9]), np.tile(y, 2)  # which cells stay is random, not the first ones
    few = [frechet_by_class(real, y, many, y_many, seed=seed).set_index("label").loc["blast"] for seed in (0, 1)]
    assert few[0]["n"] == 60 and few[0]["value"] != few[1]["value"] and few[0]["value"] > 20
