"""The network: a residual MLP that denoises embeddings, told of noise level, class and domain through adaLN-Zero."""

from __future__ import annotations

from typing import cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn


class FourierEmbedding(nn.Module):
    """Sines and cosines of c_noise = ln(sigma) / 4, which runs from about -1.6 to 1.1.

    Frequencies are spaced geometrically between 0.5 and 16 radians per unit: the slowest turns less than once over
    that range, the fastest resolves a change of the noise level by half.
    """

    frequencies: torch.Tensor

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        exponents = torch.linspace(0.0, 1.0, dimensions // 2)
        self.register_buffer("frequencies", 0.5 * 32.0**exponents)

    def forward(self, timestep: torch.Tensor) -> torch.Tensor:
        angles = timestep[:, None].float() * self.frequencies
        return torch.cat([angles.cos(), angles.sin()], dim=1) * 2**0.5


class ResidualBlock(nn.Module):
    """x + gate * MLP(scale * norm(x) + shift); scale, shift and gate come from the condition (DiT, arXiv 2212.09748).

    The layer that makes them starts at zero (adaLN-Zero), so a new block is the identity.
    """

    def __init__(self, width: int, expansion: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 3 * width)
        self.mlp = nn.Sequential(
            nn.Linear(width, expansion * width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(expansion * width, width)
        )
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, hidden: torch.Tensor, modulation: torch.Tensor) -> torch.Tensor:
        shift, scale, gate = modulation.chunk(3, dim=1)
        return torch.addcmul(hidden, gate, self.mlp(torch.addcmul(shift, self.norm(hidden), 1 + scale)))


class EmbeddingDenoiser(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Residual MLP over embedding vectors with class and domain conditions.

    The layout follows the MLP of MAR's diffusion loss (arXiv 2406.11838); preconditioning is the caller's
    (:mod:`cytolib.diffusion.preconditioning`, or diffusers' EDM schedulers).

    Args:
        embedding_dim: dimensions of a (standardised) embedding.
        num_classes: number of classes; the class embedding has one row more, the null class of guidance.
        num_domains: number of domains (site, scanner, stain), with a null row likewise; 0 for no domain condition.
        width: hidden width, a multiple of 16; at least ``embedding_dim`` if the data fill their space.
        depth: number of residual blocks.
        expansion: hidden width of a block's MLP over ``width``.
        dropout: dropout probability inside a block's MLP.
        objective: what the output means: 'edm' or 'flow_matching' (:mod:`cytolib.diffusion.preconditioning`).
    """

    _supports_gradient_checkpointing = False

    @register_to_config
    def __init__(
        self,
        *,  # diffusers forgets positional arguments when it copies a model from its config
        embedding_dim: int,
        num_classes: int,
        num_domains: int = 0,
        width: int = 256,
        depth: int = 3,
        expansion: int = 2,
        dropout: float = 0.0,
        objective: str = "edm",
    ) -> None:
        super().__init__()
        if objective not in ("edm", "flow_matching"):
            raise ValueError(f"objective is {objective!r}, expected 'edm' or 'flow_matching'")
        if width % 16:  # narrow odd matrices round a row by its place among the others, and cells must not depend on it
            raise ValueError(f"width is {width}, expected a multiple of 16")
        self.noise_embedding = nn.Sequential(FourierEmbedding(64), nn.Linear(64, width))
        self.class_embedding = nn.Embedding(num_classes + 1, width)
        self.domain_embedding = nn.Embedding(num_domains + 1, width) if num_domains else None
        self.condition = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.input = nn.Linear(embedding_dim, width)
        self.blocks = nn.ModuleList([ResidualBlock(width, expansion, dropout) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, embedding_dim)
        # F = 0 at the start: D is then the best denoiser of a standard normal, the right first guess for whitened data
        for layer in (self.modulation, self.output):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        class_labels: torch.Tensor | None = None,
        domain_labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Network output F.

        Args:
            sample: (B, D) noisy vectors, scaled by c_in.
            timestep: (B,) or scalar c_noise = ln(sigma) / 4.
            class_labels: (B,) class indices; ``num_classes`` or None for the null class.
            domain_labels: (B,) domain indices; ``num_domains`` or None for the null domain.

        Returns:
            (B, D) output, of unit scale.
        """
        timestep = torch.as_tensor(timestep, device=sample.device).expand(len(sample))
        return self.modulated(sample, self.modulations(timestep, class_labels, domain_labels))

    def modulations(
        self, timestep: torch.Tensor, class_labels: torch.Tensor | None, domain_labels: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """All that noise level and condition say to the layers, for (B,) timesteps, classes and domains.

        It does not depend on the vectors: a sampler computes it once for each level and class, not for each cell.

        Returns:
            A tensor (B, 3 width) for each block, and one (B, 2 width) for the output.
        """
        condition = self.noise_embedding(timestep) + _look_up(self.class_embedding, class_labels, len(timestep))
        if self.domain_embedding is not None:
            condition = condition + _look_up(self.domain_embedding, domain_labels, len(timestep))
        condition = self.condition(condition)
        layers = [*(cast(ResidualBlock, block).modulation for block in self.blocks), self.modulation]
        return [layer(condition) for layer in layers]

    def modulated(self, sample: torch.Tensor, modulations: list[torch.Tensor]) -> torch.Tensor:
        """Network output F of (B, D) scaled noisy vectors, for the ``modulations`` of their B rows."""
        hidden = self.input(sample)
        for block, modulation in zip(self.blocks, modulations, strict=False):
            hidden = block(hidden, modulation)
        shift, scale = modulations[-1].chunk(2, dim=1)
        return self.output(torch.addcmul(shift, self.norm(hidden), 1 + scale))


def _look_up(table: nn.Embedding, labels: torch.Tensor | None, rows: int) -> torch.Tensor:
    """Rows of an embedding table whose last row is the null condition; no labels means null for all."""
    if labels is None:
        return table.weight[-1].expand(rows, -1)
    return table(labels)
