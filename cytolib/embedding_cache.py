"""The cache of embeddings: a file a shard, under a name that says all its values depend on."""

from __future__ import annotations

import errno
import hashlib
import inspect
import os
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from cytolib import run
from cytolib.data import images
from cytolib.embedding_table import EmbeddingTable, read_embeddings, write_embeddings


def shard_file(folder: Path, metadata: dict[str, str], cell_ids: Sequence[str], um_per_px: Sequence[float]) -> Path:
    """Named by encoder, field of view, our own code, the images, and their scale where it is used."""
    parts = [metadata["fingerprint"], metadata["field_of_view_um"], *_code(metadata["encoder"])]
    parts += [*cell_ids, *(repr(scale) for scale in um_per_px)]
    return folder / f"{hashlib.sha256(chr(10).join(parts).encode()).hexdigest()}.parquet"


@cache
def _code(encoder: str) -> list[str]:
    """SHA-256 of our own code between an image file and its embedding, but for what is in the encoder's fingerprint."""
    names = ["transforms"] if encoder == "morphometry" else ["inference", "timm_models", "transforms"]
    files = [Path(images.__file__), *(Path(__file__).with_name(f"{name}.py") for name in names)]
    return [run.sha256(file) for file in files]


def read(file: Path, cell_ids: list[str], metadata: dict[str, str]) -> EmbeddingTable | None:
    """A cache file's table, or None where it is missing or damaged (pages carry checksums)."""
    if not file.is_file():
        return None
    try:
        table = read_embeddings(file)
    except ValueError as error:
        warnings.warn(f"cache file is damaged and will be computed again: {error}", stacklevel=_callers_level())
        return None
    return table if table.cell_ids.tolist() == cell_ids and table.metadata == metadata else None


def keep(table: EmbeddingTable, file: Path) -> None:
    """Write a cache file; a cache that may not be written to is warned of, and costs time only."""
    try:
        write_embeddings(table, file)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        reason = f"{file.parent}: the cache may not be written to ({error.strerror}), so embeddings are not kept in it"
        warnings.warn(f"{reason}; set CYTOLIB_CACHE to a folder that may", stacklevel=_callers_level())


def _callers_level() -> int:
    """How many calls up the first one from outside this package is: whom a warning is for."""
    package, level = f"{Path(__file__).parent}{os.sep}", 1
    frame = inspect.currentframe()
    while frame is not None and (frame := frame.f_back) is not None and frame.f_code.co_filename.startswith(package):
        level += 1
    return level
