"""Phantoms: procedurally drawn Romanowsky-stained white cells with true masks and factors, from a seed alone.

They stand in for real cells wherever there are none: default data of the notebooks, tests, continuous integration.
"""

from cytolib.data.phantoms.cell import PhantomCell, draw_cell
from cytolib.data.phantoms.dataset import N_HELD_OUT, plan, write_phantoms
from cytolib.data.phantoms.vocabulary import (
    CLASS_WEIGHTS,
    CLASSES,
    DOMAIN_WEIGHTS,
    DOMAINS,
    FIELD_OF_VIEW_UM,
    HELD_OUT,
)

__all__ = [
    "CLASSES",
    "CLASS_WEIGHTS",
    "DOMAINS",
    "DOMAIN_WEIGHTS",
    "FIELD_OF_VIEW_UM",
    "HELD_OUT",
    "N_HELD_OUT",
    "PhantomCell",
    "draw_cell",
    "plan",
    "write_phantoms",
]
