"""Parquet from elsewhere: cells, embeddings, synthetic cells and results."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cytolib.data.table import read_cells, write_cells
from cytolib.embedding_table import REQUIRED_METADATA, EmbeddingTable, read_embeddings, write_embeddings
from cytolib.evaluate.results import read_results, result_rows
from cytolib.figures import paper  # noqa: F401 (imported before the first fork: it looks for fonts)
from cytolib.run import root
from cytolib.synthetic import COLUMNS as SYNTHETIC_COLUMNS
from cytolib.synthetic import read_synthetic
from tests.cell_tables import toy_cells
from tests.hostile.case import Door, case, command
from tests.hostile.payloads import evil_pickle

PACKED = {"compression": "zstd", "store_schema": False}
METADATA = dict.fromkeys(REQUIRED_METADATA, "x")


def embeddings(path: Path, n: int = 20) -> Path:
    """A sound embedding table."""
    ids = np.array([f"{k:064x}" for k in range(n)])
    write_embeddings(EmbeddingTable(ids, np.random.default_rng(0).random((n, 4), dtype=np.float32), METADATA), path)
    return path


def rewritten(path: Path, change: Callable[[pa.Table], pa.Table], **options: Any) -> Path:
    """The table at ``path``, changed."""
    pq.write_table(change(pq.read_table(path)), path, **options)
    return path


def vectors(table: pa.Table, values: pa.Array) -> pa.Table:
    """``table`` with other embeddings."""
    return table.set_column(1, "embedding", values)


def embedding_case(input: str, change: Callable[[pa.Table], pa.Table], *says: str, **options: Any) -> None:
    """A sound embedding table that was changed."""

    @case(input, "read_embeddings", "e.parquet", *says)
    def _(folder: Path) -> Door:
        path = rewritten(embeddings(folder / "e.parquet"), change, **options)
        return lambda: read_embeddings(path)


def _fixed(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _with_nan(table: pa.Table) -> pa.Table:
    X = np.ones((20, 4), dtype=np.float32)
    X[3, 1] = np.nan
    return vectors(table, _fixed(X))


def _repeated(text: str) -> Callable[[pa.Table], pa.Table]:
    def change(_: pa.Table) -> pa.Table:
        indices = pa.array(np.zeros(300_000, dtype=np.int32))
        ids = pa.DictionaryArray.from_arrays(indices, pa.array([text]))
        return pa.table({"cell_id": ids})

    return change


def _no_utf8(table: pa.Table) -> pa.Table:
    return table.set_column(0, "cell_id", pa.array([b"\xff\xfe"] * 20, pa.binary()).view(pa.string()))


def _huge_metadata(table: pa.Table) -> pa.Table:
    return table.replace_schema_metadata({**METADATA, "note": "x" * 30_000_000})


def _constant(table: pa.Table) -> pa.Table:
    """Ten million rows of eight numbers, all zero: some kilobytes."""
    column = pa.array(np.zeros(50_000_000, dtype=np.float32))
    return pa.table({"cell_id": column, "embedding": column})


embedding_case("parquet: embeddings with NaN", _with_nan, "not finite", "row 3")
embedding_case("parquet: embeddings as float64", lambda t: vectors(t, _fixed(np.ones((20, 4)))), "double", "float32")
embedding_case(
    "parquet: embeddings of different lengths",
    lambda t: vectors(t, pa.array([[1.0], [1.0, 2.0]] * 10, pa.list_(pa.float32()))),
    "is of type list<",
)
embedding_case(
    "parquet: embeddings as text", lambda t: vectors(t, pa.array(["1; import os"] * 20)), "embedding (string)"
)
embedding_case(
    "parquet: nested structures for embeddings", lambda t: vectors(t, pa.array([{"a": [[1]]}] * 20)), "struct"
)
embedding_case("parquet: ids that are no UTF-8", _no_utf8, "UTF8")
embedding_case("parquet: 30 MB of metadata", _huge_metadata, "not a readable parquet file")
embedding_case(
    "parquet: 300 kB that become 60 GB (one text, 300,000 times)",
    _repeated("x" * 200_000),
    "text of 200,000 bytes",
    compression="zstd",
    store_schema=False,
)
embedding_case(
    "parquet: short text, repeated to 1.2 GB",
    _repeated("x" * 4000),
    "as a bomb's do",
    compression="zstd",
    store_schema=False,
)
embedding_case(
    "parquet: 50 million zeros in a few kilobytes", _constant, "as a bomb's do", compression="zstd", store_schema=False
)
embedding_case("parquet: no metadata of the encoder", lambda t: t.replace_schema_metadata(None), "metadata", "missing")


@case("parquet: type that names a pickle in its metadata", "read_embeddings", "e.parquet", "a type that names code")
def _(folder: Path) -> Door:
    names = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": evil_pickle(folder)}
    field = pa.field("cell_id", pa.binary(), metadata=names)  # CVE-2023-47248
    pq.write_table(pa.table([pa.array([b"x"])], schema=pa.schema([field])), folder / "e.parquet")
    return lambda: read_embeddings(folder / "e.parquet")


@case("parquet: a pickle in pandas' metadata", "read_cells", "cells.parquet", "columns", "are missing")
def _(folder: Path) -> Door:
    table = pa.table({"cell_id": ["x"]}).replace_schema_metadata({"pandas": evil_pickle(folder)})
    pq.write_table(table, folder / "cells.parquet")
    return lambda: read_cells(folder / "cells.parquet")


def footer_case(input: str, change: Callable[[bytearray], None], *says: str) -> None:
    """An embedding table whose bytes were changed."""

    @case(input, "read_embeddings", "e.parquet", *says)
    def _(folder: Path) -> Door:
        path = embeddings(folder / "e.parquet")
        content = bytearray(path.read_bytes())
        change(content)
        path.write_bytes(content)
        return lambda: read_embeddings(path)


def _flip(content: bytearray) -> None:
    content[60] ^= 0xFF


def _long_footer(content: bytearray) -> None:
    content[-8:-4] = (0x7FFFFFFF).to_bytes(4, "little")


def _more_rows(content: bytearray) -> None:
    """Every 20, as the footer's compact form writes it (zigzag), becomes 63: rows, values."""
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    for k in range(footer, len(content) - 8):
        if content[k] == 40 and content[k - 1] in (0x16, 0x26):
            content[k] = 126


