"""A long training that is killed between two checkpoints: it goes on from the last one, to the same weights."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cytolib.run.stages import Chain
from tests.faults.kills import VICTIMS
from tests.faults.trial import LIMIT_S, Trial, Undisturbed, check, outputs_of, wait_for

STAGE = "02_train_diffusion"
STEPS = 550
EVERY = 200  # steps between two checkpoints, the default of ``train``
_building = threading.Lock()


def long_training(base: Undisturbed) -> Undisturbed:
    """The undisturbed run with a longer training; made once, beside the other, from its first two stages."""
    folder = base.runs.parent / f"long-{STEPS}"
    with _building:
        if not (folder / "finished").is_file():
            trial = _trial(base, folder, *Chain().names()[2:])  # which may not be there yet
            trial.run("--until", STAGE).sentence(0, "verified")
            (folder / "finished").touch()
    return replace(base, outputs={**base.outputs, **outputs_of(folder / "runs" / "tiny", STAGE)})


def _trial(base: Undisturbed, folder: Path, *without: str) -> Trial:
    trial = Trial(base, folder, without=(STAGE, *without))
    trial.configure(STAGE, steps=STEPS)
    return trial


def checkpoint_step(folder: Path) -> int:
    """Steps in the newest checkpoint of a stage; 0 where there is none."""
    import torch

    steps = [0]
    for file in (folder / "checkpoints").glob("[!.]*.pt"):
        steps.append(torch.load(file, map_location="cpu", weights_only=True)["progress"]["step"])
    return max(steps)


@contextmanager
def watched(folder: Path) -> Iterator[list[int]]:
    """The steps of every checkpoint that appears in a stage while the block runs."""
    seen: list[int] = []
    over = threading.Event()

    def watch() -> None:
        last = None
        while not over.wait(0.02):
            for file in (folder / "checkpoints").glob("[!.]*.pt"):
                if last != (last := file.stat().st_ino):
                    seen.append(checkpoint_step(folder))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def play_training_kill(base: Undisturbed, folder: Path, victim: str, seed: int) -> tuple[str, str]:
    """Kill after a checkpoint, somewhere before the next; the rerun begins where that checkpoint ends."""
    long = long_training(base)
    trial = _trial(long, folder)
    rng = random.Random(seed)
    after = rng.choice((1, 2)) * EVERY
    running = trial.start("run", "--until", STAGE)
    stage = trial.run_folder / STAGE
    wait_for(lambda: running.process.poll() is not None or checkpoint_step(stage) >= after, LIMIT_S, 0.1)
    time.sleep(rng.uniform(0, 0.3))
    target = running.find(VICTIMS[victim]) if victim != "run" else None
    check(running.process.poll() is None, f"the run ended before it was killed: {running.text[-300:]}")
    target.kill() if target else running.process.kill()
    said = running.wait(120)
    trial.check_nobody_left()
    check(not trial.check_truthful(STAGE), f"{STAGE} counts as done although it was killed in its training")
    kept = checkpoint_step(stage)
    check(after <= kept < STEPS, f"killed after step {kept}, expected a step from {after} to {STEPS - 1}")
    with watched(stage) as seen:
        trial.run("--until", STAGE).sentence(0, "verified")
    check(min(seen) >= kept and max(seen) == STEPS, f"checkpoints of the rerun at {seen}, expected from {kept} on")
    mine = outputs_of(trial.run_folder, STAGE)
    check(mine == {k: v for k, v in long.outputs.items() if k.startswith(STAGE)}, "the weights or figures differ")
    return said.last or f"ended by signal {-said.code}", f"went on from step {kept} of {STEPS}: equal"
