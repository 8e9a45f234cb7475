"""The stages of a plan one after the other, each in a process of its own: what Snakemake does, where there is none.

Started by ``cytolib run --plain`` as ``python -m cytolib.run.serial PLAN CORES``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cytolib.run.manifest import NAME
from cytolib.run.plan import end_with, read_plan


def main(plan_file: Path, cores: int) -> int:
    """Execute the stale stages in order; a stage that needs one that failed is left out. 0 if all are done."""
    plan = read_plan(plan_file)
    end_with(plan.runner)
    failed: set[str] = set()
    for name in plan.stale:
        spec = plan.chain[name]
        if failed & set(spec.needs):
            failed.add(name)
            continue
        threads = str(min(cores, spec.threads))
        command = [sys.executable, "-m", "cytolib.cli", "stage", name, "--plan", str(plan_file), "--threads", threads]
        code = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
        if code or not (plan.run_folder / name / NAME).is_file():
            failed.add(name)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
