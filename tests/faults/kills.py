"""SIGKILL of whatever works in a run, at moments that a seed spreads over its whole length."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path

from tests.faults.trial import Trial, Undisturbed, check

#: Victims by the word that their command line has; "run" is ``cytolib run`` itself.
VICTIMS = {
    "run": "",
    "snakemake": "-m snakemake",
    "stage": "cytolib.cli stage",  # papermill works in it
    "kernel": "ipykernel_launcher",
    "script": "cytolib.run.script",
    "worker": "loky",
}
#: Stages that lose a process, each as often as it stands here.
STAGES = (
    *("00_data",) * 2, "01_embed", "02_train_diffusion", "03_sample", *("04_sweep",) * 3,
    *("04_augment_classifiers",) * 2, *("10_figures",) * 5,
)  # fmt: skip
FROM_NOTHING = ("run", "kernel")  # runs from nothing, killed in their first stage


@dataclass(frozen=True)
class Kill:
    """One kill: of which process, in which stage, after which share of the time that the stage takes undisturbed."""

    victim: str
    stage: str
    share: float
    from_nothing: bool = False

    def __str__(self) -> str:
        start = ", from nothing" if self.from_nothing else ""
        return f"{self.victim} at {self.share:.0%} of {self.stage}{start}"


def draw_kills(seed: int) -> list[Kill]:
    """The kills of a seed: every victim in several stages, every stage at several moments."""
    rng = random.Random(seed)
    kills = [Kill(victim, "00_data", rng.uniform(0.03, 0.9), True) for victim in FROM_NOTHING]
    notebooks = ["run", "stage", "kernel", "snakemake"] * 3
    scripts = ["script", "worker", rng.choice(("stage", "run"))]
    rng.shuffle(notebooks)
    rng.shuffle(scripts)
    for stage in STAGES:
        victim = (scripts if stage == "04_sweep" else notebooks).pop()
        kills.append(Kill(victim, stage, rng.uniform(0.03, 0.9)))
    return kills


def play_kill(base: Undisturbed, folder: Path, kill: Kill) -> tuple[str, str]:
    """Kill, look that nothing lies and nobody is left, and give the same command again."""
    names = list(base.seconds)
    missing = ("all",) if kill.from_nothing else (kill.stage,)
    # the sweep has workers on two cores only
    trial = Trial(base, folder, without=missing, cores=2 if kill.stage == "04_sweep" else 1)
    until = () if kill.stage == "10_figures" else ("--until", kill.stage)
    running = trial.start("run", *until)
    check(running.wait_for_stage(kill.stage), f"{kill.stage} never began: {running.text[-300:]}")
    time.sleep(kill.share * base.seconds[kill.stage] / trial.cores)
    target = running.find(VICTIMS[kill.victim]) if kill.victim != "run" else None
    # none any more: the stage was over before its share of time
    target.kill() if target else running.process.kill()
    said = running.wait(120)
    trial.check_nobody_left()
    done = trial.check_truthful(kill.stage)
    check(done or said.code != 0, f"exit code 0 although {kill.stage} is not done: {said.text[-300:]}")
    check("Traceback" not in said.text, f"a traceback: {said.text[-300:]}")
    again = trial.run(*until)
    again.sentence(0, "verified")
    if kill.from_nothing:
        later = names[names.index(kill.stage) + 1 :]
        _check_part(trial, names[: names.index(kill.stage) + 1], later)
    else:
        trial.check_equal()
    return said.last or f"ended by signal {-said.code}", "was over: verified" if done else "rerun equal"


def _check_part(trial: Trial, done: list[str], later: list[str]) -> None:
    reasons = trial.reasons()
    check(not any(reasons[name] for name in done), f"not done: {reasons}")
    check(all(reasons[name] for name in later), f"done although it never ran: {reasons}")
    trial.check_truthful()
