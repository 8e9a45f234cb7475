"""Phantoms: pure functions of their seed, true masks, a long tail, sites that differ, classes that overlap a little."""

from __future__ import annotations

import hashlib
import inspect
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cytolib.data import phantoms
from cytolib.data.phantoms import CLASSES, DOMAINS, HELD_OUT, draw_cell, plan, write_phantoms
from cytolib.data.phantoms.vocabulary import cell_type
from cytolib.run import sha256

EVERY_CLASS = (*CLASSES, HELD_OUT)

#: How wide cells of a class are, micrometres: the smallest and largest median that a haematologist would accept.
DIAMETER_UM = {
    "neutrophil": (12, 15),
    "eosinophil": (12, 16),
    "basophil": (10, 14),
    "lymphocyte": (7, 12),
    "monocyte": (14, 20),
    "immature_granulocyte": (14, 20),
    "erythroblast": (8, 12),
    "platelet": (2, 4.5),
    "blast": (14, 20),
}


def _digest(label: str, domain: str, seed: int, size: int = 96) -> str:
    cell = draw_cell(label, domain, seed, size)
    parts = (cell.image.tobytes(), cell.nucleus.tobytes(), cell.cytoplasm.tobytes(), repr(cell.factors).encode())
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _background(image: np.ndarray) -> np.ndarray:
    """Median colour (3,) of the brightest tenth of an image."""
    pixels = image.reshape(-1, 3).astype(float)
    return np.median(pixels[pixels.mean(1) >= np.percentile(pixels.mean(1), 90)], axis=0)


@pytest.fixture(scope="module")
def cells() -> dict[str, list[phantoms.PhantomCell]]:
    """Thirty cells of each class at the main site."""
    return {label: [draw_cell(label, "site_a", 700 + k) for k in range(30)] for label in EVERY_CLASS}


def test_vocabulary_is_the_projects() -> None:
    from cytolib.data.taxonomy import CLASSES as HARMONISED

    assert EVERY_CLASS == tuple(HARMONISED)
    assert set(phantoms.CLASS_WEIGHTS) == set(CLASSES) and set(phantoms.DOMAIN_WEIGHTS) == set(DOMAINS)
    assert sum(phantoms.CLASS_WEIGHTS.values()) == pytest.approx(1)
    assert sum(phantoms.DOMAIN_WEIGHTS.values()) == pytest.approx(1)


def test_same_seed_gives_the_same_bytes_in_a_fresh_process() -> None:
    wanted = [(label, DOMAINS[k % 3], 40 + k, 96 if k % 2 else 80) for k, label in enumerate(EVERY_CLASS)]
    here = [_digest(*arguments) for arguments in wanted]
    # Backwards there: no cell may depend on what was drawn before it.
    code = "import hashlib; from cytolib.data.phantoms import draw_cell\n" + inspect.getsource(_digest)
    code += f"print(*reversed([_digest(*arguments) for arguments in {wanted[::-1]!r}]))"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert here == there
    assert len(set(here)) == len(here)


def test_cell_k_does_not_depend_on_how_many_are_planned() -> None:
    many = plan(100, 3, n_held_out=7)
    for n in (10, 60):  # within the first round through all classes, and past it
        few = plan(n, 3, n_held_out=4)
        pd.testing.assert_frame_equal(few.iloc[:n], many.iloc[:n])
        pd.testing.assert_frame_equal(few.iloc[n:].reset_index(drop=True), many.iloc[100:104].reset_index(drop=True))
    assert not many["cell_seed"].duplicated().any()
    other = plan(100, 4, n_held_out=7)
    assert not set(many["cell_seed"]) & set(other["cell_seed"])
    assert (many["label"] != other["label"]).any()


