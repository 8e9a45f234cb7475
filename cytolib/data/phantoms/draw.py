"""Stain concentration maps of one cell on a canvas: cytoplasm, nucleus, granules, and the true masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from cytolib.data.phantoms.anatomy import Anatomy, Granules
from cytolib.data.phantoms.noise import crossfade, texture
from cytolib.data.phantoms.shapes import capsule_distance, cover, disc_distance, outline_distance

#: Cytoplasm that always remains around a nucleus, in micrometres: a lobe that would leave the cell pushes it out.
MARGIN_UM = 0.5


@dataclass
class Canvas:
    """Stain concentrations (4, side, side) of a square field around the origin, with a margin that is cut off later."""

    stains: np.ndarray
    um_per_px: float

    @classmethod
    def empty(cls, side: int, um_per_px: float) -> Canvas:
        return cls(np.zeros((4, side, side), np.float32), um_per_px)

    @property
    def middle(self) -> float:
        """Pixel index of the origin."""
        return (self.stains.shape[1] - 1) / 2

    def window(self, x: float, y: float, reach: float) -> tuple[slice, slice]:
        """Rows and columns within `reach` micrometres of a point, cut at the canvas border."""
        side = self.stains.shape[1]

        def part(c: float) -> slice:
            low, high = (round((c + step) / self.um_per_px + self.middle) for step in (-reach, reach))
            return slice(min(max(low, 0), side), max(min(high + 1, side), 0))

        return part(y), part(x)

    def axis(self, part: slice, origin: float) -> np.ndarray:
        """Coordinates in micrometres from `origin` of a window's pixels along one axis."""
        return ((np.arange(part.start, part.stop) - self.middle) * self.um_per_px - origin).astype(np.float32)


def granule_cover(rng: np.random.Generator, kind: Granules, shape: tuple[int, int], um_per_px: float) -> np.ndarray:
    """Cover (h, w) of granules, 0..1: the part of band-pass noise above the quantile that leaves `density`."""
    first, second = kind.wavelength_um / um_per_px, kind.next_wavelength_um / um_per_px
    noise = crossfade(rng, *shape, first, second, kind.next_share)
    share = noise * np.float32(1.5)
    share -= np.float32(1.5 * ndtri(1 - kind.density) - 0.5)
    return np.clip(share, 0, 1, out=share)


