"""Figures of generation: what they show is what is in the tables."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")

from cytolib import figures  # noqa: E402
from cytolib.figures.generation import as_tile  # noqa: E402


@pytest.fixture(autouse=True)
def style() -> None:
    figures.style()


def test_noisy_vectors_are_divided_by_their_spread() -> None:
    sigmas = np.array([10.0, 1.0, 0.1, 0.01])
    samples, denoised = np.ones((4, 7)) * 3, np.zeros((4, 7))
    fig = figures.out_of_noise(samples, denoised, sigmas)
    shown = fig.axes[0].images[0].get_array()
    np.testing.assert_allclose(shown[:, 0], 3 / np.sqrt(1 + sigmas**2))
    assert (fig.axes[1].images[0].get_array() == 0).all()
    assert [t.get_text() for t in fig.axes[0].get_yticklabels()] == ["10", "0.01"]


def test_ring_marks_the_lowest_loss_of_each_class() -> None:
    history = pd.DataFrame({"step": [1, 2, 3] * 2, "label": ["monocyte"] * 3 + ["basophil"] * 3,
                            "loss": [3.0, 1.0, 2.0, 5.0, 4.0, 3.5]})  # fmt: skip
    fig = figures.class_curves(history)
    rings = {tuple(line.get_xydata()[0]) for line in fig.axes[0].lines if line.get_markersize() == 7}
    assert rings == {(2.0, 1.0), (3.0, 3.5)}


def test_tiles_hold_the_vector_column_by_column() -> None:
    tile = as_tile(np.arange(19), height=4)
    assert tile.shape == (4, 4)
    np.testing.assert_array_equal(tile[:, 0], [0, 1, 2, 3])
    np.testing.assert_array_equal(tile[0], [0, 4, 8, 12])


def test_real_synthetic_and_nearest_stand_in_one_row() -> None:
    image, vector = np.full((8, 8, 3), 7, np.uint8), np.arange(16.0)
    fig = figures.real_synthetic_nearest(
        ["monocyte", "basophil"], [(image, vector)] * 2, [vector + 1] * 2, [(image, vector + 2)] * 2, ["a", "b"]
    )
    row = fig.axes[:5]
    for column, shift in ((1, 0), (2, 1), (3, 2)):
        np.testing.assert_array_equal(row[column].images[0].get_array(), as_tile(vector + shift))
    assert row[0].images[0].get_array().shape == row[4].images[0].get_array().shape == (8, 8, 3)
    assert [ax.get_xlabel() for ax in fig.axes[4::5]] == ["a", "b"]


def test_membership_shows_levels_and_both_attacks() -> None:
    table = pd.DataFrame(
        {"score": ["mean", "sigma=0.1", "sigma=1", "sigma=10", "attack"], "auc": [0.52, 0.5, 0.6, 0.55, 0.7]}
    )
    fig = figures.membership(table.assign(low=table["auc"] - 0.02, high=table["auc"] + 0.02))
    levels = fig.axes[0].lines[0].get_xydata()
    np.testing.assert_allclose(levels, [[0.1, 0.5], [1, 0.6], [10, 0.55]])
    words = [text.get_text() for text in fig.axes[0].get_legend().get_texts()]
    assert "all levels, mean: 0.520" in words and "all levels, fitted attack: 0.700" in words


def test_guidance_stands_beside_real_cells() -> None:
    table = pd.DataFrame(
        {"guidance_scale": [1.0, 2.0], "variance_ratio": [1.0, 3.0], "frechet_distance": [2.0, 50.0], "floor": 1.5}
    )
    left, right = figures.guidance(table).axes
    assert left.lines[1].get_ydata()[0] == 1.0 and right.lines[1].get_ydata()[0] == 1.5


def test_attributes_stand_across_from_real_ones() -> None:
    keys = {"label": ["monocyte"] * 2, "attribute": ["shape"] * 2, "value": ["a", "b"]}
    parts = [
        pd.DataFrame({**keys, "method": name, "frequency": [p, 1 - p]})
        for name, p in (("real_test", 0.2), ("diffusion", 0.5))
    ]
    fig = figures.attribute_agreement(pd.concat(parts), ["diffusion"])
    points = np.asarray(fig.axes[0].collections[0].get_offsets())
    np.testing.assert_allclose(sorted(points.tolist()), [[0.2, 0.5], [0.8, 0.5]])
    assert "mean gap 0.300" in [text.get_text() for text in fig.axes[0].texts]


def test_bars_have_their_intervals() -> None:
    table = pd.DataFrame({"metric": ["recall"] * 2, "method": ["real_floor", "diffusion"], "value": [0.9, 0.8],
                          "low": [0.85, 0.7], "high": [0.95, 0.88]})  # fmt: skip
    ax = figures.fidelity(table).axes[0]
    segments = ax.collections[0].get_segments()
    np.testing.assert_allclose([segment[:, 1] for segment in segments], [[0.85, 0.95], [0.7, 0.88]])
