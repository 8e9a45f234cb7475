"""How good an encoder is on PBC's validation cells, and on phantoms of sites that a probe has not seen.

Methods and recipes are chosen by this. No test cell of PBC, no lilac cell and no other laboratory is read.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch import nn

from cytolib import embed, morphometry, run
from cytolib.classify.probes import balanced_accuracy, tune_logistic_regression
from cytolib.data import phantoms
from cytolib.data.images import load_image
from cytolib.framing import cell_window
from training.export import embedded
from training.kept import kept
from training.material import MAIN, PHANTOM_SIDE, pbc_cells, workers
from training.shifted import SITES, shifted

CS = (0.001, 0.01, 0.1)
FEW_CS = (1e-4, 1e-3, 1e-2, 1e-1)
WINDOW = 128  # pixels a side of the kept windows
MAX_ITER = 500
FEW = 10  # labels a class
DRAWS = 10
N_PHANTOMS = 480  # cells at each site


def read_cells(folder: Path) -> dict[str, NDArray]:
    """Windows, classical features, labels and split of PBC's training and validation cells; made once.

    ``shifted_images`` and ``shifted_features`` are those of the validation cells in the simulated laboratories,
    (SITES, N, ...).
    """
    return kept(folder, "validation", _read_cells)


def _read_cells() -> dict[str, NDArray]:
    cells = pbc_cells()
    cells = cells[cells["split"].isin(("train", "val")) & (cells["domain"] == MAIN)].reset_index(drop=True)
    paths, split = [run.data_root() / p for p in cells["path"]], cells["split"].to_numpy(dtype=str)
    chosen = [path for path, part in zip(paths, split, strict=True) if part == "val"]
    with workers() as pool:
        pictures = list(pool.map(_window_of, paths, chunksize=64))
        moved = [list(pool.map(partial(_at_laboratory, site), chosen, chunksize=64)) for site in range(SITES)]
    return {
        "images": np.stack(pictures),
        "features": embed.embed(cells, run.data_root(), "morphometry").X,
        "labels": cells["label"].to_numpy(dtype=str),
        "split": split,
        "shifted_images": np.stack([np.stack([image for image, _ in site]) for site in moved]),
        "shifted_features": np.stack([np.stack([features for _, features in site]) for site in moved]),
    }


def _window_of(path: Path) -> NDArray[np.uint8]:
    return cell_window(load_image(path), WINDOW)


def _at_laboratory(site: int, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    seen = shifted(np.asarray(load_image(path)), site)
    return cell_window(Image.fromarray(seen), WINDOW), morphometry.extract(seen)


def read_phantoms(folder: Path) -> dict[str, NDArray]:
    """Phantoms that no training saw, windows: each cell at every site, with its class."""
    return kept(folder, "phantom-sites", _read_phantoms)


def _read_phantoms() -> dict[str, NDArray]:
    pairs = [(site, number) for site in phantoms.DOMAINS for number in range(N_PHANTOMS)]
    with workers() as pool:
        pictures = list(pool.map(_phantom, *zip(*pairs, strict=True), chunksize=32))
    classes = [phantoms.CLASSES[number % len(phantoms.CLASSES)] for _, number in pairs]
    return {"images": np.stack(pictures), "labels": np.array(classes), "sites": np.array([s for s, _ in pairs])}


def _phantom(site: str, number: int) -> NDArray[np.uint8]:
    label = phantoms.CLASSES[number % len(phantoms.CLASSES)]
    return cell_window(
        Image.fromarray(phantoms.draw_cell(label, site, seed=10**9 + number, size=PHANTOM_SIDE).image), WINDOW
    )


def across_phantom_sites(X: NDArray[np.float32], cells: dict[str, NDArray]) -> float:
    """Balanced accuracy at two sites of a linear probe on the third, over the three ways to do so."""
    found = []
    for site in phantoms.DOMAINS:
        here = cells["sites"] == site
        scaler = StandardScaler().fit(X[here])
        probe = LogisticRegression(C=0.01, max_iter=MAX_ITER).fit(scaler.transform(X[here]), cells["labels"][here])
        found.append(balanced_accuracy(cells["labels"][~here], probe.predict(scaler.transform(X[~here]))))
    return round(float(np.mean(found)), 4)


def measure(backbone: nn.Module, size: int, folder: Path) -> dict[str, float]:
    """Balanced accuracy on validation cells, alone and beside the classical features; and across sites."""
    cells, drawn = read_cells(folder), read_phantoms(folder)
    learned = embedded(backbone, cells["images"], size)
    moved = np.stack([embedded(backbone, site, size) for site in cells["shifted_images"]])
    both = np.concatenate([moved, cells["shifted_features"]], axis=2)
    return {
        **scores(learned, moved, cells, ""),
        **scores(np.hstack([learned, cells["features"]]), both, cells, "joined_"),
        "phantom_sites": across_phantom_sites(embedded(backbone, drawn["images"], size), drawn),
    }


def scores(X: NDArray[np.float32], moved: NDArray[np.float32], cells: dict[str, NDArray], prefix: str) -> dict:
    """The scores of embeddings (N, dim) of ``read_cells`` and (SITES, N_val, dim) of its shifted cells."""
    y, train, val = cells["labels"], cells["split"] == "train", cells["split"] == "val"
    linear = tune_logistic_regression(
        X[train], y[train], X[val], y[val], Cs=CS, class_weight="balanced", max_iter=MAX_ITER
    )
    scaler = StandardScaler().fit(X[train])
    Z, Z_val = scaler.transform(X[train]), scaler.transform(X[val])
    near = KNeighborsClassifier(20, algorithm="brute").fit(Z, y[train])
    few = [_few(Z, y[train], Z_val, y[val], seed) for seed in range(DRAWS)]
    found = {
        "linear": linear.validation_score_,
        "neighbours": balanced_accuracy(y[val], near.predict(Z_val)),
        f"labels_{FEW}": float(np.mean(few)),
        "shifted": float(np.mean([balanced_accuracy(y[val], linear.predict(site)) for site in moved])),
    }
    return {f"{prefix}{name}": round(value, 4) for name, value in found.items()}


def _few(Z: NDArray, y: NDArray, Z_val: NDArray, y_val: NDArray, seed: int) -> float:
    """Balanced accuracy of a probe on few labels; its penalty is chosen within them."""
    rng = np.random.default_rng(seed)
    rows = np.concatenate([rng.choice(np.flatnonzero(y == label), FEW, replace=False) for label in np.unique(y)])
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    probe = GridSearchCV(LogisticRegression(max_iter=MAX_ITER), {"C": FEW_CS}, scoring="balanced_accuracy", cv=folds)
    return balanced_accuracy(y_val, probe.fit(Z[rows], y[rows]).predict(Z_val))
