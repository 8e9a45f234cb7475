"""Readers of Chula, Zheng 1 and 2, Choi, LISC, Bodzas, CytoData and BCCD: layouts made small, and real sets."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cytolib.data.cards import DataSet
from cytolib.data.images import load_image, load_mask
from cytolib.data.readers import bccd, bodzas, choi, chula, cytodata, lisc, zheng
from cytolib.data.readers.crops import cut_square
from cytolib.data.registry import DATA_SETS
from cytolib.data.taxonomy import CELL_TYPES, LABEL_SETS, MATURITY
from tests.cell_tables import blobs
from tests.small_sets import disc, refused

NAMES = ("chula", "zheng1", "zheng2", "choi", "lisc", "bodzas", "cytodata", "bccd")


# --- cards -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_card_is_complete(name: str) -> None:
    card: DataSet = DATA_SETS[name]
    for fact in (card.title, card.citation, card.source, card.licence, card.folder, card.layout, card.scale):
        assert fact and "\n" not in fact
    assert card.label_set in LABEL_SETS and card.caveats and card.steps
    assert not card.counts or sum(card.counts.values()) == card.n_cells


@pytest.mark.parametrize("module", [chula, zheng, choi, lisc, bodzas, cytodata, bccd])
def test_labels_map_to_harmonised_types(module: object) -> None:
    assert set(module.LABELS.values()) <= set(CELL_TYPES)  # type: ignore[attr-defined]


# --- what the published layouts give -----------------------------------------------------------------------------


def test_chula(bangkok: Path) -> None:
    reading = chula.read(bangkok, progress=False)
    cells = reading.cells.set_index("group")
    assert len(cells) == 6 and not refused(reading)
    assert Counter(cells["cell_type"]) == Counter([*chula.LABELS, "basophil"])
    assert set(cells["domain"]) == {"chula"} and cells.loc["S-3", "cell_type"] == "basophil"
    assert cells.loc["S-9", "um_per_px"] == 0.1 and cells.loc["S-0", "um_per_px"] == 0.13


@pytest.mark.parametrize("number, scale", [(1, 0.185), (2, 30 / 90)])
def test_zheng(jiangxi: Path, number: int, scale: float) -> None:
    reading = zheng.read(jiangxi, number=number, progress=False)
    cells = reading.cells
    assert not refused(reading) and len(cells) == 5
    assert cells["cell_type"].tolist() == ["neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil"]
    assert set(cells["domain"]) == {f"zheng{number}"} and np.allclose(cells["um_per_px"], scale)
    assert not cells["path"].str.contains("_mask").any()
    for path, mask in zip(cells["path"], cells["mask"], strict=True):
        assert mask == f"{Path(path).parent.as_posix()}/{Path(path).stem}_mask.png"
        assert set(np.unique(load_mask(jiangxi / mask))) == {0, 1, 2}


def test_zheng_as_published_has_bmp_images_beside_png_masks(jiangxi: Path) -> None:
    folder = jiangxi / "zheng" / "Dataset 1"
    for path in sorted(folder.glob("???.png")):
        load_image(path).save(path.with_suffix(".bmp"))
        (folder / f"{path.stem}_mask.png").replace(path)
    (jiangxi / "zheng").rename(jiangxi / "segmentation_WBC-master")
    cells = zheng.read(jiangxi, number=1, progress=False).cells
    assert [Path(path).suffix for path in cells["path"]] == [".bmp"] * 5
    assert cells["mask"].map(lambda path: Path(path).suffix).tolist() == [".png"] * 5


def test_choi_frames_are_two_domains_of_one_field(seoul: Path) -> None:
    cells = choi.read(seoul, progress=False).cells.set_index("source_label")
    assert cells["cell_type"].tolist() == [*MATURITY["erythroid"], *MATURITY["myeloid"]]  # folders 0 to 9
    assert Counter(cells["domain"]) == {"choi_144": 8, "choi_96": 2} and cells.loc["9", "domain"] == "choi_96"
    assert np.allclose(cells["um_per_px"] * cells["width"], 21.6)


def test_lisc_fields_are_cut_into_cells_with_masks(tehran: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "stage"
    reading = lisc.read(tehran, scratch, progress=False)
    cells = reading.cells.set_index("path")
    assert reading.image_root == "stage"
    assert sorted(cells.index) == ["lisc/baso/1_0.png", "lisc/eosi/1_0.png", "lisc/eosi/1_1.png"]
    assert cells["cell_type"].tolist() == ["basophil", "eosinophil", "eosinophil"]
    assert cells["group"].tolist() == ["baso/1", "eosi/1", "eosi/1"]  # cells of one field stay together
    assert list(refused(reading)) == ["LISC Database/Main Dataset/mixt/1.bmp"]
    for path, mask in cells["mask"].items():
        own = load_mask(scratch / mask)
        assert own.shape == (lisc.SIDE, lisc.SIDE) == load_image(scratch / str(path)).size
        rows, columns = np.nonzero(own == 2)
        assert abs(rows.mean() - lisc.SIDE / 2) < 2 and abs(columns.mean() - lisc.SIDE / 2) < 2
        assert 600 < (own == 2).sum() < 800  # this cell alone, not its neighbour


def test_lisc_outlines_without_nuclei_cut_but_give_no_mask(tehran: Path, tmp_path: Path) -> None:
    base = tehran / "LISC Database" / "Ground Truth Segmentation"
    disc(base / "Baso" / "areaforexpert1" / "1_expert.bmp", [(100, 100)], levels=False)
    cells = lisc.read(tehran, tmp_path / "stage", progress=False).cells
    assert cells["mask"].isna().tolist() == [True, False, False]


def test_lisc_cropped_copies_need_no_scratch(tmp_path: Path) -> None:
    for seed, label in enumerate(("Basophil", "neut")):
        blobs(tmp_path / "LISC" / label / "a.png", seed)
    reading = lisc.read(tmp_path, None, progress=False)
    assert sorted(reading.cells["cell_type"]) == ["basophil", "neutrophil"] and reading.image_root == "data"


def test_bodzas_folder_names_in_any_spelling(tmp_path: Path) -> None:
    spelt = (
        "Neutrophil Segment",
        "neutrophil_bands",
        "Segmented-Neutrophil",
        "Lymphoblasts",
        "NORMOBLAST",
        "Myeloblast",
    )
    for seed, name in enumerate(spelt):
        blobs(tmp_path / "bodzas" / name / "1.bmp", seed)
    found = bodzas.read(tmp_path, progress=False).cells["source_label"]
    assert Counter(found) == Counter(
        ["neutrophil_segment", "neutrophil_segment", "neutrophil_band", "lymphoblast", "normoblast", "myeloblast"]
    )


@pytest.mark.parametrize("parts", [("train", "val", "test"), ("",)])
def test_cytodata_divided_or_not(tmp_path: Path, parts: tuple[str, ...]) -> None:
    for seed, label in enumerate(cytodata.LABELS):
        blobs(tmp_path / "CytoData" / parts[seed % len(parts)] / label / "1.png", seed)
    cells = cytodata.read(tmp_path, progress=False).cells
    assert set(cells["cell_type"]) == set(cytodata.LABELS.values()) and len(cells) == 10


def test_bccd_takes_a_class_only_where_it_is_certain(fields: Path, tmp_path: Path) -> None:
    reading = bccd.read(fields, tmp_path / "stage", progress=False)
    cells = reading.cells
    assert Counter(cells["source_label"]) == {"Platelets": 2, "NEUTROPHIL": 1, "BASOPHIL": 1}
    assert cells.loc[cells["source_label"] == "Platelets", "group"].tolist() == ["BloodImage_00000", "BloodImage_00003"]
    assert set(cells["width"]) == {bccd.SIDE} and set(cells["um_per_px"]) == {bccd.UM_PER_PX}
    left_out = refused(reading)
    assert sorted(Path(path).stem for path in left_out) == [f"BloodImage_0000{k}" for k in (1, 2, 3)]
    assert all("which is which" in reason for reason in left_out.values())


def test_bccd_squares_stand_on_their_boxes(fields: Path, tmp_path: Path) -> None:
    cells = bccd.read(fields, tmp_path / "stage", progress=False).cells.set_index("source_label")
    field = np.asarray(load_image(fields / "BCCD_Dataset/BCCD/JPEGImages/BloodImage_00000.jpg"))
    square = np.asarray(load_image(tmp_path / "stage" / cells.loc["NEUTROPHIL", "path"]))
    half = bccd.SIDE // 2
    assert np.array_equal(square[half - 20 : half + 20, half - 20 : half + 20], field[256:296, 355:395])


def test_cut_square_fills_beyond_the_field() -> None:
    field = np.full((40, 60, 3), 200, dtype=np.uint8)
    field[0, 0] = (1, 2, 3)
    square = cut_square(field, (0, 0), 20)
    assert square.shape == (20, 20, 3) and tuple(square[10, 10]) == (1, 2, 3) and (square[:10] == 200).all()
    mask = cut_square(np.ones((40, 60), dtype=np.uint8), (0, 0), 20)
    assert mask.sum() == 100 and not mask[:10].any()


def test_cutting_twice_gives_the_same_cells(fields: Path, tmp_path: Path) -> None:
    first, second = (bccd.read(fields, tmp_path / name, progress=False).cells["cell_id"] for name in ("a", "b"))
    assert first.tolist() == second.tolist()


# --- the real sets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, refused, domains, masks, groups, identical",
    [
        ("chula", {"chula/lymphocyte/L-8_0730_1.jpg": "7 x 8 pixels"}, {"chula": 508}, 0, 29, 0),
        ("zheng1", {}, {"zheng1": 300}, 300, 0, 1),
        ("zheng2", {}, {"zheng2": 100}, 100, 0, 0),
        ("choi", {}, {"choi_144": 529, "choi_96": 98}, 0, 0, 0),
    ],
)
def test_real_totals(
    real_data: Path,
    tmp_path: Path,
    name: str,
    refused: dict[str, str],
    domains: dict[str, int],
    masks: int,
    groups: int,
    identical: int,
) -> None:
    card = DATA_SETS[name]
    reading = card.read(real_data, tmp_path)
    cells = reading.cells
    assert len(cells) + len(refused) == card.n_cells
    assert reading.refused["path"].tolist() == list(refused)
    assert all(words in reason for words, reason in zip(refused.values(), reading.refused["reason"], strict=True))
    lost = Counter(Path(path).parent.name for path in refused)
    assert Counter(cells["source_label"]) + lost == dict(card.counts)
    assert Counter(cells["domain"]) == domains
    assert cells["mask"].notna().sum() == masks and cells["group"].nunique() == groups
    assert cells["cell_id"].duplicated().sum() == identical
    assert cells["um_per_px"].between(0.09, 0.23).all()
    # a harmonised field of 22 um is more than a cell and less than a slide: no more than a third is padded
    assert (cells["um_per_px"] * cells["width"]).between(12, 31).all()


def test_real_masks_are_as_large_as_their_images(real_data: Path, tmp_path: Path) -> None:
    for name in ("zheng1", "zheng2"):
        cells = DATA_SETS[name].read(real_data, tmp_path).cells
        for cell in cells.iloc[::20].itertuples():
            mask = load_mask(real_data / str(cell.mask))
            assert mask.shape == (cell.height, cell.width) and set(np.unique(mask)) == {0, 1, 2}


def test_real_chula_class_is_confounded_with_slide(real_data: Path) -> None:
    cells = chula.read(real_data, progress=False).cells
    purest = cells.groupby("group")["cell_type"].agg(lambda types: types.value_counts(normalize=True).iloc[0])
    assert (purest == 1).sum() >= 20
