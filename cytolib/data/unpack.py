"""Unpacking archives from elsewhere: whatever could write outside its folder or fill the disk is refused by name."""

from __future__ import annotations

import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

from tqdm.auto import tqdm

from cytolib import run
from cytolib.data.archives import Gate, Member, RefusedArchiveError, members

_CHUNK = 1 << 20
# What the standard library raises for damaged archives, beside OSError without a number.
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    ValueError,
    OverflowError,
    struct.error,
    RecursionError,
    MemoryError,
)


def unpack(archive: str | Path, folder: str | Path, *, max_bytes: int, max_files: int, progress: bool = False) -> int:
    """Unpack ``archive`` into ``folder``, which appears only when all of it is there; returns the number of files.

    Only plain files and folders come out. Their permissions, owners and times are not taken over, and what the Finder
    of macOS leaves in archives (``__MACOSX``, ``.DS_Store``, ``._x``) stays behind.

    Args:
        archive: zip or tar (plain, gzip, bzip2, xz), told by its first bytes, not by its name.
        folder: must not exist yet.
        max_bytes: most bytes that all files may have together, as announced and as written.
        max_files: most members, folders included.
        progress: show a progress bar.

    Raises:
        FileNotFoundError, FileExistsError: for an archive that is not there, or a folder that is.
        ValueError: naming the member, for a path that is absolute, has ``..``, a drive letter, a backslash or control
            characters; links, devices, encrypted members; members that are one but for case; too many files or bytes; a
            bomb; an archive that is damaged, cut short, or of another kind.
        OSError: if the disk is full.
    """
    archive, folder = Path(archive), Path(folder)
    if not archive.is_file():
        raise FileNotFoundError(f"{archive}: no such archive; get it first")
    if os.path.lexists(folder):
        raise FileExistsError(f"{folder}: exists already, and nothing is unpacked over it; move it away first")
    gate = Gate(archive, archive.stat().st_size, max_bytes, max_files)
    try:
        with run.atomic_path(folder) as temporary, tqdm(desc=archive.name, unit="file", disable=not progress) as bar:
            temporary.mkdir()
            n_files = 0
            for member in members(archive, temporary, gate):
                n_files += _write(member, temporary, gate)
                bar.update()
            if not n_files:
                gate.refuse("it holds no files")
    except RefusedArchiveError:
        raise
    except NotImplementedError as error:
        raise ValueError(
            f"{archive}: packed in a way that Python cannot read ({_reason(error)}); unpack it by hand"
        ) from error
    except _DAMAGED as error:
        raise _damaged(archive, error) from error
    except OSError as error:
        if error.errno is None:  # bz2 and gzip say so of bad data
            raise _damaged(archive, error) from error
        raise OSError(f"{folder}: not unpacked, and what was written is removed again: {error.strerror}") from error
    return n_files


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _damaged(archive: Path, error: BaseException) -> ValueError:
    return ValueError(
        f"{archive}: damaged or cut short ({_reason(error)}); nothing was unpacked: remove it and get it anew"
    )


def _write(member: Member, folder: Path, gate: Gate) -> int:
    """Write one member; returns 1 for a file, 0 for what is no file or stays behind."""
    target = folder / member.path
    if member.open is None:
        target.mkdir(parents=True, exist_ok=True)
        return 0
    target.parent.mkdir(parents=True, exist_ok=True)
    source = member.open()
    assert source is not None  # files only
    n_bytes = 0
    with source, open(target, "xb") as file:
        while chunk := source.read(_CHUNK):
            n_bytes += len(chunk)
            gate.count_bytes(len(chunk))
            file.write(chunk)
    if n_bytes != member.n_bytes:
        raise EOFError(f"member {member.name!r} has {n_bytes:,} bytes; it announces {member.n_bytes:,}")
    return 1
