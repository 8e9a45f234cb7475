"""Looking inside a diffusion model: how a cell comes out of noise, and how well each noise level is removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cytolib.diffusion.labels import Labels, check_seeds, label_indices
from cytolib.diffusion.matmul import fast_float32_matmul
from cytolib.diffusion.noise import cell_seeds, noise_from_seeds
from cytolib.diffusion.pipeline import EmbeddingDiffusionPipeline
from cytolib.diffusion.preconditioning import NOISE_DISTRIBUTION, Objective, denoise_modulated
from cytolib.diffusion.sampling import CHUNK, Conditions, Sampler
from cytolib.diffusion.schedulers import default_scheduler, noise_level
from cytolib.diffusion.standardizer import check_vectors

NOISE_LEVELS = np.geomspace(0.02, 20.0, 16)


def sampling_sigmas(num_inference_steps: int = 18) -> np.ndarray:
    """(S,) noise levels that the default scheduler (EDM eq. 5, rho = 7) visits, falling."""
    scheduler = default_scheduler()
    scheduler.set_timesteps(num_inference_steps)
    return np.array([noise_level(scheduler, i)[0] for i in range(len(scheduler.timesteps))])


def training_sigmas(n: int, *, seed: int = 0, objective: Objective = "edm") -> np.ndarray:
    """(n,) noise levels as training draws them: ln sigma ~ N(mean, std^2) of the objective."""
    mean, std = NOISE_DISTRIBUTION[objective]
    return np.exp(mean + std * np.random.default_rng(seed).standard_normal(n))


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
@fast_float32_matmul()
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
    sampler = Sampler(pipe, classes, domains, num_inference_steps, guidance_scale)
    sigmas, after, denoised = zip(*sampler.steps(np.arange(len(classes)), seeds), strict=True)
    before = [sampler.start(seeds), *after[:-1]]

    def embed(vectors: Sequence[torch.Tensor]) -> np.ndarray:
        return np.stack([pipe.standardizer.inverse_transform(z).float().cpu().numpy() for z in vectors])

    return DenoisingTrajectory(np.array(sigmas), embed(before), embed(denoised), embed(after[-1:])[0])


@torch.no_grad()
@fast_float32_matmul()
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
    null = np.full(len(Z), len(pipe.class_names))
    classes = null if class_labels is None else label_indices(class_labels, pipe.class_names, "class_labels", len(Z))
    conditions = Conditions.of(classes, pipe.domain_indices(domain_labels, len(Z)))
    rows = torch.from_numpy(conditions.rows).to(Z.device)
    noise = torch.from_numpy(noise_from_seeds(cell_seeds(len(Z), seed), Z.shape[1])).to(Z.device)
    errors = np.empty((len(Z), len(sigmas)))
    for column, sigma in enumerate(map(float, sigmas)):
        table = conditions.modulations(pipe.denoiser, sigma)
        for part in torch.arange(len(Z), device=Z.device).split(CHUNK):
            estimate = denoise_modulated(
                pipe.denoiser, Z[part] + sigma * noise[part], sigma, [layer[rows[part]] for layer in table]
            )
            errors[part.cpu().numpy(), column] = (estimate - Z[part]).square().mean(dim=1).double().cpu().numpy()
    return errors
