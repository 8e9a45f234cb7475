"""The reference set: a finished run's tables, figures and executed notebooks, small enough to be committed.

Pictures of real cells stay out of it: their licences differ, and anyone with the data can run the notebook.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

from PIL import Image

from cytolib.run.artefacts import atomic_path, write_json
from cytolib.run.manifest import output_changes, read_manifest
from cytolib.run.paths import root, runs_root
from cytolib.run.sources import read_notebook
from cytolib.run.stage import size_text
from cytolib.run.stages import Chain

MAX_TOTAL_BYTES = 8_000_000
LARGE_PICTURE_BYTES = 100_000
TABLES = (
    "results.parquet",
    "map.parquet",
    "attributes.parquet",
    "history.parquet",
    "history_by_class.parquet",
    "membership.parquet",
    "guidance.parquet",
    "attribute_frequencies.parquet",
    "contaminated.parquet",
    "classifiers.csv",
    "key_results.csv",
)
COVER = "cells_contact_sheet.png"  # the picture of the README
CELLS_TAG = "shows-cells"
NOT_SHOWN = "real cells are not redistributed: run this notebook to see them"


def publish_run(name: str, chain: Chain | None = None) -> Path:
    """Copy what is worth keeping of the run ``name`` to ``papermill_runs/reference/<name>``, replacing what was there.

    Copied are the tables that figures are drawn from, the paper's figures and the executed notebooks, of stages whose
    files verify; ``run.json`` says how long each stage took, with which parameters and versions.

    Raises:
        ValueError: where a stage is not finished, or the set is larger than 8 MB; nothing is changed then.
    """
    source = runs_root() / name
    target = root() / "papermill_runs" / "reference" / name
    real = not _is_phantoms(source)
    with atomic_path(target) as folder:
        folder.mkdir()
        manifests = {
            spec.name: _publish_stage(source / spec.name, folder / spec.name, real)
            for spec in (chain or Chain()).stages
        }
        write_json(_description(manifests), folder / "run.json")
        total = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        if total > MAX_TOTAL_BYTES:
            largest = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
            raise ValueError(
                f"the reference set of {name} has {size_text(total)}, more than {size_text(MAX_TOTAL_BYTES)}; its "
                f"largest file is {largest.relative_to(folder)} ({size_text(largest.stat().st_size)}): make it smaller"
            )
    return target


def _is_phantoms(run_folder: Path) -> bool:
    try:
        return read_manifest(run_folder / "00_data")["parameters"].get("dataset", "phantoms") == "phantoms"
    except FileNotFoundError:
        raise ValueError(f"{run_folder}: 00_data is not finished; run `cytolib run` to its end first") from None


def _description(manifests: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What a reader of the reference set asks of a run: cost of each stage, parameters, versions, machine."""
    last = list(manifests.values())[-1]
    cost = ("wall_seconds", "peak_memory_bytes", "threads")
    return {
        "stages": {name: {key: manifest[key] for key in cost} for name, manifest in manifests.items()},
        "parameters": {name: manifest["parameters"] for name, manifest in manifests.items()},
        **{key: last[key] for key in ("versions", "platform", "device")},
    }


def _publish_stage(source: Path, target: Path, real: bool) -> dict[str, Any]:
    try:
        manifest = read_manifest(source)
    except FileNotFoundError:
        raise ValueError(f"{source}: the stage is not finished; run `cytolib run` to its end first") from None
    changes = output_changes(manifest, source)
    if changes or manifest["executor"] == "interactive":
        raise ValueError(f"{source}: {(changes or ['written interactively'])[0]}; run `cytolib run` again first")
    for name in manifest["outputs"]:
        path = Path(name)
        # the executed notebooks show the other figures, and of real cells there is no picture at all
        of_paper = path.match("figures/figure_*") or path.match("figures/captions.md")
        figure = of_paper or (path.name == COVER and not real)
        if path.name in TABLES or figure:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)
    if manifest.get("notebook"):
        target.mkdir(parents=True, exist_ok=True)
        notebook = public_notebook(source / manifest["notebook"]["name"], real)
        text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
        (target / manifest["notebook"]["name"]).write_text(_without_paths(text), encoding="utf-8")
    return manifest


def public_notebook(path: Path, real: bool) -> dict[str, Any]:
    """An executed notebook without papermill's notes and, for real data, without pictures of cells."""
    notebook = read_notebook(path)
    for metadata in (notebook["metadata"], *(cell["metadata"] for cell in notebook["cells"])):
        for key in ("papermill", "execution", "widgets"):
            metadata.pop(key, None)
    for cell in notebook["cells"]:
        if not real or cell["cell_type"] != "code" or CELLS_TAG not in cell["metadata"].get("tags", []):
            continue
        kept = [output for output in cell["outputs"] if not _shows_picture(output)]
        if len(kept) < len(cell["outputs"]):
            kept.append({"output_type": "stream", "name": "stdout", "text": NOT_SHOWN + "\n"})
        cell["outputs"] = kept
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            _shrink_picture(output.get("data") or {})
    return notebook


def _shrink_picture(data: dict[str, Any]) -> None:
    """Photographs, which PNG hardly packs, become JPEG; charts are small as they are, and stay."""
    content = base64.b64decode("".join(data.get("image/png", "")))
    if len(content) < LARGE_PICTURE_BYTES:
        return
    packed = io.BytesIO()
    with Image.open(io.BytesIO(content)) as picture:
        on_white = Image.new("RGBA", picture.size, "white")
        on_white.alpha_composite(picture.convert("RGBA"))
        on_white.convert("RGB").save(packed, format="JPEG", quality=88)
    if len(packed.getvalue()) < len(content) / 2:
        del data["image/png"]
        data["image/jpeg"] = base64.b64encode(packed.getvalue()).decode("ascii")


def _shows_picture(output: dict[str, Any]) -> bool:
    data = output.get("data") or {}
    markup = "".join(data.get("text/html", ""))
    return any(kind.startswith(("image/", "video/", "application/")) for kind in data) or "<img" in markup.lower()


def _without_paths(text: str) -> str:
    """The text with this machine's project and home folders named for what they are."""
    for path, name in ((runs_root(), "papermill_runs"), (root(), "."), (Path.home(), "~")):
        if len(path.parts) > 1:
            text = text.replace(str(path), name)
    return text