def test_long_tail_over_classes_and_sites_with_every_pair_present() -> None:
    small = plan(24, 0, n_held_out=3)
    assert set(zip(small["label"], small["domain"], strict=True)) == {
        *((label, domain) for label in CLASSES for domain in DOMAINS),
        *((HELD_OUT, domain) for domain in DOMAINS),
    }
    assert set(plan(8, 0, n_held_out=0)["label"]) == set(CLASSES)
    table = plan(20_000, 0, n_held_out=25)
    assert (table["label"] == HELD_OUT).sum() == 25 and (table["label"].iloc[-25:] == HELD_OUT).all()
    shares = table["label"].iloc[:-25].value_counts(normalize=True)
    for label in CLASSES:
        assert shares[label] == pytest.approx(phantoms.CLASS_WEIGHTS[label], abs=0.012)
    assert shares.max() / shares.min() > 15 and 0.01 < shares.min() < 0.03
    sites = table["domain"].value_counts(normalize=True)
    assert sites["site_a"] > 1.5 * sites["site_b"] > 2 * sites["site_c"]
    asked = plan(200, 0, n_held_out=5, class_weights={"monocyte": 1, "basophil": 1}, domain_weights={"site_b": 2})
    assert set(asked["label"]) == {"monocyte", "basophil", HELD_OUT} and set(asked["domain"]) == {"site_b"}


@pytest.mark.parametrize("label", EVERY_CLASS)
def test_masks_are_true(cells: dict[str, list[phantoms.PhantomCell]], label: str) -> None:
    diameters = []
    for cell in cells[label]:
        assert cell.image.shape == (96, 96, 3) and cell.image.dtype == np.uint8
        assert cell.nucleus.shape == cell.cytoplasm.shape == (96, 96)
        assert cell.nucleus.dtype == cell.cytoplasm.dtype == bool
        assert not (cell.nucleus & cell.cytoplasm).any()
        green = cell.image[..., 1].astype(float)
        body = cell.nucleus | cell.cytoplasm
        assert body.any() and green[body].mean() < _background(cell.image)[1] - 15
        assert body[46:50, 46:50].any() or label == "platelet"
        if label == "platelet":
            assert not cell.nucleus.any()
        else:
            assert cell.cytoplasm.any() and cell.nucleus.any()
            assert green[cell.nucleus].mean() < green[cell.cytoplasm].mean() - (0 if label == "basophil" else 15)
            # The nucleus lies inside: cytoplasm, not background, is what surrounds it.
            grown = np.zeros_like(cell.nucleus)
            for axis in (0, 1):
                for step in (-1, 1):
                    grown |= np.roll(cell.nucleus, step, axis)
            assert (grown & ~body).sum() <= 0.08 * (grown & ~cell.nucleus).sum()
        share = cell.nucleus.sum() / body.sum()
        assert cell.factors["nucleus_area_fraction"] == pytest.approx(share)
        diameters.append(cell.factors["cell_diameter_um"])
    low, high = DIAMETER_UM[label]
    assert low <= np.median(diameters) <= high


def test_same_seed_at_another_site_is_the_same_cell_seen_otherwise() -> None:
    here, there = draw_cell("monocyte", "site_a", 5), draw_cell("monocyte", "site_c", 5)
    for name in ("subtype", "nuclear_stain", "granule_density", "vacuoles", "red_cells", "chromatin_coarseness"):
        assert here.factors[name] == there.factors[name]
    assert here.factors["cell_diameter_um"] == pytest.approx(float(there.factors["cell_diameter_um"]), rel=0.05)
    assert np.abs(here.image.astype(float) - there.image).mean() > 15


def test_any_size_shows_the_same_field() -> None:
    cells_of = {size: draw_cell("eosinophil", "site_b", 9, size) for size in (64, 96, 256)}
    for size, cell in cells_of.items():
        assert cell.image.shape == (size, size, 3) and cell.nucleus.shape == (size, size)
        assert cell.factors["cell_diameter_um"] == pytest.approx(
            float(cells_of[256].factors["cell_diameter_um"]), rel=0.05
        )
    small = np.asarray(Image.fromarray(cells_of[256].image).resize((64, 64), Image.Resampling.BOX)).astype(float)
    assert np.corrcoef(small.ravel(), cells_of[64].image.astype(float).ravel())[0, 1] > 0.9


