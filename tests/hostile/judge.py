"""Run one case in a process of its own, and say what was wrong with how it ended.

The process is a fork of this one, which has imported everything: a case costs milliseconds. It may not take more than
3 GB beyond what it starts with, and an audit hook notes what it tries: programs, connections, modules of the input.
"""

from __future__ import annotations

import fnmatch
import json
import os
import resource
import shutil
import signal
import stat
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.hostile.case import Case

WALL_S = 60.0  # a machine may be busy: what waits for ever is told from what computes by the time of its own
CPU_S = 10.0
MEMORY_BYTES = 1_500_000_000  # a picture of 64 megapixels is decoded and made RGB: half a gigabyte
ADDRESS_BYTES = 3 << 30
CANARY = "canary"  # every payload would make this folder
EXPECTED = (ValueError, TypeError, OSError, RuntimeError)
LONGEST = 900  # characters of a sentence, paths included
STARTS = frozenset(
    {"os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn", "os.startfile"}
)


@dataclass(frozen=True)
class Verdict:
    """What was said, in milliseconds, at how many bytes beyond the start, and each fault in a few words."""

    said: str
    ms: float
    grown_bytes: int
    faults: tuple[str, ...]


def run_case(case: Case, folder: Path) -> Verdict:
    """Make, call and judge ``case`` in ``folder``, which is empty."""
    inside = folder / "in"
    inside.mkdir(parents=True)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _be_the_case(case, inside, write)
    os.close(write)
    faults: list[str] = []
    usage = _wait(child, faults)
    with os.fdopen(read, "rb") as pipe:
        content = pipe.read()
    if not content:
        faults.append("its process ended without a word (killed, or out of memory)")
        return Verdict("", 0.0, 0, tuple(faults))
    told: dict[str, Any] = json.loads(content)
    if "unmade" in told:
        return Verdict("", 0.0, 0, (f"the input could not be made: {told['unmade']}",))
    grown = max(0, usage.ru_maxrss * 1024 - told["resident"])
    if told["cpu_s"] > CPU_S:
        faults.append(f"computed for {told['cpu_s']:.0f} s")
    if grown > MEMORY_BYTES:
        faults.append(f"took {grown / 1e9:.1f} GB more")
    return Verdict(told["said"], told["ms"], grown, (*faults, *told["faults"], *_judge(case, told)))


def _wait(child: int, faults: list[str]) -> resource.struct_rusage:
    until = time.monotonic() + WALL_S
    while True:
        done, _, usage = os.wait4(child, os.WNOHANG)
        if done:
            return usage
        if time.monotonic() > until:
            faults.append(f"did not end in {WALL_S:.0f} s")
            os.kill(child, signal.SIGKILL)
            return os.wait4(child, 0)[2]
        time.sleep(0.002)


def _be_the_case(case: Case, inside: Path, pipe: int) -> None:
    """The child: never returns."""
    told: dict[str, Any]
    try:
        _settle(inside)
        try:
            door = case.make(inside)
        except BaseException:
            told = {"unmade": traceback.format_exc()[-800:]}
        else:
            told = _call(case, inside, door)
        os.write(pipe, json.dumps(told).encode())
    finally:
        os._exit(0)


def _settle(inside: Path) -> None:
    """Folders of its own, no way to write much, quiet streams."""
    os.chdir(inside)
    for name in ("CYTOLIB_RUNS", "CYTOLIB_CACHE", "CYTOLIB_DATA", "HOME", "TMPDIR", "HF_MODULES_CACHE"):
        place = inside / name.lower()
        place.mkdir()
        os.environ[name] = str(place)
    log = os.open(inside.parent / "log.txt", os.O_WRONLY | os.O_CREAT, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + ADDRESS_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _call(case: Case, inside: Path, door: Any) -> dict[str, Any]:
    before, tried = _tree(inside.parent), list[str]()
    sys.addaudithook(lambda event, arguments: _watch(event, arguments, tried, case.starts))
    resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    cpu, start = time.process_time(), time.perf_counter()
    kind, faults = "", list[str]()
    try:
        returned = door()
        said = str(returned) if case.goes_on else ""
        if not case.goes_on:
            faults.append(f"was not refused, but gave {str(returned)[:200]!r}")
    except BaseException as error:
        kind, said = type(error).__name__, str(error)
        if case.goes_on or not isinstance(error, EXPECTED) or isinstance(error, (NotImplementedError, RecursionError)):
            faults.append(f"raised {kind}: {traceback.format_exc()[-600:]}")
    ms = 1000 * (time.perf_counter() - start)
    cpu = time.process_time() - cpu
    faults += [f"tried {what}" for what in dict.fromkeys(tried)]
    after = _tree(inside.parent)
    changed = sorted(
        name
        for name in {*before, *after}
        if before.get(name) != after.get(name) and not any(fnmatch.fnmatch(name, f"in/{p}") for p in case.leaves)
    )
    if changed:
        faults.append(f"left or changed {', '.join(changed[:5])}")
    if os.path.lexists(inside / CANARY):
        faults.append("code of the input was executed")
    return {"said": said, "ms": ms, "cpu_s": cpu, "resident": resident, "faults": faults}


def _watch(event: str, arguments: tuple[Any, ...], tried: list[str], starts: bool) -> None:
    if event in STARTS and not starts:
        tried.append(f"to start a program ({event})")
    elif event == "socket.connect" and not str(arguments[1]).startswith(("('127.0.0.1'", "('::1'")):
        tried.append(f"to connect to {arguments[1]}")
    elif event == "import" and "evil" in str(arguments[0]):
        tried.append(f"to import {arguments[0]}")


def _tree(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Every entry below ``folder``: its kind, size and time, links not followed; scratch folders must be empty."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place) / name
            facts = path.lstat()
            shape = (0, 0) if stat.S_ISDIR(facts.st_mode) else (facts.st_size, facts.st_mtime_ns)
            relative = path.relative_to(folder).as_posix()
            if relative != "log.txt":
                found[relative] = (stat.S_IFMT(facts.st_mode), *shape)
    return found


def _judge(case: Case, told: dict[str, Any]) -> list[str]:
    """What is wrong with the sentence."""
    said, faults = told["said"], []
    if not said:
        return faults if told["faults"] else ["nothing was said"]
    if "\n" in said or "\r" in said:
        faults.append("more than one line")
    if "Traceback" in said or said.startswith("unexpected "):
        faults.append("a traceback or an unexpected error")
    if not said.isprintable():
        faults.append("characters that do not show")
    if len(said) > LONGEST:
        faults.append(f"{len(said)} characters")
    faults += [f"does not say {word!r}" for word in case.says if word not in said]
    return faults


def clean(folder: Path) -> None:
    """Remove what a case made."""
    shutil.rmtree(folder, ignore_errors=True)
