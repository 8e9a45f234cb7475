"""One phantom: a labelled image with its true masks and the numbers that made it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cytolib.data.phantoms.anatomy import Anatomy, around, unit
from cytolib.data.phantoms.classes import random_anatomy
from cytolib.data.phantoms.draw import Canvas, cell_reach, paint_cell, paint_cell_within
from cytolib.data.phantoms.optics import SITES, Conditions, expose, kernel, random_exposure, set_conditions
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

    `cytoplasm` is the cell without its nucleus; a platelet has an empty nucleus. `stains` (4, S, S) float32 are the
    true concentrations in the order of anatomy.STAINS, before the microscope. Lengths in `factors` are micrometres.
    """

    image: np.ndarray
    nucleus: np.ndarray
    cytoplasm: np.ndarray
    stains: np.ndarray
    factors: dict[str, float | int | str]


@dataclass
class Streams:
    """Generators of their own for anatomy, pixels and optics, so that neither size nor site changes the cell."""

    shape: np.random.Generator
    pixel: np.random.Generator
    optics: np.random.Generator

    @classmethod
    def of(cls, seed: int, number: int, domain: str) -> Streams:
        site = DOMAINS.index(domain)
        return cls(*(np.random.default_rng([seed, number, *more]) for more in ([1], [2], [3, site])))


def draw_cell(label: str, domain: str, seed: int, size: int = 96, conditions: Conditions | None = None) -> PhantomCell:
    """Draw one stained white cell with its surroundings, a pure function of the arguments.

    label: one of CLASSES or HELD_OUT. domain: one of DOMAINS. seed: 0 or more. size: 64 to 256 pixels.
    conditions: what of stain and focus to set instead of drawing it; nothing else in the picture changes with it.
    The same label and seed at another domain is the same cell, stained and scanned elsewhere.
    Raises ValueError or TypeError for anything else.
    """
    check_label(label)
    check_domain(domain)
    check_count("seed", seed)
    check_size(size)
    streams = Streams.of(seed, (*CLASSES, HELD_OUT).index(label), domain)
    cell = random_anatomy(label, streams.shape)
    names: dict[str, int | str] = {"label": label, "domain": domain, "cell_seed": int(seed)}
    return photograph(
        cell, names, size, streams, conditions or Conditions(), float(np.median(cell.outline)), cell_reach(cell)
    )


def photograph(
    cell: Anatomy,
    names: dict[str, int | str],
    size: int,
    streams: Streams,
    conditions: Conditions,
    keep_out_um: float,
    reach_um: float,
) -> PhantomCell:
    """One cell with its surroundings through the microscope of names["domain"].

    keep_out_um: radius that red cells are pushed out of. reach_um: half the side of the window that the cell is
    painted in. Cells of one path share both, so that nothing but the cell changes along it.
    """
    shape_rng, pixel_rng, optics_rng = streams.shape, streams.pixel, streams.optics
    site = SITES[str(names["domain"])]
    smear = random_smear(shape_rng)
    x0, y0 = (around(shape_rng, 0, 0.5, -1.5, 1.5) for _ in range(2))
    um_per_px = FIELD_OF_VIEW_UM * site.scale / size
    shot = random_exposure(site, optics_rng)
    margin = len(kernel(shot.focus_blur_um / um_per_px, site.sharpen)) - 1
    canvas = Canvas.empty(size + 2 * margin, um_per_px)
    half = FIELD_OF_VIEW_UM * 1.07 / 2
    centres = place_red_cells(smear, half, keep_out_um, shape_rng)
    paint_red_cells(canvas, smear, centres, shape_rng)
    n_platelets = paint_platelets(canvas, half, keep_out_um, pixel_rng)
    neighbour = ""
    if shape_rng.random() < NEIGHBOUR_CHANCE:
        neighbour = CLASSES[int(shape_rng.integers(len(CLASSES) - 1))]
        other = random_anatomy(neighbour, shape_rng)
        far = (keep_out_um + float(np.median(other.outline)) + shape_rng.uniform(0.5, 5)) * unit(
            shape_rng.uniform(0, 2 * np.pi)
        )
        paint_cell(canvas, other, float(far[0]), float(far[1]), pixel_rng)
    window, body, nucleus = paint_cell_within(canvas, cell, x0, y0, pixel_rng, reach_um)
    masks = np.zeros((2, *canvas.stains.shape[1:]), bool)
    masks[0, *window], masks[1, *window] = body, nucleus

    frame = slice(margin, margin + size)
    site, shot = set_conditions(site, shot, conditions)
    taps = kernel(shot.focus_blur_um / um_per_px, site.sharpen)
    image = expose(_with_margin(canvas.stains, margin, len(taps) - 1), taps, site, shot, optics_rng)
    inside, nucleus_mask = masks[0, frame, frame], masks[1, frame, frame].copy()
    area_um2 = float(inside.sum()) * um_per_px**2
    factors: dict[str, float | int | str] = {
        **names,
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
    return PhantomCell(
        image=image,
        nucleus=nucleus_mask,
        cytoplasm=inside & ~nucleus_mask,
        stains=canvas.stains[:, frame, frame].copy(),
        factors=factors,
    )


def _with_margin(stains: np.ndarray, margin: int, wanted: int) -> np.ndarray:
    """Stain maps with another margin: cut, or continued by their outermost pixels.

    Conditions act after painting, on a canvas that does not know them: else a wider margin would change the cells at
    its border.
    """
    if wanted <= margin:
        spare = margin - wanted
        return stains[:, spare : stains.shape[1] - spare, spare : stains.shape[2] - spare]
    return np.pad(stains, ((0, 0), *[(wanted - margin,) * 2] * 2), mode="edge")


def _eosin_share(stain: tuple[float, float, float, float]) -> float:
    """Hue of granules: 0 violet (azure-eosin complex), 1 salmon (eosin)."""
    return stain[2] / max(stain[0] + stain[1] + stain[2], 1e-9)