def test_sites_differ_in_background_and_classes_stay_recognisable() -> None:
    colour = {}
    for domain in DOMAINS:
        drawn = [draw_cell(CLASSES[k % 8], domain, 60 + k) for k in range(24)]
        colour[domain] = np.median([_background(cell.image) for cell in drawn], axis=0)
        contrast = [_background(c.image)[1] - c.image[..., 1][c.nucleus].mean() for c in drawn if c.nucleus.any()]
        assert min(contrast) > 50  # nuclei stand out at every site
    for a, b in (("site_a", "site_b"), ("site_a", "site_c"), ("site_b", "site_c")):
        assert np.abs(colour[a] - colour[b]).max() > 20
    assert colour["site_a"][0] - colour["site_a"][2] > 35  # salmon
    assert abs(colour["site_b"][0] - colour["site_b"][2]) < 25  # lilac


def _ten_features(cell: phantoms.PhantomCell) -> list[float]:
    """Ten textbook measurements, with the true masks: sizes, N/C, optical density of cytoplasm and nucleus, texture."""
    density = -np.log(np.maximum(cell.image.astype(float), 4) / _background(cell.image))
    body = cell.nucleus | cell.cytoplasm
    nucleus = cell.nucleus if cell.nucleus.any() else body
    cytoplasm = cell.cytoplasm if cell.cytoplasm.any() else body
    inner = nucleus[1:-1, 1:-1] & nucleus[:-2, 1:-1] & nucleus[2:, 1:-1] & nucleus[1:-1, :-2] & nucleus[1:-1, 2:]
    return [
        float(body.sum()),
        float(cell.nucleus.sum() / body.sum()),
        float(inner.sum() / nucleus.sum()),
        *density[cytoplasm].mean(0),
        *density[nucleus].mean(0)[:2],
        float(density[cytoplasm][:, 1].std()),
        float(density[nucleus][:, 1].std()),
    ]


def test_ten_classical_features_tell_classes_apart_but_not_perfectly() -> None:
    def sample(start: int, n: int) -> tuple[np.ndarray, np.ndarray]:
        drawn = [(draw_cell(label, DOMAINS[k % 2], start + k), label) for label in EVERY_CLASS for k in range(n)]
        return np.array([_ten_features(cell) for cell, _ in drawn]), np.array([label for _, label in drawn])

    X, y = sample(0, 60)
    X_new, y_new = sample(10_000, 30)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(X, y)
    score = balanced_accuracy_score(y_new, model.predict(X_new))
    print(f"balanced accuracy of ten classical features: {score:.3f}")
    assert 0.70 < score < 0.985


def test_written_folder_is_what_its_table_says(tmp_path: Path) -> None:
    table = write_phantoms(tmp_path / "a", 12, seed=1, size=64, n_held_out=2, progress=False)
    again = write_phantoms(tmp_path / "b", 12, seed=1, size=64, n_held_out=2, progress=False)
    pd.testing.assert_frame_equal(table, again)
    assert sha256(tmp_path / "a") == sha256(tmp_path / "b")
    assert list(table) == [
        *("cell_id", "path", "label", "cell_type", "source_label", "domain"),
        *("dataset", "group", "split", "um_per_px", "mask"),
    ]
    assert len(table) == 14 and set(table["split"]) == {""} and set(table["dataset"]) == {"phantoms"}
    assert table["group"].isna().all() and table["cell_id"].is_unique
    planned = plan(12, 1, n_held_out=2)
    assert list(table["label"]) == list(planned["label"]) and list(table["domain"]) == list(planned["domain"])
    factors = pd.read_parquet(tmp_path / "a" / "factors.parquet")
    assert list(factors["cell_id"]) == list(table["cell_id"]) and (factors["label"] == table["label"]).all()
    for k, row in enumerate(planned.itertuples()):
        file = tmp_path / "a" / table["path"][k]
        assert table["path"][k] == f"images/{row.label}/{k:06d}.png" and sha256(file) == table["cell_id"][k]
        cell = draw_cell(row.label, row.domain, row.cell_seed, 64)
        assert (np.asarray(Image.open(file)) == cell.image).all()
        mask = np.asarray(Image.open(tmp_path / "a" / table["mask"][k]))
        assert table["um_per_px"][k] == cell.factors["um_per_px"]
        assert table["source_label"][k] == cell.factors["subtype"]
        assert table["cell_type"][k] == cell_type(row.label, str(cell.factors["subtype"]))
        assert ((mask == 2) == cell.nucleus).all() and ((mask == 1) == cell.cytoplasm).all()


