"""What a way of learning without labels is: a backbone, a head on it, and a loss of two views of each cell."""

from __future__ import annotations

import torch
from torch import Tensor, nn

NAMES = ("vicreg", "simclr", "lejepa", "dino", "mae")


class Method(nn.Module):
    """What all methods share: a backbone (B, 3, H, W) -> (B, dim), and a head on it."""

    def __init__(self, backbone: nn.Module, dim: int) -> None:
        super().__init__()
        self.backbone, self.dim = backbone, dim

    def loss(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of two views (B, 3, H, W) of each cell, and the features (2B, dim) of both."""
        raise NotImplementedError

    def after_step(self, progress: float) -> None:
        """What a method does after an optimiser's step; ``progress`` from 0 to 1."""


def together(first: Tensor, second: Tensor) -> Tensor:
    """Both views in one batch (2B, 3, H, W), in the memory order in which convolutions are fastest."""
    return torch.cat([first, second]).contiguous(memory_format=torch.channels_last)