footer_case("parquet: a byte of a page changed", _flip, "not a readable parquet file")
footer_case("parquet: footer that announces 2 GB", _long_footer, "not a readable parquet file")
footer_case("parquet: footer that announces other row counts", _more_rows, "announces 63 rows and holds 20")
footer_case(
    "parquet: cut in the middle", lambda content: content.__delitem__(slice(200, None)), "not a readable parquet"
)


def cells_case(input: str, column: str, value: Any, *says: str) -> None:
    """A cell table with one hostile value in a column."""

    @case(input, "read_cells", "cells.parquet", *says)
    def _(folder: Path) -> Door:
        path = folder / "cells.parquet"
        write_cells(toy_cells(20), path)
        table = pq.read_table(path)
        place = table.column_names.index(column)
        values = [value, *table.column(column).to_pylist()[1:]]
        pq.write_table(table.set_column(place, column, pa.array(values)), path)
        return lambda: read_cells(path)


cells_case("cell table: path that leaves the root", "path", "../../etc/passwd", "bad path", "inside the image root")
cells_case("cell table: device as a path", "path", "/dev/zero", "bad path", "inside the image root")
cells_case("cell table: formula for a domain", "domain", "=cmd|'/C calc'!A0", "bad domain", "spreadsheet formula")
cells_case("cell table: direction character in a group", "group", "p\u202e1", "bad group", "control characters")
cells_case("cell table: class with a script", "label", "<script>alert(1)</script>", "bad label", "expected one of")
cells_case("cell table: negative scale", "um_per_px", -0.2, "bad um_per_px", "above 0")


