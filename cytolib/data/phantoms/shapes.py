"""Signed distances to cell parts in micrometres (negative inside), and the soft pixel cover they give."""

from __future__ import annotations

import numpy as np

ANGLES = 256  # samples of an outline around the cell
_ANGLE = np.arange(ANGLES) * (2 * np.pi / ANGLES)
_HARMONICS = np.arange(2, 10)
_COSINES, _SINES = np.cos(_HARMONICS[:, None] * _ANGLE), np.sin(_HARMONICS[:, None] * _ANGLE)


def outline(rng: np.random.Generator, radius: float, elongation: float, roughness: float) -> np.ndarray:
    """Radius of a cell over angle, (ANGLES,) float32 in micrometres.

    An ellipse of the given elongation (long over short axis minus 1) with falling harmonics k = 3..9 of relative
    size `roughness`, at a random rotation.
    """
    size = roughness / (_HARMONICS - 1.5) ** 1.5
    size[0] = 0.0
    cosine, sine = rng.standard_normal((2, _HARMONICS.size)) * size
    turn = rng.uniform(0, 2 * np.pi)
    cosine[0], sine[0] = 0.5 * elongation * np.cos(turn), 0.5 * elongation * np.sin(turn)
    return (radius * (1 + cosine @ _COSINES + sine @ _SINES)).astype(np.float32)


def add_bumps(
    rng: np.random.Generator,
    radii: np.ndarray,
    n: int,
    height_um: tuple[float, float],
    width: tuple[float, float],
) -> np.ndarray:
    """Outline with n blebs or pseudopods of given height (micrometres) and angular half width (radians)."""
    centre = rng.uniform(0, 2 * np.pi, (n, 1))
    half = rng.uniform(*width, (n, 1))
    height = rng.uniform(*height_um, (n, 1))
    away = np.abs((_ANGLE - centre + np.pi) % (2 * np.pi) - np.pi) / half
    return (radii + (height * np.exp(-(away**2))).sum(0)).astype(np.float32)


def outline_distance(x: np.ndarray, y: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Distance to a star-shaped outline at x (w,) and y (h, 1): r - R(angle), exact for circles, else near it."""
    r = np.sqrt(x * x + y * y)
    position = (np.arctan2(y, x) * np.float32(ANGLES / (2 * np.pi))).astype(np.int32)
    return r - radii[position]  # negative angles count from the end, as they should


def capsule_distance(x: np.ndarray, y: np.ndarray, segments: np.ndarray, blend_um: float) -> np.ndarray:
    """Distance to the smooth union of tapered capsules (m, 6): x0, y0, x1, y1, radius0, radius1 in micrometres.

    Smooth minimum -b log sum exp(-d / b), which fills the joints between lobes and bridges.
    """
    x0, y0, x1, y1, r0, r1 = (column[:, None, None] for column in segments.T.astype(np.float32))
    along_x, along_y = x1 - x0, y1 - y0
    scale = 1 / (along_x * along_x + along_y * along_y + np.float32(1e-6))
    px, py = x - x0, y - y0
    t = px * (along_x * scale) + py * (along_y * scale)
    np.clip(t, 0, 1, out=t)
    px = px - t * along_x
    py = py - t * along_y
    distance = np.sqrt(px * px + py * py)
    distance -= r0 + t * (r1 - r0)
    if len(segments) == 1:
        return distance[0]
    near = distance.min(0)
    distance -= near
    distance *= np.float32(-1 / blend_um)
    return near - np.float32(blend_um) * np.log(np.exp(distance, out=distance).sum(0))


def disc_distance(x: np.ndarray, y: np.ndarray, discs: np.ndarray) -> np.ndarray:
    """Distance to the union of discs (m, 3): x, y, radius in micrometres."""
    cx, cy, radius = (column[:, None, None] for column in discs.T.astype(np.float32))
    px, py = x - cx, y - cy
    return (np.sqrt(px * px + py * py) - radius).min(0)


def cover(distance: np.ndarray, edge_um: float) -> np.ndarray:
    """Share of a pixel that is inside, 0..1: a ramp one edge wide across the outline, hence anti-aliased."""
    share = distance * np.float32(-1 / edge_um)
    share += np.float32(0.5)
    return np.clip(share, 0, 1, out=share)
