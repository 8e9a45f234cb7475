"""Duplicates and splits: what must never stand on both sides, and the file that says who stands where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cytolib import run
from cytolib.data.table import SPLITS


def drop_exact_duplicates(cells: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Keep one of each set of byte-identical images, none where their labels disagree.

    Returns:
        The kept cells, and a report with one row a dropped image: ``path``, ``label``, ``cell_id``, ``reason``.
    """
    conflicting = cells.groupby("cell_id")["label"].transform("nunique") > 1
    repeated = cells["cell_id"].duplicated() & ~conflicting
    report = cells.loc[conflicting | repeated, ["path", "label", "cell_id"]].copy()
    report["reason"] = np.where(conflicting[report.index], "identical image, other label", "identical image")
    return cells[~(conflicting | repeated)].reset_index(drop=True), report.reset_index(drop=True)


def draw_split(
    cells: pd.DataFrame,
    *,
    val: float = 0.2,
    test: float = 0.2,
    held_out_classes: Sequence[str] = (),
    held_out_domains: Sequence[str] = (),
    seed: int = 0,
) -> pd.DataFrame:
    """Assign train, val and test at random within each class and domain; groups stay whole.

    Cells of a held-out class or domain get the split ``held_out``: no model ever trains on them.

    Returns:
        ``cells`` with its ``split`` column filled.

    Raises:
        ValueError: if the fractions leave nothing to train on, or a held-out name is not in the table.
    """
    if min(val, test) < 0 or val + test >= 1:
        raise ValueError(f"val is {val} and test is {test}; expected fractions that leave some cells to train on")
    for column, names in (("label", held_out_classes), ("domain", held_out_domains)):
        unknown = sorted(set(names) - set(cells[column]))
        if unknown:
            raise ValueError(f"held-out {column} {unknown} not in the cells; found {sorted(set(cells[column]))}")
    held_out = cells["label"].isin(held_out_classes) | cells["domain"].isin(held_out_domains)
    # A cell without a group is a group of its own; the whole group follows its first cell's class and domain.
    unit = cells["group"].where(cells["group"].notna(), cells["cell_id"]).astype("str")
    first = cells[~held_out].assign(unit=unit).drop_duplicates("unit").sort_values("unit")
    rng = np.random.default_rng(seed)
    assigned: dict[str, str] = {}
    for _, stratum in first.groupby(["label", "domain"], sort=True):
        units = rng.permutation(stratum["unit"].to_numpy())
        n_val, n_test = (round(fraction * len(units)) for fraction in (val, test))
        assigned |= dict.fromkeys(units[:n_val], "val")
        assigned |= dict.fromkeys(units[n_val : n_val + n_test], "test")
        assigned |= dict.fromkeys(units[n_val + n_test :], "train")
    return cells.assign(split=unit.map(assigned).where(~held_out, "held_out"))


def write_split(cells: pd.DataFrame, path: str | Path) -> None:
    """Write the split as CSV: ``cell_id, path, split``, sorted by path."""
    with run.atomic_path(path) as temporary:
        cells.sort_values("path")[["cell_id", "path", "split"]].to_csv(temporary, index=False, lineterminator="\n")


def apply_split(cells: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """Give ``cells`` the split that the file at ``path`` names.

    Raises:
        ValueError: if the file lacks a column, names an unknown split, or has no row for some cell.
    """
    split = pd.read_csv(path, dtype=str)
    missing = {"cell_id", "split"} - set(split.columns)
    if missing:
        raise ValueError(f"{path}: columns {sorted(missing)} are missing; expected cell_id and split")
    unknown = sorted(set(split["split"].dropna()) - set(SPLITS))
    if unknown or split["split"].isna().any():
        raise ValueError(f"{path}: splits {unknown or 'left empty'}; expected {', '.join(SPLITS)}")
    by_cell = split.drop_duplicates("cell_id").set_index("cell_id")["split"]
    assigned = cells["cell_id"].map(by_cell)
    if assigned.isna().any():
        first = cells.loc[assigned.isna(), "path"].iloc[0]
        raise ValueError(f"{path}: no split for {int(assigned.isna().sum())} cells, the first is {first}; draw it anew")
    return cells.assign(split=assigned)
