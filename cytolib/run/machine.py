"""How much memory this process may use: the machine's, or less in a container."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Memory:
    """Bytes of memory that may be used and that are free; ``limited_by`` is "machine" or "container"."""

    total: int
    free: int
    limited_by: str


def memory() -> Memory:
    """The machine's memory, or that of its control group (Docker, SLURM, Kubernetes) where it is less."""
    import psutil

    whole = psutil.virtual_memory()
    found = Memory(int(whole.total), int(whole.available), "machine")
    for limit, used in container_limits():
        if limit < found.total:
            found = Memory(limit, min(found.free, max(0, limit - used)), "container")
    return found


def container_limits(groups: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> list[tuple[int, int]]:
    """(limit, used) in bytes of every control group above this process that has a limit; versions 1 and 2."""
    found = []
    for folder in _folders(groups, own):
        for names in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            limit, used = (_number(folder / name) for name in names)
            if limit is not None and limit < 2**60:  # version 1 writes a huge number for no limit
                found.append((limit, (used or 0) - _cached(folder)))
    return found


def out_of_memory_kills() -> int:
    """How often the system has killed a process of this control group for want of memory; 0 where it does not say."""
    counts = []
    for folder in _folders(CGROUPS, Path("/proc/self/cgroup")):
        counts += [_entry(folder / "memory.events", "oom_kill"), _entry(folder / "memory.oom_control", "oom_kill")]
    return max(counts, default=0)


def _folders(groups: Path, own: Path) -> list[Path]:
    """Folders of the memory control groups of this process, innermost first, up to the root of the mount."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "memory" in controllers.split(","):
            base = groups / "memory" if controllers else groups
            inner = base / path.lstrip("/")
            found += [folder for folder in (inner, *inner.parents) if folder.is_relative_to(base)]
    return list(dict.fromkeys(found))


def _cached(folder: Path) -> int:
    """Bytes of files in memory that the system gives back when it needs them."""
    return _entry(folder / "memory.stat", "inactive_file") or _entry(folder / "memory.stat", "total_inactive_file")


def _entry(path: Path, key: str) -> int:
    try:
        pairs = dict(line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines() if " " in line)
        return int(pairs.get(key, 0))
    except (OSError, ValueError):
        return 0


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # "max" is no number: no limit
        return None
