"""Phantoms: procedurally drawn Romanowsky-stained white cells with true masks and factors, from a seed alone.

They stand in for real cells wherever there are none: default data of the notebooks, tests, continuous integration.
`draw_cell` draws one cell, `morph` one between two classes with its exact posterior, `field` a whole field of a smear.
"""

from cytolib.data.phantoms.cell import PhantomCell, draw_cell
from cytolib.data.phantoms.dataset import N_HELD_OUT, plan, write_ambiguous, write_phantoms
from cytolib.data.phantoms.detector import detections
from cytolib.data.phantoms.field import PhantomField, crop_objects, field
from cytolib.data.phantoms.morph import (
    AMBIGUOUS_PAIRS,
    OVERLAP,
    bayes_accuracy,
    draw_ambiguous,
    morph,
    morph_path,
    morph_posterior,
)
from cytolib.data.phantoms.optics import Conditions
from cytolib.data.phantoms.vocabulary import (
    CLASS_WEIGHTS,
    CLASSES,
    DOMAIN_WEIGHTS,
    DOMAINS,
    FIELD_OF_VIEW_UM,
    HELD_OUT,
)

__all__ = [
    "AMBIGUOUS_PAIRS",
    "CLASSES",
    "CLASS_WEIGHTS",
    "DOMAINS",
    "DOMAIN_WEIGHTS",
    "FIELD_OF_VIEW_UM",
    "HELD_OUT",
    "N_HELD_OUT",
    "OVERLAP",
    "Conditions",
    "PhantomCell",
    "PhantomField",
    "bayes_accuracy",
    "crop_objects",
    "detections",
    "draw_ambiguous",
    "draw_cell",
    "field",
    "morph",
    "morph_path",
    "morph_posterior",
    "plan",
    "write_ambiguous",
    "write_phantoms",
]
