"""Downloads: what breaks off goes on, what differs is refused, and a data set appears only when all of it is there."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cytolib.data import download, resume
from cytolib.data.cards import DataSet, Download
from cytolib.data.resume import resuming_downloader
from cytolib.run.execute import exclusive
from tests.local_server import Site, serve

BODY = random.Random(0).randbytes(300_000)
HALF = 150_000


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serve() as running:
        running.files["cells.bin"] = BODY
        yield running


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between tries, which the tests do not wait for."""
    taken: list[float] = []
    monkeypatch.setattr(resume, "time", SimpleNamespace(sleep=taken.append))
    return taken


def fetch(site: Site, folder: Path, *, checked: bool = False, attempts: int = 3) -> bytes:
    """Through the downloader alone, as pooch calls it."""
    target = folder / "cells.bin"
    resuming_downloader(target, checked=checked, progress=False, attempts=attempts)(
        site.url + "cells.bin", str(folder / "temporary"), None
    )
    assert sorted(p.name for p in folder.iterdir()) == ["temporary"], "a part was left behind"
    return (folder / "temporary").read_bytes()


def leave_half(site: Site, folder: Path) -> None:
    """Break a first transfer off for good, as a killed process does."""
    site.drop_after = [HALF]
    site.status = [200, *[503] * 9]
    with pytest.raises(OSError, match="503"):
        fetch(site, folder)
    assert HALF - resume.CHUNK_BYTES <= (folder / "cells.bin.part").stat().st_size <= HALF
    site.status, site.requests, site.sent = [], [], 0


def test_a_whole_file_comes_in_one_request(site: Site, tmp_path: Path) -> None:
    assert fetch(site, tmp_path) == BODY
    assert site.asked("Range") == [None] and site.asked("Accept-Encoding") == ["identity"]


def test_a_dropped_connection_goes_on_where_it_broke(site: Site, tmp_path: Path, waits: list[float]) -> None:
    site.drop_after = [100_000, 100_000]
    assert fetch(site, tmp_path) == BODY
    first, *others = site.asked("Range")
    assert first is None and len(others) == 2 and all(r and int(r[6:-1]) > 0 for r in others)
    assert site.asked("If-Range") == [None, '"one"', '"one"']
    assert site.sent < len(BODY) + 3 * resume.CHUNK_BYTES, "sent again what had come already"
    assert waits == [1.0, 1.0], "progress starts the pauses anew"


def test_a_later_process_goes_on_where_an_earlier_one_was_killed(site: Site, tmp_path: Path) -> None:
    leave_half(site, tmp_path)
    assert fetch(site, tmp_path) == BODY
    assert len(site.requests) == 1 and site.sent < HALF + resume.CHUNK_BYTES + 1


def test_the_date_of_change_serves_where_there_is_no_strong_etag(site: Site, tmp_path: Path) -> None:
    site.etag, site.modified = 'W/"weak"', "Sat, 01 Jan 2022 00:00:00 GMT"
    site.drop_after = [HALF]
    assert fetch(site, tmp_path) == BODY
    assert site.asked("If-Range") == [None, site.modified]


def test_a_file_that_changed_meanwhile_is_fetched_anew(site: Site, tmp_path: Path) -> None:
    leave_half(site, tmp_path)
    site.files["cells.bin"], site.etag = BODY[::-1], '"two"'
    assert fetch(site, tmp_path) == BODY[::-1]
    assert site.asked("If-Range") == ['"one"']


def test_a_server_that_ignores_if_range_does_not_mix_two_files(site: Site, tmp_path: Path) -> None:
    leave_half(site, tmp_path)
    site.files["cells.bin"], site.etag, site.obeys_if_range = BODY[::-1], '"two"', False
    assert fetch(site, tmp_path) == BODY[::-1]
    assert [r is None for r in site.asked("Range")] == [False, True]


def test_a_server_without_ranges_is_started_over(site: Site, tmp_path: Path) -> None:
    site.ranges, site.drop_after = False, [HALF]
    assert fetch(site, tmp_path) == BODY
    assert site.sent == HALF + len(BODY)


