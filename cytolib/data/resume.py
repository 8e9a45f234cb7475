"""HTTP downloads that go on where they were broken off: pooch has none, so this is a downloader for it."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import requests
import urllib3
from tqdm.auto import tqdm

from cytolib.run.artefacts import write_json
from cytolib.run.stage import size_text

CHUNK_BYTES = 1 << 16  # so much at most is lost of a broken transfer
TIMEOUT_S = 10.0  # without a byte, at the first try; Ctrl-C may have to wait for it. Later tries are more patient
MAX_WAIT_S = 30.0
RETRIED = frozenset({408, 429, 500, 502, 503, 504})  # the server's trouble, which may pass


class _BrokenOffError(Exception):
    """A transfer that may be taken up again; the text says what happened."""


def resuming_downloader(
    target: Path, *, checked: bool, progress: bool = True, attempts: int = 5, wait_s: float = 1.0
) -> Callable[[str, str, Any], None]:
    """A downloader for ``pooch.retrieve(url, fname=target.name, path=target.parent, downloader=...)``.

    What comes in is kept in ``<target>.part`` and survives a broken connection, Ctrl-C and a killed process. It is
    taken up again only if the server can say by ``ETag`` or ``Last-Modified`` (``If-Range``, RFC 9110) that the file is
    still the same, or if a checksum will prove the whole; else the file is fetched anew.

    Args:
        target: the final file.
        checked: pooch knows the checksum of the file.
        progress: show a progress bar.
        attempts: tries in a row that bring nothing new before it gives up.
        wait_s: pause before the second try in seconds, doubled each time.
    """

    def download(url: str, output_file: str, pooch: Any) -> None:
        part = part_path(target)
        _transfer(url, part, checked=checked, progress=progress, attempts=attempts, wait_s=wait_s)
        os.replace(part, output_file)
        _notes_path(part).unlink(missing_ok=True)

    return download


def part_path(target: Path) -> Path:
    """Where the first bytes of ``target`` lie until all of them are there."""
    return target.with_name(target.name + ".part")


def _notes_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _transfer(url: str, part: Path, *, checked: bool, progress: bool, attempts: int, wait_s: float) -> None:
    """Fetch ``url`` into ``part``, trying again as long as something new comes.

    Raises:
        OSError: in one sentence, if the server refuses, the connection does not hold, or the disk is full.
    """
    failures, most = 0, _size(part)
    with requests.Session() as session:
        while True:
            try:
                return _attempt(session, url, part, checked, progress, TIMEOUT_S * (failures + 1))
            except _BrokenOffError as error:
                failures = 1 if _size(part) > most else failures + 1
                most = max(most, _size(part))
                if failures >= attempts:
                    kept = f"{size_text(_size(part))} are kept in {part}: " if _size(part) else "nothing came: "
                    raise OSError(
                        f"{url}: given up after {attempts} tries without progress ({error}); {kept}"
                        "the same command goes on from there"
                    ) from error
            time.sleep(min(wait_s * 2 ** (failures - 1), MAX_WAIT_S))


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _notes(part: Path, url: str) -> dict[str, Any]:
    """What the server said of the file when ``part`` was begun; empty if nothing, or of another address."""
    try:
        notes = json.loads(_notes_path(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) and notes.get("url") == url else {}


def _attempt(session: requests.Session, url: str, part: Path, checked: bool, progress: bool, timeout_s: float) -> None:
    """One request; returns when the file is complete.

    Raises:
        _BrokenOffError, OSError: if it is worth another try, and if not.
    """
    notes = _notes(part, url)
    have = _size(part) if notes.get("validator") or checked else 0
    # identity: a length and an offset must count the bytes of the file itself.
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if notes.get("validator"):
            headers["If-Range"] = notes["validator"]
    with _ask(session, url, headers, timeout_s) as response:
        status = response.status_code
        if status == HTTPStatus.OK:  # from the start: asked so, or no ranges here, or the file has changed since
            _receive(response, url, part, 0, _length(response), progress)
        elif status == HTTPStatus.PARTIAL_CONTENT and have:
            start, total = _range(response)
            changed = notes.get("validator", "") not in ("", _validator(response))  # If-Range was not understood
            if start != have or changed or (notes.get("total") and total != notes["total"]):
                _drop(part)
                raise _BrokenOffError(f"asked for the bytes from {have:,} on, the server sent others")
            _receive(response, url, part, have, total, progress)
        elif status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            if _range(response)[1] != have:  # equal: all of it had come, only the last step was missing
                _drop(part)
                raise _BrokenOffError(f"the server has no bytes from {have:,} on")
        elif status in RETRIED:
            raise _BrokenOffError(f"the server answers {status} {response.reason}")
        else:
            raise OSError(
                f"{url}: the server answers {status} {response.reason}; the file may have moved: look for it at its "
                f"source, put it at {part.with_suffix('')} and give the same command again"
            )


def _ask(session: requests.Session, url: str, headers: dict[str, str], timeout_s: float) -> requests.Response:
    try:
        return session.get(url, headers=headers, stream=True, timeout=timeout_s)
    except requests.exceptions.SSLError as error:
        raise OSError(f"{url}: its certificate is not trusted ({_reason(error)}); mend this machine's") from error
    except (requests.ConnectionError, requests.Timeout) as error:
        raise _BrokenOffError(f"no connection: {_reason(error)}") from error
    except requests.RequestException as error:
        raise OSError(f"{url}: cannot be asked for ({_reason(error)}); look for the file at its source") from error


def _receive(response: requests.Response, url: str, part: Path, have: int, total: int | None, progress: bool) -> None:
    """Write the body of ``response`` to ``part`` behind its first ``have`` bytes."""
    if total is not None:
        free = shutil.disk_usage(part.parent).free
        if total - have > free:
            raise OSError(
                f"{part}: {size_text(total - have)} are still to come and {size_text(free)} are free on that disk; "
                "make room and give the same command again"
            )
    try:
        # Emptied before the notes change: an old beginning must never stand beside the notes of a new file.
        with open(part, "r+b" if have else "wb") as file:
            if not have:
                write_json({"url": url, "total": total, "validator": _validator(response)}, _notes_path(part))
            file.seek(have)
            with tqdm(
                total=total, initial=have, unit="B", unit_scale=True, desc=part.stem, disable=not progress
            ) as bar:
                for chunk in response.raw.stream(CHUNK_BYTES, decode_content=False):
                    file.write(chunk)
                    bar.update(len(chunk))
    except (urllib3.exceptions.HTTPError, requests.RequestException) as error:
        raise _BrokenOffError(f"the connection broke after {size_text(_size(part))}: {_reason(error)}") from error
    except OSError as error:
        raise OSError(
            f"{part}: not written ({error.strerror or error}); {size_text(_size(part))} are kept: make room there and "
            "give the same command again"
        ) from error
    if total is not None and _size(part) != total:
        if _size(part) > total:
            _drop(part)
        raise _BrokenOffError(f"{size_text(_size(part))} of {size_text(total)} came")


def _drop(part: Path) -> None:
    part.unlink(missing_ok=True)
    _notes_path(part).unlink(missing_ok=True)


def _length(response: requests.Response) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdigit() else None


def _range(response: requests.Response) -> tuple[int, int | None]:
    """First byte and total size of ``Content-Range``; -1 and None where it does not say."""
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if not found:
        return -1, None
    start, total = found.groups()
    return int(start) if start else -1, int(total) if total != "*" else None


def _validator(response: requests.Response) -> str:
    """What ``If-Range`` may hold: a strong ETag, else the date of the last change, else nothing."""
    etag = str(response.headers.get("ETag", ""))
    return etag if etag.startswith('"') else str(response.headers.get("Last-Modified", ""))


def _reason(error: BaseException) -> str:
    """The innermost cause, in one line: urllib3 wraps it several times."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return " ".join(str(error).split()) or type(error).__name__
