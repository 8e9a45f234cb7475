"""Notebook sources: reading them strictly, and hashing what matters of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

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
        notebook = json.loads(path.read_bytes())
        for cell in notebook["cells"]:
            source = cell["source"]
            cell["source"] = source if isinstance(source, str) else "".join(source)
            cell["metadata"] = dict(cell.get("metadata") or {})
            cell["cell_type"] = str(cell["cell_type"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: no version-4 notebook ({type(error).__name__}: {error})") from None
    return notebook


def cleaned(path: Path) -> list[list[Any]]:
    """What identifies a notebook: kind, source and tags of every cell; no outputs, counts, ids or editor metadata."""
    return [
        [cell["cell_type"], cell["source"], sorted(map(str, cell["metadata"].get("tags", [])))]
        for cell in read_notebook(path)["cells"]
    ]


def notebook_sha256(path: Path) -> str:
    """SHA-256 of the cleaned source of a notebook."""
    return hashlib.sha256(json.dumps(cleaned(path)).encode()).hexdigest()
