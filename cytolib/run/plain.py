"""Notebooks without Jupyter: code cells run in order in one process, and leave an executed notebook like papermill's.

``run_plain_notebook`` starts ``python -m cytolib.run.plain``, which is the other half of this module: it executes the
cells and nothing else. What counts as finished is judged from outside, as for papermill: exit code, every cell's count,
and the publication.
"""

from __future__ import annotations

import faulthandler
import json
import os
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

from cytolib.run.sources import INJECTED, read_notebook

BACKEND = "module://cytolib.run.plain_backend"
SAVE_EVERY_S = 30.0
_PIPE = "CYTOLIB_PLAIN_PIPE"
_LIMIT = "CYTOLIB_PLAIN_CELL_TIMEOUT"


def run_plain_notebook(
    source: Path, folder: Path, parameters: dict[str, Any], environment: dict[str, str], limit_s: int | None
) -> str | None:
    """Execute ``source`` with ``parameters``, as :func:`cytolib.run.runners.run_notebook` does, but without a kernel.

    Returns:
        None where every cell ran, else what happened, as part of a sentence.
    """
    from cytolib.run.runners import first_line, unfinished_cell

    output = folder / "failed.ipynb"
    prepared = prepare(source, parameters)
    save(prepared, output)
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    own = {_PIPE: str(writing), "MPLBACKEND": BACKEND} | ({_LIMIT: str(limit_s)} if limit_s else {})
    command = [sys.executable, "-m", "cytolib.run.plain", str(output)]
    try:
        with open(folder / "log.txt", "wb") as log:
            code = subprocess.run(
                command, env=environment | own, cwd=source.parent, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                pass_fds=(writing,), check=False,
            ).returncode  # fmt: skip
        started = _read(reading).split()
    finally:
        os.close(reading)
        os.close(writing)
    unfinished = unfinished_cell(source, output)
    place = _place(prepared, int(started[-1])) if started else "before the first cell"
    if unfinished is None and code == 0:
        return None
    if unfinished and "not executed" not in unfinished:
        return unfinished
    if code == 0:
        return f"{place}: the process ended here, before the last cell had run"
    if code < 0:
        return f"{place}: the process was killed by signal {-code} (out of memory?)"
    log_text = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
    if limit_s and "Timeout (" in log_text:
        return f"{place}: ran longer than {limit_s} s and was stopped"
    lines = log_text.strip().splitlines()
    return f"{place}: the process ended with exit code {code} ({first_line(lines[-1]) if lines else 'no message'})"


def _read(descriptor: int) -> str:
    """All that the pipe holds by now; a process left over may still hold its other end open."""
    text = b""
    try:
        while part := os.read(descriptor, 65536):
            text += part
    except BlockingIOError:
        pass
    return text.decode()


def _place(notebook: dict[str, Any], index: int) -> str:
    cells = notebook["cells"]
    if INJECTED in cells[index]["metadata"].get("tags", []):
        return "the injected parameters"
    code = [c["cell_type"] == "code" and INJECTED not in c["metadata"].get("tags", []) for c in cells]
    return f"code cell {sum(code[: index + 1])}"


def prepare(source: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    """The notebook before its execution: no outputs, and a cell of ``parameters`` behind the one that is tagged so."""
    notebook = read_notebook(source)
    cells: list[dict[str, Any]] = []
    for number, cell in enumerate(notebook["cells"]):
        tags = cell["metadata"].get("tags", [])
        if INJECTED in tags:
            continue
        made = {key: cell[key] for key in ("cell_type", "metadata", "source")}
        made["id"] = str(cell.get("id") or f"cell-{number}")
        if cell["cell_type"] == "code":
            made |= {"execution_count": None, "outputs": []}
        cells.append(made)
        if "parameters" in tags:
            # repr of JSON values is Python source of the same values, whatever a text holds
            lines = ["# Parameters", *(f"{name} = {value!r}" for name, value in parameters.items()), ""]
            injected = {"cell_type": "code", "metadata": {"tags": [INJECTED]}, "source": "\n".join(lines)}
            cells.append({**injected, "id": INJECTED, "execution_count": None, "outputs": []})
    return {"cells": cells, "metadata": notebook.get("metadata", {}), "nbformat": 4, "nbformat_minor": 5}


def save(notebook: dict[str, Any], path: Path) -> None:
    """Write a notebook as JSON, atomically."""
    from cytolib.run.artefacts import atomic_path

    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main(path: Path) -> int:
    """Execute every code cell of the prepared notebook at ``path``; 0 if all of them ran."""
    from cytolib.run.plain_outputs import Recorder

    pipe = int(os.environ.pop(_PIPE))
    limit = float(os.environ.pop(_LIMIT, 0))
    notebook = json.loads(path.read_text(encoding="utf-8"))
    space = types.ModuleType("__main__")  # as in IPython: what cells define belongs to a module of that name
    own, sys.modules["__main__"] = sys.modules["__main__"], space
    assert own is not space  # kept: this function is one of its own
    recorder = Recorder()
    space.__dict__["display"] = recorder.display
    saved, count = time.monotonic(), 0
    for index, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "code" or not cell["source"].strip():
            continue
        count += 1
        os.write(pipe, f"{index}\n".encode())
        if limit:
            faulthandler.dump_traceback_later(limit, exit=True)
        cell["outputs"], fine = recorder.run(cell["source"], count, space.__dict__)
        faulthandler.cancel_dump_traceback_later()
        cell["execution_count"] = count
        if not fine:
            save(notebook, path)
            return 1
        if time.monotonic() - saved > SAVE_EVERY_S:
            save(notebook, path)
            saved = time.monotonic()
    save(notebook, path)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
