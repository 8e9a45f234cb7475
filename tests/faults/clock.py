"""A clock that is set while a run goes on, and files whose times are far from now."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.faults.trial import Trial, Undisturbed, check

#: Python reads it at its start, in every process whose PYTHONPATH names its folder.
JUMPING = """
import time
_true = time.time
_days = (0, 40, -400, 3, -2, 4000)
time.time = lambda: _true() + 86_400 * _days[int(time.monotonic() / 1.7) % len(_days)]
time.time_ns = lambda: int(time.time() * 1e9)
"""


def play_jumps(base: Undisturbed, folder: Path) -> tuple[str, str]:
    """The clock of every process jumps by days, there and back, every 1.7 seconds."""
    stage = "02_train_diffusion"
    trial = Trial(base, folder, without=(stage,))
    (folder / "jumps").mkdir()
    (folder / "jumps" / "sitecustomize.py").write_text(JUMPING)
    trial.environment["PYTHONPATH"] = str(folder / "jumps")
    trial.run("--until", stage).sentence(0, f"{stage} ... ")
    trial.check_equal()
    again = trial.run("--until", stage)
    again.sentence(0, "nothing to do: ")
    return again.text.splitlines()[0], "equal; nothing to do"


def play_file_times(base: Undisturbed, folder: Path, days: float) -> tuple[str, str]:
    """Every file of the run has a time far from now, except one that is missing."""
    trial = Trial(base, folder)
    first = trial.run()
    first.sentence(0, "nothing to do: ")
    next((trial.run_folder / "10_figures" / "figures").glob("*.png")).unlink()
    _set_times(trial.run_folder, time.time() + days * 86_400)
    said = trial.run()
    said.sentence(0, "stale: 10_figures: output ")
    trial.check_equal()
    _set_times(trial.run_folder, time.time() + days * 86_400)
    trial.run().sentence(0, "nothing to do: ")
    return said.text.splitlines()[0], "equal; nothing to do"


def _set_times(folder: Path, seconds: float) -> None:
    paths = sorted(folder.rglob("*"), reverse=True)
    check(len(paths) > 100, f"only {len(paths)} files in {folder}")
    for path in (*paths, folder):
        os.utime(path, (seconds, seconds), follow_symlinks=False)
