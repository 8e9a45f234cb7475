"""What the runner does first in a process of a stage: quiet progress bars, and a report of a crash in the log.

Kernels load it as an IPython extension, so that it comes before the first cell and leaves no name in the notebook.
"""

from __future__ import annotations

import faulthandler
import os
from pathlib import Path
from typing import Any

from cytolib.run.bars import quiet_bars

FOLDER_VARIABLE = "CYTOLIB_STAGE_DIR"


def load_ipython_extension(_: Any) -> None:
    """Prepare the kernel of a stage."""
    quiet_bars()
    report_crashes()


def report_crashes() -> None:
    """Let Python say where it was when native code crashes: ipykernel puts a pipe of its own in place of stderr."""
    log = open(Path(os.environ[FOLDER_VARIABLE]) / "log.txt", "ab")  # noqa: SIM115 (open until the process ends)
    faulthandler.enable(log)
