"""Ways in which a kernel goes without an exception, on a chain of one small notebook: never done, rightly said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cytolib.run import root
from cytolib.run.execute import StageError, execute_stage
from cytolib.run.manifest import verify
from cytolib.run.stages import Chain, StageSpec
from tests.faults.trial import Undisturbed, check
from tests.run_tools import stage_notebook

#: Code of a cell, and what must be said of it.
ENDS = {
    "os._exit(0)": ("import os\nos._exit(0)", "the kernel died"),
    "sys.exit(0)": ("import sys\nsys.exit(0)", "SystemExit: 0"),
    "segmentation fault": ("import ctypes\nctypes.string_at(0)", "the kernel died"),
    "abort": ("import os\nos.abort()", "the kernel died"),
    "killed for its memory": ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "the kernel died"),
    "address space used up": (
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))\n_ = bytearray(2**32)",
        "MemoryError",
    ),
    "file size limit": (
        "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n_ = stage.path('x.bin').write_bytes(bytes(10**6))",
        "",
    ),
}


def execute(folder: Path) -> str:
    """Execute the stage in a process of its own, as a run does; the message where it failed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.kernel_ends", str(folder)], cwd=root(), capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    check(done.returncode == 0, done.stderr[-600:])
    return done.stdout.strip()


def play_kernel_end(_: Undisturbed, folder: Path, name: str) -> tuple[str, str]:
    """The stage is refused with a sentence that says what happened; mended, it finishes."""
    code, said = ENDS[name]
    stage_notebook(folder / "notebooks", "ends", "_ = stage.path('x.txt').write_text('whole')", code)
    chain = Chain((StageSpec("ends"),), folder / "notebooks")
    message = execute(folder)
    check(said in message and "code cell 4" in message and "\n" not in message, f"said was {message!r}")
    check(bool(verify(chain["ends"], folder / "run", {"seed": 1}, chain)), "the stage counts as done")
    stage_notebook(folder / "notebooks", "ends", "_ = stage.path('x.txt').write_text('whole')")
    check(not (again := execute(folder)), f"mended, it fails: {again}")
    check(not verify(chain["ends"], folder / "run", {"seed": 1}, chain), "the mended stage is not done")
    return message.split(";")[0], "mended: done"


if __name__ == "__main__":
    place = Path(sys.argv[1])
    only = Chain((StageSpec("ends"),), place / "notebooks")
    try:
        execute_stage(only["ends"], place / "run", {"seed": 1}, only)
    except StageError as error:
        print(error)
