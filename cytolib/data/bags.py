"""Bags of embeddings: one HDF5 file a patient, as the DinoBloom-B embeddings of three patient cohorts are released.

Source: https://huggingface.co/datasets/MarrLab/DinoBloom_hemato_embeddings (Apache-2.0), files
``patient_embeddings/<dataset>/<PATIENT>.h5`` with ``features`` (N, 768) and the scalar ``labels``, the patient's
diagnosis. The cells' classes and images are not in it: it serves for training without labels and for patients.
Article: Dasdelen et al., arXiv 2605.29980 (2026).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cytolib.embedding_table import EmbeddingTable

BLOCK_ROWS = 65_536
#: Floats hardly shrink; a file that promises more than this times what it stores is damaged or a bomb.
MAX_RATIO = 100

#: What the number in ``labels`` means, where it is published (marrlab/GenBloom, splits).
DIAGNOSES: Mapping[str, Mapping[int, str]] = {
    "aml_hehr": {
        0: "AML-CBFB-MYH11",
        1: "AML-NPM1",
        2: "AML-PML-RARA",
        3: "AML-RUNX1-RUNX1T1",
        4: "SCD",
    }
}


@dataclass(frozen=True, eq=False)
class Bag:
    """The cells of one patient: ``label`` is the patient's diagnosis or None, ``X`` (N, D) float32, finite, N > 0."""

    dataset: str
    patient: str
    label: str | None
    X: NDArray[np.float32]

    def cell_ids(self) -> list[str]:
        """SHA-256 of ``dataset/patient/row``: there are no image bytes to take it from."""
        stem = f"{self.dataset}/{self.patient}/"
        return [hashlib.sha256(f"{stem}{row}".encode()).hexdigest() for row in range(len(self.X))]


def iter_bags(folder: str | Path, *, block_rows: int = BLOCK_ROWS) -> Iterator[Bag]:
    """The bags in ``folder``, one after the other, by data set and patient: for sets larger than memory.

    Args:
        folder: holds ``patient_embeddings/<dataset>/<PATIENT>.h5``, or ``<dataset>/<PATIENT>.h5``, or the files of
            one data set, which then has the folder's name.
        block_rows: rows that are read and checked at a time; no value depends on it.

    Raises:
        FileNotFoundError: for a missing folder, or one without HDF5 files.
        ValueError: naming the file, if it is no HDF5, lacks ``features``, leads to another file or object by a link,
            has odd shapes, another dimension than the file before, no rows, or values that are not finite.
    """
    if block_rows < 1:
        raise ValueError(f"block_rows is {block_rows}; expected at least 1")
    dim: int | None = None
    for dataset, file in bag_files(folder):
        bag = _read_bag(file, dataset, block_rows)
        dim = dim or bag.X.shape[1]
        if bag.X.shape[1] != dim:
            raise ValueError(f"{file}: features have {bag.X.shape[1]} dimensions, files before it {dim}; keep one kind")
        yield bag


def read_bags(folder: str | Path, *, block_rows: int = BLOCK_ROWS) -> tuple[EmbeddingTable, pd.DataFrame]:
    """All bags in ``folder`` as one embedding table, and who each row is of; see ``iter_bags``.

    Returns:
        The table, and a DataFrame in its order: ``cell_id``, ``group`` (the patient), ``label`` (the patient's
        diagnosis, not the cell's class; null where there is none) and ``dataset``.
    """
    blocks: list[NDArray[np.float32]] = []
    rows: list[pd.DataFrame] = []
    for bag in iter_bags(folder, block_rows=block_rows):
        blocks.append(bag.X)
        rows.append(
            pd.DataFrame(
                {"cell_id": bag.cell_ids(), "group": bag.patient, "label": bag.label, "dataset": bag.dataset},
                dtype="object",
            )
        )
    cells = pd.concat(rows, ignore_index=True).astype({"cell_id": "str", "group": "str", "dataset": "str"})
    X = np.concatenate(blocks)
    return EmbeddingTable(cells["cell_id"].to_numpy(dtype=np.str_), X, metadata(cells["cell_id"], X)), cells


def metadata(cell_ids: pd.Series, X: NDArray[np.float32]) -> dict[str, str]:
    """What is known of how the released vectors were made; their fingerprint is that of the content itself."""
    digest = hashlib.sha256("".join(cell_ids).encode())
    digest.update(np.ascontiguousarray(X).data)
    unknown = dict.fromkeys(("weights_sha256", "transform", "image_size"), "not known")
    return unknown | {
        "encoder": "dinobloom-b (released embeddings)",
        "dtype": "float32",
        "fingerprint": digest.hexdigest(),
    }


