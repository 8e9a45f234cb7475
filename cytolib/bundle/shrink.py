"""A data set with smaller images, as a data set of its own: so many cells fit into a bundle."""

from __future__ import annotations

import shutil
from collections.abc import Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from cytolib import run
from cytolib.data.images import load_image

JPEG_QUALITY = 90


def shrink_data_set(cells: pd.DataFrame, root: Path, folder: Path, side: int) -> Path:
    """Write the images of ``cells``, at most ``side`` pixels on the longer side, and the CSV file that names them.

    JPEG stays JPEG (quality 90), everything else becomes PNG; images that are small enough are copied. Micrometres a
    pixel grow as the image shrinks. The split is kept in ``split.csv``, under the new images' identities.

    Args:
        cells: a cell table. root: what its paths are relative to. folder: replaced as a whole. side: pixels.

    Returns:
        The CSV file, for ``dataset: csv:<its place in the data root>``.

    Raises:
        ValueError: for a side that is no size of a cell, or two images that are one when they are small.
    """
    if not 32 <= side <= 1024:
        raise ValueError(f"--images is {side}; expected the longer side in pixels, 32 to 1024")
    with run.atomic_path(folder) as temporary:
        (temporary / "images").mkdir(parents=True)
        with ThreadPoolExecutor(run.threads()) as pool:
            jobs = [pool.submit(_shrink, row, root, temporary, side) for row in cells.to_dict("records")]
            rows = pd.DataFrame([job.result() for job in jobs])
        twice = rows["cell_id"].duplicated()
        if twice.any():
            raise ValueError(
                f"{rows.loc[twice, 'path'].iloc[0]}: equal to another image at {side} px; take more pixels"
            )
        columns = ["path", "label", "domain", "group", "um_per_px", "mask"]
        rows[columns].to_csv(temporary / "cells.csv", index=False)
        rows[["cell_id", "split"]].to_csv(temporary / "split.csv", index=False)
    return folder / "cells.csv"


def _shrink(cell: Mapping[Hashable, Any], root: Path, folder: Path, side: int) -> dict[str, Any]:
    source, stem = root / cell["path"], cell["cell_id"][:24]
    image = load_image(source)
    factor = min(1.0, side / max(image.size))
    jpeg = source.suffix.lower() in (".jpg", ".jpeg")
    target = folder / "images" / f"{stem}{'.jpg' if jpeg else '.png'}"
    if factor == 1.0 and source.suffix.lower() in (".jpg", ".png"):
        shutil.copyfile(source, target)
    else:
        size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        options: dict[str, Any] = {"optimize": True} | ({"quality": JPEG_QUALITY} if jpeg else {})
        image.resize(size, Image.Resampling.LANCZOS).save(target, **options)
    with Image.open(target) as written:
        scale = max(image.size) / max(written.size)
    mask = ""
    if isinstance(cell["mask"], str):
        mask = f"images/{stem}_mask.png"
        with Image.open(root / cell["mask"]) as drawn, Image.open(target) as written:
            drawn.convert("L").resize(written.size, Image.Resampling.NEAREST).save(folder / mask, optimize=True)
    known = pd.notna(cell["um_per_px"])
    return {
        "cell_id": run.sha256(target),
        "path": f"images/{target.name}",
        "label": cell["cell_type"],
        "domain": cell["domain"],
        "group": cell["group"] or "",
        "um_per_px": f"{cell['um_per_px'] * scale:.6g}" if known else "",
        "mask": mask,
        "split": cell["split"],
    }
