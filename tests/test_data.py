"""The cell table and the splits: what they promise and what they refuse."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cytolib.data import duplicates, prepare, splits, table, taxonomy
from tests.cell_tables import blobs, toy_cells


def test_round_trip_and_equal_bytes(tmp_path: Path) -> None:
    cells = splits.draw_split(toy_cells(), seed=1)
    cells.loc[3, ["group", "mask", "um_per_px"]] = ["patient", "masks/3.png", None]
    table.write_cells(cells, tmp_path / "a.parquet")
    table.write_cells(cells, tmp_path / "b.parquet")
    back = table.read_cells(tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(back, table.as_cell_table(cells))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert back.attrs["image_root"] == "data"
    assert back.loc[3, "mask"] == "masks/3.png" and back.loc[2, "mask"] is None and back["um_per_px"].isna().sum() == 1


def test_split_is_stratified_and_order_free() -> None:
    cells = toy_cells()
    drawn = splits.draw_split(cells, val=0.2, test=0.2, seed=3)
    share = drawn.groupby("label")["split"].value_counts(normalize=True).unstack()
    assert share["test"].between(0.15, 0.25).all() and share["val"].between(0.15, 0.25).all()
    shuffled = splits.draw_split(cells.sample(frac=1, random_state=1), val=0.2, test=0.2, seed=3)
    assert drawn.set_index("cell_id")["split"].equals(shuffled.set_index("cell_id")["split"].loc[drawn["cell_id"]])
    assert not drawn["split"].equals(splits.draw_split(cells, val=0.2, test=0.2, seed=4)["split"])


def test_groups_never_cross_splits() -> None:
    cells = toy_cells().assign(group=[f"patient{k // 5}" for k in range(100)])
    drawn = splits.draw_split(cells, val=0.3, test=0.3)
    assert (drawn.groupby("group")["split"].nunique() == 1).all()
    assert set(drawn["split"]) == {"train", "val", "test"}
    table.as_cell_table(drawn)
    broken = drawn.assign(split=["train", "test"] * 50)
    with pytest.raises(ValueError, match="several splits"):
        table.as_cell_table(broken)


def test_held_out_cells_are_never_trained_on() -> None:
    drawn = splits.draw_split(toy_cells(), held_out_classes=["basophil"])
    assert (drawn.loc[drawn["label"] == "basophil", "split"] == "held_out").all()
    assert "held_out" not in set(drawn.loc[drawn["label"] != "basophil", "split"])


def test_a_patient_may_have_held_out_cells_and_others() -> None:
    cells = toy_cells().assign(group=[f"patient{k // 5}" for k in range(100)])
    drawn = splits.draw_split(cells, val=0.3, test=0.3, held_out_classes=["basophil"])
    rest = table.as_cell_table(drawn)[lambda frame: frame["split"] != "held_out"]
    assert (rest.groupby("group")["split"].nunique() == 1).all()


def test_near_duplicates_never_cross_splits() -> None:
    cells = toy_cells()
    ids = cells["cell_id"].tolist()
    pairs = pd.DataFrame({"first": ids[0:40:2], "second": ids[1:40:2], "distance": 3})
    drawn = splits.draw_split(cells, val=0.3, test=0.3, near_duplicates=pairs).set_index("cell_id")["split"]
    assert (drawn[pairs["first"]].to_numpy() == drawn[pairs["second"]].to_numpy()).all()
    free = splits.draw_split(cells, val=0.3, test=0.3).set_index("cell_id")["split"]
    assert (free[pairs["first"]].to_numpy() != free[pairs["second"]].to_numpy()).any()


def test_groups_and_near_duplicates_are_joined() -> None:
    """A near duplicate in another patient's folder ties the two patients together."""
    cells = toy_cells(6).assign(group=["a", "a", "b", "b", None, None])
    ids = cells["cell_id"].tolist()
    unit = duplicates.belong_together(cells, pd.DataFrame({"first": [ids[1]], "second": [ids[2]], "distance": [0]}))
    assert unit[:4].nunique() == 1 and unit[3:].nunique() == 3
    other = cells.assign(dataset=["x", "x", "x", "y", "x", "x"])  # the same patient number elsewhere is somebody else
    assert duplicates.belong_together(other).nunique() == 5


def test_a_split_is_a_file(tmp_path: Path) -> None:
    drawn = splits.draw_split(toy_cells(), seed=5)
    splits.write_split(drawn, tmp_path / "split.csv")
    again = splits.apply_split(toy_cells().sample(frac=1, random_state=0), tmp_path / "split.csv")
    assert again.set_index("cell_id")["split"].sort_index().equals(drawn.set_index("cell_id")["split"].sort_index())
    with pytest.raises(ValueError, match="no split for 5 cells"):
        splits.apply_split(toy_cells(105), tmp_path / "split.csv")


def test_bad_split_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "split.csv"
    with pytest.raises(FileNotFoundError, match=r"split.csv: no such split file"):
        splits.apply_split(toy_cells(2), file)
    first, second = toy_cells(2)["cell_id"]
    for text, message in (
        (b"", "not a readable CSV file"),
        (b"cell_id,split\n\xff\xfe,train\n", "not a readable CSV file"),
        (f"{first},train\n".encode(), "columns .* are missing"),
        (f"cell_id,split\n{first},train\n{second},training\n".encode(), r"\['training'\]; expected train"),
        (f"cell_id,split\n{first},train\n{second},\n".encode(), "left empty"),
        (f"cell_id,split\n{first},train\n{second},val\n{first},test\n".encode(), f"cell {first} stands in two splits"),
    ):
        file.write_bytes(text)
        with pytest.raises(ValueError, match=message) as caught:
            splits.apply_split(toy_cells(2), file)
        assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value)
    file.write_text(f"\ufeffcell_id,split\n{first},train\n{second},val\n{first},train\n", encoding="utf-8")
    assert splits.apply_split(toy_cells(2), file)["split"].tolist() == ["train", "val"]


