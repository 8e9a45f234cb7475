"""Cell table -> embedding table: a pure function of image bytes, encoder and transform, cached by content.

Cells are put in the order of their ids and cut into shards; a shard is one cache file, written when complete, so an
interrupted run loses at most a shard, and the same cells with the same encoder are never computed twice.
"""

from __future__ import annotations

import errno
import hashlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from cytolib import embedding_loader as loader
from cytolib import run
from cytolib.data import images
from cytolib.embedding_table import EmbeddingTable, dimension_names, join_tables, read_embeddings, write_embeddings
from cytolib.encoders import Encoder, Transform, get_encoder
from cytolib.joined import parts_of

if TYPE_CHECKING:
    from cytolib.inference import Forward
    from cytolib.transforms import ResizeNormalise

__all__ = ["EmbeddingTable", "dimension_names", "embed", "embed_shards", "read_embeddings", "write_embeddings"]

_SHARDS_AT_ONCE = 32  # of encoders side by side: they take turns, and the processes of each start anew every time
_POOL_FROM = 512  # starting processes takes seconds: by itself not for fewer cells


def embed(
    cells: pd.DataFrame,
    image_root: str | Path,
    encoder: str = "morphometry",
    *,
    workers: int | None = None,
    field_of_view_um: float = 0.0,
    cache: str | Path | None = None,
    progress: bool = True,
    shard: int = 512,
    precision: str = "auto",
    batch_size: int | None = None,
) -> EmbeddingTable:
    """Embed every row of a cell table; rows of the result are in the table's order.

    Args:
        cells: with columns ``cell_id`` (sha256 of the image bytes) and ``path`` (relative to ``image_root``), and
            ``um_per_px`` (micrometres a pixel) where a field of view is asked for.
        image_root: folder the paths are relative to.
        encoder: name for ``get_encoder``, options included.
        workers: processes that read images (and measure them, for morphometry); 0 does all in this process, with
            decoding threads for torch encoders. Default: 0 for fewer than 512 cells, and for torch encoders of whole
            images on a CPU; else as many as there are cores, less one for the process that feeds an accelerator. No
            value depends on it.
        field_of_view_um: side of the central square that the encoder sees, in micrometres; 0 is the whole image.
        cache: folder of the cache; default ``run.cache_root() / "embeddings"``.
        progress: show a progress bar, with cells a second.
        shard: cells a cache file; no value depends on it.
        precision: ``float32``, ``bfloat16`` (autocast) or ``auto``: bfloat16 on CUDA, float32 elsewhere. Recorded as
            ``dtype`` in the metadata, and so part of the fingerprint.
        batch_size: cells a forward pass; default by device. Values depend on it by rounding only.

    Raises:
        ValueError: for missing columns, repeated ids, an image whose bytes are not those of its ``cell_id``, an
            unreadable image, a missing scale or a bad argument; FileNotFoundError for a missing image; RuntimeError
            if a worker process dies.
    """
    shards = embed_shards(
        cells,
        image_root,
        encoder,
        workers=workers,
        field_of_view_um=field_of_view_um,
        cache=cache,
        progress=progress,
        shard=shard,
        precision=precision,
        batch_size=batch_size,
    )
    rows, part = next(shards)  # a table without rows was refused
    X = np.empty((len(cells), part.dim), dtype=np.float32)
    X[rows] = part.X
    for rows, part in shards:
        X[rows] = part.X
    return EmbeddingTable(cells["cell_id"].to_numpy(dtype=np.str_), X, part.metadata)


