"""Guidance on vectors: the table shows the spread that it adds."""

from __future__ import annotations

import numpy as np
import pytest

from cytolib.diffusion import EmbeddingDiffusionPipeline, train
from cytolib.evaluate.guidance import guidance_table


def cells(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n)
    return (rng.standard_normal((n, 4)) + 3 * y[:, None]).astype(np.float32), np.array(["a", "b"])[y]


@pytest.fixture(scope="module")
def pipe() -> EmbeddingDiffusionPipeline:
    X, y = cells(600, 0)
    for step in train(X, y, class_names=["a", "b"], steps=300, width=32, depth=1, device="cpu"):  # noqa: B007
        pass
    return step.pipeline()


def test_spread_is_right_without_guidance_and_wrong_with_it(pipe: EmbeddingDiffusionPipeline) -> None:
    X, _ = cells(600, 0)
    test, y = cells(800, 1)
    table = guidance_table(pipe, X, test, y, scales=(1.0, 4.0)).set_index("guidance_scale")
    assert 0.8 < table.loc[1.0, "variance_ratio"] < 1.2
    assert abs(table.loc[4.0, "variance_ratio"] - 1) > 2 * abs(table.loc[1.0, "variance_ratio"] - 1)
    assert table.loc[4.0, "frechet_distance"] > 2 * table.loc[1.0, "frechet_distance"] > 0
    assert (table["floor"] > 0).all() and table["floor"].nunique() == 1


def test_classes_of_one_cell_have_no_spread(pipe: EmbeddingDiffusionPipeline) -> None:
    X, _ = cells(600, 0)
    test, y = cells(60, 1)
    with pytest.raises(ValueError, match="expected a class with two cells or more"):
        guidance_table(pipe, X, test[:2], np.array(["a", "b"]))
    with pytest.raises(ValueError, match="60 test cells with 59 classes"):
        guidance_table(pipe, X, test, y[:-1])
