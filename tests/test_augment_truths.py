"""The generators without training draw from the distributions that they name."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import Delaunay
from scipy.stats import gaussian_kde

from cytolib.augment import (
    BootstrapOverSampler,
    ClassGaussianOverSampler,
    EmbeddingOverSampler,
    FeatureMixupOverSampler,
    GaussianMixtureOverSampler,
    KernelDensityOverSampler,
)
from cytolib.augment.class_gaussian import symmetric_root
from cytolib.augment.gaussian_mixture import find_modes
from cytolib.augment.kernel_density import kernel_bandwidth


def new_cells(sampler: EmbeddingOverSampler, X: np.ndarray, y: np.ndarray) -> np.ndarray:
    return sampler.fit_resample(X, y)[0][len(X) :]


def two_classes(seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """3,000 and 400 cells of two correlated Gaussians, with scales from 0.1 to 100."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((4, 4))
    X = np.concatenate([rng.standard_normal((3000, 4)) @ mixing + 5, rng.standard_normal((400, 4)) @ mixing.T - 5])
    return X * [0.1, 1, 10, 100], np.repeat([0, 1], [3000, 400])


def two_modes(small: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """A large class, and one of 150 + ``small`` cells with modes at -6 and 6 on the first of 5 dimensions."""
    rng = np.random.default_rng(5)
    modes = rng.standard_normal((150 + small, 5))
    modes[:, 0] += np.repeat([-6, 6], [150, small])
    return np.concatenate([rng.standard_normal((2000, 5)) + 20, modes]), np.repeat([0, 1], [2000, 150 + small])


@pytest.mark.parametrize(
    "sampler",
    [
        ClassGaussianOverSampler(random_state=0),
        GaussianMixtureOverSampler(random_state=0),
        KernelDensityOverSampler(random_state=0),
        KernelDensityOverSampler(random_state=0, bandwidth=2.0),
        BootstrapOverSampler(random_state=0),
    ],
    ids=["gaussian", "mixture", "kernel", "wide kernel", "bootstrap"],
)
@pytest.mark.parametrize("cells", [two_classes, two_modes], ids=["one mode", "two modes"])
def test_cells_have_the_moments_of_their_class(sampler: EmbeddingOverSampler, cells) -> None:  # type: ignore[no-untyped-def]
    X, y = cells()
    new, own = new_cells(sampler, X, y), X[y == 1]
    spread = own.std(axis=0)
    np.testing.assert_allclose(new.mean(axis=0) / spread, own.mean(axis=0) / spread, atol=0.1)
    expected = np.cov(own / spread, rowvar=False)
    np.testing.assert_allclose(np.cov(new / spread, rowvar=False), expected, atol=0.15)


def test_small_class_borrows_the_pooled_covariance_within_classes() -> None:
    rng = np.random.default_rng(4)
    noise = rng.standard_normal((4000, 2)) @ np.array([[3.0, 2.9], [2.9, 3.0]])
    far = np.repeat([[0.0, 0.0], [90.0, -90.0]], 2000, axis=0)  # what lies between classes has the other sign
    X = np.concatenate([noise + far, [[50.0, 50.0], [51.0, 49.0], [49.0, 51.0]]])
    y = np.repeat([0, 2, 1], [2000, 2000, 3])
    for sampler in (ClassGaussianOverSampler, GaussianMixtureOverSampler, KernelDensityOverSampler):
        borrowed, own = (new_cells(sampler(random_state=0, min_cells=m), X, y) for m in (50, 2))
        assert np.corrcoef(borrowed, rowvar=False)[0, 1] > 0.7, sampler
        assert np.corrcoef(own, rowvar=False)[0, 1] < 0.5, sampler
        np.testing.assert_allclose(borrowed.mean(axis=0), 50, atol=0.5)


def test_constant_dimension_stays_constant() -> None:
    X, y = two_classes()
    X[:, 2] = 7.0
    for sampler in (ClassGaussianOverSampler, GaussianMixtureOverSampler, KernelDensityOverSampler):
        np.testing.assert_array_equal(new_cells(sampler(random_state=0), X, y)[:, 2], 7.0)


def test_symmetric_root_squares_to_the_covariance() -> None:
    A = np.random.default_rng(0).standard_normal((6, 4))
    root = symmetric_root(A @ A.T)  # of rank 4
    np.testing.assert_allclose(root @ root, A @ A.T, atol=1e-10)
    np.testing.assert_allclose(root, root.T, atol=1e-12)


def test_mixture_finds_two_modes_where_one_gaussian_fills_the_gap() -> None:
    X, y = two_modes()
    gap = {
        sampler: np.mean(np.abs(new_cells(sampler(random_state=0), X, y)[:, 0]) < 3)
        for sampler in (GaussianMixtureOverSampler, ClassGaussianOverSampler)
    }
    assert gap[GaussianMixtureOverSampler] < 0.01 and gap[ClassGaussianOverSampler] > 0.25
    X, y = two_modes(small=50)  # shares of 3/4 and 1/4
    sampler = GaussianMixtureOverSampler(random_state=0)
    assert np.mean(new_cells(sampler, X, y)[:, 0] > 0) == pytest.approx(0.25, abs=0.03)
    large, mixed = sampler.generator_.classes
    assert len(large.centres) == 1 and sorted(mixed.weights) == [0.25, 0.75]


def test_number_of_modes() -> None:
    rng = np.random.default_rng(6)
    correlated = rng.standard_normal((600, 6)) @ rng.standard_normal((6, 6))
    assert find_modes(correlated, 5, 25, seed=0).max() == 0  # however correlated, one Gaussian is one mode
    X, y = two_modes()
    modes, truth = find_modes(X[y == 1], 5, 25, seed=0), np.repeat([0, 1], 150)
    assert modes.max() == 1 and len(np.unique(modes + 2 * truth)) == 2
    np.testing.assert_array_equal(find_modes(X[y == 1] + 1e6, 5, 25, seed=0), modes)
    assert find_modes(X[y == 1], 1, 25, seed=0).max() == 0
    X, y = two_modes(small=20)
    assert find_modes(X[y == 1], 5, 25, seed=0).max() == 0  # the second mode has too few cells
    assert find_modes(X[y == 1], 5, 20, seed=0).max() == 1
    assert find_modes(np.ones((60, 3)), 2, 25, seed=0).max() == 0


def test_mixture_of_one_component_is_the_class_gaussian() -> None:
    X, y = two_modes()
    few = np.r_[:2000, 2000:2020, 2150:2170]  # 20 cells a mode, 40 in all
    one, gaussian = GaussianMixtureOverSampler(max_components=1), ClassGaussianOverSampler()
    few_cells, borrows = GaussianMixtureOverSampler(), GaussianMixtureOverSampler(min_cells=301)
    for sampler, rows in ((one, slice(None)), (gaussian, slice(None)), (few_cells, few), (borrows, slice(None))):
        sampler.fit_resample(X[rows], y[rows])
    for a, b in zip(one.generator_.classes, gaussian.generator_.classes, strict=True):
        np.testing.assert_array_equal(a.centres, b.centres)
        np.testing.assert_array_equal(a.root, b.root)
    for sampler in (few_cells, borrows):
        assert [len(c.centres) for c in sampler.generator_.classes] == [1, 1]


def test_bandwidths_are_those_of_scipy_in_effective_dimensions() -> None:
    for d, n in ((1, 30), (3, 200), (6, 1000)):
        reference = gaussian_kde(np.random.default_rng(d).standard_normal((d, n)))
        assert kernel_bandwidth("scott", n, 2.5 * np.eye(d)) == pytest.approx(reference.scotts_factor())
        assert kernel_bandwidth("silverman", n, 2.5 * np.eye(d)) == pytest.approx(reference.silverman_factor())
    line = np.ones((7, 7))  # one dimension, seven times
    assert kernel_bandwidth("scott", 50, line) == pytest.approx(50 ** (-1 / 5))
    assert kernel_bandwidth(0.3, 50, line) == 0.3
    assert np.isfinite(kernel_bandwidth("silverman", 1, np.zeros((2, 2))))


def test_kernel_density_without_kept_variance_is_wider_by_one_plus_h_squared() -> None:
    X, y = two_classes()
    own = X[y == 1]
    for keep, factor in ((False, 1 + 0.8**2), (True, 1.0)):
        sampler = KernelDensityOverSampler(random_state=0, bandwidth=0.8, keep_variance=keep)
        ratio = new_cells(sampler, X, y).var(axis=0) / own.var(axis=0)
        np.testing.assert_allclose(ratio, factor, rtol=0.1)


def test_kernel_density_is_a_bootstrap_at_zero_and_has_its_modes_between() -> None:
    X, y = two_modes()
    own = X[y == 1]
    new = new_cells(KernelDensityOverSampler(random_state=0, bandwidth=0.0), X, y)
    distance = np.abs(new[:, None] - own).max(axis=2).min(axis=1)
    assert distance.max() < 1e-9
    narrow = new_cells(KernelDensityOverSampler(random_state=0, bandwidth=0.1), X, y)
    distance = np.abs(narrow[:, None] - own).max(axis=2).min(axis=1)
    assert distance.min() > 1e-6 and np.mean(np.abs(narrow[:, 0]) < 3) < 0.05


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixup_stays_in_the_hull_and_loses_the_variance_that_theory_says(alpha: float) -> None:
    rng = np.random.default_rng(7)
    X = np.concatenate([rng.standard_normal((8000, 2)) + 100, rng.standard_normal((60, 2)) * [1, 5]])
    y = np.repeat([0, 1], [8000, 60])
    new, own = new_cells(FeatureMixupOverSampler(random_state=0, alpha=alpha), X, y), X[8000:]
    hull = Delaunay(own)
    assert (hull.find_simplex(own[0] + (new - own[0]) * (1 - 1e-9)) >= 0).all()
    np.testing.assert_allclose(new.mean(axis=0), own.mean(axis=0), atol=0.2)
    # E[w^2 + (1-w)^2] of the variance, and the covariance -S/(n-1) of two different ones of n cells
    squares = (alpha + 1) / (2 * alpha + 1)
    factor = squares - (1 - squares) / (len(own) - 1)
    np.testing.assert_allclose(new.var(axis=0) / own.var(axis=0), factor, rtol=0.06)


def test_mixup_takes_two_different_cells() -> None:
    X = np.concatenate([np.zeros((500, 1)), [[0.0], [1.0]]])
    y = np.repeat([0, 1], [500, 2])
    new = new_cells(FeatureMixupOverSampler(random_state=0, alpha=1e6), X, y)
    np.testing.assert_allclose(new, 0.5, atol=0.01)


def test_bootstrap_copies_cells_of_the_class_equally_often() -> None:
    rng = np.random.default_rng(8)
    X = rng.standard_normal((20010, 3)).astype(np.float32)
    y = np.repeat([0, 1], [20000, 10])
    new = new_cells(BootstrapOverSampler(random_state=0), X, y)
    which = (new[:, None] == X[20000:]).all(axis=2)
    assert (which.sum(axis=1) == 1).all()
    np.testing.assert_allclose(which.mean(axis=0), 0.1, atol=0.01)
