"""Utility arms and the sweep: what each arm trains on, resume, equal bytes, and what the table says of a toy."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import StandardScaler

from cytolib.data.table import write_cells
from cytolib.embed import EmbeddingTable, write_embeddings
from cytolib.evaluate import sweep
from cytolib.evaluate.results import read_results, write_results
from cytolib.evaluate.utility import (
    ARMS,
    HEADS,
    METHODS,
    TrainingSet,
    classification_metrics,
    fit_arms,
    fit_heads,
    scored_cells,
    synthetic_labels,
    training_sets,
)

CLASSES = ["neutrophil", "basophil", "lymphocyte"]
QUICK = {"steps": 300, "batch_size": 64, "width": 32, "depth": 2, "num_inference_steps": 12, "bootstrap_draws": 50}


def toy(folder: Path) -> tuple[Path, Path]:
    """Cells of three classes in 6 dimensions, with a held-out domain and a held-out class."""
    rng = np.random.default_rng(0)
    splits = np.repeat(["train", "val", "test", "held_out"], [300, 90, 150, 60])
    labels = np.array(CLASSES)[rng.choice(3, size=600, p=[0.5, 0.3, 0.2])]
    labels[-10:] = "blast"
    centre = 2.5 * np.eye(4, 6)[[[*CLASSES, "blast"].index(name) for name in labels]]
    X = (centre + rng.standard_normal((600, 6))).astype(np.float32)
    ids = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(600)]
    domain = np.where(splits == "held_out", "lilac", "main")
    cells = pd.DataFrame(
        {"cell_id": ids, "path": [f"{i}.png" for i in range(600)], "label": labels, "cell_type": labels,
         "source_label": labels, "domain": domain, "dataset": "toy", "group": None, "split": splits,
         "um_per_px": None, "mask": None}
    )  # fmt: skip
    write_cells(cells, folder / "cells.parquet")
    keys = ("encoder", "weights_sha256", "transform", "image_size", "dtype", "fingerprint")
    shuffled = rng.permutation(600)  # rows are joined by id, not by place
    table = EmbeddingTable(np.array(ids)[shuffled], X[shuffled], dict.fromkeys(keys, "toy"))
    write_embeddings(table, folder / "embeddings.parquet")
    return folder / "cells.parquet", folder / "embeddings.parquet"


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("sweep")
    results, predictions = sweep.run_sweep(*toy(folder), folder / "checkpoints", seeds=[0, 1], **QUICK)
    return folder, results, predictions


def value(results: pd.DataFrame, method: str, metric: str, split: str = "test") -> float:
    rows = results[
        (results["method"] == method)
        & (results["metric"] == metric)
        & (results["seed"] == -1)
        & (results["split"] == split)
    ]
    return rows["value"].item()


def test_synthetic_cells_train_a_classifier_and_shuffled_labels_do_not(swept: tuple) -> None:
    _, results, _ = swept
    real = value(results, "real", "balanced_accuracy")
    assert real > 0.85
    assert value(results, "diffusion_only", "balanced_accuracy") > real - 0.05
    assert abs(value(results, "shuffled_labels", "balanced_accuracy") - 1 / 3) < 0.17
    difference = value(results, "diffusion_only", "balanced_accuracy_minus_real")
    assert difference == pytest.approx(value(results, "diffusion_only", "balanced_accuracy") - real)
    low, high = (value(results, "diffusion_only", f"balanced_accuracy_minus_real[{end}]") for end in ("low", "high"))
    assert low < difference < high
    assert value(results, "diffusion_only", "dcr_ratio") > 0.7
    assert value(results, "real_floor", "precision") > 0.8


def test_table_has_every_method_seed_and_domain(swept: tuple, tmp_path: Path) -> None:
    _, results, predictions = swept
    scores = results[results["metric"] == "balanced_accuracy"]
    for split, domain, n in (("test", "all", 150), ("held_out", "lilac", 50)):  # held-out blasts were never trained
        part = scores[(scores["split"] == split) & (scores["domain"] == domain)]
        assert len(part) == len(METHODS) * 3 and set(part["n"]) == {n}
    assert set(predictions["method"]) == set(METHODS) and set(predictions["seed"]) == {0, 1}
    assert len(predictions) == 2 * len(METHODS) * (150 + 60)
    write_results(results, tmp_path / "results.parquet")
    pd.testing.assert_frame_equal(read_results(tmp_path / "results.parquet"), results)


def test_resumed_sweep_gives_the_same_table(swept: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, results, predictions = swept
    for file in (folder / "checkpoints").glob("*seed1*"):
        file.unlink()
    seen = []
    original = sweep.evaluate_seed
    monkeypatch.setattr(sweep, "evaluate_seed", lambda *a: (seen.append(a[1]), original(*a))[1])
    monkeypatch.setattr(sweep, "threads", lambda: 1)
    inputs = folder / "cells.parquet", folder / "embeddings.parquet"
    again, again_predictions = sweep.run_sweep(*inputs, folder / "checkpoints", seeds=[0, 1], **QUICK)
    assert seen == [1]
    pd.testing.assert_frame_equal(again, results)
    pd.testing.assert_frame_equal(again_predictions, predictions)


@pytest.mark.parametrize("asked", [False, True])
def test_a_sweep_trains_on_the_accelerator_only_where_it_is_asked_to(
    swept: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    splits, _ = sweep.load_splits(swept[0] / "cells.parquet", swept[0] / "embeddings.parquet")
    devices = []

    def train(*_: object, device: object, **__: object) -> None:
        devices.append(device)
        raise InterruptedError

    monkeypatch.setattr(sweep, "train", train)
    with pytest.raises(InterruptedError):
        sweep.evaluate_seed(splits, 0, {**sweep.DEFAULTS, "accelerator": asked}, tmp_path)
    assert devices == [None if asked else "cpu"]


def test_test_cells_reach_no_fitted_part(swept: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other test embeddings change no bit of any training set, nor a held-out prediction."""
    splits, _ = sweep.load_splits(swept[0] / "cells.parquet", swept[0] / "embeddings.parquet")
    arguments = {**sweep.DEFAULTS, **{k: v for k, v in QUICK.items() if k != "bootstrap_draws"}, "steps": 20}
    moved = {**splits, "test": replace(splits["test"], X=splits["test"].X * 7 + 5)}
    trained_on: list[bytes] = []
    originals = sweep.train, sweep.fit_arms

    def train(X: np.ndarray, *args: object, **kwargs: object) -> object:
        trained_on.append(X.tobytes())
        return originals[0](X, *args, **kwargs)  # type: ignore[arg-type]

    def fit_arms(arms: dict, *args: object, **kwargs: object) -> object:
        trained_on.append(b"".join(arm.X.tobytes() for arm in arms.values()))
        return originals[1](arms, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(sweep, "train", train)
    monkeypatch.setattr(sweep, "fit_arms", fit_arms)
    frames = [sweep.evaluate_seed(part, 0, arguments, tmp_path)[0] for part in (splits, moved)]
    assert len(trained_on) == 4 and trained_on[:2] == trained_on[2:]
    held_out = [frame[frame["split"] == "held_out"] for frame in frames]
    pd.testing.assert_frame_equal(*held_out)
    assert not frames[0].equals(frames[1])


def test_bad_sweeps_are_refused(swept: tuple, tmp_path: Path) -> None:
    inputs = swept[0] / "cells.parquet", swept[0] / "embeddings.parquet"
    with pytest.raises(ValueError, match="seeds is \\[1, 1\\], expected two or more different"):
        sweep.run_sweep(*inputs, tmp_path, seeds=[1, 1])
    with pytest.raises(ValueError, match="batchsize"):
        sweep.run_sweep(*inputs, tmp_path, seeds=[0, 1], batchsize=3)


def test_arms_have_the_asked_counts() -> None:
    rng = np.random.default_rng(1)
    y = np.repeat(["a", "b", "c"], [40, 20, 8])
    X = rng.standard_normal((68, 4)) + 3 * np.arange(3).repeat([40, 20, 8])[:, None]
    asked = []

    def sample(labels: np.ndarray, seed: int) -> np.ndarray:
        asked.append((len(labels), seed))
        return np.zeros((len(labels), 4))

    def project(cells: np.ndarray) -> np.ndarray:
        return np.concatenate([cells[:, :3], np.zeros((len(cells), 1))], axis=1)

    arms = training_sets(X, y, sample, project, seed=3)
    assert set(arms) == set(ARMS)
    np.testing.assert_array_equal(arms["real_projected"].X, project(X))
    for name in (
        "random_oversampling",
        "smote",
        "real_plus_gaussian",
        "real_plus_kernel_density",
        "real_plus_diffusion",
    ):
        assert np.unique(arms[name].y, return_counts=True)[1].tolist() == [40, 40, 40], name
        np.testing.assert_array_equal(arms[name].X[:68], X)
    for name in ("gaussian_only", "kernel_density_only", "diffusion_only", "real", "shuffled_labels"):
        assert np.unique(arms[name].y, return_counts=True)[1].tolist() == [40, 20, 8], name
    assert (arms["shuffled_labels"].y != y).any() and arms["real_class_weight"].class_weight == "balanced"
    assert len({seed for _, seed in asked}) == 2
    more = training_sets(X, y, sample, project, seed=3, n_per_class=50)
    assert np.unique(more["smote"].y, return_counts=True)[1].tolist() == [90, 70, 58]
    assert np.unique(more["diffusion_only"].y, return_counts=True)[1].tolist() == [50, 50, 50]
    tripled = training_sets(X, y, sample, project, seed=3, multiple=3)
    assert np.unique(tripled["gaussian_only"].y, return_counts=True)[1].tolist() == [120, 60, 24]
    assert np.unique(tripled["real_plus_diffusion"].y, return_counts=True)[1].tolist() == [40, 40, 40]
    with pytest.raises(ValueError, match="n_per_class is -1"):
        synthetic_labels(y, -1)
    with pytest.raises(ValueError, match="multiple is 0"):
        synthetic_labels(y, multiple=0)


def test_balanced_classes_need_no_added_cells() -> None:
    rng = np.random.default_rng(2)
    X, y = rng.standard_normal((40, 4)), np.repeat(["a", "b"], 20)

    def sample(labels: np.ndarray, seed: int) -> np.ndarray:
        assert len(labels), "a pipeline refuses to draw no cell"
        return np.zeros((len(labels), 4))

    arms = training_sets(X, y, sample, lambda cells: cells, seed=0)
    for name in ("smote", "real_plus_gaussian", "real_plus_kernel_density", "real_plus_diffusion"):
        np.testing.assert_array_equal(arms[name].X, X)


def test_a_class_of_one_cell_does_not_stop_smote_for_the_others() -> None:
    rng = np.random.default_rng(3)
    y = np.repeat(["a", "b", "one"], [30, 12, 1])
    X = rng.standard_normal((43, 4))
    smote = training_sets(X, y, lambda labels, _: np.zeros((len(labels), 4)), lambda cells: cells, seed=0)["smote"]
    assert np.unique(smote.y, return_counts=True)[1].tolist() == [30, 30, 30]
    new, real = smote.X[43:], {tuple(cell) for cell in X}
    repeated = np.array([tuple(cell) in real for cell in new])
    assert repeated[smote.y[43:] == "one"].all() and not repeated[smote.y[43:] == "b"].any()


def test_adjusted_logits_and_shrunk_lda_favour_rare_classes() -> None:
    rng = np.random.default_rng(5)
    y = np.repeat(["common", "rare"], [400, 12])
    X = rng.standard_normal((412, 6)) + 1.2 * (y == "rare")[:, None]
    X_val = rng.standard_normal((200, 6)) + 1.2 * (np.arange(200) % 2)[:, None]
    y_val = np.array(["common", "rare"])[np.arange(200) % 2]
    identity = StandardScaler(with_mean=False, with_std=False).fit(X)
    real = fit_arms({"real": TrainingSet(X, y)}, X_val, y_val, scaler=identity)["real"]
    heads = fit_heads(X, y, real)
    assert set(heads) == set(HEADS)
    plain = (real.predict(X_val) == "rare").mean()
    for name, predict in heads.items():
        assert (predict(X_val) == "rare").mean() > plain, name
        assert (predict(X_val) == y_val).mean() > 0.8, name
    odds = real.predict_log_proba(X_val)
    expected = np.where(odds[:, 1] - odds[:, 0] > np.log(12 / 400), "rare", "common")
    np.testing.assert_array_equal(heads["real_logit_adjusted"](X_val), expected)


def test_classification_metrics_are_over_the_classes_that_are_there() -> None:
    y_true = np.array(["a"] * 6 + ["b"] * 4)
    metrics = classification_metrics(y_true, np.array(["a"] * 3 + ["b", "b", "c"] + ["b"] * 4))
    assert metrics["balanced_accuracy"] == 0.75 and metrics["recall[a]"] == 0.5 and "recall[c]" not in metrics
    assert metrics["accuracy"] == 0.7 and metrics["macro_f1"] == pytest.approx((2 * 3 / 9 + 2 * 4 / 10) / 2)


def test_tiny_and_untrained_classes_are_in_no_score() -> None:
    y_test = np.array(["a"] * 6 + ["b"] * 4 + ["c"] * 3 + ["blast"] * 5)
    scored = scored_cells(y_test, np.array(["a", "b", "c"]))
    assert set(y_test[scored]) == {"a", "b"} and scored.sum() == 10


def test_a_value_and_its_interval_are_of_the_same_cells(swept: tuple) -> None:
    """Also where a class has too few test cells to be scored: value, difference and n leave it out alike."""
    splits, _ = sweep.load_splits(swept[0] / "cells.parquet", swept[0] / "embeddings.parquet")
    y = splits["test"].y.copy()
    y[y == "basophil"] = "neutrophil"
    y[:2] = "basophil"
    splits["test"] = replace(splits["test"], y=y)
    shared = {"experiment": "augment", "dataset": "toy", "encoder": "none"}
    rows = pd.concat(sweep._utility_rows(swept[2], splits, [0, 1], 20, shared))
    rows = rows[(rows["split"] == "test") & (rows["seed"] == -1)]
    assert set(rows["n"]) == {148}
    wide = rows.pivot(index="method", columns="metric", values="value")
    for metric in ("accuracy", "macro_f1", "balanced_accuracy"):
        np.testing.assert_allclose(wide[metric] - wide.loc["real", metric], wide[f"{metric}_minus_real"], atol=1e-12)
