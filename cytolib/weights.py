"""Weights: from a file, a URL or the Hugging Face hub to a complete local file with its SHA-256, and to plain tensors.

A download gets its name only when it is complete; one that broke off goes on where it was. No publisher of DinoBloom
names a checksum: the SHA-256 of the first download is written beside it, and every later use is checked against it.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path, PurePosixPath
from pickle import UnpicklingError
from typing import Any
from urllib.parse import unquote, urlsplit

from cytolib import run

HUB = "hf-hub:"
_HUB_FILE = "model.safetensors"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_URL = ("http://", "https://")
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
    name = name if name not in ("", "..") else "weights"
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
        raise ValueError(f"weights {name!r}: expected hf-hub:<owner>/<repository>[@<revision>][/<file>]")
    repository, revision, file = match.groups()
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
        found = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:  # its text is long, and tells how to run the file's code after all
        called = re.search(r"GLOBAL (\S+)", str(error))
        if called is None:
            raise ValueError(f"{path}: not a readable weights file (no pickle); download it again") from error
        raise ValueError(
            f"{path}: holds more than plain tensors (it calls {called[1]}, which was not run); save its state_dict"
        ) from error
    except (
        SafetensorError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:
        raise ValueError(f"{path}: not a readable weights file ({first_line(error)}); download it again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: holds a {type(found).__name__}; expected a dictionary of tensors (a state_dict)")
    return found


def first_line(error: BaseException) -> str:
    """The first line of an error's text, for a sentence of our own."""
    text = str(error).strip().splitlines() or [type(error).__name__]
    return text[0][:200]
