"""What a stage read from outside the chain, image folders or a split file, and whether all of it is still the same.

A stage writes ``reads.json``: for each file its size, time and SHA-256. Later looks compare names, sizes and times, and
hash again only what differs in time: 14,519 images take a tenth of a second. So a file of the same size whose old time
was put back by hand is not noticed.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from cytolib.run.artefacts import sha256, write_json
from cytolib.run.paths import data_root, root, threads

NAME = "reads.json"
_ROOTS: Mapping[str, Callable[[], Path]] = {"data": data_root, "project": root}


def look(path: Path) -> dict[str, Any]:
    """A file or folder as it is now, hidden files left out: ``root`` ("data" or "project"), ``name`` in it, ``files``.

    ``files`` maps names inside the folder ("" for a file itself) to [bytes, time in ns, SHA-256]; empty where nothing
    is there, and the SHA-256 is empty where a file cannot be read.

    Raises:
        ValueError: for a path that lies neither under the data root nor in the project.
    """
    where = next((name for name, base in _ROOTS.items() if path.is_relative_to(base()) and ".." not in path.parts), "")
    if not where:
        raise ValueError(
            f"{path}: lies neither in the data root {data_root()} nor in {root()}; put it into one of them"
        )
    found = _files(path)
    with ThreadPoolExecutor(threads()) as pool:
        hashes = pool.map(_hash, (path / name for name in found))
        files = {name: [*found[name], digest] for name, digest in zip(found, hashes, strict=True)}
    return {"root": where, "name": path.relative_to(_ROOTS[where]()).as_posix(), "files": files}


def write_reads(entries: Iterable[Mapping[str, Any]], folder: Path) -> str | None:
    """Write ``reads.json`` into a stage's folder and return its SHA-256; None, and no file, where nothing was read."""
    file = folder / NAME
    if not (listed := list(entries)):
        file.unlink(missing_ok=True)
        return None
    write_json(listed, file)
    return sha256(file)


def external_changes(manifest: Mapping[str, Any], folder: Path) -> list[str]:
    """A line for each thing that the stage in ``folder`` read and that is no longer the same, naming a file of it.

    Data that are not on this machine at all are no change: ``external_notes`` says so.
    """
    try:
        entries = _entries(manifest, folder)
    except ValueError as error:
        return [str(error)]
    away = _data_away(entries)
    return [line for entry in entries if not (away and entry["root"] == "data") for line in _changes(entry)]


def external_notes(manifest: Mapping[str, Any], folder: Path) -> list[str]:
    """A line where a finished stage read data that are not on this machine, so that they could not be checked."""
    try:
        away = _data_away(_entries(manifest, folder))
    except ValueError:
        return []  # external_changes says it
    return [f"not checked: {away} is not in the data root {data_root()}"] if away else []


def _entries(manifest: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """The entries of ``reads.json``, with their form checked.

    Raises:
        ValueError: if it is not the file that the stage wrote, or not of this form.
    """
    expected = manifest.get("reads")
    if expected is None:
        return []
    try:
        if sha256(folder / NAME) != expected:
            raise ValueError("it was changed")
        entries: list[dict[str, Any]] = json.loads((folder / NAME).read_bytes())
        for entry in entries:
            name = PurePosixPath(entry["name"])
            if entry["root"] not in _ROOTS or name.is_absolute() or ".." in name.parts:
                raise ValueError(f"{name} is no place that a stage reads from")
            if not all(len(file) == 3 for file in entry["files"].values()):
                raise ValueError("a file has no size, time and hash")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError(f"{NAME}, the list of what it read, is missing or damaged") from None
    return entries


def _data_away(entries: Iterable[Mapping[str, Any]]) -> str:
    """The first thing that was read under the data root, if not one of them is there now; else nothing."""
    there = [entry["name"] for entry in entries if entry["root"] == "data" and entry["files"]]
    return there[0] if there and not any((data_root() / name).exists() for name in there) else ""


def _changes(entry: Mapping[str, Any]) -> list[str]:
    path = _ROOTS[entry["root"]]() / entry["name"]
    old, new = entry["files"], _files(path)
    other = [name for name in old if name in new and new[name] != tuple(old[name][:2])]
    kinds = {
        "was added": sorted(new.keys() - old.keys()),
        "is gone": sorted(old.keys() - new.keys()),
        "changed": sorted(name for name in other if new[name][0] != old[name][0] or _hash(path / name) != old[name][2]),
    }
    return [
        f"{path / names[0]} {what}" + (f", and {len(names) - 1:,} more" if len(names) > 1 else "")
        for what, names in kinds.items()
        if names
    ]


def _files(path: Path) -> dict[str, tuple[int, int]]:
    """Size and time (ns) of the plain files under ``path`` by name; links are followed, each folder is entered once."""
    found: dict[str, tuple[int, int]] = {}
    if not path.is_dir():
        _add(found, path, "")
        return found
    entered: set[tuple[int, int]] = set()
    for folder, inside, names in os.walk(path, followlinks=True):
        status = os.stat(folder)
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        if (status.st_dev, status.st_ino) in entered:  # a link that leads back
            inside.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        prefix = "" if folder == str(path) else Path(folder).relative_to(path).as_posix() + "/"
        for name in names:
            if not name.startswith("."):
                _add(found, os.path.join(folder, name), prefix + name)
    return found


def _add(found: dict[str, tuple[int, int]], path: str | Path, name: str) -> None:
    try:
        status = os.stat(path)
    except OSError:
        return
    if stat.S_ISREG(status.st_mode):
        found[name] = (status.st_size, status.st_mtime_ns)


def _hash(path: Path) -> str:
    try:
        return sha256(path)
    except OSError:
        return ""
