"""The transform of a torch encoder, as a value: it can be pickled, so that loader processes can be given it.

It stands in a module of its own, without timm, because every worker process imports it; and torch, a second of work,
is imported only where a tensor is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cytolib.framing import cell_window
from cytolib.morphometry import Sight, measure

if TYPE_CHECKING:
    import torch

FILTERS = {name.lower(): Image.Resampling[name] for name in ("BILINEAR", "BICUBIC", "LANCZOS")}


@lru_cache(maxsize=16)
def _constants(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[torch.Tensor, ...]:
    import torch

    # Kept on the device: sending them with every batch would make the device wait.
    return tuple(torch.tensor(values, device=device).view(3, 1, 1) for values in (mean, std))


@dataclass(frozen=True)
class ResizeNormalise:
    """PIL image -> (3, size, size) float32: RGB, resized without crop, scaled to [0, 1], less ``mean``, over ``std``.

    How much of the field is seen is decided before, when the image is loaded.

    Attributes:
        size: pixels a side of what comes out.
        interpolation: one of ``FILTERS``.
        mean, std: one number a channel, on the scale of [0, 1].
    """

    #: Whether a cell costs milliseconds here, so that processes pay.
    laborious: ClassVar[bool] = False

    size: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, image: Image.Image) -> torch.Tensor:
        import torch

        return self.normalise(torch.from_numpy(self.pixels(image)))

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """The resized image, (size, size, 3) uint8: what loader processes hand over, a quarter of float32."""
        side = (self.size, self.size)
        return np.array(image.convert("RGB").resize(side, FILTERS[self.interpolation]))

    def prepared(self, sight: Sight) -> NDArray[np.uint8]:
        """``pixels`` of an image that others look at, too."""
        return self.pixels(sight.image)

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """(..., size, size, 3) uint8 -> (..., 3, size, size) float32, on the device of ``pixels``."""
        shift, scale = _constants(self.mean, self.std, pixels.device)
        return pixels.movedim(-1, -3).float().div_(255).sub_(shift).div_(scale)

    def __str__(self) -> str:
        """What an embedding table records of it."""
        how = f"{self.interpolation}, no crop"
        return f"RGB, resized to {self.size} x {self.size} ({how}), mean {self.mean}, std {self.std}"


@dataclass(frozen=True)
class WindowNormalise(ResizeNormalise):
    """Like ``ResizeNormalise``, of the window of the cell in the middle (``framing.cell_window``)."""

    laborious: ClassVar[bool] = True

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """The window, (size, size, 3) uint8."""
        return self.prepared(Sight(image))

    def prepared(self, sight: Sight) -> NDArray[np.uint8]:
        """``pixels``; the cell is looked for once."""
        return cell_window(sight, self.size, resample=FILTERS[self.interpolation])

    def __str__(self) -> str:
        """What an embedding table records of it."""
        how = f"{self.interpolation}, window of the cell, glass made white"
        return f"RGB, {self.size} x {self.size} ({how}), mean {self.mean}, std {self.std}"


@dataclass(frozen=True)
class Measured:
    """The classical features of a cell, which need no model after them; ``size`` pixels a side."""

    laborious: ClassVar[bool] = True

    size: int

    def prepared(self, sight: Sight) -> NDArray[np.float32]:
        """Features (D,); the cell is looked for once."""
        return measure(sight.at(self.size))


#: What an encoder is shown of an image.
FRAMINGS: dict[str, type[ResizeNormalise]] = {"whole": ResizeNormalise, "cell": WindowNormalise}
