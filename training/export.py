"""From a trained network to the file that the package ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from sklearn.decomposition import PCA
from torch import nn
from torch.nn import functional

from cytolib import run
from cytolib.views import normalised
from training.learner import Recipe, make_backbone


def embedded(backbone: nn.Module, images: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
    """Embeddings (N, dim) of windows, resized to ``size``, without learning."""
    device, found = run.device(), []
    backbone = backbone.to(device).eval()
    with torch.inference_mode():
        for start in range(0, len(images), 64):
            batch = torch.from_numpy(images[start : start + 64]).to(device).permute(0, 3, 1, 2).float() / 255
            batch = functional.interpolate(batch, size=(size, size), mode="bicubic", antialias=True).clamp(0, 1)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                found.append(backbone(normalised(batch)).float().cpu())
    return torch.cat(found).numpy()


def with_components(backbone: nn.Module, recipe: Recipe, images: NDArray[np.uint8], size: int) -> nn.Module:
    """The backbone with a linear head: the first ``recipe.components`` principal components of its features, rotated.

    Features that say much the same would outweigh the classical ones beside them, and cost the diffusion model that
    learns them. A fixed random rotation (QR of normal numbers) gives all outputs about the same variance, so that who
    standardises columns does not blow up the weakest components: distances stay those of the network. The head is of
    timm's own shape, which keeps the weights loadable anywhere.

    Args:
        images: (N, S, S, 3) uint8, windows over which the components are taken. size: pixels a side to look at.
    """
    features = embedded(backbone, images, size)
    fitted = PCA(recipe.components, svd_solver="covariance_eigh").fit(features)
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(recipe.components, recipe.components)))
    weight = rotation @ fitted.components_
    whole = make_backbone(recipe.arch, recipe.size, recipe.components).to(run.device())
    whole.load_state_dict(backbone.state_dict(), strict=False)
    head = whole.get_classifier()
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(-weight @ fitted.mean_))
    return whole.eval()


def export(backbone: nn.Module, file: Path, metadata: dict[str, str]) -> str:
    """Write the backbone's tensors in half precision; returns the file's SHA-256."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in backbone.state_dict().items()}
    halves = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
    with run.atomic_path(file) as temporary:
        save_file(halves, temporary, metadata=metadata)
    return run.sha256(file)
