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
from typing import TYPE_CHECKING, Any

from cytolib.run.sources import INJECTED, read_notebook

if TYPE_CHECKING:
    from cytolib.run.failure import Failure

BACKEND = "module://cytolib.run.plain_backend"
SAVE_EVERY_S = 30.0
_PIPE = "CYTOLIB_PLAIN_PIPE"
_LIMIT = "CYTOLIB_PLAIN_CELL_TIMEOUT"


def run_plain_notebook(
    source: Path, folder: Path, parameters: dict[str, Any], environment: dict[str, str], limit_s: int | None
) -> Failure | None:
    """Execute ``source`` with ``parameters``, as :func:`cytolib.run.runners.run_notebook` does, but without a kernel.

    Returns:
        None where every cell ran, else what happened.
    """
    from cytolib.run.failure import Failure, code_line, death, native_lines
    from cytolib.run.log import LOG, last_lines, tidy_log
    from cytolib.run.runners import shown_path, unfinished_cell, with_progress

    output, log_path = folder / "failed.ipynb", folder / LOG
    prepared = prepare(source, parameters)
    save(prepared, output)
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    own = {_PIPE: str(writing), "MPLBACKEND": BACKEND} | ({_LIMIT: str(limit_s)} if limit_s else {})
    own = with_progress(environment, folder) | own
    command = [sys.executable, "-m", "cytolib.run.plain", str(output)]
    try:
        with open(log_path, "wb") as log:
            code = subprocess.run(
                command, env=own, cwd=source.parent, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                pass_fds=(writing,), check=False,
            ).returncode  # fmt: skip
        started = _read(reading).split()
    finally:
        os.close(reading)
        os.close(writing)
    tidy_log(log_path)
    unfinished = unfinished_cell(source, output)
    if (unfinished is None and code == 0) or (unfinished and "not executed" not in unfinished.error):
        return unfinished
    index = int(started[-1]) if started else -1
    place = _place(prepared, index) if started else "before the first cell"
    first = code_line(prepared["cells"][index]["source"]) if started else ""
    where = f"in {shown_path(source)}, {place}: {first}"
    if limit_s and any("Timeout (" in line for line in last_lines(log_path, 200)):
        return Failure(f"ran longer than {limit_s} s and was stopped (set by --cell-timeout)", place, first, (where,))
    detail = (where, *native_lines(log_path))
    return Failure(f"the process died: {death(code)}", place, first, detail, exit_code=code)


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
    from cytolib.run.bars import quiet_bars
    from cytolib.run.plain_outputs import Recorder

    quiet_bars()  # before a cell imports tqdm
    faulthandler.enable()
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
