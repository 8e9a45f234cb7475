"""Running a notebook by papermill, or a function in a process of its own, and saying truthfully how it went.

Both return None where everything ran, else a ``Failure``.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cytolib.run.bars import VARIABLE as PROGRESS_VARIABLE
from cytolib.run.failure import Failure, code_line, death, first_line, native_lines
from cytolib.run.kernels import kernel_manager_class, this_kernel_spec
from cytolib.run.log import LOG, progress_file, tidy_log
from cytolib.run.paths import root
from cytolib.run.sources import INJECTED, read_notebook
from cytolib.run.tracebacks import cell_failure, script_failure

if TYPE_CHECKING:
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

OUTPUT_LIMIT_S = 120  # for outputs after a cell has ended; nbclient's 4 s are too few on a busy machine


def run_notebook(
    source: Path, folder: Path, parameters: dict[str, Any], environment: dict[str, str], limit_s: int | None
) -> Failure | None:
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
    log_path = folder / LOG
    environment = with_progress(environment, folder)
    current: list[Any] = []
    kernels: list[subprocess.Popen[bytes]] = []
    ended: Failure | None = None
    timed_out = False
    log_path.unlink(missing_ok=True)
    with open(log_path, "a", encoding="utf-8", errors="replace") as log:
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
                iopub_timeout=OUTPUT_LIMIT_S,
                # outputs are saved every 30 s and at the end; after every cell would cost seconds with many figures
                autosave_cell_every=30,
                kernel_manager_class=_watched(kernel_manager_class(environment, log), kernels),
                coalesce_streams=True,  # what was overwritten in place is not kept
                on_cell_execute=lambda cell, cell_index: current.append(cell),
            )
        except DeadKernelError:
            ended = _dead_kernel(kernels[-1] if kernels else None)
        except CellTimeoutError as raised:
            timed_out = "IOPub" not in str(raised)
            ended = Failure(f"ran longer than {limit_s} s and was stopped (set by --cell-timeout)")
            if not timed_out:  # nbclient's own sentence for outputs that do not come
                ended = Failure(f"its outputs did not all arrive within {OUTPUT_LIMIT_S} s: does it print without end?")
        except papermill.PapermillExecutionError as raised:
            ended = Failure(f"{raised.ename}: {first_line(raised.evalue)}")
        except Exception as raised:  # whatever papermill, nbclient or zmq say, the stage is not finished
            ended = Failure(f"{type(raised).__name__}: {first_line(str(raised))}")
    tidy_log(log_path)
    if ended is None:
        return unfinished_cell(source, output)
    place = _place(source, current) if current else "before the first cell"
    if raised_in := _cell_with_error(output):
        failure = cell_failure(shown_path(source), raised_in, place, _error_of(raised_in))
        return replace(failure, error=ended.error) if timed_out else failure  # it was interrupted, at that line
    code = code_line(current[-1]["source"]) if current else ""
    native = native_lines(log_path) if ended.exit_code is not None else ()
    where = [f"in {shown_path(source)}, {place}: {code}"] if code else []
    return replace(ended, place=place, code=code, detail=(*where, *native))


def with_progress(environment: dict[str, str], folder: Path) -> dict[str, str]:
    """The environment with the name of the stage's progress file, whose old content is removed."""
    path = progress_file(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    return {**environment, PROGRESS_VARIABLE: str(path)}


def _watched(manager: type[AsyncKernelManager], started: list[subprocess.Popen[bytes]]) -> type[AsyncKernelManager]:
    """The same kernel manager; its kernels have quiet bars, and their processes are added to ``started``."""

    class Watched(manager):  # type: ignore[valid-type, misc]
        @property
        def kernel_spec(self) -> KernelSpec:
            spec = this_kernel_spec()
            spec.argv += ["--InteractiveShellApp.extra_extensions=cytolib.run.kernel_start"]
            return spec

        async def start_kernel(self, **settings: Any) -> None:
            await super().start_kernel(**settings)
            started.append(self.provisioner.process)

    return Watched


def _dead_kernel(process: subprocess.Popen[bytes] | None) -> Failure:
    code = process.poll() if process else None
    if code is None:
        return Failure("the kernel died (killed, out of memory or crashed)", exit_code=-9)
    return Failure(f"the kernel died: {death(code)}", exit_code=code)


def shown_path(source: Path) -> Path:
    """The notebook's path as it is written in the project folder, where it lies there."""
    return source.relative_to(root()) if source.is_relative_to(root()) else source


def _cell_with_error(executed: Path) -> dict[str, Any] | None:
    try:
        cells = read_notebook(executed)["cells"]
    except (OSError, ValueError):  # a full disk: it was never written
        return None
    return next((cell for cell in cells if cell["cell_type"] == "code" and _error_of(cell)), None)


def _error_of(cell: dict[str, Any]) -> dict[str, Any] | None:
    return next((output for output in cell.get("outputs", []) if output["output_type"] == "error"), None)


def _is_code(cell: Any) -> bool:
    return cell["cell_type"] == "code" and INJECTED not in cell["metadata"].get("tags", [])


def _place(source: Path, started: list[Any]) -> str:
    """``code cell 3``: the place of the last started cell among the code cells of the source notebook."""
    if not _is_code(started[-1]):
        return "the injected parameters"
    cells = [c for c in read_notebook(source)["cells"] if _is_code(c)]
    numbers = [number for number, cell in enumerate(cells, 1) if cell["source"].strip()]
    return f"code cell {numbers[sum(map(_is_code, started)) - 1]}"


def unfinished_cell(source: Path, executed: Path) -> Failure | None:
    """The first code cell of the executed notebook that has not run, or not without an error."""
    cells = read_notebook(executed)["cells"]
    expected = [c["source"] for c in read_notebook(source)["cells"] if _is_code(c)]
    if [c["source"] for c in cells if _is_code(c)] != expected:
        return Failure("the executed notebook has other cells than its source")
    number = 0
    for cell in cells:
        if cell["cell_type"] != "code" or not cell["source"].strip():
            number += _is_code(cell)
            continue
        number += _is_code(cell)
        place = f"code cell {number}" if _is_code(cell) else "the injected parameters"
        if error := _error_of(cell):
            return cell_failure(shown_path(source), cell, place, error)
        if not isinstance(cell["execution_count"], int):
            return Failure("it was not executed", place, code_line(cell["source"]))
    return None


def run_script(entry: str, folder: Path, environment: dict[str, str], limit_s: int | None) -> Failure | None:
    """Run ``module:function`` in a process of its own; what it prints goes to ``log.txt``."""
    log_path = folder / LOG
    environment = with_progress(environment, folder)
    command = [sys.executable, "-m", "cytolib.run.script", entry]
    log_path.unlink(missing_ok=True)
    with open(log_path, "ab") as log:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            tidy_log(log_path)
            return Failure(f"it ran longer than {limit_s} s and was stopped (set by --cell-timeout)")
    tidy_log(log_path)
    if code < 0:
        return Failure(f"its process ended: {death(code)}", exit_code=code, detail=native_lines(log_path))
    return script_failure(log_path, code) if code else None
