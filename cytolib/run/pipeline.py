"""The headless pipeline: check everything, hand what is stale to Snakemake, and check everything again.

Snakemake is the engine for order, cores and clusters. It is not asked whether something is done: it takes times for
content, deletes outputs of failed jobs and keeps a lock after kill -9. So stages are verified by content before and
after, its triggers are off but for the stages named to it, and the lock is one that the system frees.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cytolib.run.artefacts import FULL_BYTES, remove
from cytolib.run.config import read_config
from cytolib.run.follow import Follower, Say, follow
from cytolib.run.manifest import NAME, previous_manifest, stale_stages
from cytolib.run.paths import root, runs_root
from cytolib.run.processes import RUN_VARIABLE, identity, kill_descendants, kill_marked
from cytolib.run.stages import Chain

if TYPE_CHECKING:
    from cytolib.run.plan import Plan


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
    from cytolib.run.execute import exclusive
    from cytolib.run.plan import Plan

    live = say is None and sys.stdout.isatty()
    chain, say = chain or Chain(), say or (lambda text: print(text, end="", flush=True))
    for name in (*force, *([until] if until else [])):
        _ = chain[name]
    if cores < 1:
        raise ValueError(f"--cores is {cores}; expected at least 1")
    config = read_config(config_path, chain)
    run_folder = (runs_root() / config.run).resolve()
    refusal = f"{run_folder}: another `cytolib run` is at work on this run; wait for it or give the run another name"
    _check_writable(run_folder)
    with exclusive(run_folder / ".pipeline" / "locks" / "run", refusal):
        kill_marked(RUN_VARIABLE, str(run_folder))  # orphans of a run that was killed, as we hold its lock
        _restore(run_folder, chain)
        reasons = stale_stages(chain, run_folder, config.parameters, until, force, trusted)
        stale = tuple(name for name, why in reasons.items() if why)
        if stale:
            started = time.monotonic()
            (run_folder / "index.html").unlink(missing_ok=True)  # it would tell of what is about to change
            _say_stale(reasons, run_folder, say)
            me = os.getpid(), identity(os.getpid())
            plan = Plan(run_folder, chain, config.parameters, stale, tuple(force), me, cell_timeout_s, plain)
            code = _run_engine(plan, cores, tuple(reasons), say, live)
            reasons = stale_stages(chain, run_folder, config.parameters, until, trusted=trusted)
            if not _verified(code, reasons, run_folder, say):
                with suppress(OSError):  # the disk may be full; what is verified stands without a report
                    _write_report(run_folder, [n for n, why in reasons.items() if not why], config.parameters, chain)
                return 1
            say(f"done: {len(reasons)} stages verified, {time.monotonic() - started:.0f} s\n")
        else:
            say(f"nothing to do: {len(reasons)} stages of run {config.run} verified\n")
        if not trusted:
            _say_results(run_folder, tuple(reasons), config.parameters, chain, say)
    return 0


def _check_writable(run_folder: Path) -> None:
    try:
        run_folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=run_folder):
            pass
    except OSError as error:
        raise OSError(
            f"{run_folder}: runs cannot be written there ({error.strerror}); set CYTOLIB_RUNS to a folder that can be"
        ) from None


def _say_stale(reasons: dict[str, list[str]], run_folder: Path, say: Say) -> None:
    new = [name for name in reasons if reasons[name] and not (run_folder / name / NAME).exists()]
    if new:
        say(f"to run: {', '.join(new)}\n")
    for name, why in reasons.items():
        if why and name not in new:
            more = f" (and {len(why) - 1} more)" if len(why) > 1 else ""
            say(f"stale: {name}: {why[0]}{more}\n")


def _run_engine(plan: Plan, cores: int, wanted: tuple[str, ...], say: Say, live: bool) -> int:
    """Execute the stages of the plan, by Snakemake or one after the other; returns the engine's exit code."""
    if plan.plain:
        command = [sys.executable, "-m", "cytolib.run.serial", str(plan.file), str(cores)]
    else:
        command = [
            *(sys.executable, "-m", "snakemake", "--snakefile", str(root() / "workflow" / "Snakefile")),
            *("--directory", str(plan.file.parent), "--cores", str(cores), "--nolock", "--rerun-incomplete"),
            *("--nocolor", "--rerun-triggers", "input", "--scheduler", "greedy", "--config", f"plan={plan.file.name}"),
            *("--forcerun", *(f"../{name}/{NAME}" for name in plan.stale)),
            *("--", *(f"../{name}/{NAME}" for name in plan.stale)),
        ]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", RUN_VARIABLE: str(plan.run_folder)}
    process = None
    with _terminable():
        try:
            _prepare(plan)
            with open(_engine_log(plan.run_folder), "wb") as log:
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
                )
            return follow(process, plan.events, Follower(plan.run_folder, wanted, say, live=live))
        finally:
            if process is not None:
                kill_descendants(process.pid)
                process.kill()
                process.wait()
                kill_marked(RUN_VARIABLE, str(plan.run_folder))  # where Snakemake was killed, nothing leads to its jobs
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
    shutil.rmtree(hidden / ".snakemake", ignore_errors=True)  # its memory is not asked, and a killed one may be torn
    for name in plan.stale:
        manifest = plan.run_folder / name / NAME
        if manifest.is_file() and name not in plan.forced:
            aside = previous_manifest(plan.run_folder, name)
            aside.parent.mkdir(parents=True, exist_ok=True)
            os.replace(manifest, aside)
        else:
            remove(manifest)
    plan.write()
    plan.events.touch()


