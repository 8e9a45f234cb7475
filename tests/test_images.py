"""Images: cropped in micrometres, masks, perceptual hashes and near duplicates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance

from cytolib.data import duplicates, images, phantoms
from cytolib.data.prepare import NEAR_DUPLICATE_BITS
from tests.cell_tables import blobs


def test_crop_in_micrometres_and_transparency(tmp_path: Path) -> None:
    Image.new("RGBA", (100, 80), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    image = images.load_image(tmp_path / "clear.png", 10, um_per_px=0.2)
    assert image.size == (50, 50) and image.getpixel((3, 3)) == (255, 255, 255)
    assert images.load_image(tmp_path / "clear.png").size == (100, 80)


def test_a_cell_keeps_its_size_in_another_frame() -> None:
    """The same disc of 10 um in a wide frame, a tight one and at another resolution: half the field each time."""
    widths = []
    for side, um_per_px in ((200, 0.2), (90, 0.2), (400, 0.1)):
        y, x = np.mgrid[:side, :side] - (side - 1) / 2
        disc = np.where(np.hypot(x, y) * um_per_px <= 5, 40, 230).astype(np.uint8)
        field = images.crop_field(Image.fromarray(np.stack([disc] * 3, -1)), 20, um_per_px)
        middle = np.asarray(field.resize((100, 100)))[50, :, 0]
        widths.append(int((middle < 128).sum()))
        assert field.getpixel((0, 0)) == (230, 230, 230)  # what is missing is filled as the border is
    assert max(widths) - min(widths) <= 2 and abs(widths[0] - 50) <= 2


@pytest.mark.parametrize(
    ("field", "scale", "message"),
    [
        (-1.0, 0.2, "field_of_view_um is -1.0"),
        (float("nan"), 0.2, "field_of_view_um is nan"),
        (20.0, None, "um_per_px is None"),
        (20.0, 0.0, "um_per_px is 0.0"),
        (20.0, 1e-6, "too large"),
    ],
)
def test_fields_that_make_no_sense(tmp_path: Path, field: float, scale: float | None, message: str) -> None:
    Image.new("RGB", (10, 10)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=message):
        images.load_image(tmp_path / "a.png", field, scale)


def test_unreadable_images_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 this is not a picture")
    for read in (images.load_image, images.inspect_image, images.load_mask):
        with pytest.raises(ValueError, match="broken.jpg: not a readable image"):
            read(broken)
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "nowhere.png")


def test_masks_of_both_kinds(tmp_path: Path) -> None:
    truth = np.array([[0, 1], [2, 0]], dtype=np.uint8)
    Image.fromarray(truth).save(tmp_path / "numbers.png")
    Image.fromarray(np.array([0, 128, 255], dtype=np.uint8)[truth]).save(tmp_path / "greys.png")
    for name in ("numbers.png", "greys.png"):
        assert np.array_equal(images.load_mask(tmp_path / name), truth)
    Image.fromarray(np.full((4, 4), 190, dtype=np.uint8)).save(tmp_path / "photo.png")
    with pytest.raises(ValueError, match="photo.png: not a mask"):
        images.load_mask(tmp_path / "photo.png")


@pytest.fixture(scope="module")
def originals() -> list[Image.Image]:
    labels = ("neutrophil", "lymphocyte", "eosinophil", "monocyte")
    return [Image.fromarray(phantoms.draw_cell(labels[k % 4], "site_a", k).image) for k in range(40)]


def hashed(tmp_path: Path, pictures: dict[str, Image.Image]) -> pd.DataFrame:
    rows = []
    for name, image in pictures.items():
        image.save(tmp_path / name)
        facts = images.inspect_image(tmp_path / name)
        rows.append({"cell_id": name, "perceptual_hash": facts.perceptual_hash})
    return pd.DataFrame(rows)


def test_near_duplicates_are_the_same_picture_saved_again(tmp_path: Path, originals: list[Image.Image]) -> None:
    pictures = {f"{k}.png": image for k, image in enumerate(originals)}
    pictures |= {
        "0.jpg": originals[0],
        "1.small.png": originals[1].resize((80, 80)),
        "2.bright.png": ImageEnhance.Brightness(originals[2]).enhance(1.05),
    }
    pairs = duplicates.near_duplicates(hashed(tmp_path, pictures), NEAR_DUPLICATE_BITS)
    assert {frozenset((a, b)) for a, b in zip(pairs["first"], pairs["second"], strict=True)} == {
        frozenset(("0.png", "0.jpg")),
        frozenset(("1.png", "1.small.png")),
        frozenset(("2.png", "2.bright.png")),
    }


def test_distances_are_those_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2, 256)
    bits = np.array([base ^ (rng.random(256) < 0.04) for _ in range(30)])
    hashes = ["".join(f"{int(''.join(map(str, row[k : k + 4])), 2):x}" for k in range(0, 256, 4)) for row in bits]
    cells = pd.DataFrame({"cell_id": [f"{k:02d}" for k in range(30)], "perceptual_hash": hashes})
    distance = (bits[:, None] != bits[None]).sum(-1)
    expected = {
        (f"{a:02d}", f"{b:02d}", int(distance[a, b])) for a in range(30) for b in range(a) if distance[a, b] <= 18
    }
    expected = {(min(a, b), max(a, b), d) for a, b, d in expected}
    monkeypatch.setattr(duplicates, "_BLOCK", 7)
    found = duplicates.near_duplicates(cells, 18)
    assert {(min(a, b), max(a, b), d) for a, b, d in found.itertuples(index=False)} == expected and expected
    assert found["distance"].is_monotonic_increasing
    with pytest.raises(ValueError, match="max_distance is -1"):
        duplicates.near_duplicates(cells, -1)
    with pytest.raises(ValueError, match="differ in length"):
        duplicates.near_duplicates(cells.assign(perceptual_hash=[*hashes[1:], "ff"]), 3)
    with pytest.raises(ValueError, match="no hexadecimal"):
        duplicates.near_duplicates(cells.assign(perceptual_hash="z" * 64), 3)


def test_masks_of_other_modes_are_read_or_refused_never_misread(tmp_path: Path) -> None:
    truth = np.zeros((20, 20), dtype=np.uint8)
    truth[5:15, 5:15], truth[8:12, 8:12] = 1, 2

    def saved(image: Image.Image) -> Path:
        image.save(tmp_path / "mask.png")
        return tmp_path / "mask.png"

    for greys in (truth, truth * 127, truth.astype(np.uint16)):
        assert np.array_equal(images.load_mask(saved(Image.fromarray(greys))), truth)
    for colours in ([0, 0, 0, 128, 0, 0, 0, 128, 0], [0, 0, 0, 128, 128, 128, 255, 255, 255]):  # VOC's, and greys
        for mask in (truth, np.minimum(truth, 1)):
            drawn = Image.fromarray(mask, mode="P")
            drawn.putpalette(colours)
            assert np.array_equal(images.load_mask(saved(drawn)), mask)
    with pytest.raises(ValueError, match=r"mask.png: not a mask; its numbers go beyond 0 to 255"):
        images.load_mask(saved(Image.fromarray(truth.astype(np.uint16) * 32_767)))


def test_an_open_file_gives_what_its_path_gives(tmp_path: Path) -> None:
    blobs(tmp_path / "a.png", 1)
    with open(tmp_path / "a.png", "rb") as file:
        assert images.load_image(tmp_path / "a.png", opened=file) == images.load_image(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(b"nonsense")
    with open(tmp_path / "a.png", "rb") as file, pytest.raises(ValueError, match="a.png: not a readable image"):
        images.load_image(tmp_path / "a.png", opened=file)
