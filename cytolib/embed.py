"""Cell table -> embedding table: a pure function of image bytes, encoder and transform, cached by content.

Cells are put in the order of their ids and cut into shards; a shard is one cache file, written when complete, so an
interrupted run loses at most a shard, and the same cells with the same encoder are never computed twice.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from cytolib import run
from cytolib.data import images
from cytolib.embedding_table import EmbeddingTable, dimension_names, read_embeddings, write_embeddings
from cytolib.encoders import Encoder, Transform, get_encoder

__all__ = ["EmbeddingTable", "dimension_names", "embed", "read_embeddings", "write_embeddings"]

_CHUNK = 32  # cells a task
_POOL_FROM = 512  # starting processes takes seconds: not for fewer cells

Task = tuple[str, str]  # image file, the cell_id that its bytes must have


def embed(
    cells: pd.DataFrame,
    image_root: str | Path,
    encoder: str = "morphometry",
    *,
    workers: int | None = None,
    field_of_view: float = 1.0,
    cache: str | Path | None = None,
    progress: bool = True,
    shard: int = 512,
) -> EmbeddingTable:
    """Embed every row of a cell table; rows of the result are in the table's order.

    Args:
        cells: with columns ``cell_id`` (sha256 of the image bytes) and ``path`` (relative to ``image_root``).
        image_root: folder the paths are relative to.
        encoder: name for ``get_encoder``, options included.
        workers: processes (morphometry) or loader threads (torch); default ``run.threads()``. No value depends on it.
        field_of_view: central fraction of the image that is looked at, in (0, 1].
        cache: folder of the cache; default ``run.cache_root() / "embeddings"``.
        progress: show a progress bar.
        shard: cells a cache file; no value depends on it.

    Raises:
        ValueError: for missing columns, repeated ids, an image whose bytes are not those of its ``cell_id``, an
            unreadable image or a bad argument; FileNotFoundError for a missing image.
    """
    tasks = _tasks(cells, Path(image_root))
    workers = run.threads() if workers is None else workers
    for name, value in (("workers", workers), ("shard", shard)):
        if value < 1:
            raise ValueError(f"{name} is {value}; expected at least 1")
    if not 0 < field_of_view <= 1:
        raise ValueError(f"field_of_view is {field_of_view}; expected a fraction in (0, 1]")
    model, transform = get_encoder(encoder)
    folder = Path(cache) if cache is not None else run.cache_root() / "embeddings"
    metadata = model.metadata | {"field_of_view": repr(float(field_of_view)), "fingerprint": model.fingerprint}
    order = sorted(range(len(tasks)), key=lambda k: tasks[k][1])
    X = np.empty((len(tasks), model.dim), dtype=np.float32)
    with ExitStack() as stack:
        compute = _Computer(model, transform, field_of_view, workers, len(tasks), stack)
        bar = stack.enter_context(tqdm(total=len(tasks), desc=f"embed {model.name}", unit="cell", disable=not progress))
        for start in range(0, len(order), shard):
            part = order[start : start + shard]
            wanted = [tasks[k] for k in part]
            file = folder / f"{_shard_key(metadata, [cell_id for _, cell_id in wanted])}.parquet"
            rows = _cached(file, wanted, metadata)
            if rows is None:
                rows = np.concatenate([_advance(bar, chunk) for chunk in compute(wanted)])
                ids = np.array([cell_id for _, cell_id in wanted])
                write_embeddings(EmbeddingTable(ids, rows, metadata), file)
            else:
                bar.update(len(rows))
            X[part] = rows
    return EmbeddingTable(np.array([cell_id for _, cell_id in tasks]), X, metadata)


def _tasks(cells: pd.DataFrame, root: Path) -> list[Task]:
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
    return [(str(root / path), str(cell)) for path, cell in zip(cells["path"], cells["cell_id"], strict=True)]


def _shard_key(metadata: dict[str, str], cell_ids: Sequence[str]) -> str:
    """What a shard's values depend on: encoder, field of view, how images are read, and the images themselves."""
    parts = [metadata["fingerprint"], metadata["field_of_view"], run.sha256(images.__file__), *cell_ids]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _cached(file: Path, wanted: Sequence[Task], metadata: dict[str, str]) -> NDArray[np.float32] | None:
    """The rows of a cache file, or None where it is missing or damaged (pages carry checksums)."""
    if not file.is_file():
        return None
    try:
        table = read_embeddings(file)
    except ValueError as error:
        warnings.warn(f"cache file is damaged and will be computed again: {error}", stacklevel=3)
        return None
    same = table.cell_ids.tolist() == [cell_id for _, cell_id in wanted] and table.metadata == metadata
    return table.X if same else None


def _advance(bar: Any, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    bar.update(len(rows))
    return rows


class _Computer:
    """Runs the encoder over a shard, chunk by chunk: in processes (morphometry), or behind loader threads (torch)."""

    def __init__(
        self, model: Encoder, transform: Transform, field_of_view: float, workers: int, n_cells: int, stack: ExitStack
    ) -> None:
        self.model, self.transform, self.field_of_view = model, transform, field_of_view
        self.workers, self.n_cells, self.stack = workers, n_cells, stack
        self.pool: Executor | None = None  # started at the first shard that is not cached

    def __call__(self, wanted: Sequence[Task]) -> Iterator[NDArray[np.float32]]:
        chunks = [wanted[k : k + _CHUNK] for k in range(0, len(wanted), _CHUNK)]
        if self.model.name != "morphometry":
            if self.pool is None:
                self.pool = self.stack.enter_context(ThreadPoolExecutor(self.workers))
            # Threads decode ahead (Pillow lets go of the interpreter lock) while the model works on what is ready.
            loaded = self.pool.map(lambda task: self.transform(load_checked(task, self.field_of_view)), wanted)
            for chunk in chunks:
                yield self.model([next(loaded) for _ in chunk])
            return
        work = partial(measure, field_of_view=self.field_of_view, size=self.model.image_size)
        if self.workers == 1 or self.n_cells < _POOL_FROM:
            yield from map(work, chunks)
            return
        if self.pool is None:
            context = multiprocessing.get_context("spawn")  # a fork would copy torch's and BLAS's locked threads
            pool = ProcessPoolExecutor(self.workers, mp_context=context, initializer=_one_thread)
            self.pool = self.stack.enter_context(pool)
        try:
            yield from self.pool.map(work, chunks)
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a worker process died: call embed() under `if __name__ == '__main__':`, or with workers=1"
            ) from error


def _one_thread() -> None:
    threadpool_limits(1)


def load_checked(task: Task, field_of_view: float) -> Any:
    """The PIL image of a task, after its bytes proved to be those of its ``cell_id``.

    Raises:
        ValueError: if they are not; FileNotFoundError if there is no such file.
    """
    file, expected = task
    try:
        found = images.cell_id(file)
    except OSError as error:
        raise FileNotFoundError(f"{file}: the cell table names it, but it cannot be read ({error.strerror})") from error
    if found != expected:
        raise ValueError(
            f"{file}: its bytes have sha256 {found[:12]}…, the cell table's cell_id says {expected[:12]}…; "
            "the image was changed: read the data folder again (notebook 00_data)"
        )
    return images.load_image(file, field_of_view)


def measure(tasks: Sequence[Task], field_of_view: float, size: int) -> NDArray[np.float32]:
    """Morphometry (B, D) of the images of ``tasks``; a top-level function, so that worker processes can import it."""
    model, transform = get_encoder("morphometry", image_size=size)
    return model([transform(load_checked(task, field_of_view)) for task in tasks])
