"""Is this machine fit to run the project? Each check says what it found and, where it is broken, how to mend it.

It is called when something is wrong, so nothing but Python's own library is imported before a check needs it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

INSTALL = "rm -rf .venv && make pipeline sets it up from the lock"


@dataclass(frozen=True)
class Finding:
    """A check's result: ``state`` is "ok", "note" (the project runs without it) or "broken"."""

    what: str
    state: str
    found: str
    mend: str = ""


def one_line(error: BaseException) -> str:
    """An error's type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def all_checks() -> dict[str, Callable[[], Finding]]:
    """The checks by the names of what they look at, in the order in which they are told."""
    from cytolib.run import doctor_machine as machine
    from cytolib.run import doctor_python as python

    return {
        "python": python.check_python,
        "packages": python.check_packages,
        "torch": python.check_torch,
        "jupyter kernel": python.check_kernel,
        "jupyterlab": python.check_kernel_spec,
        "pipeline": python.check_pipeline,
        "runs folder": machine.check_runs_folder,
        "cache folder": machine.check_cache_folder,
        "temp folder": machine.check_temp_folder,
        "file locks": machine.check_locks,
        "memory": machine.check_memory,
        "cores": machine.check_cores,
        "gpu": python.check_gpu,
        "real data": machine.check_data,
        "git": machine.check_git,
        "clock": machine.check_clock,
        "text": machine.check_text,
        "browser": machine.check_browser,
    }


def examine(what: str, check: Callable[[], Finding]) -> Finding:
    """What a check found; whatever it raises is a finding too."""
    try:
        return check()
    except Exception as error:  # the doctor must get to the end on the worst of machines
        return Finding(what, "broken", f"could not be checked: {one_line(error)}", INSTALL)


def doctor(
    say: Callable[[str], None] = lambda text: print(text, flush=True),
    *,
    as_json: bool = False,
    checks: dict[str, Callable[[], Finding]] | None = None,
) -> int:
    """Run every check and say what it found; 1 if something that is needed is broken, else 0.

    Args:
        say: where each line goes.
        as_json: say one JSON list in the end, in place of lines on the way.
        checks: name and function of each; None for the project's own.
    """
    found = []
    for what, check in (all_checks() if checks is None else checks).items():
        finding = examine(what, check)
        found.append(finding)
        if not as_json:
            say(f"{finding.state:<7} {finding.what:<15} {finding.found}")
            if finding.mend:
                say(f"{'':<7} {'':<15} -> {finding.mend}")
    broken = [finding.what for finding in found if finding.state == "broken"]
    if as_json:
        say(json.dumps([asdict(finding) for finding in found], indent=1, ensure_ascii=False))
    else:
        notes = sum(finding.state == "note" for finding in found)
        verdict = f"broken: {', '.join(broken)}" if broken else "fit to run"
        say(f"{verdict}; {notes} note{'' if notes == 1 else 's'}")
    return int(bool(broken))
