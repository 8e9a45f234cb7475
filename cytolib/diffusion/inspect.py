"""Looking inside a diffusion model: how a cell comes out of noise, and how well each noise level is removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cytolib.diffusion.noise import noise_from_seeds
from cytolib.diffusion.pipeline import EmbeddingDiffusionPipeline, Labels, check_seeds, default_scheduler, label_indices
from cytolib.diffusion.preconditioning import SIGMA_MEAN, SIGMA_STD, denoise
from cytolib.diffusion.standardizer import check_vectors

NOISE_LEVELS = np.geomspace(0.02, 20.0, 16)


def sampling_sigmas(num_inference_steps: int = 18) -> np.ndarray:
    """(S,) noise levels that the default sampler visits, falling (EDM eq. 5, rho = 7)."""
    scheduler = default_scheduler()
    scheduler.set_timesteps(num_inference_steps)
    return scheduler.sigmas[:-1].numpy().astype(np.float64)


def training_sigmas(
    n: int, *, seed: int = 0, sigma_mean: float = SIGMA_MEAN, sigma_std: float = SIGMA_STD
) -> np.ndarray:
    """(n,) noise levels as training draws them: ln sigma ~ N(sigma_mean, sigma_std^2)."""
    return np.exp(sigma_mean + sigma_std * np.random.default_rng(seed).standard_normal(n))


@dataclass(frozen=True)
class DenoisingTrajectory:
    """Sampling, step by step, for N cells of D dimensions in S steps; vectors in the space of the embeddings.

    Attributes:
        sigmas: (S,) noise levels, falling. samples: (S, N, D) noisy vectors before each step.
        denoised: (S, N, D) clean vectors that the model expects at each step. embeddings: (N, D) the result.
    """

    sigmas: np.ndarray
    samples: np.ndarray
    denoised: np.ndarray
    embeddings: np.ndarray


@torch.no_grad()
def denoising_trajectory(
    pipe: EmbeddingDiffusionPipeline,
    class_labels: Labels,
    *,
    seeds: Sequence[int] | np.ndarray,
    domain_labels: Labels | None = None,
    num_inference_steps: int = 18,
    guidance_scale: float = 1.0,
) -> DenoisingTrajectory:
    """The way of a few cells from noise to embedding, as ``pipe(...)`` goes it for the same seeds."""
    classes = label_indices(class_labels, pipe.class_names, "class_labels")
    domains = pipe.domain_indices(domain_labels, len(classes))
    seeds = check_seeds(seeds, len(classes), None)
    sigmas, after, denoised = zip(
        *pipe.denoise(classes, domains, seeds, num_inference_steps, guidance_scale), strict=True
    )
    noise = noise_from_seeds(seeds, pipe.standardizer.output_dim) * pipe.scheduler.init_noise_sigma
    before = [torch.from_numpy(noise.astype(np.float32)).to(after[0].device), *after[:-1]]

    def embed(vectors: Sequence[torch.Tensor]) -> np.ndarray:
        return np.stack([pipe.standardizer.inverse_transform(z).float().cpu().numpy() for z in vectors])

    return DenoisingTrajectory(np.array(sigmas), embed(before), embed(denoised), embed(after[-1:])[0])


@torch.no_grad()
def denoising_error(
    pipe: EmbeddingDiffusionPipeline,
    X: np.ndarray,
    class_labels: Labels | None,
    *,
    domain_labels: Labels | None = None,
    sigmas: Sequence[float] | np.ndarray = NOISE_LEVELS,
    seed: int = 0,
) -> np.ndarray:
    """(N, S) mean squared error per dimension of D(x; sigma), for each cell and noise level.

    In the standardised space, so 1 is the error of guessing the mean of all cells; sigma^2 / (1 + sigma^2) is that of
    the best denoiser of a standard normal. ``class_labels`` None asks the unconditional model. Noise is a function of
    ``seed`` and the cell's row.
    """
    cells = torch.from_numpy(check_vectors(X, "X")).to(pipe.denoiser.device)
    Z = pipe.standardizer.transform(cells)
    labels = None
    if class_labels is not None:
        labels = torch.from_numpy(label_indices(class_labels, pipe.class_names, "class_labels", len(Z))).to(Z.device)
    places = pipe.domain_indices(domain_labels, len(Z))
    domains = None if places is None else torch.from_numpy(places).to(Z.device)
    noise = torch.from_numpy(noise_from_seeds(np.arange(len(Z)) + (seed << 32), Z.shape[1])).to(Z.device)
    errors = []
    for level in sigmas:
        sigma = torch.full((len(Z),), float(level), device=Z.device)
        estimate = denoise(pipe.denoiser, Z + float(level) * noise, sigma, labels, domains)
        errors.append((estimate - Z).square().mean(dim=1).cpu().numpy())
    return np.stack(errors, axis=1)
