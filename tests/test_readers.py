"""Readers of PBC and of one's own images; broken files are refused by name, the rest goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cytolib.data import prepare, registry, taxonomy
from cytolib.data.duplicates import drop_exact_duplicates
from cytolib.data.readers import folders, pbc
from tests.cell_tables import blobs, picture


@pytest.fixture
def barcelona(tmp_path: Path) -> Path:
    """A small folder in the published layout: subtypes, the lilac set-up, an exact and a conflicting duplicate."""
    folder = tmp_path / pbc.FOLDER
    for number in range(6):
        picture(folder / "neutrophil" / f"{'BNE' if number % 2 else 'SNE'}_{number}.png", (number, 10, 20))
        picture(folder / "ig" / f"{('MMY', 'PMY', 'MY')[number % 3]}_{number}.png", (number, 60, 20))
    picture(folder / "basophil" / "BA_1.png", (9, 9, 90))
    picture(folder / "basophil" / "BA_2.png", (9, 9, 90))
    picture(folder / "eosinophil" / "EO_1.png", (1, 60, 20))
    picture(folder / "eosinophil" / "EO_2.png", (90, 9, 9), (183, 184))
    return tmp_path


def test_pbc_layout(barcelona: Path) -> None:
    cells = pbc.read(barcelona, progress=False).cells
    by_name = cells.set_index(cells["path"].map(lambda p: Path(p).name))
    assert len(cells) == 16
    types = ["metamyelocyte", "promyelocyte", "myelocyte"]  # MMY and PMY are never read as MY
    assert by_name.loc[["MMY_3.png", "PMY_4.png", "MY_5.png"], "cell_type"].tolist() == types
    assert by_name["domain"].value_counts().to_dict() == {"pbc_main": 15, "pbc_lilac": 1}
    assert by_name.loc["EO_2.png", "domain"] == "pbc_lilac" and set(cells["um_per_px"]) == {0.2}


def test_exact_duplicates_stand_once_and_conflicts_not_at_all(barcelona: Path) -> None:
    labelled, _ = prepare.give_labels(pbc.read(barcelona, progress=False).cells, taxonomy.label_set("eight"))
    cells, report = drop_exact_duplicates(labelled)
    names = set(cells["path"].map(lambda p: Path(p).name))
    assert {"BA_1.png"} <= names and "BA_2.png" not in names
    assert not names & {"PMY_1.png", "EO_1.png"}
    assert sorted(report["reason"]) == ["identical image", *["identical image, other label"] * 2]


def test_published_totals() -> None:
    """17,092 images; 14,543 of them in the eleven harmonised classes (marrlab/MLL23), the rest left out."""
    eleven = taxonomy.label_set("eleven").of
    assert sum(pbc.COUNTS.values()) == 17_092 == registry.data_set("pbc").n_cells
    assert sum(n for name, n in pbc.COUNTS.items() if pbc.LABELS[name] in eleven) == 14_543
    # Two columns of the official table are swapped for basophils: 1,218 is the full set, 1,168 the subset.
    assert pbc.COUNTS["BA"] == 1_218


@pytest.mark.real_data
def test_pbc_as_it_is_here(real_data: Path) -> None:
    """Two domains by frame size, exact duplicates, one pair with conflicting classes; no broken file."""
    reading = pbc.read(real_data, progress=False)
    cells, left_out = prepare.give_labels(reading.cells, taxonomy.label_set("eight"))
    kept, report = drop_exact_duplicates(cells)
    assert set(cells["label"]) == set(taxonomy.CLASSES) - {"blast"} and left_out.empty and reading.refused.empty
    assert (report["reason"] == "identical image, other label").sum() == 2
    lilac = (cells["domain"] == "pbc_lilac").sum()
    assert (len(cells), lilac, len(report)) in {(14_519, 374, 15), (17_092, 453, 18)}
    assert set(cells["um_per_px"]) <= {0.1, 0.2}


def test_any_image_folder_and_its_synonyms(tmp_path: Path) -> None:
    for k, name in enumerate(("Neutrophils", "IG", "Band neutrophils", "smudge-cells")):
        picture(tmp_path / "mine" / name / "1.png", (k, 0, 0))
    card = registry.data_set("folder:mine")
    cells = card.read(tmp_path, tmp_path).cells
    assert card.name == "mine" and set(cells["domain"]) == {"mine"}
    assert sorted(cells["cell_type"]) == ["immature_granulocyte", "neutrophil", "neutrophil_band", "smudge_cell"]


def test_images_in_folders_below_the_class_are_not_lost(tmp_path: Path) -> None:
    """Whoever sorts a class by patient has them so; so does an archive that unpacks to a folder of its own name."""
    blobs(tmp_path / "mine" / "neutrophil" / "patient 1" / "a.png", 1)
    blobs(tmp_path / "mine" / "neutrophil" / "b.png", 2)
    reading = folders.read_image_folder(tmp_path, "mine", dataset="mine", progress=False)
    paths = ["mine/neutrophil/b.png", "mine/neutrophil/patient 1/a.png"]
    assert sorted(reading.cells["path"]) == paths and set(reading.cells["cell_type"]) == {"neutrophil"}
    blobs(tmp_path / pbc.FOLDER / pbc.FOLDER / "ig" / "MMY_1.png", 3)
    assert pbc.read(tmp_path, progress=False).cells["cell_type"].tolist() == ["metamyelocyte"]


def test_any_csv_file(tmp_path: Path) -> None:
    blobs(tmp_path / "lab" / "a.png", 1)
    blobs(tmp_path / "lab" / "b.png", 2)
    (tmp_path / "lab" / "cells.csv").write_text(
        "path,label,group,domain,um_per_px\n"
        "a.png,Neutrophil,p1,old microscope,0.12\nb.png,blasts,p2,,\nc.png,blast,p2,,\n"
    )
    reading = registry.data_set("csv:lab/cells.csv").read(tmp_path, tmp_path)
    cells = reading.cells
    assert cells[["path", "cell_type", "group", "domain"]].values.tolist() == [
        ["lab/a.png", "neutrophil", "p1", "old microscope"],
        ["lab/b.png", "blast", "p2", "cells"],
    ]
    assert cells["um_per_px"].tolist()[0] == 0.12 and np.isnan(cells["um_per_px"].tolist()[1])
    assert reading.refused["path"].tolist() == ["lab/c.png"] and "No such file" in reading.refused["reason"][0]


def test_a_bad_mask_costs_the_mask_and_not_the_cell(tmp_path: Path) -> None:
    lines = ["path,label,mask"]
    for name in ("good", "missing", "broken", "small"):
        blobs(tmp_path / f"{name}.png", len(lines))
        lines.append(f"{name}.png,blast,{name}_mask.png")
    Image.new("L", (64, 64)).save(tmp_path / "good_mask.png")
    Image.new("L", (9, 9)).save(tmp_path / "small_mask.png")
    (tmp_path / "broken_mask.png").write_bytes(b"x")
    (tmp_path / "cells.csv").write_text("\n".join(lines))
    reading = folders.read_csv_file(tmp_path, "cells.csv", dataset="mine", progress=False)
    assert reading.cells["mask"].fillna("").tolist() == ["good_mask.png", "", "", ""]
    reasons = dict(zip(reading.refused["path"], reading.refused["reason"], strict=True))
    assert set(reasons) == {"missing_mask.png", "broken_mask.png", "small_mask.png"}
    assert "No such file" in reasons["missing_mask.png"] and "9 x 9 pixels for an image" in reasons["small_mask.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.png,blast\n", r"columns \['path'\] are missing"),
        ("path,label\n", "it has no rows"),
        ("", "not a readable CSV file"),
        ('path,label\n"a.png,blast\n', "not a readable CSV file"),
        ("path,label\na.png,\n", "line 2: path is 'a.png' and label is ''"),
        ("path,label\na.png,blast\nb.png,leukocyte\n", "line 3: label 'leukocyte' is no cell type"),
        ("path,label\n../a.png,blast\n", "leaves the folder"),
        ("path,label\n/etc/passwd,blast\n", "leaves the folder"),
        ("path,label,mask\na.png,blast,../m.png\n", "mask '../m.png' leaves the folder"),
        ("path,label\na.png,blast\na.png,blast\n", "line 3: a.png stands twice"),
        ("path,label,um_per_px\na.png,blast,-1\n", "um_per_px is '-1'"),
        ("path,label,um_per_px\na.png,blast,big\n", "um_per_px is 'big'"),
        ("path,label\nmissing.png,blast\n", "none of 1 files .* is a readable image"),
    ],
)
def test_csv_refusals_are_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    blobs(tmp_path / "a.png", 1)
    (tmp_path / "cells.csv").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        folders.read_csv_file(tmp_path, "cells.csv", dataset="cells", progress=False)
    assert "\n" not in str(caught.value) and ("cells.csv" in str(caught.value) or "cells:" in str(caught.value))


def test_csv_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "cells.csv").write_bytes(b"path,label\n\xff\xfe\x00,blast\n")
    with pytest.raises(ValueError, match="not a readable CSV file"):
        folders.read_csv_file(tmp_path, "cells.csv", dataset="cells", progress=False)


def test_missing_places_say_what_to_do(tmp_path: Path) -> None:
    for name in ("pbc", "folder:mine", "csv:mine.csv"):
        with pytest.raises(FileNotFoundError, match="CYTOLIB_DATA"):
            registry.data_set(name).read(tmp_path, tmp_path)
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="no class folders"):
        registry.data_set("folder:mine").read(tmp_path, tmp_path)
    (tmp_path / "mine" / "neutrophil").mkdir()
    with pytest.raises(ValueError, match="none of 0 files"):
        registry.data_set("folder:mine").read(tmp_path, tmp_path)
    picture(tmp_path / "mine" / "leukocytes" / "1.png", (1, 2, 3))
    with pytest.raises(ValueError, match="1.png: label 'leukocytes' is not in the label map"):
        registry.data_set("folder:mine").read(tmp_path, tmp_path)
    with pytest.raises(ValueError, match="dataset is 'pcb'"):
        registry.data_set("pcb")
    picture(tmp_path / pbc.FOLDER / "neutrophil" / "XYZ_1.png", (1, 2, 3))
    with pytest.raises(ValueError, match="XYZ_1.png.*'XYZ' is not in the label map"):
        pbc.read(tmp_path, progress=False)


def test_broken_files_are_refused_by_name_and_the_rest_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "neutrophil"
    blobs(folder / "good.png", 1)
    whole = blobs(folder / "whole.jpg", 2).read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("not a picture")
    (folder / "notes.txt").write_text("not a picture either")
    (folder / "page.html").write_text("<html>the server said no</html>")
    Image.fromarray(np.full((9, 9), 4000, dtype=np.uint16)).save(folder / "sixteen_bit.png")
    Image.new("RGB", (7, 8)).save(folder / "tiny.png")
    Image.new("1", (9_000, 9_000)).save(folder / "bomb.png")  # ten kilobytes that unpack to 81 megapixels
    (folder / ".hidden.png").write_bytes(b"")
    reading = folders.read_image_folder(tmp_path, "mine", dataset="mine", progress=False)
    assert sorted(Path(p).name for p in reading.cells["path"]) == ["good.png", "whole.jpg"]
    reasons = reading.refused.set_index(reading.refused["path"].map(lambda p: Path(p).name))["reason"]
    expected = {
        "truncated.jpg": "not a readable image",
        "empty.png": "the file is empty",
        "text.png": "not a readable image",
        "notes.txt": "not an image by its name",
        "page.html": "not an image by its name",
        "sixteen_bit.png": "mode I;16",
        "bomb.png": "a single cell has under",
        "tiny.png": "7 x 8 pixels; a cell needs at least 16",
    }
    assert set(reasons.index) == set(expected)
    for name, words in expected.items():
        assert words in reasons[name] and "\n" not in reasons[name], reasons[name]
