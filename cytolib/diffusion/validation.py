"""The validation loss of a diffusion model, cell by cell, so that it can be read by class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.special import ndtri

from cytolib.diffusion.denoiser import EmbeddingDenoiser
from cytolib.diffusion.matmul import fast_float32_matmul
from cytolib.diffusion.noise import noise_from_seeds
from cytolib.diffusion.preconditioning import denoising_loss

LEVELS = 8  # noise levels: quantiles of the training distribution
BLOCK = 4096  # cells of one network call


def validation_levels(sigma_mean: float, sigma_std: float) -> np.ndarray:
    """(LEVELS,) noise levels at the mid-points of equal shares of ln sigma ~ N(sigma_mean, sigma_std^2)."""
    return np.exp(sigma_mean + sigma_std * ndtri((np.arange(LEVELS) + 0.5) / LEVELS))


@torch.no_grad()
@fast_float32_matmul()
def validation_losses(
    denoiser: EmbeddingDenoiser,
    Z: torch.Tensor,
    classes: torch.Tensor,
    domains: torch.Tensor | None,
    levels: np.ndarray,
) -> np.ndarray:
    """(N,) float64 denoising loss of each cell, a mean over noise levels.

    The noise of a cell is a function of its row alone, so that two validations differ by the weights only.

    Args:
        Z: (N, K) cells in the space of the model. classes: (N,) class indices. domains: (N,) domain indices, or None.
        levels: (L,) noise levels.
    """
    losses = []
    for rows in np.array_split(np.arange(len(Z)), -(-len(Z) // BLOCK)):
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        noise = torch.from_numpy(noise_from_seeds(rows, Z.shape[1])).to(Z.device)
        places = None if domains is None else domains[part]
        sigmas = (torch.full((len(rows),), float(level), device=Z.device) for level in levels)
        losses.append(
            torch.stack([denoising_loss(denoiser, Z[part], sigma, noise, classes[part], places) for sigma in sigmas])
        )
    return torch.cat(losses, dim=1).double().mean(dim=0).cpu().numpy()


def mean_by_class(losses: np.ndarray, classes: np.ndarray, class_names: Sequence[str]) -> dict[str, float]:
    """Mean loss of each class that has cells, by its name."""
    counts, sums = np.bincount(classes), np.bincount(classes, weights=losses)
    return {name: float(total / n) for name, total, n in zip(class_names, sums, counts, strict=False) if n}
