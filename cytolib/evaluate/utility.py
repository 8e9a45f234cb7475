"""Are synthetic cells useful? Classifiers trained on real cells, synthetic ones, or both; tested on real ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from imblearn.over_sampling import SMOTE, RandomOverSampler
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import accuracy_score, f1_score, recall_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from cytolib.augment import (
    ClassGaussianOverSampler,
    EmbeddingOverSampler,
    KernelDensityOverSampler,
    fitted,
    synthetic_only,
)
from cytolib.classify.probes import Predict, adjust_logits, tune_logistic_regression
from cytolib.diffusion import EmbeddingDiffusionPipeline
from cytolib.diffusion.noise import cell_seeds

#: The arms of a utility table: training sets for one kind of classifier, with scaler, grid of C and validation cells
#: in common.
ARMS: dict[str, str] = {
    "real": "real training cells",
    "real_class_weight": "real cells, classes weighted by inverse frequency",
    "random_oversampling": "real cells, rare classes repeated",
    "smote": "real cells and SMOTE interpolations",
    "real_plus_gaussian": "real cells and class-conditional Gaussian cells",
    "real_plus_kernel_density": "real cells and cells of a smoothed bootstrap",
    "real_plus_diffusion": "real cells and diffusion cells",
    "gaussian_only": "class-conditional Gaussian cells only",
    "kernel_density_only": "cells of a smoothed bootstrap only",
    "diffusion_only": "diffusion cells only (train on synthetic, test on real)",
    "real_projected": "control: real cells without the directions that the generator drops",
    "shuffled_labels": "control: real cells under shuffled labels",
}
#: Other classifiers of the real cells, which cost nothing and which synthetic cells must beat.
HEADS: dict[str, str] = {
    "real_logit_adjusted": "real cells, each logit less the logarithm of its class's frequency",
    "real_shrinkage_lda": "real cells, discriminant analysis with shrunk covariance and equal priors",
}
METHODS: dict[str, str] = {**ARMS, **HEADS}
LEAST_CELLS = 4  # of a class that is scored
#: (M,) sorted classes and a seed to (M, D) synthetic cells.
Sample = Callable[[np.ndarray, int], np.ndarray]


@dataclass(frozen=True)
class TrainingSet:
    """What one arm trains on: (N, D) embeddings, (N,) classes, and scikit-learn's ``class_weight``."""

    X: np.ndarray
    y: np.ndarray
    class_weight: str | None = None


def synthetic_labels(y: np.ndarray, n_per_class: int = 0, *, multiple: int = 1, top_up: bool = False) -> np.ndarray:
    """Which synthetic cells to draw: sorted class labels.

    ``n_per_class`` 0 takes natural counts (``multiple`` for each real cell), or, with ``top_up``, fills every class up
    to the largest, as SMOTE does.
    """
    classes, counts = np.unique(y, return_counts=True)
    if n_per_class < 0:
        raise ValueError(f"n_per_class is {n_per_class}, expected 0 (natural counts) or a positive number")
    if multiple < 1:
        raise ValueError(f"multiple is {multiple}, expected 1 or more synthetic cells for each real one")
    if n_per_class:
        return np.repeat(classes, n_per_class)
    return np.repeat(classes, counts.max() - counts if top_up else multiple * counts)


def training_sets(
    X: np.ndarray,
    y: np.ndarray,
    sample: Sample,
    project: Callable[[np.ndarray], np.ndarray],
    *,
    seed: int,
    n_per_class: int = 0,
    multiple: int = 1,
) -> dict[str, TrainingSet]:
    """The training set of every arm of :data:`ARMS`.

    Args:
        X: (N, D) real training embeddings. y: (N,) classes.
        sample: the diffusion model, trained on (X, y) alone: (M,) classes and a seed to (M, D) embeddings.
        project: embeddings (N, D) to the same without the directions that the model does not generate.
        n_per_class: synthetic cells a class; 0 for natural counts in the synthetic-only arms and for filling up to the
            largest class (as SMOTE does) in the others.
        multiple: of the natural counts, synthetic cells for each real one in the synthetic-only arms.
    """
    alone = synthetic_labels(y, n_per_class, multiple=multiple)
    added = synthetic_labels(y, n_per_class, top_up=True)
    new = Counter(added.tolist())
    totals = {name: n + new[name] for name, n in sorted(Counter(y.tolist()).items())}
    repeated = RandomOverSampler(sampling_strategy=totals, random_state=seed).fit_resample(X, y)
    samples = {
        "gaussian": _sample_of(ClassGaussianOverSampler(), X, y, seed),
        "kernel_density": _sample_of(KernelDensityOverSampler(), X, y, seed),
        "diffusion": sample,
    }
    return {
        "real": TrainingSet(X, y),
        "real_class_weight": TrainingSet(X, y, "balanced"),
        "random_oversampling": TrainingSet(*repeated),
        "smote": _smote(X, y, added, totals, seed),
        **{f"real_plus_{name}": _with(X, y, added, draw, 2 * seed + 1) for name, draw in samples.items()},
        **{f"{name}_only": TrainingSet(draw(alone, 2 * seed), alone) for name, draw in samples.items()},
        "real_projected": TrainingSet(project(X), y),
        "shuffled_labels": TrainingSet(X, np.random.default_rng(seed).permutation(y)),
    }


