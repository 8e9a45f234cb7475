"""What readers of published label files share: finding them, reading their rows, listing what was left out."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from PIL import Image

from cytolib.data.images import FORMATS, check_plain, load_mask
from cytolib.data.readers.common import Reading

MAX_CSV_BYTES = 256_000_000  # two million cells with long paths
MAX_COLUMNS = 1000
LEFT_OUT = tuple[Path, str]  # a file and the sentence that says why it is not in the table


def _child(folder: Path, name: str) -> Path | None:
    """``folder/name``; where that is not there, an entry that differs from it in case alone."""
    if (folder / name).exists():
        return folder / name
    if not folder.is_dir():
        return None
    return next((entry for entry in sorted(folder.iterdir()) if entry.name.lower() == name.lower()), None)


def find_file(folders: Iterable[Path], name: str, what: str) -> Path:
    """``name`` in the first of ``folders`` that has it, whatever its case.

    Raises:
        FileNotFoundError: if none has it; ``what`` says what the file is for.
    """
    places = list(folders)
    for folder in places:
        found = _child(folder, name)
        if found is not None and found.is_file():
            return found
    raise FileNotFoundError(f"{places[0] / name}: no such file; it holds {what}, put it there from the published set")


def check_csv(path: Path) -> None:
    """Refuse a table of labels that no data set has, before it is in memory.

    Raises:
        FileNotFoundError, ValueError: if it is not there, no plain file, or too large.
    """
    size = check_plain(path)
    if size > MAX_CSV_BYTES:
        raise ValueError(f"{path}: {size:,} bytes; a table of cells has under {MAX_CSV_BYTES:,}")


def read_rows(path: Path, columns: Sequence[tuple[str, ...]], key: int = 0) -> list[tuple[int, tuple[str, ...]]]:
    """Rows of a CSV file as (line, values of the wanted columns), blanks around values stripped.

    Args:
        path: the file, UTF-8, its first row the names of the columns.
        columns: the names that each wanted column goes by, in lower case: publishers do not keep to one.
        key: which of the wanted columns names the image; it must be filled and stand once.

    Raises:
        ValueError: naming file and line, for another encoding, missing columns, no rows, short rows, or a key that is
            empty or stands twice.
    """
    check_csv(path)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip().lower() for name in next(reader, [])]
            if len(header) > MAX_COLUMNS:
                raise ValueError(f"{path}: {len(header):,} columns; expected at most {MAX_COLUMNS:,}")
            places = [_place(header, names, path) for names in columns]
            rows = [(reader.line_num, row) for row in reader if any(value.strip() for value in row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a readable CSV file ({error}); save it as UTF-8 with commas") from error
    if not rows:
        raise ValueError(f"{path}: it has no rows; expected a line an image")
    seen: dict[str, int] = {}
    found = []
    for line, row in rows:
        if len(row) < len(header):
            raise ValueError(f"{path}, line {line}: {len(row)} values; expected {len(header)}, one a column")
        values = tuple(row[place].strip() for place in places)
        if not values[key]:
            raise ValueError(f"{path}, line {line}: column {header[places[key]]!r} is empty; expected an image")
        if values[key] in seen:
            raise ValueError(
                f"{path}, line {line}: image {values[key]} stands in line {seen[values[key]]} too; keep one of the two"
            )
        seen[values[key]] = line
        found.append((line, values))
    return found


def _place(header: Sequence[str], names: tuple[str, ...], path: Path) -> int:
    for name in names:
        if name in header:
            return header.index(name)
    raise ValueError(f"{path}: no column {' or '.join(map(repr, names))}; found {', '.join(header) or 'an empty file'}")


def mask_fault(image: Path, mask: Path) -> str:
    """Why the mask cannot be used; empty if it can."""
    try:
        check_plain(image)
        with Image.open(image, formats=FORMATS) as file:
            size = file.size
        height, width = load_mask(mask).shape
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:  # refused with the images
        return str(error).removeprefix(f"{mask}: ")
    return "" if (width, height) == size else f"mask of {width} x {height} pixels for an image of {size[0]} x {size[1]}"


def listed(reading: Reading, root: Path, left_out: Iterable[LEFT_OUT]) -> Reading:
    """``reading`` with more files in its list of refused ones."""
    rows = [{"path": path.relative_to(root).as_posix(), "reason": reason} for path, reason in left_out]
    refused = pd.concat([reading.refused, pd.DataFrame(rows, columns=["path", "reason"])], ignore_index=True)
    return replace(reading, refused=refused)