def embed_shards(
    cells: pd.DataFrame,
    image_root: str | Path,
    encoder: str = "morphometry",
    *,
    workers: int | None = None,
    field_of_view_um: float = 0.0,
    cache: str | Path | None = None,
    progress: bool = True,
    shard: int = 512,
    precision: str = "auto",
    batch_size: int | None = None,
) -> Iterator[tuple[NDArray[np.int64], EmbeddingTable]]:
    """Like ``embed``, shard by shard, for sets whose (N, D) does not fit in memory: one shard is held at a time.

    Yields:
        rows of the cell table (shard,) and their embeddings, first the shards that the cache has, then the others.

    Raises:
        what ``embed`` raises.
    """
    parts = parts_of(encoder)
    if len(parts) > 1:
        options = dict(workers=workers, field_of_view_um=field_of_view_um, cache=cache, progress=progress, shard=shard)
        return _side_by_side(cells, image_root, parts, options | dict(precision=precision, batch_size=batch_size))
    root = Path(image_root)
    _check_table(cells, root)
    if workers is not None and workers < 0:
        raise ValueError(f"workers is {workers}; expected 0 (this process alone), a number of processes, or None")
    if shard < 1:
        raise ValueError(f"shard is {shard}; expected at least 1 cell a cache file")
    scales = loader.scales_of(cells, field_of_view_um)
    model, transform = get_encoder(encoder, precision=precision, batch_size=batch_size)
    ids = cells["cell_id"].astype(str).to_numpy(dtype=object)
    job = _Job(
        root=root,
        cell_ids=ids,
        paths=cells["path"].to_numpy(dtype=object),
        um_per_px=scales,
        order=np.argsort(ids, kind="stable"),
        encoder=model,
        transform=transform,
        metadata=model.metadata | {"field_of_view_um": repr(float(field_of_view_um)), "fingerprint": model.fingerprint},
        workers=_default_workers(model, transform, len(cells)) if workers is None else workers,
        field_of_view_um=float(field_of_view_um),
        folder=Path(cache) if cache is not None else run.cache_root() / "embeddings",
        progress=progress,
        shard=shard,
    )
    return _shards(job)


def _side_by_side(
    cells: pd.DataFrame, image_root: str | Path, parts: list[str], options: dict[str, Any]
) -> Iterator[tuple[NDArray[np.int64], EmbeddingTable]]:
    """Shards of encoders side by side, each with a cache of its own, which it shares with the encoder alone."""
    _check_table(cells, Path(image_root))
    order = np.argsort(cells["cell_id"].astype(str).to_numpy(dtype=object), kind="stable")
    many = _SHARDS_AT_ONCE * options["shard"]
    for start in range(0, len(order), many):
        rows = order[start : start + many]
        some = cells.iloc[rows]
        tables = [embed(some, image_root, part, **options) for part in parts]
        whole = join_tables(tables)
        for place in range(0, len(rows), options["shard"]):
            part = slice(place, place + options["shard"])
            yield rows[part], EmbeddingTable(whole.cell_ids[part], whole.X[part], whole.metadata)


@dataclass(frozen=True, eq=False)
class _Job:
    """Checked arguments of ``embed_shards``, and what follows from them."""

    root: Path
    cell_ids: NDArray[Any]  # (N,) object
    paths: NDArray[Any]  # (N,) object
    um_per_px: NDArray[np.float64] | None
    order: NDArray[np.int64]  # rows by cell_id
    encoder: Encoder
    transform: Transform
    metadata: dict[str, str]
    workers: int
    field_of_view_um: float
    folder: Path
    progress: bool
    shard: int

    def tasks(self, rows: NDArray[np.int64]) -> list[loader.Task]:
        scales = [None] * len(rows) if self.um_per_px is None else self.um_per_px[rows].tolist()
        return [
            loader.Task(str(self.root / self.paths[row]), self.cell_ids[row], scale)
            for row, scale in zip(rows.tolist(), scales, strict=True)
        ]


def _check_table(cells: pd.DataFrame, root: Path) -> None:
    missing = [name for name in ("cell_id", "path") if name not in cells.columns]
    if missing:
        raise ValueError(f"cell table: columns {missing} are missing; expected cell_id and path")
    if cells.empty:
        raise ValueError("cell table: it has no rows, so there is nothing to embed")
    if not root.is_dir():
        raise FileNotFoundError(f"image root {root} is no folder; point CYTOLIB_DATA at the data or pass the right one")
    twice = cells["cell_id"].duplicated()
    if twice.any():
        row = int(twice.to_numpy().argmax())
        raise ValueError(f"cell table: cell_id {cells['cell_id'].iloc[row]} in row {row} stands twice; drop duplicates")


