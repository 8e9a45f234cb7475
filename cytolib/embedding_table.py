"""The embedding table: cell ids, one float32 vector each, and what made them; parquet on disk, checked both ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from cytolib import run
from cytolib.joined import SEPARATOR, join_metadata, parts_of
from cytolib.parquet import metadata_of, read_table
from cytolib.text import printable

MAX_ID = 128  # characters: NumPy gives every id the room of the longest
REQUIRED_METADATA: tuple[str, ...] = (
    "encoder",
    "weights_sha256",
    "transform",
    "image_size",
    "dtype",
    "fingerprint",
)


@dataclass(frozen=True, eq=False)
class EmbeddingTable:
    """Embeddings of cells, valid by construction.

    Attributes:
        cell_ids: (N,) array of str, each once.
        X: (N, D) float32, finite.
        metadata: encoder, weights_sha256, transform, image_size, dtype, fingerprint and more, all str.

    Raises:
        ValueError: in one sentence, for arrays that do not fit, repeated ids, values that are not finite, or
            missing metadata.
    """

    cell_ids: NDArray[np.str_]
    X: NDArray[np.float32]
    metadata: dict[str, str]

    def __post_init__(self) -> None:
        if self.X.ndim != 2 or self.X.dtype != np.float32 or self.X.shape[1] == 0:
            raise ValueError(f"embedding table: X is {self.X.dtype} {self.X.shape}; expected float32 (N, D), D > 0")
        if self.cell_ids.shape != (len(self.X),):
            raise ValueError(f"embedding table: {self.cell_ids.shape} cell ids, {len(self.X)} rows; expected one each")
        unique, first = np.unique(self.cell_ids, return_index=True)
        if len(unique) < len(self.cell_ids):
            row = int(np.setdiff1d(np.arange(len(self.cell_ids)), first)[0])
            raise ValueError(f"embedding table: cell_id {self.cell_ids[row]} in row {row} stands twice; drop one")
        bad = ~np.isfinite(self.X).all(axis=1)
        if bad.any():
            row = int(bad.argmax())
            raise ValueError(
                f"embedding table: {int(bad.sum())} rows have values that are not finite, the first is row {row} "
                f"(cell {self.cell_ids[row]}); embed again or drop them"
            )
        missing = [key for key in REQUIRED_METADATA if key not in self.metadata]
        if missing:
            raise ValueError(f"embedding table: metadata {missing} are missing; expected {list(REQUIRED_METADATA)}")

    def __len__(self) -> int:
        return len(self.cell_ids)

    @property
    def dim(self) -> int:
        """Length D of an embedding."""
        return int(self.X.shape[1])

    def aligned(self, cell_ids: ArrayLike) -> NDArray[np.float32]:
        """Rows (M, D) of the given cells, in their order; so a subset of the cell table finds its embeddings.

        Raises:
            ValueError: if a cell has no row here.
        """
        wanted = np.asarray(cell_ids, dtype=np.str_)
        row_of = {cell_id: row for row, cell_id in enumerate(self.cell_ids.tolist())}
        missing = [cell_id for cell_id in wanted.tolist() if cell_id not in row_of]
        if missing:
            raise ValueError(f"embedding table: {len(missing)} cells have no row, first {missing[0]}; embed them")
        return self.X[[row_of[cell_id] for cell_id in wanted.tolist()]]


def join_tables(tables: Sequence[EmbeddingTable]) -> EmbeddingTable:
    """Tables of the same cells, in the same order, side by side."""
    metadata = join_metadata([table.metadata | {"dimensions": str(table.dim)} for table in tables])
    return EmbeddingTable(tables[0].cell_ids, np.hstack([table.X for table in tables]), metadata)


def write_embeddings(table: EmbeddingTable, path: str | Path) -> None:
    """Write ``table`` as parquet: ``cell_id`` and ``embedding`` (FixedSizeList of float32); same table, same bytes."""
    values = pa.array(np.ascontiguousarray(table.X).ravel(), type=pa.float32())
    columns = [
        pa.array(table.cell_ids.tolist(), type=pa.string()),
        pa.FixedSizeListArray.from_arrays(values, table.dim),
    ]
    metadata = {key: table.metadata[key] for key in sorted(table.metadata)}
    schema = pa.schema([("cell_id", pa.string()), ("embedding", pa.list_(pa.float32(), table.dim))], metadata=metadata)
    with run.atomic_path(path) as temporary:
        pq.write_table(
            pa.Table.from_arrays(columns, schema=schema), temporary, compression="zstd", write_page_checksum=True
        )


def read_embeddings(path: str | Path) -> EmbeddingTable:
    """Read and check an embedding table.

    Raises:
        ValueError: naming the file, if it is damaged or no valid embedding table; FileNotFoundError if missing.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such embedding table; run notebook 01_embed first (or `make pipeline`)")
    mend = "write it again"
    found = read_table(path, mend)
    kinds = {entry.name: entry.type for entry in found.schema}
    kind = kinds.get("embedding", pa.null())
    fits = pa.types.is_fixed_size_list(kind) and kind.value_type == pa.float32()
    if kinds.get("cell_id") != pa.string() or not fits or any(column.null_count for column in found.columns):
        listed = ", ".join(f"{printable(name)[:60]} ({entry})" for name, entry in list(kinds.items())[:10])
        raise ValueError(
            f"{path}: holds {listed}; expected cell_id (string) and embedding (fixed-size list of float32), no nulls"
        )
    values = found["embedding"].combine_chunks()
    flat = values.flatten().to_numpy(zero_copy_only=False)
    metadata = metadata_of(found, path, mend)
    texts: list[str] = found["cell_id"].to_pylist()
    if max(map(len, texts), default=0) > MAX_ID:
        raise ValueError(f"{path}: a cell_id has more than {MAX_ID} characters; expected a SHA-256 or a short name")
    ids = np.array(texts, dtype=np.str_)
    try:
        return EmbeddingTable(ids, np.array(flat.reshape(len(ids), kind.list_size), dtype=np.float32), metadata)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def dimension_names(table: EmbeddingTable) -> list[str]:
    """A name for each dimension: the features' own names for morphometry, else ``dimension 0``, ``dimension 1``, …

    Of encoders side by side each has the names it would have alone, counted from 0.
    """
    parts = parts_of(table.metadata["encoder"])
    lengths = [int(text) for text in table.metadata.get("dimensions", str(table.dim)).split(SEPARATOR)]
    if len(lengths) != len(parts) or sum(lengths) != table.dim:
        parts, lengths = [""], [table.dim]
    return [name for part, length in zip(parts, lengths, strict=True) for name in _names_of(part, length)]


def _names_of(encoder: str, length: int) -> list[str]:
    if encoder.startswith("morphometry"):
        from cytolib.morphometry import FEATURE_NAMES

        if len(FEATURE_NAMES) == length:
            return list(FEATURE_NAMES)
    return [f"dimension {k}" for k in range(length)]
