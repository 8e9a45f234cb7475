"""Plain parquet tables with equal bytes for equal content."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cytolib.run.artefacts import atomic_path

if TYPE_CHECKING:
    import pandas as pd


def write_table(frame: pd.DataFrame, path: str | Path) -> None:
    """Write ``frame`` as parquet: no index, no pandas metadata, atomically; equal frames give equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
