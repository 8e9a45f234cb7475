"""The rules that every notebook in notebooks/ keeps: `lint(path)` gives one sentence for each breach.

Rules on the whole file are here, rules on code in tests/notebook_code.py. A rule is a function that takes the
notebook as plain JSON and yields complaints.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat

from tests.notebook_code import CODE_RULES

Notebook = dict[str, Any]
Rule = Callable[[Notebook], Iterator[str]]

MAX_BYTES = 100_000
MAX_CODE_CELLS_IN_A_ROW = 2
KERNEL_NAMES = ("Python 3", "Python 3 (ipykernel)")
STRIP = "run `python -m tests.strip_notebooks`"
KEPT_TAGS = {"keep_output", "nbval-check-output"}


def read_notebook(path: Path) -> Notebook:
    """The notebook as plain JSON, sources joined to one string; nothing is upgraded or repaired on the way."""
    notebook: Notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
        cell.setdefault("metadata", {})
    return notebook


def tags(cell: dict[str, Any]) -> set[str]:
    """The cell's tags."""
    return set(cell["metadata"].get("tags", []))


def markdown_text(notebook: Notebook) -> str:
    """All markdown of the notebook in order, without fenced code, in which # is a comment and no heading."""
    text = "\n\n".join(cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    return re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.M | re.S)


def check_format(notebook: Notebook) -> Iterator[str]:
    ids = [cell.get("id") for cell in notebook["cells"]]
    if None in ids or len(set(ids)) != len(ids) or notebook["nbformat_minor"] < 5:
        yield "a cell has no id of its own (nbformat 4.5): open and save it in JupyterLab"
        return
    try:
        nbformat.validate(nbformat.from_dict(notebook))
    except nbformat.ValidationError as error:
        yield f"is not a valid notebook: {str(error).splitlines()[0]}"


def check_first_cell(notebook: Notebook) -> Iterator[str]:
    first = notebook["cells"][0]
    if first["cell_type"] != "markdown":
        yield "the first cell is not text: it says Question, Input, Output, Time"
        return
    missing = [
        word for word in ("Question", "Input", "Output", "Time") if not re.search(rf"\b{word}\b", first["source"])
    ]
    if missing:
        yield f"the first cell does not say {', '.join(missing)}"
    time = first["source"].partition("Time")[2]
    if not ("CPU" in time and "GPU" in time and re.search(r"\d", time)):
        yield "the first cell gives no time in figures on CPU and GPU after the word Time"


def check_headings(notebook: Notebook) -> Iterator[str]:
    found = re.findall(r"^(#{1,6})\s+(.*)$", markdown_text(notebook), flags=re.M)
    levels = [len(marks) for marks, _ in found]
    if levels.count(1) != 1 or levels[0] != 1:
        yield f"expected one heading of level 1, at the top; the levels are {levels}"
    for above, (level, title) in zip(
        levels, zip(levels[1:], (title for _, title in found[1:]), strict=True), strict=False
    ):
        if level > above + 1:
            yield f"heading {title!r} of level {level} follows one of level {above}: skip no level"


def check_text_between_code(notebook: Notebook) -> Iterator[str]:
    run = 0
    for number, cell in enumerate(notebook["cells"]):
        run = 0 if cell["cell_type"] == "markdown" else run + 1
        if run == MAX_CODE_CELLS_IN_A_ROW + 1:
            yield f"cell {number}: more than {MAX_CODE_CELLS_IN_A_ROW} code cells in a row without text between them"


def check_exercise(notebook: Notebook) -> Iterator[str]:
    if not re.search(r"^\s*(>.*|[*_]{1,3})Exercise\b", markdown_text(notebook), flags=re.M):
        yield "has no Exercise box (a quoted or emphasised line that begins with Exercise)"


def check_machine_paths_in_text(notebook: Notebook) -> Iterator[str]:
    found = re.search(r"(?<![\w.])/(home|Users|root|tmp|work|mnt|scratch|content)/\S*", markdown_text(notebook))
    if found:
        yield f"the text names the path {found[0]} of one machine"


def check_metadata(notebook: Notebook) -> Iterator[str]:
    kernel = notebook["metadata"].get("kernelspec", {})
    if kernel.get("name") != "python3" or kernel.get("display_name") not in KERNEL_NAMES:
        yield f"kernelspec {kernel} is not the plain python3: {STRIP}"
    places = [("notebook", notebook["metadata"])]
    places += [(f"cell {number}", cell["metadata"]) for number, cell in enumerate(notebook["cells"])]
    for place, metadata in places:
        for key in sorted({"papermill", "widgets", "execution"} & set(metadata)):
            yield f"{place} carries {key} metadata: {STRIP}"
    if "version" in notebook["metadata"].get("language_info", {}):
        yield f"carries language_info.version: {STRIP}"


def check_outputs(notebook: Notebook) -> Iterator[str]:
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "code":
            continue
        kept = tags(cell) & KEPT_TAGS
        if kept and kept != KEPT_TAGS:
            yield f"cell {number}: the tags keep_output and nbval-check-output go together, found only {kept.pop()}"
        elif kept and not (cell["outputs"] and cell["execution_count"]):
            yield f"cell {number}: kept output is missing, so nbval checks nothing: {STRIP} --run"
        elif not kept and (cell["outputs"] or cell["execution_count"] is not None):
            yield f"cell {number}: output or count is not stripped: {STRIP}"


RULES: list[Rule] = [
    check_format,
    check_first_cell,
    check_headings,
    check_text_between_code,
    check_exercise,
    check_machine_paths_in_text,
    check_metadata,
    check_outputs,
    *CODE_RULES,
]


def lint(path: Path) -> list[str]:
    """Complaints about one notebook, each beginning with its name; an empty list if it keeps every rule."""
    problems = []
    if path.stat().st_size >= MAX_BYTES:
        problems.append(f"has {path.stat().st_size:,} bytes, {MAX_BYTES:,} are too many: {STRIP}")
    notebook = read_notebook(path)
    if not notebook["cells"]:
        problems.append("has no cells")
    else:
        problems += [problem for rule in RULES for problem in rule(notebook)]
    return [f"{path.name}: {problem}" for problem in problems]
