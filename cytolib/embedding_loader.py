"""Getting cells to an encoder: read, checked and resized ahead of it, in order, in threads or worker processes."""

from __future__ import annotations

import hashlib
import math
import multiprocessing
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from threadpoolctl import threadpool_limits

from cytolib import morphometry, run
from cytolib.data import images

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from cytolib.transforms import ResizeNormalise

Item = TypeVar("Item")
Result = TypeVar("Result")

_DEATH = re.compile(r"worker \(pid(?:\(s\))? [\d, ]+\) (exited unexpectedly|is killed by signal: [\w ]+)")
_TURN = 16  # batches a thread reads before the encoder takes its turn
_AHEAD = 2  # batches a thread or process may be ahead of the encoder
_REFUSALS = (ValueError, FileNotFoundError, TypeError)


class Task(NamedTuple):
    """A cell to embed: image file, the cell_id that its bytes must have, its scale where a field of view needs it."""

    file: str
    cell_id: str
    um_per_px: float | None


def load_checked(task: Task, field_of_view_um: float) -> Image.Image:
    """The image of a task, after its bytes proved to be those of its ``cell_id``.

    Raises:
        ValueError: if they are not, or it is no plain file; FileNotFoundError if there is no such file.
    """
    try:
        images.check_plain(task.file)
        file = open(task.file, "rb")
    except OSError as error:
        raise FileNotFoundError(
            f"{task.file}: the cell table names it, but it cannot be read ({error.strerror}); "
            "read the data folder again (notebook 00_data)"
        ) from error
    with file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != task.cell_id:
            raise ValueError(
                f"{task.file}: its bytes have sha256 {found[:12]}…, the cell table's cell_id says "
                f"{task.cell_id[:12]}…; the image was changed: read the data folder again (notebook 00_data)"
            )
        file.seek(0)
        return images.load_image(task.file, field_of_view_um, task.um_per_px, opened=file)


@dataclass(frozen=True)
class PixelBatch:
    """Tasks -> (B, size, size, 3) uint8 tensor, resized; picklable. The encoder normalises, on its own device."""

    transform: ResizeNormalise
    field_of_view_um: float

    def __call__(self, tasks: Sequence[Task]) -> torch.Tensor:
        import torch

        return torch.from_numpy(self.array(tasks))

    def array(self, tasks: Sequence[Task]) -> NDArray[np.uint8]:
        """The same, as an array."""
        pixels = np.empty((len(tasks), self.transform.size, self.transform.size, 3), dtype=np.uint8)
        for k, task in enumerate(tasks):
            pixels[k] = self.transform.pixels(load_checked(task, self.field_of_view_um))
        return pixels


def pixel_batches(
    load: PixelBatch, batches: Iterable[Sequence[Task]], workers: int, accelerator: bool
) -> Iterator[torch.Tensor]:
    """Batches of pixels, in order: from ``workers`` processes, or with 0 from threads of this process.

    Pillow lets go of the interpreter lock while it decodes and resizes. Beside an accelerator threads read ahead; on a
    CPU they take turns with the encoder, which wants all cores at once: a thread that decodes on one of them makes the
    others wait at every layer (0.74 of the bare model's speed when reading ahead, 0.91 in turns: MobileNetV2, 2 cores).
    Processes do not wait for the lock either, which tells from several thousand cells a second, on an accelerator, and
    where a transform takes milliseconds a cell, on a CPU: there they take turns with the encoder as threads do.
    """
    if workers and load.transform.laborious and not accelerator:
        return _tensors(in_pool(load.array, batches, workers, ahead=False))
    if workers:
        return in_processes(load, batches, workers, pin=accelerator)
    return (in_threads if accelerator else in_turns)(load, batches, run.threads())


def in_turns(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """``map`` in threads, in order; while a result is being used, no thread works."""
    with ThreadPoolExecutor(threads) as pool:
        yield from _turns(pool, function, items, threads * _TURN)


def _turns(pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], many: int) -> Iterator[Result]:
    remaining = iter(items)
    while turn := list(islice(remaining, many)):
        yield from list(pool.map(function, turn))


def _tensors(arrays: Iterator[NDArray[np.uint8]]) -> Iterator[torch.Tensor]:
    import torch

    return map(torch.from_numpy, arrays)


def in_threads(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """``map`` in threads, in order, never more than ``_AHEAD`` results a thread ahead."""
    with ThreadPoolExecutor(threads) as pool:
        yield from _ahead(pool, function, items, threads * _AHEAD)


def in_pool(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, ahead: bool = True
) -> Iterator[Result]:
    """``map`` in processes, in order; ``function`` and what it takes and gives must be picklable.

    Without ``ahead`` no process works while a result is being used.

    Raises:
        RuntimeError: in one sentence, if a process dies.
    """
    context = multiprocessing.get_context("spawn")  # a fork would copy torch's and BLAS's locked threads
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        try:
            if ahead:
                yield from _ahead(pool, function, items, workers * _AHEAD)
            else:
                yield from _turns(pool, function, items, workers * _TURN)
        except BrokenProcessPool as error:
            raise _worker_died("") from error


def _ahead(pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], window: int) -> Iterator[Result]:
    # Executor.map would take in all items at once: the whole set would lie decoded in memory.
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > window:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


