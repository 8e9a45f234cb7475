"""``map`` in threads or worker processes, in order and never far ahead: what feeds an encoder with cells."""

from __future__ import annotations

import multiprocessing
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")
Result = TypeVar("Result")
Results = Generator[Result, None, None]

_DEATH = re.compile(r"worker \(pid(?:\(s\))? [\d, ]+\) (exited unexpectedly|is killed by signal: [\w ]+)")
_AHEAD = 2  # batches a thread or process may be ahead of the encoder
_REFUSALS = (ValueError, FileNotFoundError, TypeError)


def in_turns(function: Callable[[Item], Result], items: Iterable[Item], threads: int, turn: int) -> Results[Result]:
    """``map`` in threads, in order, ``turn`` items at a time; while a result is being used, no thread works."""
    with ThreadPoolExecutor(threads) as pool:
        yield from _turns(pool, function, items, turn)


def _turns(pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], turn: int) -> Results[Result]:
    remaining = iter(items)
    while taken := list(islice(remaining, turn)):
        futures = [pool.submit(function, item) for item in taken]
        wait(futures, return_when=FIRST_EXCEPTION)
        try:
            for future in futures:  # those before one that fails are not lost by it
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def in_threads(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Results[Result]:
    """``map`` in threads, in order, never more than ``_AHEAD`` results a thread ahead."""
    with ThreadPoolExecutor(threads) as pool:
        yield from _ahead(pool, function, items, threads * _AHEAD)


def in_pool(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, turn: int | None = None
) -> Results[Result]:
    """``map`` in processes, in order; ``function`` and what it takes and gives must be picklable.

    With ``turn``, that many items at a time are worked on, and none while a result is being used.

    Raises:
        RuntimeError: in one sentence, if a process dies.
    """
    context = multiprocessing.get_context("spawn")  # a fork would copy torch's and BLAS's locked threads
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        try:
            if turn is None:
                yield from _ahead(pool, function, items, workers * _AHEAD)
            else:
                yield from _turns(pool, function, items, turn)
        except BrokenProcessPool as error:
            raise _worker_died("") from error


def _ahead(pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], window: int) -> Results[Result]:
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


class _Items(Generic[Item]):
    """A map-style data set whose indices are the items themselves: workers hold no list of all cells."""

    def __init__(self, function: Callable[[Item], dict[int, NDArray[Any]]]) -> None:
        self.function = function

    def __getitem__(self, item: Item) -> dict[int, torch.Tensor] | Exception:
        import torch

        try:
            return {key: torch.from_numpy(array) for key, array in self.function(item).items()}
        except _REFUSALS as error:
            return error  # raised again by who waits for it: torch would wrap it in a page of traceback


def in_processes(
    function: Callable[[Item], dict[int, NDArray[Any]]], items: Iterable[Item], workers: int, pin: bool
) -> Generator[dict[int, torch.Tensor], None, None]:
    """``map`` by a torch DataLoader with spawned processes, through shared memory, in order; arrays become tensors.

    Raises:
        ValueError, FileNotFoundError: a worker's, as it was; RuntimeError, in one sentence, if a worker dies.
    """
    from torch.utils.data import DataLoader

    loader: DataLoader[Any] = DataLoader(
        cast(Any, _Items(function)),
        batch_size=None,  # an item stands for a whole batch
        sampler=cast(Any, items),
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
