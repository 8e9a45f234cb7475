"""The benchmarks of generators and sampling, small."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import generators, sampling
from cytolib.evaluate.cells import LabelledCells


def part(n: int, seed: int) -> LabelledCells:
    rng = np.random.default_rng(seed)
    y = np.repeat(["a", "b"], [n - n // 3, n // 3])
    X = rng.standard_normal((n, 6)) + 3 * (y == "b")[:, None]
    return LabelledCells(np.array([f"{seed}-{k}" for k in range(n)]), X, y, np.full(n, "site"))


@pytest.fixture(scope="module")
def measured() -> tuple[pd.DataFrame, list[pd.DataFrame], LabelledCells]:
    splits = {"train": part(150, 0), "val": part(60, 1), "test": part(90, 2)}
    done = [generators.measure_seed(splits, None, seed, steps=60) for seed in (0, 1)]
    return pd.concat([table for table, _ in done]), [frame for _, frame in done], splits["test"]


def test_table_holds_every_generator_and_catches_the_copier(measured: tuple) -> None:
    found, predictions, test = measured
    mean = found.groupby(["method", "metric"])["value"].mean()
    assert set(found["method"]) == {"real", *generators.NAMES} and set(predictions[0]) == {"real", *generators.NAMES}
    assert mean["bootstrap", "dcr_ratio"] == 0 and mean["real", "dcr_ratio"] == 1
    assert mean["class_gaussian", "dcr_ratio"] > 0.7
    assert mean["bootstrap", "membership_by_distance_auc"] > 0.8 > mean["class_gaussian", "membership_by_distance_auc"]
    assert ("diffusion", "membership_auc") in mean.index and ("smote", "membership_auc") not in mean.index
    rows = generators.summarise(
        found, predictions, test.y,
        {"experiment": "generators", "split": "test", "selection": "validation", "dataset": "toy", "encoder": "none"},
    )  # fmt: skip
    overall = rows[rows["seed"] == -1].set_index(["method", "metric"])["value"]
    right = np.mean([np.mean([(f["smote"][test.y == k] == k).mean() for k in "ab"]) for f in predictions])
    assert overall["smote", "tstr_balanced_accuracy"] == pytest.approx(right)
    assert overall["real", "tstr_minus_real"] == 0
    assert overall["smote", "precision"] == pytest.approx(mean["smote", "precision"])
    text = generators.report(rows)
    assert "bootstrap" in text and "tstr_minus_real" in text


def test_sampling_compares_equal_cells(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "STEPS", (3,))
    out = tmp_path / "sampling.json"
    arguments = ["--n", "1024", "--blocks", "2", "--many", "256", "--steps", "3", "--json", str(out)]
    sampling.main(arguments)
    found = json.loads(out.read_text())
    assert set(found["speed"]) == {"plain loop, batches of 128", "plain loop, batches of 512", "cytolib"}
    assert all(row["largest difference"] < 1e-3 for row in found["speed"].values())
    assert {row["solver"] for row in found["solvers"]} == {"dpm_solver", "euler", "heun", "ddim", "flow_euler"}
    assert [row["guidance scale"] for row in found["guidance"]] == list(sampling.GUIDANCE)
    assert "256 cells of 256 dimensions in" in capsys.readouterr().out
