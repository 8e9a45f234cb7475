"""The data sets this project knows: a card each, beside its reader."""

from __future__ import annotations

from functools import partial
from pathlib import Path, PurePosixPath
from types import ModuleType

from cytolib.data.cards import DataSet
from cytolib.data.readers import (
    bccd,
    bloodmnist,
    bmc,
    bodzas,
    choi,
    chula,
    cytodata,
    folders,
    lisc,
    matek,
    mll23,
    pbc,
    raabin,
    zheng,
)
from cytolib.data.readers.common import Reading
from cytolib.text import unfit

_READERS: tuple[ModuleType, ...] = (
    pbc,
    matek,
    mll23,
    bmc,
    raabin,
    bloodmnist,
    chula,
    zheng,
    choi,
    lisc,
    bodzas,
    cytodata,
    bccd,
)

DATA_SETS: dict[str, DataSet] = {card.name: card for module in _READERS for card in module.CARDS}


def data_set(name: str) -> DataSet:
    """The card of ``name``: of the registry, ``folder:<folder>`` or ``csv:<file>`` for your own images.

    Raises:
        ValueError: for a name that is not in the registry.
    """
    kind, _, where = name.partition(":")
    if kind in ("folder", "csv") and where:
        return _own(kind, where)
    if name not in DATA_SETS:
        known = ", ".join(["phantoms", *DATA_SETS])
        raise ValueError(
            f"dataset is {name!r}; expected {known}, folder:<name> for a folder of class folders, or csv:<file>"
        )
    return DATA_SETS[name]


def _own(kind: str, where: str) -> DataSet:
    place = PurePosixPath(where)
    if place.is_absolute() or ".." in place.parts or not place.name or unfit(where):
        raise ValueError(
            f"dataset is {kind + ':' + where!r}; expected a plain path inside the data root: set CYTOLIB_DATA (or "
            "--root) to the folder above it"
        )
    name = place.stem if kind == "csv" else place.name
    layout = f"{where} with columns path and label" if kind == "csv" else f"{where}/<class>/<image>"
    reader = folders.read_csv_file if kind == "csv" else folders.read_image_folder

    def read(root: Path, scratch: Path | None = None, *, progress: bool = True) -> Reading:
        return reader(root, where, dataset=name, progress=progress)

    files = partial(folders.csv_files, file=where) if kind == "csv" else None
    return DataSet(name, f"{kind} {where}", "yours", "yours", "yours", where, layout, 0, read, files=files)
