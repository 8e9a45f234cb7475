"""Ways of learning without labels, with the losses and heads of lightly (``pip install cytolib[pretrain]``).

A method is a module with ``loss(first, second)`` of two batches of views and ``after_step(progress)``; all that it
learns besides the backbone is thrown away after training.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from lightly.loss import DINOLoss, LeJEPALoss, NTXentLoss, VICRegLoss
from lightly.models.modules import (
    DINOProjectionHead,
    MaskedVisionTransformerDecoderTIMM,
    MaskedVisionTransformerTIMM,
    SimCLRProjectionHead,
)
from lightly.models.modules.heads import VICRegProjectionHead
from lightly.models.utils import get_at_index, patchify, random_token_mask, repeat_token, set_at_index
from torch import Tensor, nn
from torch.nn import functional

from training.method import Method, together


class _Joint(Method):
    """Joint embedding: a projection of both views, and a loss of the two."""

    def __init__(self, backbone: nn.Module, dim: int, head: nn.Module, criterion: nn.Module) -> None:
        super().__init__(backbone, dim)
        self.head, self.criterion = head, criterion

    def loss(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(together(first, second))
        one, other = self.head(features).float().chunk(2)
        return self.criterion(one, other), features


class VICReg(_Joint):
    """Variance, invariance, covariance (Bardes et al., ICLR 2022)."""

    def __init__(self, backbone: nn.Module, dim: int, width: int = 1024) -> None:
        super().__init__(backbone, dim, VICRegProjectionHead(dim, width, width, num_layers=3), VICRegLoss())


class SimCLR(_Joint):
    """Contrast with the other cells of the batch (Chen et al., ICML 2020)."""

    def __init__(self, backbone: nn.Module, dim: int, width: int = 1024) -> None:
        super().__init__(backbone, dim, SimCLRProjectionHead(dim, width, 128), NTXentLoss(temperature=0.2))


class LeJEPA(Method):
    """Views near their middle, projections an isotropic Gaussian (Balestriero and LeCun, arXiv 2511.08544)."""

    def __init__(self, backbone: nn.Module, dim: int, width: int = 1024) -> None:
        super().__init__(backbone, dim)
        self.head = VICRegProjectionHead(dim, width, 128, num_layers=3)
        self.criterion = LeJEPALoss()

    def loss(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(together(first, second))
        projected = torch.stack(self.head(features).float().chunk(2))
        return self.criterion(local_proj=projected, global_proj=projected), features


class DINO(Method):
    """Self-distillation with a slow teacher (Caron et al., ICCV 2021)."""

    def __init__(self, backbone: nn.Module, dim: int, width: int = 1024, prototypes: int = 2048) -> None:
        super().__init__(backbone, dim)
        self.head, slow = (DINOProjectionHead(dim, width, 256, prototypes, batch_norm=True) for _ in range(2))
        slow.load_state_dict(self.head.state_dict())  # a head with weight norm cannot be copied
        self.teacher = _Teacher(copy.deepcopy(backbone), slow)
        self.criterion = DINOLoss(prototypes, warmup_teacher_temp=0.04, teacher_temp=0.05)

    def loss(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        both = together(first, second)
        features = self.backbone(both)
        student = self.head(features).float().chunk(2)
        teacher = self.teacher(both).float().chunk(2)
        return self.criterion(list(teacher), list(student), teacher_temp=0.05), features

    def after_step(self, progress: float) -> None:
        """The teacher follows, ever more slowly: momentum from .99 to 1 along a half cosine."""
        self.teacher.follow(self.backbone, self.head, 1 - 0.005 * (1 + math.cos(math.pi * progress)))


class _Teacher(nn.Module):
    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone.requires_grad_(False), head.requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))

    @torch.no_grad()
    def follow(self, backbone: nn.Module, head: nn.Module, momentum: float) -> None:
        for mine, theirs in ((self.backbone, backbone), (self.head, head)):
            for slow, fast in zip(mine.parameters(), theirs.parameters(), strict=True):
                slow.lerp_(fast.detach(), 1 - momentum)
            for slow, fast in zip(mine.buffers(), theirs.buffers(), strict=True):
                slow.copy_(fast)


class MaskedAutoencoder(Method):
    """Pixels of hidden patches from the visible quarter (He et al., CVPR 2022); for vision transformers of timm."""

    def __init__(self, backbone: nn.Module, dim: int, width: int = 128, hidden: float = 0.75) -> None:
        super().__init__(backbone, dim)
        if not hasattr(backbone, "patch_embed") or not hasattr(backbone, "num_prefix_tokens"):
            raise ValueError("masked autoencoding needs a vision transformer, for example vit_tiny_patch16_224")
        patches, self.patch = backbone.patch_embed.num_patches, int(backbone.patch_embed.patch_size[0])
        self.hidden = hidden
        self.encoder = MaskedVisionTransformerTIMM(vit=backbone.to(memory_format=torch.contiguous_format))
        self.narrow = nn.Linear(dim, width)
        self.decoder = MaskedVisionTransformerDecoderTIMM(num_patches=patches, embed_dim=width, depth=2, num_heads=4)
        self.paint = nn.Linear(width, 3 * self.patch**2)

    def loss(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        images = together(first, second)
        shape = (len(images), self.encoder.sequence_length)
        keep, hide = random_token_mask(shape, mask_ratio=self.hidden, device=images.device)
        tokens = self.encoder.encode(images, idx_keep=keep)
        narrow = self.narrow(tokens)
        whole = set_at_index(repeat_token(self.decoder.mask_token, shape).to(narrow.dtype), keep, narrow)
        painted = self.paint(get_at_index(self.decoder.decode(self.decoder.add_pos_embed(whole)), hide))
        wanted = get_at_index(patchify(images, self.patch), hide - 1)  # patches have no class token
        wanted = (wanted - wanted.mean(-1, keepdim=True)) / (wanted.std(-1, keepdim=True) + 1e-6)
        return functional.mse_loss(painted.float(), wanted.float()), tokens.mean(1)


METHODS: dict[str, Callable[..., Method]] = {
    "vicreg": VICReg, "simclr": SimCLR, "lejepa": LeJEPA, "dino": DINO, "mae": MaskedAutoencoder,
}  # fmt: skip
