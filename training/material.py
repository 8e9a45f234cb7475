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
from sklearn.preprocessing import QuantileTransformer
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from cytolib import embed, morphometry, run
from cytolib.data import images, phantoms
from cytolib.data.prepare import prepare_cells

LIST = Path(__file__).with_name("material.parquet")
SIDE = 176  # pixels; the largest view that a window of 96 px at any zoom needs
MAIN = "pbc_main"
PHANTOM_SEED = 77


@dataclass(frozen=True)
class Material:
    """Images, and what belongs to each.

    Attributes:
        images: (N, SIDE, SIDE, 3) uint8.
        features: (N, D) classical features, each standard normal by rank.
        twins: (N,) row of the same cell elsewhere: of a phantom at another site; a real cell has its own row.
    """

    images: NDArray[np.uint8]
    features: NDArray[np.float32]
    twins: NDArray[np.int64]


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
    """A whole frame, resized to ``SIDE``."""
    return np.asarray(images.load_image(path).resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def draw(number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Phantom ``number`` at two sites: the classes in turn, but for the one that is held out."""
    rng = np.random.default_rng([PHANTOM_SEED, number])
    label = phantoms.CLASSES[number % len(phantoms.CLASSES)]
    here, there = rng.choice(phantoms.DOMAINS, 2, replace=False)
    seed = int(rng.integers(2**31))
    return tuple(phantoms.draw_cell(label, str(site), seed=seed, size=SIDE).image for site in (here, there))


def read_material(n_phantoms: int, folder: Path, progress: bool = True) -> Material:
    """All images and their features, read once and kept in ``folder``.

    Raises:
        ValueError: if an image is among them that ``LIST`` does not name, or the other way round.
    """
    pictures, measured = folder / f"images-{n_phantoms}.npy", folder / f"features-{n_phantoms}.npy"
    if not (pictures.is_file() and measured.is_file()):
        cells = seen_cells(pbc_cells())
        check_list(cells)
        paths = [run.data_root() / path for path in cells["path"]]
        with workers() as pool:
            read = tqdm(pool.map(load, paths, chunksize=64), "reading PBC", len(paths), disable=not progress)
            found = [np.stack(list(read))]
            drawn = tqdm(pool.map(draw, range(n_phantoms), chunksize=64), "drawing phantoms", n_phantoms)
            pairs = list(drawn)
            found += [np.stack([pair[k] for pair in pairs]) for k in range(2) if pairs]
            both = np.concatenate(found)
            measure = tqdm(pool.map(_measure, both[len(paths) :], chunksize=64), "measuring phantoms", 2 * n_phantoms)
            features = np.concatenate(
                [embed.embed(cells, run.data_root(), "morphometry", progress=progress).X, *([f] for f in measure)]
            )
        folder.mkdir(parents=True, exist_ok=True)
        for values, path in ((both, pictures), (features, measured)):
            with run.atomic_path(path) as temporary:
                with open(temporary, "wb") as file:
                    np.save(file, values)
    normal = QuantileTransformer(output_distribution="normal", n_quantiles=500, subsample=None)
    features = normal.fit_transform(np.load(measured)).clip(-3, 3).astype(np.float32)
    rows = np.arange(len(features))
    here, there = rows[len(rows) - 2 * n_phantoms :].reshape(2, n_phantoms)
    rows = rows.copy()
    rows[here], rows[there] = there, here
    return Material(np.load(pictures, mmap_mode="r"), features, rows)


def _measure(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    return morphometry.extract(morphometry.resize(Image.fromarray(image)))


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
