"""Smaller images travel as a data set of their own, with the right scale, class and split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cytolib.bundle import run_there
from cytolib.bundle.make import make_bundle
from cytolib.bundle.shrink import shrink_data_set
from cytolib.bundle.small import make_small_images
from cytolib.data import prepare, table
from cytolib.run import root, sha256
from cytolib.run.config import read_config
from cytolib.run.pipeline import run_pipeline
from cytolib.run.stages import Chain


@pytest.fixture
def cells(tmp_path: Path) -> tuple[pd.DataFrame, Path]:
    """Forty phantoms, eight of them saved as larger JPEGs, and the folder they lie in."""
    folder = tmp_path / "drawn"
    found = prepare.prepare_cells(
        "phantoms", folder, n_cells=40, n_held_out=4, image_size=96, val_fraction=0.2, test_fraction=0.2
    )
    cells = found.cells.copy()
    for row in range(8):
        with Image.open(folder / cells.loc[row, "path"]) as image:
            image.convert("RGB").resize((200, 150)).save(folder / f"{row}.jpg")
        cells.loc[row, ["path", "mask", "um_per_px"]] = [f"{row}.jpg", None, 0.2]
    return cells, folder


def test_small_images_keep_scale_class_and_split(
    cells: tuple[pd.DataFrame, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table_, folder = cells
    monkeypatch.setenv("CYTOLIB_DATA", str(tmp_path / "data"))
    file = shrink_data_set(table_, folder, tmp_path / "data" / "small", 64)
    again = prepare.prepare_cells(
        "csv:small/cells.csv", tmp_path / "scratch", n_cells=0, n_held_out=0, image_size=0, val_fraction=0.2,
        test_fraction=0.2, label_set="eight", split_file=str(file.with_name("split.csv")),
    )  # fmt: skip
    rows = pd.read_csv(file)
    assert len(rows) == len(table_) and rows["label"].tolist() == table_["cell_type"].tolist()
    for row, cell in zip(rows.itertuples(), table_.itertuples(), strict=True):
        with Image.open(file.parent / str(row.path)) as small, Image.open(folder / str(cell.path)) as large:
            assert max(small.size) == 64 and small.format == large.format
            assert row.um_per_px * max(small.size) == pytest.approx(cell.um_per_px * max(large.size), rel=1e-4)
    with Image.open(file.parent / str(rows["path"][0])) as small:
        assert small.size == (64, 48)
    masks = rows["mask"].dropna()
    with Image.open(file.parent / masks.iloc[0]) as mask, Image.open(folder / table_["mask"].dropna().iloc[0]) as drawn:
        assert max(mask.size) == 64 and set(np.unique(mask)) <= set(np.unique(drawn))
    assert again.cells["split"].value_counts().equals(table_["split"].value_counts())
    assert not set(again.cells["cell_id"]) & set(table_["cell_id"])
    with pytest.raises(ValueError, match="--images is 8; expected the longer side"):
        shrink_data_set(table_, folder, tmp_path / "other", 8)


def test_a_bundle_with_images_is_a_run_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYTOLIB_RUNS", str(tmp_path / "runs"))
    config = tmp_path / "few.yaml"
    config.write_text("run: few\nstages:\n  00_data: {n_cells: 64, n_held_out: 4}\n  02_train_diffusion: {steps: 7}\n")
    with pytest.raises(ValueError, match="00_data is not done here"):
        make_small_images(config, 48, tmp_path / "images")
    assert run_pipeline(config, plain=True, until="00_data", say=lambda _: None) == 0
    small = make_small_images(config, 48, tmp_path / "images")
    values = read_config(small, Chain())
    assert values.run == "few-48px" and values.parameters["02_train_diffusion"]["steps"] == 7
    assert values.parameters["00_data"]["dataset"] == "csv:phantoms_48px/cells.csv"
    monkeypatch.setenv("CYTOLIB_DATA", str(tmp_path / "images"))
    assert run_pipeline(small, plain=True, until="00_data", say=lambda _: None) == 0
    old, new = (
        table.read_cells(tmp_path / "runs" / name / "00_data" / "cells.parquet") for name in ("few", "few-48px")
    )
    assert old["split"].value_counts().equals(new["split"].value_counts()) and len(old) == len(new)

    images = tmp_path / "images" / "phantoms_48px"
    make_bundle(small, tmp_path / "b", [], images=images, say=lambda _: None)
    bundle = tmp_path / "b"
    monkeypatch.setattr(run_there, "HERE", str(bundle))
    run_there.check_files()
    run_there.unpack_images()
    assert sha256(bundle / "data" / "phantoms_48px") == sha256(images) and len(list(images.rglob("*"))) > len(old)
    run_there.unpack_images()  # and once more: they are there
    assert sorted(p.name for p in (bundle / "runs" / "few-48px").iterdir()) == ["00_data"]
    text = (bundle / "bundle.json").read_text()
    for stage in ("01_embed", "02_train_diffusion", "03_sample", "04_sweep"):
        assert f'"{stage}"' in text
    assert str(root()) not in text
