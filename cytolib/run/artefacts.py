"""Files that stand under their final name only when they are complete, and the hashes that prove what they hold."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` (same suffix); on success it replaces ``path``, on error it is removed.

    What is written may be a file or a folder; a folder replaces an existing folder as a whole.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem[:80]}.{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        if temporary.is_dir():
            _replace_folder(temporary, path)
        else:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        raise


def _replace_folder(new: Path, path: Path) -> None:
    # Side by side the disk writes them in one go: 14,519 images in 3 s, where one after the other took 69.
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(_flush, [file for file in new.rglob("*") if file.is_file()]))
    old = new.with_name(new.name + ".old")
    if path.exists():
        os.rename(path, old)
    os.rename(new, path)
    shutil.rmtree(old, ignore_errors=True)


def _flush(file: Path) -> None:
    with open(file, "rb+") as opened:
        os.fsync(opened.fileno())


def write_json(values: Any, path: str | Path) -> None:
    """Write plain JSON atomically, in a form that diffs well."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes; of a folder, of its sorted relative file names and their contents."""
    path = Path(path)
    if not path.is_dir():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = (p for p in path.rglob("*") if p.is_file())
    return tree_sha256({file.relative_to(path).as_posix(): sha256(file) for file in files})


def tree_sha256(hashes: Mapping[str, str]) -> str:
    """The hash of a folder from its relative file names and their SHA-256."""
    tree = hashlib.sha256()
    for name in sorted(hashes):
        tree.update(name.encode() + b"\0" + bytes.fromhex(hashes[name]))
    return tree.hexdigest()
