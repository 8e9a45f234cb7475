"""``cytolib data get``: fetch a data set's files, prove them, unpack them, and put them in place when all is there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from cytolib import run
from cytolib.data.cards import DataSet, Download
from cytolib.data.resume import part_path, resuming_downloader
from cytolib.data.unpack import unpack
from cytolib.run.artefacts import write_json
from cytolib.run.execute import exclusive
from cytolib.run.stage import size_text

CHECKSUMS = "checksums.json"
DOWNLOADS = ".downloads"  # in the data root, so that moving into place is a renaming
MAX_FILES = 2_000_000
MAX_UNPACKED = 20  # bytes that may come out of a byte of a data set's archive: bitmaps pack to a tenth


def get_data_set(card: DataSet, root: Path, *, progress: bool = True, say: Callable[[str], None] = print) -> bool:
    """Put the data set of ``card`` at ``root / card.folder``; True if it lies there in the end.

    What lies there already is left alone. A set that its publisher hands out to persons only is not fetched: the steps
    are said.

    Args:
        card: the data set's card.
        root: the data root.
        progress: show progress bars.
        say: where the text goes.

    Raises:
        FileNotFoundError, ValueError, OSError: in one sentence: no such data root, one that cannot be written, a server
            that refuses, a wrong checksum, a bad archive, a full disk. What was fetched well is kept.
    """
    target = root / card.folder
    there = card.places(root) or ([target] if os.path.lexists(target) else [])
    if there:
        say(f"{card.name}: {there[0]} is there already; nothing done (`cytolib data check {card.name}` looks into it)")
        return True
    if not card.downloads:
        say("\n".join(steps_text(card, root)))
        return False
    folder = _downloads_folder(card, root)
    say(f"{card.name}: {card.title}\nlicence: {card.licence}; please cite: {card.citation}")
    with exclusive(folder / "lock", f"{card.name}: another process is fetching it into {root}; wait for it"):
        _check_room(card, folder)
        archives = [(d, _fetch(card, d, folder, root, progress, say)) for d in card.downloads]
        complete = folder / "complete"
        shutil.rmtree(complete, ignore_errors=True)  # of a run that was killed
        for number, (download, file) in enumerate(archives):
            _add(card, download, file, folder / f"unpacked-{number}", complete, progress, say)
            _trust(card, download, file, root, say)
        _put_in_place(complete, target)
    shutil.rmtree(folder)
    with suppress(OSError):  # another data set is being fetched
        folder.parent.rmdir()
    say(f"{card.name}: {target} is complete; `cytolib data check {card.name}` counts its cells")
    return True


def steps_text(card: DataSet, root: Path) -> list[str]:
    """How a person gets the data set by hand, line by line."""
    steps = card.steps or (f"Put your files at {root / card.folder}.",)
    return [
        f"{card.name}: not downloaded: do this",
        *(f"  {number}. {step}" for number, step in enumerate(steps, start=1)),
        f"source:   {card.source}",
        f"licence:  {card.licence}",
        f"cite:     {card.citation}",
        f"expected: {root}/{card.layout}",
        f"then:     cytolib data check {card.name}",
    ]


def _downloads_folder(card: DataSet, root: Path) -> Path:
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root}: no such folder; make the data root first, or name another by CYTOLIB_DATA or --to"
        )
    folder = root / DOWNLOADS / card.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "lock").touch()
    except OSError as error:
        raise OSError(
            f"{root}: cannot be written ({error.strerror}); name a data root of your own by CYTOLIB_DATA or --to"
        ) from error
    return folder


def _check_room(card: DataSet, folder: Path) -> None:
    """Refuse before the first byte: an archive and what comes out of it, at least as much, stand side by side."""
    need = 0
    for download in card.downloads:
        size = download.megabytes * 10**6
        came = sum(p.stat().st_size for p in (folder / download.file, part_path(folder / download.file)) if p.exists())
        need += max(size - came, 0) + (size if download.unpack else 0)
    free = shutil.disk_usage(folder).free
    if need > free:
        raise OSError(
            f"{card.name}: needs about {size_text(need)}, archive and images, and {size_text(free)} are free at "
            f"{folder}; make room or name a data root on another disk by --to"
        )


def recorded_checksums(root: Path) -> dict[str, dict[str, Any]]:
    """What ``checksums.json`` of a data root holds: ``<data set>/<file>`` to url, sha256, bytes and who vouches for it.

    Raises:
        ValueError: if it is no such file.
    """
    path = root / CHECKSUMS
    if not path.exists():
        return {}
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(recorded, dict):
            raise ValueError(f"it holds a {type(recorded).__name__}, expected an object")
        if not all(isinstance(entry["sha256"], str) for entry in recorded.values()):
            raise ValueError("an entry has no sha256")
    except (ValueError, AttributeError, KeyError, TypeError, OSError) as error:
        raise ValueError(f"{path}: not a record of checksums ({error}); mend it or move it away") from error
    return dict(recorded)


def _key(card: DataSet, download: Download) -> str:
    return f"{card.name}/{download.file}"


def _fetch(
    card: DataSet, download: Download, folder: Path, root: Path, progress: bool, say: Callable[[str], None]
) -> Path:
    """The file of ``download``, fetched unless it is there, and proved by its checksum if there is one."""
    import pooch

    if not download.url.startswith(("https://", "http://")):
        raise ValueError(f"{card.name}: {download.url!r} is no address that can be fetched; expected https://")
    recorded = recorded_checksums(root).get(_key(card, download), {}).get("sha256", "")
    known = download.checksum or (f"sha256:{recorded}" if recorded else "")
    pooch.get_logger().setLevel("WARNING")
    target = folder / download.file
    try:
        pooch.retrieve(
            download.url,
            known_hash=known or None,
            fname=download.file,
            path=folder,
            downloader=resuming_downloader(target, checked=bool(known), progress=progress),
        )
    except ValueError as error:
        raise ValueError(_mismatch(download, known, root, error)) from error
    except KeyboardInterrupt:
        if part_path(target).exists():
            say(f"\n{size_text(part_path(target).stat().st_size)} are kept in {part_path(target)}")
        raise
    return target


def _mismatch(download: Download, known: str, root: Path, error: ValueError) -> str:
    found = str(error).partition("but got ")[2].split(".")[0] or str(error)
    if download.checksum:
        return (
            f"{download.url}: its checksum is {found}; expected {known} as published; the file was removed: the same "
            "command fetches it anew, and if that fails too, the file is not what was published: do not use it"
        )
    return (
        f"{download.url}: its checksum is {found}; expected {known}, which {root / CHECKSUMS} holds from the first "
        "download; the file was removed: if the publisher says that it was changed, take its entry out of there"
    )


def _trust(card: DataSet, download: Download, file: Path, root: Path, say: Callable[[str], None]) -> None:
    """Record the SHA-256 of a file that could be unpacked; where none is published it is trusted from then on."""
    recorded, key = recorded_checksums(root), _key(card, download)
    digest = run.sha256(file)
    if not download.checksum and key not in recorded:
        say(
            f"{download.file}: sha256 {digest}\n  The publisher names no checksum: this first download is trusted as "
            f"it came, and {CHECKSUMS} holds later ones to it."
        )
    vouched = "publisher" if download.checksum else "first download"
    recorded[key] = {"url": download.url, "sha256": digest, "bytes": file.stat().st_size, "vouched_by": vouched}
    write_json(recorded, root / CHECKSUMS)


def _add(
    card: DataSet,
    download: Download,
    file: Path,
    unpacked: Path,
    complete: Path,
    progress: bool,
    say: Callable[[str], None],
) -> None:
    """Add what ``file`` holds to ``complete``, which becomes the data set's folder."""
    if not download.unpack:
        if len(card.downloads) == 1 and PurePosixPath(card.folder).name == download.file:
            shutil.copyfile(file, complete)
        else:
            complete.mkdir(exist_ok=True)
            shutil.copyfile(file, complete / download.file)
        return
    shutil.rmtree(unpacked, ignore_errors=True)
    max_bytes = max(MAX_UNPACKED * file.stat().st_size, 10**9)
    try:
        unpack(file, unpacked, max_bytes=max_bytes, max_files=MAX_FILES, progress=progress)
    except ValueError:
        if not download.checksum:  # nobody vouches for it: the next try starts anew
            file.unlink(missing_ok=True)
        raise
    inside = _inside(card, unpacked)
    _merge(inside, complete)
    if unpacked.exists():
        left = sorted(p.relative_to(unpacked).as_posix() for p in unpacked.rglob("*") if p.is_file())
        if left:
            say(f"{download.file}: {len(left)} files outside {card.folder} are left out, the first is {left[0]}")
        shutil.rmtree(unpacked)


