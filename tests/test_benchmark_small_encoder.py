"""The benchmark of the encoder that ships: what it reads, how few labels are drawn, what is compared with what."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from benchmarks import probing, small_encoder
from cytolib import small
from cytolib.data.taxonomy import LABEL_SETS

CLASSES = LABEL_SETS["five"].classes
SITES = ("pbc", "zheng1", "zheng2", "chula")
N = {"train": 12, "val": 6, "test": 8, "held_out": 5}
ENCODERS = {name: name for name in ("morphometry", small.NAME, probing.MOBILENET)}
NOISE = {"morphometry": 1.5, small.NAME: 0.1, probing.MOBILENET: 4.0}


def read_cells(site: str, limit: int, scratch: Path) -> pd.DataFrame:
    split = np.repeat(list(N), list(N.values())) if site == "pbc" else np.repeat(["test"], 8)
    parts = [pd.DataFrame({"label": name, "split": split, "place": k}) for k, name in enumerate(CLASSES)]
    cells = pd.concat(parts, ignore_index=True).assign(site=site)
    return cells.assign(cell_id=[f"{site}{k}" for k in range(len(cells))])


def vectors(cells: pd.DataFrame, root: Path, encoder: str, **_: object) -> SimpleNamespace:
    """The class, and noise: the more, the worse the encoder."""
    rng = np.random.default_rng(len(cells))
    places = np.eye(len(CLASSES))[cells["place"]]
    return SimpleNamespace(X=(places + NOISE[encoder] * rng.standard_normal(places.shape)).astype(np.float32))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Fakes in the place of files; the sites that were read."""
    read: list[str] = []

    def reading(site: str, limit: int, scratch: Path) -> pd.DataFrame:
        read.append(site)
        return read_cells(site, limit, scratch)

    def attributes(cells: pd.DataFrame, root: Path) -> pd.DataFrame:
        return pd.DataFrame({"place": cells["place"].to_numpy(float)}, index=cells["cell_id"])

    monkeypatch.setenv("CYTOLIB_DATA", str(tmp_path))
    for name, value in {
        "read_cells": reading, "embed": vectors, "load_attributes": attributes, "DRAWS": 2, "FEW": (5,),
        "encoders_of": lambda *_: ENCODERS, "speed": lambda *_: 7.0,
    }.items():  # fmt: skip
        monkeypatch.setattr(small_encoder, name, value)
    return read


def test_the_better_encoder_wins_by_an_interval(drawn: list[str], tmp_path: Path) -> None:
    small_encoder.main(["--out", str(tmp_path / "rows.csv")])
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert set(drawn) == set(SITES)
    scores = rows.set_index(["experiment", "domain", "method", "encoder", "metric"])["value"].sort_index()
    at_home = scores["pbc", "pbc_main", "logistic_regression", small.NAME]
    assert at_home["balanced_accuracy"] > 0.95
    assert at_home["balanced_accuracy less morphometry[low]"] > 0
    home = [scores["pbc", "pbc_main", "logistic_regression", name]["balanced_accuracy"] for name in ENCODERS]
    assert at_home["balanced_accuracy less morphometry"] == pytest.approx(home[1] - home[0])
    few = scores["pbc", "pbc_main", "labels_5", small.NAME]
    assert few["balanced_accuracy[low]"] <= few["balanced_accuracy"] <= few["balanced_accuracy[high]"]
    mean = rows[(rows["dataset"] == "mean") & (rows["encoder"] == small.NAME)]
    across = rows[rows["domain"].isin(small_encoder.IN_MEAN) & (rows["encoder"] == small.NAME)]
    for row in mean.itertuples():
        part = across[(across["experiment"] == row.experiment) & (across["metric"] == "macro_f1")]
        assert len(part) == 3 and row.value == pytest.approx(part["value"].mean())
    exposed = rows.groupby(["encoder", "domain"])["encoder_exposure"].unique().explode()
    assert exposed[small.NAME, "pbc_main"] == "unlabelled images" and exposed[small.NAME, "pbc_lilac"] == "none"
    assert set(exposed[probing.MOBILENET]) == {"none"}


def test_choosing_reads_no_test_cell_and_no_other_site(
    drawn: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_test(cells: pd.DataFrame, root: Path, encoder: str, **_: object) -> SimpleNamespace:
        found = vectors(cells, root, encoder)
        found.X[cells["split"] == "test"] = np.inf  # whoever uses one of them raises
        return found

    monkeypatch.setattr(small_encoder, "embed", without_test)
    small_encoder.main(["--valid", "--out", str(tmp_path / "rows.csv")])
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert drawn == ["pbc"] and set(rows["split"]) == {"val"}
    assert set(rows["n"]) == {N["val"] * len(CLASSES)}


def test_few_labels_are_few_and_the_draws_are_those_of_every_encoder() -> None:
    y = np.repeat(["a", "b"], 30)
    rows = [small_encoder._drawn(y, 5, seed) for seed in range(3)]
    for drawn in rows:
        assert sorted(y[drawn]) == ["a"] * 5 + ["b"] * 5 and len(set(drawn)) == 10
    assert not np.array_equal(rows[0], rows[1])
    assert np.array_equal(rows[2], small_encoder._drawn(y, 5, 2))
