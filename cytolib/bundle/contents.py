"""What lies in a bundle and in its results: one JSON file that names every other file with its size and SHA-256."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from cytolib.run.artefacts import atomic_path, sha256, write_json
from cytolib.run.manifest import safe_name

FORMAT = 1
BUNDLE = "bundle.json"
RESULTS = "results.json"
PIECE_BYTES = 16_000_000


def file_list(folder: Path, leave_out: Iterable[str] = ()) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file below ``folder``, by relative POSIX name."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    kept = [name for name in names if name not in set(leave_out)]
    return {name: {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size} for name in kept}


def write_contents(folder: Path, name: str, **values: Any) -> None:
    """Write ``name`` with ``values`` and the list of all files that lie in ``folder`` now."""
    write_json({"format": FORMAT, **values, "files": file_list(folder, [name])}, folder / name)


def read_contents(folder: Path, name: str) -> dict[str, Any]:
    """Read what ``write_contents`` wrote, and check that the files in ``folder`` are the ones that it names.

    Raises:
        ValueError: in one sentence, where it is not of this form, or a file is missing, damaged or not on the list.
    """
    path = folder / name
    try:
        values = json.loads(path.read_bytes())
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']!r}, expected {FORMAT}")
        listed = {safe_name(file): (str(v["sha256"]), int(v["bytes"])) for file, v in values["files"].items()}
        if not isinstance(values["run"], str) or not isinstance(values["config"], str):
            raise ValueError("'run' or 'config' is no text")
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file; this is no folder that `cytolib bundle` knows") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: not readable ({reason}); copy it again from where it was made") from None
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {name}
    for file in sorted(set(listed) | found):
        if file not in found:
            raise ValueError(f"{folder / file}: missing, although {name} names it; copy it again")
        if file not in listed:
            raise ValueError(f"{folder / file}: {name} does not name it; take it away or copy everything again")
        digest, size = listed[file]
        if (folder / file).stat().st_size != size or sha256(folder / file) != digest:
            raise ValueError(f"{folder / file}: damaged, its bytes are not those that {name} names; copy it again")
    return values


def pack(folder: Path, archive: Path, top: str = "") -> None:
    """All files below ``folder`` (in a folder ``top``) as an uncompressed tar, the same bytes for the same files."""
    with atomic_path(archive) as temporary, tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            info = tarfile.TarInfo((PurePosixPath(top) / path.relative_to(folder)).as_posix())
            info.size, info.mode = path.stat().st_size, 0o644
            with open(path, "rb") as file:
                tar.addfile(info, file)


def split_in_pieces(archive: Path, piece_bytes: int = PIECE_BYTES) -> list[Path]:
    """Cut a large archive into ``NAME.1of3``, ``NAME.2of3``, ...; a small one stays. Older pieces are removed."""
    for old in archive.parent.glob(f"{archive.name}.*of*"):
        old.unlink()
    size = archive.stat().st_size
    if size <= piece_bytes:
        return [archive]
    count = -(-size // piece_bytes)
    pieces = [archive.with_name(f"{archive.name}.{k}of{count}") for k in range(1, count + 1)]
    with open(archive, "rb") as file:
        for piece in pieces:
            with atomic_path(piece) as temporary:
                temporary.write_bytes(file.read(piece_bytes))
    archive.unlink()
    return pieces


def join_pieces(archive: Path, folder: Path) -> Path:
    """The whole archive: ``archive`` itself, or its pieces beside it put together in ``folder``.

    Raises:
        FileNotFoundError: where neither is there, or a piece is missing.
        ValueError: where pieces of two cuts lie side by side.
    """
    if archive.is_file():
        return archive
    pieces = sorted(archive.parent.glob(f"{archive.name}.*of*"))
    if not pieces:
        raise FileNotFoundError(f"{archive}: there is no such file, nor pieces {archive.name}.1of2 and so on beside it")
    counts = {piece.name.rsplit("of", 1)[-1] for piece in pieces}
    if len(counts) > 1 or not (count := next(iter(counts))).isdigit():
        raise ValueError(f"{archive}: pieces of several cuts lie beside it ({pieces[0].name}, {pieces[-1].name}, ...)")
    whole = folder / archive.name
    with open(whole, "wb") as file:
        for k in range(1, int(count) + 1):
            piece = archive.with_name(f"{archive.name}.{k}of{count}")
            if not piece.is_file():
                raise FileNotFoundError(f"{piece}: this piece of {count} is missing; bring it too")
            file.write(piece.read_bytes())
    return whole
