"""Preconditioning and loss of an EDM denoiser (Karras, Aittala, Aila & Laine 2022, arXiv 2206.00364, table 1).

The network F sees a unit-variance input and predicts a unit-variance target at every noise level sigma; the denoised
vector is D(x; sigma) = c_skip x + c_out F(c_in x; c_noise) (eq. 7). Embeddings are standardised, so sigma_data = 1.
"""

from __future__ import annotations

import torch

SIGMA_DATA = 1.0
SIGMA_MEAN, SIGMA_STD = -0.4, 1.2  # of ln sigma in training (P_mean and P_std of table 1)


def c_skip(sigma: torch.Tensor) -> torch.Tensor:
    """Share of the noisy vector that passes to the output unchanged."""
    return SIGMA_DATA**2 / (sigma**2 + SIGMA_DATA**2)


def c_out(sigma: torch.Tensor) -> torch.Tensor:
    """Scale of the network's output."""
    return sigma * SIGMA_DATA / (sigma**2 + SIGMA_DATA**2).sqrt()


def c_in(sigma: torch.Tensor) -> torch.Tensor:
    """Scale of the network's input."""
    return 1.0 / (sigma**2 + SIGMA_DATA**2).sqrt()


def c_noise(sigma: torch.Tensor) -> torch.Tensor:
    """What the network is told of the noise level: ln(sigma) / 4, the timestep of diffusers' EDM schedulers."""
    return sigma.log() / 4


def denoise(
    denoiser: torch.nn.Module,
    noisy: torch.Tensor,
    sigma: torch.Tensor,
    class_labels: torch.Tensor | None = None,
    domain_labels: torch.Tensor | None = None,
) -> torch.Tensor:
    """D(x; sigma), eq. 7: the expected clean vector (B, D) for noisy vectors (B, D) at noise levels (B,)."""
    column = sigma[:, None]
    output = denoiser(c_in(column) * noisy, c_noise(sigma), class_labels, domain_labels)
    return c_skip(column) * noisy + c_out(column) * output.to(noisy.dtype)


def denoising_loss(
    denoiser: torch.nn.Module,
    clean: torch.Tensor,
    sigma: torch.Tensor,
    noise: torch.Tensor,
    class_labels: torch.Tensor | None = None,
    domain_labels: torch.Tensor | None = None,
) -> torch.Tensor:
    """Weighted denoising error of each vector (B,), eq. 8: lambda(sigma) ||D(y + n; sigma) - y||^2 / D.

    The weight lambda = 1 / c_out^2 makes this the plain squared error of F against its own target
    (y - c_skip x) / c_out, which is how it is computed: no cancellation at small sigma.
    """
    column = sigma[:, None]
    noisy = clean + column * noise
    target = (clean - c_skip(column) * noisy) / c_out(column)
    output = denoiser(c_in(column) * noisy, c_noise(sigma), class_labels, domain_labels)
    return (output.float() - target).square().mean(dim=1)
