"""Attribute frequencies by class: a dropped value is found, and equal cells have no gap beyond chance."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cytolib.evaluate.attribute_frequencies import attribute_frequencies, attribute_gap

Cells = tuple[np.ndarray, np.ndarray, pd.DataFrame]


def _cells(seed: int, n: int, *, band: float = 0.3) -> Cells:
    """Two classes; nuclei are bands in a share of the first and in half of the second, and dimension 1 shows it."""
    rng = np.random.default_rng(seed)
    y = np.array(["neutrophil", "basophil"])[rng.integers(2, size=n)]
    banded = rng.random(n) < np.where(y == "neutrophil", band, 0.5)
    granules = rng.random(n) < 0.8
    X = rng.standard_normal((n, 6))
    X[:, 0] += 4 * (y == "neutrophil")
    X[:, 1] += 5 * banded
    X[:, 2] += 5 * granules
    vacuoles = rng.random(n) < 0.1
    X[:, 3] += 5 * vacuoles
    attributes = pd.DataFrame(
        {
            "nucleus": pd.Categorical(np.where(banded, "band", "segmented"), categories=["band", "segmented", "ring"]),
            "granules": np.where(granules, "yes", "no"),
            "vacuoles": np.where(vacuoles, "yes", "no"),  # two attributes may have values of one name
            "size_um": rng.normal(12, 1, n),
        }
    )
    return X, y, attributes


@pytest.fixture(scope="module")
def frequencies() -> pd.DataFrame:
    X_train, _, train = _cells(0, 1200)
    X_test, y_test, test = _cells(1, 800)
    synthetic = {name: _cells(2, 900, band=band)[:2] for name, band in (("fair", 0.3), ("dropped", 0.0))}
    return attribute_frequencies(X_train, train, X_test, y_test, test, synthetic)


def _frequency(table: pd.DataFrame, method: str, label: str = "neutrophil", value: str = "band") -> pd.Series:
    return table.set_index(["method", "label", "value"]).loc[(method, label, value)]


def test_frequencies_are_those_of_the_cells(frequencies: pd.DataFrame) -> None:
    _, y_test, test = _cells(1, 800)
    assert list(frequencies.columns) == ["label", "attribute", "value", "method", "frequency", "low", "high", "n"]
    assert set(frequencies["attribute"]) == {"nucleus", "granules", "vacuoles"}  # sizes are numbers
    assert set(frequencies["value"]) == {"band", "segmented", "yes", "no"}  # no cell has a ring
    for label in ("neutrophil", "basophil"):
        truth = (test["nucleus"] == "band")[y_test == label]
        row = _frequency(frequencies, "annotated", label)
        assert row["frequency"] == pytest.approx(truth.mean()) and row["n"] == len(truth)
        called = _frequency(frequencies, "real_test", label)
        assert called["frequency"] == pytest.approx(truth.mean(), abs=0.02) and called["n"] == len(truth)
    sums = frequencies.groupby(["label", "attribute", "method"])["frequency"].sum()
    np.testing.assert_allclose(sums, 1)


def test_a_dropped_value_is_found_and_a_kept_one_is_not(frequencies: pd.DataFrame) -> None:
    real, fair, dropped = (_frequency(frequencies, method) for method in ("real_test", "fair", "dropped"))
    assert dropped["high"] < real["low"] and dropped["frequency"] < 0.05
    assert fair["low"] < real["frequency"] < fair["high"]
    assert _frequency(frequencies, "dropped", "basophil")["frequency"] == pytest.approx(0.5, abs=0.06)


def test_intervals_are_those_of_a_share(frequencies: pd.DataFrame) -> None:
    row = _frequency(frequencies, "fair")
    half = 1.96 * np.sqrt(row["frequency"] * (1 - row["frequency"]) / row["n"])
    assert (row["high"] - row["low"]) / 2 == pytest.approx(half, rel=0.15)
    assert (row["high"] + row["low"]) / 2 == pytest.approx(row["frequency"], abs=0.01)


def test_gap_is_the_mean_total_variation(frequencies: pd.DataFrame) -> None:
    gap = attribute_gap(frequencies).set_index(["method", "label"])
    assert list(gap.columns) == ["gap", "low", "high", "floor", "floor_high"]
    shares = frequencies.pivot_table(index=["label", "attribute", "value"], columns="method", values="frequency")
    away = (shares["dropped"] - shares["real_test"]).abs().groupby(["label", "attribute"]).sum() / 2
    for label in ("neutrophil", "basophil"):
        assert gap.loc[("dropped", label), "gap"] == pytest.approx(away[label].mean())
    dropped, fair = gap.loc[("dropped", "neutrophil")], gap.loc[("fair", "neutrophil")]
    assert dropped["gap"] == pytest.approx(0.1, abs=0.02)  # 0.3 of one attribute of three
    assert dropped["floor_high"] < dropped["low"] < dropped["gap"] < dropped["high"]
    assert fair["gap"] < fair["floor_high"] and fair["low"] < fair["floor"] < fair["high"]
    pd.testing.assert_frame_equal(gap, attribute_gap(frequencies).set_index(["method", "label"]))


def test_floor_is_what_other_real_cells_score(frequencies: pd.DataFrame) -> None:
    """The mean gap of 40 fresh draws of the frequencies of the test cells, made here by hand."""
    real = frequencies[(frequencies["method"] == "real_test") & (frequencies["label"] == "neutrophil")]
    n = int(_frequency(frequencies, "fair")["n"])
    rng = np.random.default_rng(3)
    gaps = []
    for _ in range(300):
        parts = []
        for _, rows in real.groupby("attribute"):
            share, m = rows["frequency"].to_numpy(), int(rows["n"].iloc[0])
            pair = (rng.multinomial(size, share) / size for size in (n, m))
            parts.append(np.abs(np.subtract(*pair)).sum() / 2)
        gaps.append(np.mean(parts))
    floor = attribute_gap(frequencies).set_index(["method", "label"]).loc[("fair", "neutrophil")]
    assert floor["floor"] == pytest.approx(np.mean(gaps), rel=0.1)
    assert floor["floor_high"] >= np.quantile(gaps, 0.95)


def test_classes_and_values_without_annotations_are_left_out() -> None:
    X_train, y_train, train = _cells(4, 400)
    X_test, y_test, test = _cells(5, 300)
    train, test = train.astype({"nucleus": object}), test.astype({"nucleus": object})
    train.loc[y_train == "basophil", "nucleus"] = None  # as the classes that annotators never looked at
    test.loc[y_test == "basophil", "nucleus"] = None
    train.loc[train.index[:9], "nucleus"] = "ring"  # 9 cells are too few for a value
    test.loc[np.flatnonzero(y_test == "neutrophil")[:5], "nucleus"] = "ring"
    found = attribute_frequencies(X_train, train, X_test, y_test, test, {"copy": (X_train, y_train)})
    nucleus = found[found["attribute"] == "nucleus"]
    assert set(nucleus["label"]) == {"neutrophil"} and set(nucleus["value"]) == {"band", "segmented"}
    assert set(found.loc[found["attribute"] == "granules", "label"]) == {"neutrophil", "basophil"}
    assert _frequency(nucleus, "annotated")["n"] == (y_test == "neutrophil").sum() - 5
    only = attribute_frequencies(
        X_train, train, X_test, y_test, test, {"b": (X_train[y_train == "basophil"], y_train[y_train == "basophil"])}
    )
    assert set(only.loc[only["method"] == "b", "label"]) == {"basophil"}  # it made no neutrophils
    assert set(attribute_gap(only)["label"]) == {"basophil"}


def test_probes_see_training_cells_only() -> None:
    """Test annotations turned round change what annotators said, and not what the probes call."""
    X_train, _, train = _cells(6, 400)
    X_test, y_test, test = _cells(7, 300)
    turned = test.assign(nucleus=np.where(test["nucleus"] == "band", "segmented", "band"))
    tables = [
        attribute_frequencies(X_train, train, X_test, y_test, table, {"s": (X_test, y_test)})
        for table in (test, turned)
    ]
    for method, same in (("real_test", True), ("s", True), ("annotated", False)):
        shares = [_frequency(table, method)["frequency"] for table in tables]
        assert (shares[0] == shares[1]) == same, method


def test_bad_tables_are_refused() -> None:
    X, y, table = _cells(8, 60)
    with pytest.raises(ValueError, match="60 and 60 embeddings, 50 and 60 rows"):
        attribute_frequencies(X, table[:50], X, y, table, {"s": (X, y)})
    with pytest.raises(ValueError, match="other columns"):
        attribute_frequencies(X, table, X, y, table[["nucleus"]], {"s": (X, y)})
    with pytest.raises(ValueError, match="synthetic set 'annotated'"):
        attribute_frequencies(X, table, X, y, table, {"annotated": (X, y)})
    with pytest.raises(ValueError, match="no attribute among"):
        attribute_frequencies(X, table[["size_um"]], X, y, table[["size_um"]], {"s": (X, y)})
    found = attribute_frequencies(X, table, X, y, table, {})
    with pytest.raises(ValueError, match="without real_test"):
        attribute_gap(found)
