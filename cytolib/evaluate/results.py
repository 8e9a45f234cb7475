"""The result table: one tidy, long parquet table that figures, README tables and prose read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cytolib.exposure import encoder_exposure as looked_up_exposure
from cytolib.parquet import read_table
from cytolib.run import atomic_path
from cytolib.text import printable, unfit

#: Columns of a result table, in order. ``n_per_class`` -1 means all cells, ``seed`` -1 over all seeds;
#: ``encoder_exposure`` says what the encoder had seen of the target data; ``n`` is the number of cells behind a value.
SCHEMA = pa.schema(
    [
        ("experiment", pa.string()),
        ("dataset", pa.string()),
        ("encoder", pa.string()),
        ("encoder_exposure", pa.string()),
        ("method", pa.string()),
        ("domain", pa.string()),
        ("n_per_class", pa.int64()),
        ("seed", pa.int64()),
        ("split", pa.string()),
        ("selection", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("n", pa.int64()),
    ]
)
COLUMNS: list[str] = SCHEMA.names
TEXT_COLUMNS = [field.name for field in SCHEMA if field.type == pa.string()]
INTEGER_COLUMNS = [field.name for field in SCHEMA if field.type == pa.int64()]
NUMBER_COLUMNS = [*INTEGER_COLUMNS, "value"]
_ENDS = ("", "[low]", "[high]")
KEY_COLUMNS = [name for name in COLUMNS if name not in ("value", "n")]


def result_rows(
    metrics: Mapping[str, float],
    *,
    experiment: str,
    dataset: str,
    encoder: str,
    method: str,
    split: str,
    n: int,
    encoder_exposure: str = "",
    domain: str = "all",
    n_per_class: int = -1,
    seed: int = -1,
    selection: str = "none",
) -> pd.DataFrame:
    """One row per metric, with the columns of :data:`SCHEMA`.

    ``metrics`` maps names such as ``macro_f1``, ``recall[neutrophil]`` or ``macro_f1[low]`` to finite numbers. What the
    encoder saw of the data set before is looked up (``cytolib.exposure``), unless ``encoder_exposure`` says it.
    """
    shared = {
        "experiment": experiment,
        "dataset": dataset,
        "encoder": encoder,
        "encoder_exposure": encoder_exposure or looked_up_exposure(encoder, dataset, domain),
        "method": method,
        "domain": domain,
        "n_per_class": n_per_class,
        "seed": seed,
        "split": split,
        "selection": selection,
    }
    rows = [{**shared, "metric": name, "value": float(value), "n": n} for name, value in metrics.items()]
    return check_results(pd.DataFrame(rows, columns=COLUMNS))


def check_results(frame: pd.DataFrame, *, source: str = "result table") -> pd.DataFrame:
    """Return ``frame`` in the exact schema (column order, types, RangeIndex), or refuse it in one sentence."""
    missing = [name for name in COLUMNS if name not in frame.columns]
    extra = [printable(str(name))[:60] for name in frame.columns if name not in COLUMNS]
    if missing or extra:
        raise ValueError(
            f"{source}: missing columns {missing}, unknown columns {extra}; expected exactly {COLUMNS}; "
            "build rows with result_rows()"
        )
    checked = frame[COLUMNS].reset_index(drop=True)
    for name in TEXT_COLUMNS:
        bad = [i for i, value in enumerate(checked[name]) if not isinstance(value, str) or not value]
        if bad:
            raise ValueError(
                f"{source}, row {bad[0]}: column {name!r} holds {checked[name].iloc[bad[0]]!r}, expected non-empty text"
            )
        for value in checked[name].unique():
            if unfit(value):
                raise ValueError(f"{source}: column {name!r} holds {value!a}, which {unfit(value)}; rename it")
        checked[name] = checked[name].astype("str")
    for name in INTEGER_COLUMNS:
        checked[name] = _as_integers(checked[name], name, source)
    checked["value"] = _as_finite(checked["value"], checked["metric"], source)
    twice = checked.duplicated(KEY_COLUMNS)
    if twice.any():
        row = checked.loc[int(np.argmax(twice)), ["method", "domain", "seed", "split", "metric"]].to_dict()
        raise ValueError(f"{source}: {int(twice.sum())} rows appear twice, first {row}; expected one row per key")
    return checked


def _as_integers(column: pd.Series, name: str, source: str) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    lowest = -1 if name in ("seed", "n_per_class") else 0
    bad = ~np.isfinite(numbers) | (numbers != np.floor(numbers)) | (numbers < lowest)
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"{source}, row {row}: column {name!r} holds {column.tolist()[row]!r}, expected a whole number >= {lowest}"
        )
    return pd.Series(numbers.astype(np.int64), name=name)


def _as_finite(column: pd.Series, metrics: pd.Series, source: str) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    if not np.isfinite(numbers).all():
        row = int(np.argmax(~np.isfinite(numbers)))
        raise ValueError(
            f"{source}, row {row}: metric {metrics.iloc[row]!r} holds {column.tolist()[row]!r}, expected a finite "
            "number; leave out a metric that is not defined"
        )
    return pd.Series(numbers, name="value")


def write_results(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a checked result table as parquet; equal tables give equal bytes."""
    checked = check_results(frame)
    columns = {name: checked[name].to_numpy() for name in COLUMNS}
    table = pa.table({name: pa.array(values, SCHEMA.field(name).type) for name, values in columns.items()}, SCHEMA)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def read_results(paths: str | Path | Iterable[str | Path]) -> pd.DataFrame:
    """Read one result table, or several put under each other; every file is checked against the schema."""
    files = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    if not files:
        raise ValueError("read_results: no path given, expected at least one result table")
    frames = []
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such result table; run the notebook or sweep that writes it first")
        table = read_table(file, "write it with write_results()")
        for field in table.schema:
            text = pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
            if pa.types.is_fixed_size_list(field.type) or (text and field.name in NUMBER_COLUMNS):
                raise ValueError(f"{file}: column {field.name!r} holds {field.type}; write it with write_results()")
        frame = table.replace_schema_metadata(None).to_pandas()
        frames.append(check_results(frame, source=str(file)))
    return check_results(pd.concat(frames, ignore_index=True), source=", ".join(map(str, files)))


def interval_metrics(table: pd.DataFrame) -> dict[str, float]:
    """``x``, ``x[low]``, ``x[high]`` of a table with metric, value, low and high; ends that are NaN are left out."""
    rows = zip(*(table[name].tolist() for name in ("metric", "value", "low", "high")), strict=True)
    named = {f"{metric}{end}": value for metric, *values in rows for end, value in zip(_ENDS, values, strict=True)}
    return {name: value for name, value in named.items() if value == value}


def with_ends(frame: pd.DataFrame, metrics: Iterable[str], index: str | list[str] = "method") -> pd.DataFrame:
    """A table to read: rows by ``index``, a column a metric, each cell ``0.929 [0.867, 0.980]`` (95 % interval)."""
    wide = frame.pivot_table(index=index, columns="metric", values="value", sort=False)

    def written(metric: str) -> list[str]:
        ends = [wide.get(f"{metric}[{end}]", pd.Series(np.nan, wide.index)) for end in ("low", "high")]
        rows = zip(wide[metric], *ends, strict=True)
        return [f"{value:.3f}" + (f" [{low:.3f}, {high:.3f}]" if low == low else "") for value, low, high in rows]

    return pd.DataFrame({metric.replace("_", " "): written(metric) for metric in metrics}, index=wide.index)
