"""Morphometry: finite on anything, blind to mirrors and turns, true to sizes that are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cytolib import morphometry
from cytolib.data.phantoms import draw_cell
from cytolib.morphometry import FEATURE_NAMES, extract, regions

INDEX = {name: k for k, name in enumerate(FEATURE_NAMES)}
GLASS, PINK, PURPLE = (250, 228, 200), (215, 175, 195), (80, 40, 110)


def disc_cell(nucleus: float, cell: float, size: int = 128, centre: tuple[float, float] = (0.5, 0.5)) -> np.ndarray:
    """A pale disc with a dark disc in it; radii and centre in fractions of the field."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    radius = np.hypot(y - centre[0], x - centre[1])
    image = np.empty((size, size, 3), np.uint8)
    image[:] = GLASS
    image[radius < cell] = PINK
    image[radius < nucleus] = PURPLE
    return image


def value(image: np.ndarray, name: str) -> float:
    return float(extract(image)[INDEX[name]])


def hostile() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    white = {"constant_values": 255}
    checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    images = {f"flat{v}": np.full((50, 50, 3), v, np.uint8) for v in (0, 1, 127, 254, 255)}
    for height, width in ((1, 1), (1, 300), (300, 2), (7, 5)):
        images[f"shape{height}x{width}"] = rng.integers(0, 256, (height, width, 3), np.uint8)
    images |= {
        "noise": rng.integers(0, 256, (128, 128, 3), np.uint8),
        "binary": rng.choice(np.array([0, 255], np.uint8), (128, 128, 3)),
        "checks": np.repeat(checks[..., None], 3, axis=2),
        "red": np.full((64, 64, 3), (255, 0, 0), np.uint8),
        "one dark pixel": np.pad(np.zeros((1, 1, 3), np.uint8), ((60, 67), (60, 67), (0, 0)), **white),
        "one odd dark pixel": np.pad(np.zeros((1, 1, 3), np.uint8), ((63, 64), (63, 64), (0, 0)), **white),
        "dark but for a corner": np.pad(np.zeros((120, 128, 3), np.uint8), ((8, 0), (0, 0), (0, 0)), **white),
        "ramp": np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 256, 0).repeat(3, 2),
    }
    return images


