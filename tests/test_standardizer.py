"""The standardiser: each space inverts, weights weigh, and a saved one says what it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cytolib.diffusion import EmbeddingStandardizer
from cytolib.diffusion.standardizer import SPACES, Space


def correlated(n: int = 300, seed: int = 3) -> np.ndarray:
    """Five correlated dimensions of unequal scale, and a constant one."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 5)) @ rng.standard_normal((5, 5)) * [1, 10, 0.1, 1, 1] + 100
    return np.concatenate([X, np.full((n, 1), 0.1)], axis=1).astype(np.float32)


@pytest.mark.parametrize("n_components", [None, 0.995, 2])
def test_cells_that_are_all_equal_come_back_as_they_are(n_components: int | float | None) -> None:
    X = np.full((6, 3), 0.7, dtype=np.float32)
    standardizer = EmbeddingStandardizer.fit(X, n_components=n_components)
    Z = standardizer.transform(torch.from_numpy(X))
    torch.testing.assert_close(Z, torch.zeros_like(Z))
    np.testing.assert_array_equal(standardizer.inverse_transform(Z), X)


@pytest.mark.parametrize("space", SPACES)
def test_every_space_inverts_and_keeps_constant_dimensions(space: Space) -> None:
    X = correlated()
    standardizer = EmbeddingStandardizer.fit(X, space=space)
    Z = standardizer.transform(torch.from_numpy(X))
    assert Z.shape[1] == standardizer.output_dim == (5 if space == "pca" else 6)
    np.testing.assert_allclose(standardizer.inverse_transform(Z), X, rtol=1e-4, atol=1e-3)
    if space == "pca":
        np.testing.assert_allclose(np.cov(Z.numpy(), rowvar=False, bias=True), np.eye(5), atol=1e-2)
    if space == "standardise":
        np.testing.assert_allclose(Z[:, :5].std(dim=0, unbiased=False), 1.0, atol=1e-2)
        np.testing.assert_allclose(Z.mean(dim=0), 0.0, atol=1e-2)
    if space == "none":
        np.testing.assert_array_equal(Z, X)
        np.testing.assert_array_equal(standardizer.inverse_transform(Z), X)


def test_standardised_dimensions_are_those_of_the_formula() -> None:
    X = correlated()
    Z = EmbeddingStandardizer.fit(X, space="standardise").transform(torch.from_numpy(X)).numpy()
    expected = (X[:, :5] - X[:, :5].mean(axis=0, dtype=np.float64)) / X[:, :5].std(axis=0, dtype=np.float64)
    np.testing.assert_allclose(Z[:, :5], expected, atol=2e-4)


def test_standardizer_keeps_the_asked_components() -> None:
    rng = np.random.default_rng(4)
    X = rng.standard_normal((400, 2)) @ rng.standard_normal((2, 8)) + 0.01 * rng.standard_normal((400, 8))
    assert EmbeddingStandardizer.fit(X, n_components=0.99).output_dim == 2
    assert EmbeddingStandardizer.fit(X, n_components=4).output_dim == 4
    assert EmbeddingStandardizer.fit(X, n_components=4, space="standardise").output_dim == 8
    with pytest.raises(ValueError, match="n_components is 9, expected"):
        EmbeddingStandardizer.fit(X, n_components=9)
    with pytest.raises(ValueError, match="X, row 7 holds NaN"):
        EmbeddingStandardizer.fit(np.where(np.arange(400)[:, None] == 7, np.nan, X))


@pytest.mark.parametrize("space", ["pca", "standardise"])
def test_weights_count_as_repeated_cells(space: Space) -> None:
    X = correlated(60)
    times = np.random.default_rng(0).integers(0, 4, size=60)
    weighted = EmbeddingStandardizer.fit(X, space=space, weights=7.0 * times)
    repeated = EmbeddingStandardizer.fit(np.repeat(X, times, axis=0), space=space)
    cells = torch.from_numpy(X)
    torch.testing.assert_close(weighted.transform(cells), repeated.transform(cells), rtol=1e-3, atol=1e-3)
    plain = EmbeddingStandardizer.fit(X, space=space)
    assert not torch.allclose(weighted.mean, plain.mean)
    even = EmbeddingStandardizer.fit(X, space=space, weights=np.full(60, 3.0))
    torch.testing.assert_close(even.transform(cells), plain.transform(cells), rtol=1e-3, atol=1e-3)


def test_bad_arguments_are_refused_in_a_sentence() -> None:
    X = correlated()
    for options, message in [
        ({"space": "white"}, "space is 'white', expected one of"),
        ({"weights": np.ones(3)}, r"weights has shape \(3,\), expected 300 finite numbers"),
        ({"weights": np.zeros(300)}, "not all zero"),
        ({"weights": -np.ones(300)}, "weights has shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            EmbeddingStandardizer.fit(X, **options)
    with pytest.raises(ValueError, match="components is 3 in space 'none'"):
        EmbeddingStandardizer(embedding_dim=6, space="none", components=3)


@pytest.mark.parametrize("space", SPACES)
def test_a_saved_standardizer_says_what_it_is(space: Space, tmp_path: Path) -> None:
    X = correlated()
    saved = EmbeddingStandardizer.fit(X, space=space)
    saved.save_pretrained(tmp_path)
    opened = EmbeddingStandardizer.from_pretrained(tmp_path)
    assert opened.config["space"] == space and opened.output_dim == saved.output_dim
    cells = torch.from_numpy(X)
    assert torch.equal(opened.transform(cells), saved.transform(cells))
