"""What the cases share: pickles that would run code, pictures, archives, models, tables."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.hostile.judge import CANARY


class Payload:
    """Unpickled, it makes the canary's folder: harmless, and seen by the judge."""

    def __init__(self, folder: Path) -> None:
        self.place = str(folder / CANARY)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.place,)


def evil_pickle(folder: Path) -> bytes:
    """A pickle that makes the canary."""
    return pickle.dumps({"state_dict": Payload(folder)}, protocol=2)


def evil_module(folder: Path) -> None:
    """A module ``evil`` in the working folder, which is on Python's path, that makes the canary when it is imported."""
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(folder / CANARY)!r})\n", encoding="utf-8")


def good_image(path: Path, seed: int = 1, **options: Any) -> Path:
    """A small picture with structure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(small).resize((48, 40)).save(path, **options)
    return path


def own_folder(folder: Path) -> Path:
    """``set/neutrophil`` with one good image; hostile ones go beside it. ``check_folder`` reads it."""
    good_image(folder / "set" / "neutrophil" / "good.png")
    return folder / "set" / "neutrophil"


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG whose header says this size, and the chunks that follow it."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join((chunk(b"IHDR", header), *chunks, chunk(b"IEND", b"")))


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def zip_bytes(members: Iterable[tuple[str | zipfile.ZipInfo, bytes]], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return out.getvalue()


def tar_bytes(members: Iterable[tuple[str | tarfile.TarInfo, bytes]]) -> bytes:
    """A tar archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def tar_info(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    """A tar member that is no plain file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info
