"""The harmonised classes, and how each data set's own labels map to them.

A source label that no map names is an error, never a silent new class.
"""

from __future__ import annotations

from collections.abc import Mapping

CLASSES: tuple[str, ...] = (
    "neutrophil",
    "eosinophil",
    "basophil",
    "lymphocyte",
    "monocyte",
    "immature_granulocyte",
    "erythroblast",
    "platelet",
    "blast",
)

# PBC (Acevedo 2020): the subtype is the file name's prefix. Band and segmented neutrophils are one harmonised class;
# promyelocytes, myelocytes and metamyelocytes are immature granulocytes, as in the set's own eight classes.
PBC: Mapping[str, str] = {
    "NEUTROPHIL": "neutrophil",
    "BNE": "neutrophil",
    "SNE": "neutrophil",
    "EO": "eosinophil",
    "BA": "basophil",
    "LY": "lymphocyte",
    "MO": "monocyte",
    "IG": "immature_granulocyte",
    "PMY": "immature_granulocyte",
    "MY": "immature_granulocyte",
    "MMY": "immature_granulocyte",
    "ERB": "erythroblast",
    "PLATELET": "platelet",
}

# Folder names that people give to the same classes.
COMMON: Mapping[str, str] = {name: name for name in CLASSES} | {
    "ig": "immature_granulocyte",
    "immature granulocyte": "immature_granulocyte",
    "erythroid": "erythroblast",
    "thrombocyte": "platelet",
    "neutrophils": "neutrophil",
    "eosinophils": "eosinophil",
    "basophils": "basophil",
    "lymphocytes": "lymphocyte",
    "monocytes": "monocyte",
    "platelets": "platelet",
    "blasts": "blast",
}


def harmonise(source_label: str, label_map: Mapping[str, str], where: str) -> str:
    """The harmonised class of ``source_label``.

    Raises:
        ValueError: for a label that ``label_map`` lacks or maps outside ``CLASSES``; ``where`` says what holds it.
    """
    label = label_map.get(source_label)
    if label is None:
        raise ValueError(
            f"{where}: label {source_label!r} is not in the label map ({', '.join(sorted(label_map))}); "
            "add it to the map or leave these cells out"
        )
    if label not in CLASSES:
        raise ValueError(
            f"{where}: label {source_label!r} maps to {label!r}, which is no harmonised class ({', '.join(CLASSES)})"
        )
    return label
