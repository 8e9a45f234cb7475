"""What ``cytolib status`` says of each stage of a run: done, stale and why, at work, and how it failed last."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cytolib.run.config import check_run_folder, read_config, stage_parameters
from cytolib.run.execute import FAILURE
from cytolib.run.external import external_notes
from cytolib.run.failure import cut
from cytolib.run.log import LOG, sign_of_life
from cytolib.run.manifest import read_manifest, stale_stages
from cytolib.run.paths import runs_root
from cytolib.run.record import version_notes
from cytolib.run.stage import size_text
from cytolib.run.stages import Chain
from cytolib.run.work import Work, at_work


@dataclass
class StageStatus:
    """One stage.

    Attributes:
        state: "done", "stale", "waiting" or "running" (the last two only while a run is at work).
        reasons: why it is not done.
        wall_seconds: of a stage that is done.
        peak_memory_bytes: of a stage that is done.
        started: of a running stage, in seconds since 1970.
        progress: of a running stage: the line of its progress bar or the last one of its log.
        failure: of a stage whose last execution failed: place, code, error, time, detail, file to see.
        device: that a finished stage was made on.
        notes: of a finished stage, what could not be checked here, and package versions that are others by now.
    """

    name: str
    state: str
    reasons: list[str] = field(default_factory=list)
    wall_seconds: float | None = None
    peak_memory_bytes: int | None = None
    started: float | None = None
    progress: str = ""
    failure: dict[str, Any] | None = None
    device: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass
class RunStatus:
    """A run; ``pid`` and ``since`` are those of the process that is at work on it, or None."""

    run: str
    folder: str
    done: bool
    stages: list[StageStatus]
    pid: int | None = None
    since: float | None = None

    def as_json(self) -> str:
        """All of it as JSON."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)


def run_status(config_path: Path | None = None, run: str | None = None, chain: Chain | None = None) -> RunStatus:
    """Look at every stage of a run.

    Args:
        config_path: the configuration that it should answer to. None, with ``run``: each stage is held against the
            parameters that it was executed with, so that only changed code, inputs and outputs count.
        run: name of the run; None takes the configuration's.
        chain: stages and notebooks; None for the project's own.

    Raises:
        ValueError, TypeError, FileNotFoundError: for a wrong configuration, or a run that there is not.
    """
    chain = chain or Chain()
    if run is None:
        config = read_config(config_path or Path("configs/default.yaml"), chain)
        folder, parameters = runs_root() / config.run, config.parameters
    else:
        folder = check_run_folder(run)
        parameters = read_config(config_path, chain).parameters if config_path else _own_parameters(folder, chain)
    work = at_work(folder)
    reasons = stale_stages(chain, folder, parameters)
    stages = [_stage(folder, name, why, work) for name, why in reasons.items()]
    done = all(stage.state == "done" for stage in stages)
    return RunStatus(folder.name, str(folder), done, stages, work.pid if work else None, work.since if work else None)


def _own_parameters(folder: Path, chain: Chain) -> dict[str, dict[str, Any]]:
    found = {}
    for spec in chain.stages:
        try:
            found[spec.name] = read_manifest(folder / spec.name)["parameters"]
        except (FileNotFoundError, ValueError):
            found[spec.name] = {name: p.default for name, p in stage_parameters(spec, chain).items()}
    return found


def _stage(run_folder: Path, name: str, reasons: list[str], work: Work | None) -> StageStatus:
    folder = run_folder / name
    if not reasons:
        manifest = read_manifest(folder)
        return StageStatus(
            name, "done", [], manifest.get("wall_seconds", 0.0), int(manifest.get("peak_memory_bytes", 0)),
            device=str(manifest.get("device", "")),
            notes=[*external_notes(manifest, folder), *version_notes(manifest)],
        )  # fmt: skip
    state = work.states.get(name, "stale") if work else "stale"
    if state == "running" and work:
        return StageStatus(name, state, reasons, started=work.started.get(name), progress=sign_of_life(folder))
    state = "waiting" if state == "waiting" else "stale"
    return StageStatus(name, state, reasons, failure=last_failure(folder))


def last_failure(folder: Path) -> dict[str, Any] | None:
    """What the last execution of a stage failed with; None where it did not."""
    try:
        record = json.loads((folder / FAILURE).read_text(encoding="utf-8"))
        found: dict[str, Any] = {key: str(record.get(key, "")) for key in ("message", "error", "place", "code")}
        found |= {"time": float(record["time"]), "detail": [str(line) for line in record.get("detail", [])]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    see = next((path for name in ("failed.ipynb", LOG) if (path := folder / name).is_file()), None)
    return {**found, "see": str(see) if see else ""}


def status_lines(status: RunStatus, *, why: bool = False) -> list[str]:
    """The status as text: a line a stage, of a failed one up to three more; with ``why``, every reason."""
    lines = [f"run {status.run} in {status.folder}"]
    if status.pid is not None and status.since is not None:
        lines.append(f"at work since {_clock(status.since)}: process {status.pid}")
    width = max((len(stage.name) for stage in status.stages), default=0)
    for stage in status.stages:
        said = [_state_line(stage, why), *(stage.reasons[1:] if why and stage.state == "stale" else [])]
        if stage.failure:
            said += _failure_lines(stage.failure)
        lines.append(f"  {stage.name:<{width}}  {said[0]}".rstrip())
        lines += [f"  {'':<{width}}    {line}" for line in said[1:]]
    for note in dict.fromkeys(note for stage in status.stages for note in stage.notes):
        names = [stage.name for stage in status.stages if note in stage.notes]
        lines.append(f"note: {note} ({', '.join(names) if len(names) < 3 else f'{len(names)} stages'})")
    return lines


def _state_line(stage: StageStatus, why: bool) -> str:
    if stage.state == "done":
        on = f", on {stage.device}" if stage.device not in ("", "cpu") else ""
        return f"done     {stage.wall_seconds:.0f} s, {size_text(stage.peak_memory_bytes or 0)}{on}"
    if stage.state == "running":
        since = f"since {_clock(stage.started)}" if stage.started else ""
        return cut(f"running  {since}  {stage.progress}".rstrip())
    if stage.state == "waiting" and not stage.failure:
        return "waiting"
    more = f", and {len(stage.reasons) - 1} more (--why)" if len(stage.reasons) > 1 and not why else ""
    return f"{stage.state:<8} {stage.reasons[0]}{more}"


def _failure_lines(failure: dict[str, Any]) -> list[str]:
    place = f" in {failure['place']}" + (f": {failure['code']}" if failure["code"] else "") if failure["place"] else ""
    lines = [cut(f"failed {_clock(failure['time'])}{place}"), cut(failure["error"] or failure["message"])]
    return [*lines, f"see {failure['see']}"] if failure["see"] else lines


def _clock(seconds: float) -> str:
    """The time of day, with the date where it is not today's."""
    then = time.localtime(seconds)
    return time.strftime("%H:%M:%S" if then[:3] == time.localtime()[:3] else "%Y-%m-%d %H:%M", then)
