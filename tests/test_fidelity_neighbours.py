"""Precision, recall, density, coverage: equal to their definitions, pair by pair, whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest

from cytolib.evaluate.neighbours import density_coverage, knn_radii, prdc, prdc_rows


def by_definition(real: np.ndarray, synthetic: np.ndarray, k: int) -> dict[str, float]:
    def radius(X: np.ndarray, i: int) -> float:
        return sorted(float(np.linalg.norm(X[i] - X[j])) for j in range(len(X)) if j != i)[k - 1]

    between = np.array([[np.linalg.norm(x - y) for y in synthetic] for x in real])
    real_balls = between <= np.array([radius(real, i) for i in range(len(real))])[:, None]
    synthetic_balls = between <= np.array([radius(synthetic, j) for j in range(len(synthetic))])
    return {
        "precision": np.mean([real_balls[:, j].any() for j in range(len(synthetic))]),
        "recall": np.mean([synthetic_balls[i].any() for i in range(len(real))]),
        "density": real_balls.sum() / (k * len(synthetic)),
        "coverage": np.mean([real_balls[i].any() for i in range(len(real))]),
    }


@pytest.mark.parametrize("block", [5, 16, 2048])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_all_four_are_their_definitions(block: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cytolib.evaluate.blocks.BLOCK", block)
    rng = np.random.default_rng(k)
    real, synthetic = rng.standard_normal((41, 3)), 0.8 * rng.standard_normal((34, 3)) + 0.5
    expected = by_definition(real, synthetic, k)
    assert 0.1 < min(expected.values()) and expected["precision"] != expected["recall"]
    assert prdc(real, synthetic, k=k) == pytest.approx(expected, abs=1e-12)
    assert density_coverage(real, synthetic, k=k) == pytest.approx((expected["density"], expected["coverage"]))
    far = prdc(real + 3e7, synthetic + 3e7, k=k)  # digits are not lost far from the origin
    assert far == pytest.approx(expected, abs=1e-12)


def test_by_hand() -> None:
    real = np.array([[0.0], [1.0], [2.0], [10.0]])
    synthetic = np.array([[0.5], [1.5], [30.0], [30.1]])
    # radii of real at k=1: 1, 1, 1, 8; of synthetic: 1, 1, .1, .1
    np.testing.assert_allclose(knn_radii(real, k=1), [1, 1, 1, 8])
    rows = prdc_rows(real, synthetic, k=1)
    np.testing.assert_array_equal(rows["precision"], [1, 1, 0, 0])
    np.testing.assert_array_equal(rows["recall"], [1, 1, 1, 0])
    np.testing.assert_array_equal(rows["density"], [2, 2, 0, 0])  # 0.5 lies in the balls of 0 and 1, 1.5 of 1 and 2
    np.testing.assert_array_equal(rows["coverage"], [1, 1, 1, 0])


def test_cells_on_the_rim_are_inside_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies lie exactly on the rims of the balls: each cell is in its own ball and in those of its neighbours."""
    X = np.random.default_rng(3).standard_normal((60, 20)) * 7 + 3
    for block in (8, 23, 2048):
        monkeypatch.setattr("cytolib.evaluate.blocks.BLOCK", block)
        found = prdc(X, X, k=4)
        assert found == pytest.approx({"precision": 1, "recall": 1, "density": 5 / 4, "coverage": 1})


def test_duplicates_have_a_ball_of_no_width() -> None:
    X = np.repeat(np.array([[0.0, 0.0], [5.0, 5.0]]), 3, axis=0)
    np.testing.assert_allclose(knn_radii(X, k=2), 0, atol=1e-6)
    np.testing.assert_allclose(knn_radii(X, k=3), 50**0.5)


def test_radii_of_the_real_cells_are_shared_and_bad_k_is_refused() -> None:
    rng = np.random.default_rng(4)
    real, synthetic = rng.standard_normal((30, 4)), rng.standard_normal((25, 4))
    shared = prdc_rows(real, synthetic, k=3, real_radii=knn_radii(real, k=3))
    for name, rows in prdc_rows(real, synthetic, k=3).items():
        np.testing.assert_array_equal(rows, shared[name])
        assert len(rows) == (25 if name in ("precision", "density") else 30)
    with pytest.raises(ValueError, match="k is 25, expected 1 to 24"):
        prdc(real, synthetic, k=25)
    with pytest.raises(ValueError, match="k is 30, expected 1 to 29"):
        density_coverage(real, synthetic, k=30)
    assert density_coverage(real, synthetic[:2], k=5)[0] >= 0  # synthetic cells have no balls here
    with pytest.raises(ValueError, match=r"real_radii has shape \(25,\)"):
        prdc_rows(real, synthetic, k=3, real_radii=knn_radii(synthetic, k=3))
