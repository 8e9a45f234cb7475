"""Stain as optical density: Beer-Lambert on drawn cells whose stain is known, glass found in drawn and real images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from cytolib.data import stain
from cytolib.data.phantoms import CLASSES, DOMAINS, Conditions, draw_cell
from cytolib.data.phantoms.optics import SITES

QUIET = {"defocus_um": 0.0, "noise": 0.0}


def test_optical_density_doubles_when_the_stain_doubles() -> None:
    for k, label in enumerate(CLASSES):
        half, full = (
            draw_cell(label, "site_a", 40 + k, 256, Conditions(stain_strength=s, **QUIET)) for s in (0.45, 0.9)
        )
        assert (half.stains == full.stains).all()  # the same cell
        # Where the picture is flat: at edges the blur of light comes in between.
        green = full.image[..., 1].astype(float)
        flat = ndimage.maximum_filter(green, 3) - ndimage.minimum_filter(green, 3) < 12
        glass = stain.estimate_background(full.image)
        once, twice = (stain.optical_density(cell.image, glass) for cell in (half, full))
        clear = flat[..., None] & (once > 0.2) & (twice < 2.5)  # grey levels are whole numbers: neither faint nor black
        assert clear.sum() > 200
        assert np.median(twice[clear] / once[clear]) == pytest.approx(2, rel=0.04)


def test_optical_density_is_linear_in_the_true_stain_maps() -> None:
    cell = draw_cell("monocyte", "site_a", 3, 256, Conditions(eosin_balance=1.0, stain_strength=1.0, **QUIET))

    def blocks(planes: np.ndarray) -> np.ndarray:  # of 4 x 4 pixels, wider than the lens's blur
        return planes.reshape(64, 4, 64, 4, -1).mean((1, 3)).reshape(64 * 64, -1)

    density, stains = blocks(stain.optical_density(cell.image)), blocks(cell.stains.transpose(1, 2, 0))
    vectors, residual, *_ = np.linalg.lstsq(stains, density, rcond=None)
    explained = 1 - residual / ((density - density.mean(0)) ** 2).sum(0)
    assert explained.min() > 0.97
    site = SITES["site_a"]
    truth = np.array([site.nuclear, site.azure, site.eosin, site.haemoglobin])
    assert np.abs(vectors[[0, 3]] / truth[[0, 3]] - 1).max() < 0.25  # the hue of a slide varies by a few per cent


def test_blur_acts_on_light_not_on_density() -> None:
    image = np.full((65, 65, 3), 240, np.uint8)
    image[24:41, 24:41] = 20
    blurred = stain.defocus(image, 3.0)
    assert blurred.mean() == pytest.approx(image.mean(), abs=0.1)  # no light is lost ...
    before, after = (stain.optical_density(i, (240, 240, 240)).sum() for i in (image, blurred))
    assert after < 0.9 * before  # ... but density is
    assert (stain.defocus(image, 0) == image).all()
    # The same holds inside the generator: the green light of a drawn cell stays, its density falls.
    sharp, soft = (draw_cell("lymphocyte", "site_c", 8, 96, Conditions(defocus_um=d, noise=0)) for d in (0, 1.2))
    middle = slice(12, 84)
    light = [cell.image[middle, middle].astype(float).mean() for cell in (sharp, soft)]
    dense = [stain.optical_density(cell.image, (222, 217, 190))[middle, middle].mean() for cell in (sharp, soft)]
    assert light[1] == pytest.approx(light[0], rel=0.015) and dense[1] < 0.97 * dense[0]


def test_background_of_drawn_cells_is_the_glass_of_the_site() -> None:
    for domain in DOMAINS:
        for k in range(24):  # among them fields that red cells all but fill
            image = draw_cell(CLASSES[k % 8], domain, 300 + k).image
            away = np.abs(stain.estimate_background(image) - SITES[domain].background)
            assert away.max() < (20 if SITES[domain].vignette < 0.1 else 36), (domain, k)


def test_background_of_real_cells_is_bright_and_common(real_data: Path) -> None:
    files = sorted(real_data.rglob("*.jpg"))[:24]
    assert files
    for file in files:
        image = np.asarray(Image.open(file).convert("RGB"))
        glass = stain.estimate_background(image)
        assert glass[1] > 150 and glass[1] >= np.percentile(image[..., 1], 45)
        assert stain.optical_density(image).min() > -1


def test_density_and_back_is_the_same_image() -> None:
    image = draw_cell("eosinophil", "site_a", 1).image
    glass = stain.estimate_background(image)
    again = stain.from_optical_density(stain.optical_density(image, glass), glass)
    assert np.abs(again.astype(int) - image).max() <= 1
    assert np.isfinite(stain.optical_density(np.zeros((4, 4, 3), np.uint8))).all()


def test_jitter_changes_the_stain_and_keeps_the_glass() -> None:
    image = draw_cell("neutrophil", "site_b", 5).image
    glass = stain.estimate_background(image)
    same = stain.jitter_stain(image, np.random.default_rng(0), 0, 0, 0)
    assert np.abs(same.astype(int) - image).max() <= 1
    ratios = []
    for seed in range(40):
        changed = stain.jitter_stain(image, np.random.default_rng(seed), strength=0.2, channel=0.0, mixing=0.0)
        assert np.abs(stain.estimate_background(changed) - glass).max() <= 2
        dark = stain.optical_density(image, glass)[..., 1] > 0.5
        pair = [stain.optical_density(i, glass)[dark].mean(0) for i in (changed, image)]
        ratios.append(pair[0] / pair[1])
    spread = np.log(ratios)
    assert spread[:, 1].std() == pytest.approx(0.2, rel=0.35)
    assert np.abs(spread[:, 0] - spread[:, 1]).max() < 0.12  # one factor for all channels: no change of hue
    coloured = stain.jitter_stain(image, np.random.default_rng(1), 0.0, 0.1, 0.1).astype(int)
    assert np.abs(coloured - image).mean() > 1
    assert (
        stain.jitter_stain(image, np.random.default_rng(2)) == stain.jitter_stain(image, np.random.default_rng(2))
    ).all()


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda i: stain.optical_density(i.astype(float)), TypeError, "float64.*uint8"),
        (lambda i: stain.optical_density(i[..., 0]), ValueError, r"\(96, 96\).*\(H, W, 3\)"),
        (lambda i: stain.optical_density(i, (255, 0, 255)), ValueError, "background is .*above 0"),
        (lambda i: stain.defocus(i, -1), ValueError, "blur_px is -1"),
        (lambda i: stain.jitter_stain(i, np.random.default_rng(0), mixing=-0.1), ValueError, "mixing is -0.1"),
        (lambda i: stain.estimate_background(i.tolist()), TypeError, "image is list"),
    ],
)
def test_stain_refuses(call, error: type[Exception], says: str) -> None:  # noqa: ANN001
    with pytest.raises(error, match=says) as caught:
        call(draw_cell("monocyte", "site_a", 0).image)
    assert "\n" not in str(caught.value)
