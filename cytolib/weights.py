"""Weights: from a file, a URL or the Hugging Face hub to a complete local file with its SHA-256, and to plain tensors.

A download gets its name only when it is complete; one that broke off goes on where it was. No publisher of DinoBloom
names a checksum: the SHA-256 of the first download is written beside it, and every later use is checked against it.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from pickle import UnpicklingError
from typing import Any
from urllib.parse import unquote, urlsplit

from cytolib import run
from cytolib.text import hides, printable, shown

HUB = "hf-hub:"
_HUB_FILE = "model.safetensors"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_URL = ("http://", "https://")
_HERE = ("127.0.0.1", "::1", "localhost")
_ATTEMPTS, _WAIT_S = 3, 1.0  # tries in a row that bring nothing new; seconds before the second


def locate(weights: str | Path, sha256: str | None = None) -> tuple[Path, str]:
    """The local file that ``weights`` names, and the SHA-256 of its bytes; what is not here yet is fetched.

    Args:
        weights: a file (relative to the working directory, else to the project root), an ``http(s)://`` URL, or
            ``hf-hub:<owner>/<repository>[@<revision>]`` (its ``model.safetensors``; another file after one more ``/``).
        sha256: what the bytes must have, as 64 hexadecimal digits.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be fetched, or if its bytes are not the expected ones.
    """
    if sha256 is not None and not _SHA256.fullmatch(sha256.lower()):
        raise ValueError(f"weights_sha256 is {sha256!r}; expected 64 hexadecimal digits")
    name = str(weights)
    _check_address(name, sha256)
    if name.startswith(HUB):
        path = _from_hub(*_hub_parts(name))
    elif name.startswith(_URL):
        path = _from_url(name)
    else:
        path = _local(Path(weights))
    found = run.sha256(path)
    if sha256 is not None and found != sha256.lower():
        raise ValueError(
            f"{path}: its SHA-256 is {found}, weights_sha256 says {sha256.lower()}; "
            "these are other weights: correct the option, or delete the file and fetch it again"
        )
    record = _record(path)
    if record.is_file():
        first = record.read_text(encoding="ascii").strip()
        if found != first:
            raise ValueError(
                f"{path}: its SHA-256 is {found}, but was {first} when it was downloaded; the file was damaged or "
                "changed: delete it and fetch it again"
            )
    elif name.startswith(_URL):
        with run.atomic_path(record) as temporary:
            temporary.write_text(found + "\n", encoding="ascii")
    return path, found


def _check_address(name: str, sha256: str | None) -> None:
    """Refuse addresses that are none of ours, and a transfer that anybody on the way can change."""
    if hides(name):
        raise ValueError(f"weights {shown(name)}: the name has control or direction characters; name the file plainly")
    if "://" in name and not name.startswith(_URL):
        raise ValueError(f"weights {shown(name)}: expected a file's path, https://… or {HUB}owner/repository")
    try:
        host = urlsplit(name).hostname if name.startswith(_URL) else None
    except ValueError as error:
        raise ValueError(f"weights {shown(name)}: not an address ({error}); expected https://…") from error
    if name.startswith("http://") and sha256 is None and host not in _HERE:
        raise ValueError(
            f"weights {shown(name)}: http:// can be changed on its way; use https://, or give weights_sha256 as well"
        )


def _local(path: Path) -> Path:
    found = path.expanduser()
    if not found.exists() and not found.is_absolute():
        found = run.root() / found
    if not found.is_file():
        raise FileNotFoundError(f"weights file {path} is missing (looked for {found}); check the path or download it")
    return found


def _from_url(url: str) -> Path:
    """The file that a URL gave when it was first asked for, under ``run.cache_root() / "weights"``."""
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    name = re.sub(r"[^\w.-]", "_", name)[-100:] if name not in ("", "..") else "weights"
    path = run.cache_root() / "weights" / hashlib.sha256(url.encode()).hexdigest()[:16] / name
    if path.is_file():
        return path
    import pooch

    from cytolib.data.resume import resuming_downloader

    _record(path).unlink(missing_ok=True)  # of a file that was deleted
    downloader = resuming_downloader(path, checked=False, attempts=_ATTEMPTS, wait_s=_WAIT_S)
    try:
        pooch.retrieve(url, None, fname=path.name, path=path.parent, downloader=downloader)
    except OSError as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"weights not downloaded: {reason}; or get the file on another machine and give weights=FILE"
        ) from error
    return path


def _record(path: Path) -> Path:
    """Where the SHA-256 of a download stands; beside any other weights file there is none."""
    return path.with_name(f".{path.name}.first-download.sha256")


def hub_config(name: str) -> dict[str, Any] | None:
    """The ``config.json`` beside hub weights of timm's kind: architecture, input size and the like.

    None where ``name`` is no hub repository, or names a file of its own in it.

    Raises:
        ValueError: if it cannot be fetched or is no JSON object.
    """
    if not name.startswith(HUB):
        return None
    repository, revision, file = _hub_parts(name)
    if file != _HUB_FILE:
        return None
    path = _from_hub(repository, revision, "config.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"weights {name}: its config.json is not JSON ({first_line(error)}); use another copy"
        ) from error
    if not isinstance(config, dict):
        raise ValueError(f"weights {name}: its config.json holds a {type(config).__name__}; expected an object")
    return config


def _hub_parts(name: str) -> tuple[str, str | None, str]:
    """Repository, revision and file of ``hf-hub:owner/repository[@revision][/file]``."""
    match = re.fullmatch(r"hf-hub:([^/@]+/[^/@]+)(?:@([^/@]+))?(?:/(.+))?", name)
    if match is None:
        raise ValueError(f"weights {shown(name)}: expected hf-hub:<owner>/<repository>[@<revision>][/<file>]")
    repository, revision, file = match.groups()
    if ".." in PurePosixPath(name).parts or "\\" in name:
        raise ValueError(f"weights {shown(name)}: it leaves its repository; name a file inside it")
    return repository, revision, file or _HUB_FILE


def _from_hub(repository: str, revision: str | None, file: str) -> Path:
    """A hub file in the hub's own cache, which writes atomically and shows progress."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.hf_hub_download(repository, file, revision=revision))
    except (EntryNotFoundError, OSError, ValueError) as error:
        offline = isinstance(error, LocalEntryNotFoundError)
        reason = "no connection to the hub, and not in its cache" if offline else first_line(error)
        raise ValueError(
            f"weights hf-hub:{repository}: {file} could not be had ({reason}); without a network, get the file "
            "on another machine and give weights=FILE"
        ) from error


