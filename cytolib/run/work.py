"""The run that is at work on a run folder just now: which process, and how far each of its stages is."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Work:
    """A running ``cytolib run``.

    Attributes:
        pid: its process.
        since: when it began, in seconds since 1970.
        states: of the stages that it executes: "waiting", "running", "done", "kept" or "failed".
        started: when each began, in seconds since 1970.
    """

    pid: int
    since: float
    states: dict[str, str] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)


def at_work(run_folder: Path) -> Work | None:
    """The living process that runs this folder on this machine; None where there is none.

    A plan that a killed run left behind counts for nothing: its process is gone, or is another one.
    """
    import psutil

    for path in (run_folder / ".pipeline").glob("plan-*.json"):
        try:
            plan = json.loads(path.read_text(encoding="utf-8"))
            pid, created = int(plan["runner"][0]), float(plan["runner"][1])
            if psutil.Process(pid).create_time() == created:
                return _progress(Work(pid, created, dict.fromkeys(plan["stale"], "waiting")), path)
        except (OSError, ValueError, KeyError, TypeError, psutil.Error):  # it ended while we looked
            continue
    return None


def _progress(work: Work, plan: Path) -> Work:
    events = plan.with_name(plan.name.replace("plan-", "events-").replace(".json", ".jsonl"))
    for line in events.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        work.states[event["stage"]] = "running" if event["event"] == "started" else event["event"]
        if event["event"] == "started":
            work.started[event["stage"]] = float(event["time"])
    return work
