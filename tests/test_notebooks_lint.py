"""Every notebook keeps the rules; and each rule is shown to fail on a notebook made bad in one place."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.notebook_lint import lint
from tests.strip_notebooks import strip_file

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))
Notebook = dict[str, Any]

OPENING = """# 00 What cells are there?

**Question** Which cells, and how unequal?
**Input** nothing **Output** a cell table
**Time** 20 s on CPU, 10 s on GPU
"""
KEPT = {"tags": ["keep_output", "nbval-check-output"]}


def good_notebook() -> Notebook:
    """A notebook that keeps every rule, as plain JSON."""
    cells = [
        new_markdown_cell(OPENING),
        new_code_cell(
            "seed: int = 0  # where chance begins\nrates: list[float] = [0.1, 1]  # learning rates",
            metadata={"tags": ["parameters"]},
        ),
        new_markdown_cell("## Look\n\nText."),
        new_code_cell("from cytolib import figures, run\n\nstage = run.Stage('00_data')\nfigures.contact_sheet(cells)"),
        new_code_cell(
            "print(2)", metadata=KEPT, execution_count=3, outputs=[new_output("stream", name="stdout", text="2\n")]
        ),
        new_markdown_cell("### Train\n\n> **Exercise** Set `seed` to 1.\n\n```\n# a comment, no heading\n```"),
        new_code_cell("for step in train(cells, epochs=3):\n    print(step)"),
        new_markdown_cell("## End"),
        new_code_cell("stage.publish()"),
    ]
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    plain: Notebook = json.loads(nbformat.writes(new_notebook(cells=cells, metadata={"kernelspec": kernel})))
    for cell in plain["cells"]:
        cell["source"] = "".join(cell["source"])
    return plain


def complaints(notebook: Notebook, folder: Path) -> list[str]:
    path = folder / "00_bad.ipynb"
    path.write_text(json.dumps(notebook))
    return lint(path)


def code(source: str, cell: int = 3) -> Callable[[Notebook], None]:
    """A change that puts lines under a code cell."""

    def change(notebook: Notebook) -> None:
        notebook["cells"][cell]["source"] += f"\n{source}"

    return change


def replace(old: str, new: str) -> Callable[[Notebook], None]:
    """A change of words in whichever cells hold them."""

    def change(notebook: Notebook) -> None:
        assert any(old in cell["source"] for cell in notebook["cells"])
        for cell in notebook["cells"]:
            cell["source"] = cell["source"].replace(old, new)

    return change


def put(place: str, value: object) -> Callable[[Notebook], None]:
    """A change of one JSON entry: 'cells.3.id'; None takes it away."""

    def change(notebook: Notebook) -> None:
        at: Any = notebook
        *way, last = place.split(".")
        for step in way:
            at = at[int(step)] if isinstance(at, list) else at.setdefault(step, {})
        if value is None:
            del at[last]
        else:
            at[last] = value

    return change


def drop(*numbers: int) -> Callable[[Notebook], None]:
    """A change that takes cells out."""

    def change(notebook: Notebook) -> None:
        notebook["cells"] = [cell for n, cell in enumerate(notebook["cells"]) if n not in numbers]

    return change


BAD: dict[str, tuple[Callable[[Notebook], None], str]] = {
    "first cell is code": (drop(0), "first cell is not text"),
    "no question": (replace("**Question**", "Why"), "does not say Question"),
    "no output": (replace("**Output**", "to"), "does not say Output"),
    "no GPU time": (replace("10 s on GPU", ""), "no time in figures"),
    "no figure in time": (replace("20 s on CPU, 10 s on GPU", "short on CPU and GPU"), "no time in figures"),
    "no parameters": (put("cells.1.metadata.tags", []), "expected one code cell tagged parameters, found 0"),
    "two parameters": (put("cells.3.metadata.tags", ["parameters"]), "tagged parameters, found 2"),
    "untyped": (replace("seed: int", "seed"), "expected `name: type = literal"),
    "derived": (replace("= 0  # where", "= 2 * 3  # where"), "seed is no literal"),
    "wrong type": (replace("seed: int = 0", "seed: int = 0.5"), "seed has type int and value 0.5"),
    "bool as int": (replace("seed: int = 0", "seed: int = True"), "seed has type int and value True"),
    "unknown type": (replace("seed: int = 0", "seed: Path = 0"), "has type Path, known are"),
    "no help": (replace("  # where chance begins", ""), "seed has no help"),
    "second equals sign": (replace("where chance begins", "else seed=1"), "holds '='"),
    "class": (code("class Net:\n    pass"), "class Net belongs in cytolib"),
    "long function": (code("def f():\n" + "    print(1)\n" * 10), "function f has 11 lines"),
    "epochs": (code("for epoch in range(3):\n    print(epoch)"), "a loop over epochs"),
    "epochs by number": (code("for i in range(n_epochs):\n    print(i)"), "a loop over epochs"),
    "gradient": (code("loss.backward()"), "a gradient step"),
    "long train loop": (code("for s in train(x):\n" + "    print(s)\n" * 6), "the loop over train has 6 lines"),
    "long cell": (code("print(1)\n" * 25), "29 lines, at most 25"),
    "broken code": (code("print("), "is not valid Python"),
    "empty cell": (put("cells.3.source", ""), "is empty"),
    "absolute path": (code("open('/data/cells.parquet')"), "path '/data/cells.parquet' lies outside"),
    "absolute f-string": (code("open(f'/data/{seed}')"), "path '/data/' lies outside"),
    "Windows path": (code(r"open('C:\\cells')"), "lies outside"),
    "home": (code("open('~/cells')"), "path '~/cells' lies outside"),
    "Path.home": (code("Path.home()"), "uses .home"),
    "parent folder": (code("open('../data')"), "path '../data' lies outside"),
    "path in text": (replace("Text.", "See /home/me/cells."), "names the path /home/me/cells."),
    "cuda": (code("x.to('cuda:0')"), "names the device 'cuda:0'"),
    "cuda call": (code("torch.cuda.is_available()"), "uses torch.cuda"),
    "sys.path": (code("sys.path.append(x)"), "uses sys.path"),
    "pip": (code("!pip install x"), "unguarded '!pip install x'"),
    "percent pip": (code("%pip install x"), "unguarded '%pip install x'"),
    "python -m pip": (code("!{sys.executable} -m pip install x\n!python -m pip install x"), "unguarded"),
    "pip after the guard": (
        code('if "google.colab" in sys.modules:\n    %pip install x\n%pip install y'),
        "unguarded '%pip install y'",
    ),
    "three code cells": (drop(5), "more than 2 code cells in a row"),
    "no picture": (replace("figures.contact_sheet(cells)", "figures.style()"), "draws no picture"),
    "no exercise": (replace("> **Exercise** Set", "Set"), "no Exercise box"),
    "no publish": (replace("stage.publish()", "print(1)"), "in the last code cell; it is called in cells []"),
    "publish early": (code("stage.publish()"), "it is called in cells [3, 8]"),
    "two titles": (replace("## End", "# End"), "one heading of level 1"),
    "skipped level": (replace("## Look", "### Look"), "skip no level"),
    "own kernel": (put("metadata.kernelspec.name", "my-env"), "not the plain python3"),
    "own kernel title": (put("metadata.kernelspec.display_name", "Ann's"), "not the plain python3"),
    "no kernel": (put("metadata.kernelspec", None), "not the plain python3"),
    "stray output": (
        put("cells.3.outputs", [{"output_type": "stream", "name": "stdout", "text": "1"}]),
        "output or count is not stripped",
    ),
    "stray count": (put("cells.3.execution_count", 7), "output or count is not stripped"),
    "half kept": (put("cells.4.metadata.tags", ["keep_output"]), "go together, found only keep_output"),
    "kept nothing": (put("cells.4.outputs", []), "kept output is missing"),
    "papermill metadata": (put("metadata.papermill", {}), "notebook carries papermill metadata"),
    "papermill cell": (put("cells.3.metadata.papermill", {}), "cell 3 carries papermill metadata"),
    "widget state": (put("metadata.widgets", {}), "notebook carries widgets metadata"),
    "Python's version": (
        put("metadata.language_info", {"name": "python", "version": "3.11.2"}),
        "language_info.version",
    ),
    "missing id": (put("cells.3.id", None), "no id of its own"),
    "double id": (put("cells.3.id", "same"), "no id of its own"),
    "too large": (replace("Text.", "word " * 20_000), "100,000 are too many"),
    "empty": (drop(*range(9)), "has no cells"),
}
GOOD_CHANGES = {
    "guarded pip": code('if "google.colab" in sys.modules:\n    %pip install x'),
    "slash that begins no path": code("print(f'{a}/b', 'a/b', ' / ', '/')"),
    "drawing by a bare name": replace("figures.contact_sheet(cells)", "display(cells)"),
    "long literal": replace("rates: list[float] = [0.1, 1]", "rates: list[float] = [\n    0.1,\n    1,\n]"),
}


def test_a_good_notebook_has_no_complaint(tmp_path: Path) -> None:
    assert complaints(good_notebook(), tmp_path) == []


@pytest.mark.parametrize("name", BAD)
def test_a_bad_notebook_is_caught(name: str, tmp_path: Path) -> None:
    change, expected = BAD[name]
    notebook = good_notebook()
    change(notebook)
    if name == "double id":
        put("cells.5.id", "same")(notebook)
    found = complaints(notebook, tmp_path)
    assert any(expected in problem for problem in found), found
    assert all(problem.startswith("00_bad.ipynb: ") for problem in found)


@pytest.mark.parametrize("name", GOOD_CHANGES)
def test_a_harmless_change_is_let_through(name: str, tmp_path: Path) -> None:
    notebook = good_notebook()
    GOOD_CHANGES[name](notebook)
    assert complaints(notebook, tmp_path) == []


def test_stripping_cures_what_it_says_it_cures(tmp_path: Path) -> None:
    notebook = good_notebook()
    output = {"output_type": "stream", "name": "stdout", "text": "1"}
    for place, value in {
        "cells.3.outputs": [output],
        "cells.3.execution_count": 9,
        "cells.3.metadata.papermill": {"status": "completed"},
        "cells.3.metadata.execution": {},
        "metadata.papermill": {},
        "metadata.widgets": {},
        "metadata.language_info": {"name": "python", "version": "3.11.2"},
        "metadata.kernelspec": {"name": "my-env", "display_name": "mine"},
    }.items():
        put(place, value)(notebook)
    kept = copy.deepcopy(notebook["cells"][4])
    assert len(complaints(notebook, tmp_path)) >= 7
    path = tmp_path / "00_bad.ipynb"
    assert strip_file(path)
    assert lint(path) == []
    after = json.loads(path.read_text())["cells"][4]
    assert (after["execution_count"], after["id"]) == (kept["execution_count"], kept["id"])
    assert "".join(after["outputs"][0]["text"]) == "2\n"
    assert not strip_file(path), "a clean notebook is left as it is"


def test_stripping_with_run_makes_the_kept_output_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYTOLIB_RUN", "unchanged")
    cells = [new_code_cell("print(1)"), new_code_cell("print(6 * 7)", metadata=KEPT)]
    path = tmp_path / "00_run.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    assert strip_file(path, run=True)
    first, second = nbformat.read(path, as_version=4).cells
    assert (first.outputs, first.execution_count) == ([], None)
    assert (second.outputs[0].text, second.execution_count) == ("42\n", 2)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_keeps_the_rules(path: Path) -> None:
    assert lint(path) == []
