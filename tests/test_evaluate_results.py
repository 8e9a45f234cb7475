"""The result table: what it takes, what it refuses, and that equal tables are equal bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cytolib.evaluate.results import COLUMNS, read_results, result_rows, write_results

FIELDS = {"experiment": "augment", "dataset": "pbc", "encoder": "morphometry", "split": "test", "n": 120}


def table() -> pd.DataFrame:
    return result_rows({"macro_f1": 0.5, "recall[blast]": 1.0}, method="real", seed=3, **FIELDS)


def test_round_trip_and_equal_bytes(tmp_path: Path) -> None:
    frame = table()
    assert list(frame.columns) == COLUMNS and frame["n_per_class"].tolist() == [-1, -1]
    write_results(frame, tmp_path / "a.parquet")
    write_results(frame.sample(frac=1, random_state=1).sort_index()[COLUMNS[::-1]], tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    pd.testing.assert_frame_equal(read_results(tmp_path / "a.parquet"), frame)


def test_several_files_are_put_under_each_other(tmp_path: Path) -> None:
    write_results(table(), tmp_path / "a.parquet")
    write_results(table().assign(method="smote"), tmp_path / "b.parquet")
    both = read_results([tmp_path / "a.parquet", tmp_path / "b.parquet"])
    assert both["method"].tolist() == ["real", "real", "smote", "smote"]
    with pytest.raises(ValueError, match="rows appear twice"):
        read_results([tmp_path / "a.parquet", tmp_path / "a.parquet"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": np.nan}, "row 0: metric 'macro_f1' holds nan, expected a finite number"),
        ({"seed": -2}, "row 0: column 'seed' holds -2, expected a whole number >= -1"),
        ({"seed": 0.5}, "column 'seed' holds 0.5"),
        ({"n": "many"}, "column 'n' holds 'many'"),
        ({"method": ""}, "column 'method' holds '', expected non-empty text"),
        ({"domain": None}, "column 'domain' holds"),
        ({"wall_time": 1.0}, "unknown columns \\['wall_time'\\]"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_results(table().assign(**change), tmp_path / "x.parquet")
    assert not list(tmp_path.iterdir())


def test_missing_column_and_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="missing columns \\['split'\\]"):
        write_results(table().drop(columns="split"), tmp_path / "x.parquet")
    with pytest.raises(FileNotFoundError, match="no such result table"):
        read_results(tmp_path / "nothing.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(ValueError, match="text.parquet: not a readable parquet file"):
        read_results(tmp_path / "text.parquet")
    table().to_parquet(tmp_path / "short.parquet", index=False)
    pd.DataFrame({"value": [1.0]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="other.parquet: missing columns"):
        read_results(tmp_path / "other.parquet")
