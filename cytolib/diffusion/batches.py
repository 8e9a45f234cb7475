"""What a training step sees: which cells, at which noise levels, with which noise and which labels hidden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Batches = Literal["natural", "balanced", "square_root"]
BATCHES: tuple[Batches, ...] = ("natural", "balanced", "square_root")
_POWERS: dict[Batches, float] = {"natural": 1.0, "balanced": 0.0, "square_root": 0.5}


@dataclass(frozen=True)
class Cells:
    """Checked cells: (N, D) float32 embeddings, (N,) class indices, (N,) domain indices or None."""

    X: np.ndarray
    classes: np.ndarray
    domains: np.ndarray | None

    def joined(self, other: Cells) -> Cells:
        """These cells and then the others."""
        domains = None
        if self.domains is not None and other.domains is not None:
            domains = np.concatenate([self.domains, other.domains])
        return Cells(np.concatenate([self.X, other.X]), np.concatenate([self.classes, other.classes]), domains)

    def weights(self, total: float) -> np.ndarray:
        """(N,) equal weights of this sum."""
        return np.full(len(self.X), total / len(self.X))


@dataclass(frozen=True)
class Batch:
    """B cells: (B,) rows, (B,) float32 noise levels, (B, K) float32 noise, (2, B) hidden class and domain labels."""

    rows: np.ndarray
    sigma: np.ndarray
    noise: np.ndarray
    dropped: np.ndarray


def class_probabilities(classes: np.ndarray, batches: Batches) -> np.ndarray:
    """(C,) probability of each class in a batch: n_c^q / sum of n_c^q, with q = 1, 0 or 1/2.

    A class without cells has probability zero whatever q is.

    Args:
        classes: (N,) class indices of the cells.
        batches: 'natural' (q = 1), 'balanced' (q = 0) or 'square_root' (q = 1/2, half-way on the logarithmic scale).
    """
    counts = np.bincount(classes).astype(np.float64)
    tempered = np.where(counts > 0, counts ** _POWERS[batches], 0.0)
    return tempered / tempered.sum()


def cumulative_probabilities(classes: np.ndarray, batches: Batches) -> np.ndarray | None:
    """(N,) cumulative probability of drawing each cell, a class first and a cell of it then; None if all are equal."""
    if batches == "natural":
        return None
    cumulative = np.cumsum((class_probabilities(classes, batches) / np.maximum(np.bincount(classes), 1))[classes])
    return cumulative / cumulative[-1]


def unlabelled_rows(batch_size: int, share: float) -> int:
    """Unlabelled cells of a batch: the share of it, rounded down (0.29 of 100 is 29, though floats say 28.999...)."""
    return int(share * batch_size + 1e-9)


def draw_batch(
    seed: int,
    step: int,
    *,
    batch_size: int,
    dimensions: int,
    cells: int,
    cumulative: np.ndarray | None = None,
    unlabelled_cells: int = 0,
    unlabelled_rows: int = 0,
    sigma_mean: float,
    sigma_std: float,
    label_dropout: float,
) -> Batch:
    """The batch of a step, a pure function of its arguments.

    Noise levels are log-normal, ln sigma ~ N(sigma_mean, sigma_std^2) (EDM, table 1); for flow matching this is the
    logit-normal time of Esser et al. 2024 (arXiv 2403.03206).

    Args:
        cells: number of labelled cells, rows 0 to cells - 1 of the training table.
        cumulative: of :func:`cumulative_probabilities`; None draws every labelled cell with the same probability.
        unlabelled_cells: number of unlabelled cells, the rows that follow.
        unlabelled_rows: how many of the batch are unlabelled; they come last.
    """
    rng = np.random.default_rng((seed, step))
    labelled_rows = batch_size - unlabelled_rows
    if cumulative is None:
        rows = rng.integers(cells, size=labelled_rows)
    else:
        rows = np.searchsorted(cumulative, rng.random(labelled_rows), side="right")
    if unlabelled_rows:
        rows = np.concatenate([rows, cells + rng.integers(unlabelled_cells, size=unlabelled_rows)])
    sigma = np.exp(sigma_mean + sigma_std * rng.standard_normal(batch_size)).astype(np.float32)
    noise = rng.standard_normal((batch_size, dimensions), dtype=np.float32)
    return Batch(rows, sigma, noise, rng.random((2, batch_size)) < label_dropout)
