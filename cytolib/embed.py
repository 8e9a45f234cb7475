"""Cell table -> embedding table: a pure function of image bytes, encoder and transform, cached by content.

Cells are put in the order of their ids and cut into shards; a shard is one cache file, written when complete. So an
interrupted run loses little (what was prepared of the next shard or two), and the same cells with the same encoder are
never computed twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from cytolib import embedding_cache, run
from cytolib import embedding_loader as loader
from cytolib.allocator import freed_memory_kept
from cytolib.embedding_pool import worker_deaths
from cytolib.embedding_table import EmbeddingTable, dimension_names, join_tables, read_embeddings, write_embeddings
from cytolib.encoders import Encoder, get_encoder
from cytolib.joined import SEPARATOR, parts_of
from cytolib.transforms import Measured

if TYPE_CHECKING:
    from cytolib.inference import Forward

__all__ = ["EmbeddingTable", "dimension_names", "embed", "embed_shards", "read_embeddings", "write_embeddings"]

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
    root = Path(image_root)
    loader.check_table(cells, root)
    if workers is not None and workers < 0:
        raise ValueError(f"workers is {workers}; expected 0 (this process alone), a number of processes, or None")
    if shard < 1:
        raise ValueError(f"shard is {shard}; expected at least 1 cell a cache file")
    scales = loader.scales_of(cells, field_of_view_um)
    parts = [_part(name, field_of_view_um, precision, batch_size) for name in parts_of(encoder)]
    ids = cells["cell_id"].astype(str).to_numpy(dtype=object)
    job = _Job(
        root=root,
        cell_ids=ids,
        paths=cells["path"].to_numpy(dtype=object),
        um_per_px=scales,
        order=np.argsort(ids, kind="stable"),
        parts=parts,
        prepare=loader.Preparation(tuple(part.preparation for part in parts), float(field_of_view_um)),
        workers=_default_workers(parts, len(cells)) if workers is None else workers,
        folder=Path(cache) if cache is not None else run.cache_root() / "embeddings",
        progress=progress,
        shard=shard,
    )
    return _shards(job)


@dataclass(frozen=True, eq=False)
class _Part:
    """One encoder of those that stand side by side; its cache is that of the encoder alone."""

    encoder: Encoder
    preparation: loader.Part
    metadata: dict[str, str]

    @property
    def network(self) -> Forward | None:
        """The forward pass, or None where cells are measured and that is all."""
        return None if isinstance(self.preparation, Measured) else cast("Forward", self.encoder.forward)

    def start(self, cells: Any) -> Any:
        """Rows (b, D) of prepared cells, perhaps still being computed on an accelerator."""
        if self.network is None:
            return np.asarray(cells)
        import torch

        batches = torch.as_tensor(cells).split(self.network.batch_size)
        return torch.cat([self.network.start(batch) for batch in batches])


def _part(name: str, field_of_view_um: float, precision: str, batch_size: int | None) -> _Part:
    encoder, transform = get_encoder(name, precision=precision, batch_size=batch_size)
    field = {"field_of_view_um": repr(float(field_of_view_um)), "fingerprint": encoder.fingerprint}
    measured = encoder.name == "morphometry"
    preparation = cast("loader.Part", Measured(encoder.image_size) if measured else transform)
    return _Part(encoder, preparation, encoder.metadata | field)


@dataclass(frozen=True, eq=False)
class _Job:
    """Checked arguments of ``embed_shards``, and what follows from them."""

    root: Path
    cell_ids: NDArray[Any]  # (N,) object
    paths: NDArray[Any]  # (N,) object
    um_per_px: NDArray[np.float64] | None
    order: NDArray[np.int64]  # rows by cell_id
    parts: list[_Part]
    prepare: loader.Preparation
    workers: int
    folder: Path
    progress: bool
    shard: int

    def networks(self, wanted: Iterable[int]) -> list[Forward]:
        """Forward passes of the wanted parts, by their places, that have one."""
        return [network for k in wanted if (network := self.parts[k].network) is not None]

    def batch_size(self, wanted: Iterable[int]) -> int:
        """Cells that go through the wanted parts at once: the most that a network takes, or all that are measured."""
        networks = self.networks(wanted)
        return max((network.batch_size for network in networks), default=self.parts[0].encoder.batch_size)

    def tasks(self, rows: NDArray[np.int64]) -> list[loader.Task]:
        scales = [None] * len(rows) if self.um_per_px is None else self.um_per_px[rows].tolist()
        return [
            loader.Task(str(self.root / self.paths[row]), self.cell_ids[row], scale)
            for row, scale in zip(rows.tolist(), scales, strict=True)
        ]

    def cache_file(self, part: _Part, rows: NDArray[np.int64]) -> Path:
        """Where the cache keeps a part's table of ``rows``."""
        scales = [] if self.um_per_px is None else self.um_per_px[rows].tolist()
        return embedding_cache.shard_file(self.folder, part.metadata, self.cell_ids[rows].tolist(), scales)

    def cached(self, part: _Part, rows: NDArray[np.int64]) -> EmbeddingTable | None:
        """A part's table of ``rows`` as the cache has it, or None."""
        return embedding_cache.read(self.cache_file(part, rows), self.cell_ids[rows].tolist(), part.metadata)