class _Batches:
    """A map-style data set whose indices are the tasks themselves: workers hold no list of all cells."""

    def __init__(self, load: PixelBatch) -> None:
        self.load = load

    def __getitem__(self, tasks: Sequence[Task]) -> torch.Tensor | Exception:
        try:
            return self.load(tasks)
        except _REFUSALS as error:
            return error  # raised again by who waits for it: torch would wrap it in a page of traceback


def in_processes(
    load: PixelBatch, batches: Iterable[Sequence[Task]], workers: int, pin: bool
) -> Iterator[torch.Tensor]:
    """Batches of pixels from a torch DataLoader with spawned processes, through shared memory, in order.

    Raises:
        ValueError, FileNotFoundError: a worker's, as it was; RuntimeError, in one sentence, if a worker dies.
    """
    from torch.utils.data import DataLoader

    loader: DataLoader[Any] = DataLoader(
        cast(Any, _Batches(load)),
        batch_size=None,  # an item is a batch already
        sampler=cast(Any, batches),
        num_workers=workers,
        prefetch_factor=_AHEAD,
        pin_memory=pin,
        collate_fn=_as_it_is,
        worker_init_fn=_one_thread,
        multiprocessing_context="spawn",  # a fork would copy CUDA's and torch's locked threads
    )
    loading: Any = iter(loader)
    try:
        while (loaded := _next(loading)) is not None:
            if isinstance(loaded, Exception):
                raise loaded
            yield loaded
    finally:
        # At once, not when the traceback lets go of it: until then torch raises a worker's death again whenever any
        # other child of this process ends.
        loading._shutdown_workers()


def _next(loading: Iterator[Any]) -> Any:
    """The next item, None at the end; one sentence where a worker died before its tensor was fetched from it."""
    try:
        return next(loading, None)
    except (ConnectionError, EOFError, FileNotFoundError) as error:
        raise _worker_died(f" ({type(error).__name__})") from error


@contextmanager
def worker_deaths() -> Iterator[None]:
    """One sentence where torch reports a dead loader process: it does so wherever the main thread happens to be."""
    try:
        yield
    except RuntimeError as error:
        found = _DEATH.search(str(error))
        if found is None:
            raise
        raise _worker_died(f" ({found[1]})") from error


def _worker_died(how: str) -> RuntimeError:
    return RuntimeError(
        f"a worker process died{how}: call embed() under `if __name__ == '__main__':`, see that memory and shared "
        "memory (/dev/shm) suffice, or pass workers=0; finished shards are in the cache"
    )


def _as_it_is(batch: Any) -> Any:
    return batch


def _one_thread(_: int = 0) -> None:
    threadpool_limits(1)


def measured_batches(
    batches: Iterable[Sequence[Task]], field_of_view_um: float, size: int, workers: int
) -> Iterator[NDArray[np.float32]]:
    """Morphometry (b, D) of each batch, in order: in this process, or in ``workers`` of them."""
    work = partial(measure, field_of_view_um=field_of_view_um, size=size)
    return map(work, batches) if workers == 0 else in_pool(work, batches, workers)


def measure(tasks: Sequence[Task], field_of_view_um: float, size: int) -> NDArray[np.float32]:
    """Morphometry (B, D) of the images of ``tasks``; a top-level function, so that worker processes can import it."""
    sized = (morphometry.resize(load_checked(task, field_of_view_um), size) for task in tasks)
    return np.stack([morphometry.extract(image, size) for image in sized])


def scales_of(cells: pd.DataFrame, field_of_view_um: float) -> NDArray[np.float64] | None:
    """Micrometres a pixel (N,), or None where the whole image is looked at."""
    import pandas as pd  # worker processes, which import this module, need none of it

    if not (math.isfinite(field_of_view_um) and field_of_view_um >= 0):
        raise ValueError(f"field_of_view_um is {field_of_view_um}; expected micrometres above 0, or 0 for all of it")
    if field_of_view_um == 0:
        return None
    if "um_per_px" not in cells.columns:
        raise ValueError(
            f"cell table: column um_per_px is missing, and a field of view of {field_of_view_um} um needs each image's "
            "scale; pass field_of_view_um=0 for whole images"
        )
    scales = pd.to_numeric(cells["um_per_px"], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    bad = ~(np.isfinite(scales) & (scales > 0))
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(
            f"cell table: um_per_px of {cells['path'].iloc[row]} (row {row}) is {cells['um_per_px'].iloc[row]}, and so "
            f"of {int(bad.sum())} cells in all; expected micrometres a pixel above 0: fill it in, or pass "
            "field_of_view_um=0 for whole images"
        )
    return scales
