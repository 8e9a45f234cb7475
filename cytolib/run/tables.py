"""Plain parquet tables with equal bytes for equal content."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cytolib.run.artefacts import atomic_path

if TYPE_CHECKING:
    import pandas as pd


def write_table(frame: pd.DataFrame, path: str | Path, *, checksums: bool = False) -> None:
    """Write ``frame`` as parquet: no index, no pandas metadata, atomically; equal frames give equal bytes.

    ``checksums`` go into the pages of files that ``read_checked_table`` reads and no manifest proves.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=checksums)


def read_checked_table(path: str | Path) -> pd.DataFrame | None:
    """A table written with checksums; None where it is missing or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read().to_pandas()
    except (OSError, pa.ArrowException, UnicodeDecodeError):
        return None
