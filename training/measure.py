"""How good an encoder is on PBC's validation cells: what methods and recipes are chosen by. No test cell is read."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional

from cytolib import embed, run
from cytolib.classify.probes import balanced_accuracy, tune_logistic_regression
from training.material import MAIN, load, pbc_cells
from training.views import normalised

CS = (0.001, 0.01, 0.1)
MAX_ITER = 500
FEW = 10  # labels a class
DRAWS = 10


def read_cells(folder: Path) -> dict[str, NDArray]:
    """Images, classical features, labels and split of PBC's training and validation cells; read once."""
    file = folder / "validation.npz"
    if not file.is_file():
        cells = pbc_cells()
        cells = cells[cells["split"].isin(("train", "val")) & (cells["domain"] == MAIN)].reset_index(drop=True)
        with ProcessPoolExecutor(run.threads()) as pool:
            pictures = np.stack(list(pool.map(load, [run.data_root() / p for p in cells["path"]], chunksize=64)))
        values = {
            "images": pictures,
            "features": embed.embed(cells, run.data_root(), "morphometry").X,
            "labels": cells["label"].to_numpy(dtype=str),
            "split": cells["split"].to_numpy(dtype=str),
        }
        folder.mkdir(parents=True, exist_ok=True)
        with run.atomic_path(file) as temporary, open(temporary, "wb") as target:
            np.savez(target, **values)
    with np.load(file) as found:
        return dict(found)


def embedded(backbone: nn.Module, images: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
    """Embeddings (N, dim) of whole frames, resized to ``size``, without learning."""
    device, found = run.device(), []
    backbone = backbone.to(device).eval()
    with torch.inference_mode():
        for start in range(0, len(images), 64):
            batch = torch.from_numpy(images[start : start + 64]).to(device).permute(0, 3, 1, 2).float() / 255
            batch = functional.interpolate(batch, size=(size, size), mode="bicubic", antialias=True).clamp(0, 1)
            with torch.autocast(device.type, torch.bfloat16):
                found.append(backbone(normalised(batch)).float().cpu())
    return torch.cat(found).numpy()


def measure(backbone: nn.Module, size: int, folder: Path) -> dict[str, float]:
    """Balanced accuracy on validation cells: linear probe, 20 neighbours, few labels; alone and beside the features."""
    cells = read_cells(folder)
    learned = embedded(backbone, cells["images"], size)
    return {
        **scores(learned, cells, ""),
        **scores(np.hstack([learned, cells["features"]]), cells, "joined_"),
    }


def scores(X: NDArray[np.float32], cells: dict[str, NDArray], prefix: str) -> dict[str, float]:
    """The three scores of embeddings (N, dim) of ``read_cells``."""
    y, train, val = cells["labels"], cells["split"] == "train", cells["split"] == "val"
    linear = tune_logistic_regression(
        X[train], y[train], X[val], y[val], Cs=CS, class_weight="balanced", max_iter=MAX_ITER
    )
    scaler = StandardScaler().fit(X[train])
    Z, Z_val = scaler.transform(X[train]), scaler.transform(X[val])
    near = KNeighborsClassifier(20, algorithm="brute").fit(Z, y[train])
    few = [_few(Z, y[train], lambda fit: fit.predict(Z_val), y[val], seed) for seed in range(DRAWS)]
    return {
        f"{prefix}linear": round(linear.validation_score_, 4),
        f"{prefix}neighbours": round(balanced_accuracy(y[val], near.predict(Z_val)), 4),
        f"{prefix}labels_{FEW}": round(float(np.mean(few)), 4),
    }


def _few(Z: NDArray, y: NDArray, predict: Callable, y_val: NDArray, seed: int) -> float:
    rng = np.random.default_rng(seed)
    rows = np.concatenate([rng.choice(np.flatnonzero(y == label), FEW, replace=False) for label in np.unique(y)])
    return balanced_accuracy(y_val, predict(LogisticRegression(C=0.01, max_iter=500).fit(Z[rows], y[rows])))