def test_nothing_to_tell_two_files_apart_means_anew_unless_a_checksum_proves_the_whole(
    site: Site, tmp_path: Path
) -> None:
    site.etag = ""
    for name, checked in (("a", False), ("b", True)):
        (tmp_path / name).mkdir()
        leave_half(site, tmp_path / name)
        assert fetch(site, tmp_path / name, checked=checked) == BODY
        assert [r is None for r in site.asked("Range")] == [not checked]
        assert site.asked("If-Range") == [None]


@pytest.mark.parametrize("shift", [10, -10])
def test_bytes_from_a_wrong_place_are_not_taken(site: Site, tmp_path: Path, shift: int) -> None:
    leave_half(site, tmp_path)
    site.shift = shift
    assert fetch(site, tmp_path) == BODY
    assert [r is None for r in site.asked("Range")] == [False, True]


def test_a_part_that_is_complete_needs_no_more_bytes(site: Site, tmp_path: Path) -> None:
    leave_half(site, tmp_path)
    (tmp_path / "cells.bin.part").write_bytes(BODY)
    assert fetch(site, tmp_path) == BODY
    assert site.sent == 0 and len(site.requests) == 1


def test_a_part_longer_than_the_file_is_dropped(site: Site, tmp_path: Path) -> None:
    leave_half(site, tmp_path)
    (tmp_path / "cells.bin.part").write_bytes(BODY + b"more")
    assert fetch(site, tmp_path) == BODY


def test_a_part_of_another_address_is_not_taken_up(site: Site, tmp_path: Path) -> None:
    leave_half(site, tmp_path)
    notes = json.loads((tmp_path / "cells.bin.part.json").read_text())
    (tmp_path / "cells.bin.part.json").write_text(json.dumps(notes | {"url": "http://elsewhere/cells.bin"}))
    assert fetch(site, tmp_path) == BODY
    assert site.asked("Range") == [None]


def test_chunked_answers_end_where_they_say(site: Site, tmp_path: Path) -> None:
    site.chunked, site.drop_after = True, [HALF]
    assert fetch(site, tmp_path) == BODY
    assert len(site.requests) == 2


def test_an_empty_file_is_a_file(site: Site, tmp_path: Path) -> None:
    site.files["cells.bin"] = b""
    assert fetch(site, tmp_path) == b""


@pytest.mark.parametrize("status", [404, 403, 410])
def test_a_refusal_is_said_at_once(site: Site, tmp_path: Path, status: int) -> None:
    site.status = [status]
    with pytest.raises(OSError, match=rf"cells.bin: the server answers {status} .*put it at .*/cells.bin and give"):
        fetch(site, tmp_path)
    assert len(site.requests) == 1


def test_trouble_of_the_server_is_waited_for(site: Site, tmp_path: Path, waits: list[float]) -> None:
    site.status = [500, 503]
    assert fetch(site, tmp_path) == BODY
    (other := tmp_path / "other").mkdir()
    site.status = [500] * 9
    with pytest.raises(OSError, match="given up after 3 tries without progress .the server answers 500"):
        fetch(site, other)
    assert waits == [1.0, 2.0, 1.0, 2.0]


def test_a_silent_server_is_given_more_time_at_each_try(
    site: Site, tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "TIMEOUT_S", 0.05)
    given: list[float] = []
    real = resume._ask
    monkeypatch.setattr(resume, "_ask", lambda *arguments: (given.append(arguments[3]), real(*arguments))[1])
    site.stall_after = 0
    with pytest.raises(OSError, match="given up after 3 tries without progress"):
        fetch(site, tmp_path)
    assert given == pytest.approx([0.05, 0.1, 0.15])


def test_drops_without_progress_end(site: Site, tmp_path: Path) -> None:
    site.ranges, site.drop_after = False, [HALF] * 20
    with pytest.raises(OSError, match="given up after 3 tries .*kept in .*cells.bin.part: the same command goes on"):
        fetch(site, tmp_path)
    assert len(site.requests) < 5 and (tmp_path / "cells.bin.part").exists()


