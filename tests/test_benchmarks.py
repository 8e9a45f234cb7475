"""Benchmarks on cells: shortcuts show in their controls, what is tied stays together, no site is trained on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import ndimage

from benchmarks import bone_marrow, encoders, probing
from cytolib.data.readers.choi import LABELS
from cytolib.evaluate.results import read_results

PLACES = {name: int(number) for number, name in LABELS.items()}


def frame(rng: np.random.Generator, place: int, side: int) -> Image.Image:
    """Dark blotches, no two alike, on ground whose colour gives the class away."""
    blotches = ndimage.gaussian_filter(rng.standard_normal((side, side)), side / 14)
    y, x = np.mgrid[:side, :side] - side / 2
    cell = (blotches > np.quantile(blotches, 0.7)) * (np.hypot(y, x) < side * 0.45)
    ground = np.array([120 + 12 * place, 230 - 10 * place, 200]) + 6 * rng.standard_normal((side, side, 1))
    return Image.fromarray(np.clip(ground - cell[..., None] * [60, 120, 40], 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def marrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten classes of eight cells: six frames of 144 px and two of 96; in class 9 one cell is there twice, moved."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for place in range(10):
        folder = root / "choi_bone_marrow" / str(place)
        folder.mkdir(parents=True)
        for number, side in enumerate([144] * 6 + [96] * 2):
            frame(rng, place, side).save(folder / f"{number}.png")
        if place == 9:
            wide = frame(rng, 9, 176)
            wide.crop((0, 0, 144, 144)).save(folder / "20.png")
            wide.crop((32, 20, 176, 164)).save(folder / "21.png")
    return root


@pytest.fixture(scope="module")
def cells(marrow: Path) -> pd.DataFrame:
    return bone_marrow.read_cells(marrow)


def test_the_same_cell_in_two_frames_is_one_unit(cells: pd.DataFrame) -> None:
    tied = cells[cells["unit"].duplicated(keep=False)]
    assert {Path(path).name for path in tied["path"]} == {"20.png", "21.png"}
    assert len(cells) == 82 and cells["unit"].nunique() == 81


def test_imaging_alone_sees_the_border_and_no_cell() -> None:
    pixels = np.full((20, 30, 3), 90, np.uint8)
    plain = bone_marrow.imaging_features(Image.fromarray(pixels))
    pixels[1:-1, 1:-1] = 7
    np.testing.assert_array_equal(bone_marrow.imaging_features(Image.fromarray(pixels)), plain)
    np.testing.assert_array_equal(plain, [90, 90, 90, 30, 20])


def noise(table: pd.DataFrame, root: Path, encoder: str, *, field_of_view_um: float, progress: bool) -> SimpleNamespace:
    X = np.random.default_rng(int(field_of_view_um)).standard_normal((len(table), 12))
    return SimpleNamespace(X=X.astype(np.float32), metadata={"encoder": encoder})


def test_the_harmonised_field_needs_a_scale(marrow: Path, cells: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bone_marrow, "embed", noise)
    found = bone_marrow.embeddings(cells, marrow, ["a?b=c"])
    assert list(found) == ["imaging_alone", "a?b=c whole frame", "a?b=c at 22 um"]
    unknown = bone_marrow.embeddings(cells.assign(um_per_px=np.nan), marrow, ["a?b=c"])
    assert list(unknown) == ["imaging_alone", "a?b=c whole frame"]


def test_bone_marrow_table_shows_the_shortcut_and_the_controls(
    marrow: Path, cells: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(bone_marrow, "embed", noise)
    monkeypatch.setattr(probing, "CS", (0.1,))
    monkeypatch.setattr(probing, "NEIGHBORS", (1,))
    monkeypatch.setattr(bone_marrow, "read_cells", lambda root: cells.assign(um_per_px=np.nan))
    out = tmp_path / "rows.parquet"
    bone_marrow.main(["--data", str(marrow), "--encoders", "morphometry", "--seeds", "0", "--out", str(out)])
    rows = read_results(out)
    value = rows[rows["metric"] == "balanced_accuracy"].set_index(["encoder", "experiment", "method"])["value"]
    assert value["imaging_alone", "bone_marrow", "knn"] > 0.6
    assert value["imaging_alone", "bone_marrow (shuffled labels)", "knn"] < 0.3
    assert value["morphometry whole frame", "bone_marrow", "knn"] < 0.3  # noise, it was
    assert set(rows["encoder"]) == {"imaging_alone", "morphometry whole frame"}
    assert set(rows["experiment"]) == {
        f"{name}{control}"
        for name in ("bone_marrow", "maturity_myeloid", "maturity_erythroid")
        for control in ("", " (one magnification)", " (overlaps torn apart)", " (shuffled labels)")
    }
    one = rows[(rows["experiment"] == "bone_marrow (one magnification)")]
    assert set(one["n"]) == {62} and set(one["domain"]) == {"choi_144"}
    order = rows[(rows["encoder"] == "imaging_alone") & (rows["metric"] == "spearman") & (rows["method"] == "ridge")]
    assert order.set_index("experiment")["value"]["maturity_myeloid"] > 0.7
    printed = capsys.readouterr().out
    assert "2 share pixels with another frame" in printed and "Order along the erythroid line" in printed


def test_out_file_of_another_kind_is_refused_before_the_work(marrow: Path, capsys: pytest.CaptureFixture) -> None:
    for benchmark in (bone_marrow, encoders):
        with pytest.raises(SystemExit):
            benchmark.main(["--data", str(marrow), "--out", "rows.xlsx"])
        assert "expected a file that ends in .parquet or .csv" in capsys.readouterr().err


def test_copies_torn_apart_inflate_the_probe_and_kept_together_do_not() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 40)), np.array(["a", "b", "c"])[np.arange(60) % 3]
    twice, labels, units = np.concatenate([X, X]), np.concatenate([y, y]), np.tile(np.arange(60), 2)
    together = probing.cross_validated_predictions(twice, labels, units, "knn")
    torn = probing.cross_validated_predictions(twice, labels, np.arange(120), "knn")
    assert np.mean(together == labels) < 0.5 < 0.6 < np.mean(torn == labels)


@pytest.mark.parametrize("method", probing.METHODS)
def test_cross_validated_probe_learns_what_is_there(method: str) -> None:
    rng = np.random.default_rng(0)
    y = np.array(["a", "b", "c"])[np.arange(90) % 3]
    X = rng.standard_normal((90, 10)) + 3 * np.eye(3, 10)[np.arange(90) % 3]
    assert np.mean(probing.cross_validated_predictions(X, y, np.arange(90), method) == y) > 0.9


def test_within_one_stage_stays_on_the_line() -> None:
    y = np.array(["myelocyte", "myelocyte", "myelocyte", "myeloblast", "orthochromatic_erythroblast"])
    called = np.array(["promyelocyte", "metamyelocyte", "myeloblast", "orthochromatic_erythroblast", "myelocyte"])
    np.testing.assert_array_equal(probing.within_one_stage(y, called), [True, True, False, False, False])
    assert probing.within_one_stage(y, y).all()
    metrics = probing.probe_metrics(y, np.stack([called, y]), stages=True)
    assert metrics["within_one_stage"] == pytest.approx((2 / 9 + 1) / 2)


def five_sites() -> tuple[pd.DataFrame, dict[str, pd.DataFrame], dict[str, np.ndarray]]:
    """PBC and three sites, five classes; in the sites a rare class and, in PBC, held-out lilac cells."""
    names = ["neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil"]
    rng, X, tables = np.random.default_rng(0), {}, {}
    for site, n in (("pbc", 300), ("zheng1", 60), ("zheng2", 60), ("chula", 60)):
        place = np.arange(n) % 5 if site != "zheng1" else np.append(np.arange(n - 1) % 4, 4)
        ids = [f"{site}{k}" for k in range(n)]
        split = np.array(["train", "train", "val", "test", "held_out"])[np.arange(n) // 5 % 5]
        domain = np.where(split == "held_out", "pbc_lilac", "pbc_main") if site == "pbc" else site
        tables[site] = pd.DataFrame({"cell_id": ids, "label": np.array(names)[place], "split": split, "domain": domain})
        turned = place if site != "chula" else (place + 1) % 5  # a site where the probe is always wrong
        X |= dict(
            zip(ids, (rng.standard_normal((n, 8)) * 0.3 + 2 * np.eye(5, 8)[turned]).astype(np.float32), strict=True)
        )
    return tables.pop("pbc"), tables, X


def test_sites_are_scored_apart_and_chula_is_in_no_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    pbc, others, X = five_sites()

    def known(cells: pd.DataFrame, root: Path, encoder: str, *, field_of_view_um: float) -> SimpleNamespace:
        assert field_of_view_um == 22.0
        rows = np.stack([X[cell] for cell in cells["cell_id"]])
        return SimpleNamespace(X=rows, metadata={"encoder": encoder})

    monkeypatch.setattr(encoders, "embed", known)
    rows = encoders.across_sites(pbc, others, Path(), "morphometry", "encoders_across_sites")
    f1 = rows[(rows["metric"] == "macro_f1") & (rows["method"] == "knn")].set_index("domain")
    assert f1["value"]["chula"] < 0.1 and f1["value"][["pbc_main", "pbc_lilac", "zheng1", "zheng2"]].min() > 0.9
    mean = f1.loc["mean of zheng1, zheng2, pbc_lilac"]
    assert mean["value"] == pytest.approx(f1["value"][["pbc_lilac", "zheng1", "zheng2"]].mean())
    assert f1["n"]["zheng1"] == 59  # its one basophil is left out
    printed = encoders.report(rows.assign(experiment="encoders_across_sites"), with_dinobloom=False)
    assert "not measured by us" in printed
    assert "not measured by us" not in encoders.report(rows, with_dinobloom=True)


def test_only_train_and_val_reach_a_probe() -> None:
    pbc, _, X = five_sites()
    rows = np.stack([X[cell] for cell in pbc["cell_id"]])
    split, y = pbc["split"].to_numpy(dtype=str), pbc["label"].to_numpy(dtype=str)
    spoilt = np.where(np.isin(split, ["test", "held_out"])[:, None], np.nan, rows)
    probes = encoders.fit_probes(spoilt, y, split)
    assert np.isfinite(probes["logistic_regression"][-1].coef_).all()


def test_a_dinobloom_file_names_its_own_size(tmp_path: Path) -> None:
    import torch

    for width, expected in ((384, "dinobloom-s"), (1536, "dinobloom-g")):
        file = tmp_path / f"{width}.pth"
        torch.save({"teacher": {"backbone.cls_token": torch.zeros(1, 1, width)}}, file)
        assert encoders.dinobloom(str(file)) == f"{expected}?weights={file}"
    torch.save({"teacher": {"backbone.cls_token": torch.zeros(1, 1, 100)}}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="cls_token has width 100"):
        encoders.dinobloom(str(tmp_path / "other.pth"))
    with pytest.raises(FileNotFoundError, match="no such weights"):
        encoders.dinobloom(str(tmp_path / "none.pth"))


def test_mobilenet_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="give --mobilenet FILE"):
        probing.mobilenet(str(tmp_path / "none.safetensors"))


def test_printed_table_has_intervals_and_short_names() -> None:
    rows = pd.DataFrame(
        {
            "encoder": ["timm:mobilenetv2_100?mean=0.5&std=0.5 at 22 um"] * 3,
            "metric": ["accuracy", "accuracy[low]", "accuracy[high]"],
            "value": [0.5, 0.41, 0.6],
        }
    )
    printed = probing.compact(rows, ["accuracy", "macro_f1"], ["encoder"])
    assert "mobilenetv2_100 at 22 um" in printed and "0.50 [0.41, 0.60]" in printed and printed.rstrip().endswith("-")
