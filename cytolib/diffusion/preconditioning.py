"""Preconditioning and loss of the two training objectives, written for one noise level sigma.

A noisy vector is x = y + sigma n. The network F sees c_in x and predicts a target of about unit scale; the denoised
vector is D(x; sigma) = c_skip x + c_out F(c_in x; c_noise). Embeddings are standardised, so sigma_data = 1.

``edm``: Karras, Aittala, Aila & Laine 2022 (arXiv 2206.00364), table 1 and eq. 7. With sigma_data = 1 the network
predicts minus the velocity of a variance-preserving process (Salimans & Ho 2022, arXiv 2202.00512).
``flow_matching``: Lipman et al. 2023 (arXiv 2210.02747) on straight paths x_t = (1 - t) y + t n. As sigma = t / (1 - t)
and x_t = x / (1 + sigma), the velocity n - y is one more preconditioning of the same problem.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from cytolib.diffusion.denoiser import EmbeddingDenoiser

Objective = Literal["edm", "flow_matching"]
OBJECTIVES: tuple[Objective, ...] = ("edm", "flow_matching")
SIGMA_DATA = 1.0
#: Mean and standard deviation of ln sigma in training. EDM: near P_mean and P_std of table 1, moved up for data of unit
#: variance. Flow matching: logit t = ln sigma is standard normal (Esser et al. 2024, arXiv 2403.03206, eq. 19).
NOISE_DISTRIBUTION: dict[Objective, tuple[float, float]] = {"edm": (-0.4, 1.2), "flow_matching": (0.0, 1.0)}


def c_skip(sigma: torch.Tensor, objective: Objective = "edm") -> torch.Tensor:
    """Share of the noisy vector that passes to the output unchanged."""
    if objective == "flow_matching":
        return 1.0 / (1.0 + sigma)
    return SIGMA_DATA**2 / (sigma**2 + SIGMA_DATA**2)


def c_out(sigma: torch.Tensor, objective: Objective = "edm") -> torch.Tensor:
    """Scale of the network's output; -t for flow matching."""
    if objective == "flow_matching":
        return -sigma / (1.0 + sigma)
    return sigma * SIGMA_DATA / (sigma**2 + SIGMA_DATA**2).sqrt()


def c_in(sigma: torch.Tensor, objective: Objective = "edm") -> torch.Tensor:
    """Scale of the network's input: to unit variance, or to the vector x_t on the straight path."""
    if objective == "flow_matching":
        return 1.0 / (1.0 + sigma)
    return 1.0 / (sigma**2 + SIGMA_DATA**2).sqrt()


def c_noise(sigma: torch.Tensor) -> torch.Tensor:
    """What the network is told of the noise level: ln(sigma) / 4, the timestep of diffusers' EDM schedulers."""
    return sigma.log() / 4


def denoise(
    denoiser: EmbeddingDenoiser,
    noisy: torch.Tensor,
    sigma: torch.Tensor,
    class_labels: torch.Tensor | None = None,
    domain_labels: torch.Tensor | None = None,
) -> torch.Tensor:
    """D(x; sigma), EDM eq. 7: the expected clean vector (B, D) for noisy vectors (B, D) at noise levels (B,)."""
    column, objective = sigma[:, None], objective_of(denoiser)
    output = denoiser(c_in(column, objective) * noisy, c_noise(sigma), class_labels, domain_labels)
    return c_skip(column, objective) * noisy + c_out(column, objective) * output.to(noisy.dtype)


def denoise_modulated(
    denoiser: EmbeddingDenoiser, noisy: torch.Tensor, sigma: float, modulations: list[torch.Tensor]
) -> torch.Tensor:
    """D(x; sigma) of (B, D) vectors at one noise level, with the modulations of their conditions made beforehand."""
    level, objective = torch.tensor(sigma), objective_of(denoiser)
    output = denoiser.modulated(float(c_in(level, objective)) * noisy, modulations)
    return float(c_skip(level, objective)) * noisy + float(c_out(level, objective)) * output


def denoising_loss(
    denoiser: EmbeddingDenoiser,
    clean: torch.Tensor,
    sigma: torch.Tensor,
    noise: torch.Tensor,
    class_labels: torch.Tensor | None = None,
    domain_labels: torch.Tensor | None = None,
) -> torch.Tensor:
    """Squared error of F against its own target, (y - c_skip x) / c_out, a mean over dimensions for each vector (B,).

    For ``edm`` this is the weighted denoising error of eq. 8 with lambda = 1 / c_out^2, without its cancellation at
    small sigma; for ``flow_matching`` the conditional flow matching loss, whose target is n - y.
    """
    column, objective = sigma[:, None], objective_of(denoiser)
    noisy = clean + column * noise
    target = (clean - c_skip(column, objective) * noisy) / c_out(column, objective)
    output = denoiser(c_in(column, objective) * noisy, c_noise(sigma), class_labels, domain_labels)
    return (output.float() - target).square().mean(dim=1)


def objective_of(denoiser: EmbeddingDenoiser) -> Objective:
    """The objective a denoiser was trained with."""
    return denoiser.config["objective"]
