"""The report of a run: one page with key results, figures, executed notebooks and manifests, readable offline."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from cytolib.run.artefacts import atomic_path
from cytolib.run.manifest import read_manifest
from cytolib.run.results import COLUMNS, read_key_results
from cytolib.run.stage import size_text

_TEMPLATE = Path(__file__).with_name("report.html.j2")


def write_report(run_folder: Path, stages: Sequence[str], parameters: Mapping[str, Mapping[str, Any]]) -> Path:
    """Write ``index.html`` of a run, and a page beside every executed notebook.

    Everything is linked relative to the run folder and nothing is fetched, so that the folder can be moved and read
    anywhere.

    Raises:
        FileNotFoundError, ValueError: where a stage has no manifest or its notebook cannot be converted.
    """
    rows, figures, versions = [], [], {}
    for name in stages:
        folder = run_folder / name
        manifest = read_manifest(folder)
        versions.update(manifest["versions"])
        rows.append(_stage_row(name, manifest, _notebook_page(folder, name)))
        figures += _figures(name, manifest)
    values = {
        "run": run_folder.name,
        "columns": COLUMNS,
        "numeric": ("value", "low", "high", "n"),
        "results": read_key_results(run_folder),
        "figures": sorted(figures, key=lambda f: f["stage"] != "10_figures"),
        "stages": rows,
        "parameters": [(s, k, json.dumps(v)) for s in stages for k, v in parameters[s].items()],
        "versions": sorted(versions.items()),
    }
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))

    path = run_folder / "index.html"
    with atomic_path(path) as temporary:
        temporary.write_text(template.render(values), encoding="utf-8")
    return path


def _stage_row(name: str, manifest: dict[str, Any], page: str | None) -> dict[str, Any]:
    git = manifest.get("git") or {}
    return {
        "name": name,
        "page": page,
        "started": manifest.get("started", ""),
        "seconds": f"{manifest.get('wall_seconds', 0):.0f}",
        "memory": size_text(manifest.get("peak_memory_bytes", 0)),
        "device": manifest.get("device", ""),
        "commit": (git.get("commit") or "none")[:12] + (" (with changes)" if git.get("dirty") else ""),
        "inputs": manifest["inputs"],
        "outputs": [
            {"name": k, "size": size_text(v["bytes"]), "sha256": v["sha256"]}
            for k, v in sorted(manifest["outputs"].items())
        ],
    }


def _figures(stage: str, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    from urllib.parse import quote

    outputs = manifest["outputs"]
    found = []
    for name in sorted(outputs):
        if name.startswith("figures/") and name.endswith(".png"):
            stem = name.removesuffix(".png")
            pdf = f"{stage}/{quote(stem)}.pdf" if f"{stem}.pdf" in outputs else None
            label = stem.removeprefix("figures/").replace("_", " ")
            found.append({"stage": stage, "name": label, "src": f"{stage}/{quote(name)}", "pdf": pdf})
    return found


def _notebook_page(folder: Path, name: str) -> str | None:
    """Convert the executed notebook to a page that fetches nothing; each execution removes the page of the last."""
    source, page = folder / f"{name}.ipynb", folder / f"{name}.html"
    if not source.is_file():
        return None
    if not page.is_file():
        with atomic_path(page) as temporary:
            temporary.write_text(notebook_html(source), encoding="utf-8")
    return f"{name}/{name}.html"


def notebook_html(path: Path) -> str:
    """An executed notebook as one HTML page with embedded images and nothing from the network.

    Raises:
        ValueError: where nbconvert cannot convert it.
    """
    import nbconvert

    exporter = nbconvert.HTMLExporter(template_name="lab", embed_images=True)
    for address in ("mathjax_url", "require_js_url", "jquery_url", "mermaid_js_url", "jupyter_widgets_base_url"):
        if exporter.has_trait(address):
            setattr(exporter, address, "")
    try:
        html, _ = exporter.from_filename(str(path))
    except Exception as error:  # nbconvert raises whatever its templates and filters raise
        raise ValueError(f"{path}: not convertible to HTML ({type(error).__name__}: {error})") from error
    return html.replace('<script src=""></script>', "").replace('<script src=""> </script>', "")