def paint_cell(
    canvas: Canvas, cell: Anatomy, x0: float, y0: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Put a cell at (x0, y0) micrometres, hiding what lies below it; returns the true masks of cell and nucleus.

    Both masks are (side, side) bool of the whole canvas, true where at least half a pixel is covered.
    """
    inside = np.zeros((2, *canvas.stains.shape[1:]), bool)
    window, body, nucleus = paint_cell_within(canvas, cell, x0, y0, rng, cell_reach(cell))
    inside[0, *window], inside[1, *window] = body, nucleus
    return inside[0], inside[1]


def cell_reach(cell: Anatomy) -> float:
    """Half the side, in micrometres, of a square that holds all of a cell."""
    nucleus = np.abs(cell.segments).sum(1).max() * 0.75 if len(cell.segments) else 0
    return float(max(cell.outline.max(), nucleus)) + 1


def paint_cell_within(
    canvas: Canvas, cell: Anatomy, x0: float, y0: float, rng: np.random.Generator, reach_um: float
) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
    """Paint a cell in the window of `reach_um` around it; returns (rows, columns), masks of cell and nucleus there.

    Textures are cut to the size of the window: the same reach, the same texture.
    """
    scale = canvas.um_per_px
    rows, columns = canvas.window(x0, y0, reach_um)
    x, y = canvas.axis(columns, x0), canvas.axis(rows, y0)[:, None]
    shape = (y.shape[0], x.shape[0])
    wobble = texture(rng, *shape, 4.0 / canvas.um_per_px)
    cell_distance = outline_distance(x, y, cell.outline) + np.float32(0.06) * wobble
    if len(cell.segments):
        nucleus_distance = capsule_distance(x, y, cell.segments, cell.blend_um)
        nucleus_distance += np.float32(cell.nucleus_wobble_um) * texture(rng, *shape, 4.0 / canvas.um_per_px)
        cell_distance = np.minimum(cell_distance, nucleus_distance - np.float32(MARGIN_UM))
        nucleus = cover(nucleus_distance, scale)
    else:
        nucleus_distance = np.full(shape, np.float32(99))
        nucleus = np.zeros(shape, np.float32)
    body = cover(cell_distance, scale)

    layer = _cytoplasm(cell, cell_distance, nucleus_distance, x, y, rng, canvas.um_per_px)
    layer *= 1 - nucleus
    if len(cell.segments):
        chromatin = nucleus * _chromatin(cell, nucleus_distance, x, y, rng, canvas.um_per_px)
        layer[0] += chromatin
        layer[1] += np.float32(0.12) * chromatin  # azure that the eosin complex leaves over
    for kind in cell.granules:
        share = granule_cover(rng, kind, shape, canvas.um_per_px)
        share *= 1 - np.float32(1 - kind.over_nucleus) * nucleus
        for stain, amount in enumerate(kind.stain):
            if amount:
                layer[stain] += np.float32(amount) * share
    layer *= body
    under = canvas.stains[:, rows, columns]
    under *= 1 - body
    under += layer
    return (rows, columns), body >= 0.5, np.minimum(body, nucleus) >= 0.5


def _cytoplasm(
    cell: Anatomy,
    cell_distance: np.ndarray,
    nucleus_distance: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    rng: np.random.Generator,
    um_per_px: float,
) -> np.ndarray:
    """Stains (4, h, w) of the cytoplasm: mottled, denser at the border, paler beside the nucleus and in vacuoles."""
    height, width = cell_distance.shape
    mottle = texture(rng, height, width, 1.8 / um_per_px) + texture(rng, height, width, 5.0 / um_per_px)
    amount = np.float32(0.7 * cell.cytoplasm_contrast) * mottle
    amount += np.float32(1.0)
    # membrane: a darker line about half a micrometre wide at the border
    amount += np.float32(0.35) * np.clip(1 + cell_distance * np.float32(1 / 0.6), 0, 1)
    if cell.perinuclear_halo:
        amount *= 1 - np.float32(cell.perinuclear_halo) * np.clip(1 - nucleus_distance * np.float32(1 / 2.5), 0, 1)
    if len(cell.vacuoles):
        amount *= 1 - np.float32(0.9) * cover(disc_distance(x, y, cell.vacuoles), 0.5)
    np.maximum(amount, 0.05, out=amount)
    return np.asarray(cell.cytoplasm_stain, np.float32)[:, None, None] * amount


def _chromatin(
    cell: Anatomy,
    distance: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    rng: np.random.Generator,
    um_per_px: float,
) -> np.ndarray:
    """Azure-eosin concentration (h, w) in the nucleus: clumps, a darker border, paler nucleoli."""
    height, width = distance.shape
    first, second = cell.chromatin_wavelength_um / um_per_px, cell.chromatin_next_um / um_per_px
    clumps = crossfade(rng, height, width, first, second, cell.next_share)
    fine = crossfade(rng, height, width, 0.5 * first, 0.5 * second, cell.next_share)
    amount = np.float32(cell.chromatin_coarseness) * (clumps + np.float32(0.5) * fine)
    amount += np.float32(1)
    # border: rises over the outer 0.6 um, where chromatin lies against the envelope
    amount += np.float32(cell.rim) * np.clip(1 + distance * np.float32(1 / 0.6), 0, 1)
    if len(cell.nucleoli):
        amount -= np.float32(0.3) * cover(disc_distance(x, y, cell.nucleoli) + np.float32(0.25) * clumps, 0.9)
    np.clip(amount, 0.35, 1.8, out=amount)
    amount *= np.float32(cell.nuclear_stain)
    return amount
