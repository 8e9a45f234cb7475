"""Generators that only repeat or mix the cells of a class."""

from __future__ import annotations

import numbers
from typing import Any, ClassVar

import numpy as np
from imblearn.over_sampling.base import BaseOverSampler
from sklearn.utils._param_validation import Interval

from cytolib.augment.base import EmbeddingOverSampler


class _CellOverSampler(EmbeddingOverSampler):
    """The generator is the cells themselves, a class each; ``_combine`` makes new ones of them."""

    def _fit_generator(self, X: np.ndarray, y: np.ndarray, random: np.random.RandomState) -> list[np.ndarray]:
        return [X[y == index] for index in range(y.max() + 1)]

    def _draw(self, y: np.ndarray, random: np.random.RandomState) -> np.ndarray:
        counts = np.bincount(y, minlength=len(self.generator_))
        return np.concatenate(
            [self._combine(cells, n, random) for cells, n in zip(self.generator_, counts, strict=True) if n]
        )

    def _combine(self, cells: np.ndarray, count: int, random: np.random.RandomState) -> np.ndarray:
        raise NotImplementedError


class FeatureMixupOverSampler(_CellOverSampler):
    """Over-sampling with mixup of embeddings (Zhang et al. 2018, arXiv 1710.09412) within a class: labels stay hard.

    A new cell is w a + (1 - w) b, of two different cells a and b of the class, with w ~ Beta(alpha, alpha). It lies in
    the convex hull of the class, whose covariance shrinks by about (alpha + 1) / (2 alpha + 1). A class of one cell
    repeats it.

    Args:
        sampling_strategy, random_state: as in imbalanced-learn.
        alpha: shape of the weight: 1 is uniform, towards 0 cells are copies, large ones give the middle of a and b.

    Attributes:
        generator_: (n, D) training cells of each class: saved, it holds the training cells.
    """

    _parameter_constraints: ClassVar[dict] = {
        **BaseOverSampler._parameter_constraints,
        "alpha": [Interval(numbers.Real, 0, None, closed="neither")],
    }

    def __init__(self, *, sampling_strategy: Any = "auto", random_state: Any = None, alpha: float = 1.0) -> None:
        super().__init__(sampling_strategy=sampling_strategy, random_state=random_state)
        self.alpha = alpha

    def _combine(self, cells: np.ndarray, count: int, random: np.random.RandomState) -> np.ndarray:
        first = random.randint(len(cells), size=count)
        if len(cells) == 1:
            return cells[first]
        second = (first + random.randint(1, len(cells), size=count)) % len(cells)
        weight = random.beta(self.alpha, self.alpha, size=(count, 1))
        return weight * cells[first] + (1 - weight) * cells[second]


class BootstrapOverSampler(_CellOverSampler):
    """Over-sampling with cells of the class, drawn with replacement: the perfect copier.

    It is a control: no metric of fidelity can fault its cells, and a metric of memorisation must.

    Args:
        sampling_strategy, random_state: as in imbalanced-learn.

    Attributes:
        generator_: (n, D) training cells of each class: saved, it holds the training cells.
    """

    def _combine(self, cells: np.ndarray, count: int, random: np.random.RandomState) -> np.ndarray:
        return cells[random.randint(len(cells), size=count)]
