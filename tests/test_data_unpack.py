"""Archives from elsewhere: what is sound comes out whole, whatever could harm is refused by name and leaves nothing."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import random
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from cytolib.data import archives
from cytolib.data import unpack as unpack_module
from cytolib.data.unpack import unpack

FILES = {
    "set/neutrophil/a.jpg": b"\xff\xd8" + bytes(range(256)) * 40,
    "set/labels.csv": b"path,label\n",
    "set/void": b"",
}
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "tar": lambda data: data,
    "tar.gz": gzip.compress,
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
}


def make_zip(path: Path, members: Iterable[tuple[str | zipfile.ZipInfo, bytes]], compression: int = 8) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def tar_bytes(members: Iterable[tuple[str | tarfile.TarInfo, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def make_tar(path: Path, members: Iterable[tuple[str | tarfile.TarInfo, bytes]]) -> Path:
    path.write_bytes(tar_bytes(members))
    return path


def make(kind: str, path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    return make_zip(path, members) if kind == "zip" else make_tar(path, members)


def tar_info(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def zip_info(name: str, mode: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refusal(archive: Path, *, max_bytes: int = 10**9, max_files: int = 100) -> str:
    """The sentence that refuses ``archive``; nothing but the archives themselves may stand in their folder after it."""
    before = sorted(archive.parent.rglob("*"))
    with pytest.raises(ValueError) as error:
        unpack(archive, archive.parent / "out", max_bytes=max_bytes, max_files=max_files)
    assert sorted(archive.parent.rglob("*")) == before, "something was left behind"
    text = str(error.value)
    assert text.startswith(str(archive)) and "\n" not in text
    return text


@pytest.mark.parametrize("kind", ["zip", *PACKERS])
def test_sound_archives_come_out_whole(kind: str, tmp_path: Path) -> None:
    archive = tmp_path / "any name at all"
    if kind == "zip":
        make_zip(archive, FILES.items())
    else:
        folder = tar_info("set/", tarfile.DIRTYPE)
        archive.write_bytes(PACKERS[kind](tar_bytes([(folder, b""), *FILES.items()])))
    assert unpack(archive, tmp_path / "out", max_bytes=20_000, max_files=10) == 3
    assert contents(tmp_path / "out") == FILES
    assert sorted(p.name for p in tmp_path.iterdir()) == ["any name at all", "out"]


def test_modes_are_not_taken_over_and_finder_files_stay_behind(tmp_path: Path) -> None:
    info = tarfile.TarInfo("set/run.sh")
    info.mode = 0o4777
    junk = [("__MACOSX/set/._a.jpg", b"x"), ("set/.DS_Store", b"x"), ("set/._a.jpg", b"x")]
    unpack(make_tar(tmp_path / "a.tar", [(info, b"#!"), *junk]), tmp_path / "out", max_bytes=10**6, max_files=9)
    assert contents(tmp_path / "out") == {"set/run.sh": b"#!"}
    assert not (tmp_path / "out/set/run.sh").stat().st_mode & (stat.S_ISUID | stat.S_IXUSR)


BAD_NAMES = {
    "/etc/evil": "has an absolute path",
    "../evil": "leaves its folder by '..'",
    "set/../../evil": "leaves its folder by '..'",
    "C:/evil": "starts with a drive letter",
    "c:evil": "starts with a drive letter",
    "..\\evil": "has a backslash",
    "\\\\server\\evil": "has a backslash",
    "set/a\nb": "control characters",
    "set/a\x1b[2Jb": "control characters",
    "set/gpj.\u202eexe": "control characters",
    "set/" + "a" * 300: "more than 255 bytes",
    ".": "is a file without a name",
}


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_mean_another_place_are_refused(kind: str, name: str, tmp_path: Path) -> None:
    archive = make(kind, tmp_path / "a", [("set/good", b"good"), (name, b"evil")])
    assert BAD_NAMES[name] in refusal(archive)


def test_a_zip_name_cut_by_a_nul_is_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", [("set/aXb.jpg", b"evil")])
    archive.write_bytes(archive.read_bytes().replace(b"aXb.jpg", b"a\0b.jpg"))
    assert "control characters" in refusal(archive)


def test_a_name_that_is_no_unicode_is_refused(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "a.tar", [(b"set/\xff\xfe".decode("utf-8", "surrogateescape"), b"evil")])
    assert "control characters" in refusal(archive)


TWINS = {
    ("set/a.jpg", "set/A.jpg"): "differ only in case",
    ("set/a/x", "SET/b/y"): "differ only in case",
    ("set/\u00e9", "set/e\u0301"): "differ only in case or in how accents are written",
    ("set/stra\u00dfe", "set/STRASSE"): "differ only in case",
    ("set/a.jpg", "set/a.jpg"): "stands twice",
    ("set/a", "set/a/b"): "stands twice",
    ("set/a/b", "set/a"): "stands twice",
    ("set/a", "./set//a"): "stands twice",
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", TWINS)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_that_would_be_one_file_are_refused(kind: str, names: tuple[str, str], tmp_path: Path) -> None:
    assert TWINS[names] in refusal(make(kind, tmp_path / "a", [(name, b"x") for name in names]))


TAR_KINDS = {
    "symbolic link": tar_info("set/link", tarfile.SYMTYPE, "/etc/passwd"),
    "symbolic link to": tar_info("set/link", tarfile.SYMTYPE, "neutrophil"),  # inside: refused all the same
    "hard link": tar_info("set/link", tarfile.LNKTYPE, "set/good"),
    "a device": tar_info("set/null", tarfile.CHRTYPE),
    "a device,": tar_info("set/disk", tarfile.BLKTYPE),
    "a pipe": tar_info("set/pipe", tarfile.FIFOTYPE),
    "unknown kind": tar_info("set/what", b"Q"),
}


@pytest.mark.parametrize("said", TAR_KINDS)
def test_tar_members_that_are_no_files_are_refused(said: str, tmp_path: Path) -> None:
    assert said in refusal(make_tar(tmp_path / "a.tar", [("set/good", b"good"), (TAR_KINDS[said], b"")]))


@pytest.mark.parametrize(
    ("mode", "said"),
    [(stat.S_IFLNK | 0o777, "symbolic link"), (stat.S_IFCHR | 0o666, "a device"), (stat.S_IFIFO, "a pipe")],
)
def test_zip_members_that_are_no_files_are_refused(mode: int, said: str, tmp_path: Path) -> None:
    assert said in refusal(
        make_zip(tmp_path / "a.zip", [("set/good", b"x"), (zip_info("set/l", mode), b"/etc/passwd")])
    )


def test_encrypted_members_are_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", [("set/secret", b"x")])
    data = bytearray(archive.read_bytes())
    for magic, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(magic) + flags] |= 1
    archive.write_bytes(data)
    assert "member 'set/secret' is encrypted" in refusal(archive)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_size_and_number_are_capped(kind: str, tmp_path: Path) -> None:
    archive = make(kind, tmp_path / "a", [(f"set/{k}", os.urandom(1000)) for k in range(10)])
    assert "unpacks to" in refusal(archive, max_bytes=9_999) and "more than 9 members" in refusal(archive, max_files=9)
    assert unpack(archive, tmp_path / "out", max_bytes=10_000, max_files=10) == 10


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_announced_sizes_are_capped_before_a_byte_is_written(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = make(kind, tmp_path / "a", [("set/big", b"x" * 1000)])
    monkeypatch.setattr(unpack_module, "_write", lambda *_: pytest.fail("written before it was refused"))
    assert "unpacks to 1,000 bytes" in refusal(archive, max_bytes=999)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_written_bytes_are_capped_whatever_was_announced(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = make(kind, tmp_path / "a", [("set/big", b"x" * 1000)])
    monkeypatch.setattr(archives.Gate, "announce", lambda self, n: None if n else ANNOUNCE(self, n))
    assert "unpacks to 1,000 bytes" in refusal(archive, max_bytes=999)


ANNOUNCE = archives.Gate.announce


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_bombs_are_refused_by_their_ratio(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_FREE_BYTES", 1_000_000)
    members = [("set/zeros", bytes(5_000_000))]
    archive = tmp_path / "bomb"
    if kind == "zip":
        make_zip(archive, members)
    else:
        archive.write_bytes(PACKERS[kind](tar_bytes(members)))
    assert "a bomb" in refusal(archive)
    monkeypatch.setattr(archives, "_FREE_BYTES", 10_000_000)
    assert unpack(archive, tmp_path / "out", max_bytes=10**9, max_files=9) == 1


def test_members_that_share_bytes_are_refused(tmp_path: Path) -> None:
    """Two entries of the index point to one compressed stream, as in bombs that reach any ratio."""
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("set/one", b"x" * 100)
        twin = zipfile.ZipInfo("set/two")
        first = opened.filelist[0]
        for name in ("header_offset", "CRC", "file_size", "compress_size"):
            setattr(twin, name, getattr(first, name))
        opened.filelist.append(twin)
        opened._didModify = True
    assert "shares bytes" in refusal(archive)


@pytest.mark.parametrize("kind", ["zip", *PACKERS])
def test_archives_that_are_cut_short_are_refused(kind: str, tmp_path: Path) -> None:
    noise = [(f"set/{k}", random.Random(k).randbytes(700)) for k in range(20)]
    whole = make_zip(tmp_path / "z", noise).read_bytes() if kind == "zip" else PACKERS[kind](tar_bytes(noise))
    (tmp_path / "z").unlink(missing_ok=True)
    padding = 10240 if kind == "tar" else 0  # zeros after the end, which may be missing
    archive = tmp_path / "a"
    for length in [*range(600, len(whole) - padding, 1531), len(whole) - padding - 1]:
        archive.write_bytes(whole[:length])
        assert "damaged or cut short" in refusal(archive), length


@pytest.mark.parametrize("kind", ["zip", *PACKERS])
def test_no_damage_passes_as_sound(kind: str, tmp_path: Path) -> None:
    """A byte changed anywhere: refused in one sentence, or the files are still what they were. Plain tar has no CRC."""
    noise = [(f"set/{k}", random.Random(k).randbytes(300)) for k in range(4)]
    expected = dict(noise)
    whole = make_zip(tmp_path / "z", noise).read_bytes() if kind == "zip" else PACKERS[kind](tar_bytes(noise))
    (tmp_path / "z").unlink(missing_ok=True)
    archive = tmp_path / "a"
    chance = random.Random(1)
    for _ in range(150):
        data = bytearray(whole)
        where = chance.randrange(len(data))
        data[where] ^= 1 << chance.randrange(8)
        archive.write_bytes(data)
        out = tmp_path / "out"
        try:
            unpack(archive, out, max_bytes=10**6, max_files=10)
        except ValueError as error:
            assert "\n" not in str(error)
            assert not out.exists()
            continue
        found = contents(out)
        assert all(not p.is_symlink() for p in out.rglob("*"))
        if kind not in ("tar", "zip"):
            assert found == expected
        elif kind == "zip":  # its names have no CRC, its contents have
            assert sorted(found.values()) == sorted(expected.values())
        for path in sorted(out.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        out.rmdir()


def test_a_member_shorter_than_announced_is_refused(tmp_path: Path) -> None:
    """zipfile itself is content: the checksum of what came fits."""
    archive = make_zip(tmp_path / "a.zip", [("set/a", b"x" * 1000)])
    data = archive.read_bytes()
    assert data.count((1000).to_bytes(4, "little")) == 2  # local header and index
    archive.write_bytes(data.replace((1000).to_bytes(4, "little"), (1001).to_bytes(4, "little")))
    assert "member 'set/a' has 1,000 bytes; it announces 1,001" in refusal(archive)


def test_a_damaged_tar_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    data = bytearray(tar_bytes([("set/a", b"a"), ("set/b", b"b")]))
    data[1024 + 150] ^= 0xFF  # checksum of the second header: tarfile stops there in silence
    (tmp_path / "a.tar").write_bytes(data)
    assert "its end is missing, or a header is damaged" in refusal(tmp_path / "a.tar")


def test_a_tar_behind_another_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_bytes([("set/a", b"a")]) + tar_bytes([("set/b", b"b")]))
    assert "data follow its end" in refusal(tmp_path / "a.tar")


def test_a_tar_header_cannot_fill_the_memory(tmp_path: Path) -> None:
    name = tarfile.TarInfo("././@LongLink")
    name.type = tarfile.GNUTYPE_LONGNAME
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(gzip.compress(tar_bytes([(name, bytes(8_000_000)), ("set/a", b"a")])))
    assert "a header asks for 8,000" in refusal(archive)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"Rar!\x1a\x07" + bytes(600), "a RAR archive"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(600), "a 7z archive"),
        (b"\n <!DOCTYPE html><p>Please log in", "a web page"),
        (b"path,label\n", "neither a zip nor a tar archive"),
        (b"", "neither a zip nor a tar archive"),
    ],
)
def test_other_files_are_refused_by_what_they_are(data: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(data)
    assert said in refusal(tmp_path / "a.zip")


def test_an_archive_without_files_is_refused(tmp_path: Path) -> None:
    assert "it holds no files" in refusal(make_zip(tmp_path / "a.zip", [("set/", b"")]))


def test_nothing_is_unpacked_over_what_is_there(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", FILES.items())
    (tmp_path / "out").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("out", "dangling"):
        with pytest.raises(FileExistsError, match=f"{name}: exists already, and nothing is unpacked over it"):
            unpack(archive, tmp_path / name, max_bytes=10**6, max_files=10)
    with pytest.raises(FileNotFoundError, match="no such archive"):
        unpack(tmp_path / "b.zip", tmp_path / "new", max_bytes=1, max_files=1)


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make_zip(tmp_path / "a.zip", FILES.items())
    written = []

    def write(*arguments: object) -> int:
        written.append(WRITE(*arguments))  # type: ignore[arg-type]
        if len(written) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return 1

    monkeypatch.setattr(unpack_module, "_write", write)
    with pytest.raises(OSError, match="out: not unpacked, and what was written is removed again: No space left"):
        unpack(archive, tmp_path / "out", max_bytes=10**6, max_files=10)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


WRITE = unpack_module._write


def test_too_little_room_is_said_before_a_byte_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make_zip(tmp_path / "a.zip", FILES.items())
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100}))
    monkeypatch.setattr(unpack_module, "_write", lambda *_: pytest.fail("written without room"))
    with pytest.raises(OSError, match="10,253 bytes come out and 100 are free"):
        unpack(archive, tmp_path / "out", max_bytes=10**6, max_files=10)