def _default_workers(model: Encoder, transform: Transform, n_cells: int) -> int:
    # On a CPU, encoder and decoding take turns in one process, each with all cores; only what costs milliseconds a cell
    # (morphometry, windows of cells) pays for processes. An accelerator leaves the cores free and takes thousands of
    # cells a second, more than threads behind one interpreter lock can be sure to give.
    if n_cells < _POOL_FROM:
        return 0
    if model.name == "morphometry" or (run.device().type == "cpu" and getattr(transform, "laborious", False)):
        return run.threads() if run.threads() > 1 else 0
    return max(1, run.threads() - 1) if run.device().type == "cuda" else 0


def _shards(job: _Job) -> Iterator[tuple[NDArray[np.int64], EmbeddingTable]]:
    missing: list[NDArray[np.int64]] = []
    n = len(job.order)
    with tqdm(total=n, desc=f"embed {job.encoder.name}", unit="cell", disable=not job.progress) as bar:
        for start in range(0, n, job.shard):
            rows = job.order[start : start + job.shard]
            found = _cached(_cache_file(job, rows), job.cell_ids[rows].tolist(), job.metadata)
            if found is None:
                missing.append(rows)
                continue
            bar.update(len(rows))
            yield rows, found
        size = job.encoder.batch_size
        # No batch holds cells of two shards, and one loader serves all of them: its processes start once.
        batches = (job.tasks(rows[k : k + size]) for rows in missing for k in range(0, len(rows), size))
        with loader.worker_deaths():
            computed = _compute(job, batches)
            for rows in missing:
                values = [_advance(bar, next(computed)) for _ in range(0, len(rows), size)]
                part = EmbeddingTable(job.cell_ids[rows].astype(np.str_), np.concatenate(values), job.metadata)
                _keep(part, _cache_file(job, rows))
                yield rows, part


def _keep(table: EmbeddingTable, file: Path) -> None:
    """Write a cache file; a cache that may not be written to is warned of, and costs time only."""
    try:
        write_embeddings(table, file)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        reason = f"{file.parent}: the cache may not be written to ({error.strerror}), so embeddings are not kept in it"
        warnings.warn(f"{reason}; set CYTOLIB_CACHE to a folder that may", stacklevel=4)


def _compute(job: _Job, batches: Iterator[Sequence[loader.Task]]) -> Iterator[NDArray[np.float32]]:
    if job.encoder.name == "morphometry":
        return loader.measured_batches(batches, job.field_of_view_um, job.encoder.image_size, job.workers)
    forward = cast("Forward", job.encoder.forward)
    load = loader.PixelBatch(cast("ResizeNormalise", job.transform), job.field_of_view_um)
    pixels = loader.pixel_batches(load, batches, job.workers, accelerator=forward.device.type == "cuda")
    return forward.stream(pixels)


def _advance(bar: Any, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    bar.update(len(rows))
    return rows


def _cache_file(job: _Job, rows: NDArray[np.int64]) -> Path:
    """Named by all that a shard's values depend on: encoder, field of view, image reading, the images, their scale."""
    parts = [job.metadata["fingerprint"], job.metadata["field_of_view_um"], *_code(job.encoder.name)]
    parts += job.cell_ids[rows].tolist()
    if job.um_per_px is not None:
        parts += [repr(scale) for scale in job.um_per_px[rows].tolist()]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return job.folder / f"{key}.parquet"


@cache
def _code(encoder: str) -> list[str]:
    """SHA-256 of our own code between an image file and its embedding; morphometry's is in its fingerprint."""
    files = [Path(images.__file__)]
    if encoder != "morphometry":
        files += [Path(__file__).with_name(f"{name}.py") for name in ("inference", "timm_models", "transforms")]
    return [run.sha256(file) for file in files]


def _cached(file: Path, cell_ids: list[str], metadata: dict[str, str]) -> EmbeddingTable | None:
    """A cache file's table, or None where it is missing or damaged (pages carry checksums)."""
    if not file.is_file():
        return None
    try:
        table = read_embeddings(file)
    except ValueError as error:
        warnings.warn(f"cache file is damaged and will be computed again: {error}", stacklevel=4)
        return None
    return table if table.cell_ids.tolist() == cell_ids and table.metadata == metadata else None
