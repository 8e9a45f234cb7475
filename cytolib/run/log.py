"""The log of a stage as a person reads it, without redrawn bars and colours; and how far the stage is meanwhile."""

from __future__ import annotations

import re
from pathlib import Path

from cytolib.run.artefacts import atomic_path

LOG = "log.txt"
# colours and cursor movements (ECMA-48 control sequences), and window titles
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\^_=>]")
_CONTROL_BYTES = re.compile(_CONTROL.pattern.encode())


def plain(text: str) -> str:
    """Text without control sequences."""
    return _CONTROL.sub("", text)


def tidy_log(path: Path) -> None:
    """Leave of every line what a terminal would show in the end: the text after its last carriage return.

    Nothing is written where there is nothing to tidy.
    """
    with open(path, "rb") as file:
        if not any(b"\r" in line or b"\x1b" in line for line in file):
            return
    with open(path, "rb") as file, atomic_path(path) as temporary, open(temporary, "wb") as tidy:
        for line in file:
            tidy.write(_shown(line))


def _shown(line: bytes) -> bytes:
    end = b"\n" if line.endswith(b"\n") else b""
    parts = [part for part in _CONTROL_BYTES.sub(b"", line).rstrip(b"\r\n").split(b"\r") if part.strip()]
    return (parts[-1].rstrip() if parts else b"") + end


def last_lines(path: Path, n: int = 1, *, strip: bool = True, within: int = 20_000) -> list[str]:
    """The last ``n`` lines of a log that hold text, oldest first, also while it is being written; [] without a log."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - within))
            text = file.read().replace(b"\r", b"\n").decode("utf-8", errors="replace")
    except OSError:
        return []
    lines = [line.strip() if strip else line.rstrip() for line in plain(text).splitlines() if line.strip()]
    return lines[-n:]


def progress_file(folder: Path) -> Path:
    """Where the process of the stage in ``folder`` writes the line of its progress bar."""
    return folder.parent / ".pipeline" / "progress" / folder.name


def sign_of_life(folder: Path) -> str:
    """How far the stage in ``folder`` is: the line of its progress bar, else the last line of its log, else nothing."""
    return " ".join([*last_lines(progress_file(folder)), *last_lines(folder / LOG)][:1])
