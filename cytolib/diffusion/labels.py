"""Class names, domain names and seeds that a caller asks for, as checked arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

Labels = Sequence[int] | Sequence[str] | np.ndarray | torch.Tensor | int | str


def label_indices(labels: object, names: Sequence[str], parameter: str, count: int | None = None) -> np.ndarray:
    """(N,) int64 indices of names (or checked indices), refusing what the vocabulary lacks."""
    values = np.atleast_1d(labels.cpu().numpy() if isinstance(labels, torch.Tensor) else np.asarray(labels))
    if values.ndim != 1 or (count is not None and len(values) != count):
        expected = "one dimension" if count is None else f"{count} entries, one for each cell"
        raise ValueError(f"{parameter} has shape {values.shape}, expected {expected}")
    if np.issubdtype(values.dtype, np.integer):
        bad = (values < 0) | (values >= len(names))
        indices = values.astype(np.int64)
    else:
        lookup = {name: i for i, name in enumerate(names)}
        indices = np.array([lookup.get(str(value), -1) for value in values], dtype=np.int64)
        bad = indices < 0
    if not len(values):
        raise ValueError(f"{parameter} is empty, expected at least one label")
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"{parameter}, row {row} holds {values[row].item()!r}, expected one of {list(names)} or its index"
        )
    return indices


def check_seeds(seeds: Sequence[int] | np.ndarray | None, count: int, generator: torch.Generator | None) -> np.ndarray:
    """(N,) int64 seeds: those given, or drawn from ``generator``."""
    if seeds is None:
        device = "cpu" if generator is None else generator.device
        return torch.randint(2**63 - 1, (count,), generator=generator, device=device).cpu().numpy()
    values = np.atleast_1d(np.asarray(seeds))
    if values.shape != (count,) or not np.issubdtype(values.dtype, np.integer):
        raise ValueError(
            f"seeds has shape {values.shape} and type {values.dtype}, expected {count} whole numbers, one a cell"
        )
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= 2**63:
        raise ValueError(f"seeds run from {low} to {high}, expected whole numbers from 0 to 2^63 - 1")
    return values.astype(np.int64)
