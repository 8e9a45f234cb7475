"""A class as a mixture of modes."""

from __future__ import annotations

import numbers
from typing import Any, ClassVar

import numpy as np
from sklearn.mixture import GaussianMixture
from sklearn.utils._param_validation import Interval

from cytolib.augment.class_gaussian import (
    ClassGaussianOverSampler,
    ClassMixture,
    ClassMixtureOverSampler,
    one_gaussian,
    shrunk_covariance,
    symmetric_root,
)

#: Modes are looked for in the leading principal axes of a class that hold this share of its variance: each further axis
#: adds two parameters a component to the BIC, and no mode that cells could show.
MODE_VARIANCE = 0.9


class GaussianMixtureOverSampler(ClassMixtureOverSampler):
    """Over-sampling with a mixture of up to ``max_components`` Gaussians a class.

    scikit-learn's ``GaussianMixture`` with diagonal covariances finds the modes, on the class's own principal axes
    (where a single Gaussian, however correlated, is diagonal); their number is that of the smallest BIC. Every cell
    then belongs to its most probable mode: centres and weights are means and shares of these cells, and all modes of a
    class share the Ledoit-Wolf covariance of the cells around them, in all dimensions. So the class keeps its mean and
    its covariance (but for the shrinkage), and with one mode it is that of :class:`ClassGaussianOverSampler`.

    A class of n cells has at most n // ``min_cells_per_component`` modes, and none with fewer cells than that. A class
    of fewer than ``min_cells`` has one, with the borrowed covariance of :class:`ClassGaussianOverSampler`.

    Args:
        sampling_strategy, random_state: as in imbalanced-learn.
        max_components: most modes of a class.
        min_cells_per_component: fewest cells of a mode.
        min_cells: smallest class with a covariance of its own.

    Attributes:
        generator_: :class:`StandardisedMixtures`, one centre a mode.
    """

    _parameter_constraints: ClassVar[dict] = {
        **ClassGaussianOverSampler._parameter_constraints,
        "max_components": [Interval(numbers.Integral, 1, None, closed="left")],
        "min_cells_per_component": [Interval(numbers.Integral, 2, None, closed="left")],
    }

    def __init__(
        self,
        *,
        sampling_strategy: Any = "auto",
        random_state: Any = None,
        max_components: int = 5,
        min_cells_per_component: int = 25,
        min_cells: int = 50,
    ) -> None:
        super().__init__(sampling_strategy=sampling_strategy, random_state=random_state)
        self.max_components = max_components
        self.min_cells_per_component = min_cells_per_component
        self.min_cells = min_cells

    def _class_mixture(
        self, cells: np.ndarray, borrowed: np.ndarray | None, random: np.random.RandomState
    ) -> ClassMixture:
        most = min(self.max_components, len(cells) // self.min_cells_per_component)
        seed = random.randint(2**31 - 1)  # drawn for every class: what one holds must not change the next
        if borrowed is not None or most < 2:
            return one_gaussian(cells, borrowed)
        modes = find_modes(cells, most, self.min_cells_per_component, seed)
        counts = np.bincount(modes)
        centres = np.stack([cells[modes == mode].mean(axis=0) for mode in range(len(counts))])
        return ClassMixture(centres, counts / len(cells), symmetric_root(shrunk_covariance(cells - centres[modes])))


def find_modes(cells: np.ndarray, most: int, min_cells: int, seed: int) -> np.ndarray:
    """(n,) mode of each of (n, D) cells, from 0: the Gaussian mixture of smallest BIC on the leading principal axes.

    Mixtures of up to ``most`` components are tried; those with a component of fewer than ``min_cells`` cells are left
    out.
    """
    centred = cells - cells.mean(axis=0)
    variance, axes = np.linalg.eigh(centred.T @ centred / len(cells))
    variance, axes = variance[::-1].clip(0), axes[:, ::-1]
    best = np.zeros(len(cells), dtype=np.int64)
    if variance[0] == 0:
        return best
    kept = int(np.searchsorted(np.cumsum(variance) / variance.sum(), MODE_VARIANCE)) + 1
    scores = centred @ axes[:, :kept] / np.sqrt(variance[0])
    lowest = np.inf
    for components in range(1, most + 1):
        mixture = GaussianMixture(components, covariance_type="diag", max_iter=500, random_state=seed).fit(scores)
        modes = mixture.predict(scores)
        bic = mixture.bic(scores)
        if bic < lowest and np.bincount(modes, minlength=components).min() >= min_cells:
            best, lowest = modes, bic
    return best
