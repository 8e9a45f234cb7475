"""What a cell is made of, in micrometres and stain concentrations, before any pixel is drawn.

Sizes and features follow the usual descriptions of Romanowsky-stained smears (Palmer et al., ICSH recommendations
for the standardization of nomenclature and grading of peripheral blood cell morphological features, Int J Lab
Hematol 2015); how often each variant occurs, and colours, were set by eye against images of the PBC set (Acevedo 2020).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

#: Order of every stain concentration vector: azure-eosin complex of chromatin, azure B of RNA, eosin, haemoglobin.
STAINS = ("nuclear", "azure", "eosin", "haemoglobin")


@dataclass
class Granules:
    """A population of granules, drawn as the peaks of band-pass noise."""

    wavelength_um: float  # spacing of granules
    density: float  # share of the area that they cover
    stain: tuple[float, float, float, float]
    over_nucleus: float = 0.0  # strength on top of the nucleus, 0..1
    next_wavelength_um: float = 0.0  # on a path between two cells: the wavelength at its end ...
    next_share: float = 0.0  # ... and how far along the path this cell lies, 0..1


@dataclass
class Anatomy:
    """One cell around the origin: lengths in micrometres, stains as concentrations in the order of STAINS."""

    outline: np.ndarray  # radius over angle
    segments: np.ndarray  # nucleus as tapered capsules (m, 6); (0, 6): no nucleus
    nuclear_stain: float
    cytoplasm_stain: tuple[float, float, float, float]
    chromatin_coarseness: float  # contrast of clumps, 0..1
    chromatin_wavelength_um: float
    lobes: int = 1
    nucleus_wobble_um: float = 0.15
    blend_um: float = 0.3
    rim: float = 0.35  # darker nuclear border, relative
    cytoplasm_contrast: float = 0.15
    perinuclear_halo: float = 0.0  # pale zone beside the nucleus, 0..1
    granules: list[Granules] = field(default_factory=list)
    nucleoli: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))  # x, y, radius
    vacuoles: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    subtype: str = ""
    chromatin_next_um: float = 0.0  # on a path between two cells: the wavelength at its end ...
    next_share: float = 0.0  # ... and how far along the path this cell lies, 0..1


def around(rng: np.random.Generator, mean: float, sd: float, low: float, high: float) -> float:
    """A normal draw, clipped."""
    return float(min(max(rng.normal(mean, sd), low), high))


def unit(angle: float | np.ndarray) -> np.ndarray:
    """Unit vectors (..., 2) of angles in radians."""
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def ellipse(centre: np.ndarray, angle: float, length: float, width: float) -> np.ndarray:
    """One capsule (6,) of the given full length and width in micrometres."""
    half = 0.5 * max(length - width, 0.0) * unit(angle)
    return np.concatenate([centre - half, centre + half, [width / 2, width / 2]])


def lobed(
    rng: np.random.Generator, lobes: int, lobe_width: float, lobe_length: float, ring: float, bridge: float
) -> np.ndarray:
    """Segments of lobes in an open ring of radius `ring`, tangent to it, joined by bridges of the given thickness."""
    step = (lobe_length + rng.uniform(0.0, 1.1)) / ring
    angle = rng.uniform(0, 2 * np.pi) + step * (np.arange(lobes) + rng.normal(0, 0.08, lobes))
    width = lobe_width * rng.uniform(0.82, 1.18, lobes)
    length = lobe_length * rng.uniform(0.8, 1.25, lobes)
    centre = ring * rng.uniform(0.85, 1.12, (lobes, 1)) * unit(angle)
    centre -= centre.mean(0) * rng.uniform(0.7, 1.1) - rng.normal(0, 0.4, 2)
    turn = angle + np.pi / 2 + rng.normal(0, 0.4, lobes)
    bodies = [ellipse(c, t, b, a) for c, t, a, b in zip(centre, turn, width, np.maximum(length, width), strict=True)]
    half = bridge / 2
    bridges = [np.concatenate([centre[i], centre[i + 1], [half, half]]) for i in range(lobes - 1)]
    return np.array(bodies + bridges)


def bent(rng: np.random.Generator, length: float, width: float, bend: float, waist: float = 0.0) -> np.ndarray:
    """Segments of a sausage of the given length (along its middle) and width, bent by `bend` radians in all.

    A bend of about 1 gives a kidney, 3 a horseshoe or band; `waist` thins the middle (0 no, 0.5 by half).
    """
    pieces = 4
    heading = rng.uniform(0, 2 * np.pi) + bend * (np.arange(pieces) - (pieces - 1) / 2) / pieces
    heading = heading + rng.normal(0, 0.12, pieces)
    steps = max(length - width, 0.2) / pieces * unit(heading)
    points = np.vstack([[0, 0], np.cumsum(steps, 0)])
    points -= 0.5 * (points.mean(0) + points[[0, -1]].mean(0))
    radius = width / 2 * (1 - waist * np.array([0, 0.7, 1, 0.7, 0])) * rng.uniform(0.9, 1.1, pieces + 1)
    return np.column_stack([points[:-1], points[1:], radius[:-1], radius[1:]])


def round_nucleus(rng: np.random.Generator, diameter: float, elongation: float, shift: float) -> np.ndarray:
    """One nearly round nucleus, `shift` micrometres off the middle; elongation is long over short axis minus 1."""
    centre = shift * unit(rng.uniform(0, 2 * np.pi))
    long, short = diameter * (1 + elongation / 2), diameter * (1 - elongation / 2)
    return ellipse(centre, rng.uniform(0, np.pi), long, short)[None]


def scattered(rng: np.random.Generator, n: int, within: float, radius: tuple[float, float]) -> np.ndarray:
    """Discs (n, 3) with centres uniform in a circle of radius `within` micrometres: nucleoli, vacuoles."""
    distance = within * np.sqrt(rng.random(n))
    return np.column_stack([distance[:, None] * unit(rng.uniform(0, 2 * np.pi, n)), rng.uniform(*radius, n)])