def _default_workers(parts: Sequence[_Part], n_cells: int) -> int:
    # On a CPU, encoder and decoding take turns in one process, each with all cores; only what costs milliseconds a cell
    # (morphometry, windows of cells) pays for processes. An accelerator leaves the cores free and takes thousands of
    # cells a second, more than threads behind one interpreter lock can be sure to give.
    if n_cells < _POOL_FROM:
        return 0
    if run.device().type == "cuda" and any(part.network is not None for part in parts):
        return max(1, run.threads() - 1)
    return run.threads() if run.threads() > 1 and any(part.preparation.laborious for part in parts) else 0


def _shards(job: _Job) -> Iterator[tuple[NDArray[np.int64], EmbeddingTable]]:
    missing: list[tuple[NDArray[np.int64], tuple[int, ...]]] = []
    n = len(job.order)
    name = SEPARATOR.join(part.encoder.name for part in job.parts)
    with tqdm(total=n, desc=f"embed {name}", unit="cell", disable=not job.progress) as bar:
        for start in range(0, n, job.shard):
            rows = job.order[start : start + job.shard]
            found = [job.cached(part, rows) for part in job.parts]
            if None in found:
                missing.append((rows, tuple(k for k, table in enumerate(found) if table is None)))
                continue
            bar.update(len(rows))
            yield rows, _joined(cast("list[EmbeddingTable]", found))
        # No batch holds cells of two shards, and one loader serves all of them: its processes start once.
        places = sorted({k for _, wanted in missing for k in wanted})
        size = job.batch_size(places)
        work = (
            loader.Work(job.tasks(rows[k : k + size]), wanted)
            for rows, wanted in missing
            for k in range(0, len(rows), size)
        )
        with worker_deaths(), closing(_compute(job, work, size, job.networks(places))) as computed:
            for rows, wanted in missing:
                batches = [_advance(bar, next(computed)) for _ in range(0, len(rows), size)]
                new = {k: np.concatenate([batch[k] for batch in batches]) for k in wanted}
                yield rows, _joined([_new_or_cached(job, k, rows, new.get(k)) for k in range(len(job.parts))])


def _joined(parts: Sequence[EmbeddingTable]) -> EmbeddingTable:
    return parts[0] if len(parts) == 1 else join_tables(parts)


def _new_or_cached(job: _Job, k: int, rows: NDArray[np.int64], X: NDArray[np.float32] | None) -> EmbeddingTable:
    """A part's table of ``rows``: made of ``X``, and kept, or read again from the cache that had it before."""
    part = job.parts[k]
    if X is not None:
        table = EmbeddingTable(job.cell_ids[rows].astype(np.str_), X, part.metadata)
        embedding_cache.keep(table, job.cache_file(part, rows))
        return table
    found = job.cached(part, rows)
    if found is None:
        raise FileNotFoundError(f"{job.folder}: a file of the cache went while it was in use; embed the cells again")
    return found


def _compute(
    job: _Job, work: Iterable[loader.Work], batch_size: int, networks: Sequence[Forward]
) -> Generator[dict[int, NDArray[np.float32]], None, None]:
    """Embeddings (b, D) by the part's place, for each of ``work``, in order."""
    devices = {network.device.type for network in networks}
    accelerator = "cuda" in devices
    prepared = loader.prepared_batches(
        job.prepare, work, job.workers, batch_size, network=bool(devices), accelerator=accelerator
    )
    # Closed at once, workers with them, and not when whoever holds an error's traceback lets go of it.
    with freed_memory_kept() if "cpu" in devices else nullcontext(), closing(prepared) as batches:
        # What an accelerator computes is fetched after the next batch was started, so that it is not left waiting.
        started: deque[dict[int, Any]] = deque()
        for batch in batches:
            started.append({k: job.parts[k].start(cells) for k, cells in batch.items()})
            if len(started) > accelerator:
                yield _fetched(started.popleft())
        while started:
            yield _fetched(started.popleft())


def _fetched(started: Mapping[int, Any]) -> dict[int, NDArray[np.float32]]:
    return {k: rows if isinstance(rows, np.ndarray) else rows.cpu().numpy() for k, rows in started.items()}


def _advance(bar: Any, batch: dict[int, NDArray[np.float32]]) -> dict[int, NDArray[np.float32]]:
    bar.update(len(next(iter(batch.values()))))
    return batch
