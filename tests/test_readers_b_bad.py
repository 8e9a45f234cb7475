"""Bad input to the readers of Chula, Zheng, Choi, LISC, CytoData and BCCD: refused by name, in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from cytolib.data.readers import bccd, chula, cytodata, lisc, zheng
from cytolib.data.readers.tables import read_rows
from cytolib.data.registry import DATA_SETS
from tests.cell_tables import blobs
from tests.small_sets import PLATELET, WHITE, disc, refused, replace_text, voc, write

# --- bad files: refused by name, the rest goes on ----------------------------------------------------------------


def test_chula_refuses_by_name(bangkok: Path) -> None:
    folder = bangkok / "chula"
    (folder / "lymphocyte" / "S-1_0001_0.png").write_bytes(b"not an image")
    (folder / "monocyte" / "S-4_0001_0.png").unlink()
    blobs(folder / "monocyte" / "stray.png", 77)
    write(folder / "monocyte" / "notes.txt", "x")
    replace_text(folder / "labels.csv", "S-2_0001_0.png,eosinophil", "S-2_0001_0.png,basophil")
    reading = chula.read(bangkok, progress=False)
    left_out = refused(reading)
    assert len(reading.cells) == 3 and len(left_out) == 5
    assert "not a readable image" in left_out["chula/lymphocyte/S-1_0001_0.png"]
    assert "no such file" in left_out["chula/monocyte/S-4_0001_0.png"]
    assert "does not name it" in left_out["chula/monocyte/stray.png"]
    assert "says basophil" in left_out["chula/eosinophil/S-2_0001_0.png"]
    assert "not an image" in left_out["chula/monocyte/notes.txt"]


def test_zheng_refuses_by_name(jiangxi: Path) -> None:
    folder = jiangxi / "zheng" / "Dataset 1"
    (folder / "001.png").write_bytes((folder / "001.png").read_bytes()[:100])  # truncated
    (folder / "002_mask.png").write_bytes(b"")
    disc(folder / "003_mask.png", [(30, 30)], (50, 50))
    (folder / "004.png").unlink()
    blobs(folder / "006.png", 99)
    reading = zheng.read(jiangxi, number=1, progress=False)
    left_out = refused(reading)
    assert reading.cells["source_label"].tolist() == ["2", "3", "5"]
    assert reading.cells["mask"].notna().tolist() == [False, False, True]  # a bad mask costs the mask, not the cell
    assert sorted(Path(path).name for path in left_out) == [
        "001.png",
        "002_mask.png",
        "003_mask.png",
        "004",
        "004_mask.png",
        "006.png",
    ]
    assert "50 x 50 pixels for an image of 60 x 60" in left_out["zheng/Dataset 1/003_mask.png"]


def test_lisc_refuses_by_name(tehran: Path, tmp_path: Path) -> None:
    base = tehran / "LISC Database"
    masks = base / "Ground Truth Segmentation" / "Baso" / "areaforexpert1"
    for number in (2, 3, 4, 5):
        blobs(base / "Main Dataset" / "Baso" / f"{number}.bmp", 10 + number, (400, 300))
    disc(masks / "3_expert.bmp", [(30, 30)], (40, 40))
    disc(masks / "4_expert.bmp", [])
    Image.new("L", (400, 300), 255).save(masks / "5_expert.bmp")
    reading = lisc.read(tehran, tmp_path / "stage", progress=False)
    left_out = {Path(path).name: reason for path, reason in refused(reading).items() if "Baso" in path}
    assert len(reading.cells) == 3 and sorted(left_out) == ["2.bmp", "3.bmp", "4.bmp", "5.bmp"]
    assert "2_expert.bmp" in left_out["2.bmp"] and "40 x 40" in left_out["3.bmp"]
    assert "no cell" in left_out["4.bmp"] and "edge of the field" in left_out["5.bmp"]


BILLION = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bbbb">]><annotation>&b;</annotation>'


@pytest.mark.parametrize(
    "content, says",
    [
        (BILLION.encode(), "document type"),
        (BILLION.replace("DOCTYPE", "doctype").encode(), "document type"),
        (b'<!DOCTYPE a SYSTEM "other.dtd"><annotation/>', "document type"),
        (BILLION.encode("utf-16"), "UTF-8"),
        (BILLION.encode("utf-16-le"), "UTF-8"),
        (b"<annotation><object>", "not readable XML"),
        (b"", "not readable XML"),
        (voc([WHITE]).replace("<xmin>260</xmin>", "").encode(), "4 numbers"),
        (voc([WHITE]).replace("260", "nan").encode(), "4 numbers"),
        (voc([WHITE]).replace("260", "1e999").encode(), "4 numbers"),
        (b" " * 1_000_001, "annotation has under"),
    ],
)
def test_bccd_refuses_bad_annotations_by_name(fields: Path, tmp_path: Path, content: bytes, says: str) -> None:
    (fields / "BCCD_Dataset/BCCD/Annotations/BloodImage_00000.xml").write_bytes(content)
    reading = bccd.read(fields, tmp_path / "stage", progress=False)
    reason = refused(reading)["BCCD_Dataset/BCCD/JPEGImages/BloodImage_00000.jpg"]
    assert says in reason and reason.startswith("BloodImage_00000.xml: ")
    assert sorted(reading.cells["source_label"]) == ["BASOPHIL", "Platelets"]


@pytest.mark.parametrize(
    "box, says",
    [
        (("WBC", 260, 177, 641, 376), "leaves its field of 640 x 480"),
        (("WBC", -1, 177, 491, 376), "leaves its field"),
        (("WBC", 491, 177, 260, 376), "leaves its field"),
        (("Parasite", 260, 177, 491, 376), "'Parasite'"),
    ],
)
def test_bccd_refuses_bad_boxes_by_name(
    fields: Path, tmp_path: Path, box: tuple[str, int, int, int, int], says: str
) -> None:
    write(fields / "BCCD_Dataset/BCCD/Annotations/BloodImage_00000.xml", voc([box, PLATELET]))
    reading = bccd.read(fields, tmp_path / "stage", progress=False)
    assert says in refused(reading)["BCCD_Dataset/BCCD/Annotations/BloodImage_00000.xml"]
    assert sorted(reading.cells["source_label"]) == ["BASOPHIL", "Platelets", "Platelets"]


# --- bad sets: one sentence that names the file ------------------------------------------------------------------


CHULA, ZHENG, BCCD = "chula/labels.csv", "zheng/Class Labels of Dataset 1.csv", "BCCD_Dataset/labels.csv"
FIRST = "neutrophil/S-0_0001_0.png"
BAD: dict[str, tuple[str, str, Callable[[Path], object], tuple[str, ...]]] = {
    "no folder": ("chula", "bangkok", lambda r: (r / "chula").rename(r / "x"), ("chula: no such folder",)),
    "no label file": ("chula", "bangkok", lambda r: (r / CHULA).unlink(), ("labels.csv: no such file",)),
    "empty label file": ("chula", "bangkok", lambda r: write(r / CHULA, ""), ("labels.csv", "an empty file")),
    "header alone": ("chula", "bangkok", lambda r: write(r / CHULA, "file,label,slide"), ("labels.csv", "no rows")),
    "no column": ("chula", "bangkok", lambda r: replace_text(r / CHULA, "slide,", "glass,"), ("labels.csv", "'slide'")),
    "no UTF-8": ("chula", "bangkok", lambda r: (r / CHULA).write_bytes(b"file,label\xff"), ("labels.csv", "UTF-8")),
    "open quote": ("chula", "bangkok", lambda r: replace_text(r / CHULA, FIRST, f'"{FIRST}'), ("labels.csv", "CSV")),
    "short row": ("chula", "bangkok", lambda r: replace_text(r / CHULA, ",S-0,S-0_0001", ""), ("line 2", "2 values")),
    "no image": ("chula", "bangkok", lambda r: replace_text(r / CHULA, FIRST, ""), ("line 2", "'file' is empty")),
    "row twice": (
        "chula",
        "bangkok",
        lambda r: replace_text(r / CHULA, "lymphocyte/S-1_0001_0.png", FIRST),
        ("line 3", "stands in line 2 too"),
    ),
    "path out": ("chula", "bangkok", lambda r: replace_text(r / CHULA, FIRST, f"../{FIRST}"), ("line 2", "leaves")),
    "label": (
        "chula",
        "bangkok",
        lambda r: replace_text(r / CHULA, f"{FIRST},neutrophil", f"{FIRST},neutrofil"),
        ("labels.csv, line 2", "'neutrofil'"),
    ),
    "no number": ("zheng1", "jiangxi", lambda r: replace_text(r / ZHENG, "\n2,2", "\nb,2"), ("line 3", "'b'")),
    "class 6": ("zheng1", "jiangxi", lambda r: replace_text(r / ZHENG, "\n2,2", "\n2,6"), ("line 3", "'6'")),
    "number twice": ("zheng1", "jiangxi", lambda r: replace_text(r / ZHENG, "\n2,2", "\n001,2"), ("line 3", "twice")),
    "odd name": (
        "zheng1",
        "jiangxi",
        lambda r: blobs(r / "zheng/Dataset 1/cell.png", 5),
        ("cell.png", "no number"),
    ),
    "two images": (
        "zheng1",
        "jiangxi",
        lambda r: blobs(r / "zheng/Dataset 1/001.jpg", 5),
        ("001.png", "001.jpg has the same number"),
    ),
    "no Dataset 2": (
        "zheng2",
        "jiangxi",
        lambda r: (r / "zheng/Dataset 2").rename(r / "x"),
        ("Dataset 2: no such folder",),
    ),
    "folder 10": ("choi", "seoul", lambda r: blobs(r / "choi_bone_marrow/10/1.png", 5), ("10/1.png", "label map")),
    "no class": (
        "choi",
        "seoul",
        lambda r: [p.rename(r / p.name) for p in (r / "choi_bone_marrow").iterdir()],
        ("no class folders",),
    ),
    "LISC class": (
        "lisc",
        "tehran",
        lambda r: blobs(r / "LISC Database/Main Dataset/blast/1.bmp", 5),
        ("blast", "no class of LISC"),
    ),
    "no masks": (
        "lisc",
        "tehran",
        lambda r: (r / "LISC Database/Ground Truth Segmentation").rename(r / "x"),
        ("Ground Truth Segmentation: no such folder",),
    ),
    "category": ("bccd", "fields", lambda r: replace_text(r / BCCD, "MONOCYTE", "BLAST"), ("line 5", "'BLAST'")),
    "field": ("bccd", "fields", lambda r: replace_text(r / BCCD, "3,3,", "3,x,"), ("line 5", "'x'")),
    "no categories": ("bccd", "fields", lambda r: (r / BCCD).unlink(), ("labels.csv: no such file",)),
    "no boxes": (
        "bccd",
        "fields",
        lambda r: (r / "BCCD_Dataset/BCCD/Annotations").rename(r / "x"),
        ("Annotations: no such folder",),
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_set_is_refused_in_one_sentence(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    name, fixture, spoil, says = BAD[kind]
    root: Path = request.getfixturevalue(fixture)
    spoil(root)
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        DATA_SETS[name].read(root, tmp_path / "stage", progress=False)  # type: ignore[call-arg]
    text = str(error.value)
    assert "\n" not in text and str(root) in text
    for part in says:
        assert part in text


def test_fields_need_a_scratch_folder(tehran: Path, fields: Path) -> None:
    for reader in (lisc.read, bccd.read):
        with pytest.raises(ValueError, match="scratch is None"):
            reader(fields, None, progress=False)


def test_cytodata_refuses_a_folder_beside_its_parts(tmp_path: Path) -> None:
    blobs(tmp_path / "cytodata" / "train" / "ig" / "1.png", 1)
    blobs(tmp_path / "cytodata" / "blast" / "1.png", 2)
    with pytest.raises(ValueError, match="blast: a folder beside train"):
        cytodata.read(tmp_path, progress=False)


def test_read_rows_takes_other_names_blanks_and_marks(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("﻿Image ID , Class\r\n\r\n 1 , 2 \r\n", encoding="utf-8")
    assert read_rows(path, (("image id",), ("class label", "class"))) == [(3, ("1", "2"))]
