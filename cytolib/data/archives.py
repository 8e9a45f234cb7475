"""What is in a zip or tar archive, one member after the other; every member passes a gate before anything is written.

The standard library's own checks are not enough: ``zipfile`` renames bad members in silence, and ``tarfile`` ends in
silence at a damaged header.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import re
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, NoReturn

#: Unpacked bytes a byte of the archive. Images hardly pack at all (1 to 3); bombs reach a thousand and more.
MAX_RATIO = 100
_FREE_BYTES = 50_000_000  # so much may come out of any archive: tables and blank masks do pack well
_HEADER_BYTES = 1 << 22  # the longest tar header that is believed: it holds names, not data
_PADDING_BYTES = 1 << 26  # the most that may follow a tar's end
_CHUNK = 1 << 20


class RefusedArchiveError(ValueError):
    """An archive that can be read and must not be unpacked."""


@dataclass(frozen=True)
class Member:
    """A file or folder of an archive that passed the gate; ``open`` is None for a folder."""

    name: str
    path: PurePosixPath
    n_bytes: int
    open: Callable[[], IO[bytes] | None] | None


@dataclass
class Gate:
    """What one archive may still write and the names it has used: every member passes here before it is written."""

    archive: Path
    size: int
    max_bytes: int
    max_files: int
    n_bytes: int = 0
    n_members: int = 0
    names: dict[str, tuple[str, bool]] = field(default_factory=dict)

    def refuse(self, reason: str) -> NoReturn:
        raise RefusedArchiveError(
            f"{self.archive}: {reason}; nothing was unpacked: ask its publisher for a sound archive"
        )

    def admit(self, name: str, is_file: bool) -> PurePosixPath:
        """The relative path of a member; refuses names that mean a place outside, or that hide what they mean."""
        self.n_members += 1
        if self.n_members > self.max_files:
            self.refuse(f"it has more than {self.max_files:,} members")
        if any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in name):
            self.refuse(f"member {name!a} has control characters in its name")
        if "\\" in name:
            self.refuse(f"member {name!r} has a backslash in its name")
        if name.startswith("/"):
            self.refuse(f"member {name!r} has an absolute path")
        if re.match(r"[A-Za-z]:", name):
            self.refuse(f"member {name!r} starts with a drive letter")
        path = PurePosixPath(name)
        if ".." in path.parts:
            self.refuse(f"member {name!r} leaves its folder by '..'")
        if is_file and (not path.parts or name.endswith("/")):
            self.refuse(f"member {name!r} is a file without a name")
        if any(len(part.encode()) > 255 for part in path.parts):
            self.refuse(f"member {name[:40] + '...'!r} has a name of more than 255 bytes")
        for parent in reversed(path.parents[:-1]):
            self._claim(str(parent), is_file=False)
        self._claim(str(path), is_file)
        return path

    def _claim(self, place: str, is_file: bool) -> None:
        """Refuse two members that are one file, here or where the file system ignores case or Unicode form."""
        key = unicodedata.normalize("NFC", place).casefold()
        if key not in self.names:
            self.names[key] = (place, is_file)
            return
        spelling, was_file = self.names[key]
        if spelling != place:
            self.refuse(f"members {spelling!r} and {place!r} differ only in case or in how accents are written")
        if is_file or was_file:
            self.refuse(f"member {place!r} stands twice")

    def count_bytes(self, n: int) -> None:
        """Count ``n`` bytes that came out."""
        self.n_bytes += n
        self.announce(0)

    def announce(self, n: int) -> None:
        """Refuse ``n`` more bytes if that is too much, before any of them is unpacked."""
        total = self.n_bytes + n
        if total > self.max_bytes:
            self.refuse(f"it unpacks to {total:,} bytes or more; expected at most {self.max_bytes:,}")
        if total > max(_FREE_BYTES, MAX_RATIO * self.size):
            self.refuse(f"its {self.size:,} bytes unpack to {total:,} or more, over {MAX_RATIO} times as many: a bomb")


_OPENERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_OTHER_KINDS: dict[bytes, str] = {b"rar!": "a RAR archive", b"7z\xbc\xaf": "a 7z archive", b"<": "a web page"}


def members(archive: Path, folder: Path, gate: Gate) -> Iterator[Member]:
    """The members of ``archive`` that are to be written, in its order, each checked; told apart by the first bytes."""
    with open(archive, "rb") as file:
        head = file.read(512)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_members(archive, folder, gate)
    for magic, opener in _OPENERS.items():
        if head.startswith(magic):
            return _tar_members(archive, opener, folder, gate)
    if head[257:262] == b"ustar":
        return _tar_members(archive, open, folder, gate)
    kind = next((kind for magic, kind in _OTHER_KINDS.items() if head.lstrip().lower().startswith(magic)), "")
    advice = {"a web page": "the address gave no file, get it by hand from its source"}.get(kind, "unpack it by hand")
    raise RefusedArchiveError(
        f"{archive}: {kind or 'neither a zip nor a tar archive'} (starts with {head[:8]!r}); {advice}"
    )


def _stays_behind(path: PurePosixPath) -> bool:
    return path.parts[:1] == ("__MACOSX",) or path.name == ".DS_Store" or path.name.startswith("._")


def _zip_members(archive: Path, folder: Path, gate: Gate) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as opened:
        infos = opened.infolist()
        _check_zip_layout(opened, gate)
        admitted = [(info, _admit_zip(info, gate)) for info in infos]  # all, before the first is written
        total = sum(info.file_size for info in infos)
        gate.announce(total)
        free = shutil.disk_usage(folder).free
        if total > free:
            raise OSError(errno.ENOSPC, f"{total:,} bytes come out and {free:,} are free; make room", str(folder))
        for info, path in admitted:
            if not _stays_behind(path):
                opener = None if _is_folder(info) else (lambda info=info: opened.open(info))
                yield Member(info.filename, path, info.file_size, opener)


def _check_zip_layout(opened: zipfile.ZipFile, gate: Gate) -> None:
    """Refuse an index with lost entries, and members that share bytes: the way to any ratio (Fifield, WOOT 2019)."""
    with open(gate.archive, "rb") as file:
        file.seek(max(0, gate.size - (1 << 16) - 22))  # the end record has 22 bytes and a comment of 16 bits' length
        tail = file.read()
    start = tail.rindex(b"PK\x05\x06")  # ZipFile found it
    (announced,) = struct.unpack_from("<H", tail, start + 10)
    if announced not in (len(opened.infolist()) % (1 << 16), 0xFFFF):  # all bits: a larger record holds the number
        raise zipfile.BadZipFile(f"its index announces {announced} members and lists {len(opened.infolist())}")
    end = 0
    for info in sorted(opened.infolist(), key=lambda info: info.header_offset):
        if info.header_offset < end:
            gate.refuse(f"member {info.orig_filename!r} shares bytes with another one, as a bomb's do")
        end = info.header_offset + 30 + info.compress_size  # 30: the local header without its name


def _is_folder(info: zipfile.ZipInfo) -> bool:
    return info.orig_filename.endswith("/")


def _admit_zip(info: zipfile.ZipInfo, gate: Gate) -> PurePosixPath:
    # orig_filename: the name as written; filename is cut at the first NUL.
    path = gate.admit(info.orig_filename, not _is_folder(info))
    kind = stat.S_IFMT(info.external_attr >> 16)  # the Unix mode, where the archiver wrote one
    if kind == stat.S_IFLNK:
        gate.refuse(f"member {info.filename!r} is a symbolic link")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        gate.refuse(f"member {info.filename!r} is a device, a pipe or a socket")
    if info.flag_bits & 0x41:
        gate.refuse(f"member {info.filename!r} is encrypted")
    return path


class _TarStream:
    """An unpacked tar stream that gives no header more memory than a header needs."""

    def __init__(self, file: IO[bytes]) -> None:
        self.seek, self.tell, self._file = file.seek, file.tell, file
        self.last = b""  # what was read last

    def read(self, n: int = -1) -> bytes:
        if not 0 <= n <= _HEADER_BYTES:
            raise tarfile.ReadError(f"a header asks for {n:,} bytes")
        self.last = self._file.read(n)
        return self.last


def _tar_members(archive: Path, opener: Callable[..., Any], folder: Path, gate: Gate) -> Iterator[Member]:
    with opener(archive, "rb") as file:
        stream: Any = _TarStream(file)
        with tarfile.open(fileobj=stream, mode="r:") as opened:
            for info in opened:
                member = _admit_tar(opened, info, folder, gate)
                if not _stays_behind(member.path) and member.path.parts:
                    yield member
            if stream.last != bytes(tarfile.BLOCKSIZE):  # tarfile stops at anything that is no header
                raise EOFError("its end is missing, or a header is damaged")
        # To the last byte, so that gzip, bzip2 and xz compare their checksums.
        for _ in range(_PADDING_BYTES // _CHUNK):
            if not stream.read(_CHUNK):
                return
            if any(stream.last):
                break
        gate.refuse("data follow its end")


def _admit_tar(opened: tarfile.TarFile, info: tarfile.TarInfo, folder: Path, gate: Gate) -> Member:
    if info.issym() or info.islnk():
        gate.refuse(f"member {info.name!a} is a {'symbolic' if info.issym() else 'hard'} link to {info.linkname!a}")
    if not (info.isreg() or info.isdir()):
        gate.refuse(f"member {info.name!a} is a device, a pipe or of an unknown kind")
    path = gate.admit(info.name, info.isreg())
    gate.announce(info.size)
    tarfile.data_filter(info, str(folder))  # the standard library's own opinion, beside ours
    return Member(info.name, path, info.size, (lambda: opened.extractfile(info)) if info.isreg() else None)
