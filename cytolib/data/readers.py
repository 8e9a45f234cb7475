"""Readers: a published folder layout in, a table of cells without splits out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from cytolib.data.images import IMAGE_SUFFIXES, cell_id
from cytolib.data.taxonomy import COMMON, PBC, harmonise

PBC_FOLDER = "PBC_dataset_normal_DIB"
# The main imaging set-up's frame, as published and at half resolution; every other size is the lilac population.
PBC_MAIN_SIZES: frozenset[tuple[int, int]] = frozenset({(360, 363), (180, 181)})


def _class_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no such folder; put the images there or set CYTOLIB_DATA to the folder above it"
        )
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise ValueError(f"{folder}: no class folders in it; expected one folder a class with images inside")
    return classes


def read_class_folders(
    root: str | Path,
    folder: str,
    *,
    dataset: str,
    source_label: Callable[[Path], str],
    label_map: Mapping[str, str],
    domain: Callable[[Path], str],
    progress: bool = True,
) -> pd.DataFrame:
    """Read ``root/folder/<class>/<image>`` into a cell table whose ``split`` is still empty.

    Args:
        root: the image root; paths in the table are relative to it.
        folder: the data set's folder inside ``root``.
        source_label: the source's own label of an image, from its path.
        label_map: source label to harmonised class.
        domain: the site, scanner or stain of an image.

    Raises:
        FileNotFoundError, ValueError: for a missing or empty folder, or a label that the map lacks.
    """
    root = Path(root)
    paths = [
        path
        for class_folder in _class_folders(root / folder)
        for path in sorted(class_folder.iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
    if not paths:
        raise ValueError(f"{root / folder}: its class folders hold no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    rows = []
    for path in tqdm(paths, desc=f"reading {dataset}", unit="cell", disable=not progress):
        source = source_label(path)
        rows.append(
            {
                "cell_id": cell_id(path),
                "path": path.relative_to(root).as_posix(),
                "label": harmonise(source, label_map, str(path)),
                "source_label": source,
                "domain": domain(path),
                "dataset": dataset,
                "group": None,
                "split": "",
            }
        )
    return pd.DataFrame(rows)


def read_image_folder(
    root: str | Path, folder: str, *, dataset: str, domain: str = "", progress: bool = True
) -> pd.DataFrame:
    """Any folder of class folders whose names are harmonised classes or their common synonyms."""
    return read_class_folders(
        root,
        folder,
        dataset=dataset,
        source_label=lambda path: path.parent.name,
        label_map={**COMMON, **{name.replace("_", " "): label for name, label in COMMON.items()}},
        domain=lambda path: domain or dataset,
        progress=progress,
    )


def _pbc_domain(path: Path) -> str:
    """PBC hides two imaging set-ups; the frame size tells them apart exactly (background red minus blue 50, or 0)."""
    try:
        with Image.open(path) as image:
            return "pbc_main" if image.size in PBC_MAIN_SIZES else "pbc_lilac"
    except OSError as error:
        raise ValueError(f"{path}: not a readable image ({error}); download it again or take it out") from error


def read_pbc(root: str | Path, *, progress: bool = True) -> pd.DataFrame:
    """PBC (Acevedo et al., Data in Brief 2020): 8 classes, subtypes by file name prefix, two imaging domains.

    No patient ids are published, so ``group`` is null and cells of one donor may stand in several splits.
    """
    return read_class_folders(
        root,
        PBC_FOLDER,
        dataset="pbc",
        source_label=lambda path: path.stem.split("_")[0].upper(),
        label_map=PBC,
        domain=_pbc_domain,
        progress=progress,
    )
