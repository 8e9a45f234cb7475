"""The names phantoms are drawn under, and how often each occurs."""

from __future__ import annotations

from cytolib.data import taxonomy

HELD_OUT = "blast"
CLASSES: tuple[str, ...] = tuple(name for name in taxonomy.CLASSES if name != HELD_OUT)
DOMAINS: tuple[str, ...] = ("site_a", "site_b", "site_c")

#: Side of the square field around a cell, in micrometres, at a site of scale 1 (the field of the PBC images).
FIELD_OF_VIEW_UM = 36.0

#: Roughly a differential count with a long tail, and a big, a middling and a small laboratory.
CLASS_WEIGHTS: dict[str, float] = {
    "neutrophil": 0.42,
    "lymphocyte": 0.23,
    "monocyte": 0.09,
    "platelet": 0.08,
    "eosinophil": 0.06,
    "immature_granulocyte": 0.06,
    "erythroblast": 0.04,
    "basophil": 0.02,
}
DOMAIN_WEIGHTS: dict[str, float] = {"site_a": 0.55, "site_b": 0.30, "site_c": 0.15}

#: Finest harmonised names of the subtypes that have one; every other cell is called by its class.
_FINER: dict[tuple[str, str], str] = {
    ("neutrophil", "band"): "neutrophil_band",
    ("neutrophil", "segmented"): "neutrophil_segmented",
    ("immature_granulocyte", "promyelocyte"): "promyelocyte",
    ("immature_granulocyte", "myelocyte"): "myelocyte",
    ("immature_granulocyte", "metamyelocyte"): "metamyelocyte",
    ("erythroblast", "basophilic"): "basophilic_erythroblast",
    ("erythroblast", "polychromatic"): "polychromatic_erythroblast",
    ("erythroblast", "orthochromatic"): "orthochromatic_erythroblast",
}


def cell_type(label: str, subtype: str) -> str:
    """The finest harmonised name (one of taxonomy.CELL_TYPES) of a drawn cell."""
    return _FINER.get((label, subtype), label)


MIN_SIZE, MAX_SIZE = 64, 256


def check_label(label: str) -> None:
    """Refuse (ValueError) a class that phantoms are not drawn for."""
    if label not in (*CLASSES, HELD_OUT):
        raise ValueError(f"label {label!r} is no phantom class; use one of {', '.join((*CLASSES, HELD_OUT))}")


def check_domain(domain: str) -> None:
    """Refuse (ValueError) an unknown site."""
    if domain not in DOMAINS:
        raise ValueError(f"domain {domain!r} is no phantom site; use one of {', '.join(DOMAINS)}")


def check_size(size: int) -> None:
    """Refuse an image side that is no integer (TypeError) or lies outside 64..256 (ValueError)."""
    if isinstance(size, bool) or not hasattr(size, "__index__"):
        raise TypeError(f"size is {size!r}, expected an integer number of pixels; pass for example size=96")
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise ValueError(f"size is {size} pixels, expected {MIN_SIZE} to {MAX_SIZE}; pass for example size=96")


def check_count(name: str, count: int) -> None:
    """Refuse a number of cells or a seed that is no integer (TypeError) or is negative (ValueError)."""
    if isinstance(count, bool) or not hasattr(count, "__index__"):
        raise TypeError(f"{name} is {count!r}, expected an integer; pass 0 or more")
    if count < 0:
        raise ValueError(f"{name} is {count}, expected an integer of 0 or more; pass 0 or more")
