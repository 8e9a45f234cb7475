"""Arrays that cost minutes to make are made once, and kept under a name that follows what they are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import cytolib
from cytolib import run

_PACKAGE = Path(cytolib.__file__).parent
_CODE = (
    *sorted((_PACKAGE / "morphometry").glob("*.py")),
    _PACKAGE / "framing.py",
    _PACKAGE / "views.py",
    *sorted((_PACKAGE / "data" / "phantoms").glob("*.py")),
    *(Path(__file__).with_name(name) for name in ("material.py", "material.parquet", "measure.py", "shifted.py")),
)


def kept(folder: Path, name: str, make: Callable[[], dict[str, NDArray]]) -> dict[str, NDArray]:
    """Arrays by name: those in ``folder``, or else what ``make`` gives, which is then kept there.

    Args:
        folder: where to keep them. name: of the file, without the digest of code and list that makes the rest of it.
    """
    digest = hashlib.sha256("".join(run.sha256(path) for path in _CODE).encode()).hexdigest()[:12]
    file = folder / f"{name}-{digest}.npz"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with run.atomic_path(file) as temporary, open(temporary, "wb") as target:
            np.savez(target, **make())
    with np.load(file) as found:
        return dict(found)
