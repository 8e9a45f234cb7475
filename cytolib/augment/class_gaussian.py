"""Gaussians around the centres of a class: the base of the generators without training, and the simplest of them."""

from __future__ import annotations

import numbers
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from imblearn.over_sampling.base import BaseOverSampler
from sklearn.covariance import ledoit_wolf
from sklearn.utils._param_validation import Interval

from cytolib.augment.base import EmbeddingOverSampler


@dataclass(frozen=True)
class ClassMixture:
    """Equal noise around the centres of a class, on standardised dimensions.

    Attributes:
        centres: (K, D). weights: (K,), summing to one. root: (D, D), symmetric root of the covariance of the noise.
    """

    centres: np.ndarray
    weights: np.ndarray
    root: np.ndarray

    def draw(self, count: int, random: np.random.RandomState) -> np.ndarray:
        """(count, D) cells."""
        noise = random.standard_normal((count, len(self.root)))
        if len(self.centres) == 1:
            return self.centres + noise @ self.root
        return self.centres[random.choice(len(self.centres), size=count, p=self.weights)] + noise @ self.root


@dataclass(frozen=True)
class StandardisedMixtures:
    """A mixture a class, and the (D,) mean and standard deviation of the dimensions that they stand on."""

    mean: np.ndarray
    scale: np.ndarray
    classes: list[ClassMixture]


class ClassMixtureOverSampler(EmbeddingOverSampler):
    """A :class:`ClassMixture` a class; a class of fewer than ``min_cells`` borrows the pooled within-class covariance.

    Covariances are shrunk after Ledoit & Wolf (2004) on dimensions standardised over all classes.
    """

    min_cells: int

    def _fit_generator(self, X: np.ndarray, y: np.ndarray, random: np.random.RandomState) -> StandardisedMixtures:
        mean, scale = X.mean(axis=0), X.std(axis=0)
        # a constant dimension keeps the scale 0, so that shrinkage, which spreads variance, gives it none
        Z = (X - mean) / np.where(scale == 0, 1.0, scale)
        by_class = [Z[y == index] for index in range(y.max() + 1)]
        pooled = None
        if min(map(len, by_class)) < self.min_cells:  # Yang et al. 2021, arXiv 2101.06395
            pooled = shrunk_covariance(np.concatenate([cells - cells.mean(axis=0) for cells in by_class]))
        classes = [
            self._class_mixture(cells, pooled if len(cells) < self.min_cells else None, random) for cells in by_class
        ]
        return StandardisedMixtures(mean, scale, classes)

    @abstractmethod
    def _class_mixture(
        self, cells: np.ndarray, borrowed: np.ndarray | None, random: np.random.RandomState
    ) -> ClassMixture:
        """The mixture of (n, D) standardised cells of a class; ``borrowed`` is the covariance of a small class."""

    def _draw(self, y: np.ndarray, random: np.random.RandomState) -> np.ndarray:
        fitted: StandardisedMixtures = self.generator_
        counts = np.bincount(y, minlength=len(fitted.classes))
        parts = [mixture.draw(n, random) for mixture, n in zip(fitted.classes, counts, strict=True) if n]
        return np.concatenate(parts) * fitted.scale + fitted.mean


class ClassGaussianOverSampler(ClassMixtureOverSampler):
    """Over-sampling with one Gaussian a class: what a generator must beat to be worth its training.

    Covariances are shrunk after Ledoit & Wolf (2004) on standardised dimensions; a class of fewer than ``min_cells``
    cells keeps its mean and borrows the pooled within-class covariance (Yang et al. 2021, arXiv 2101.06395).

    Args:
        sampling_strategy, random_state: as in imbalanced-learn.
        min_cells: smallest class with a covariance of its own.

    Attributes:
        generator_: :class:`StandardisedMixtures`, one centre a class.
    """

    _parameter_constraints: ClassVar[dict] = {
        **BaseOverSampler._parameter_constraints,
        "min_cells": [Interval(numbers.Integral, 2, None, closed="left")],
    }

    def __init__(self, *, sampling_strategy: Any = "auto", random_state: Any = None, min_cells: int = 50) -> None:
        super().__init__(sampling_strategy=sampling_strategy, random_state=random_state)
        self.min_cells = min_cells

    def _class_mixture(
        self, cells: np.ndarray, borrowed: np.ndarray | None, random: np.random.RandomState
    ) -> ClassMixture:
        return one_gaussian(cells, borrowed)


def shrunk_covariance(residuals: np.ndarray) -> np.ndarray:
    """(D, D) Ledoit-Wolf covariance of (n, D) residuals of mean zero."""
    return ledoit_wolf(residuals, assume_centered=True)[0]


def symmetric_root(covariance: np.ndarray) -> np.ndarray:
    """Symmetric root of a covariance: eigenvectors are known up to a sign, and rounding must not choose the cells."""
    variance, axes = np.linalg.eigh(covariance)
    return (axes * np.sqrt(variance.clip(0))) @ axes.T


def one_gaussian(cells: np.ndarray, borrowed: np.ndarray | None) -> ClassMixture:
    """One Gaussian around the mean of (n, D) cells, with their own covariance or the borrowed one."""
    mean = cells.mean(axis=0, keepdims=True)
    covariance = shrunk_covariance(cells - mean) if borrowed is None else borrowed
    return ClassMixture(mean, np.ones(1), symmetric_root(covariance))