def test_no_server_is_one_sentence(tmp_path: Path) -> None:
    closed = Site("http://127.0.0.1:9/")
    with pytest.raises(OSError, match="no connection: .*refused") as error:
        fetch(closed, tmp_path)
    assert "\n" not in str(error.value)


class _FullDisk:
    """A file that takes ``room`` bytes."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def __enter__(self) -> _FullDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def seek(self, to: int) -> None:
        self.file.seek(to)

    def write(self, data: bytes) -> int:
        if len(data) > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= len(data)
        return int(self.file.write(data))


def test_a_full_disk_keeps_what_came(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "open", lambda *a: _FullDisk(open(*a), 200_000), raising=False)
    with pytest.raises(OSError, match=r"not written \(No space left on device\); 1\d\d.*B are kept: make room"):
        fetch(site, tmp_path)
    monkeypatch.undo()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert fetch(site, tmp_path) == BODY
    assert len(site.requests) == 2 and site.sent < 2 * len(BODY)


def test_too_little_room_is_said_before_the_first_byte(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match="are still to come and .* are free on that disk; make room"):
        fetch(site, tmp_path)
    assert not (tmp_path / "cells.bin.part").exists()


# --- whole data sets -----------------------------------------------------------------------------------------------

CELLS = {"toy/neutrophil/a.jpg": b"a" * 99, "toy/basophil/b.jpg": b"b" * 99}


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return out.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def toy(*downloads: Download, **facts: Any) -> DataSet:
    values: dict[str, Any] = {
        "name": "toy",
        "title": "Toy cells",
        "citation": "Nobody, Nowhere 1 (2020)",
        "source": "doi 10.0/0",
        "licence": "CC BY 4.0",
        "folder": "toy",
        "layout": "toy/<class>/<name>.jpg",
        "n_cells": 2,
        "read": lambda root, scratch: pytest.fail("read while it was fetched"),
        "downloads": downloads,
    }
    return DataSet(**values | facts)


def get(card: DataSet, root: Path) -> str:
    lines: list[str] = []
    assert download.get_data_set(card, root, progress=False, say=lines.append)
    return "\n".join(lines)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def without_record(root: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(root).items() if name != download.CHECKSUMS}


def put(site: Site, file: str, data: bytes, checksum: str = "", **facts: Any) -> Download:
    site.files[file] = data
    return Download(site.url + file, file, checksum, **facts)


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_a_data_set_is_fetched_proved_and_put_in_place(site: Site, tmp_path: Path, algorithm: str) -> None:
    data = zipped(CELLS)
    card = toy(put(site, "toy.zip", data, f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"))
    site.drop_after = [60]
    said = get(card, tmp_path)
    assert "CC BY 4.0" in said and "Nobody, Nowhere 1 (2020)" in said
    assert without_record(tmp_path) == CELLS, "the data set, and no archive, part or lock beside it"
    record = json.loads((tmp_path / download.CHECKSUMS).read_text())["toy/toy.zip"]
    assert record["sha256"] == sha256(data) and record["vouched_by"] == "publisher"
    site.requests.clear()
    assert "is there already; nothing done" in get(card, tmp_path)
    assert not site.requests and without_record(tmp_path) == CELLS


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_wrong_checksum_leaves_nothing(site: Site, tmp_path: Path, attempt: int) -> None:
    data = zipped(CELLS)
    card = toy(put(site, "toy.zip", data, "sha256:" + "0" * 64))
    for _ in range(attempt):
        with pytest.raises(ValueError, match=f"checksum is {sha256(data)}; expected sha256:000.*the file was removed"):
            get(card, tmp_path)
        assert contents(tmp_path) == {".downloads/toy/lock": b""}


def test_a_part_that_was_tampered_with_is_found_out(site: Site, tmp_path: Path) -> None:
    data = zipped(CELLS | {"toy/neutrophil/noise.jpg": BODY})
    card = toy(put(site, "toy.zip", data, f"sha256:{sha256(data)}"))
    site.drop_after, site.status = [HALF], [200, *[503] * 5]
    with pytest.raises(OSError, match="503"):
        get(card, tmp_path)
    site.status.clear()
    part = tmp_path / ".downloads/toy/toy.zip.part"
    part.write_bytes(b"x" + part.read_bytes()[1:])
    with pytest.raises(ValueError, match="its checksum is"):
        get(card, tmp_path)
    assert "is complete" in get(card, tmp_path)


def test_without_a_published_checksum_the_first_download_is_trusted_and_later_ones_held_to_it(
    site: Site, tmp_path: Path
) -> None:
    data = zipped(CELLS)
    card = toy(put(site, "toy.zip", data))
    said = get(card, tmp_path)
    assert f"sha256 {sha256(data)}" in said and "first download is trusted" in said
    assert json.loads((tmp_path / download.CHECKSUMS).read_text())["toy/toy.zip"]["vouched_by"] == "first download"
    (tmp_path / "toy").rename(tmp_path / "old")
    site.files["toy.zip"] = zipped({"toy/neutrophil/other.jpg": b"x"})
    with pytest.raises(
        ValueError, match=f"expected sha256:{sha256(data)}, which .*checksums.json holds from the first"
    ):
        get(card, tmp_path)
    assert not (tmp_path / "toy").exists()
    site.files["toy.zip"] = data
    assert "first download" not in get(card, tmp_path)


def test_a_web_page_in_place_of_the_archive_is_neither_trusted_nor_kept(site: Site, tmp_path: Path) -> None:
    card = toy(put(site, "toy.zip", b"<!DOCTYPE html>please log in"))
    with pytest.raises(ValueError, match="toy.zip: a web page"):
        get(card, tmp_path)
    assert contents(tmp_path) == {".downloads/toy/lock": b""}
    site.files["toy.zip"] = zipped(CELLS)
    get(card, tmp_path)
    assert without_record(tmp_path) == CELLS


def test_several_downloads_become_one_folder(site: Site, tmp_path: Path) -> None:
    card = toy(
        put(site, "train.zip", zipped({"Train/neutrophil/a.jpg": b"a"})),
        put(site, "test.zip", zipped({"Test/neutrophil/a.jpg": b"b"})),
        put(site, "labels.csv", b"path,label\n", unpack=False),
    )
    get(card, tmp_path)
    expected = {"Train/neutrophil/a.jpg": b"a", "Test/neutrophil/a.jpg": b"b", "labels.csv": b"path,label\n"}
    assert contents(tmp_path / "toy") == expected


def test_two_downloads_with_one_file_are_refused(site: Site, tmp_path: Path) -> None:
    card = toy(put(site, "1.zip", zipped(CELLS)), put(site, "2.zip", zipped(CELLS)))
    with pytest.raises(ValueError, match="comes out of two downloads"):
        get(card, tmp_path)
    assert not (tmp_path / "toy").exists()


@pytest.mark.parametrize(
    ("files", "folder", "layout", "expected"),
    [
        (["toy/basophil/b"], "toy", "toy/<class>/<name>", ["toy/basophil/b"]),
        (["basophil/b", "monocyte/m"], "toy", "toy/<class>/<name>", ["toy/basophil/b", "toy/monocyte/m"]),
        (["release-1/basophil/b"], "toy", "toy/<class>/<name>", ["toy/basophil/b"]),
        (["Train/basophil/b"], "toy", "toy/Train/<class>/<name>", ["toy/Train/basophil/b"]),
        (["two/basophil/b"], "toy/two", "toy/two/<class>/<name>", ["toy/two/basophil/b"]),
        (["toy/two/basophil/b"], "toy/two", "toy/two/<class>/<name>", ["toy/two/basophil/b"]),
        (["toy/basophil/b", "README"], "toy", "toy/<class>/<name>", ["toy/basophil/b"]),
        (["cells.npz"], "cells.npz", "cells.npz", ["cells.npz"]),
    ],
)
def test_archives_land_where_the_card_says(
    site: Site, tmp_path: Path, files: list[str], folder: str, layout: str, expected: list[str]
) -> None:
    card = toy(put(site, "x.zip", zipped({name: b"x" for name in files})), folder=folder, layout=layout)
    said = get(card, tmp_path)
    assert sorted(without_record(tmp_path)) == expected
    assert ("README" in said) == ("README" in files), "what is left out is said"


def test_a_single_file_needs_no_folder(site: Site, tmp_path: Path) -> None:
    get(toy(put(site, "cells.npz", BODY, unpack=False), folder="cells.npz", layout="cells.npz"), tmp_path)
    assert without_record(tmp_path) == {"cells.npz": BODY}


def test_an_archive_that_came_is_not_fetched_again(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = toy(put(site, "toy.zip", zipped(CELLS)))

    def interrupt(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download, "unpack", interrupt)
        with pytest.raises(KeyboardInterrupt):
            get(card, tmp_path)
    assert not (tmp_path / "toy").exists()
    site.requests.clear()
    get(card, tmp_path)
    assert not site.requests and without_record(tmp_path) == CELLS


def test_what_a_killed_process_left_half_unpacked_is_not_used(site: Site, tmp_path: Path) -> None:
    for name in ("complete", "unpacked-0"):
        (tmp_path / ".downloads/toy" / name / "toy").mkdir(parents=True)
        (tmp_path / ".downloads/toy" / name / "toy/half.jpg").write_bytes(b"half")
    get(toy(put(site, "toy.zip", zipped(CELLS))), tmp_path)
    assert without_record(tmp_path) == CELLS


def test_ctrl_c_says_what_is_kept(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = zipped({"toy/neutrophil/a.jpg": BODY})
    card = toy(put(site, "toy.zip", data))
    bar = resume.tqdm.update

    def update(self: Any, n: float = 1) -> bool | None:
        if self.n > HALF:
            raise KeyboardInterrupt
        self.n += n
        return bar(self, 0)

    lines: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(resume.tqdm, "update", update)
        with pytest.raises(KeyboardInterrupt):
            download.get_data_set(card, tmp_path, progress=True, say=lines.append)
    assert "are kept in" in lines[-1] and lines[-1].endswith("toy.zip.part")
    get(card, tmp_path)
    assert site.asked("Range")[1] is not None and contents(tmp_path / "toy") == {"neutrophil/a.jpg": BODY}


def test_two_processes_do_not_fetch_one_set(site: Site, tmp_path: Path) -> None:
    card = toy(put(site, "toy.zip", zipped(CELLS)))
    with exclusive(tmp_path / ".downloads/toy/lock", "held"):
        with pytest.raises(OSError, match="toy: another process is fetching it"):
            get(card, tmp_path)
    assert not site.requests


def test_a_data_root_that_does_not_serve_is_refused(site: Site, tmp_path: Path) -> None:
    card = toy(put(site, "toy.zip", zipped(CELLS)))
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder; make the data root first"):
        get(card, tmp_path / "nowhere")
    (tmp_path / ".downloads").write_text("in the way")
    with pytest.raises(OSError, match="cannot be written .*name a data root of your own"):
        get(card, tmp_path)
    assert not site.requests


def test_a_disk_too_small_is_refused_before_anything_is_fetched(site: Site, tmp_path: Path) -> None:
    card = toy(put(site, "toy.zip", zipped(CELLS), megabytes=10**9))
    with pytest.raises(OSError, match="toy: needs about .* archive and images, and .* are free"):
        get(card, tmp_path)
    assert not site.requests


def test_a_broken_record_of_checksums_is_refused(site: Site, tmp_path: Path) -> None:
    (tmp_path / download.CHECKSUMS).write_text('{"toy/toy.zip": []}')
    with pytest.raises(ValueError, match="checksums.json: not a record of checksums"):
        get(toy(put(site, "toy.zip", zipped(CELLS))), tmp_path)


def test_an_address_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ftp://x/y.zip' is no address that can be fetched"):
        get(toy(Download("ftp://x/y.zip", "y.zip")), tmp_path)


def test_a_folder_that_appears_meanwhile_is_not_touched(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_trust", lambda *_: (tmp_path / "toy").mkdir())
    with pytest.raises(FileExistsError, match="appeared while its data set was fetched"):
        get(toy(put(site, "toy.zip", zipped(CELLS))), tmp_path)
    assert list((tmp_path / "toy").iterdir()) == []
