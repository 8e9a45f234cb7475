"""Which processes belong to a run, whether they live, and how all of them are ended, orphans included."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: In the environment of everything that a ``cytolib run`` starts, kernels and their workers included: its run folder.
RUN_VARIABLE = "CYTOLIB_PIPELINE"
#: In the environment of a script stage: the process that started it.
PARENT_VARIABLE = "CYTOLIB_STAGE_PARENT"


def identity(pid: int) -> str | None:
    """What tells a living process from any other that has had its number; None where it has ended.

    On Linux this is its start in ticks since the boot: a start in seconds of the day (psutil's ``create_time``) changes
    when the clock is set. A killed process that its parent has not asked for yet (a zombie) has ended.
    """
    if Path("/proc/self/stat").is_file():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else fields[19]
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else repr(process.create_time())
    except psutil.Error:
        return None


def kill_descendants(pid: int | None = None) -> None:
    """Kill every process below ``pid`` (this process for None)."""
    import psutil

    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return
    for child in children:
        try:
            child.kill()
        except psutil.Error:
            continue


def kill_marked(variable: str, value: str, wait_s: float = 10.0) -> int:
    """Kill every other process whose environment has ``variable`` set to ``value``, and wait for their end.

    A killed process leaves its children to the system, and no tree leads to them any more; the environment that they
    were started with still does. Returns how many there were.
    """
    import psutil

    killed, until = 0, time.monotonic() + wait_s
    while True:  # again, until none is left: a process may have started another one meanwhile
        found = [process for process in psutil.process_iter() if _is_marked(process, variable, value)]
        for process in found:
            try:
                process.kill()
            except psutil.Error:
                continue
        killed += len(found)
        if not found or time.monotonic() > until:
            return killed
        psutil.wait_procs(found, timeout=max(0.0, until - time.monotonic()))


def _is_marked(process: Any, variable: str, value: str) -> bool:
    import psutil

    if process.pid == os.getpid():
        return False
    try:
        return process.environ().get(variable) == value
    except (psutil.Error, OSError):
        return False  # it has ended, or it is another user's


def end_when(gone: Callable[[], bool], last: Callable[[], Any], interval_s: float = 0.5) -> None:
    """End this process by a thread as soon as ``gone()`` holds; ``last()`` is called before, and whole.

    What ``last`` kills first is often what the main thread waits for: it would go on, come to its end and take this
    thread with it, before the rest is killed. So an exit waits for the thread, once ``gone()`` holds.
    """

    def watch() -> None:
        while not gone():
            time.sleep(interval_s)
        try:
            last()
        finally:
            os._exit(1)

    def wait() -> None:
        if gone():
            thread.join()

    thread = threading.Thread(target=watch, daemon=True)
    atexit.register(wait)
    thread.start()
