"""Synthetic cells where SMOTE sat: imbalanced-learn samplers made of a diffusion model and of its honest baseline."""

from __future__ import annotations

import numbers
from typing import Any, ClassVar

import numpy as np
from imblearn.over_sampling.base import BaseOverSampler
from scipy import sparse
from sklearn.covariance import ledoit_wolf
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval

from cytolib.diffusion import train


class _EmbeddingOverSampler(BaseOverSampler):
    """Real cells first, unchanged and in order; then, class by class, the cells that ``_draw`` makes."""

    def _fit_resample(self, X: Any, y: np.ndarray) -> tuple[Any, np.ndarray]:
        if sparse.issparse(X):  # embeddings are dense; a sparse matrix is taken and given back all the same
            dense, labels = self._fit_resample(X.toarray(), y)
            return type(X)(dense), labels
        wanted = {name: n for name, n in sorted(self.sampling_strategy_.items()) if n > 0}
        if not wanted:
            return X.copy(), y.copy()
        new_y = np.repeat(np.array(list(wanted), dtype=y.dtype), list(wanted.values()))
        new_X = self._draw(np.asarray(X, dtype=np.float64), y, new_y, check_random_state(self.random_state))
        return np.concatenate([X, new_X.astype(X.dtype)]), np.concatenate([y, new_y])

    def _draw(self, X: np.ndarray, y: np.ndarray, new_y: np.ndarray, random: np.random.RandomState) -> np.ndarray:
        raise NotImplementedError


class DiffusionOverSampler(_EmbeddingOverSampler):
    """Over-sampling with a class-conditional diffusion model, trained on the cells it is given.

    It is fitted inside ``fit_resample``, so in an imbalanced-learn ``Pipeline`` under cross-validation the generator
    never sees a validation cell.

    Args:
        sampling_strategy: as in imbalanced-learn: 'auto' fills every class up to the largest, a dict names the wanted
            total of each class.
        random_state: seed of training and of the synthetic cells.
        steps, batch_size, learning_rate, width, depth: of :func:`cytolib.diffusion.train`.
        num_inference_steps, guidance_scale: of :class:`cytolib.diffusion.EmbeddingDiffusionPipeline`.
        device: None takes the best one.

    Attributes:
        pipeline_: the trained :class:`cytolib.diffusion.EmbeddingDiffusionPipeline` (if any cell was wanted).
        sampling_strategy_: dict, class to number of synthetic cells.
    """

    _parameter_constraints: ClassVar[dict] = {
        **BaseOverSampler._parameter_constraints,
        "steps": [Interval(numbers.Integral, 1, None, closed="left")],
        "batch_size": [Interval(numbers.Integral, 1, None, closed="left")],
        "learning_rate": [Interval(numbers.Real, 0, None, closed="neither")],
        "width": [Interval(numbers.Integral, 1, None, closed="left")],
        "depth": [Interval(numbers.Integral, 1, None, closed="left")],
        "num_inference_steps": [Interval(numbers.Integral, 1, None, closed="left")],
        "guidance_scale": [Interval(numbers.Real, 0, None, closed="left")],
        "device": "no_validation",
    }

    def __init__(
        self,
        *,
        sampling_strategy: Any = "auto",
        random_state: Any = None,
        steps: int = 2000,
        batch_size: int = 128,
        learning_rate: float = 3e-3,
        width: int = 256,
        depth: int = 3,
        num_inference_steps: int = 18,
        guidance_scale: float = 1.0,
        device: Any = None,
    ) -> None:
        super().__init__(sampling_strategy=sampling_strategy)
        self.random_state = random_state
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.width = width
        self.depth = depth
        self.num_inference_steps = num_inference_steps
        self.guidance_scale = guidance_scale
        self.device = device

    def _draw(self, X: np.ndarray, y: np.ndarray, new_y: np.ndarray, random: np.random.RandomState) -> np.ndarray:
        classes, indices = np.unique(y, return_inverse=True)
        training = train(
            X, indices, class_names=[str(name) for name in classes], steps=int(self.steps),
            batch_size=int(self.batch_size), learning_rate=float(self.learning_rate), width=int(self.width),
            depth=int(self.depth), seed=int(random.randint(2**31 - 1)), device=self.device,
        )  # fmt: skip
        for step in training:  # noqa: B007, the last step holds the model
            pass
        self.pipeline_ = step.pipeline()
        return self.pipeline_(
            np.searchsorted(classes, new_y), num_inference_steps=int(self.num_inference_steps),
            guidance_scale=float(self.guidance_scale), seeds=random.randint(2**31 - 1, size=len(new_y), dtype=np.int64),
        ).embeddings  # fmt: skip


class ClassGaussianOverSampler(_EmbeddingOverSampler):
    """Over-sampling with one Gaussian a class: what a generator must beat to be worth its training.

    Covariances are shrunk after Ledoit & Wolf (2004) on standardised dimensions; a class of fewer than ``min_cells``
    cells keeps its mean and borrows the pooled within-class covariance (Yang et al. 2021, arXiv 2101.06395).

    Args:
        sampling_strategy, random_state: as in imbalanced-learn.
        min_cells: smallest class with a covariance of its own.
    """

    _parameter_constraints: ClassVar[dict] = {
        **BaseOverSampler._parameter_constraints,
        "min_cells": [Interval(numbers.Integral, 2, None, closed="left")],
    }

    def __init__(self, *, sampling_strategy: Any = "auto", random_state: Any = None, min_cells: int = 50) -> None:
        super().__init__(sampling_strategy=sampling_strategy)
        self.random_state = random_state
        self.min_cells = min_cells

    def _draw(self, X: np.ndarray, y: np.ndarray, new_y: np.ndarray, random: np.random.RandomState) -> np.ndarray:
        centre, scale = X.mean(axis=0), X.std(axis=0)
        scale[scale == 0] = 1.0
        Z = (X - centre) / scale
        classes = np.unique(y)
        means = {name: Z[y == name].mean(axis=0) for name in classes}
        drawn = np.empty((len(new_y), X.shape[1]))
        for name in np.unique(new_y):
            cells = Z[y == name] - means[name]
            if len(cells) < self.min_cells:
                cells = np.concatenate([Z[y == c] - means[c] for c in classes])
            covariance, _ = ledoit_wolf(cells, assume_centered=True)
            variance, axes = np.linalg.eigh(covariance)
            rows = np.flatnonzero(new_y == name)
            noise = random.standard_normal((len(rows), X.shape[1]))
            # the symmetric root: eigenvectors are known up to a sign only, and rounding must not choose the cells
            root = (axes * np.sqrt(variance.clip(0))) @ axes.T
            drawn[rows] = means[name] + noise @ root
        return drawn * scale + centre
