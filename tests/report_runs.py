"""A small run made by hand, with hostile names and texts in it, for the tests of the report."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from cytolib.run.artefacts import sha256, write_json
from cytolib.run.manifest import expected_key
from cytolib.run.stage import hash_outputs
from cytolib.run.stages import Chain, StageSpec
from cytolib.run.tables import write_table

HOSTILE = "<script>document.title='owned'</script>"
FIGURE = 'map "quoted" #1 100%25?'  # every character that a link must quote
MARKDOWN = "# 00 · What cells?\n\n**Question** &nbsp; Which cells *are* there?"
NEEDS = {"00_data": (), "01_embed": ("00_data",), "10_figures": ("00_data", "01_embed")}


@dataclass(frozen=True)
class Run:
    """A run folder with its chain and parameters."""

    folder: Path
    chain: Chain
    parameters: dict[str, dict[str, Any]]


def notebook(name: str, executed: bool) -> dict[str, Any]:
    """A source notebook, or what is left of it after its execution."""
    picture = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGP4z8DwHwAFAAH/iZk9HQAAAABJRU5ErkJggg=="
    table = [
        "<div>\n",
        '<table border="1" class="dataframe"><tbody><tr><th>0</th><td>42</td></tr></tbody></table>',
        "</div>",
    ]
    bad = f"{HOSTILE}<base href='http://example.invalid/'><meta http-equiv=refresh content='0;url=http://example.invalid'>"
    outputs = [
        {"output_type": "display_data", "metadata": {}, "data": {"image/png": picture, "text/plain": "<Figure>"}},
        {"output_type": "display_data", "metadata": {}, "data": {"text/html": table, "text/plain": "0 42"}},
        {"output_type": "display_data", "metadata": {}, "data": {"text/html": bad}},
        {"output_type": "stream", "name": "stdout", "text": f"label {HOSTILE}\n"},
        {
            "output_type": "display_data",
            "metadata": {},
            "data": {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}, "text/plain": "0%| never shown"},
        },
    ]
    code = f"stage.save_figure(fig, {FIGURE!r})\nstage.save_figure(fig, f'figure_{{n}}_cells')"
    sources = [
        ("markdown", MARKDOWN.replace("00 ·", f"{name[:2]} ·"), []),
        ("code", f"seed: int = 0  # where chance starts\nlabel: str = {'a'!r}  # of the {HOSTILE}", ["parameters"]),
        ("markdown", "## Figure 1: the cells\n\nHow many there are, and `where` they come from. $x^2$", []),
        ("code", code, []),
    ]
    cells: list[dict[str, Any]] = []
    for number, (kind, source, tags) in enumerate(sources):
        cell: dict[str, Any] = {
            "cell_type": kind,
            "id": f"{name}-{number}",
            "metadata": {"tags": tags},
            "source": source,
        }
        if kind == "code":
            shown = outputs if executed and not tags else []
            cell |= {"execution_count": number if executed else None, "outputs": shown}
        cells.append(cell)
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}


def write_outputs(folder: Path, name: str) -> None:
    """Figures and tables of a stage."""
    for stem in (FIGURE, "figure_1_cells", "figure_10_last", "figure_2_no_words"):
        path = folder / "figures" / f"{stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 40), "white").save(path)
        path.with_suffix(".pdf").write_bytes(b"%PDF-1.4\n")
    frame = pd.DataFrame({HOSTILE: [f"x{i} {HOSTILE}" for i in range(40)], "value": [i / 3 for i in range(40)]})
    write_table(frame, folder / "results.parquet")
    (folder / "few.csv").write_text(f"method,score\n{HOSTILE},0.123456\nb,\n")
    for number in range(30):
        (folder / "images").mkdir(exist_ok=True)
        (folder / "images" / f"{number}.txt").write_text("x")
    if name == "10_figures":
        key = (
            "what,value,low,high,n,where\n"
            "a probe: balanced accuracy,0.848057,0.778366,0.912243,399,01_embed\n"
            "one: balanced accuracy minus that of real cells,0.0629996,0.00356934,0.127679,399,01_embed\n"
            f'"{HOSTILE}: balanced accuracy minus that of real cells",-0.0197,-0.0583,0.0148,399,nowhere\n'
            "two: a measure that nobody knows,7,,,12,00_data\n"
        )
        (folder / "key_results.csv").write_text(key)


def write_manifest(run: Run, name: str) -> None:
    """The manifest of a finished stage, of the files that lie in its folder now."""
    spec, folder = run.chain[name], run.folder / name
    executed = folder / f"{name}.ipynb"
    upstream = "results.parquet"
    inputs = [
        {"stage": need, "name": upstream, "kind": "file", "sha256": sha256(run.folder / need / upstream)}
        for need in spec.needs
    ]
    manifest = {
        "schema": 1,
        "stage": name,
        "executor": "papermill",
        "key": expected_key(spec, run.parameters[name], run.chain),
        "parameters": run.parameters[name],
        "seeds": {"seed": 0},
        "inputs": inputs,
        "outputs": hash_outputs(folder, name),
        "modules": {},
        "versions": {"python": "3.11.7", "numpy": "2.0"},
        "platform": "Linux",
        "device": f"cpu {HOSTILE}",
        "threads": 1,
        "git": {"commit": "a" * 40, "dirty": False},
        "started": "2026-01-31T09:15:00Z",
        "wall_seconds": 75.2,
        "peak_memory_bytes": 2_000_000_000,
        "notebook": {"name": executed.name, "sha256": sha256(executed), "bytes": executed.stat().st_size},
    }
    write_json(manifest, folder / "manifest.json")


def make_run(folder: Path) -> Run:
    """A finished run of three notebooks."""
    notebooks = folder / "notebooks"
    notebooks.mkdir(parents=True)
    chain = Chain(tuple(StageSpec(name, needs=needs) for name, needs in NEEDS.items()), notebooks)
    parameters: dict[str, dict[str, Any]] = {name: {"seed": 0, "label": "a"} for name in NEEDS}
    parameters["01_embed"]["label"] = HOSTILE
    run = Run(folder / "runs" / "toy", chain, parameters)
    for name in NEEDS:
        (notebooks / f"{name}.ipynb").write_text(json.dumps(notebook(name, executed=False)))
        write_outputs(run.folder / name, name)
        (run.folder / name / f"{name}.ipynb").write_text(json.dumps(notebook(name, executed=True)))
        (run.folder / name / "log.txt").write_text("done\n")
        write_manifest(run, name)
    return run