def read_tensors(path: Path) -> dict[str, Any]:
    """What a weights file holds: safetensors by its suffix, else a torch file, read with ``weights_only=True``.

    Raises:
        ValueError: for a file that is unreadable, holds code, or holds no dictionary.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        _check_records(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:  # its text is long, and tells how to run the file's code after all
        called = re.search(r"GLOBAL (\S+)", str(error))
        if called is None:
            raise ValueError(f"{path}: not a readable weights file (no pickle); download it again") from error
        raise ValueError(
            f"{path}: holds more than plain tensors (it calls {called[1]}, which was not run); save its state_dict"
        ) from error
    except SafetensorError as error:
        raise ValueError(f"{path}: not a readable safetensors file ({first_line(error)}); download it again") from error
    except Exception as error:  # a damaged pickle makes torch's reader raise whatever its bytes say
        if isinstance(error, ValueError) and str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path}: not a readable weights file ({first_line(error)}); download it again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: holds a {type(found).__name__}; expected a dictionary of tensors (a state_dict)")
    return found


def _check_records(path: Path) -> None:
    """Refuse a torch file with packed records: ``torch.save`` packs nothing, a bomb does.

    Raises:
        ValueError: naming the file and the record.
    """
    if not zipfile.is_zipfile(path):
        return
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        for record in archive.infolist():
            if record.compress_type != zipfile.ZIP_STORED or record.file_size > size:
                raise ValueError(
                    f"{path}: its record {shown(record.filename)} would become {record.file_size:,} bytes, out of a "
                    f"file of {size:,}; torch.save packs nothing: get the weights from their publisher"
                )


def check_finite(path: Path, tensors: Mapping[str, Any]) -> None:
    """Refuse weights that are no numbers: every embedding would be none either.

    Raises:
        ValueError: naming the file and the first such tensor.
    """
    import torch

    for name, tensor in tensors.items():
        if torch.is_tensor(tensor) and tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"{path}: {printable(name)[:100]} has values that are not finite; download it again")


def first_line(error: BaseException) -> str:
    """The first line of an error's text, for a sentence of our own."""
    text = str(error).strip().splitlines() or [type(error).__name__]
    return printable(text[0])[:200]
