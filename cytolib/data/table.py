"""The cell table: one row a cell, validated at every door, parquet on disk.

Columns: ``cell_id`` (sha256 of the image bytes), ``path`` (relative to the image root), ``label`` (class in the run's
label set), ``cell_type`` (finest harmonised name), ``source_label`` (the data set's own), ``domain`` (site, scanner,
stain), ``dataset``, ``group`` (patient, slide or smear; null where unknown), ``split``, ``um_per_px`` (micrometres a
pixel of the file; null where unknown) and ``mask`` (path of a mask image; null where there is none).
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cytolib import run
from cytolib.data.taxonomy import CELL_TYPES
from cytolib.parquet import metadata_of, read_table
from cytolib.text import unfit

COLUMNS: tuple[str, ...] = (
    "cell_id",
    "path",
    "label",
    "cell_type",
    "source_label",
    "domain",
    "dataset",
    "group",
    "split",
    "um_per_px",
    "mask",
)
NULLABLE: tuple[str, ...] = ("group", "um_per_px", "mask")
SPLITS: tuple[str, ...] = ("train", "val", "test", "held_out")
IMAGE_ROOTS: tuple[str, ...] = ("data", "stage")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SCHEMA = pa.schema([(name, pa.float64() if name == "um_per_px" else pa.string()) for name in COLUMNS])


def _refuse(bad: pd.Series, name: str, expected: str) -> None:
    """Raise for the first row that ``bad`` marks."""
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise ValueError(f"cell table: {int(bad.sum())} rows have a bad {name}, the first is row {row}; {expected}")


def as_cell_table(frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` as a cell table: its columns in order, strings, a fresh index, every promise of the module checked.

    Raises:
        ValueError: in one sentence, for missing columns, ids that are no sha256 or stand twice, unknown classes or
            splits, paths that are absolute or leave the image root, scales that are not positive, or a group that
            crosses splits.
    """
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise ValueError(f"cell table: columns {missing} are missing; expected {list(COLUMNS)}")
    cells = frame.loc[:, list(COLUMNS)].reset_index(drop=True)
    if cells.empty:
        raise ValueError("cell table: it has no rows; check the folder that was read")
    for name in COLUMNS:
        if name not in NULLABLE:
            _refuse(cells[name].isna(), name, "it must not be null")
            cells[name] = cells[name].astype("str")
    for name in ("group", "mask"):
        cells[name] = cells[name].astype("object").where(cells[name].notna(), None)
    cells["um_per_px"] = pd.to_numeric(cells["um_per_px"], errors="coerce").astype("float64")
    _refuse(~cells["cell_id"].map(lambda s: bool(_SHA256.fullmatch(s))), "cell_id", "expected 64 hexadecimal digits")
    _refuse(cells["cell_id"].duplicated(), "cell_id", "each image stands once; drop exact duplicates first")
    for name in ("label", "cell_type"):
        _refuse(~cells[name].isin(CELL_TYPES), name, f"expected one of {', '.join(CELL_TYPES)}")
    _refuse(~cells["split"].isin(SPLITS), "split", f"expected one of {', '.join(SPLITS)}")
    for name in ("path", "mask"):
        _refuse(
            cells[name].map(lambda p: p is not None and _leaves_root(p)),
            name,
            "expected a path inside the image root, relative to it",
        )
    for name in ("path", "mask", "source_label", "domain", "dataset", "group"):
        texts = cells[name].dropna()
        strange = {text for text in texts.unique() if unfit(str(text))}
        _refuse(cells[name].isin(strange), name, "expected plain text: no control characters, no spreadsheet formula")
    scale = cells["um_per_px"]
    _refuse(
        scale.notna() & ~((scale > 0) & (scale < float("inf"))), "um_per_px", "expected micrometres a pixel above 0"
    )
    # A patient may have held-out blasts and other cells: what must not happen is one patient in training and test.
    tied = cells[cells["group"].notna() & (cells["split"] != "held_out")]
    crossing = tied.groupby(["dataset", "group"])["split"].nunique()
    torn = crossing[crossing > 1].index.get_level_values("group")
    if len(torn):
        raise ValueError(f"cell table: group {torn[0]!r} has cells in several splits; keep a group together")
    return cells


def _leaves_root(path: str) -> bool:
    parts = PurePosixPath(path)
    return parts.is_absolute() or ".." in parts.parts or "\\" in path or path == ""


def write_cells(cells: pd.DataFrame, path: str | Path, image_root: str = "data") -> None:
    """Write a cell table as parquet; ``image_root`` says what its paths are relative to: the data root or the stage."""
    if image_root not in IMAGE_ROOTS:
        raise ValueError(f"image_root is {image_root!r}; expected one of {', '.join(IMAGE_ROOTS)}")
    table = pa.Table.from_pandas(as_cell_table(cells), schema=_SCHEMA, preserve_index=False)
    with run.atomic_path(path) as temporary:
        pq.write_table(table.replace_schema_metadata({"image_root": image_root}), temporary, compression="zstd")


def read_cells(path: str | Path) -> pd.DataFrame:
    """Read and validate a cell table; ``.attrs["image_root"]`` says what its paths are relative to.

    Raises:
        FileNotFoundError, ValueError: in one sentence that names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such cell table; notebook 00_data writes it")
    mend = "run notebook 00_data again"
    table = read_table(path, mend)
    _check_types(table.schema, path, mend)
    try:
        cells = as_cell_table(table.replace_schema_metadata(None).to_pandas())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    cells.attrs["image_root"] = metadata_of(table, path, mend).get("image_root", "data")
    if cells.attrs["image_root"] not in IMAGE_ROOTS:
        raise ValueError(
            f"{path}: image_root is {cells.attrs['image_root']!r}; expected one of {', '.join(IMAGE_ROOTS)}; {mend}"
        )
    cells.attrs["folder"] = str(path.parent)
    return cells


def _check_types(schema: pa.Schema, path: Path, mend: str) -> None:
    for field in schema:
        text = pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        number = pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
        fits = number if field.name == "um_per_px" else text
        if field.name in COLUMNS and not (fits or pa.types.is_null(field.type)):
            wanted = "numbers" if field.name == "um_per_px" else "texts"
            raise ValueError(f"{path}: column {field.name!r} holds {field.type}; expected {wanted}; {mend}")


def image_root(cells: pd.DataFrame) -> Path:
    """The folder that the ``path`` column of a cell table from ``read_cells`` is relative to.

    Real data sets lie under the data root; phantoms lie beside the cell table that names them.
    """
    return Path(cells.attrs["folder"]) if cells.attrs.get("image_root") == "stage" else run.data_root()
