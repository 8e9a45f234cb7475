"""Is this machine fit to run the project? Each check says what it found and, where it is broken, how to mend it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cytolib.run.paths import data_root, device, root, threads
from cytolib.run.stage import size_text

INSTALL = "rm -rf .venv && make pipeline sets it up from the lock"


@dataclass(frozen=True)
class Finding:
    """A check's result: ``state`` is "ok", "note" (something optional is missing) or "broken"."""

    what: str
    state: str
    found: str
    mend: str = ""


def check_python() -> Finding:
    """The interpreter: its version, and that it is the project's own."""
    version = ".".join(map(str, sys.version_info[:3]))
    if not (3, 11) <= sys.version_info[:2] < (3, 14):
        return Finding("python", "broken", version, f"Python 3.11 to 3.13 is needed: {INSTALL}")
    return Finding("python", "ok", f"{version}, {sys.executable}")


def check_torch() -> Finding:
    """torch and torchvision fit each other: a compiled operator of torchvision is executed."""
    try:
        import torch
        import torchvision

        boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
        kept = torch.ops.torchvision.nms(boxes, torch.tensor([1.0, 0.5]), 0.5)
        assert kept.tolist() == [0]
    except Exception as error:  # a wrong pair fails with ImportError, RuntimeError, OSError or AttributeError
        mend = f"torch and torchvision must be a pair from the same index: {INSTALL}"
        return Finding("torch", "broken", f"{type(error).__name__}: {str(error).splitlines()[0]}", mend)
    return Finding("torch", "ok", f"torch {torch.__version__} with torchvision {torchvision.__version__}")


def check_kernel() -> Finding:
    """A Jupyter kernel starts and answers in this interpreter."""
    try:
        from jupyter_client.manager import KernelManager

        from cytolib.run.kernels import this_kernel_spec

        class ThisPython(KernelManager):
            @property
            def kernel_spec(self):  # type: ignore[no-untyped-def]
                return this_kernel_spec()

        manager = ThisPython()
        manager.start_kernel(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        client = manager.client()
        try:
            client.start_channels()
            client.wait_for_ready(timeout=60)
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
    except Exception as error:  # zmq, traitlets and jupyter_client each have their own
        return Finding("jupyter kernel", "broken", f"{type(error).__name__}: {error}", f"reinstall: {INSTALL}")
    return Finding("jupyter kernel", "ok", "starts and answers")


def check_disk() -> Finding:
    """Room for runs and caches."""
    free = shutil.disk_usage(root()).free
    if free < 2e9:
        return Finding("disk", "broken", f"{size_text(free)} free", "make 2 GB of room; `make clean` removes runs")
    return Finding("disk", "ok", f"{size_text(free)} free")


def check_memory() -> Finding:
    """Memory for the default pipeline."""
    import psutil

    memory = psutil.virtual_memory()
    found = f"{size_text(memory.available)} of {size_text(memory.total)} free, {threads()} cores"
    if memory.available < 2e9:
        return Finding("memory", "note", found, "the default pipeline wants 2 GB: close other programs or set CORES=1")
    return Finding("memory", "ok", found)


def check_data() -> Finding:
    """The folder of real images; the default run draws its own cells and needs none."""
    folder = data_root()
    if not folder.is_dir() or not any(p.is_dir() for p in folder.iterdir()):
        mend = "for real images set CYTOLIB_DATA to their folder; phantoms need none (`cytolib data list`)"
        return Finding("real data", "note", f"no image set in {folder}", mend)
    return Finding("real data", "ok", str(folder))


def check_chromium() -> Finding:
    """A Chromium for the browser tests; nothing else needs it."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    cache = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / ".cache" / "ms-playwright")
    found = [path for name in names if (path := shutil.which(name))] + sorted(map(str, cache.glob("chromium*")))
    if not found:
        return Finding("chromium", "note", "none found", "for the browser tests: playwright install chromium")
    return Finding("chromium", "ok", found[0])


def check_accelerator() -> Finding:
    """The device that torch will use."""
    try:
        chosen = str(device())
    except Exception as error:  # broken drivers and broken torch alike; check_torch says how to mend torch
        return Finding("accelerator", "note", f"{type(error).__name__}: {error}", "everything runs on the CPU too")
    return Finding("accelerator", "ok", chosen if chosen != "cpu" else "none, the CPU is used")


CHECKS: tuple[Callable[[], Finding], ...] = (
    check_python,
    check_torch,
    check_kernel,
    check_disk,
    check_memory,
    check_data,
    check_chromium,
    check_accelerator,
)


def doctor(say: Callable[[str], None] = print) -> int:
    """Run every check and say what it found; 1 if something that is needed is broken, else 0."""
    broken = 0
    for check in CHECKS:
        finding = check()
        broken += finding.state == "broken"
        say(f"{finding.state:<7} {finding.what:<15} {finding.found}")
        if finding.mend:
            say(f"{'':<7} {'':<15} -> {finding.mend}")
    return int(broken > 0)
