"""The forward pass of a torch encoder: fixed padded batches, pixels normalised on the device, one precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cytolib import run
from cytolib.transforms import ResizeNormalise

PRECISIONS: tuple[str, ...] = ("auto", "float32", "bfloat16")
# MobileNetV2 at 224 px on two cores, with freed memory kept: 200 images a second with 4 cells a batch, 240 with 8, 250
# with 16. More only means more padding where cells run out. Vision transformers ran the same from 1 to 32.
_BATCH_CPU, _BATCH_ACCELERATOR = 8, 256


def resolve_precision(precision: str) -> str:
    """``float32`` or ``bfloat16``: auto is bfloat16 on CUDA and float32 elsewhere.

    Raises:
        ValueError: if ``precision`` is not one of ``PRECISIONS``.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; expected one of {', '.join(PRECISIONS)}")
    if precision == "auto":
        return "bfloat16" if run.device().type == "cuda" else "float32"
    return precision


def default_batch_size(device: torch.device) -> int:
    """Cells a forward pass: 8 on a CPU, 256 on an accelerator."""
    return _BATCH_CPU if device.type == "cpu" else _BATCH_ACCELERATOR


@dataclass(frozen=True)
class Forward:
    """The batch function of an encoder. Every pass has ``batch_size`` rows, the last ones empty where cells run out:
    so a row's value does not depend on which cells, or how many, came with it.

    Attributes:
        model: on its device, in eval mode.
        transform: whose ``normalise`` turns uint8 pixels into what the model takes.
        batch_size: cells a forward pass.
        precision: ``float32``, or ``bfloat16`` by autocast (weights stay float32).
    """

    model: torch.nn.Module
    transform: ResizeNormalise
    batch_size: int
    precision: str = "float32"

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return next(self.model.parameters()).device

    def __call__(self, batch: Any) -> NDArray[np.float32]:
        """Embeddings (B, D) of a (B, 3, S, S) tensor or a sequence of (3, S, S), transformed, or (B, S, S, 3) uint8."""
        cells = batch if torch.is_tensor(batch) else torch.stack(list(batch))
        return torch.cat([self.start(part) for part in cells.split(self.batch_size)]).cpu().numpy()

    @torch.inference_mode()
    def start(self, cells: torch.Tensor) -> torch.Tensor:
        """Rows (b, D) float32 on the device, perhaps still being computed, of b <= ``batch_size`` cells."""
        n = len(cells)
        if n < self.batch_size:
            cells = torch.cat([cells, cells.new_zeros(self.batch_size - n, *cells.shape[1:])])
        # From pinned memory the copy runs beside the pass before. Pixels travel as bytes, a quarter of float32.
        cells = cells.to(self.device, non_blocking=True)
        if cells.dtype == torch.uint8:
            cells = self.transform.normalise(cells)
        with self.precise():
            rows = self.model(cells.contiguous(memory_format=torch.channels_last))
        return rows[:n].float()

    def precise(self) -> AbstractContextManager[Any]:
        """What a forward pass runs under: autocast for bfloat16, full float32 factors for float32."""
        if self.precision == "bfloat16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        stack = ExitStack()
        if self.device.type == "cuda":
            # cuDNN would round the factors of float32 convolutions to 10 bits (TF32) by itself.
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
        return stack


def make_forward(model: torch.nn.Module, transform: ResizeNormalise) -> Forward:
    """The batch function of a built model, in float32 and with its device's default batch size.

    Weights are laid out channels-last, in which convolutions run faster (1.5 times for MobileNetV2 on two cores).
    """
    model = model.to(memory_format=torch.channels_last)
    return Forward(model, transform, default_batch_size(next(model.parameters()).device))