def _inside(card: DataSet, unpacked: Path) -> Path:
    """The folder of an unpacked archive that becomes ``card.folder``: archives bring none, some or all of its path.

    An archive that holds one folder and nothing else, which the layout does not name, is that folder.
    """
    parts = PurePosixPath(card.folder).parts
    for start in range(len(parts)):
        if (found := unpacked.joinpath(*parts[start:])).exists():
            return found
    entries = list(unpacked.iterdir())
    after = PurePosixPath(card.layout).parts[len(parts) :][:1]
    alone = len(entries) == 1 and entries[0].is_dir() and sum(d.unpack for d in card.downloads) == 1
    return entries[0] if alone and after != (entries[0].name,) else unpacked


def _merge(source: Path, target: Path) -> None:
    """Move ``source`` to ``target``; folders that are in both are merged, files never.

    Raises:
        ValueError: for a file that both have.
    """
    if not os.path.lexists(target):
        os.rename(source, target)
        return
    if not (source.is_dir() and target.is_dir()):
        raise ValueError(
            f"{target.name} comes out of two downloads of one data set; its card is wrong: tell the project"
        )
    for entry in sorted(source.iterdir()):
        _merge(entry, target / entry.name)


def _put_in_place(complete: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(target):
        raise FileExistsError(f"{target}: appeared while its data set was fetched; move one of the two away")
    os.rename(complete, target)
