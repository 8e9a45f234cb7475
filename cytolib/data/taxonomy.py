"""The harmonised cell types, the label sets made of them, and the order of maturity.

Three words for one cell: ``source_label`` is what the data set says, ``cell_type`` the finest harmonised name for it,
and ``label`` the class that it falls into in the label set of a run. A source label that no map names is an error,
never a silent new class; a cell type that a label set does not name is left out of that run, and counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

#: Lines of maturation, youngest first: the order in which a healthy marrow makes them.
MATURITY: Mapping[str, tuple[str, ...]] = {
    "myeloid": (
        "myeloblast",
        "promyelocyte",
        "myelocyte",
        "metamyelocyte",
        "neutrophil_band",
        "neutrophil_segmented",
    ),
    "erythroid": (
        "proerythroblast",
        "basophilic_erythroblast",
        "polychromatic_erythroblast",
        "orthochromatic_erythroblast",
    ),
}

#: Every harmonised name. A coarse one (``neutrophil``) is for sets that say no more.
CELL_TYPES: tuple[str, ...] = (
    *MATURITY["myeloid"],
    "neutrophil",
    "immature_granulocyte",
    "eosinophil",
    "basophil",
    "monocyte",
    "lymphocyte",
    *MATURITY["erythroid"],
    "erythroblast",
    "platelet",
    "blast",
    "monoblast",
    "lymphoblast",
    "promyelocyte_atypical",
    "promyelocyte_bilobed",
    "faggot_cell",
    "eosinophil_abnormal",
    "lymphocyte_atypical",
    "lymphocyte_immature",
    "lymphocyte_large_granular",
    "lymphocyte_neoplastic",
    "lymphocyte_reactive",
    "hairy_cell",
    "plasma_cell",
    "smudge_cell",
    "artefact",
    "other",
    "not_identifiable",
)

#: The eight classes of PBC and BloodMNIST, and the abnormal one that is kept from every model.
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

_NEUTROPHILS = dict.fromkeys(("neutrophil", "neutrophil_band", "neutrophil_segmented"), "neutrophil")
_ERYTHROBLASTS = dict.fromkeys(("erythroblast", *MATURITY["erythroid"]), "erythroblast")
_IMMATURE = dict.fromkeys(
    ("immature_granulocyte", "promyelocyte", "myelocyte", "metamyelocyte"), "immature_granulocyte"
)
_BLASTS = dict.fromkeys(("blast", "myeloblast", "monoblast", "lymphoblast"), "blast")
_FIVE = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")
_ELEVEN = (*MATURITY["myeloid"], "eosinophil", "basophil", "monocyte", "lymphocyte", "erythroblast")


def _same(names: Iterable[str]) -> dict[str, str]:
    return {name: name for name in names}


@dataclass(frozen=True)
class LabelSet:
    """Which classes a run tells apart.

    Attributes:
        name: what notebook 00's parameter ``label_set`` calls it.
        of: cell type to class; a cell type that is not in it is left out.
        held_out: classes that no model may train on: they stand for what a laboratory meets unprepared.
    """

    name: str
    of: Mapping[str, str] = field(repr=False)
    held_out: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Its classes, in the taxonomy's order, held-out ones too."""
        return tuple(in_order(self.of.values()))


LABEL_SETS: Mapping[str, LabelSet] = {
    label_set.name: label_set
    for label_set in (
        LabelSet("eight", _same(CLASSES) | _NEUTROPHILS | _IMMATURE | _ERYTHROBLASTS | _BLASTS, held_out=("blast",)),
        # The eleven classes of the harmonised MLL23, Matek-19 and Acevedo sets (marrlab/MLL23, 2025).
        LabelSet("eleven", _same(_ELEVEN) | _ERYTHROBLASTS),
        # What every blood set has: for Raabin, LISC, Zheng, Chula and BCCD.
        LabelSet("five", _same(_FIVE) | _NEUTROPHILS),
        LabelSet("fine", _same(CELL_TYPES)),
    )
}


def label_set(name: str) -> LabelSet:
    """The label set called ``name``.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in LABEL_SETS:
        raise ValueError(f"label_set is {name!r}; expected one of {', '.join(LABEL_SETS)}")
    return LABEL_SETS[name]


def in_order(labels: Iterable[str]) -> list[str]:
    """The labels that occur, each once: in the order of ``CLASSES`` if these suffice, else of ``CELL_TYPES``."""
    present = set(labels)
    return [name for name in (CLASSES if present <= set(CLASSES) else CELL_TYPES) if name in present]


def stage_of(cell_types: Iterable[str], line: str) -> list[int | None]:
    """Place of each cell type along a line of ``MATURITY``, 0 the youngest; None for cells of other lines.

    Raises:
        ValueError: for an unknown line.
    """
    if line not in MATURITY:
        raise ValueError(f"line is {line!r}; expected one of {', '.join(MATURITY)}")
    place = {name: k for k, name in enumerate(MATURITY[line])}
    return [place.get(name) for name in cell_types]


def harmonise(source_label: str, label_map: Mapping[str, str], where: str) -> str:
    """The cell type of ``source_label``.

    Raises:
        ValueError: for a label that ``label_map`` lacks or maps outside ``CELL_TYPES``; ``where`` says what holds it.
    """
    cell_type = label_map.get(source_label)
    if cell_type is None:
        raise ValueError(
            f"{where}: label {source_label!r} is not in the label map ({', '.join(sorted(label_map))}); "
            "add it to the map or leave these cells out"
        )
    if cell_type not in CELL_TYPES:
        raise ValueError(
            f"{where}: label {source_label!r} maps to {cell_type!r}, which is no harmonised cell type; "
            f"expected one of {', '.join(CELL_TYPES)}"
        )
    return cell_type
