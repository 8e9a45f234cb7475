"""Every generator of a comparison by name, and the synthetic cells of one alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from imblearn.over_sampling import SMOTE, RandomOverSampler
from imblearn.over_sampling.base import BaseOverSampler
from sklearn.base import clone
from sklearn.utils import check_random_state

from cytolib.augment.base import EmbeddingOverSampler, check_counts
from cytolib.augment.class_gaussian import ClassGaussianOverSampler
from cytolib.augment.diffusion import DiffusionOverSampler
from cytolib.augment.gaussian_mixture import GaussianMixtureOverSampler
from cytolib.augment.kernel_density import KernelDensityOverSampler
from cytolib.augment.resampling import BootstrapOverSampler, FeatureMixupOverSampler

#: Name to sampler with default settings, of a seed. ``random_oversampling`` and ``bootstrap`` draw the same kind of
#: cells: the one is the baseline of imbalanced learning, the other the control of the memorisation metrics.
GENERATORS: dict[str, Callable[[int], BaseOverSampler]] = {
    "diffusion": lambda seed: DiffusionOverSampler(random_state=seed),
    "flow_matching": lambda seed: DiffusionOverSampler(random_state=seed, objective="flow_matching"),
    "class_gaussian": lambda seed: ClassGaussianOverSampler(random_state=seed),
    "gaussian_mixture": lambda seed: GaussianMixtureOverSampler(random_state=seed),
    "kernel_density": lambda seed: KernelDensityOverSampler(random_state=seed),
    "smote": lambda seed: SMOTE(random_state=seed),
    "feature_mixup": lambda seed: FeatureMixupOverSampler(random_state=seed),
    "random_oversampling": lambda seed: RandomOverSampler(random_state=seed),
    "bootstrap": lambda seed: BootstrapOverSampler(random_state=seed),
}


def synthetic_only(
    sampler: BaseOverSampler, X: np.ndarray, y: np.ndarray, counts: Mapping[Any, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The new cells of an over-sampler without the real ones, to train a classifier on synthetic cells alone.

    The sampler is cloned, and its ``sampling_strategy`` replaced. Sorted classes, and the same cells for the same
    ``random_state``. SMOTE needs more cells than ``k_neighbors``: a smaller class takes all its others, and a class of
    one cell repeats it.

    Args:
        sampler: any over-sampler that gives the real cells first, as those of imbalanced-learn do.
        X: (N, D) real cells. y: (N,) classes.
        counts: synthetic cells of each class; classes left out get none.

    Returns:
        (M, D) new cells of the type of ``X``, and their (M,) classes.

    Raises:
        ValueError: for a class that ``y`` lacks, or a number that is not whole or below 0, or no cell at all.
    """
    X, y = np.asarray(X), np.asarray(y)
    if X.ndim != 2 or y.shape != (len(X),):
        raise ValueError(f"X has shape {X.shape} and y {y.shape}, expected a row of X and a label for each cell")
    classes, real = np.unique(y, return_counts=True)
    wanted = check_counts(counts, classes, "counts")
    sampler = clone(sampler)
    if isinstance(sampler, SMOTE):
        return _smote_only(sampler, X, y, wanted)
    totals = {name: n + new for name, n, new in zip(*(v.tolist() for v in (classes, real, wanted)), strict=True) if new}
    with _beyond_the_largest():
        new_X, new_y = sampler.set_params(sampling_strategy=totals).fit_resample(X, y)
    return new_X[len(X) :], new_y[len(X) :]


def fitted(sampler: EmbeddingOverSampler, X: np.ndarray, y: np.ndarray) -> EmbeddingOverSampler:
    """A clone whose generator is fitted on all classes of (N, D) cells: ready for ``sample``, any number of times."""
    totals = {name: n + 1 for name, n in zip(*(v.tolist() for v in np.unique(y, return_counts=True)), strict=True)}
    sampler = clone(sampler).set_params(sampling_strategy=totals)
    with _beyond_the_largest():
        sampler.fit_resample(X, y)
    return sampler


@contextmanager
def _beyond_the_largest() -> Iterator[None]:
    """No warning that a class grows beyond the largest: here that is what is asked for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="After over-sampling", category=UserWarning)
        yield


def _smote_only(sampler: SMOTE, X: np.ndarray, y: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class by class, each with a seed of its own and as many neighbours as it has."""
    classes, counts = np.unique(y, return_counts=True)
    seeds = check_random_state(sampler.random_state).randint(2**31 - 1, size=len(classes)).tolist()
    most, parts = sampler.k_neighbors, []
    for name, n, new, seed in zip(classes.tolist(), counts.tolist(), wanted.tolist(), seeds, strict=True):
        if n == 1:
            parts.append(np.repeat(X[y == name], new, axis=0))
        elif new:
            sampler.set_params(sampling_strategy={name: n + new}, k_neighbors=min(most, n - 1), random_state=seed)
            with _beyond_the_largest():
                parts.append(sampler.fit_resample(X, y)[0][len(X) :])
    return np.concatenate(parts), np.repeat(classes, wanted)
