"""How good an encoder is on PBC's validation cells, and on phantoms of sites that a probe has not seen.

Methods and recipes are chosen by this. No test cell of PBC, no lilac cell and no other laboratory is read.
"""

from __future__ import annotations

from collections.abc import Callable
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
from cytolib.data import phantoms
from training.material import MAIN, SIDE, load, pbc_cells, workers
from training.views import normalised

CS = (0.001, 0.01, 0.1)
MAX_ITER = 500
FEW = 10  # labels a class
DRAWS = 10
N_PHANTOMS = 480  # cells at each site


def read_cells(folder: Path) -> dict[str, NDArray]:
    """Images, classical features, labels and split of PBC's training and validation cells; read once."""
    file = folder / "validation.npz"
    if not file.is_file():
        cells = pbc_cells()
        cells = cells[cells["split"].isin(("train", "val")) & (cells["domain"] == MAIN)].reset_index(drop=True)
        with workers() as pool:
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


def read_phantoms(folder: Path) -> dict[str, NDArray]:
    """Phantoms that no training saw: each cell at every site, with its class."""
    file = folder / "phantom-sites.npz"
    if not file.is_file():
        with workers() as pool:
            pairs = [(site, number) for site in phantoms.DOMAINS for number in range(N_PHANTOMS)]
            pictures = list(pool.map(_phantom, *zip(*pairs, strict=True), chunksize=32))
        classes = [phantoms.CLASSES[number % len(phantoms.CLASSES)] for _, number in pairs]
        values = {"images": np.stack(pictures), "labels": np.array(classes), "sites": np.array([s for s, _ in pairs])}
        with run.atomic_path(file) as temporary, open(temporary, "wb") as target:
            np.savez(target, **values)
    with np.load(file) as found:
        return dict(found)


def _phantom(site: str, number: int) -> NDArray[np.uint8]:
    label = phantoms.CLASSES[number % len(phantoms.CLASSES)]
    return phantoms.draw_cell(label, site, seed=10**9 + number, size=SIDE).image


def across_phantom_sites(X: NDArray[np.float32], cells: dict[str, NDArray]) -> float:
    """Balanced accuracy at two sites of a linear probe on the third, over the three ways to do so."""
    found = []
    for site in phantoms.DOMAINS:
        here = cells["sites"] == site
        scaler = StandardScaler().fit(X[here])
        probe = LogisticRegression(C=0.01, max_iter=MAX_ITER).fit(scaler.transform(X[here]), cells["labels"][here])
        found.append(balanced_accuracy(cells["labels"][~here], probe.predict(scaler.transform(X[~here]))))
    return round(float(np.mean(found)), 4)


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
    cells, drawn = read_cells(folder), read_phantoms(folder)
    learned = embedded(backbone, cells["images"], size)
    return {
        **scores(learned, cells, ""),
        **scores(np.hstack([learned, cells["features"]]), cells, "joined_"),
        "phantom_sites": across_phantom_sites(embedded(backbone, drawn["images"], size), drawn),
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