def bag_files(folder: str | Path) -> list[tuple[str, Path]]:
    """Data set and path of every bag in ``folder``, sorted.

    Raises:
        FileNotFoundError: for a missing folder, or one without HDF5 files; ValueError for a patient with two files.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; put the released embeddings there")
    base = folder / "patient_embeddings" if (folder / "patient_embeddings").is_dir() else folder
    found: dict[tuple[str, str], Path] = {}
    for file in sorted(base.rglob("*")):
        parts = file.relative_to(base).parts
        if file.suffix.lower() not in (".h5", ".hdf5") or any(part.startswith(".") for part in parts):
            continue
        key = (parts[0] if len(parts) > 1 else base.name, file.stem)
        if key in found:
            raise ValueError(f"{file}: patient {file.stem} has another file, {found[key]}; keep one")
        found[key] = file
    if not found:
        raise FileNotFoundError(f"{folder}: no .h5 file in it; expected <dataset>/<PATIENT>.h5")
    return [(dataset, found[dataset, patient]) for dataset, patient in sorted(found)]


def _read_bag(file: Path, dataset: str, block_rows: int) -> Bag:
    import h5py

    try:
        # Read-only file systems cannot lock.
        with h5py.File(file, "r", locking="best-effort") as content:
            features = _dataset(content, "features", file)
            X = _read_features(features, file, block_rows)
            label = _label(_dataset(content, "labels", file), file) if "labels" in content else None
    except (OSError, RuntimeError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{file}: not a readable HDF5 file ({reason}); download it again") from error
    return Bag(dataset, file.stem, _diagnosis(dataset, label), X)


def _dataset(content: Any, name: str, file: Path) -> Any:
    """The array called ``name``, if its numbers lie in this very file.

    HDF5 files may point to other files (links, external storage, virtual arrays): one from elsewhere could make us
    read what its author chose.
    """
    import h5py

    link = content.get(name, getlink=True)
    if link is None:
        raise ValueError(f"{file}: no array {name} in it, only {', '.join(content) or 'nothing'}; is it a bag?")
    if not isinstance(link, h5py.HardLink):
        raise ValueError(f"{file}: {name} is a link to another place; expected the numbers themselves in this file")
    array = content[name]
    if not isinstance(array, h5py.Dataset):
        raise ValueError(f"{file}: {name} is a group; expected an array")
    if array.external or array.is_virtual:
        raise ValueError(f"{file}: {name} has its numbers in another file; expected them in this one")
    return array


def _read_features(features: Any, file: Path, block_rows: int) -> NDArray[np.float32]:
    shape, dtype = features.shape, features.dtype
    if shape is None or len(shape) != 2 or dtype.kind != "f" or shape[1] == 0:
        raise ValueError(f"{file}: features is {dtype} {shape}; expected floats (N, D)")
    if shape[0] == 0:
        raise ValueError(f"{file}: features has no rows; a patient without cells is to be left out")
    stored = features.id.get_storage_size()
    if features.nbytes > MAX_RATIO * stored:
        raise ValueError(f"{file}: features is {shape} but stores {stored:,} bytes; it is damaged, download it again")
    X = np.empty(shape, dtype=np.float32)
    for start in range(0, shape[0], block_rows):
        block = slice(start, start + block_rows)
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite and is refused below
            X[block] = features[block]
        bad = ~np.isfinite(X[block]).all(axis=1)
        if bad.any():
            row = start + int(bad.argmax())
            raise ValueError(f"{file}: row {row} of features has values that are not finite; take the row out")
    return X


def _label(labels: Any, file: Path) -> int | str:
    if labels.shape is None or labels.size != 1:
        raise ValueError(f"{file}: labels is {labels.dtype} {labels.shape}; expected one diagnosis of the patient")
    value = np.asarray(labels[()]).ravel()[0]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, str):
        return value
    if labels.dtype.kind not in "iuf" or int(value) != value:
        raise ValueError(f"{file}: labels is {value!r}; expected a whole number or a word")
    return int(value)


def _diagnosis(dataset: str, label: int | str | None) -> str | None:
    if label is None:
        return None
    return DIAGNOSES.get(dataset, {}).get(label, str(label)) if isinstance(label, int) else label
