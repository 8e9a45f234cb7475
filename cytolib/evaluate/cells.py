"""Embeddings with their labels, split by split: what every experiment starts from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cytolib.data.table import read_cells
from cytolib.embed import read_embeddings


@dataclass(frozen=True)
class LabelledCells:
    """Embeddings (N, D) with their cell ids, classes and domains."""

    ids: np.ndarray
    X: np.ndarray
    y: np.ndarray
    domains: np.ndarray

    def __len__(self) -> int:
        return len(self.X)


def load_splits(cells_file: Path, embeddings_file: Path) -> tuple[dict[str, LabelledCells], dict[str, str]]:
    """Cells by split (train, val, test, held_out), and the ``dataset`` and ``encoder`` columns of their results."""
    cells, table = read_cells(cells_file), read_embeddings(embeddings_file)
    splits = {}
    for split in ("train", "val", "test", "held_out"):
        part = cells[cells["split"] == split]
        if part.empty and split != "held_out":
            raise ValueError(f"{cells_file}: no cell has split {split!r}; run notebook 00_data again")
        ids, y, domains = (part[name].to_numpy(dtype=str) for name in ("cell_id", "label", "domain"))
        splits[split] = LabelledCells(ids, table.aligned(ids), y, domains)
    unknown = set(splits["val"].y) - set(splits["train"].y)
    if unknown:
        raise ValueError(f"{cells_file}: validation classes {sorted(unknown)} have no training cell; split again")
    dataset = "+".join(sorted(cells["dataset"].unique()))
    return splits, {"dataset": dataset, "encoder": table.metadata["encoder"]}
