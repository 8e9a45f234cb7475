"""Learning without labels, small enough to watch: SimCLR (Chen et al., ICML 2020) in a notebook.

Two views of one cell should get vectors that are near, views of different cells vectors that are far. The encoder that
ships with the package learned so, among other things; ``training/`` has the whole recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm.auto import tqdm

from cytolib import run
from cytolib.data.images import load_image
from cytolib.views import MEAN, STD, Views, middles, normalised, wide_window

ARCHITECTURE = "resnet10t"
TEMPERATURE = 0.2


def wide_windows(paths: Sequence[str | Path], side: int = 96) -> NDArray[np.uint8]:
    """Windows (N, side, side, 3) of the cells in image files, wider than an encoder's."""
    return np.stack([wide_window(load_image(path), side) for path in paths])


def draw_views(images: NDArray[np.uint8], n_views: int, seed: int = 0, size: int = 96) -> NDArray[np.uint8]:
    """Views (N, n_views, size, size, 3) of wide windows (N, S, S, 3), as pictures to look at."""
    views, generator = Views(size), torch.Generator().manual_seed(seed)
    batch = _batch(images)
    drawn = [views(batch, views.draw_zoom(len(batch), generator), generator) for _ in range(n_views)]
    pictures = (torch.stack(drawn, 1) * STD + MEAN).clamp(0, 1).mul(255).round()
    return pictures.movedim(2, -1).to(torch.uint8).numpy()


def contrastive_loss(first: Tensor, second: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Normalised, temperature-scaled cross-entropy (Chen et al. 2020, equation 1) of vectors (B, D) of two views."""
    vectors = functional.normalize(torch.cat([first, second]), dim=1)
    likeness = vectors @ vectors.T / temperature
    likeness.fill_diagonal_(-torch.inf)  # a view is not compared with itself
    return functional.cross_entropy(likeness, torch.arange(len(vectors), device=vectors.device).roll(len(first)))


def untrained(seed: int = 0) -> nn.Module:
    """A small timm network (B, 3, S, S) -> (B, D), as it is before any training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return timm.create_model(ARCHITECTURE, num_classes=0).eval().to(run.device())


def learn(
    images: NDArray[np.uint8],
    *,
    epochs: int = 12,
    size: int = 64,
    batch: int = 64,
    seed: int = 0,
    progress: bool = True,
) -> tuple[nn.Module, pd.DataFrame]:
    """Train ``untrained(seed)`` on wide windows (N, S, S, 3) without labels.

    Args:
        epochs: passes through the images. size: pixels a side of a view. batch: cells a step, two views of each; all of
            them where they are fewer.

    Returns:
        the network in evaluation mode, and its history: columns ``step``, ``loss``.

    Raises:
        ValueError: if there are fewer than two images: there is nothing to tell apart.
    """
    if len(images) < 2:
        raise ValueError(f"there are {len(images)} images; expected two or more, to be told apart")
    batch = min(batch, len(images))
    backbone = untrained(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        dim = int(backbone(torch.zeros(1, 3, size, size, device=run.device())).shape[1])
        head = nn.Sequential(nn.Linear(dim, 256), nn.ReLU(), nn.Linear(256, 64)).to(run.device())
    network = nn.Sequential(backbone, head).train()
    n_steps = epochs * (len(images) // batch)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=n_steps)
    views, generator, losses = Views(size), torch.Generator().manual_seed(seed), []
    for _ in tqdm(range(n_steps), "learning without labels", unit="step", disable=not progress):
        cells = _batch(images[torch.randperm(len(images), generator=generator)[:batch].sort().values.numpy()])
        zoom = views.draw_zoom(batch, generator)
        both = torch.cat([views(cells, zoom, generator), views(cells, zoom, generator)])
        loss = contrastive_loss(*network(both).chunk(2))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return backbone.eval(), pd.DataFrame({"step": np.arange(1, n_steps + 1), "loss": losses})


@torch.inference_mode()
def embedded(network: nn.Module, images: NDArray[np.uint8], size: int = 64) -> NDArray[np.float32]:
    """Embeddings (N, D) of the middles of wide windows (N, S, S, 3): what an encoder is shown."""
    shown, found = middles(images), []
    for start in range(0, len(shown), 64):
        batch = functional.interpolate(_batch(shown[start : start + 64]), (size, size), mode="bicubic", antialias=True)
        found.append(network(normalised(batch.clamp(0, 1))).float().cpu())
    return torch.cat(found).numpy()


def _batch(images: NDArray[np.uint8]) -> Tensor:
    """(B, 3, H, W) with values from 0 to 1, on the device."""
    return torch.from_numpy(images).to(run.device()).permute(0, 3, 1, 2).float().div_(255)
