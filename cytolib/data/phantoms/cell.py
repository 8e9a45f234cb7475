"""One phantom: a labelled image with its true masks and the numbers that made it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cytolib.data.phantoms.anatomy import around, unit
from cytolib.data.phantoms.classes import random_anatomy
from cytolib.data.phantoms.draw import Canvas, paint_cell
from cytolib.data.phantoms.optics import SITES, expose, kernel, random_exposure
from cytolib.data.phantoms.surroundings import (
    paint_platelets,
    paint_red_cells,
    place_red_cells,
    random_smear,
)
from cytolib.data.phantoms.vocabulary import (
    CLASSES,
    DOMAINS,
    FIELD_OF_VIEW_UM,
    HELD_OUT,
    check_count,
    check_domain,
    check_label,
    check_size,
)

NEIGHBOUR_CHANCE = 0.05  # of a second white cell in the field, which belongs to no mask


@dataclass
class PhantomCell:
    """A drawn cell of side S: image (S, S, 3) uint8 RGB, true masks (S, S) bool, and the factors behind it.

    `cytoplasm` is the cell without its nucleus; a platelet has an empty nucleus. Lengths in `factors` are micrometres.
    """

    image: np.ndarray
    nucleus: np.ndarray
    cytoplasm: np.ndarray
    factors: dict[str, float | int | str]


def draw_cell(label: str, domain: str, seed: int, size: int = 96) -> PhantomCell:
    """Draw one stained white cell with its surroundings, a pure function of the arguments.

    label: one of CLASSES or HELD_OUT. domain: one of DOMAINS. seed: 0 or more. size: 64 to 256 pixels.
    The same label and seed at another domain is the same cell, stained and scanned elsewhere.
    Raises ValueError or TypeError for anything else.
    """
    check_label(label)
    check_domain(domain)
    check_count("seed", seed)
    check_size(size)
    # Anatomy, pixels and optics draw from generators of their own, so that neither size nor site changes the cell.
    number = (*CLASSES, HELD_OUT).index(label)
    shape_rng = np.random.default_rng([seed, number, 1])
    pixel_rng = np.random.default_rng([seed, number, 2])
    optics_rng = np.random.default_rng([seed, number, 3, DOMAINS.index(domain)])

    site = SITES[domain]
    cell = random_anatomy(label, shape_rng)
    smear = random_smear(shape_rng)
    x0, y0 = (around(shape_rng, 0, 0.5, -1.5, 1.5) for _ in range(2))
    um_per_px = FIELD_OF_VIEW_UM * site.scale / size
    shot = random_exposure(site, optics_rng)
    taps = kernel(shot.focus_blur_um / um_per_px, site.sharpen)
    margin = len(taps) - 1
    canvas = Canvas.empty(size + 2 * margin, um_per_px)
    half = FIELD_OF_VIEW_UM * 1.07 / 2
    keep_out = float(np.median(cell.outline))
    centres = place_red_cells(smear, half, keep_out, shape_rng)
    paint_red_cells(canvas, smear, centres, shape_rng)
    n_platelets = paint_platelets(canvas, half, keep_out, pixel_rng)
    neighbour = ""
    if shape_rng.random() < NEIGHBOUR_CHANCE:
        neighbour = CLASSES[int(shape_rng.integers(len(CLASSES) - 1))]
        other = random_anatomy(neighbour, shape_rng)
        far = (keep_out + float(np.median(other.outline)) + shape_rng.uniform(0.5, 5)) * unit(
            shape_rng.uniform(0, 2 * np.pi)
        )
        paint_cell(canvas, other, float(far[0]), float(far[1]), pixel_rng)
    body, nucleus = paint_cell(canvas, cell, x0, y0, pixel_rng)

    image = expose(canvas.stains, taps, site, shot, optics_rng)
    frame = slice(margin, margin + size)
    inside, nucleus_mask = body[frame, frame], nucleus[frame, frame].copy()
    area_um2 = float(inside.sum()) * um_per_px**2
    factors: dict[str, float | int | str] = {
        "label": label,
        "domain": domain,
        "cell_seed": int(seed),
        "subtype": cell.subtype,
        "um_per_px": um_per_px,
        "cell_diameter_um": 2 * float(np.sqrt(area_um2 / np.pi)),
        "nucleus_area_fraction": float(nucleus_mask.sum()) / max(int(inside.sum()), 1),
        "lobes": cell.lobes,
        "nuclear_stain": cell.nuclear_stain,
        "chromatin_coarseness": cell.chromatin_coarseness,
        "chromatin_wavelength_um": cell.chromatin_wavelength_um,
        "nucleoli": len(cell.nucleoli),
        "granule_density": cell.granules[0].density if cell.granules else 0.0,
        "granule_eosin_share": _eosin_share(cell.granules[0].stain) if cell.granules else 0.0,
        "cytoplasm_azure": cell.cytoplasm_stain[1],
        "cytoplasm_eosin": cell.cytoplasm_stain[2],
        "vacuoles": len(cell.vacuoles),
        "red_cells": len(centres),
        "red_cell_pallor": smear.pallor,
        "stray_platelets": n_platelets,
        "neighbour": neighbour,
        "stain_strength": shot.stain_strength,
        "eosin_balance": shot.eosin_balance,
        "focus_blur_um": shot.focus_blur_um,
    }
    return PhantomCell(image=image, nucleus=nucleus_mask, cytoplasm=inside & ~nucleus_mask, factors=factors)


def _eosin_share(stain: tuple[float, float, float, float]) -> float:
    """Hue of granules: 0 violet (azure-eosin complex), 1 salmon (eosin)."""
    return stain[2] / max(stain[0] + stain[1] + stain[2], 1e-9)