def _sample_of(sampler: EmbeddingOverSampler, X: np.ndarray, y: np.ndarray, seed: int) -> Sample:
    """A sampler that is fitted once, as a ``sample``; its cells depend on the arm's seed and not on the call's."""
    generator = fitted(sampler, X, y)
    return lambda labels, _: generator.sample(Counter(labels.tolist()), seed)[0]


def _with(X: np.ndarray, y: np.ndarray, labels: np.ndarray, sample: Sample, seed: int) -> TrainingSet:
    """Real cells, and synthetic ones of these labels: none where all classes are as large as the largest."""
    if not len(labels):
        return TrainingSet(X, y)
    return TrainingSet(np.concatenate([X, sample(labels, seed)]), np.concatenate([y, labels]))


def _smote(X: np.ndarray, y: np.ndarray, added: np.ndarray, totals: dict[Any, int], seed: int) -> TrainingSet:
    """Real cells and SMOTE's; class by class, each with as many neighbours as it has, where one has too few for all."""
    smote = SMOTE(random_state=seed)
    if min(Counter(y.tolist()).values()) > smote.k_neighbors:
        return TrainingSet(*smote.set_params(sampling_strategy=totals).fit_resample(X, y))
    return _with(X, y, added, lambda labels, _: synthetic_only(smote, X, y, Counter(labels.tolist()))[0], seed)


def diffusion_sample(
    pipe: EmbeddingDiffusionPipeline, *, num_inference_steps: int = 18, guidance_scale: float = 1.0
) -> Sample:
    """``sample`` of :func:`training_sets` from a pipeline; cells have the seeds ``cell_seeds(M, seed)``."""

    def sample(labels: np.ndarray, seed: int) -> np.ndarray:
        drawn = pipe(
            labels, num_inference_steps=num_inference_steps, guidance_scale=guidance_scale,
            seeds=cell_seeds(len(labels), seed),
        )  # fmt: skip
        return drawn.embeddings

    return sample


def generated_directions(pipe: EmbeddingDiffusionPipeline) -> Callable[[np.ndarray], np.ndarray]:
    """``project`` of :func:`training_sets`: into the space that the denoiser works in, and back."""

    def project(X: np.ndarray) -> np.ndarray:
        standardizer = pipe.standardizer
        there = standardizer.transform(torch.from_numpy(np.asarray(X, dtype=np.float32)).to(pipe.device))
        return standardizer.inverse_transform(there).cpu().numpy()

    return project


def fit_arms(
    arms: dict[str, TrainingSet], X_val: np.ndarray, y_val: np.ndarray, *, scaler: StandardScaler
) -> dict[str, Pipeline]:
    """A tuned logistic regression an arm: same scaler (of the real training cells), grid and real validation cells."""
    return {
        name: tune_logistic_regression(arm.X, arm.y, X_val, y_val, class_weight=arm.class_weight, scaler=scaler)
        for name, arm in arms.items()
    }


def fit_heads(X: np.ndarray, y: np.ndarray, real: Pipeline) -> dict[str, Predict]:
    """The predictors of :data:`HEADS`.

    Args:
        X: (N, D) standardised real training cells, y: (N,) classes. real: the tuned classifier of the arm ``real``,
            whose penalty was chosen before its logits are adjusted.
    """
    n_classes = len(np.unique(y))
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=np.full(n_classes, 1 / n_classes))
    return {"real_logit_adjusted": adjust_logits(real, y), "real_shrinkage_lda": lda.fit(X, y).predict}


def scored_cells(y_test: np.ndarray, y_train: np.ndarray) -> np.ndarray:
    """(N,) which test cells are scored: those of classes with training cells and at least ``LEAST_CELLS`` test cells.

    A class that was never trained has no right answer; of a smaller one, one cell moves a mean over classes by more
    than methods differ.
    """
    classes, counts = np.unique(y_test, return_counts=True)
    return np.isin(y_test, classes[counts >= LEAST_CELLS]) & np.isin(y_test, y_train)


def classification_metrics(y_true: np.ndarray, y_pred: np.ndarray) -> dict[str, float]:
    """Balanced accuracy, macro F1, accuracy, and ``recall[class]``, over the classes of (N,) ``y_true``."""
    classes = np.unique(y_true)
    recalls = recall_score(y_true, y_pred, labels=classes, average=None, zero_division=0.0)
    return {
        "balanced_accuracy": float(np.mean(recalls)),
        "macro_f1": float(f1_score(y_true, y_pred, labels=classes, average="macro", zero_division=0.0)),
        "accuracy": float(accuracy_score(y_true, y_pred)),
        **{f"recall[{name}]": float(value) for name, value in zip(classes, recalls, strict=True)},
    }
