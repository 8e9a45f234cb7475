"""Small notebooks, chains and runs for the tests of the runner."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cytolib.run.stages import Chain, StageSpec

SCRIPT = """
def main(stage, n: int = 2, names: tuple[str, ...] = ("a",)) -> None:
    stage.path("y.txt").write_text(stage.input("first", "x.txt").read_text() * n)
"""


def write_notebook(path: Path, *cells: str, parameters: str = "seed: int = 0  # where chance starts") -> Path:
    """A notebook with a title, a parameters cell and code cells."""
    tagged = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": parameters}
    made: list[dict[str, Any]] = [{"cell_type": "markdown", "metadata": {}, "source": "# title"}]
    for cell in (tagged, *({"cell_type": "code", "metadata": {}, "source": source} for source in cells)):
        made.append({**cell, "execution_count": None, "outputs": []})
    for number, cell in enumerate(made):
        cell["id"] = f"cell-{number}"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": made, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))
    return path


def stage_notebook(folder: Path, name: str, *cells: str, publish: bool = True) -> Path:
    """A notebook that opens its stage in code cell 2, runs ``cells`` and publishes."""
    opening = f"from cytolib.run import Stage\nstage = Stage({name!r}, seed=seed)"
    return write_notebook(folder / f"{name}.ipynb", opening, *cells, *(["stage.publish()"] if publish else []))


def toy_chain(folder: Path) -> Chain:
    """first (notebook) -> second (script) -> third (script); the scripts lie in ``folder`` on Python's path."""
    stage_notebook(folder, "first", "_ = stage.path('x.txt').write_text(str(seed))")
    (folder / "toy_second.py").write_text(SCRIPT)
    (folder / "toy_third.py").write_text(
        "def main(stage, seed: int = 0) -> None:\n"
        "    text = stage.input('second', 'y.txt').read_text()\n"
        "    stage.optional_input('first', 'absent.txt')\n"
        "    stage.path('tables/z.txt').write_text(text)\n"
    )
    stages = (
        StageSpec("first"),
        StageSpec("second", "script", ("first",), "toy_second:main"),
        StageSpec("third", "script", ("first", "second"), "toy_third:main"),
    )
    return Chain(stages, folder)


def toy_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``folder`` as the home of a toy chain: its configuration, the root of its runs, its scripts on Python's path."""
    monkeypatch.setenv("CYTOLIB_RUNS", str(folder / "runs"))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.syspath_prepend(str(folder))
    (folder / "c.yaml").write_text("run: toy\nstages:\n  first: {seed: 7}\n")
    return folder
