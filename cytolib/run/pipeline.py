"""The headless pipeline: check everything, hand what is stale to Snakemake, and check everything again.

Snakemake is the engine for order, cores and clusters. It is not asked whether something is done: it takes times for
content, deletes outputs of failed jobs and keeps a lock after kill -9. So stages are verified by content before and
after, its triggers are off but for the stages named to it, and the lock is one that the system frees.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cytolib.run.config import read_config
from cytolib.run.kernels import kill_descendants
from cytolib.run.manifest import NAME, previous_manifest, stale_stages
from cytolib.run.paths import root, runs_root
from cytolib.run.stages import Chain

if TYPE_CHECKING:
    from cytolib.run.plan import Plan

Say = Callable[[str], None]


def run_pipeline(
    config_path: Path,
    *,
    cores: int = 1,
    until: str | None = None,
    force: Sequence[str] = (),
    cell_timeout_s: int | None = None,
    plain: bool = False,
    trusted: Sequence[str] = (),
    chain: Chain | None = None,
    say: Say | None = None,
) -> int:
    """Bring every wanted stage of a run to a verified end; returns 0 only if all of them verify.

    Args:
        config_path: YAML file with the run's name and parameters.
        cores: cores that all stages together may use.
        until: last stage that is wanted, with all it needs; None for every stage.
        force: stages to execute even if nothing changed.
        cell_timeout_s: longest time of one notebook cell, in seconds.
        plain: do without Snakemake, papermill and kernels: one stage after the other.
        trusted: stages that count as done; the caller has checked what of them is there, which may be a part. A run
            with such stages gets no report.
        chain: stages and notebooks; None for the project's own.
        say: where text goes; None prints it.

    Raises:
        ValueError, TypeError, FileNotFoundError: for a wrong configuration, before anything runs.
        BlockingIOError: where another process is running this run folder.
    """
    import psutil

    from cytolib.run.execute import exclusive
    from cytolib.run.plan import Plan

    chain, say = chain or Chain(), say or (lambda text: print(text, end="", flush=True))
    for name in (*force, *([until] if until else [])):
        _ = chain[name]
    if cores < 1:
        raise ValueError(f"--cores is {cores}; expected at least 1")
    config = read_config(config_path, chain)
    run_folder = (runs_root() / config.run).resolve()
    refusal = f"{run_folder}: another `cytolib run` is at work on this run; wait for it or give the run another name"
    with exclusive(run_folder / ".pipeline" / "locks" / "run", refusal):
        _restore(run_folder, chain)
        reasons = stale_stages(chain, run_folder, config.parameters, until, force, trusted)
        stale = tuple(name for name, why in reasons.items() if why)
        if stale:
            started = time.monotonic()
            _say_stale(reasons, run_folder, say)
            runner = (psutil.Process().pid, psutil.Process().create_time())
            plan = Plan(run_folder, chain, config.parameters, stale, tuple(force), runner, cell_timeout_s, plain)
            code = _run_engine(plan, cores, tuple(reasons), say)
            reasons = stale_stages(chain, run_folder, config.parameters, until, trusted=trusted)
            if not _verified(code, reasons, run_folder, say):
                return 1
            say(f"done: {len(reasons)} stages verified, {time.monotonic() - started:.0f} s\n")
        else:
            say(f"nothing to do: {len(reasons)} stages of run {config.run} verified\n")
        if not trusted:
            _say_results(run_folder, tuple(reasons), config.parameters, bool(stale), say)
    return 0


def _say_stale(reasons: dict[str, list[str]], run_folder: Path, say: Say) -> None:
    new = [name for name in reasons if reasons[name] and not (run_folder / name / NAME).exists()]
    if new:
        say(f"to run: {', '.join(new)}\n")
    for name, why in reasons.items():
        if why and name not in new:
            more = f" (and {len(why) - 1} more)" if len(why) > 1 else ""
            say(f"stale: {name}: {why[0]}{more}\n")


def _run_engine(plan: Plan, cores: int, wanted: tuple[str, ...], say: Say) -> int:
    """Execute the stages of the plan, by Snakemake or one after the other; returns the engine's exit code."""
    _prepare(plan)
    hidden = plan.file.parent
    if plan.plain:
        command = [sys.executable, "-m", "cytolib.run.serial", str(plan.file), str(cores)]
    else:
        command = [
            *(sys.executable, "-m", "snakemake", "--snakefile", str(root() / "workflow" / "Snakefile")),
            *("--directory", str(hidden), "--cores", str(cores), "--nolock", "--rerun-incomplete", "--nocolor"),
            *("--rerun-triggers", "input", "--scheduler", "greedy", "--config", f"plan={plan.file.name}"),
            *("--forcerun", *(f"../{name}/{NAME}" for name in plan.stale)),
            *("--", *(f"../{name}/{NAME}" for name in plan.stale)),
        ]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with open(_engine_log(plan.run_folder), "wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )
        try:
            with _terminable():
                return _follow(process, plan.events, wanted, say)
        finally:
            kill_descendants(process.pid)
            process.kill()
            process.wait()
            plan.file.unlink(missing_ok=True)
            _restore(plan.run_folder, plan.chain)


def _engine_log(run_folder: Path) -> Path:
    """What Snakemake, or the process that stands in for it, says of itself."""
    return run_folder / ".pipeline" / "snakemake.log"


def _prepare(plan: Plan) -> None:
    """Write the plan; put the manifests of stale stages aside, where Snakemake does not delete them."""
    hidden = plan.file.parent
    for old in (*hidden.glob("plan-*.json"), *hidden.glob("events-*.jsonl")):
        old.unlink(missing_ok=True)
    for name in plan.stale:
        manifest = plan.run_folder / name / NAME
        if manifest.is_file() and name not in plan.forced:
            aside = previous_manifest(plan.run_folder, name)
            aside.parent.mkdir(parents=True, exist_ok=True)
            os.replace(manifest, aside)
        else:
            manifest.unlink(missing_ok=True)
    plan.write()
    plan.events.touch()


def _restore(run_folder: Path, chain: Chain) -> None:
    """Put manifests back that were put aside for stages that a run, now ended, never reached."""
    for name in chain.names():
        aside, manifest = previous_manifest(run_folder, name), run_folder / name / NAME
        if aside.is_file() and not manifest.exists():
            os.replace(aside, manifest)
        aside.unlink(missing_ok=True)


class _terminable:  # noqa: N801 (used as a with-block)
    """Turn SIGTERM into KeyboardInterrupt while the block runs, so that kernels are ended with the runner."""

    def __enter__(self) -> None:
        self._old: Any = None
        if threading.current_thread() is threading.main_thread():
            self._old = signal.signal(signal.SIGTERM, _interrupt)

    def __exit__(self, *_: object) -> None:
        if self._old is not None:
            signal.signal(signal.SIGTERM, self._old)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _follow(process: subprocess.Popen[bytes], events: Path, wanted: tuple[str, ...], say: Say) -> int:
    """Print a line for each stage while Snakemake runs; returns its exit code."""
    from cytolib.run.stage import size_text

    open_line = ""
    with open(events, encoding="utf-8") as file:
        while True:
            ended = process.poll() is not None
            for line in file.readlines():
                event = json.loads(line)
                name = event["stage"]
                head = f"[{wanted.index(name) + 1}/{len(wanted)}] {name} ..."
                if open_line and (open_line != name or event["event"] == "started"):
                    say("\n")
                if open_line != name:
                    say(head)
                open_line = ""
                if event["event"] == "started":
                    open_line = name
                elif event["event"] == "done":
                    say(f" {event['seconds']:.0f} s, {size_text(event['memory'])}\n")
                elif event["event"] == "kept":
                    say(" unchanged, its inputs came out the same\n")
                else:
                    say(f" failed\n{event['message']}\n")
            if ended:
                if open_line:
                    say("\n")
                return process.returncode
            time.sleep(0.2)


def _verified(code: int, reasons: dict[str, list[str]], run_folder: Path, say: Say) -> bool:
    stale = [name for name, why in reasons.items() if why]
    if not stale and code == 0:
        return True
    log = _engine_log(run_folder)
    changed = [f"{name}: {reasons[name][0]}" for name in stale if (run_folder / name / NAME).is_file()]
    if changed and code == 0:
        say(f"changed while it ran: {changed[0]}\n")
    if stale:
        say(f"not done: {', '.join(stale)}; what is verified is kept, the same command goes on from there ({log})\n")
    else:
        say(f"the engine ended with code {code} although every stage verifies; see {log}\n")
    return False


def _say_results(run_folder: Path, stages: tuple[str, ...], parameters: dict[str, Any], fresh: bool, say: Say) -> None:
    from cytolib.run.results import key_results_text

    report = run_folder / "index.html"
    text = key_results_text(run_folder)
    say(text + "\n" if text else "")
    if importlib.util.find_spec("nbconvert") is None:
        say("report: none here, nbconvert is missing; `cytolib run` where it is installed writes it\n")
        return
    if fresh or not report.is_file():
        from cytolib.run.report import write_report

        write_report(run_folder, stages, parameters)
    say(f"report: {report}\n")
