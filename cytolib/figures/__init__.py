"""One style, one colour per class and per domain, one function a figure: tables in, figure out. Imports no torch."""

from cytolib.data.taxonomy import in_order
from cytolib.figures.cells import cell_rows, contact_sheet, read_images
from cytolib.figures.charts import (
    class_counts,
    confusion,
    embedding_map,
    feature_boxes,
    forest,
    map_images,
    recall_heatmap,
    spread,
)
from cytolib.figures.diffusion import (
    denoising_error,
    denoising_path,
    fidelity,
    marginals,
    noise_levels,
    noising,
    side_by_side,
    training_curves,
    two_clouds,
)
from cytolib.figures.generation import (
    attribute_agreement,
    class_curves,
    guidance,
    membership,
    out_of_noise,
    real_synthetic_nearest,
)
from cytolib.figures.protocol import protocol_curves
from cytolib.figures.style import class_colour, domain_colours, readable, short, style
from cytolib.figures.tour import along_maturity, ambiguous_path, field_boxes, outlined_cells, what_vectors_know

__all__ = [
    "along_maturity",
    "ambiguous_path",
    "attribute_agreement",
    "cell_rows",
    "class_colour",
    "class_counts",
    "class_curves",
    "confusion",
    "contact_sheet",
    "denoising_error",
    "denoising_path",
    "domain_colours",
    "embedding_map",
    "feature_boxes",
    "fidelity",
    "field_boxes",
    "forest",
    "guidance",
    "in_order",
    "map_images",
    "marginals",
    "membership",
    "noise_levels",
    "noising",
    "out_of_noise",
    "outlined_cells",
    "protocol_curves",
    "read_images",
    "readable",
    "real_synthetic_nearest",
    "recall_heatmap",
    "short",
    "side_by_side",
    "spread",
    "style",
    "training_curves",
    "two_clouds",
    "what_vectors_know",
]
