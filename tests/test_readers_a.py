"""Readers of Matek-19, MLL23, BMC and Raabin-WBC: published layouts made small, facts, and bad input."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cytolib.data.readers import bloodmnist, bmc, matek, mll23, pbc, raabin
from cytolib.data.registry import DATA_SETS
from cytolib.data.taxonomy import CELL_TYPES, LABEL_SETS

ALL = (matek, mll23, bmc, raabin)
FIRST = {
    matek: "AML-Cytomorphology_LMU/BAS/BAS_0001.tiff",
    mll23: "MLL23_dataset/basophil/basophil_0001.TIF",
    bmc: "BM_cytomorphology_data/BAS/BAS_00001.jpg",
    raabin: "Raabin-WBC/Train/Basophil/20190520_120000_0.jpg",
}


def picture(path: Path, seed: int, size: int = 16, mode: str = "RGB") -> Path:
    """A small image of its own colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (4, 4, len(mode)), dtype=np.uint8)
    Image.fromarray(pixels).resize((size, size), Image.Resampling.NEAREST).save(path)
    return path


def one_sentence(error: pytest.ExceptionInfo[BaseException], *names: str) -> None:
    """The message is one line and names what it is about."""
    text = str(error.value)
    assert "\n" not in text
    for name in names:
        assert name in text


def fill(root: Path, module: object, extra: tuple[str, ...] = ()) -> None:
    """Two images of the module's published layout, and those in ``extra``."""
    first = FIRST[module]  # type: ignore[index]
    for seed, path in enumerate((first, first.replace("0001", "0002").replace("_0.", "_1."), *extra)):
        picture(root / path, seed)


# --- what is published -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["matek", "mll23", "bmc", "raabin", *(f"bloodmnist{s}" for s in ("", "_64", "_224"))])
def test_card_is_complete(name: str) -> None:
    card = DATA_SETS[name]
    assert sum(card.counts.values()) == card.n_cells
    for fact in (card.title, card.citation, card.source, card.licence, card.folder, card.layout, card.scale):
        assert fact and "\n" not in fact
    assert card.label_set in LABEL_SETS
    assert card.caveats and (card.downloads or card.steps)


@pytest.mark.parametrize("module", [*ALL, bloodmnist])
def test_label_map_covers_every_published_label(module) -> None:
    assert set(module.LABELS) == set(module.COUNTS)
    assert set(module.LABELS.values()) <= set(CELL_TYPES)


@pytest.mark.parametrize(("module", "total"), [(mll23, 31_615), (matek, 18_295), (pbc, 14_543)])
def test_totals_of_the_eleven_harmonised_classes(module, total: int) -> None:
    """Totals of the published harmonisation (marrlab/MLL23); a typo would make a twelfth class."""
    eleven = LABEL_SETS["eleven"]
    counts: Counter[str] = Counter()
    for label, n in module.COUNTS.items():
        if module.LABELS[label] in eleven.of:
            counts[eleven.of[module.LABELS[label]]] += n
    assert sum(counts.values()) == total
    assert set(counts) <= set(eleven.classes) and len(eleven.classes) == 11
    # The published table swaps PBC's two count columns for five classes: 1,218 basophils, not 1,168.
    assert counts["basophil"] == {mll23: 616, matek: 79, pbc: 1218}[module]


def test_mll23_counts_files_not_the_description() -> None:
    assert DATA_SETS["mll23"].n_cells == 41_621  # the description says 41,906
    assert mll23.LABELS["normoblast"] == "erythroblast"


