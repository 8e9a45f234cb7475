"""Parquet files from elsewhere, read with limits: a few bytes may stand for terabytes, and names for code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cytolib.text import printable, reason, shown

#: Bytes in memory that a byte of a file may become. Vectors hardly pack at all, columns of few names very well.
MAX_RATIO = 200
FREE_BYTES = 256_000_000  # so much may come out of any file
MAX_TEXT = 4096  # bytes of one text: a path
_MAX_METADATA_BYTES, _MAX_METADATA_ENTRIES = 1_000_000, 200_000
_TYPES = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_boolean,
    pa.types.is_null,
)


def read_table(path: Path, mend: str) -> pa.Table:
    """The columns of a parquet file: texts, numbers, truth values, and vectors of one length; every value checked.

    Args:
        path: the file, which is there.
        mend: what to do about a bad file, for the end of a sentence.

    Raises:
        ValueError: in one sentence that names the file, if it is damaged, has columns of another kind, a text that is
            no UTF-8 or too long, or would take far more memory than its size suggests.
    """
    try:
        with _opened(path) as file:
            schema, metadata = file.schema_arrow, file.metadata
        _check_schema(schema, path, mend)
        _check_size(schema, metadata, path, mend)
        texts = [field.name for field in schema if _is_text(field.type)]
        # Texts stay behind their dictionary until their lengths are known: one long text may stand a million times.
        with _opened(path, read_dictionary=texts, metadata=metadata) as file:
            table = file.read()
        if len(table) != metadata.num_rows:  # Arrow is content with fewer
            raise ValueError(f"{path}: it announces {metadata.num_rows:,} rows and holds {len(table):,}; {mend}")
        for name in dict.fromkeys(texts):
            for place in table.schema.get_all_field_indices(name):
                _check_texts(table.column(place), name, path, mend)
        table = table.cast(schema)
        table.validate(full=True)
    except pa.ArrowCancelled:
        raise
    except (pa.ArrowException, OSError, OverflowError, MemoryError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a readable parquet file ({reason(error)}); {mend}") from error
    return table


def metadata_of(table: pa.Table, path: Path, mend: str) -> dict[str, str]:
    """The text metadata of a table, without what Arrow keeps there for itself.

    Raises:
        ValueError: naming the file, where they are no UTF-8.
    """
    try:
        found = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: its metadata are no UTF-8 text; {mend}") from error
    found.pop("ARROW:schema", None)
    return found


def _opened(path: Path, **options: Any) -> pq.ParquetFile:
    return pq.ParquetFile(
        path,
        page_checksum_verification=True,
        thrift_string_size_limit=_MAX_METADATA_BYTES,
        thrift_container_size_limit=_MAX_METADATA_ENTRIES,
        **options,
    )


def _is_text(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


def _check_schema(schema: pa.Schema, path: Path, mend: str) -> None:
    for field in schema:
        inner = field.type.value_type if pa.types.is_fixed_size_list(field.type) else field.type
        foreign = b"ARROW:extension:name" in (field.metadata or {})
        if foreign or not any(is_type(inner) for is_type in _TYPES) or (inner != field.type and _is_text(inner)):
            kind = "of a type that names code" if foreign else f"of type {printable(str(field.type))[:60]}"
            raise ValueError(
                f"{path}: column {shown(field.name)} is {kind}; expected texts, numbers or a fixed-size list; {mend}"
            )


def _check_size(schema: pa.Schema, metadata: Any, path: Path, mend: str) -> None:
    # Of the row groups alone: pyarrow ends the whole process at the metadata of a damaged column.
    groups = [metadata.row_group(k) for k in range(metadata.num_row_groups)]
    rows = sum(group.num_rows for group in groups)
    if rows != metadata.num_rows or min([rows, *(group.num_rows for group in groups)]) < 0:
        raise ValueError(f"{path}: it announces {metadata.num_rows:,} rows and its parts {rows:,}; {mend}")
    total = max(rows * sum(map(_width, schema)), sum(group.total_byte_size for group in groups))
    size = path.stat().st_size
    if total > max(FREE_BYTES, MAX_RATIO * size):
        raise ValueError(f"{path}: its {size:,} bytes would become {total:,} in memory, as a bomb's do; {mend}")


def _width(field: pa.Field) -> int:
    """Bytes a row of a column takes at least."""
    if pa.types.is_fixed_size_list(field.type):
        return int(field.type.list_size) * max(1, field.type.value_type.bit_width // 8)
    return 4 if _is_text(field.type) or pa.types.is_null(field.type) else max(1, field.type.bit_width // 8)


def _check_texts(column: pa.ChunkedArray, name: str, path: Path, mend: str) -> None:
    total = 0
    for chunk in column.chunks:
        lengths = pc.binary_length(chunk.dictionary)
        longest = pc.max(lengths).as_py() or 0
        if longest > MAX_TEXT:
            raise ValueError(
                f"{path}: column {shown(name)} has a text of {longest:,} bytes; expected at most {MAX_TEXT}; {mend}"
            )
        total += pc.sum(lengths.take(chunk.indices)).as_py() or 0
    if total > max(FREE_BYTES, MAX_RATIO * path.stat().st_size):
        raise ValueError(f"{path}: column {shown(name)} would become {total:,} bytes, as a bomb's do; {mend}")
