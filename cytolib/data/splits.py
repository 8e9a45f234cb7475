"""Splits: who trains, who validates, who tests; what belongs together is never torn apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cytolib import run
from cytolib.data.duplicates import belong_together
from cytolib.data.table import SPLITS


def draw_split(
    cells: pd.DataFrame,
    *,
    val: float = 0.2,
    test: float = 0.2,
    held_out_classes: Sequence[str] = (),
    held_out_domains: Sequence[str] = (),
    near_duplicates: pd.DataFrame | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Assign train, val and test at random within each class and domain; groups and near duplicates stay whole.

    Cells of a held-out class or domain get the split ``held_out``: no model ever trains on them.

    Returns:
        ``cells`` with its ``split`` column filled.

    Raises:
        ValueError: if nothing is left to train on, or a held-out name is not in the table.
    """
    if min(val, test) < 0 or val + test >= 1:
        raise ValueError(f"val is {val} and test is {test}; expected fractions that leave some cells to train on")
    for column, names in (("label", held_out_classes), ("domain", held_out_domains)):
        unknown = sorted(set(names) - set(cells[column]))
        if unknown:
            raise ValueError(f"held-out {column} {unknown} not in the cells; found {sorted(set(cells[column]))}")
    held_out = cells["label"].isin(held_out_classes) | cells["domain"].isin(held_out_domains)
    # A cell tied to no other is a unit of its own; a larger unit follows its first cell's class and domain.
    unit = belong_together(cells, near_duplicates)
    first = cells[~held_out].assign(unit=unit).sort_values("cell_id").drop_duplicates("unit").sort_values("unit")
    rng = np.random.default_rng(seed)
    assigned: dict[str, str] = {}
    for _, stratum in first.groupby(["label", "domain"], sort=True):
        units = rng.permutation(stratum["unit"].to_numpy())
        n_val, n_test = (round(fraction * len(units)) for fraction in (val, test))
        assigned |= dict.fromkeys(units[:n_val], "val")
        assigned |= dict.fromkeys(units[n_val : n_val + n_test], "test")
        assigned |= dict.fromkeys(units[n_val + n_test :], "train")
    if "train" not in assigned.values():
        raise ValueError(
            f"no cell is left to train on: {int(held_out.sum())} of {len(cells)} are held out, val is {val} and test "
            f"is {test} of the others; hold out less, or name another label_set"
        )
    return cells.assign(split=unit.map(assigned).where(~held_out, "held_out"))


def write_split(cells: pd.DataFrame, path: str | Path) -> None:
    """Write the split as CSV: ``cell_id, path, split``, sorted by path."""
    with run.atomic_path(path) as temporary:
        cells.sort_values("path")[["cell_id", "path", "split"]].to_csv(temporary, index=False, lineterminator="\n")


def apply_split(cells: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """Give ``cells`` the split that the file at ``path`` names.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no CSV file, lacks a column, names an unknown split, puts a cell into two of them, or has
            no row for some cell.
    """
    try:
        split = pd.read_csv(path, dtype=str, encoding="utf-8-sig")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: no such split file; name one in the project, or leave split_file empty"
        ) from None
    except (ValueError, OSError) as error:  # pandas' own errors of damaged files are ValueErrors
        reason = " ".join(str(error).split())[:160]
        raise ValueError(f"{path}: not a readable CSV file ({reason}); write it with `write_split`") from error
    missing = {"cell_id", "split"} - set(split.columns)
    if missing:
        raise ValueError(f"{path}: columns {sorted(missing)} are missing; expected cell_id and split")
    unknown = sorted(set(split["split"].dropna()) - set(SPLITS))
    if unknown or split["split"].isna().any():
        raise ValueError(f"{path}: splits {unknown or 'left empty'}; expected {', '.join(SPLITS)}")
    split = split.drop_duplicates(["cell_id", "split"])
    torn = split["cell_id"].duplicated()
    if torn.any():
        raise ValueError(f"{path}: cell {split['cell_id'][torn].iloc[0]} stands in two splits; keep one of its rows")
    by_cell = split.set_index("cell_id")["split"]
    assigned = cells["cell_id"].map(by_cell)
    if assigned.isna().any():
        first = cells.loc[assigned.isna(), "path"].iloc[0]
        raise ValueError(f"{path}: no split for {int(assigned.isna().sum())} cells, the first is {first}; draw it anew")
    return cells.assign(split=assigned)
