"""From stain concentrations to a camera image of one laboratory: Beer-Lambert, blur, vignetting, noise.

Optical density is linear in stain: OD_c = sum_s concentration_s * vector_s,c and I_c = background_c * exp(-OD_c)
(Ruifrok & Johnston, Anal Quant Cytol Histol 2001).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from cytolib.data.phantoms.noise import texture, white


@dataclass(frozen=True)
class Site:
    """A laboratory: stain, scanner, camera. Stain vectors are optical density (natural log) in R, G, B."""

    background: tuple[float, float, float]  # 0..255
    nuclear: tuple[float, float, float]
    azure: tuple[float, float, float]
    eosin: tuple[float, float, float]
    haemoglobin: tuple[float, float, float]
    strength: float
    scale: float  # field of view relative to FIELD_OF_VIEW_UM
    blur_um: float
    sharpen: float  # 0 none; share of a wider blur that the scanner subtracts
    noise: float  # grey levels
    vignette: float  # darkening in the corners, 0..1
    cast: float  # sd of the white balance between slides, relative


SITES: dict[str, Site] = {
    # Colours of the main set-up of the PBC images (CellaVision, May-Gruenwald-Giemsa): salmon background.
    "site_a": Site(
        background=(255, 229, 204),
        nuclear=(0.585, 1.00, 0.235),
        azure=(0.92, 0.88, 0.20),
        eosin=(0.26, 1.00, 0.62),
        haemoglobin=(0.66, 0.98, 0.60),
        strength=1.0, scale=1.0, blur_um=0.20, sharpen=0.35, noise=1.6, vignette=0.0, cast=0.008,
    ),
    # Lilac background, bluer azure, pink eosin, a softer lens: the second set-up hidden in the PBC images.
    "site_b": Site(
        background=(224, 219, 234),
        nuclear=(0.60, 1.02, 0.28),
        azure=(0.90, 0.85, 0.22),
        eosin=(0.10, 0.84, 0.44),
        haemoglobin=(0.44, 0.78, 0.52),
        strength=0.92, scale=0.94, blur_um=0.26, sharpen=0.15, noise=2.2, vignette=0.05, cast=0.012,
    ),
    # Rapid stain through an eyepiece camera: yellow-grey, red-violet nuclei, vignetting, blur, noise.
    "site_c": Site(
        background=(222, 217, 190),
        nuclear=(0.46, 1.05, 0.52),
        azure=(0.74, 0.66, 0.34),
        eosin=(0.22, 0.80, 0.80),
        haemoglobin=(0.42, 0.90, 0.78),
        strength=0.92, scale=1.07, blur_um=0.34, sharpen=0.0, noise=3.4, vignette=0.20, cast=0.02,
    ),
}  # fmt: skip


@dataclass
class Exposure:
    """What varies between two images of one site."""

    stain_strength: float
    eosin_balance: float  # eosin relative to azure
    hue: np.ndarray  # (4, 3) relative change of the stain vectors
    focus_blur_um: float
    background: np.ndarray  # (3,) 0..255


def random_exposure(site: Site, rng: np.random.Generator) -> Exposure:
    """Stain batch, focus and lamp of one image."""
    return Exposure(
        stain_strength=site.strength * float(np.clip(rng.normal(1, 0.07), 0.78, 1.22)),
        eosin_balance=float(np.clip(rng.normal(1, 0.12), 0.7, 1.35)),
        hue=1 + rng.standard_normal((4, 3)) * np.array([[0.035], [0.035], [0.035], [0.05]]),
        focus_blur_um=site.blur_um + min(float(rng.exponential(0.05)), 0.4),
        background=np.minimum(np.asarray(site.background) * (1 + site.cast * rng.standard_normal(3)), 255.0),
    )


@dataclass(frozen=True)
class Conditions:
    """What of stain and microscope to set instead of drawing it at random; None leaves the draw as it is.

    The rest of the picture stays the same: one cell under one changed condition. Raises ValueError out of range.
    """

    defocus_um: float | None = None  # blur (standard deviation) on top of the site's own, 0 to MAX_DEFOCUS_UM
    stain_strength: float | None = None  # all stains, 1 = usual at the site; 0 to 3
    eosin_balance: float | None = None  # eosin relative to azure, 1 = usual; 0 to 3
    noise: float | None = None  # sensor noise in grey levels, 0 to 64

    def __post_init__(self) -> None:
        limits = {"defocus_um": MAX_DEFOCUS_UM, "stain_strength": 3.0, "eosin_balance": 3.0, "noise": 64.0}
        for name, highest in limits.items():
            value = getattr(self, name)
            if value is not None and not 0 <= value <= highest:
                raise ValueError(f"{name} is {value}, expected 0 to {highest:g}; correct it or leave it out (None)")


MAX_DEFOCUS_UM = 3.0


def set_conditions(site: Site, shot: Exposure, conditions: Conditions) -> tuple[Site, Exposure]:
    """Site and exposure with the given conditions in place of their own."""
    if conditions.noise is not None:
        site = replace(site, noise=conditions.noise)
    if conditions.defocus_um is not None:
        shot = replace(shot, focus_blur_um=site.blur_um + conditions.defocus_um)
    if conditions.stain_strength is not None:
        shot = replace(shot, stain_strength=site.strength * conditions.stain_strength)
    if conditions.eosin_balance is not None:
        shot = replace(shot, eosin_balance=conditions.eosin_balance)
    return site, shot


def kernel(sigma_px: float, sharpen: float) -> np.ndarray:
    """Half of a symmetric blur (r + 1,): a Gaussian minus `sharpen` of a 2.2 times wider one, sum over both sides 1."""
    radius = max(1, int(np.ceil(3 * sigma_px * (2.2 if sharpen else 1.0))))
    offset = np.arange(radius + 1)
    taps = np.zeros(radius + 1)
    for weight, sd in ((1 + sharpen, sigma_px), (-sharpen, 2.2 * sigma_px)):
        gauss = np.exp(-0.5 * (offset / max(sd, 0.2)) ** 2)
        taps += weight * gauss / (2 * gauss.sum() - 1)
    return taps.astype(np.float32)


def blur(image: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """Separable convolution of (..., H, W) with a symmetric kernel; the result is smaller by r on every side."""
    r = len(taps) - 1
    rows, columns = image.shape[-2] - 2 * r, image.shape[-1] - 2 * r
    down = image[..., r : r + rows, :] * taps[0]
    for k in range(1, r + 1):
        down += taps[k] * (image[..., r - k : r - k + rows, :] + image[..., r + k : r + k + rows, :])
    across = down[..., r : r + columns] * taps[0]
    for k in range(1, r + 1):
        across += taps[k] * (down[..., r - k : r - k + columns] + down[..., r + k : r + k + columns])
    return across


@lru_cache(maxsize=8)
def _vignette(size: int) -> np.ndarray:
    """Squared distance from the middle (size, size), 1 in the corners."""
    axis = np.linspace(-1, 1, size, dtype=np.float32) ** 2
    return (axis[:, None] + axis[None, :]) / 2


def expose(stains: np.ndarray, taps: np.ndarray, site: Site, shot: Exposure, rng: np.random.Generator) -> np.ndarray:
    """Image (size, size, 3) uint8 of stain maps (4, size + 2 r, size + 2 r): the blur uses up the margin r."""
    size = stains.shape[1] - 2 * (len(taps) - 1)
    light = blur(transmitted(stains, site, shot), taps)
    light *= shot.background.astype(np.float32)[:, None, None]
    if site.vignette:
        light *= 1 - np.float32(site.vignette) * _vignette(size)
    # Sensor noise: mostly the same in the three channels after demosaicing, a part of each its own, a part correlated.
    light += np.float32(0.7 * site.noise) * texture(rng, size, size, 3.0)
    for channel in light:
        channel += np.float32(0.6 * site.noise) * white(rng, size, size)
    return to_pixels(light)


def transmitted(stains: np.ndarray, site: Site, shot: Exposure) -> np.ndarray:
    """Share of the light (3, H, W) that passes the stain maps (4, H, W): Beer-Lambert, before any blur."""
    vectors = np.array([site.nuclear, site.azure, site.eosin, site.haemoglobin]) * shot.hue * shot.stain_strength
    vectors[2] *= shot.eosin_balance
    density = vectors.T.astype(np.float32) @ stains.reshape(4, -1)
    return np.exp(np.negative(density, out=density), out=density).reshape(3, *stains.shape[1:])


def to_pixels(light: np.ndarray) -> np.ndarray:
    """Light (3, H, W) in grey levels as an image (H, W, 3) uint8; overwrites its argument."""
    np.rint(light, out=light)
    return np.clip(light, 0, 255).astype(np.uint8).transpose(1, 2, 0).copy()
