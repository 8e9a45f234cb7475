"""Why a stage failed, for a reader in a terminal: what happened, where, the lines around it, and what to do."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

from cytolib.run.log import LOG, last_lines, plain

AROUND = 2  # lines of source shown before and after the one that failed
WIDTH = 110  # characters of a line that are shown
NATIVE_LINES = 4  # last lines of the log that are shown of a process that died


@dataclass(frozen=True)
class Failure:
    """What ended a stage.

    Attributes:
        error: what happened, as part of a sentence.
        place: where, for example ``code cell 3``; empty where there is no place.
        code: first source line of the failed cell that does something.
        detail: more lines for the terminal, at most about ten.
        exit_code: of a process that died, minus the signal's number where one killed it; else None.
    """

    error: str
    place: str = ""
    code: str = ""
    detail: tuple[str, ...] = ()
    exit_code: int | None = None

    @property
    def message(self) -> str:
        """Place and error, as part of a sentence."""
        return f"{self.place}: {self.error}" if self.place else self.error

    def lines(self, peak_bytes: int) -> tuple[str, ...]:
        """The detail; of a killed process with what it had used of the memory, and whether that is why it died."""
        return self.detail if self.exit_code != -signal.SIGKILL else (*self.detail, memory_line(peak_bytes))


def first_line(text: str, length: int = 300) -> str:
    """The first line of a message, cut to a sentence's length."""
    lines = [line.strip() for line in plain(text).strip().splitlines() if line.strip()]
    line = lines[0].rstrip(".;,:") if lines else "no message"
    return line if len(line) <= length else line[: length - 3] + "..."


def code_line(source: str) -> str:
    """The first line of a cell that does something, for showing which cell it is."""
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    return cut(next((line for line in lines if not line.startswith(("#", "%", "import ", "from "))), [*lines, ""][0]))


def source_lines(source: str, line: int) -> list[str]:
    """The line that failed (counted from 1) with its neighbours, numbered and marked."""
    lines = source.splitlines()
    if not 1 <= line <= len(lines):
        return []
    shown = range(max(1, line - AROUND), min(len(lines), line + AROUND) + 1)
    return [cut(f"{'>' if k == line else ' '} {k:>4}  {lines[k - 1]}".rstrip()) for k in shown]


def more_message(evalue: str) -> list[str]:
    """What a message says after its first line: the second and third."""
    return [cut(line.strip()) for line in plain(evalue).strip().splitlines() if line.strip()][1:3]


def cut(line: str) -> str:
    """A line that fits a terminal."""
    return line if len(line) <= WIDTH else line[: WIDTH - 3] + "..."


def death(code: int) -> str:
    """How a process ended, from its exit code, as part of a sentence."""
    if code >= 0:
        return f"it ended itself with exit code {code} (exit() and quit() do not finish a stage: take them out)"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown to Python"
    crashes = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
    return f"{'it crashed' if -code in crashes else 'it was killed'} by signal {-code} ({name})"


def native_lines(log: Path) -> tuple[str, ...]:
    """What a dead process said last: Python's own report of a crash where there is one, else the end of its log."""
    lines = last_lines(log, 200)
    fatal = [k for k, line in enumerate(lines) if line.startswith("Fatal Python error")]
    if fatal:
        report = lines[fatal[-1] :]
        current = [k for k, line in enumerate(report) if line.startswith(("Current thread", "Stack (most recent"))]
        calls = [line for line in report[current[0] :] if line.startswith("File ")] if current else []
        begin = next((k for k, line in enumerate(calls) if line.endswith("in <module>")), len(calls))
        lines = [report[0], *calls[: min(begin + 1, NATIVE_LINES - 1)]]  # below it are the calls of IPython or runpy
    shown = [cut(line) for line in lines[-NATIVE_LINES:]]
    return (f"{LOG} ends:", *(f"  {line}" for line in shown)) if shown else ()


def memory_line(peak_bytes: int) -> str:
    """What a killed process had used of the memory, and whether that is why it was killed."""
    from cytolib.run.machine import memory, out_of_memory_kills
    from cytolib.run.stage import size_text

    total = memory().total
    text = f"memory: {size_text(peak_bytes)} at its highest, of {size_text(total)}"
    if peak_bytes > 0.6 * total or (out_of_memory_kills() and peak_bytes > 0.3 * total):
        return f"{text}: out of memory? ask for less, or run one stage at a time (--cores 1)"
    return text
