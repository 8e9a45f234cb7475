"""What lies around the cell: red cells with central pallor, overlapping and partly out of frame, stray platelets."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cytolib.data.phantoms.anatomy import unit
from cytolib.data.phantoms.classes import platelet
from cytolib.data.phantoms.draw import Canvas, paint_cell


@dataclass
class Smear:
    """How the red cells of one field look: it varies between slides and along a slide."""

    spacing_um: float
    occupancy: float
    radius_um: float
    pallor: float  # 0 none, 1 centre as clear as background
    pallor_width: float  # share of the radius
    density: float  # haemoglobin concentration
    crenated: float
    clumping: float  # chance that a red cell has another on top


def random_smear(rng: np.random.Generator) -> Smear:
    """A thin monolayer mostly, sometimes the thick or the flat end of the smear."""
    flat = rng.random() < 0.07  # the feathered edge: large red cells without pallor
    return Smear(
        spacing_um=rng.uniform(8.6, 10.6),
        occupancy=rng.uniform(0.55, 0.95),
        radius_um=rng.uniform(4.1, 4.7) if flat else rng.uniform(3.4, 4.1),
        pallor=rng.uniform(0, 0.2) if flat else rng.beta(4, 1.8),
        pallor_width=rng.uniform(0.26, 0.5),
        density=rng.uniform(0.20, 0.30) if flat else rng.uniform(0.27, 0.40),
        crenated=max(rng.normal(-0.02, 0.025), 0.0),
        clumping=rng.beta(1, 4) * 0.7,
    )


def place_red_cells(smear: Smear, half_field_um: float, keep_out_um: float, rng: np.random.Generator) -> np.ndarray:
    """Centres (n, 2) in micrometres: a jittered hexagonal grid with gaps, pushed out of the middle, some doubled."""
    reach = half_field_um + smear.radius_um
    rings = int(np.ceil(1.5 * reach / smear.spacing_um)) + 1
    i, j = np.meshgrid(np.arange(-rings, rings + 1), np.arange(-rings, rings + 1))
    turn = rng.uniform(0, np.pi)
    grid = smear.spacing_um * (i.reshape(-1, 1) * unit(turn) + j.reshape(-1, 1) * unit(turn + np.pi / 3))
    centres = grid + rng.uniform(-5, 5, 2) + rng.normal(0, 0.17 * smear.spacing_um, grid.shape)
    centres = centres[rng.random(len(centres)) < smear.occupancy]
    # A white cell pushes red cells aside: those that would touch it slide outwards, those near its middle are gone.
    distance = np.sqrt((centres**2).sum(1))
    clear = keep_out_um + smear.radius_um * rng.uniform(0.75, 1.15, len(centres))
    slide = np.maximum(clear / np.maximum(distance, 0.1), 1.0)
    centres = (centres * slide[:, None])[distance > 0.45 * clear]
    doubled = centres[rng.random(len(centres)) < smear.clumping]
    away = unit(np.arctan2(doubled[:, 1], doubled[:, 0]) + rng.uniform(-1.2, 1.2, len(doubled)))
    doubled = doubled + smear.radius_um * rng.uniform(0.5, 1.3, (len(doubled), 1)) * away
    centres = np.vstack([centres, doubled])
    return centres[np.abs(centres).max(1) < reach]


def paint_red_cells(canvas: Canvas, smear: Smear, centres: np.ndarray, rng: np.random.Generator) -> None:
    """Add all red cells to the haemoglobin map at once: a stack of small patches, then one addition each."""
    n = len(centres)
    if n == 0:
        return
    scale = canvas.um_per_px
    half = math.ceil(1.25 * smear.radius_um / scale)
    middle = np.rint(centres / scale + canvas.middle).astype(int)
    offset = (middle - canvas.middle) * scale - centres
    span = np.arange(-half, half + 1, dtype=np.float32) * np.float32(scale)
    x = span[None, None, :] + offset[:, 0, None, None].astype(np.float32)
    y = span[None, :, None] + offset[:, 1, None, None].astype(np.float32)

    def each(values: np.ndarray) -> np.ndarray:
        return values.astype(np.float32)[:, None, None]

    size = smear.radius_um * np.clip(rng.normal(1, 0.07, n), 0.8, 1.2)
    r = np.sqrt(x * x + y * y) + np.float32(1e-3)
    c, s = x / r, y / r
    # Outline: ellipse, triangle and, on crenated slides, an eightfold scallop, from cos(k a) = Re (c + i s)^k.
    c2, s2 = c * c - s * s, 2 * c * s
    turn = rng.uniform(0, 2 * np.pi, (3, n))
    oval = np.abs(rng.normal(0, 0.055, n))
    shape = each(oval * np.cos(turn[0])) * c2
    shape += each(oval * np.sin(turn[0])) * s2
    triangle = 0.03 * rng.standard_normal(n)
    c3 = c2 * c - s2 * s
    shape += each(triangle) * c3
    if smear.crenated > 0.02:
        c4 = c2 * c2 - s2 * s2
        shape += each(smear.crenated * rng.uniform(0.3, 1.2, n)) * (2 * c4 * c4 - 1)
    ratio = r / (each(size) * (1 + shape))
    edge = np.clip((1 - ratio) * each(size / scale) + 0.5, 0, 1)
    width = smear.pallor_width * np.clip(rng.normal(1, 0.12, n), 0.6, 1.4)
    pale = np.clip((each(width) + np.float32(0.2) - ratio) * np.float32(1 / 0.4), 0, 1)
    pale = pale * pale * (3 - 2 * pale)
    depth = np.clip(smear.pallor + rng.normal(0, 0.12, n), 0, 1)
    # The rim of the disc is thickest at about three quarters of the radius and thins towards its edge.
    body = np.float32(1.0) - np.float32(0.25) * np.clip((ratio - 0.72) * np.float32(1 / 0.28), 0, 1)
    body -= each(depth) * pale
    body *= edge * each(smear.density * np.clip(rng.normal(1, 0.08, n), 0.7, 1.3))
    for (column, row), patch in zip((middle - half).tolist(), body, strict=True):
        top, left = max(-row, 0), max(-column, 0)  # what lies beyond the canvas is cut off
        bottom, right = max(row + patch.shape[0], 0), max(column + patch.shape[1], 0)
        target = canvas.stains[3, row + top : bottom, column + left : right]
        target += patch[top : top + target.shape[0], left : left + target.shape[1]]
    # Where red cells overlap, less light is lost than the sum says: they thin where they are pressed together.
    density = canvas.stains[3]
    density /= 1 + np.float32(0.45) * np.maximum(density - np.float32(smear.density), 0) / np.float32(smear.density)


def paint_platelets(canvas: Canvas, half_field_um: float, keep_out_um: float, rng: np.random.Generator) -> int:
    """Add a few stray platelets away from the cell; returns how many."""
    n = int(rng.poisson(0.7))
    for _ in range(n):
        x, y = rng.uniform(-half_field_um, half_field_um, 2)
        stray = platelet(rng)
        stray.outline = stray.outline * np.float32(rng.uniform(0.25, 0.85))
        if x * x + y * y > (keep_out_um + 2.5) ** 2:
            paint_cell(canvas, stray, float(x), float(y), rng)
    return n
