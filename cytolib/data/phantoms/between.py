"""Cells between two cells: an anatomy that changes without a jump from one into the other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from cytolib.data.phantoms.anatomy import Anatomy, Granules
from cytolib.data.phantoms.shapes import ANGLES

#: Radius in micrometres of a vacuole or nucleolus that is not there: so far below 0 that its soft edge is gone too.
ABSENT_UM = -1.5
_TURNS = 32  # rotations tried when one cell is laid over the other


def turned(cell: Anatomy, steps: int) -> Anatomy:
    """The cell rotated by `steps` samples of its outline (ANGLES a full turn)."""
    angle = 2 * np.pi * steps / ANGLES
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    segments, nucleoli, vacuoles = cell.segments.copy(), cell.nucleoli.copy(), cell.vacuoles.copy()
    segments[:, 0:2], segments[:, 2:4] = segments[:, 0:2] @ turn, segments[:, 2:4] @ turn
    nucleoli[:, :2], vacuoles[:, :2] = nucleoli[:, :2] @ turn, vacuoles[:, :2] @ turn
    outline = np.roll(cell.outline, steps)
    return replace(cell, outline=outline, segments=segments, nucleoli=nucleoli, vacuoles=vacuoles)


def aligned(first: Anatomy, second: Anatomy) -> Anatomy:
    """The second cell, turned so that its nucleus lies over the first's: which way up a cell lies means nothing."""
    turns = [turned(second, k * ANGLES // _TURNS) for k in range(_TURNS)]

    def cost(cell: Anatomy) -> float:
        distance = _distances(first.segments, cell.segments)[0]
        return float(distance.min(0).sum() + distance.min(1).sum())

    return min(turns, key=cost) if len(first.segments) and len(second.segments) else second


def between(first: Anatomy, second: Anatomy, t: float) -> Anatomy:
    """The anatomy a share t of the way: t = 0 is `first` itself, t = 1 `second` itself.

    Numbers and the outline move on straight lines. Capsules of the nucleus move to their nearest partners and split or
    merge where the counts differ; vacuoles and nucleoli grow and shrink; each granule population turns into its partner
    or thins out. Chromatin and granule textures turn from one wavelength to the other.
    """
    if t in (0.0, 1.0):
        return first if t == 0 else second

    def mix(a: float, b: float) -> float:
        return float((1 - t) * a + t * b)

    azure = tuple(mix(a, b) for a, b in zip(first.cytoplasm_stain, second.cytoplasm_stain, strict=True))
    blend_um = mix(first.blend_um, second.blend_um)
    return Anatomy(
        outline=((1 - t) * first.outline + t * second.outline).astype(np.float32),
        segments=_segments_between(first.segments, second.segments, t, blend_um),
        nuclear_stain=mix(first.nuclear_stain, second.nuclear_stain),
        cytoplasm_stain=(azure[0], azure[1], azure[2], azure[3]),
        chromatin_coarseness=mix(first.chromatin_coarseness, second.chromatin_coarseness),
        chromatin_wavelength_um=first.chromatin_wavelength_um,
        lobes=round(mix(first.lobes, second.lobes)),
        nucleus_wobble_um=mix(first.nucleus_wobble_um, second.nucleus_wobble_um),
        blend_um=blend_um,
        rim=mix(first.rim, second.rim),
        cytoplasm_contrast=mix(first.cytoplasm_contrast, second.cytoplasm_contrast),
        perinuclear_halo=mix(first.perinuclear_halo, second.perinuclear_halo),
        granules=_granules_between(first.granules, second.granules, t),
        nucleoli=_discs_between(first.nucleoli, second.nucleoli, t),
        vacuoles=_discs_between(first.vacuoles, second.vacuoles, t),
        subtype=f"{first.subtype} to {second.subtype}",
        chromatin_next_um=second.chromatin_wavelength_um,
        next_share=t,
    )


def _distances(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances (m, n) between capsules in ends and radii, and whether b's ends must be swapped for them."""
    swapped = b[:, [2, 3, 0, 1, 5, 4]]
    straight, crossed = (((a[:, None] - other[None]) ** 2).sum(-1) for other in (b, swapped))
    return np.minimum(straight, crossed), crossed < straight


def _segments_between(a: np.ndarray, b: np.ndarray, t: float, blend_um: float) -> np.ndarray:
    """Capsules (k, 6) between a (m, 6) and b (n, 6): a pair for every partner that either side has.

    The nucleus is a smooth minimum, -blend log sum exp(-distance / blend), in which a capsule that stands there twice
    would count twice and swell. So copies carry weights that sum to 1 at their own end and grow or shrink on the way;
    a weight w within the sum is the same as a radius changed by blend log w.
    """
    distance, swap = _distances(a, b)
    partners = set(zip(*(index.tolist() for index in linear_sum_assignment(distance)), strict=True))
    matched_a, matched_b = {i for i, _ in partners}, {j for _, j in partners}
    partners |= {(i, int(distance[i].argmin())) for i in range(len(a)) if i not in matched_a}
    partners |= {(int(distance[:, j].argmin()), j) for j in range(len(b)) if j not in matched_b}
    i, j = np.array(sorted(partners)).T
    start, end = a[i], np.where(swap[i, j][:, None], b[j][:, [2, 3, 0, 1, 5, 4]], b[j])
    weight = (1 - t) / np.bincount(i)[i] + t / np.bincount(j)[j]
    segments = (1 - t) * start + t * end
    segments[:, 4:] += blend_um * np.log(weight)[:, None]
    return segments


def _discs_between(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
    """Discs (k, 3): each moves to its nearest partner; what has none shrinks to nothing where it lies, or grows."""
    i, j = linear_sum_assignment(((a[:, None, :2] - b[None, :, :2]) ** 2).sum(-1))
    alone_a, alone_b = np.delete(a, i, axis=0), np.delete(b, j, axis=0)
    gone_a, gone_b = alone_a.copy(), alone_b.copy()
    gone_a[:, 2] = gone_b[:, 2] = ABSENT_UM
    start, end = np.vstack([a[i], alone_a, gone_b]), np.vstack([b[j], gone_a, alone_b])
    return (1 - t) * start + t * end


def _granules_between(a: list[Granules], b: list[Granules], t: float) -> list[Granules]:
    """Populations in pairs; the pair of none is the same population at density 0."""
    n = max(len(a), len(b))
    starts = a + [replace(kind, density=0.0) for kind in b[len(a) : n]]
    ends = b + [replace(kind, density=0.0) for kind in a[len(b) : n]]
    kinds = []
    for start, end in zip(starts, ends, strict=True):
        stain = [(1 - t) * x + t * y for x, y in zip(start.stain, end.stain, strict=True)]
        kinds.append(
            Granules(
                wavelength_um=start.wavelength_um,
                density=(1 - t) * start.density + t * end.density,
                stain=(stain[0], stain[1], stain[2], stain[3]),
                over_nucleus=(1 - t) * start.over_nucleus + t * end.over_nucleus,
                next_wavelength_um=end.wavelength_um,
                next_share=t,
            )
        )
    return kinds
