"""Small pictures and cell tables that several tests share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image


def picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (180, 181)) -> Path:
    """Write an image of one colour (lossless by suffix .png, .bmp, .tif), and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def blobs(path: Path, seed: int, size: tuple[int, int] = (64, 64)) -> Path:
    """Write an image with structure, so that its perceptual hash is its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def toy_cells(n: int = 100) -> pd.DataFrame:
    """A valid cell table of neutrophils and a few basophils, all in train, without images."""
    labels = np.random.default_rng(0).choice(["neutrophil", "basophil"], n, p=[0.8, 0.2])
    return pd.DataFrame(
        {
            "cell_id": [f"{k:064x}" for k in range(n)],
            "path": [f"a/{k}.png" for k in range(n)],
            "label": labels,
            "cell_type": labels,
            "source_label": labels,
            "domain": "site",
            "dataset": "toy",
            "group": None,
            "split": "train",
            "um_per_px": 0.2,
            "mask": None,
        }
    )
