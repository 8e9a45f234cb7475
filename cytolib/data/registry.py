"""The data sets this project knows: what each is, where it comes from, how it is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cytolib.data import readers


@dataclass(frozen=True)
class DataSet:
    """A data set's card. ``n_cells`` is the published count; ``held_out_domains`` are never trained on."""

    name: str
    title: str
    source: str
    licence: str
    layout: str
    n_cells: int
    read: Callable[[Path], pd.DataFrame]
    held_out_domains: tuple[str, ...] = ()
    held_out_classes: tuple[str, ...] = ()


DATA_SETS: dict[str, DataSet] = {
    card.name: card
    for card in (
        DataSet(
            name="pbc",
            title="Peripheral blood cells, Hospital Clinic Barcelona (Acevedo 2020): healthy donors, CellaVision DM96",
            source="doi 10.17632/snkd93bnjr.1",
            licence="CC BY 4.0",
            layout=f"{readers.PBC_FOLDER}/<class>/<PREFIX_number>.jpg",
            n_cells=17_092,
            read=readers.read_pbc,
            held_out_domains=("pbc_lilac",),
        ),
    )
}


def data_set(name: str) -> DataSet:
    """The card of ``name``.

    Raises:
        ValueError: for a name that is not in the registry.
    """
    if name not in DATA_SETS:
        known = ", ".join(["phantoms", *DATA_SETS])
        raise ValueError(f"dataset is {name!r}; expected {known}, or folder:<name> for a folder of class folders")
    return DATA_SETS[name]


def load_cells(name: str, root: Path) -> tuple[pd.DataFrame, DataSet]:
    """Read the cells of data set ``name`` under ``root``; ``folder:<name>`` reads any folder of class folders.

    Returns:
        The cells, whose split is still empty, and the data set's card.
    """
    if name.startswith("folder:"):
        folder = name.removeprefix("folder:")

        def read(root: Path) -> pd.DataFrame:
            return readers.read_image_folder(root, folder, dataset=Path(folder).name)

        card = DataSet(Path(folder).name, f"folder {folder}", "yours", "yours", f"{folder}/<class>/<image>", 0, read)
    else:
        card = data_set(name)
    return card.read(root), card
