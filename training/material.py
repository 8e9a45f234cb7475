"""What the shipped encoder learns from: PBC's training split of the main set-up, and phantoms; nothing else.

The validation and test split, the lilac population, every other site and the phantoms' blast-like class stay out.
``material.parquet`` beside this file names every real image by its SHA-256 and keeps its perceptual hash, so that
anybody with the images can check that no other image, nor a near duplicate of one, was among them.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import QuantileTransformer
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from cytolib import embed, morphometry, run
from cytolib.data import images, phantoms
from cytolib.data.prepare import prepare_cells
from cytolib.views import wide_window
from training.kept import kept

LIST = Path(__file__).with_name("material.parquet")
SIDE = 144  # pixels a side of the kept pictures
MAIN = "pbc_main"
PHANTOM_SEED = 77
PHANTOM_SIDE = 176  # pixels a side of the field that a phantom is drawn in
NEAREST = 10  # neighbours kept of each cell


@dataclass(frozen=True)
class Material:
    """Images, and what belongs to each.

    Attributes:
        images: (N, SIDE, SIDE, 3) uint8, windows of cells, wider than the encoder's by ``views.BEYOND``.
        features: (N, D) classical features, each standard normal by rank.
        twins: (N,) row of the same cell elsewhere: of a phantom at another site; a real cell has its own row.
        neighbours: (N, NEAREST) rows of the cells most alike in the features, the nearest first.
    """

    images: NDArray[np.uint8]
    features: NDArray[np.float32]
    twins: NDArray[np.int64]
    neighbours: NDArray[np.int64]


def pbc_cells() -> pd.DataFrame:
    """The cell table of PBC with the split of ``configs/pbc.yaml``."""
    with tempfile.TemporaryDirectory() as scratch:
        return prepare_cells(
            "pbc", Path(scratch), n_cells=0, n_held_out=0, image_size=0, val_fraction=0.2, test_fraction=0.2,
            label_set="eight", seed=0,
        ).cells  # fmt: skip


def seen_cells(cells: pd.DataFrame) -> pd.DataFrame:
    """The rows that the encoder may learn from: the training split of the main imaging set-up."""
    return cells[(cells["split"] == "train") & (cells["domain"] == MAIN)].reset_index(drop=True)


def workers() -> ProcessPoolExecutor:
    """A process for each core, with one thread each: two that share a core are many times slower."""
    return ProcessPoolExecutor(run.threads(), initializer=threadpool_limits, initargs=(1,))


def load(path: Path) -> NDArray[np.uint8]:
    """The wide window of the cell in a file."""
    return wide_window(images.load_image(path), SIDE)


def draw(number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Phantom ``number`` at two sites, fields (PHANTOM_SIDE, PHANTOM_SIDE, 3): the classes in turn, the usual ones."""
    rng = np.random.default_rng([PHANTOM_SEED, number])
    label = phantoms.CLASSES[number % len(phantoms.CLASSES)]
    here, there = rng.choice(phantoms.DOMAINS, 2, replace=False)
    seed = int(rng.integers(2**31))
    return tuple(phantoms.draw_cell(label, str(site), seed=seed, size=PHANTOM_SIDE).image for site in (here, there))


def _drawn(number: int) -> list[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """Window and classical features of phantom ``number`` at its two sites."""
    return [(wide_window(Image.fromarray(field), SIDE), morphometry.extract(field)) for field in draw(number)]


def _read(n_phantoms: int, progress: bool) -> dict[str, NDArray]:
    cells = seen_cells(pbc_cells())
    check_list(cells)
    paths = [run.data_root() / path for path in cells["path"]]
    with workers() as pool:
        real = tqdm(pool.map(load, paths, chunksize=64), "reading PBC", len(paths), disable=not progress)
        pictures = list(real)
        numbers = tqdm(
            pool.map(_drawn, range(n_phantoms), chunksize=64), "drawing phantoms", n_phantoms, disable=not progress
        )
        pairs = list(numbers)
    features = [embed.embed(cells, run.data_root(), "morphometry", progress=progress).X]
    for site in range(2):
        pictures += [pair[site][0] for pair in pairs]
        features += [np.stack([pair[site][1] for pair in pairs])] if pairs else []
    return {"images": np.stack(pictures), "features": np.concatenate(features)}


def read_material(n_phantoms: int, folder: Path, progress: bool = True) -> Material:
    """All windows and their features, made once and kept in ``folder``.

    Raises:
        ValueError: if an image is among them that ``LIST`` does not name, or the other way round.
    """
    found = kept(folder, f"training-{n_phantoms}", lambda: _read(n_phantoms, progress))
    normal = QuantileTransformer(output_distribution="normal", n_quantiles=500, subsample=None)
    features = normal.fit_transform(found["features"]).clip(-3, 3).astype(np.float32)
    rows = np.arange(len(features))
    here, there = rows[len(rows) - 2 * n_phantoms :].reshape(2, n_phantoms)
    twins = rows.copy()
    twins[here], twins[there] = there, here
    return Material(found["images"], features, twins, neighbours_of(features))


def neighbours_of(features: NDArray[np.float32]) -> NDArray[np.int64]:
    """The ``NEAREST`` nearest rows (N, NEAREST) of each row, itself left out."""
    nearest = min(NEAREST, len(features) - 1)
    return NearestNeighbors(n_neighbors=nearest).fit(features).kneighbors(return_distance=False)


def check_list(cells: pd.DataFrame) -> None:
    """Refuse (ValueError) cells that are not exactly those of ``LIST``."""
    listed = set(pd.read_parquet(LIST)["cell_id"])
    found = set(cells["cell_id"])
    if listed != found:
        raise ValueError(
            f"{LIST.name} names {len(listed):,} images, {len(listed - found):,} of them are not here, and "
            f"{len(found - listed):,} here are not named; give the complete PBC set, or `--list` to write it anew"
        )


def write_list() -> None:
    """Write ``LIST``: SHA-256 and perceptual hash of every image that the encoder learns from."""
    cells = seen_cells(pbc_cells())
    with run.atomic_path(LIST) as temporary:
        cells[["cell_id", "perceptual_hash"]].sort_values("cell_id").to_parquet(
            temporary, index=False, compression="zstd"
        )
