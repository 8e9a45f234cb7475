"""Running a notebook by papermill, or a function in a process of its own, and saying truthfully how it went.

Both return None where everything ran, else what happened, as part of a sentence.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

from cytolib.run.kernels import kernel_manager_class
from cytolib.run.sources import INJECTED, read_notebook


def run_notebook(
    source: Path, folder: Path, parameters: dict[str, Any], environment: dict[str, str], limit_s: int | None
) -> str | None:
    """Execute ``source`` with ``parameters``; the executed notebook is left as ``failed.ipynb`` in ``folder``.

    The kernel works in the notebook's folder, as it does in JupyterLab.
    """
    import nbformat
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what it would say is said here, in one sentence
    notebook = nbformat.from_dict(read_notebook(source))
    notebook = nbformat.v4.upgrade(notebook)
    output = folder / "failed.ipynb"
    current: list[Any] = []
    error: str | None = None
    with open(folder / "log.txt", "w", encoding="utf-8", errors="replace") as log:
        try:
            papermill.execute_notebook(
                notebook,
                str(output).replace("{", "{{").replace("}", "}}"),  # papermill formats paths
                parameters=parameters,
                kernel_name="python3",
                language="python",
                cwd=str(source.parent),
                progress_bar=False,
                stdout_file=log,
                stderr_file=log,
                start_timeout=120,
                execution_timeout=limit_s,
                # outputs are saved every 30 s and at the end; after every cell would cost seconds with many figures
                autosave_cell_every=30,
                kernel_manager_class=kernel_manager_class(environment, log),
                on_cell_execute=lambda cell, cell_index: current.append(cell),
            )
        except DeadKernelError:
            error = "the kernel died (killed, out of memory or crashed)"
        except CellTimeoutError:
            error = f"ran longer than {limit_s} s and was stopped"
        except papermill.PapermillExecutionError as raised:
            error = f"{raised.ename}: {first_line(raised.evalue)}"
        except Exception as raised:  # whatever papermill, nbclient or zmq say, the stage is not finished
            error = f"{type(raised).__name__}: {first_line(str(raised))}"
    if error:
        place = _place(source, current) if current else "before the first cell"
        return f"{place}: {error}"
    return unfinished_cell(source, output)


def first_line(text: str, length: int = 300) -> str:
    """The first line of a message, cut to a sentence's length."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    line = lines[0].rstrip(".") if lines else "no message"
    return line if len(line) <= length else line[: length - 3] + "..."


def _is_code(cell: Any) -> bool:
    return cell["cell_type"] == "code" and INJECTED not in cell["metadata"].get("tags", [])


def _place(source: Path, started: list[Any]) -> str:
    """``code cell 3``: the place of the last started cell among the code cells of the source notebook."""
    if not _is_code(started[-1]):
        return "the injected parameters"
    cells = [c for c in read_notebook(source)["cells"] if _is_code(c)]
    numbers = [number for number, cell in enumerate(cells, 1) if cell["source"].strip()]
    return f"code cell {numbers[sum(map(_is_code, started)) - 1]}"


def unfinished_cell(source: Path, executed: Path) -> str | None:
    """The first code cell of the executed notebook that has not run, or not without an error."""
    cells = read_notebook(executed)["cells"]
    expected = [c["source"] for c in read_notebook(source)["cells"] if _is_code(c)]
    if [c["source"] for c in cells if _is_code(c)] != expected:
        return "the executed notebook has other cells than its source"
    number = 0
    for cell in cells:
        if cell["cell_type"] != "code" or not cell["source"].strip():
            number += _is_code(cell)
            continue
        number += _is_code(cell)
        place = f"code cell {number}" if _is_code(cell) else "the injected parameters"
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                return f"{place}: {output['ename']}: {first_line(output['evalue'])}"
        if not isinstance(cell["execution_count"], int):
            return f"{place}: it was not executed"
    return None


def run_script(entry: str, folder: Path, environment: dict[str, str], limit_s: int | None) -> str | None:
    """Run ``module:function`` in a process of its own; what it prints goes to ``log.txt``."""
    log_path = folder / "log.txt"
    command = [sys.executable, "-m", "cytolib.run.script", entry]
    with open(log_path, "wb") as log:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return f"it ran longer than {limit_s} s and was stopped"
    if code < 0:
        return f"its process was killed by signal {-code} (out of memory?)"
    if code:
        lines = log_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return first_line(lines[-1]) if lines else f"it ended with exit code {code}"
    return None
