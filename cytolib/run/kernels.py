"""Processes that execute stages: their environment, the interpreter they run in, and the memory they take."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cytolib.run.processes import PARENT_VARIABLE
from cytolib.run.stage import FOLDER_VARIABLE, TOKEN_VARIABLE

if TYPE_CHECKING:
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def stage_environment(folder: Path, token: str, threads: int) -> dict[str, str]:
    """Environment of a stage's process: pinned threads, fixed hashing, caches of its own, no user settings.

    MPLBACKEND is taken out: with it, notebooks lose every inline figure without an error.
    """
    environment = {k: v for k, v in os.environ.items() if k not in ("MPLBACKEND", "CYTOLIB_RUN", "PYTHONSTARTUP")}
    hidden = folder.parent / ".pipeline"
    ipython = hidden / "ipython" / folder.name
    ipython.mkdir(parents=True, exist_ok=True)
    environment |= {name: str(threads) for name in THREAD_VARIABLES}
    environment |= {
        FOLDER_VARIABLE: str(folder),
        TOKEN_VARIABLE: token,
        PARENT_VARIABLE: str(os.getpid()),
        "HF_MODULES_CACHE": str(hidden / "hf_modules" / folder.name),
        "IPYTHONDIR": str(ipython),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONHASHSEED": "0",
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        "TQDM_MININTERVAL": "10",
    }
    return environment


def this_kernel_spec() -> KernelSpec:
    """A kernel of this very interpreter, whatever ``python3`` kernel is installed for the user or first on the PATH."""
    from jupyter_client.kernelspec import KernelSpec

    return KernelSpec(
        argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        display_name="Python 3",
        language="python",
        metadata={"supported_encryption": ["curve"]},  # as ipykernel's own: sockets are encrypted, no warning
    )


def kernel_manager_class(environment: dict[str, str], log: Any) -> type[AsyncKernelManager]:
    """A kernel manager that starts this interpreter with a given environment, native output going to ``log``."""
    from jupyter_client.manager import AsyncKernelManager

    class ThisPython(AsyncKernelManager):
        transport_encryption = "auto"

        @property
        def kernel_spec(self) -> KernelSpec:
            return this_kernel_spec()

        async def start_kernel(self, **settings: Any) -> None:  # type: ignore[override]
            await self._async_start_kernel(**{**settings, "env": environment, "stdout": log, "stderr": log})

    return ThisPython


class Children:
    """The processes that this one starts while the block runs: the memory they take, and their end with the block.

    Attributes:
        peak_bytes: largest sum of their resident memory, sampled every ``interval_s`` seconds.
    """

    def __init__(self, interval_s: float = 0.2) -> None:
        self.peak_bytes = 0
        self._interval_s = interval_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Children:
        self._before = {child.pid for child in self._all()}
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.kill()

    def _all(self) -> list[Any]:
        import psutil

        try:
            return psutil.Process().children(recursive=True)
        except psutil.Error:
            return []

    def _sample(self) -> None:
        import psutil

        while not self._over.wait(self._interval_s):
            total = 0
            for child in self._all():
                try:
                    total += 0 if child.pid in self._before else _own_bytes(child)
                except psutil.Error:
                    continue
            self.peak_bytes = max(self.peak_bytes, total)

    def kill(self) -> None:
        """Kill all of them, and theirs."""
        import psutil

        for child in self._all():
            if child.pid not in self._before:
                try:
                    child.kill()
                except psutil.Error:
                    continue


def _own_bytes(process: Any) -> int:
    """Memory of one process, pages that several share counted once between them (PSS), where the system tells it."""
    full = process.memory_full_info()
    return int(getattr(full, "pss", 0) or full.rss)
