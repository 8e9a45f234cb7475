"""Where things are: project root, data, runs and cache, whatever the working directory."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@cache
def root() -> Path:
    """The project root: the nearest folder with a pyproject.toml above the package, else above the working directory.

    Raises:
        FileNotFoundError: where neither has one (the package was installed without its project).
    """
    for start in (Path(__file__).resolve(), Path.cwd()):
        for folder in (start, *start.parents):
            if (folder / "pyproject.toml").is_file():
                return folder
    raise FileNotFoundError(
        f"no pyproject.toml above {Path.cwd()}: cytolib runs inside its project folder; change into your clone of it"
    )


def _folder(variable: str, default: str) -> Path:
    value = os.environ.get(variable)
    return Path(value).expanduser().resolve() if value else root() / default


def data_root() -> Path:
    """Folder of the real image sets: ``$CYTOLIB_DATA``, else ``data/`` of the project."""
    return _folder("CYTOLIB_DATA", "data")


def runs_root() -> Path:
    """Folder of the run folders: ``$CYTOLIB_RUNS``, else ``papermill_runs/`` of the project."""
    return _folder("CYTOLIB_RUNS", "papermill_runs")


def cache_root() -> Path:
    """Folder of the content-addressed cache: ``$CYTOLIB_CACHE``, else ``.cache/`` of the project."""
    return _folder("CYTOLIB_CACHE", ".cache")


def threads() -> int:
    """How many cores this process may use: ``$OMP_NUM_THREADS``, else those the scheduler grants it."""
    value = os.environ.get("OMP_NUM_THREADS", "")
    if value.isdigit() and int(value) > 0:
        return int(value)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device() -> torch.device:
    """The best accelerator that torch finds here, else the CPU."""
    import torch

    if torch.accelerator.is_available():
        accelerator = torch.accelerator.current_accelerator()
        if accelerator is not None:
            return accelerator
    return torch.device("cpu")
