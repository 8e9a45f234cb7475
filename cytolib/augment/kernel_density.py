"""The smoothed bootstrap."""

from __future__ import annotations

import numbers
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from cytolib.augment.class_gaussian import (
    ClassGaussianOverSampler,
    ClassMixture,
    ClassMixtureOverSampler,
    shrunk_covariance,
    symmetric_root,
)


class KernelDensityOverSampler(ClassMixtureOverSampler):
    """Over-sampling with a Gaussian kernel density a class: the smoothed bootstrap of Silverman (1986, section 6.4).

    A new cell is a cell of the class, drawn at random, plus noise N(0, h^2 Sigma) with Sigma the shrunk covariance of
    the class (borrowed as in :class:`ClassGaussianOverSampler` where the class is small). At h = 0 it is the bootstrap;
    with ``keep_variance`` and growing h it becomes the class Gaussian.

    Args:
        sampling_strategy, random_state: as in imbalanced-learn.
        bandwidth: h, or the rule that sets it from the n cells of the class and their effective dimensions
            d = tr(Sigma)^2 / tr(Sigma^2): 'scott' n^(-1 / (d + 4)), 'silverman' (n (d + 2) / 4)^(-1 / (d + 4)).
        keep_variance: pull new cells towards the mean of the class by sqrt(1 + h^2), so that its covariance stays;
            otherwise it grows by the factor 1 + h^2.
        min_cells: smallest class with a covariance of its own.

    Attributes:
        generator_: :class:`StandardisedMixtures`, one centre a training cell: saved, it holds the training cells.
    """

    _parameter_constraints: ClassVar[dict] = {
        **ClassGaussianOverSampler._parameter_constraints,
        "bandwidth": [StrOptions({"scott", "silverman"}), Interval(numbers.Real, 0, None, closed="left")],
        "keep_variance": ["boolean"],
    }

    def __init__(
        self,
        *,
        sampling_strategy: Any = "auto",
        random_state: Any = None,
        bandwidth: str | float = "scott",
        keep_variance: bool = True,
        min_cells: int = 50,
    ) -> None:
        super().__init__(sampling_strategy=sampling_strategy, random_state=random_state)
        self.bandwidth = bandwidth
        self.keep_variance = keep_variance
        self.min_cells = min_cells

    def _class_mixture(
        self, cells: np.ndarray, borrowed: np.ndarray | None, random: np.random.RandomState
    ) -> ClassMixture:
        mean = cells.mean(axis=0)
        covariance = shrunk_covariance(cells - mean) if borrowed is None else borrowed
        h = kernel_bandwidth(self.bandwidth, len(cells), covariance)
        shrinkage = 1 / np.sqrt(1 + h**2) if self.keep_variance else 1.0
        weights = np.full(len(cells), 1 / len(cells))
        return ClassMixture(mean + shrinkage * (cells - mean), weights, shrinkage * h * symmetric_root(covariance))


def kernel_bandwidth(bandwidth: str | float, n: int, covariance: np.ndarray) -> float:
    """h of ``n`` cells in units of the (D, D) covariance: a number, or 'scott' or 'silverman' in effective dimensions.

    Scott (1992) and Silverman (1986) write d for the dimensions of independent coordinates. Those of embeddings are
    correlated: d is the participation ratio of the covariance, tr(S)^2 / tr(S^2), which is D for independent ones.
    """
    if not isinstance(bandwidth, str):
        return float(bandwidth)
    squares = float(np.sum(covariance**2))
    d = float(np.trace(covariance)) ** 2 / squares if squares else 1.0  # without variance any h gives no noise
    return (n if bandwidth == "scott" else n * (d + 2) / 4) ** (-1 / (d + 4))
