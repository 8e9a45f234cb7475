"""The first rows of result tables (CSV and parquet) as short texts, without reading the whole file."""

from __future__ import annotations

import csv
import itertools
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUFFIXES = (".parquet", ".csv")
WHOLE_ROWS, HEAD_ROWS = 20, 8  # a table of up to 20 rows is shown whole, of a longer one the first 8
MAX_COLUMNS = 30
MAX_TEXT = 100
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Cell:
    """What is shown, and the whole value where that is more."""

    text: str
    full: str = ""


@dataclass(frozen=True)
class TableHead:
    """The first rows of a table.

    Attributes:
        columns: names of the columns shown.
        numeric: for each of them, whether it is right-aligned.
        rows: the cells shown.
        n_rows: rows of the whole table.
        n_columns: columns of the whole table.
    """

    columns: list[str]
    numeric: list[bool]
    rows: list[list[Cell]]
    n_rows: int
    n_columns: int


def read_head(path: Path) -> TableHead:
    """The first rows of a table.

    Raises:
        ValueError: in one sentence, where the file is no such table.
    """
    try:
        names, rows, n_rows = _read_csv(path) if path.suffix == ".csv" else _read_parquet(path)
    except (OSError, ValueError, csv.Error) as error:  # pyarrow's errors are OSError or ValueError
        reason = " ".join(str(error).split())[:160]
        raise ValueError(f"{path.name} is not readable as {path.suffix[1:]}: {reason}") from None
    shown = rows[: WHOLE_ROWS if n_rows <= WHOLE_ROWS else HEAD_ROWS]
    width = min(len(names), MAX_COLUMNS)
    numeric = [all(_is_number(row[i]) for row in shown if row[i] not in (None, "")) for i in range(width)]
    cells = [[show(value) for value in row[:width]] for row in shown]
    return TableHead(names[:width], numeric, cells, n_rows, len(names))


def _read_parquet(path: Path) -> tuple[list[str], list[list[Any]], int]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        names, n_rows = list(file.schema_arrow.names), int(file.metadata.num_rows)
        # columns by position: a table may have two of one name
        batch = next(file.iter_batches(batch_size=WHOLE_ROWS), None)
        columns = [column.to_pylist() for column in batch.columns] if batch is not None else []
    return names, [list(row) for row in zip(*columns, strict=True)], n_rows


def _read_csv(path: Path) -> tuple[list[str], list[list[Any]], int]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        names = next(reader, [])
        rows = list(itertools.islice((row for row in reader if row), WHOLE_ROWS))
        n_rows = len(rows) + sum(1 for row in reader if row)
    for number, row in enumerate(rows, start=1):
        if len(row) != len(names):
            raise ValueError(f"row {number} has {len(row)} values, expected {len(names)} as the first line has names")
    return names, [[_number(text) for text in row] for row in rows], n_rows


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def show(value: Any) -> Cell:
    """A value in few characters: floats with four significant digits, long lists by their first numbers."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return Cell("")
    if isinstance(value, float):
        text = short_number(value)
        return Cell(text, repr(value) if text != repr(value) else "")
    if _is_number(value):
        return Cell(f"{value:,}" if abs(value) < 10**9 else str(value))
    if isinstance(value, list):
        if len(value) <= 4:
            return Cell("[" + ", ".join(show(item).text for item in value) + "]")
        return Cell("[" + ", ".join(show(item).text for item in value[:2]) + f", … {len(value):,} values]")
    if isinstance(value, bytes):
        return Cell(f"{len(value):,} bytes")
    text = str(value)
    if _HASH.fullmatch(text):
        return Cell(text[:10] + "…", text)
    return Cell(text[: MAX_TEXT - 1] + "…", text[:2000]) if len(text) > MAX_TEXT else Cell(text)


def short_number(value: float) -> str:
    """Four significant digits, without an exponent where a reader needs none."""
    if 1e4 <= abs(value) < 1e9:
        return f"{value:,.0f}"
    return f"{value:.4g}"
