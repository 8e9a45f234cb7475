"""Tracebacks of IPython and of Python, read for the line that failed and for the innermost call of our own code."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cytolib
from cytolib.run.failure import Failure, code_line, first_line, more_message, source_lines
from cytolib.run.log import last_lines, plain


@dataclass(frozen=True)
class Frame:
    """One call in a traceback: ``file`` is None for a cell of the notebook, whose execution count is ``count``."""

    file: str | None
    line: int
    function: str = ""
    count: int | None = None


_CELL = re.compile(r"^\s*Cell In\[(\d+)\], line (\d+)")
_FILE = re.compile(r"^File (.+?):(\d+)(?:, in (.+?)(?:\(.*)?)?$")
_PLAIN_CELL = re.compile(r'^  File "<cell (\d+)>", line (\d+)')  # of `cytolib run --plain`
_SCRIPT = re.compile(r'^  File "(.+)", line (\d+)(?:, in (.+))?$')


def ipython_frames(lines: Sequence[str]) -> list[Frame]:
    """The calls in a traceback of IPython or of Python, outermost first; those of the last of a chain come last."""
    frames: list[Frame] = []
    for line in plain("\n".join(lines)).splitlines():
        if found := _CELL.match(line):
            frames.append(Frame(None, int(found[2]), count=int(found[1])))
        elif found := _PLAIN_CELL.match(line):
            frames.append(Frame(None, int(found[2]), count=int(found[1])))
        elif found := _FILE.match(line) or _SCRIPT.match(line):
            frames.append(Frame(found[1], int(found[2]), found[3] or ""))
    return frames


def cell_failure(source: Path, cell: Any, place: str, output: Any) -> Failure:
    """The failure of a notebook's cell from its error output.

    Args:
        source: the notebook as it lies in the project.
        cell: the executed cell.
        place: ``code cell 3``.
        output: its output of type "error", with ``ename``, ``evalue`` and ``traceback``.
    """
    frames = ipython_frames(output["traceback"])
    own = [frame.line for frame in frames if frame.count == cell["execution_count"]]
    where = f"{source}, {place}" + (f", line {own[-1]}" if own else f": {code_line(cell['source'])}")
    detail = [f"in {where}", *(source_lines(cell["source"], own[-1]) if own else [])]
    detail += more_message(output["evalue"])
    if frames and (inner := _innermost(frames)) and inner.file:
        detail.append(f"raised in {_raised_in(inner)}")
    error = f"{output['ename']}: {first_line(output['evalue'])}"
    if output["ename"] == "SystemExit":
        error += " (sys.exit() ends a notebook before it has finished: take it out)"
    return Failure(error, place, code_line(cell["source"]), tuple(detail))


def _innermost(frames: Sequence[Frame]) -> Frame | None:
    """The last frame of this project's: in the package, or not among installed packages."""
    return next((frame for frame in reversed(frames) if frame.file is None or _ours(Path(frame.file))), None)


def _ours(path: Path) -> bool:
    if path.expanduser().is_relative_to(Path(cytolib.__file__).parent):
        return True
    installed = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]
    inside = any(path.expanduser().is_relative_to(folder) for folder in installed)
    return not inside and "site-packages" not in path.parts and not path.name.startswith("<")


def _raised_in(frame: Frame) -> str:
    file = Path(frame.file or "").expanduser()
    package = Path(cytolib.__file__).parent
    shown = file.relative_to(package.parent) if file.is_relative_to(package) else file
    return f"{shown}:{frame.line}" + (f", in {frame.function}" if frame.function else "")


def script_failure(log: Path, code: int) -> Failure:
    """The failure of a process that ended with ``code`` after a traceback in its log."""
    lines = last_lines(log, 200, strip=False)
    starts = [k for k, line in enumerate(lines) if line.startswith("Traceback (most recent call last):")]
    if not starts:
        return Failure(first_line(lines[-1]) if lines else f"it ended with exit code {code}")
    block = lines[starts[-1] + 1 :]
    frames = [Frame(m[1], int(m[2]), m[3] or "") for line in block if (m := _SCRIPT.match(line))]
    raised = [k for k, line in enumerate(block) if not line.startswith(" ")]
    said = block[raised[0] :] if raised else lines[-1:]
    detail: list[str] = []
    inner = _innermost(frames)
    if inner and inner.file:
        detail.append(f"in {_raised_in(inner)}")
        try:
            detail += source_lines(Path(inner.file).read_text(encoding="utf-8", errors="replace"), inner.line)
        except OSError:
            pass  # a frame of generated code has no file to show
    return Failure(first_line(said[0]), detail=(*detail, *more_message("\n".join(said))))
