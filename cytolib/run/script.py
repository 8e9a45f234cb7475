"""Entry of script stages: ``python -m cytolib.run.script module:function``, started by the runner only."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

from cytolib.run.bars import quiet_bars
from cytolib.run.kernel_start import report_crashes
from cytolib.run.processes import PARENT_VARIABLE, end_when, kill_descendants
from cytolib.run.stage import FOLDER_VARIABLE, REQUEST, Stage


def main(entry: str) -> None:
    """Call the function with its stage and parameters, and publish unless it has done so itself."""
    parent = int(os.environ[PARENT_VARIABLE])
    end_when(lambda: os.getppid() != parent, kill_descendants)  # as a kernel does when papermill is killed
    quiet_bars()  # before the function's module imports tqdm
    report_crashes()
    request = json.loads((Path(os.environ[FOLDER_VARIABLE]) / REQUEST).read_text(encoding="utf-8"))
    module, _, function = entry.partition(":")
    stage = Stage(request["stage"], **request["parameters"])
    getattr(importlib.import_module(module), function)(stage, **request["parameters"])
    if not stage.published:
        stage.publish()


if __name__ == "__main__":
    main(sys.argv[1])
