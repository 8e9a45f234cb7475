"""Archives that a server hands out for a data set: whatever could write outside its folder or fill the disk."""

from __future__ import annotations

import json
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from cytolib.data import resume
from cytolib.data.cards import DataSet, Download
from cytolib.data.download import get_data_set
from cytolib.data.readers.common import Reading
from tests.hostile.case import Door, case
from tests.hostile.payloads import tar_bytes, tar_info, zip_bytes
from tests.local_server import serve

GET = "cytolib data get"
#: The lock and what was fetched may stay: the next try starts from there.
LEAVES = ("cytolib_data/.downloads*",)


def get(folder: Path, content: bytes, name: str = "set.zip") -> Door:
    """``cytolib data get`` of a card whose server gives ``content``."""
    root = folder / "cytolib_data"

    def read(_: Path, __: Path) -> Reading:
        raise AssertionError("never read")

    def door() -> object:
        resume.TIMEOUT_S = 5.0
        with serve() as site:
            site.files[name] = content
            downloads = (Download(site.url + name, name),)
            card = DataSet(
                "set", "a set", "nobody", "nowhere", "none", "set", "set/<class>", 0, read, downloads=downloads
            )
            return get_data_set(card, root, progress=False, say=lambda _: None)

    return door


def archive_case(input: str, make: Callable[[], bytes], *says: str, name: str = "set.zip") -> None:
    """An archive of these bytes, handed out by a server."""

    @case(input, GET, name, *says, leaves=LEAVES)
    def _(folder: Path) -> Door:
        return get(folder, make(), name)


def _mode(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def _lying_zip() -> bytes:
    """A member that announces 5 bytes and unpacks to 5 million."""
    data = zip_bytes([("set/a", bytes(5_000_000))])
    assert data.count(struct.pack("<I", 5_000_000)) == 2
    return data.replace(struct.pack("<I", 5_000_000), struct.pack("<I", 5))


def _shared_zip() -> bytes:
    """Two entries of the index with one stream of bytes."""
    import io

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as opened:
        opened.writestr("set/one", b"x" * 100)
        twin, first = zipfile.ZipInfo("set/two"), opened.filelist[0]
        for name in ("header_offset", "CRC", "file_size", "compress_size"):
            setattr(twin, name, getattr(first, name))
        opened.filelist.append(twin)
        opened._didModify = True  # type: ignore[attr-defined]
    return out.getvalue()


GOOD = ("set/neutrophil/a.png", b"x")
archive_case("zip bomb: 200 MB of zeros", lambda: zip_bytes([("set/a", bytes(200_000_000))]), "a bomb")
archive_case("zip whose member lies about its size", _lying_zip, "damaged or cut short")
archive_case("zip whose members share their bytes", _shared_zip, "shares bytes")
archive_case("zip that leaves its folder by ..", lambda: zip_bytes([GOOD, ("../../evil", b"x")]), "leaves its folder")
archive_case("zip with an absolute path", lambda: zip_bytes([GOOD, ("/var/tmp/evil", b"x")]), "an absolute path")
archive_case("zip with a Windows path", lambda: zip_bytes([GOOD, ("..\\evil", b"x")]), "a backslash")
archive_case("zip with a symbolic link", lambda: zip_bytes([GOOD, (_mode("set/l", stat.S_IFLNK), b"/etc")]), "link")
archive_case("zip with a device", lambda: zip_bytes([GOOD, (_mode("set/d", stat.S_IFCHR), b"")]), "a device")
archive_case("zip with names one but for case", lambda: zip_bytes([("set/a", b"1"), ("set/A", b"2")]), "only in case")
archive_case("zip with a name that turns direction", lambda: zip_bytes([("set/a\u202egpj", b"")]), "control characters")
archive_case("zip cut in the middle", lambda: zip_bytes([("set/a", b"x" * 5000)], 0)[:3000], "damaged or cut short")
archive_case("web page in place of a zip", lambda: b"<html>please log in</html>", "a web page")
archive_case(
    "tar with a symbolic link out, and a file behind it",
    lambda: tar_bytes([(tar_info("set/l", tarfile.SYMTYPE, "/var/tmp"), b""), ("set/l/evil", b"x")]),
    "a symbolic link to '/var/tmp'",
    name="set.tar",
)
archive_case(
    "tar with a hard link",
    lambda: tar_bytes([(tar_info("set/h", tarfile.LNKTYPE, "/etc/passwd"), b"")]),
    "hard link",
    name="set.tar",
)
archive_case(
    "tar with a device", lambda: tar_bytes([(tar_info("set/n", tarfile.CHRTYPE), b"")]), "a device", name="set.tar"
)
archive_case(
    "tar with a named pipe", lambda: tar_bytes([(tar_info("set/p", tarfile.FIFOTYPE), b"")]), "a pipe", name="set.tar"
)
archive_case(
    "tar with an absolute path", lambda: tar_bytes([("/var/tmp/evil", b"x")]), "an absolute path", name="set.tar"
)
archive_case(
    "tar that leaves its folder by ..", lambda: tar_bytes([("../evil", b"x")]), "leaves its folder", name="set.tar"
)


@case("record of checksums that is a list", GET, "checksums.json", "not a record of checksums", leaves=LEAVES)
def _(folder: Path) -> Door:
    (folder / "cytolib_data" / "checksums.json").write_text(json.dumps([1, 2]), encoding="utf-8")
    return get(folder, zip_bytes([GOOD]))


@case("archive that differs from its first download", GET, "its checksum is", "checksums.json", leaves=LEAVES)
def _(folder: Path) -> Door:
    first = {"set/set.zip": {"url": "", "sha256": "0" * 64, "bytes": 1, "vouched_by": "first download"}}
    (folder / "cytolib_data" / "checksums.json").write_text(json.dumps(first), encoding="utf-8")
    return get(folder, zip_bytes([GOOD]))
