"""What a smear holds besides whole cells: burst nuclei, clots, stain precipitate and dirt.

Smudge cells are nuclei that broke when the smear was made; clots are clumped platelets with fibrin between them; both
and precipitate are named among the things to tell from cells by Palmer et al. (ICSH, Int J Lab Hematol 2015).
Each painter works at (x0, y0) micrometres and returns the window of the canvas (rows, columns) and the true mask in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from cytolib.data.phantoms.anatomy import scattered
from cytolib.data.phantoms.classes import platelet
from cytolib.data.phantoms.draw import Canvas, paint_cell_within
from cytolib.data.phantoms.noise import texture
from cytolib.data.phantoms.shapes import add_bumps, cover, disc_distance, outline, outline_distance

Window = tuple[slice, slice]


@dataclass
class Artefact:
    """One object that is no cell: what it is, how far it reaches (micrometres), and how it is painted."""

    kind: str  # smudge, clot, debris
    subtype: str
    radius_um: float
    paint: Callable[[Canvas, float, float, np.random.Generator], tuple[Window, np.ndarray]]


def random_smudge(rng: np.random.Generator) -> Artefact:
    """A burst nucleus: pale, streaky, frayed, 8 to 18 um, without cytoplasm or outline."""
    edges = outline(rng, rng.uniform(4.5, 7.0), rng.uniform(0.1, 0.7), 0.10)
    edges = add_bumps(rng, edges, int(rng.integers(2, 7)), (0.6, 2.6), (0.15, 0.5)).clip(2.0, None)
    strength, streak_um = rng.uniform(0.4, 0.8), rng.uniform(2.4, 4.5)
    reach, along = float(edges.max()) + 4.0, int(rng.integers(2))

    def paint(canvas: Canvas, x0: float, y0: float, pixels: np.random.Generator) -> tuple[Window, np.ndarray]:
        rows, columns = canvas.window(x0, y0, reach)
        x, y = canvas.axis(columns, x0), canvas.axis(rows, y0)[:, None]
        shape = (y.shape[0], x.shape[0])
        scale = canvas.um_per_px
        distance = outline_distance(x, y, edges) + np.float32(0.8) * texture(pixels, *shape, 4.0 / scale)
        body = cover(distance, 2.6)  # it fades out: there is no membrane
        # Chromatin smeared a little one way: loose strands and gaps, not clumps.
        strands = np.float32(0.6) * texture(pixels, *shape, 1.6 * streak_um / scale)
        drawn_out = ndimage.gaussian_filter1d(texture(pixels, *shape, streak_um / scale), 0.7 / scale, along)
        strands += np.float32(0.5) * drawn_out
        strands += np.float32(0.3) * texture(pixels, *shape, 1.2 / scale)
        amount = np.float32(strength) * body * np.clip(1 + np.float32(0.35) * strands, 0.2, 2)
        under = canvas.stains[:, rows, columns]
        under *= 1 - np.float32(0.85) * body
        under[0] += amount
        under[1] += np.float32(0.12) * amount
        return (rows, columns), body >= 0.5

    return Artefact("smudge", "", float(edges.max()) + 1.0, paint)


def random_clot(rng: np.random.Generator) -> Artefact:
    """Some ten to forty platelets run together, or fibrin with few of them in it; 8 to 24 um."""
    fibrin = bool(rng.random() < 0.35)
    n = int(rng.integers(4, 9)) if fibrin else int(rng.integers(9, 32))
    radius = float(1.35 * np.sqrt(n) + (2.5 if fibrin else 0.4))
    edges = add_bumps(rng, outline(rng, radius, rng.uniform(0.1, 0.6), 0.07), 3, (0.4, 2.0), (0.2, 0.6))
    edges = edges.clip(1.5, None)
    thickness = rng.uniform(0.28, 0.45) if fibrin else rng.uniform(0.10, 0.22)
    reach = float(edges.max()) + 3.0

    def paint(canvas: Canvas, x0: float, y0: float, pixels: np.random.Generator) -> tuple[Window, np.ndarray]:
        rows, columns = canvas.window(x0, y0, reach)
        x, y = canvas.axis(columns, x0), canvas.axis(rows, y0)[:, None]
        shape = (y.shape[0], x.shape[0])
        scale = canvas.um_per_px
        film = cover(outline_distance(x, y, edges) + np.float32(0.5) * texture(pixels, *shape, 3.0 / scale), 1.0)
        threads = np.abs(texture(pixels, *shape, 2.2 / scale))  # a ridge where the noise crosses zero
        amount = np.float32(thickness) * film * (np.float32(0.6) + np.float32(0.8) * np.exp(-(threads * 4)))
        under = canvas.stains[:, rows, columns]
        under *= 1 - np.float32(0.8) * film
        under[2] += amount
        under[0] += np.float32(0.5) * amount
        under[1] += np.float32(0.35) * amount
        mask = film >= 0.5
        for angle, share in zip(pixels.uniform(0, 2 * np.pi, n), np.sqrt(pixels.random(n)), strict=True):
            member = platelet(pixels)
            wide = float(member.outline.max()) + 0.3
            far = min(0.85 * share * float(edges[int(angle / (2 * np.pi) * len(edges))]), reach - wide - 2 * scale)
            x1, y1 = x0 + far * float(np.cos(angle)), y0 + far * float(np.sin(angle))
            part, body, _ = paint_cell_within(canvas, member, x1, y1, pixels, wide)
            down, across = part[0].start - rows.start, part[1].start - columns.start
            mask[down : down + body.shape[0], across : across + body.shape[1]] |= body
        return (rows, columns), mask

    return Artefact("clot", "fibrin" if fibrin else "platelets", reach, paint)


def random_debris(rng: np.random.Generator) -> Artefact:
    """Stain precipitate (a spatter of dark violet specks) or dirt (one dark, angular grain); 2 to 9 um."""
    dirt = bool(rng.random() < 0.35)
    if dirt:
        edges = outline(rng, rng.uniform(1.0, 2.8), rng.uniform(0.1, 0.8), 0.22).clip(0.5, None)
        stain = np.array([1.0, 0.6, 0.5, 1.2]) * rng.uniform(0.6, 1.3)
        reach = float(edges.max()) + 0.5
        specks = np.zeros((0, 3))
    else:
        spread = rng.uniform(1.2, 4.0)
        specks = scattered(rng, int(rng.integers(6, 30)), spread, (0.25, 0.7))
        specks = np.vstack([specks, [0.0, 0.0, rng.uniform(0.5, 1.0)]])
        stain = np.array([1.3, 0.9, 0.1, 0.0]) * rng.uniform(0.7, 1.2)
        reach, edges = spread + 1.0, np.zeros(0, np.float32)

    def paint(canvas: Canvas, x0: float, y0: float, pixels: np.random.Generator) -> tuple[Window, np.ndarray]:
        rows, columns = canvas.window(x0, y0, reach)
        x, y = canvas.axis(columns, x0), canvas.axis(rows, y0)[:, None]
        distance = outline_distance(x, y, edges) if dirt else disc_distance(x, y, specks)
        body = cover(distance, 1.2 * canvas.um_per_px)
        canvas.stains[:, rows, columns] += stain.astype(np.float32)[:, None, None] * body  # it lies on top
        return (rows, columns), body >= 0.5

    return Artefact("debris", "dirt" if dirt else "precipitate", reach, paint)
