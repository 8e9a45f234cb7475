"""Progress bars of a stage under the pipeline: one final line in its log, and on the way a line for the terminal.

In JupyterLab a bar is a widget. In a kernel that the pipeline runs, the same widget would leave nine kilobytes of state
and a bar at 0 % in the executed notebook; and a bar that redraws itself would flood the log of a script.
"""

from __future__ import annotations

import os
import sys
import types
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm.asyncio import tqdm_asyncio

VARIABLE = "CYTOLIB_PROGRESS"  # the file that holds the line of the bar which moved last


class QuietBar(tqdm_asyncio):
    """tqdm's own bar, with every parameter and method, that prints its last state only, to standard output."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        settings = {"mininterval": 0.5, "file": sys.stdout, "ncols": 100, **settings}
        super().__init__(*arguments, **{**settings, "dynamic_ncols": False, "gui": True})  # gui: tqdm draws nothing

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Say how far it is: in the file for the terminal, not in the log."""
        _tell(str(self) if msg is None else msg)

    def close(self) -> None:
        """End the bar and print its last line, unless ``leave=False`` asks for none."""
        if self.disable:
            return
        self._ema_dt = lambda: None  # the overall rate, as tqdm's own last line has it
        line, leave = str(self).strip(), self.pos == 0 if self.leave is None else self.leave
        super().close()
        _tell("")
        if leave:
            print(line, file=self.fp)


def _tell(line: str) -> None:
    path = os.environ.get(VARIABLE)
    if path:
        with suppress(OSError):  # a full disk must not end the work that the line is about
            Path(path).write_text(line.strip(), encoding="utf-8")


def quiet_bars() -> None:
    """Make ``tqdm.auto`` give quiet bars in this process; to be called before anything imports it."""
    module = types.ModuleType("tqdm.autonotebook", "quiet bars of a stage")
    module.tqdm = QuietBar  # type: ignore[attr-defined]
    module.trange = lambda *arguments, **settings: QuietBar(range(*arguments), **settings)  # type: ignore[attr-defined]
    sys.modules["tqdm.autonotebook"] = module
