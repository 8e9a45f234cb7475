"""Views of a cell for learning without labels: what may change about a picture while the cell stays the same.

Rotation and reflection are free. Windows of cells (``cytolib.framing``) keep the nucleus under any shift, and both
views of a cell are equally magnified but for a few per cent. Stain varies as optical density does (Beer-Lambert), and
only mildly: eosinophils, basophils and neutrophils differ by colour. Every view is a pure function of the images and
of a seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from cytolib.framing import MARGIN, cell_window

BEYOND = 1.4  # how much wider than an encoder's window the images are of which views are drawn: they turn and shift
MEAN, STD = 0.7, 0.2  # of a smear's pixels, roughly; the shipped transform has the same


@dataclass(frozen=True)
class Views:
    """How far views differ.

    Attributes:
        size: pixels a side of a view.
        beyond: how much wider than an encoder's window the images are.
        zoom: largest magnification of that window, and smallest: its inverse; log-uniform, the same for both views.
        zoom_jitter: relative difference between the magnifications of two views.
        shift: largest displacement of the middle, as a share of the image.
        density: largest relative change of the optical density of all channels together; a third of it for each alone.
        blur: share of the views that are blurred, by a Gaussian of 0.4 to 1.4 pixels.
    """

    size: int = 96
    beyond: float = BEYOND
    zoom: float = 1.25
    zoom_jitter: float = 0.12
    shift: float = 0.05
    density: float = 0.2
    blur: float = 0.3

    def draw_zoom(self, n: int, generator: torch.Generator) -> Tensor:
        """Magnification (n,) of the cells of a batch."""
        return self.beyond * torch.exp(_around(n, math.log(self.zoom), generator))

    def __call__(self, images: Tensor, zoom: Tensor, generator: torch.Generator) -> Tensor:
        """One view (B, 3, size, size), normalised, of images (B, 3, H, W) with values from 0 to 1.

        Random numbers come from ``generator`` (on the CPU), so that a GPU sees the same views.
        """
        seen = self._window(images, zoom, generator)
        seen = self._stain(seen, generator)
        return normalised(self._defocus(seen, generator))

    def _window(self, images: Tensor, zoom: Tensor, generator: torch.Generator) -> Tensor:
        n = len(images)
        angle = torch.rand(n, generator=generator) * 2 * math.pi
        scale = 1 / (zoom * (1 + _around(n, self.zoom_jitter, generator)))
        mirror = torch.where(torch.rand(n, generator=generator) < 0.5, 1.0, -1.0)
        stretch = 1 + _around(n, 0.05, generator)
        shift = 2 * self.shift * (2 * torch.rand(n, 2, generator=generator) - 1)
        cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
        rows = (torch.stack([cosine * mirror * stretch, -sine, shift[:, 0]], 1),
                torch.stack([sine * mirror * stretch, cosine, shift[:, 1]], 1))  # fmt: skip
        affine = torch.stack(rows, 1).to(images.device)
        grid = functional.affine_grid(affine, [n, 3, self.size, self.size], align_corners=False)
        return functional.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

    def _stain(self, seen: Tensor, generator: torch.Generator) -> Tensor:
        if not self.density:
            return seen
        n, part = len(seen), self.density / 3
        factor = 1 + _around((n, 1, 1, 1), self.density, generator) + _around((n, 3, 1, 1), part, generator)
        offset = _around((n, 1, 1, 1), part, generator) + _around((n, 3, 1, 1), part / 2, generator)
        # exp(-(density * factor + offset)) with density = -log(light), as one power
        return ((seen + 1 / 255) / (1 + 1 / 255)).pow_(factor.to(seen.device)).mul_(torch.exp(-offset).to(seen.device))

    def _defocus(self, seen: Tensor, generator: torch.Generator) -> Tensor:
        n = int(self.blur * len(seen))
        if not n:
            return seen
        chosen = torch.randperm(len(seen), generator=generator)[:n].to(seen.device)
        sigma = 0.4 + float(torch.rand(1, generator=generator))
        across = torch.arange(-3.0, 4.0, device=seen.device)
        weights = torch.exp(-(across**2) / (2 * sigma**2))
        weights = (weights / weights.sum()).expand(3, 1, 1, 7)
        blurred = functional.conv2d(functional.pad(seen[chosen], (3, 3, 0, 0), mode="reflect"), weights, groups=3)
        blurred = functional.conv2d(
            functional.pad(blurred, (0, 0, 3, 3), mode="reflect"), weights.transpose(2, 3), groups=3
        )
        return seen.index_copy(0, chosen, blurred)


def wide_window(image: Image.Image, side: int) -> NDArray[np.uint8]:
    """The window (side, side, 3) of a cell, wide enough for all views."""
    return cell_window(image, side, BEYOND * MARGIN)


def middles(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middles of wide windows (N, S, S, 3): what an encoder is given of those cells, to a pixel."""
    side = images.shape[1]
    edge = round(side * (1 - 1 / BEYOND) / 2)
    return images[:, edge : side - edge, edge : side - edge]


def normalised(images: Tensor) -> Tensor:
    """What the network takes, for images with values from 0 to 1."""
    return ((images - MEAN) / STD).contiguous(memory_format=torch.channels_last)


def _around(shape: int | tuple[int, ...], reach: float, generator: torch.Generator) -> Tensor:
    """Uniform from ``-reach`` to ``reach``."""
    return reach * (2 * torch.rand(shape, generator=generator) - 1)
