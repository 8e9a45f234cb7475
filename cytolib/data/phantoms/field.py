"""Whole fields of a smear, with the truth about every object: a box, a mask, a class, and a detector's score.

A few white cells and artefacts among many red cells, as a scanner's overview or a 40x objective shows them. What a
pipeline does before it classifies (detect, gate, crop) can be tried on them against known answers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import ndimage

from cytolib.data.phantoms.artefacts import Artefact
from cytolib.data.phantoms.detector import detector_scores
from cytolib.data.phantoms.draw import Canvas, cell_reach, paint_cell_within
from cytolib.data.phantoms.field_optics import MARGIN_UM, FocalPlane, expose_field, random_focal_plane
from cytolib.data.phantoms.layout import Item, place, place_red_cells, random_items
from cytolib.data.phantoms.optics import SITES, Conditions, random_exposure, set_conditions
from cytolib.data.phantoms.surroundings import paint_red_cells, random_smear
from cytolib.data.phantoms.vocabulary import DOMAINS, check_count, check_domain
from cytolib.data.stain import estimate_background

MIN_OBJECTS, MAX_OBJECTS = 20, 60  # where the number is left to chance
UM_PER_PX = 0.30  # at a site of scale 1
_FIELD = 2000  # keeps the streams of fields apart from those of single cells


@dataclass
class PhantomField:
    """A drawn field: image (H, W, 3) uint8 RGB, one row an object, instances (H, W) uint16 (object_id, 0 elsewhere).

    objects: object_id (1, 2, ...), kind (cell, smudge, clot, debris), label (class of a cell, else ""), subtype,
    cluster (0, or the number of the doublet that two cells share), x0, y0, x1, y1 (pixels, tight, x1 and y1 outside),
    um_per_px, truncated (touches the border), focus_blur_um, score (of a simulated detector: detector_scores).
    red_cells: (n, 3) x, y, radius in pixels, roughly.
    """

    image: np.ndarray
    objects: pd.DataFrame
    instances: np.ndarray
    red_cells: np.ndarray
    um_per_px: float
    domain: str


def field(
    domain: str,
    seed: int,
    n_objects: int | None = None,
    size: tuple[int, int] = (768, 1024),
    held_out_share: float = 0.05,
    um_per_px: float | None = None,
    conditions: Conditions | None = None,
) -> PhantomField:
    """Draw one field, a pure function of the arguments.

    n_objects: objects in it; None draws 20 to 60. size: height and width, 256 to 4096 pixels. held_out_share: of the
    cells that are blasts; the others come by CLASS_WEIGHTS. um_per_px: None is 0.3 at a site of scale 1.
    conditions: what of stain and focus to set; a defocus that is set holds for the whole field, else the focal plane
    is tilted a little. Raises ValueError or TypeError for bad arguments, or more objects than find room.
    """
    check_domain(domain)
    check_count("seed", seed)
    if n_objects is not None:
        check_count("n_objects", n_objects)
    height, width = _checked_size(size)
    if not 0 <= held_out_share <= 1:
        raise ValueError(f"held_out_share is {held_out_share}, expected a share from 0 to 1; pass for example 0.05")
    if um_per_px is None:
        um_per_px = UM_PER_PX * SITES[domain].scale
    if not 0.15 <= um_per_px <= 1:
        raise ValueError(f"um_per_px is {um_per_px}, expected 0.15 to 1 micrometres a pixel; pass for example 0.3")

    layout_rng, pixel_rng = (np.random.default_rng([seed, _FIELD, part]) for part in (1, 2))
    optics_rng = np.random.default_rng([seed, _FIELD, 3, DOMAINS.index(domain)])
    drawn = int(layout_rng.integers(MIN_OBJECTS, MAX_OBJECTS + 1))
    items = random_items(drawn if n_objects is None else n_objects, held_out_share, layout_rng)
    half_um = (width * um_per_px / 2, height * um_per_px / 2)
    place(items, half_um, layout_rng)
    smear = random_smear(layout_rng)
    centres = place_red_cells(smear, items, half_um, layout_rng)

    conditions = conditions or Conditions()
    site, shot = set_conditions(SITES[domain], random_exposure(SITES[domain], optics_rng), conditions)
    plane = (
        random_focal_plane(half_um, optics_rng) if conditions.defocus_um is None else FocalPlane(conditions.defocus_um)
    )
    margin = math.ceil(MARGIN_UM / um_per_px)
    canvas = Canvas.empty(max(height, width) + 2 * margin, um_per_px)
    paint_red_cells(canvas, smear, centres, layout_rng)
    everywhere = _paint(canvas, items, pixel_rng)
    top, left = ((canvas.stains.shape[1] - side) // 2 for side in (height, width))
    instances = everywhere[top : top + height, left : left + width].copy()
    stains = canvas.stains[:, top - margin : top + height + margin, left - margin : left + width + margin]
    image = expose_field(stains, margin, um_per_px, half_um, plane, site, shot, optics_rng)

    objects = _table(items, instances, um_per_px, plane, site.blur_um)
    objects["score"] = detector_scores(objects, np.random.default_rng([seed, _FIELD, 4]))
    pixels = centres / um_per_px + canvas.middle - (left, top)
    red_cells = np.column_stack([pixels, np.full(len(pixels), smear.radius_um / um_per_px)])
    return PhantomField(image, objects, instances, red_cells, float(um_per_px), domain)


def crop_objects(drawn: PhantomField, size_um: float, boxes: pd.DataFrame | None = None) -> np.ndarray:
    """Square crops (n, S, S, 3) uint8 of `size_um` micrometres around the middles of boxes, S = size_um / um_per_px.

    boxes: any table with x0, y0, x1, y1 in pixels, such as `detections`; None takes the field's objects. What lies
    outside the field has the colour of its empty glass. Raises ValueError for a size under 2 pixels or over the field.
    """
    boxes = drawn.objects if boxes is None else boxes
    widest = max(drawn.image.shape) * drawn.um_per_px
    if not 2 * drawn.um_per_px <= size_um <= widest:
        raise ValueError(
            f"size_um is {size_um}, expected {2 * drawn.um_per_px:.3g} (two pixels) to {widest:.4g} (the field) "
            "micrometres; pass for example 36.0"
        )
    side = round(size_um / drawn.um_per_px)
    pad = side
    glass = np.rint(estimate_background(drawn.image)).astype(np.uint8)
    height, width = drawn.image.shape[:2]
    padded = np.empty((height + 2 * pad, width + 2 * pad, 3), np.uint8)
    padded[:] = glass
    padded[pad:-pad, pad:-pad] = drawn.image
    x = np.rint((boxes["x0"] + boxes["x1"]).to_numpy(float) / 2 - side / 2).astype(int) + pad
    y = np.rint((boxes["y0"] + boxes["y1"]).to_numpy(float) / 2 - side / 2).astype(int) + pad
    crops = [padded[b : b + side, a : a + side] for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    return np.stack(crops) if crops else np.zeros((0, side, side, 3), np.uint8)


def _paint(canvas: Canvas, items: list[Item], rng: np.random.Generator) -> np.ndarray:
    """Paint all objects; returns the instances (side, side) of the whole canvas, the later object on top."""
    instances = np.zeros(canvas.stains.shape[1:], np.uint16)
    for number, item in enumerate(items, start=1):
        if isinstance(item.what, Artefact):
            window, mask = item.what.paint(canvas, item.x, item.y, rng)
        else:
            window, mask, _ = paint_cell_within(canvas, item.what, item.x, item.y, rng, cell_reach(item.what))
        target = instances[window]
        target[mask] = number
    return instances


def _table(
    items: list[Item], instances: np.ndarray, um_per_px: float, plane: FocalPlane, site_blur_um: float
) -> pd.DataFrame:
    """One row an object; boxes are those of the visible masks."""
    height, width = instances.shape
    rows = []
    found = ndimage.find_objects(instances, max_label=len(items))
    for number, (item, part) in enumerate(zip(items, found, strict=True), start=1):
        if part is None:
            raise RuntimeError(f"object {number} ({item.kind}) of the field has no pixel in it; please report the seed")
        y, x = part
        rows.append(
            {
                "object_id": number,
                "kind": item.kind,
                "label": item.label,
                "subtype": item.what.subtype,
                "cluster": item.cluster,
                "x0": x.start,
                "y0": y.start,
                "x1": x.stop,
                "y1": y.stop,
                "um_per_px": um_per_px,
                "truncated": x.start == 0 or y.start == 0 or x.stop == width or y.stop == height,
                "focus_blur_um": site_blur_um + float(plane.defocus_um(np.array(item.x), np.array(item.y))),
            }
        )
    return pd.DataFrame(rows, columns=_COLUMNS)


_COLUMNS = ["object_id", "kind", "label", "subtype", "cluster", "x0", "y0", "x1", "y1"]
_COLUMNS += ["um_per_px", "truncated", "focus_blur_um"]


def _checked_size(size: tuple[int, int]) -> tuple[int, int]:
    if len(tuple(size)) != 2 or not all(hasattr(side, "__index__") for side in size):
        raise TypeError(f"size is {size!r}, expected height and width in whole pixels; pass for example (768, 1024)")
    if not all(256 <= side <= 4096 for side in size):
        raise ValueError(
            f"size is {tuple(size)}, expected height and width of 256 to 4096; pass for example (768, 1024)"
        )
    return int(size[0]), int(size[1])
