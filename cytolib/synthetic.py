"""The synthetic embedding table: one row a synthetic cell, with the seed and settings that made it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cytolib import run
from cytolib.parquet import read_table
from cytolib.text import printable

if TYPE_CHECKING:
    from cytolib.diffusion import EmbeddingDiffusionOutput

COLUMNS: tuple[str, ...] = ("synthetic_id", "label", "domain", "seed", "guidance_scale", "num_inference_steps")
_KINDS: dict[str, Callable[[pa.DataType], bool]] = {
    **dict.fromkeys(("synthetic_id", "label", "domain"), lambda kind: kind in (pa.string(), pa.large_string())),
    **dict.fromkeys(("seed", "num_inference_steps"), pa.types.is_integer),
    "guidance_scale": pa.types.is_floating,
    "embedding": lambda kind: pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type),
}


def synthetic_table(
    drawn: EmbeddingDiffusionOutput, *, num_inference_steps: int, guidance_scale: float
) -> tuple[pd.DataFrame, np.ndarray]:
    """The cells of a pipeline's output, and their embeddings (N, D) float32 in the same order.

    ``synthetic_id`` joins class and seed, which with the model and the settings determine a cell; ``domain`` is ``any``
    where no domain was asked for.
    """
    domains = drawn.domain_labels if drawn.domain_labels is not None else np.full(len(drawn.seeds), "any")
    cells = pd.DataFrame(
        {
            "synthetic_id": [f"{name}-{seed}" for name, seed in zip(drawn.class_labels, drawn.seeds, strict=True)],
            "label": drawn.class_labels.astype(str),
            "domain": domains.astype(str),
            "seed": drawn.seeds.astype(np.int64),
            "guidance_scale": float(guidance_scale),
            "num_inference_steps": num_inference_steps,
        }
    )
    return cells, drawn.embeddings


def write_synthetic(cells: pd.DataFrame, X: np.ndarray, path: str | Path, metadata: dict[str, str]) -> None:
    """Write synthetic cells and their embeddings; ``metadata`` names the encoder, as an embedding table's does.

    Raises:
        ValueError: for columns or shapes that do not fit, or values that are not finite.
    """
    if tuple(cells.columns) != COLUMNS or len(cells) != len(X) or X.ndim != 2:
        raise ValueError(
            f"synthetic table: columns {list(cells.columns)}, X {X.shape}; expected {list(COLUMNS)}, (N, D)"
        )
    if not np.isfinite(X).all():
        raise ValueError("synthetic table: some embeddings are not finite; train longer or lower the guidance scale")
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(X.astype(np.float32).ravel()), X.shape[1])
    table = pa.Table.from_pandas(cells, preserve_index=False).append_column("embedding", vectors)
    with run.atomic_path(path) as temporary:
        pq.write_table(table.replace_schema_metadata(dict(sorted(metadata.items()))), temporary, compression="zstd")


def read_synthetic(path: str | Path) -> tuple[pd.DataFrame, np.ndarray]:
    """Read what ``write_synthetic`` wrote: the cells, and their embeddings (N, D) float32.

    Raises:
        FileNotFoundError, ValueError: in one sentence that names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such synthetic table; notebook 03_sample writes it")
    mend = "run notebook 03_sample again"
    table = read_table(path, mend)
    if tuple(table.column_names) != (*COLUMNS, "embedding"):
        found = ", ".join(printable(name)[:60] for name in table.column_names[:10])
        raise ValueError(f"{path}: columns {found}; expected {[*COLUMNS, 'embedding']}; {mend}")
    kinds = {field.name: field.type for field in table.schema}
    for name, fits in _KINDS.items():
        if not fits(kinds[name]) or table[name].null_count:
            raise ValueError(f"{path}: column {name!r} holds {kinds[name]} or nulls, not what was written; {mend}")
    vectors = table["embedding"].combine_chunks()
    X = vectors.flatten().to_numpy(zero_copy_only=False).reshape(len(table), vectors.type.list_size)
    if not np.isfinite(X).all():
        raise ValueError(f"{path}: some embeddings are not finite; {mend}")
    return table.drop_columns("embedding").replace_schema_metadata(None).to_pandas(), X
