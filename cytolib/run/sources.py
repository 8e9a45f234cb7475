"""Notebook sources: reading them strictly, and hashing what matters of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from cytolib.text import reason, shown

MAX_NOTEBOOK_BYTES = 50_000_000
INJECTED = "injected-parameters"  # papermill's tag of the cell that it adds


def read_notebook(path: Path) -> dict[str, Any]:
    """A version-4 notebook as plain JSON, every cell's source as one string and its metadata as a dict.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it is no notebook.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such notebook; restore it or name another folder of notebooks")
    if path.stat().st_size > MAX_NOTEBOOK_BYTES:
        raise ValueError(f"{path}: more than {MAX_NOTEBOOK_BYTES // 10**6} MB; strip its outputs with nbstripout")
    try:
        notebook = json.loads(path.read_bytes(), object_pairs_hook=unique_keys)
        if notebook["nbformat"] != 4:
            raise ValueError(f"nbformat is {shown(notebook['nbformat'])}, expected 4")
        for cell in notebook["cells"]:
            _mend_cell(cell)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: no version-4 notebook ({type(error).__name__} in its layout); restore it") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: no version-4 notebook ({reason(error)}); restore it") from None
    return notebook


def _mend_cell(cell: dict[str, Any]) -> None:
    """Bring a cell to the form that ``read_notebook`` promises."""
    source, metadata = cell["source"], cell.get("metadata") or {}
    if not isinstance(source, str):
        if not isinstance(source, list) or not all(isinstance(line, str) for line in source):
            raise ValueError(f"a cell's source is {shown(source)}, expected text")
        source = "".join(source)
    tags = metadata.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise ValueError(f"a cell's tags are {shown(tags)}, expected a list of texts")
    if cell["cell_type"] not in ("code", "markdown", "raw"):
        raise ValueError(f"a cell is of type {shown(cell['cell_type'])}")
    cell["source"], cell["metadata"] = source, metadata


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, for ``json.loads``; of a key that stands twice, JSON would keep the last one without a word.

    Raises:
        ValueError: for such a key.
    """
    values = dict(pairs)
    if len(values) < len(pairs):
        seen = set[str]()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {shown(twice)} stands twice")
    return values


def cleaned(path: Path) -> list[list[Any]]:
    """What identifies a notebook: kind, source and tags of every cell; no outputs, counts, ids or editor metadata."""
    return [
        [cell["cell_type"], cell["source"], sorted(map(str, cell["metadata"].get("tags", [])))]
        for cell in read_notebook(path)["cells"]
    ]


def notebook_sha256(path: Path) -> str:
    """SHA-256 of the cleaned source of a notebook."""
    return hashlib.sha256(json.dumps(cleaned(path)).encode()).hexdigest()
