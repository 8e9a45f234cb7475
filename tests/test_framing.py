"""The window of a cell: the same whatever the crop, the magnification and the lamp; defined for any image."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from PIL import Image

from cytolib import run
from cytolib.data import phantoms
from cytolib.framing import WHITE, cell_window, source_sha256

SIDE = 176


@pytest.fixture(scope="module")
def fields() -> list[np.ndarray]:
    names = ("neutrophil", "eosinophil", "lymphocyte", "monocyte")
    return [phantoms.draw_cell(name, "site_a", seed=k, size=SIDE).image for k, name in enumerate(names)]


def window(field: np.ndarray) -> np.ndarray:
    return cell_window(Image.fromarray(field), 96).astype(float)


def coarse(field: np.ndarray) -> np.ndarray:
    """Window as 16 x 16 pixels, in a row: a pixel's shift does not matter."""
    return window(field).reshape(16, 6, 16, 6, 3).mean(axis=(1, 3)).ravel()


def test_the_lamp_is_taken_out(fields: list[np.ndarray]) -> None:
    for field in fields:
        tinted = (field * np.array([0.95, 0.85, 0.7])).round().astype(np.uint8)
        assert np.abs(window(tinted) - window(field)).mean() < 3
        assert np.abs(field.astype(float) - tinted).mean() > 15  # the tint is no small one


def test_glass_is_white(fields: list[np.ndarray]) -> None:
    for field in fields:
        corner = np.median(cell_window(Image.fromarray(field), 96, margin=2.0).reshape(-1, 3), axis=0)
        assert np.abs(corner - 255 * WHITE).max() < 60
        bright = np.percentile(window(field).reshape(-1, 3), 90, axis=0)
        assert bright == pytest.approx(np.full(3, 255 * WHITE), abs=20)


def test_magnification_is_taken_out(fields: list[np.ndarray]) -> None:
    for field in fields:
        large = np.asarray(Image.fromarray(field).resize((264, 264), Image.Resampling.BICUBIC))
        assert np.corrcoef(coarse(field), coarse(large))[0, 1] > 0.999
    assert np.corrcoef([coarse(field) for field in fields])[np.triu_indices(4, 1)].max() < 0.7  # of different cells


def test_the_crop_is_taken_out_of_nearly_all_cells() -> None:
    """Of all classes and sites; a cell that touches another one may be cut off elsewhere in another crop."""
    alike = []
    for k, (name, site) in enumerate(product(phantoms.CLASSES, phantoms.DOMAINS)):
        field = phantoms.draw_cell(name, site, seed=k, size=SIDE).image
        tight = np.asarray(Image.fromarray(field).crop((20, 24, 160, 164)))
        alike.append(np.corrcoef(coarse(field), coarse(tight))[0, 1])
    assert len(alike) == 24 and np.median(alike) > 0.97
    assert np.mean(np.array(alike) > 0.85) > 0.8


@pytest.mark.parametrize("size", [(1, 1), (7, 40), (300, 20), (64, 64)])
@pytest.mark.parametrize("value", [0, 128, 255])
def test_any_image_has_a_window(size: tuple[int, int], value: int) -> None:
    found = cell_window(Image.new("L", size, value), 32)
    assert found.shape == (32, 32, 3) and found.dtype == np.uint8


def test_the_code_is_part_of_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    found = set()
    for changed in ("", "framing.py", "__init__.py", "colour.py", "segment.py"):
        monkeypatch.setattr(run, "sha256", lambda path, name=changed: f"{path.name}{path.name == name}")
        found.add(source_sha256.__wrapped__())
    assert len(found) == 5 and {len(text) for text in found} == {64}
