"""What experts, or a simulation, say about a cell beside its class: the ground for "what do the features mean".

Every reader here returns one row a cell of a cell table, indexed by ``cell_id``, with that table's ``split``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import pandas as pd
import pyarrow as pa

from cytolib.data.images import cell_id
from cytolib.data.readers.common import find_folder

WBCATT_FILES = ("pbc_attr_v1_train.csv", "pbc_attr_v1_val.csv", "pbc_attr_v1_test.csv")

#: The eleven attributes of WBCAtt and their values (Tsutsui, Pang & Wen, NeurIPS 2023, arXiv 2306.13531).
WBCATT: Mapping[str, tuple[str, ...]] = {
    "cell_size": ("small", "big"),
    "cell_shape": ("round", "irregular"),
    "nucleus_shape": (
        "unsegmented-round",
        "unsegmented-indented",
        "unsegmented-band",
        "segmented-bilobed",
        "segmented-multilobed",
        "irregular",
    ),
    "nuclear_cytoplasmic_ratio": ("low", "high"),
    "chromatin_density": ("loosely", "densely"),
    "cytoplasm_vacuole": ("no", "yes"),
    "cytoplasm_texture": ("clear", "frosted"),
    "cytoplasm_colour": ("light blue", "blue", "purple blue"),
    "granule_type": ("nil", "small", "round", "coarse"),
    "granule_colour": ("nil", "pink", "red", "purple"),
    "granularity": ("no", "yes"),
}

#: Factors of phantoms that show in the picture: of the cell, then of stain and microscope.
SHOWN_FACTORS: tuple[str, ...] = (
    "cell_diameter_um",
    "nucleus_area_fraction",
    "lobes",
    "nuclear_stain",
    "chromatin_coarseness",
    "granule_density",
    "granule_eosin_share",
    "cytoplasm_azure",
    "cytoplasm_eosin",
    "vacuoles",
    "nucleoli",
    "stain_strength",
    "eosin_balance",
    "focus_blur_um",
    "domain",
)


def read_wbcatt(root: str | Path, cells: pd.DataFrame) -> pd.DataFrame:
    """Eleven attributes of the PBC cells in ``cells``, from the three files of ``root/wbcatt``.

    The set's own division into train, val and test is not used: it does not agree with ours, so a probe that was
    fitted along it would be scored on cells that an encoder or generator was trained on.

    A row belongs to the cell with its image's bytes, whatever its path: PBC holds images twice under two names, and
    of 13 that were annotated twice 4 got other values the second time.

    Args:
        root: the data root, with ``wbcatt`` and the images.
        cells: a cell table with PBC in it; needs ``cell_id``, ``path`` and ``split``.

    Returns:
        Indexed by ``cell_id``, in the order of ``cells``: the columns of ``WBCATT`` as categoricals with their
        vocabulary, and ``split``. ``.attrs`` counts what was left out: ``rows`` in the files, ``repeated`` (the same
        cell with the same values again), ``conflicting`` (paths of a cell that has other values again; none of its
        rows is kept) and ``not_in_table`` (rows of cells that ``cells`` lacks).

    Raises:
        FileNotFoundError, ValueError: naming the file, for a missing or unreadable file, missing columns, a value
            outside the vocabulary, or if no image is in ``cells``.
    """
    _require(cells, ("cell_id", "path", "split"))
    root = Path(root)
    folder = find_folder(root, ("wbcatt",))
    rows = pd.concat([_read_rows(folder / name) for name in WBCATT_FILES], ignore_index=True)
    cell_of = dict(zip(cells["path"], cells["cell_id"], strict=True))
    known = set(cells["cell_id"])
    rows["cell_id"] = [cell_of.get(path) or _twin(root, path, known) for path in rows["path"]]
    found = rows[rows["cell_id"].notna()]
    if found.empty:
        raise ValueError(f"{folder}: none of its {len(rows):,} images is in the cell table; is PBC in it?")
    distinct = found.drop_duplicates(["cell_id", *WBCATT])
    torn = set(distinct.loc[distinct["cell_id"].duplicated(), "cell_id"])
    kept = distinct[~distinct["cell_id"].isin(torn)].set_index("cell_id")[list(WBCATT)]
    annotated = cells[cells["cell_id"].isin(kept.index)]
    attributes = kept.loc[annotated["cell_id"]]
    for name, values in WBCATT.items():
        attributes[name] = pd.Categorical(attributes[name], categories=list(values))
    attributes["split"] = annotated["split"].to_numpy()
    attributes.attrs = {
        "rows": len(rows),
        "repeated": len(found) - len(distinct),
        "conflicting": sorted(set(found.loc[found["cell_id"].isin(torn), "path"])),
        "not_in_table": len(rows) - len(found),
    }
    return attributes


def _twin(root: Path, path: str, known: set[str]) -> str | None:
    """The cell of an image that is byte for byte that of another path, dropped from the cell table as a duplicate."""
    inside = not PurePosixPath(path).is_absolute() and ".." not in PurePosixPath(path).parts
    if not inside or not (root / path).is_file():
        return None
    digest = cell_id(root / path)
    return digest if digest in known else None


def _read_rows(file: Path) -> pd.DataFrame:
    """``path`` and the attributes of one file, every value checked."""
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; put the three CSV files of WBCAtt there")
    try:
        rows = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{file}: not a readable CSV file ({reason}); download it again") from error
    missing = [name for name in ("path", *WBCATT) if name not in rows.columns]
    if missing or rows.empty:
        fault = f"columns {missing} are missing" if missing else "it has no rows"
        raise ValueError(f"{file}: {fault}; expected path and the eleven attributes, download it again")
    for name, values in WBCATT.items():
        unknown = ~rows[name].isin(values)
        if unknown.any():
            row = int(unknown.to_numpy().argmax())
            raise ValueError(
                f"{file}, line {row + 2}: {name} is {rows[name].iloc[row]!r}; expected one of {', '.join(values)}"
            )
    return rows[["path", *WBCATT]]


def read_factors(folder: str | Path, cells: pd.DataFrame) -> pd.DataFrame:
    """The numbers that made each phantom in ``cells``, from ``factors.parquet`` of their folder.

    Returns:
        Indexed by ``cell_id``, in the order of ``cells``: the factors (lengths in micrometres) and ``split``;
        ``.attrs["not_in_table"]`` counts phantoms that ``cells`` lacks.

    Raises:
        FileNotFoundError, ValueError: naming the file, if it is missing, damaged, lacks ``cell_id``, names a cell
            twice, or has no row for some cell.
    """
    _require(cells, ("cell_id", "split"))
    file = Path(folder) / "factors.parquet"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; phantoms are written with one, draw them again")
    try:
        factors = pd.read_parquet(file)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file}: not a readable parquet file; draw the phantoms again") from error
    if "cell_id" not in factors.columns:
        raise ValueError(f"{file}: column cell_id is missing; draw the phantoms again")
    twice = factors["cell_id"].duplicated()
    if twice.any():
        raise ValueError(f"{file}: cell {factors['cell_id'][twice].iloc[0]} stands twice; draw the phantoms again")
    factors = factors.set_index("cell_id").drop(columns="split", errors="ignore")
    lacking = ~cells["cell_id"].isin(factors.index)
    if lacking.any():
        first = cells.loc[lacking, "cell_id"].iloc[0]
        raise ValueError(f"{file}: no factors of {int(lacking.sum())} cells, first {first}; is it of another data set?")
    found = factors.loc[cells["cell_id"]]
    found["split"] = cells["split"].to_numpy()
    found.attrs = {"not_in_table": len(factors) - len(found)}
    return found


def _require(cells: pd.DataFrame, columns: tuple[str, ...]) -> None:
    missing = [name for name in columns if name not in cells.columns]
    if missing:
        raise ValueError(f"cell table: columns {missing} are missing; expected {', '.join(columns)}")
    twice = cells["cell_id"].duplicated()
    if twice.any():
        first = cells["cell_id"][twice].iloc[0]
        raise ValueError(f"cell table: cell {first} stands twice; drop exact duplicates first")


def sources(cells: pd.DataFrame, root: str | Path) -> list[Path]:
    """The folder, outside the run, that ``load_attributes`` reads for these cells, there or not; none for phantoms."""
    return [Path(root) / "wbcatt"] if "pbc" in set(cells["dataset"]) else []


def load_attributes(cells: pd.DataFrame, root: str | Path) -> pd.DataFrame | None:
    """What is known of these cells beside their class: factors of phantoms, WBCAtt of PBC; None where nothing is.

    Args:
        cells: a cell table.
        root: its image root.

    Returns:
        Indexed by ``cell_id``: one column an attribute, numbers or categories.
    """
    datasets = set(cells["dataset"])
    if datasets == {"phantoms"}:
        factors = read_factors(root, cells)
        return factors[[name for name in SHOWN_FACTORS if name in factors]]
    if "pbc" in datasets and (Path(root) / "wbcatt").is_dir():
        return read_wbcatt(root, cells)[list(WBCATT)]
    return None