def test_bmc_counts_agree_with_the_fixed_fifth() -> None:
    """DinoBloom's fixed test split holds a fifth of each class, rounded down."""
    fifth = "ABE1 KSC8 FGC9 LYI13 OTH58 HAC81 BAS88 PEB548 MMZ611 NIF707 MON808 EOS1176 MYB1311 PLM1525 NGB1993 BLA2394"
    fifth += " PMO2398 ART3926 LYT5248 EBO5479 NGS5884"
    assert {word[:3]: int(word[3:]) for word in fifth.split()} == {name: n // 5 for name, n in bmc.COUNTS.items()}


def test_raabin_parts_sum_to_the_published_totals() -> None:
    assert [sum(part.values()) for part in raabin.PART_COUNTS.values()] == [10_175, 4339, 2119]


# --- published layouts -------------------------------------------------------------------------------------------


def test_matek_layout(tmp_path: Path) -> None:
    fill(tmp_path, matek, ("AML-Cytomorphology_LMU/MYO/MYO_0001.tiff", "AML-Cytomorphology_LMU/MMZ/MMZ_0001.tiff"))
    (tmp_path / "AML-Cytomorphology_LMU/annotations.dat").write_text("BAS/BAS_0001.tiff BAS nan nan\n")
    reading = matek.read(tmp_path, progress=False)
    cells = reading.cells.set_index("path")
    assert cells.loc["AML-Cytomorphology_LMU/MYO/MYO_0001.tiff", "cell_type"] == "myeloblast"
    assert cells.loc["AML-Cytomorphology_LMU/MMZ/MMZ_0001.tiff", "cell_type"] == "metamyelocyte"
    assert set(cells["domain"]) == {"matek"} and cells["group"].isna().all() and reading.refused.empty


def test_matek_images_with_an_alpha_channel(tmp_path: Path) -> None:
    picture(tmp_path / FIRST[matek], 0, mode="RGBA")
    assert len(matek.read(tmp_path, progress=False).cells) == 1


@pytest.mark.parametrize(
    ("module", "frame_um", "side"), [(matek, 29.0, 400), (mll23, 25.0, 288), (matek, 29.0, 180), (bmc, 21.5625, 250)]
)
def test_scale_comes_from_the_published_frame(tmp_path: Path, module, frame_um: float, side: int) -> None:
    """Also of a copy at another resolution."""
    picture(tmp_path / FIRST[module], 0, size=side)
    scale = module.read(tmp_path, progress=False).cells["um_per_px"]
    assert scale.tolist() == [pytest.approx(frame_um / side)]


def test_scale_of_an_odd_frame_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / FIRST[matek]
    path.parent.mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(path)
    assert matek.read(tmp_path, progress=False).cells["um_per_px"].isna().all()


@pytest.mark.parametrize("outer", ["aml-cytomorphology_lmu", "PKG - AML-Cytomorphology_LMU/AML-Cytomorphology_LMU"])
def test_folder_in_other_case_or_inside_another(tmp_path: Path, outer: str) -> None:
    picture(tmp_path / outer / "Bas" / "BAS_0001.tiff", 0)
    cells = matek.read(tmp_path, progress=False).cells
    assert cells["source_label"].tolist() == ["BAS"]
    assert (tmp_path / cells["path"].iloc[0]).is_file()


def test_label_with_a_blank_behind_it(tmp_path: Path) -> None:
    """As the published table of MLL23 writes it."""
    picture(tmp_path / "AML-Cytomorphology_LMU" / "LYA " / "LYA_0001.tiff", 0)
    assert matek.read(tmp_path, progress=False).cells["cell_type"].tolist() == ["lymphocyte_atypical"]


def test_mll23_layout(tmp_path: Path) -> None:
    fill(tmp_path, mll23, ("MLL23_dataset/normoblast/normoblast_0001.TIF", "MLL23_dataset/hairy_cell/hairy_cell_1.TIF"))
    (tmp_path / "MLL23_dataset/__MACOSX/basophil").mkdir(parents=True)
    picture(tmp_path / "MLL23_dataset/__MACOSX/basophil/_x.TIF", 9)
    (tmp_path / "MLL23_dataset/basophil/._basophil_0001.TIF").write_bytes(b"resource fork")
    reading = mll23.read(tmp_path, progress=False)
    assert reading.cells["cell_type"].value_counts().to_dict() == {"basophil": 2, "erythroblast": 1, "hairy_cell": 1}
    assert reading.refused.empty


def test_bmc_nested_folders(tmp_path: Path) -> None:
    fill(tmp_path, bmc, ("BM_cytomorphology_data/NGS/0001-1000/NGS_00001.jpg",))
    picture(tmp_path / "BM_cytomorphology_data/NGS/1001-2000/NGS_01001.jpg", 7)
    picture(tmp_path / "BM_cytomorphology_data/BLA/0001-1000/BLA_00001.jpg", 8)
    cells = bmc.read(tmp_path, progress=False).cells
    assert cells["source_label"].value_counts().to_dict() == {"BAS": 2, "NGS": 2, "BLA": 1}
    assert cells.set_index("source_label").loc["BLA", "cell_type"] == "blast"


def test_raabin_parts_are_domains(tmp_path: Path) -> None:
    fill(tmp_path, raabin, ("Raabin-WBC/Test-A/Monocyte/a.jpg", "Raabin-WBC/TestB/neutrophil/b.jpg"))
    cells = raabin.read(tmp_path, progress=False).cells
    domain = dict(zip(cells["source_label"], cells["domain"], strict=True))
    assert domain == {"Basophil": "raabin", "Monocyte": "raabin", "Neutrophil": "raabin_testb"}
    assert cells["um_per_px"].isna().all()
    assert DATA_SETS["raabin"].held_out_domains == ("raabin_testb",)


def test_raabin_part_in_a_folder_of_its_name(tmp_path: Path) -> None:
    picture(tmp_path / "raabin/TestB/TestB/Lymphocyte/b.jpg", 0)
    assert raabin.read(tmp_path, progress=False).cells["domain"].tolist() == ["raabin_testb"]


# --- bad input, all folder readers -------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ALL)
def test_missing_folder(tmp_path: Path, module) -> None:
    with pytest.raises(FileNotFoundError) as error:
        module.read(tmp_path, progress=False)
    one_sentence(error, str(tmp_path / FIRST[module].split("/")[0]))


@pytest.mark.parametrize("module", ALL)
def test_missing_data_root(tmp_path: Path, module) -> None:
    with pytest.raises(FileNotFoundError) as error:
        module.read(tmp_path / "nowhere", progress=False)
    one_sentence(error, str(tmp_path / "nowhere"))


@pytest.mark.parametrize("module", ALL)
def test_folder_without_classes(tmp_path: Path, module) -> None:
    (tmp_path / FIRST[module]).parents[1].mkdir(parents=True)
    with pytest.raises(ValueError, match="no class folders") as error:
        module.read(tmp_path, progress=False)
    one_sentence(error, str(tmp_path))


@pytest.mark.parametrize("module", ALL)
def test_class_folders_without_images(tmp_path: Path, module) -> None:
    (tmp_path / FIRST[module]).parent.mkdir(parents=True)
    with pytest.raises(ValueError, match="none of 0 files") as error:
        module.read(tmp_path, progress=False)
    one_sentence(error, str(tmp_path))


@pytest.mark.parametrize("module", ALL)
def test_class_that_the_map_lacks(tmp_path: Path, module) -> None:
    fill(tmp_path, module)
    odd = (tmp_path / FIRST[module]).parents[1] / "metymyelocyte" / "x.png"
    picture(odd, 5)
    with pytest.raises(ValueError, match="metymyelocyte") as error:
        module.read(tmp_path, progress=False)
    one_sentence(error, str(odd), "label map")


@pytest.mark.parametrize("fault", ["empty", "truncated", "text", "grey16", "html"])
@pytest.mark.parametrize("module", ALL)
def test_broken_image_is_refused_by_name_and_the_rest_goes_on(tmp_path: Path, module, fault: str) -> None:
    fill(tmp_path, module)
    broken = (tmp_path / FIRST[module]).with_name("broken.png")
    whole = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(whole, "PNG")
    if fault == "grey16":
        Image.fromarray(np.zeros((8, 8), np.uint16)).save(broken)
    else:
        content = {"empty": b"", "truncated": whole.getvalue()[:900], "text": b"not an image", "html": b"<html></html>"}
        broken.write_bytes(content[fault])
    reading = module.read(tmp_path, progress=False)
    assert len(reading.cells) == 2
    assert reading.refused["path"].tolist() == [broken.relative_to(tmp_path).as_posix()]
    assert "\n" not in reading.refused["reason"].iloc[0]


@pytest.mark.parametrize("module", ALL)
def test_file_that_is_no_image_is_listed(tmp_path: Path, module) -> None:
    fill(tmp_path, module)
    other = (tmp_path / FIRST[module]).with_name("Thumbs.db")
    other.write_bytes(b"x")
    reading = module.read(tmp_path, progress=False)
    assert len(reading.cells) == 2 and reading.refused["path"].tolist() == [other.relative_to(tmp_path).as_posix()]


def test_raabin_unknown_part(tmp_path: Path) -> None:
    fill(tmp_path, raabin)
    picture(tmp_path / "Raabin-WBC/TestC/Basophil/x.jpg", 5)
    with pytest.raises(ValueError, match="TestC") as error:
        raabin.read(tmp_path, progress=False)
    one_sentence(error, str(tmp_path / "Raabin-WBC" / "TestC"))


# --- Matek's second and third look -------------------------------------------------------------------------------


def test_matek_annotations(tmp_path: Path) -> None:
    file = tmp_path / "annotations.dat"
    file.write_text("BAS/BAS_0001.tiff BAS nan nan\nNGB/NGB_0002.tiff NGB NGS UNC\n\n")
    table = matek.read_annotations(file)
    assert list(table.columns) == ["path", "source_label", "second", "third"]
    assert table.iloc[1].tolist() == ["NGB/NGB_0002.tiff", "NGB", "NGS", "UNC"]
    assert table.iloc[0][["second", "third"]].isna().all()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"BAS/BAS_0001.tiff BAS nan\n", "line 1: 3 words"),
        (b"BAS/BAS_0001.tiff BAS nan nan\nBAS/BAS_0001.tiff BAS nan nan\n", "line 2: BAS/BAS_0001.tiff stands twice"),
        (b"BAS/BAS_0001.tiff BSA nan nan\n", "'BSA' is not in the label map"),
        (b"../BAS_0001.tiff BAS nan nan\n", "leaves the data set's folder"),
        (b"\n", "no lines"),
        (b"\xff\xfe\x00", "not a text file"),
    ],
)
def test_matek_bad_annotations(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "annotations.dat"
    file.write_bytes(content)
    with pytest.raises(ValueError) as error:
        matek.read_annotations(file)
    one_sentence(error, str(file), said)


def test_matek_missing_annotations(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        matek.read_annotations(tmp_path / "annotations.dat")
    one_sentence(error, "annotations.dat")
