"""What is trained: a recipe, and the network with the loss that it asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.method import Method


@dataclass(frozen=True)
class Recipe:
    """All that the weights depend on, besides the material.

    Attributes:
        method: one of ``NAMES``. arch: a timm architecture. size: pixels a side of a view.
        early_size, early_share: pixels a side of the views of that first share of the steps, when what is learned is
            coarse and smaller views save time; 0 for none.
        epochs: passes through the material. batch: cells a step, two views of each. phantoms: how many are drawn.
        learning_rate, weight_decay: of AdamW; the rate warms up over two epochs and falls along a cosine.
        regress: weight of the regression of the classical features; 0 for none.
        neighbour: share of the cells whose second view is of another cell, one of the ``nearest`` most alike in the
            classical features: positives that say what a class is (NNCLR, Dwibedi et al., ICCV 2021, with classical
            neighbours). nearest: how many.
        density, blur, zoom, shift: see ``Views``.
        precision: bfloat16 (autocast) or float32; on a CPU the faster one depends on the architecture.
        components: length of the exported embedding; see ``with_components``.
        seed: of the weights, the order and the views.
    """

    method: str = "vicreg"
    arch: str = "resnet10t"
    size: int = 96
    early_size: int = 64
    early_share: float = 0.0
    epochs: int = 40
    batch: int = 128
    phantoms: int = 4000
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    regress: float = 0.0
    neighbour: float = 0.0
    nearest: int = 3
    density: float = 0.2
    blur: float = 0.3
    zoom: float = 1.25
    shift: float = 0.05
    precision: str = "bfloat16"
    components: int = 128
    seed: int = 0


class Learner(nn.Module):
    """The method, and the regression of the classical features (B, D) beside it."""

    def __init__(self, recipe: Recipe, n_features: int) -> None:
        super().__init__()
        torch.manual_seed(recipe.seed)
        backbone = make_backbone(recipe.arch, recipe.size)
        with torch.no_grad():
            dim = int(backbone.eval()(torch.zeros(1, 3, recipe.size, recipe.size)).shape[1])
        self.method: Method = make_method(recipe.method, backbone.train(), dim)
        self.weight = recipe.regress
        self.regression = nn.Sequential(nn.Linear(dim, 512), nn.GELU(), nn.Linear(512, n_features))

    def forward(self, first: Tensor, second: Tensor, features: Tensor) -> Tensor:
        """The loss of two views of each cell."""
        loss, found = self.method.loss(first, second)
        if self.weight:
            told = self.regression(found.float())
            loss = loss + self.weight * functional.smooth_l1_loss(told, torch.cat([features, features]))
        return loss


def make_method(name: str, backbone: nn.Module, dim: int) -> Method:
    """The method of that name, one of ``NAMES``, with the losses and heads of lightly."""
    try:
        from training.methods import METHODS
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}: the methods need lightly; install cytolib[pretrain]") from error
    return METHODS[name](backbone, dim)


def make_backbone(arch: str, size: int, components: int = 0) -> nn.Module:
    """A timm model without classifier or with a linear one of ``components``; transformers are built for ``size``."""
    options: dict[str, Any] = {"img_size": size} if arch.startswith(("vit_", "deit")) else {}
    return timm.create_model(arch, pretrained=False, num_classes=components, **options).to(
        memory_format=torch.channels_last
    )
