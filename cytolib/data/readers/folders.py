"""Your own images: a folder of class folders, or a CSV file that names images and labels."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from cytolib.data.readers.common import Entry, Reading, entries_by_folder, read_entries
from cytolib.data.readers.tables import LEFT_OUT, MAX_COLUMNS, check_csv, listed, mask_fault
from cytolib.data.taxonomy import CELL_TYPES
from cytolib.text import shown, unfit

#: Names that people give to the same cells. Compared in lower case, blanks and hyphens as underscores.
SYNONYMS: Mapping[str, str] = {name: name for name in CELL_TYPES} | {
    "ig": "immature_granulocyte",
    "band": "neutrophil_band",
    "band_neutrophil": "neutrophil_band",
    "segmented_neutrophil": "neutrophil_segmented",
    "erythroid": "erythroblast",
    "normoblast": "erythroblast",
    "thrombocyte": "platelet",
    "smudge": "smudge_cell",
    "artifact": "artefact",
}


def plain(name: str) -> str:
    """``Immature granulocytes`` -> ``immature_granulocyte``: lower case, underscores, singular where that is known."""
    word = name.strip().lower().replace(" ", "_").replace("-", "_")
    return word.removesuffix("s") if word not in SYNONYMS and word.removesuffix("s") in SYNONYMS else word


def read_image_folder(
    root: str | Path,
    folder: str,
    *,
    dataset: str,
    domain: str = "",
    um_per_px: float | None = None,
    progress: bool = True,
) -> Reading:
    """Any folder of class folders whose names are harmonised cell types or their usual synonyms; images at any depth.

    Args:
        root: the image root.
        folder: the data set's folder in it.
        dataset: name of the data set.
        domain: of all images; default: the data set's name.
        um_per_px: micrometres a pixel, where you know them.
        progress: show a progress bar.

    Raises:
        FileNotFoundError, ValueError: for a missing or empty folder, or a class that nobody knows.
    """
    root = Path(root)
    entries, others = entries_by_folder(root / folder, ())
    names = {entry.source_label: SYNONYMS.get(plain(entry.source_label)) for entry in entries}
    return read_entries(
        root,
        entries,
        dataset=dataset,
        label_map={name: cell_type for name, cell_type in names.items() if cell_type},
        domain=domain or dataset,
        um_per_px=(lambda entry, facts: um_per_px) if um_per_px else None,
        not_images=others,
        progress=progress,
    )


CSV_COLUMNS = ("path", "label")
CSV_OPTIONAL = ("domain", "group", "um_per_px", "mask")


def read_csv_file(root: str | Path, file: str, *, dataset: str, progress: bool = True) -> Reading:
    """Any CSV file that names images.

    Its columns: ``path``, ``label``; if you like, ``domain``, ``group``, ``um_per_px``, ``mask``. Paths are relative to
    the folder that the CSV file lies in. Images that are not there are refused by name; so is a mask that is missing,
    broken or of another size, and its cell is kept without one.

    Args:
        root: the image root.
        file: the CSV file, relative to it.
        dataset: name of the data set, and the domain of images that name none.
        progress: show a progress bar.

    Raises:
        FileNotFoundError, ValueError: for a missing file, missing columns, an empty or unknown label, a path that
            leaves the folder, an image named twice, or a scale that is not a positive number.
    """
    root, path = Path(root), Path(root) / file
    table = _read_table(path)
    entries: list[Entry] = []
    left_out: list[LEFT_OUT] = []
    for line, record in table:
        where = f"{path}, line {line}"
        if not record["path"] or not record["label"]:
            raise ValueError(
                f"{where}: path is {shown(record['path'])} and label is {shown(record['label'])}; fill in both"
            )
        for name in ("path", "mask"):
            if PurePosixPath(record.get(name, "")).is_absolute() or ".." in PurePosixPath(record.get(name, "")).parts:
                raise ValueError(
                    f"{where}: {name} {shown(record[name])} leaves the folder of the CSV file; put images below it"
                )
        if plain(record["label"]) not in SYNONYMS:
            raise ValueError(
                f"{where}: label {shown(record['label'])} is no cell type; expected one of {', '.join(CELL_TYPES)}"
            )
        image = path.parent / record["path"]
        mask = path.parent / record["mask"] if record.get("mask") else None
        if mask and image.is_file() and (reason := mask_fault(image, mask)):
            left_out.append((mask, reason))
            mask = None
        entries.append(
            Entry(
                image,
                record["label"],
                group=record.get("group") or None,
                mask=mask,
                domain=record.get("domain") or dataset,
                um_per_px=_scale(record.get("um_per_px", ""), where),
            )
        )
    reading = read_entries(
        root,
        entries,
        dataset=dataset,
        label_map={entry.source_label: SYNONYMS[plain(entry.source_label)] for entry in entries},
        domain=dataset,
        progress=progress,
    )
    return listed(reading, root, left_out)


def csv_files(root: Path, file: str) -> list[Path]:
    """The CSV file, and the images and masks that it names; what leaves its folder is for ``read_csv_file`` to refuse.

    Raises:
        FileNotFoundError, ValueError: for a missing or unreadable file, or missing columns.
    """
    path = root / file
    table = _read_table(path)
    names = [PurePosixPath(record.get(column) or ".") for column in ("path", "mask") for _, record in table]
    inside = (name for name in names if name.name and not name.is_absolute() and ".." not in name.parts)
    return [path, *(path.parent / name for name in inside)]


def _read_table(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Rows as (line, value of each column that is known), blanks around values left as they are."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; put it in the data root or set CYTOLIB_DATA to the folder above it"
        )
    check_csv(path)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            places = _places(header, path)
            rows = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a readable CSV file ({error}); save it as UTF-8 with commas") from error
    if not rows:
        raise ValueError(f"{path}: it has no rows; expected path and label")
    table, seen = [], dict[str, int]()
    for line, row in rows:
        if len(row) != len(header):
            raise ValueError(f"{path}, line {line}: {len(row)} values; expected {len(header)}, one a column")
        record = {name: row[place] for name, place in places.items()}
        for name, value in record.items():
            if unfit(value):
                raise ValueError(f"{path}, line {line}: {name} {shown(value)} {unfit(value)}; rename it")
        if record["path"] and record["path"] in seen:
            raise ValueError(f"{path}, line {line}: {record['path'][:80]} stands twice; keep one")
        seen[record["path"]] = line
        table.append((line, record))
    return table


def _places(header: list[str], path: Path) -> dict[str, int]:
    """Where the columns that are known stand; others are passed over."""
    if not header:
        raise ValueError(f"{path}: not a readable CSV file (its first line is empty); name the columns there")
    if len(header) > MAX_COLUMNS:
        raise ValueError(
            f"{path}: {len(header):,} columns; expected at most {MAX_COLUMNS:,}, among them path and label"
        )
    known = (*CSV_COLUMNS, *CSV_OPTIONAL)
    twice = [name for name in known if header.count(name) > 1]
    if twice:
        raise ValueError(f"{path}: the column {twice[0]!r} stands twice; keep one")
    missing = [name for name in CSV_COLUMNS if name not in header]
    if missing:
        raise ValueError(f"{path}: columns {missing} are missing; expected path and label")
    return {name: header.index(name) for name in known if name in header}


def _scale(text: str, where: str) -> float | None:
    if text == "":
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value < float("inf"):
        raise ValueError(f"{where}: um_per_px is {shown(text)}; expected micrometres a pixel, above 0, or nothing")
    return value