def _restore(run_folder: Path, chain: Chain) -> None:
    """Put manifests back that were put aside for stages that a run, now ended, never reached."""
    for name in chain.names():
        aside, manifest = previous_manifest(run_folder, name), run_folder / name / NAME
        if aside.is_file() and not manifest.exists():
            os.replace(aside, manifest)
        remove(aside)


class _terminable:  # noqa: N801 (used as a with-block)
    """Let the first SIGINT or SIGTERM while the block runs be a KeyboardInterrupt, and no other cut its cleaning short.

    So kernels are ended with the runner, however impatient its user is.
    """

    def __enter__(self) -> None:
        self._old: dict[signal.Signals, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._interrupt)

    def _interrupt(self, *_: object) -> None:
        for number in self._old:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    def __exit__(self, *_: object) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)


def _verified(code: int, reasons: dict[str, list[str]], run_folder: Path, say: Say) -> bool:
    stale = [name for name, why in reasons.items() if why]
    if not stale and code == 0:
        return True
    log = _engine_log(run_folder)
    if shutil.disk_usage(run_folder).free < FULL_BYTES:
        say(f"{run_folder}: No space left on device; make room there\n")
    changed = [f"{name}: {reasons[name][0]}" for name in stale if (run_folder / name / NAME).is_file()]
    if changed and code == 0:
        say(f"changed while it ran: {changed[0]}\n")
    if stale:
        say(f"not done: {', '.join(stale)}; what is verified is kept, the same command goes on from there ({log})\n")
    else:
        say(f"the engine ended with code {code} although every stage verifies; see {log}\n")
    return False


def _say_results(run_folder: Path, stages: tuple[str, ...], parameters: dict[str, Any], chain: Chain, say: Say) -> None:
    from cytolib.run.results import key_results_text

    text = key_results_text(run_folder)
    say(text + "\n" if text else "")
    report = run_folder / "index.html"
    if not report.is_file() and not _write_report(run_folder, stages, parameters, chain):
        say("report: none here, nbconvert is missing; `cytolib run` where it is installed writes it\n")
        return
    say(f"report: {report}\n")


def _write_report(run_folder: Path, stages: Sequence[str], parameters: dict[str, Any], chain: Chain) -> bool:
    """Write the run's page; False where nbconvert is missing, on a machine that only executes stages."""
    if importlib.util.find_spec("nbconvert") is None:
        return False
    from cytolib.run.report import write_report

    try:
        write_report(run_folder, stages, parameters, chain)
    except OSError as error:
        raise OSError(f"{run_folder / 'index.html'}: the report could not be written ({error})") from None
    return True
