"""The plan of one run: all that Snakemake's jobs need to know, in one file, and the events that they report back."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cytolib.run.artefacts import write_json
from cytolib.run.execute import StageError, execute_stage
from cytolib.run.manifest import NAME, previous_manifest, verify
from cytolib.run.processes import end_when, identity, kill_descendants, kill_marked
from cytolib.run.stage import FOLDER_VARIABLE
from cytolib.run.stages import Chain, chain_from_json

HIDDEN = ".pipeline"


@dataclass(frozen=True)
class Plan:
    """What one call of ``cytolib run`` does.

    Attributes:
        run_folder: folder of the run.
        chain: stages and notebooks.
        parameters: effective parameters of every stage.
        stale: stages to execute, in order.
        forced: those of them that are executed even if nothing changed.
        runner: pid and identity of the process that called; its jobs end with it.
        cell_timeout_s: longest time of a cell, or None.
        plain: notebooks are executed without papermill and kernels.
    """

    run_folder: Path
    chain: Chain
    parameters: dict[str, dict[str, Any]]
    stale: tuple[str, ...]
    forced: tuple[str, ...]
    runner: tuple[int, str | None]
    cell_timeout_s: int | None = None
    plain: bool = False

    @property
    def file(self) -> Path:
        """Where the plan stands: it carries the runner's pid, so that jobs of a dead runner find no newer plan."""
        return self.run_folder / HIDDEN / f"plan-{self.runner[0]}.json"

    @property
    def events(self) -> Path:
        """Where the jobs report what they do, one JSON object a line."""
        return self.file.with_name(f"events-{self.runner[0]}.jsonl")

    def write(self) -> None:
        """Write the plan for the jobs."""
        values = {
            "run_folder": str(self.run_folder),
            "chain": self.chain.as_json(),
            "parameters": self.parameters,
            "stale": self.stale,
            "forced": self.forced,
            "runner": self.runner,
            "cell_timeout_s": self.cell_timeout_s,
            "plain": self.plain,
        }
        write_json(values, self.file)

    def report(self, event: str, stage: str, **values: Any) -> None:
        """Add an event; a single short write, so that lines of parallel jobs never mix."""
        line = json.dumps({"event": event, "stage": stage, "time": time.time(), **values}) + "\n"
        descriptor = os.open(self.events, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


def read_plan(path: Path) -> Plan:
    """Read a plan that ``Plan.write`` wrote.

    Raises:
        FileNotFoundError: where there is none: jobs are started by ``cytolib run`` only.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such plan; stages are started by `cytolib run`")
    values = json.loads(path.read_text(encoding="utf-8"))
    return Plan(
        run_folder=Path(values["run_folder"]),
        chain=chain_from_json(values["chain"]),
        parameters=values["parameters"],
        stale=tuple(values["stale"]),
        forced=tuple(values["forced"]),
        runner=(int(values["runner"][0]), values["runner"][1]),
        cell_timeout_s=values["cell_timeout_s"],
        plain=values["plain"],
    )


def run_planned_stage(path: Path, name: str, threads: int | None = None) -> None:
    """Execute one stage of a plan, unless what it was stale for came out the same after all.

    Raises:
        StageError: where it did not finish; the event says why.
    """
    plan = read_plan(path)
    spec, parameters = plan.chain[name], plan.parameters[name]
    end_with(plan.runner, plan.run_folder / name)
    manifest, previous = plan.run_folder / name / NAME, previous_manifest(plan.run_folder, name)
    if name not in plan.forced and previous.is_file():
        os.replace(previous, manifest)
        if not verify(spec, plan.run_folder, parameters, plan.chain):
            os.utime(manifest)
            _let_inputs_be_older(plan, name)
            plan.report("kept", name)
            return
    plan.report("started", name)
    try:
        done = execute_stage(
            spec, plan.run_folder, parameters, plan.chain,
            threads=threads, cell_timeout_s=plan.cell_timeout_s, plain=plan.plain,
        )  # fmt: skip
    except StageError as error:
        plan.report("failed", name, message=str(error), detail=error.detail)
        raise
    _let_inputs_be_older(plan, name)
    plan.report("done", name, seconds=done["wall_seconds"], memory=done["peak_memory_bytes"])


def _let_inputs_be_older(plan: Plan, name: str) -> None:
    """Where the clock was set back: Snakemake deletes a manifest that is older than those of the stages before it."""
    newest = (plan.run_folder / name / NAME).stat().st_mtime_ns
    for need in plan.chain[name].needs:
        manifest = plan.run_folder / need / NAME
        if manifest.stat().st_mtime_ns > newest:
            os.utime(manifest, ns=(newest, newest))


def end_with(runner: tuple[int, str | None], folder: Path | None = None) -> None:
    """End this process and all of its stage when the runner is gone, even by kill -9, or the engine, its parent."""
    parent = os.getppid()

    def gone() -> bool:
        return os.getppid() != parent or identity(runner[0]) != runner[1]

    def end_stage() -> None:
        kill_descendants()
        if folder is not None:
            kill_marked(FOLDER_VARIABLE, str(folder))

    end_when(gone, end_stage)
