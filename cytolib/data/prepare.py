"""From a data set's name to cells that are ready to embed: read or drawn, de-duplicated, split."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cytolib import run
from cytolib.data import phantoms, registry, splits


def prepare_cells(
    dataset: str,
    folder: Path,
    *,
    n_cells: int,
    n_held_out: int,
    image_size: int,
    val_fraction: float,
    test_fraction: float,
    split_file: str,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cells of ``dataset`` with their split, and the report of dropped exact duplicates.

    Args:
        dataset: ``phantoms`` (drawn into ``folder``), a name of the registry, or ``folder:<name>``.
        folder: where phantoms are written; their paths are relative to it.
        n_cells, n_held_out, image_size: phantoms only: cells drawn, cells of the abnormal class, pixels a side.
        val_fraction, test_fraction: of the cells that are not held out.
        split_file: an existing split (``cell_id, split``), relative to the project; empty draws one from ``seed``.
    """
    held_out: dict[str, tuple[str, ...]]
    if dataset == "phantoms":
        cells = phantoms.write_phantoms(folder, n_cells, seed, size=image_size, n_held_out=n_held_out)
        held_out = {"held_out_classes": (phantoms.HELD_OUT,) if n_held_out else ()}
    else:
        cells, card = registry.load_cells(dataset, run.data_root())
        held_out = {"held_out_classes": card.held_out_classes, "held_out_domains": card.held_out_domains}
    cells, duplicates = splits.drop_exact_duplicates(cells)
    if split_file:
        return splits.apply_split(cells, run.root() / split_file), duplicates
    present = {key: [n for n in names if n in set(cells[_COLUMN[key]])] for key, names in held_out.items()}
    return splits.draw_split(cells, val=val_fraction, test=test_fraction, seed=seed, **present), duplicates


_COLUMN = {"held_out_classes": "label", "held_out_domains": "domain"}
