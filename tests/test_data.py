"""The cell table, the readers and the splits: what they promise and what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cytolib.data import images, readers, registry, splits, table, taxonomy


def _image(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (180, 181)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def pbc(tmp_path: Path) -> Path:
    """A small folder in the published layout: subtypes, the lilac set-up, an exact and a conflicting duplicate."""
    folder = tmp_path / readers.PBC_FOLDER
    for number in range(6):
        _image(folder / "neutrophil" / f"{'BNE' if number % 2 else 'SNE'}_{number}.png", (number, 10, 20))
        _image(folder / "ig" / f"MMY_{number}.png", (number, 60, 20))
    _image(folder / "basophil" / "BA_1.png", (9, 9, 90))
    _image(folder / "basophil" / "BA_2.png", (9, 9, 90))
    _image(folder / "eosinophil" / "EO_1.png", (1, 60, 20))
    _image(folder / "eosinophil" / "EO_2.png", (90, 9, 9), (183, 184))
    return tmp_path


def test_pbc_layout(pbc: Path) -> None:
    cells = readers.read_pbc(pbc, progress=False)
    assert len(cells) == 16
    by_path = cells.set_index(cells["path"].map(lambda p: Path(p).name))
    assert by_path.loc["MMY_3.png", ["label", "source_label"]].tolist() == ["immature_granulocyte", "MMY"]
    assert by_path.loc["BNE_1.png", "label"] == "neutrophil"
    assert by_path["domain"].value_counts().to_dict() == {"pbc_main": 15, "pbc_lilac": 1}
    assert by_path.loc["EO_2.png", "domain"] == "pbc_lilac"


def test_exact_duplicates_stand_once_and_conflicts_not_at_all(pbc: Path) -> None:
    cells, report = splits.drop_exact_duplicates(readers.read_pbc(pbc, progress=False))
    names = set(cells["path"].map(lambda p: Path(p).name))
    assert {"BA_1.png"} <= names and "BA_2.png" not in names
    assert not names & {"MMY_1.png", "EO_1.png"}
    assert sorted(report["reason"]) == [
        "identical image",
        "identical image, other label",
        "identical image, other label",
    ]


def test_round_trip_and_equal_bytes(pbc: Path, tmp_path: Path) -> None:
    cells, _ = splits.drop_exact_duplicates(readers.read_pbc(pbc, progress=False))
    cells = splits.draw_split(cells, held_out_domains=["pbc_lilac"])
    table.write_cells(cells, tmp_path / "a.parquet")
    table.write_cells(cells, tmp_path / "b.parquet")
    back = table.read_cells(tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(back, table.as_cell_table(cells))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert back.attrs["image_root"] == "data"


def _cells(n: int = 100) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    labels = rng.choice(["neutrophil", "basophil"], n, p=[0.8, 0.2])
    return pd.DataFrame(
        {
            "cell_id": [f"{k:064x}" for k in range(n)],
            "path": [f"a/{k}.png" for k in range(n)],
            "label": labels,
            "source_label": labels,
            "domain": "site",
            "dataset": "toy",
            "group": None,
            "split": "train",
        }
    )


def test_split_is_stratified_and_order_free() -> None:
    cells = _cells()
    drawn = splits.draw_split(cells, val=0.2, test=0.2, seed=3)
    share = drawn.groupby("label")["split"].value_counts(normalize=True).unstack()
    assert share["test"].between(0.15, 0.25).all() and share["val"].between(0.15, 0.25).all()
    shuffled = splits.draw_split(cells.sample(frac=1, random_state=1), val=0.2, test=0.2, seed=3)
    assert drawn.set_index("cell_id")["split"].equals(shuffled.set_index("cell_id")["split"].loc[drawn["cell_id"]])
    assert not drawn["split"].equals(splits.draw_split(cells, val=0.2, test=0.2, seed=4)["split"])


def test_groups_never_cross_splits() -> None:
    cells = _cells().assign(group=[f"patient{k // 5}" for k in range(100)])
    drawn = splits.draw_split(cells, val=0.3, test=0.3)
    assert (drawn.groupby("group")["split"].nunique() == 1).all()
    assert set(drawn["split"]) == {"train", "val", "test"}
    table.as_cell_table(drawn)
    broken = drawn.assign(split=["train", "test"] * 50)
    with pytest.raises(ValueError, match="several splits"):
        table.as_cell_table(broken)


def test_held_out_cells_are_never_trained_on() -> None:
    drawn = splits.draw_split(_cells(), held_out_classes=["basophil"])
    assert (drawn.loc[drawn["label"] == "basophil", "split"] == "held_out").all()
    assert "held_out" not in set(drawn.loc[drawn["label"] != "basophil", "split"])


def test_a_split_is_a_file(tmp_path: Path) -> None:
    drawn = splits.draw_split(_cells(), seed=5)
    splits.write_split(drawn, tmp_path / "split.csv")
    again = splits.apply_split(_cells().sample(frac=1, random_state=0), tmp_path / "split.csv")
    assert again.set_index("cell_id")["split"].sort_index().equals(drawn.set_index("cell_id")["split"].sort_index())
    with pytest.raises(ValueError, match="no split for 5 cells"):
        splits.apply_split(_cells(105), tmp_path / "split.csv")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "leukocyte"}, "bad label"),
        ({"split": "dev"}, "bad split"),
        ({"cell_id": "abc"}, "bad cell_id"),
        ({"cell_id": "0" * 64}, "bad cell_id"),
        ({"path": "../elsewhere.png"}, "bad path"),
        ({"path": "/etc/passwd"}, "bad path"),
        ({"domain": None}, "bad domain"),
    ],
)
def test_cell_table_refuses(change: dict[str, str | None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        table.as_cell_table(_cells().assign(**change))


def test_refusals_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="CYTOLIB_DATA"):
        readers.read_pbc(tmp_path)
    (tmp_path / readers.PBC_FOLDER / "neutrophil").mkdir(parents=True)
    with pytest.raises(ValueError, match="hold no images"):
        readers.read_pbc(tmp_path)
    _image(tmp_path / readers.PBC_FOLDER / "neutrophil" / "XYZ_1.png", (1, 2, 3))
    with pytest.raises(ValueError, match="XYZ_1.png.*'XYZ' is not in the label map"):
        readers.read_pbc(tmp_path, progress=False)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 this is not a picture")
    with pytest.raises(ValueError, match="broken.jpg: not a readable image"):
        images.load_image(broken)
    broken.with_suffix(".parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(ValueError, match="broken.parquet: not a readable parquet"):
        table.read_cells(broken.with_suffix(".parquet"))
    with pytest.raises(ValueError, match="dataset is 'pcb'"):
        registry.data_set("pcb")


def test_any_image_folder_and_its_synonyms(tmp_path: Path) -> None:
    for name in ("Neutrophils", "IG"):
        _image(tmp_path / "mine" / name.lower() / "1.png", (len(name), 0, 0))
    cells, card = registry.load_cells("folder:mine", tmp_path)
    assert sorted(cells["label"]) == ["immature_granulocyte", "neutrophil"] and card.name == "mine"


def test_crop_and_transparency(tmp_path: Path) -> None:
    Image.new("RGBA", (100, 80), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    image = images.load_image(tmp_path / "clear.png", field_of_view=0.5)
    assert image.size == (50, 40) and image.getpixel((3, 3)) == (255, 255, 255)
    with pytest.raises(ValueError, match="field_of_view"):
        images.load_image(tmp_path / "clear.png", field_of_view=1.5)


def test_every_map_ends_in_the_taxonomy() -> None:
    for label_map in (taxonomy.PBC, taxonomy.COMMON):
        assert set(label_map.values()) <= set(taxonomy.CLASSES)


@pytest.mark.real_data
def test_pbc_as_published(real_data: Path) -> None:
    """Counts of the set at hand: two domains by frame size, exact duplicates, one pair with conflicting classes."""
    cells = readers.read_pbc(real_data, progress=False)
    kept, report = splits.drop_exact_duplicates(cells)
    assert set(cells["label"]) == set(taxonomy.CLASSES) - {"blast"}
    assert (report["reason"] == "identical image, other label").sum() == 2
    lilac = (cells["domain"] == "pbc_lilac").sum()
    assert (len(cells), lilac, len(report)) in {(14_519, 374, 15), (17_092, 453, 18)}
