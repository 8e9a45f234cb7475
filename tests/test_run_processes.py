"""Who lives and who belongs to a run: zombies have ended, orphans are found, scripts do not outlive their stage."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from cytolib.run.follow import whole_events
from cytolib.run.processes import PARENT_VARIABLE, identity, kill_marked

SLEEP = [sys.executable, "-c", "import time; time.sleep(300)"]


def wait(until: Callable[[], bool], limit_s: float = 60) -> None:
    end = time.monotonic() + limit_s
    while not until():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def test_identity_is_of_living_processes_and_never_of_two() -> None:
    first, second = subprocess.Popen(SLEEP), subprocess.Popen(SLEEP)
    try:
        assert identity(os.getpid()) == identity(os.getpid()) is not None
        time.sleep(0.02)
        assert identity(first.pid) is not None and identity(first.pid) != identity(os.getpid())
        first.kill()
        # not waited for: it is a zombie, which has a number and a start, but nothing ends with it any more
        wait(lambda: psutil.Process(first.pid).status() == psutil.STATUS_ZOMBIE)
        assert identity(first.pid) is None
    finally:
        for process in (first, second):
            process.kill()
            process.wait()
    assert identity(first.pid) is None


def test_orphans_are_found_by_their_environment(tmp_path: Path) -> None:
    """A process starts another one and is killed: no tree leads to that one, and it is ended all the same."""
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'], start_new_session=True)\n"
        "print(child.pid, flush=True)\ntime.sleep(300)\n"
    )
    environment = {**os.environ, "CYTOLIB_TEST_MARK": str(tmp_path)}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    orphan = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert identity(orphan) is not None
    assert kill_marked("CYTOLIB_TEST_MARK", str(tmp_path / "other")) == 0 and identity(orphan) is not None
    assert kill_marked("CYTOLIB_TEST_MARK", str(tmp_path)) == 1 and identity(orphan) is None


def test_a_script_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """Killed with SIGKILL, the stage's process cannot tell its script; the script looks by itself."""
    (tmp_path / "waits.py").write_text("import time\ndef main(stage) -> None:\n    time.sleep(300)\n")
    (tmp_path / ".request.json").write_text('{"stage": "waits", "token": "t", "parameters": {}, "needs": []}')
    code = (
        "import os, subprocess, sys, time\n"
        f"environment = os.environ | {{{PARENT_VARIABLE!r}: str(os.getpid())}}\n"
        "command = [sys.executable, '-m', 'cytolib.run.script', 'waits:main']\n"
        "print(subprocess.Popen(command, env=environment).pid, flush=True)\ntime.sleep(300)\n"
    )
    environment = {
        **os.environ, "PYTHONPATH": str(tmp_path), "CYTOLIB_STAGE_DIR": str(tmp_path), "CYTOLIB_STAGE_TOKEN": "t",
    }  # fmt: skip
    starter = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    script = int(starter.stdout.readline())
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    starter.stdout.close()
    wait(lambda: identity(script) is None)


def test_the_end_is_not_cut_short_by_a_main_thread_that_is_done(tmp_path: Path) -> None:
    """The first process that is killed is the one the main thread waits for; the rest must be killed all the same."""
    code = (
        "import pathlib, subprocess, sys, time\nfrom cytolib.run.processes import end_when\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])\n"
        f"def last():\n    child.kill(); time.sleep(1); pathlib.Path({str(tmp_path / 'rest')!r}).touch()\n"
        "end_when(lambda: True, last)\nchild.wait()\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 1
    assert (tmp_path / "rest").is_file()


def test_events_cut_off_by_a_full_disk_are_passed_over() -> None:
    lines = ['{"event": "started", "stage": "a"}', '{"event": "do', "", '{"event": "done", "stage": "a"}']
    assert [event["event"] for event in whole_events(lines)] == ["started", "done"]
