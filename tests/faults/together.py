"""Two runs at once, and what is left of a killed one while the next works."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil

from tests.faults.kills import VICTIMS
from tests.faults.trial import Trial, Undisturbed, check


def play_two_at_once(base: Undisturbed, folder: Path) -> tuple[str, str]:
    """Two commands started together: one works, the other says so in one sentence."""
    trial = Trial(base, folder, without=("10_figures",))
    both = [running.wait() for running in (trial.start("run"), trial.start("run"))]
    both.sort(key=lambda said: said.code)
    both[0].sentence(0, "7 stages verified")
    both[1].sentence(2, "another `cytolib run` is at work on this run")
    check(len(both[1].text.splitlines()) == 1, f"more than one sentence: {both[1].text}")
    trial.check_equal()
    return both[1].last, "one done, one refused: equal"


def play_orphan(base: Undisturbed, folder: Path, stage: str, word: str) -> tuple[str, str]:
    """A kernel or script outlives its whole run and cannot notice, as it is stopped; the next run ends it first."""
    trial = Trial(base, folder, without=(stage,))
    running = trial.start("run", "--until", stage)
    check(running.wait_for_stage(stage), f"{stage} never began")
    orphan = running.find(VICTIMS[word])
    check(orphan is not None, f"no {word} was found: {running.text}")
    assert orphan is not None
    orphan.send_signal(signal.SIGSTOP)
    for process in psutil.Process(running.process.pid).children(recursive=True):
        if process.pid != orphan.pid and orphan not in process.parents():
            process.kill()
    os.kill(running.process.pid, signal.SIGKILL)
    running.wait(30)
    check(not trial.check_truthful(stage), f"{stage} counts as done")
    check(orphan.is_running() and orphan.status() != psutil.STATUS_ZOMBIE, "the orphan is gone: nothing was tried")
    second = trial.start("run", "--until", stage)
    check(second.wait_for_stage(stage), f"{stage} never began again: {second.text[-300:]}")
    lives = orphan.is_running() and orphan.status() != psutil.STATUS_ZOMBIE
    if lives:
        orphan.send_signal(signal.SIGCONT)
    second.wait().sentence(0, "verified")
    check(not lives, "the orphan still lived when the stage began again: both could write to its folder")
    trial.check_nobody_left()
    trial.check_equal()
    return f"the {word} of a killed run lived on", "next run ended it: equal"