@pytest.mark.parametrize("name", sorted(hostile()))
def test_finite_on_hostile_images(name: str) -> None:
    features = extract(hostile()[name])
    assert features.shape == (len(FEATURE_NAMES),) and features.dtype == np.float32
    assert np.isfinite(features).all()
    # no number so large that a standardised probe would see nothing else
    assert np.abs(features).max() < 100, FEATURE_NAMES[int(np.abs(features).argmax())]


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    grey=st.integers(0, 255),
    spread=st.floats(0, 120),
    side=st.tuples(st.integers(1, 200), st.integers(1, 200)),
)
def test_finite_on_random_images(seed: int, grey: int, spread: float, side: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    image = np.clip(rng.normal(grey, spread, (*side, 3)), 0, 255).astype(np.uint8)
    names = list(morphometry._features(morphometry.see(morphometry.resize(Image.fromarray(image), 64))))
    assert names == list(FEATURE_NAMES)  # no image adds, drops or moves a feature
    assert np.isfinite(extract(image, 64)).all()


def test_names() -> None:
    assert len(FEATURE_NAMES) == len(set(FEATURE_NAMES)) and 150 <= len(FEATURE_NAMES) <= 260
    groups = ("nucleus_", "cell_", "cytoplasm_", "glass_", "background_", "ring", "shell")
    assert {g for g in groups if not any(n.startswith(g) for n in FEATURE_NAMES)} == set()


def test_deterministic_and_leaves_its_input_alone() -> None:
    image = draw_cell("monocyte", "site_a", 3).image
    before = image.copy()
    assert extract(image).tobytes() == extract(image).tobytes()
    assert np.array_equal(image, before)


@pytest.mark.parametrize("turn", ["rot90", "flipud", "fliplr", "transpose"])
def test_mirrors_and_turns_change_little(turn: str) -> None:
    turns = {"rot90": np.rot90, "flipud": np.flipud, "fliplr": np.fliplr, "transpose": lambda a: a.swapaxes(0, 1)}
    cells = [draw_cell(label, "site_a", seed) for label in ("neutrophil", "lymphocyte") for seed in range(4)]
    spread = np.std([extract(cell.image) for cell in cells], axis=0)
    for label in ("neutrophil", "lymphocyte", "basophil"):
        image = draw_cell(label, "site_a", 5).image
        moved = extract(np.ascontiguousarray(turns[turn](image)))
        drift = np.abs(moved - extract(image)) / (spread + 0.02)
        # a mirror changes nothing; a quarter turn what Pillow's row-then-column resize and ties in watershed leave over
        assert np.quantile(drift, 0.95) < (0.001 if turn.startswith("flip") else 0.25)
        for key in ("nucleus_log_area", "nucleus_solidity", "nucleus_eccentricity", "nucleus_red_od_mean"):
            assert drift[INDEX[key]] < 0.1, key


@pytest.mark.parametrize("radius", [0.08, 0.12, 0.18, 0.22])
def test_area_of_a_disc_is_recovered(radius: float) -> None:
    image = disc_cell(radius, radius + 0.08)
    field = np.pi * radius**2
    assert np.exp(value(image, "nucleus_log_area")) == pytest.approx(field, rel=0.13)
    assert np.exp(value(image, "cell_log_area")) == pytest.approx(np.pi * (radius + 0.08) ** 2, rel=0.12)
    assert value(image, "nucleus_eccentricity") < 0.2
    assert value(image, "nucleus_solidity") > 0.92
    assert value(image, "nuclear_share") == pytest.approx((radius / (radius + 0.08)) ** 2, abs=0.08)


def test_size_in_field_fractions_not_pixels() -> None:
    large, small = disc_cell(0.15, 0.22, size=200), disc_cell(0.15, 0.22, size=100)
    for key in ("nucleus_log_area", "cell_log_area", "nucleus_log_thickness"):
        assert value(large, key) == pytest.approx(value(small, key), abs=0.08)


def test_shape_features_tell_ellipse_ring_and_lobes_apart() -> None:
    y, x = (np.mgrid[:128, :128] + 0.5) / 128 - 0.5
    round_, image = disc_cell(0.14, 0.24), disc_cell(0.0, 0.24)
    ellipse, ring, lobes = image.copy(), image.copy(), image.copy()
    ellipse[(y / 0.08) ** 2 + (x / 0.2) ** 2 < 1] = PURPLE
    ring[(np.hypot(y, x) < 0.16) & (np.hypot(y, x) > 0.07)] = PURPLE
    for angle in (0, 2.1, 4.2):
        lobes[np.hypot(y - 0.11 * np.sin(angle), x - 0.11 * np.cos(angle)) < 0.065] = PURPLE
    assert value(ellipse, "nucleus_eccentricity") == pytest.approx(np.sqrt(1 - 0.16), abs=0.04)
    assert value(round_, "nucleus_eccentricity") < 0.2
    assert value(ring, "hollow_nucleus") > 0.3 > value(round_, "hollow_nucleus")
    assert value(ring, "nucleus_holes") > 0.3 > value(round_, "nucleus_holes")
    assert value(lobes, "nucleus_parts") == pytest.approx(np.log(3))
    assert value(lobes, "nucleus_solidity") < 0.8 < value(round_, "nucleus_solidity")


def test_colour_and_texture_follow_the_picture() -> None:
    plain, rough = disc_cell(0.15, 0.24), disc_cell(0.15, 0.24)
    inside = regions(rough).nucleus
    rough[inside] = np.clip(rough[inside] + np.random.default_rng(0).normal(0, 25, (int(inside.sum()), 1)), 0, 255)
    assert value(rough, "nucleus_grey_band0") > value(plain, "nucleus_grey_band0") + 0.5
    assert value(rough, "nucleus_glcm1_entropy") > value(plain, "nucleus_glcm1_entropy") + 0.5
    assert value(plain, "nucleus_red_od_mean") == pytest.approx(np.log(GLASS[0] / PURPLE[0]), abs=0.1)
    assert value(plain, "cytoplasm_green_od_mean") == pytest.approx(np.log(GLASS[1] / PINK[1]), abs=0.1)
    assert value(plain, "glass_blue") == pytest.approx(GLASS[2] / 255, abs=0.01)


def test_glass_normalisation_takes_out_the_lamp() -> None:
    image = draw_cell("lymphocyte", "site_a", 2).image
    dimmed = np.round(image * np.array([0.9, 0.85, 0.8])).astype(np.uint8)
    for key in ("nucleus_red_od_mean", "nucleus_log_area", "cytoplasm_green_od_mean"):
        assert value(dimmed, key) == pytest.approx(value(image, key), abs=0.06)


@pytest.mark.parametrize("domain", ["site_a", "site_b", "site_c"])
def test_nucleus_and_cell_of_phantoms_are_found(domain: str) -> None:
    overlap: dict[str, list[float]] = {"nucleus": [], "cell": []}
    for label in ("neutrophil", "eosinophil", "lymphocyte", "monocyte", "erythroblast"):
        for seed in range(4):
            phantom = draw_cell(label, domain, seed, size=128)
            found = regions(phantom.image)
            for name, truth in (("nucleus", phantom.nucleus), ("cell", phantom.nucleus | phantom.cytoplasm)):
                mask = getattr(found, name)
                overlap[name].append((mask & truth).sum() / (mask | truth).sum())
    assert np.median(overlap["nucleus"]) > 0.75
    assert np.median(overlap["cell"]) > 0.75


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
        [[1]],
    ],
)
def test_refuses_what_is_no_image(image: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        extract(image)  # type: ignore[arg-type]


def test_refuses_a_size_too_small_for_its_windows() -> None:
    with pytest.raises(ValueError, match="at least 32"):
        extract(np.zeros((8, 8, 3), np.uint8), size=16)