def test_every_drawn_subtype_has_a_harmonised_name() -> None:
    from cytolib.data.taxonomy import CELL_TYPES

    drawn = {
        (label, str(draw_cell(label, "site_a", k, 64).factors["subtype"])) for label in EVERY_CLASS for k in range(60)
    }
    named = {pair: cell_type(*pair) for pair in drawn}
    assert set(named.values()) <= set(CELL_TYPES)
    assert named["neutrophil", "band"] == "neutrophil_band" and named["blast", "blast"] == "blast"
    finer = {label: {name for (cls, _), name in named.items() if cls == label} for label in EVERY_CLASS}
    assert finer["neutrophil"] == {"neutrophil_band", "neutrophil_segmented"}
    assert finer["immature_granulocyte"] == {"promyelocyte", "myelocyte", "metamyelocyte"}
    assert len(finer["erythroblast"]) == 3 and all(name.endswith("_erythroblast") for name in finer["erythroblast"])
    assert all(finer[label] == {label} for label in ("eosinophil", "basophil", "lymphocyte", "monocyte", "platelet"))


def test_fast_enough_to_be_drawn_anew_in_every_run() -> None:
    planned = plan(240, 5, n_held_out=0)
    draw_cell("monocyte", "site_a", 0)
    start = time.process_time()  # of this process: what others do to the machine is no concern of the test
    for row in planned.itertuples():
        draw_cell(row.label, row.domain, row.cell_seed)
    rate = len(planned) / (time.process_time() - start)
    print(f"phantoms: {rate:.0f} images/s of one core at 96 px")
    assert rate > 120


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (("neutrophile", "site_a", 0), ValueError, "neutrophile.*neutrophil, eosinophil"),
        (("neutrophil", "site_z", 0), ValueError, "site_z.*site_a, site_b, site_c"),
        (("neutrophil", "site_a", -1), ValueError, "seed is -1"),
        (("neutrophil", "site_a", 0.5), TypeError, "seed is 0.5"),
        (("neutrophil", "site_a", 0, 63), ValueError, "size is 63.*64 to 256"),
        (("neutrophil", "site_a", 0, 257), ValueError, "size is 257.*64 to 256"),
        (("neutrophil", "site_a", 0, 96.0), TypeError, "size is 96.0"),
    ],
)
def test_draw_cell_refuses(arguments: tuple, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        draw_cell(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"n_cells": -1, "seed": 0}, "n_cells is -1"),
        ({"n_cells": 5, "seed": -2}, "seed is -2"),
        ({"n_cells": 5, "seed": 0, "n_held_out": -3}, "n_held_out is -3"),
        ({"n_cells": 5, "seed": 0, "class_weights": {"blasts": 1}}, "class_weights names 'blasts'"),
        ({"n_cells": 5, "seed": 0, "domain_weights": {"site_a": -1}}, "domain_weights.*site_a.*-1"),
        ({"n_cells": 5, "seed": 0, "domain_weights": {"site_a": 0}}, "domain_weights has no positive weight"),
    ],
)
def test_plan_refuses(arguments: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        plan(**arguments)


def test_refused_arguments_leave_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="size is 32"):
        write_phantoms(tmp_path / "x", 3, 0, size=32)
    with pytest.raises(ValueError, match="n_cells is -3"):
        write_phantoms(tmp_path / "x", -3, 0)
    assert not (tmp_path / "x").exists()