@case("cell table: list of lists for a label", "read_cells", "cells.parquet", "'label' is of type list<")
def _(folder: Path) -> Door:
    nested = pa.array([[["blast"]]])
    pq.write_table(pa.table({"label": nested}), folder / "cells.parquet")
    return lambda: read_cells(folder / "cells.parquet")


@case("synthetic table: embeddings that are no vectors", "read_synthetic", "s.parquet", "'embedding' holds")
def _(folder: Path) -> Door:
    columns: dict[str, Any] = dict.fromkeys(SYNTHETIC_COLUMNS[:3], ["x"])
    columns |= {"seed": [1], "guidance_scale": [1.0], "num_inference_steps": [18], "embedding": ["no"]}
    pq.write_table(pa.table(columns), folder / "s.parquet")
    return lambda: read_synthetic(folder / "s.parquet")


FIELDS = {"experiment": "augment", "dataset": "pbc", "encoder": "morphometry", "split": "test", "n": 120}


def results_case(input: str, column: str, values: Any, *says: str) -> None:
    """A result table with one hostile column."""

    @case(input, "read_results", "r.parquet", *says)
    def _(folder: Path) -> Door:
        frame = result_rows({"macro_f1": 0.5}, method="real", seed=3, **FIELDS)  # type: ignore[arg-type]
        table = pa.Table.from_pandas(frame)
        place = table.column_names.index(column)
        pq.write_table(table.set_column(place, column, pa.array([values])), folder / "r.parquet")
        return lambda: read_results(folder / "r.parquet")


results_case("result table: formula for a method", "method", "=1+cmd|'/C calc'!A0", "'method'", "formula")
results_case("result table: escape sequence for a metric", "metric", "a\x1b[2J", "'metric'", "control")
results_case("result table: infinite value", "value", float("inf"), "row 0", "expected a finite number")
results_case("result table: text for a value", "value", "__import__('os')", "'value' holds string")
results_case("result table: lists for seeds", "seed", [1, 2], "'seed' is of type list<")


@case("run whose tables are pickles", "cytolib figures", "results.parquet", "not a readable parquet file")
def _(folder: Path) -> Door:
    run = folder / "cytolib_runs" / "mine"
    for stage in ("00_data", "01_embed", "02_train_diffusion", "03_sample", "04_augment_classifiers"):
        (run / stage).mkdir(parents=True)
        (run / stage / "results.parquet").write_bytes(evil_pickle(folder))
    return lambda: command("figures", "--run", "mine", "--out", str(folder / "out"))


@case("run whose map is a pickle", "cytolib figures", "map.parquet", "not a readable parquet file", leaves=("out*",))
def _(folder: Path) -> Door:
    run = folder / "cytolib_runs" / "mine"
    shutil.copytree(root() / "papermill_runs" / "reference" / "default", run)
    (run / "01_embed" / "map.parquet").write_bytes(evil_pickle(folder))
    return lambda: command("figures", "--run", "mine", "--out", str(folder / "out"))


@case("run whose history has other columns", "cytolib figures", "history.parquet", "columns", leaves=("out*",))
def _(folder: Path) -> Door:
    run = folder / "cytolib_runs" / "mine"
    shutil.copytree(root() / "papermill_runs" / "reference" / "default", run)
    pq.write_table(pa.table({"__import__": [1]}), run / "02_train_diffusion" / "history.parquet")
    return lambda: command("figures", "--run", "mine", "--out", str(folder / "out"))


@case("name of a run that leaves the runs", "cytolib figures", "--run", "../../etc")
def _(folder: Path) -> Door:
    return lambda: command("figures", "--run", "../../etc", "--out", str(folder / "out"))
