"""LISC (Rezatofighi & Soltanian-Zadeh 2011): fields of 720 x 576 pixels with expert masks, cut into cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cytolib.data.cards import DataSet
from cytolib.data.images import load_image, load_mask
from cytolib.data.readers.common import (
    Entry,
    Reading,
    class_folders,
    entries_by_folder,
    find_folder,
    image_files,
    other_files,
    read_entries,
)
from cytolib.data.readers.crops import cut_square, need_scratch, write_png
from cytolib.data.readers.tables import LEFT_OUT, listed

FOLDERS = ("LISC Database", "LISC", "lisc_dataset")
FIELDS, MASKS = "Main Dataset", "Ground Truth Segmentation"
EXPERT = "areaforexpert1"

LABELS: Mapping[str, str] = {
    "baso": "basophil",
    "eosi": "eosinophil",
    "lymp": "lymphocyte",
    "mono": "monocyte",
    "neut": "neutrophil",
    "basophil": "basophil",
    "eosinophil": "eosinophil",
    "lymphocyte": "lymphocyte",
    "monocyte": "monocyte",
    "neutrophil": "neutrophil",
}
MIXED = "mixt"
SIDE = 224  # pixels; a cell of these fields is 100 to 160 wide
_SMALLEST = 500  # pixels; expert outlines have stray dots


def read(root: Path, scratch: Path | None = None, *, progress: bool = True) -> Reading:
    """Read fields with masks (``Main Dataset``), cutting a square per cell into ``scratch/lisc``; or, where the folder
    holds class folders without ``Main Dataset``, the cells of a copy that was cut before.

    Fields of folder ``mixt`` hold cells of several classes and are listed as refused. ``group`` is the field.
    """
    folder = find_folder(root, FOLDERS)
    folders = class_folders(folder)
    if not any(sub.name.lower() == FIELDS.lower() for sub in folders):
        entries, not_images = entries_by_folder(folder, LABELS)
        return read_entries(
            root,
            entries,
            dataset="lisc",
            label_map=LABELS,
            domain="lisc",
            not_images=not_images,
            progress=progress,
        )
    scratch = need_scratch(scratch, "lisc")
    left_out: list[LEFT_OUT] = []
    entries = []
    masks = find_folder(folder, (MASKS,))
    for sub in class_folders(find_folder(folder, (FIELDS,))):
        left_out += [(path, "not an image by its name") for path in other_files(sub)]
        if sub.name.lower() == MIXED:
            left_out += [(path, "cells of several classes in one field; none is named") for path in image_files(sub)]
            continue
        if sub.name.lower() not in LABELS:
            raise ValueError(f"{sub}: no class of LISC; expected {', '.join(list(LABELS)[:5])} or {MIXED}")
        outlines = find_folder(masks, (sub.name, EXPERT))
        for path in image_files(sub):
            cells = list(_cut(path, outlines / f"{path.stem}_expert.bmp", sub.name.lower(), scratch, left_out))
            entries += cells
    reading = read_entries(
        scratch,
        entries,
        dataset="lisc",
        label_map=LABELS,
        domain="lisc",
        image_root="stage",
        progress=progress,
    )
    return listed(reading, root, left_out)


def _cut(path: Path, outline: Path, label: str, scratch: Path, left_out: list[LEFT_OUT]) -> Iterator[Entry]:
    """The cells of one field; a field that cannot be used goes to ``left_out``."""
    try:
        field = np.asarray(load_image(path))
        mask = load_mask(outline)
        parts = cells_of(mask, field.shape[:2])
    except (ValueError, OSError) as error:
        reason = str(error) if isinstance(error, ValueError) else f"mask {outline.name}: {error.strerror}"
        left_out.append((path, reason.removeprefix(f"{path}: ").replace(str(outline), outline.name)))
        return
    # Two levels outline the cell alone: good for cutting, no mask of nucleus and cytoplasm.
    whole = bool((mask == 1).any() and (mask == 2).any())
    for number, own in enumerate(parts):
        rows, columns = np.nonzero(own)
        centre = ((rows.min() + rows.max() + 1) / 2, (columns.min() + columns.max() + 1) / 2)
        image = scratch / "lisc" / label / f"{path.stem}_{number}.png"
        write_png(cut_square(field, centre, SIDE), image)
        own_mask = None
        if whole:
            own_mask = scratch / "lisc" / "masks" / label / image.name
            write_png(cut_square(np.where(own, mask, 0).astype(np.uint8), centre, SIDE), own_mask)
        yield Entry(image, label, group=f"{label}/{path.stem}", mask=own_mask)


def cells_of(mask: NDArray[np.uint8], shape: tuple[int, ...]) -> list[NDArray[np.bool_]]:
    """One mask (H, W) a cell, in reading order; specks under ``_SMALLEST`` pixels are stray dots.

    Raises:
        ValueError: for a mask of another size than the field, that marks the field's edge all round, or no cell.
    """
    if mask.shape != shape:
        raise ValueError(f"mask of {mask.shape[1]} x {mask.shape[0]} pixels for a field of {shape[1]} x {shape[0]}")
    edge = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    if (edge > 0).mean() > 0.5:
        raise ValueError("its mask marks the edge of the field as cell; expected 0 outside cells")
    labels, count = ndimage.label(mask > 0)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    cells = [labels == place + 1 for place in range(count) if sizes[place] >= _SMALLEST]
    if not cells:
        raise ValueError(f"its mask has no cell of at least {_SMALLEST} pixels")
    return cells


CARDS = (
    DataSet(
        name="lisc",
        title="Peripheral blood, Imam Khomeini Hospital, Tehran: 8 healthy subjects, fields with expert masks",
        citation="Rezatofighi & Soltanian-Zadeh, Computerized Medical Imaging and Graphics 35:333-343 (2011)",
        source="https://vl4ai.erc.monash.edu/pages/LISC.html",
        licence="not found",
        folder=FOLDERS[0],
        aliases=FOLDERS[1:],
        layout=f"LISC Database/{FIELDS}/<class>/<n>.bmp, LISC Database/{MASKS}/<class>/{EXPERT}/<n>_expert.bmp",
        n_cells=0,
        scale="unknown: nothing published was found, and no copy was at hand to measure",
        read=read,
        label_set="five",
        steps=(
            "Download LISC Database.zip from https://vl4ai.erc.monash.edu/pages/LISC.html.",
            f"Unpack it in the data root, so that LISC Database/{FIELDS} lies there.",
        ),
        caveats=(
            f"cells are cut out of the fields: squares of {SIDE} px, which hold more than one cell where cells touch",
            "about a dozen fields hold several cells of one class; groups are fields, subjects are not named",
            "fields of the folder mixt, with cells of several classes, are left out",
            "published counts disagree: about 250 fields with masks, 400 photographs, 2,263 in a later list",
            "the layout was read in other people's programs, not checked on the files",
        ),
    ),
)
