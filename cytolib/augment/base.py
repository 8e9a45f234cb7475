"""What every over-sampler of embeddings shares: imbalanced-learn's contract, and drawing again from what was fitted."""

from __future__ import annotations

import numbers
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from imblearn.over_sampling.base import BaseOverSampler
from scipy import sparse
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_random_state


class EmbeddingOverSampler(BaseOverSampler):
    """Real cells first, unchanged and in order; then, class by class, the cells that the fitted generator makes.

    A child writes ``_fit_generator`` and ``_draw``. As in imbalanced-learn, ``fit`` only checks its input and
    ``fit_resample`` does the work; it fits a generator only where some class wants cells. A generator is forgotten when
    new data come in, so that ``sample`` never answers with cells of older data.

    Floating types are kept. Whole numbers become float64, because rounding would move every synthetic cell; only in a
    DataFrame imbalanced-learn casts such columns back.

    Args:
        sampling_strategy: as in imbalanced-learn: 'auto' fills every class up to the largest, a dict names the wanted
            total of each class.
        random_state: seed of the generator and of the synthetic cells.

    Attributes:
        generator_: what ``_fit_generator`` returned (if any cell was wanted). classes_: (C,) classes it knows
            (their positions, for one-vs-all targets).
        sampling_strategy_: dict, class to number of synthetic cells.
    """

    def __init__(self, *, sampling_strategy: Any = "auto", random_state: Any = None) -> None:
        super().__init__(sampling_strategy=sampling_strategy)
        self.random_state = random_state

    @abstractmethod
    def _fit_generator(self, X: np.ndarray, y: np.ndarray, random: np.random.RandomState) -> Any:
        """The fitted generator of (N, D) float64 cells with (N,) class indices; every class has at least one cell."""

    @abstractmethod
    def _draw(self, y: np.ndarray, random: np.random.RandomState) -> np.ndarray:
        """(M, D) cells of (M,) sorted class indices, from ``self.generator_``."""

    def sample(self, n_per_class: int | Mapping[Any, int], random_state: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Draw synthetic cells alone from the generator that ``fit_resample`` fitted.

        Args:
            n_per_class: number of cells of every class, or a mapping from class to number; classes that the mapping
                leaves out get none.
            random_state: seed of these cells, as in scikit-learn.

        Returns:
            (M, D) cells, a dense array of the type that ``fit_resample`` gives, and (M,) labels in sorted order.

        Raises:
            NotFittedError: before ``fit_resample``, or after one that wanted no cell.
            ValueError: for a class that was not there, or a number that is not whole or below 0, or no cell at all.
        """
        if not hasattr(self, "generator_"):
            raise NotFittedError(
                f"this {type(self).__name__} holds no generator, expected one from fit_resample; call fit_resample "
                "with a sampling_strategy that wants at least one cell"
            )
        each = dict.fromkeys(self.classes_.tolist(), n_per_class) if _whole(n_per_class) else n_per_class
        counts = check_counts(each, self.classes_, "n_per_class")
        indices = np.repeat(np.arange(len(self.classes_)), counts)
        return self._draw(indices, check_random_state(random_state)).astype(self._dtype), self.classes_[indices]

    def _check_X_y(self, X: Any, y: Any, accept_sparse: Any = None) -> tuple[Any, np.ndarray, bool]:  # noqa: N802
        self.__dict__.pop("generator_", None)
        return super()._check_X_y(X, y, accept_sparse)

    def _fit_resample(self, X: Any, y: np.ndarray) -> tuple[Any, np.ndarray]:
        if sparse.issparse(X):  # embeddings are dense; a sparse matrix is taken and given back all the same
            dense, labels = self._fit_resample(X.toarray(), y)
            return type(X)(dense), labels
        self.classes_, indices = np.unique(y, return_inverse=True)
        self._dtype = X.dtype if np.issubdtype(X.dtype, np.floating) else np.dtype(np.float64)
        wanted = np.array([self.sampling_strategy_.get(name, 0) for name in self.classes_])
        if not wanted.any():
            return X.copy(), y.copy()
        random = check_random_state(self.random_state)
        self.generator_ = self._fit_generator(np.asarray(X, dtype=np.float64), indices, random)
        new = np.repeat(np.arange(len(wanted)), wanted)
        new_X = self._draw(new, random).astype(self._dtype)
        return np.concatenate([X, new_X]), np.concatenate([y, self.classes_[new]])


def check_counts(counts: Any, classes: np.ndarray, parameter: str) -> np.ndarray:
    """(C,) wanted cells of each of the sorted ``classes``, from a mapping of class to number; at least one in all."""
    if not isinstance(counts, Mapping):
        raise ValueError(f"{parameter} is {counts!r}, expected a whole number or a mapping from class to whole number")
    names = classes.tolist()
    if unknown := [name for name in counts if name not in names]:
        raise ValueError(f"{parameter} names {unknown}, expected classes of the given cells, which are {names}")
    if bad := {name: n for name, n in counts.items() if not _whole(n) or n < 0}:
        raise ValueError(f"{parameter} holds {bad}, expected whole numbers of at least 0")
    wanted = np.array([counts.get(name, 0) for name in names], dtype=np.int64)
    if not wanted.any():
        raise ValueError(f"{parameter} is {counts!r}, which asks for no cell; ask for at least one")
    return wanted


def _whole(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