def test_a_split_leaves_something_to_train_on() -> None:
    with pytest.raises(ValueError, match="100 of 100 are held out"):
        splits.draw_split(toy_cells(), held_out_classes=["basophil", "neutrophil"])
    with pytest.raises(ValueError, match="no cell is left to train on"):
        splits.draw_split(toy_cells(1), val=0.6, test=0.2)
    assert splits.draw_split(toy_cells(1))["split"].tolist() == ["train"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "leukocyte"}, "bad label"),
        ({"cell_type": "leukocyte"}, "bad cell_type"),
        ({"split": "dev"}, "bad split"),
        ({"cell_id": "abc"}, "bad cell_id"),
        ({"cell_id": "0" * 64}, "bad cell_id"),
        ({"path": "../elsewhere.png"}, "bad path"),
        ({"path": "/etc/passwd"}, "bad path"),
        ({"mask": "../elsewhere.png"}, "bad mask"),
        ({"um_per_px": 0.0}, "bad um_per_px"),
        ({"um_per_px": float("inf")}, "bad um_per_px"),
        ({"domain": None}, "bad domain"),
    ],
)
def test_cell_table_refuses(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        table.as_cell_table(toy_cells().assign(**change))


def test_damaged_cell_table(tmp_path: Path) -> None:
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 nonsense")
    with pytest.raises(ValueError, match="broken.parquet: not a readable parquet"):
        table.read_cells(broken)


def test_label_sets() -> None:
    assert set(taxonomy.LABEL_SETS["eight"].classes) == set(taxonomy.CLASSES)
    assert len(taxonomy.LABEL_SETS["eleven"].classes) == 11 and len(taxonomy.LABEL_SETS["five"].classes) == 5
    for label_set in taxonomy.LABEL_SETS.values():
        assert set(label_set.of) <= set(taxonomy.CELL_TYPES) and set(label_set.held_out) <= set(label_set.classes)
    for line in taxonomy.MATURITY.values():  # the order of figures and tables is that of maturity
        assert taxonomy.in_order(reversed(line)) == list(line)
    assert taxonomy.stage_of(["neutrophil_band", "platelet", "myeloblast"], "myeloid") == [4, None, 0]
    with pytest.raises(ValueError, match="label_set is 'nine'"):
        taxonomy.label_set("nine")
    with pytest.raises(ValueError, match="maps to 'metymyelocyte', which is no harmonised cell type"):
        taxonomy.harmonise("MMZ", {"MMZ": "metymyelocyte"}, "matek")  # the typo of the official notebook


def test_prepare_counts_what_it_leaves_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k, name in enumerate(["neutrophil"] * 5 + ["platelet"] * 3 + ["smudge cells"] * 2):
        blobs(tmp_path / "mine" / name / f"{k}.png", k)
    blobs(tmp_path / "mine" / "platelet" / "twin.png", 6)
    (tmp_path / "mine" / "platelet" / "broken.png").write_bytes(b"\x89PNG")
    monkeypatch.setenv("CYTOLIB_DATA", str(tmp_path))
    options = dict(n_cells=0, n_held_out=0, image_size=0, val_fraction=0.2, test_fraction=0.2)
    found = prepare.prepare_cells("folder:mine", tmp_path, **options)  # type: ignore[arg-type]
    assert found.cells["label"].value_counts().to_dict() == {"neutrophil": 5, "platelet": 3}
    assert found.left_out.to_dict("records") == [{"cell_type": "smudge_cell", "n": 2}]
    assert found.refused["path"].tolist() == ["mine/platelet/broken.png"]
    assert found.identical["path"].tolist() == ["mine/platelet/twin.png"] and found.image_root == "data"
    fine = prepare.prepare_cells("folder:mine", tmp_path, label_set="fine", **options)  # type: ignore[arg-type]
    assert len(fine.cells) == 10 and fine.left_out.empty
    with pytest.raises(ValueError, match="no class for any of these cells"):
        prepare.give_labels(fine.cells[fine.cells["cell_type"] == "smudge_cell"], taxonomy.label_set("eight"))


def test_frames_cut_by_hand_that_share_pixels_stay_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two frames of one photograph, moved by a third, under two labels: no hash sees it, the pixels do."""
    rng = np.random.default_rng(0)
    names = ("neutrophil", "platelet")
    for k in range(12):
        photograph = rng.integers(0, 255, (96, 128), dtype=np.uint8)
        for name, left in zip(names, (0, 32), strict=True):
            path = tmp_path / "cut" / name / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(photograph[:, left : left + 96]).save(path)
    monkeypatch.setenv("CYTOLIB_DATA", str(tmp_path))
    own = prepare.registry.data_set("folder:cut")
    options = dict(n_cells=0, n_held_out=0, image_size=0, val_fraction=0.25, test_fraction=0.25)
    for cut_by_hand in (False, True):
        card = dataclasses.replace(own, cut_by_hand=cut_by_hand)
        monkeypatch.setattr(prepare.registry, "data_set", lambda name, card=card: card)
        found = prepare.prepare_cells("folder:cut", tmp_path, **options)  # type: ignore[arg-type]
        split = found.cells.assign(number=found.cells["path"].map(lambda p: Path(p).stem)).groupby("number")["split"]
        assert len(found.near) == (12 if cut_by_hand else 0)
        assert (split.nunique() == 1).all() == cut_by_hand
