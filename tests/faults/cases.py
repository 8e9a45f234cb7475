"""The list of all cases, by name."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults import clock, damage, disks, interrupts, kernel_ends, kills, together, training


@dataclass(frozen=True)
class Case:
    """One case: ``play(base, empty folder)`` returns what was said and what became of it, or raises.

    Attributes:
        more: a variation of another case, played with ``--all`` only.
        needs: stages of the undisturbed run that must be done before it begins; None for the whole run.
    """

    name: str
    what: str
    play: Callable[[Any, Path], tuple[str, str]]
    more: bool = False
    needs: tuple[str, ...] | None = None


def all_cases(seed: int) -> list[Case]:
    """Every case: first those that can begin before the undisturbed run ends, then the long ones."""
    cases = [*_kernels(), *_disks(), *_kills(seed), *_interrupts(), *_others(), *_damages()]
    return sorted(cases, key=lambda case: (case.needs is None, len(case.needs or ())))


def _kills(seed: int) -> Iterator[Case]:
    for number, victim in enumerate(("kernel", "stage", "run")):
        play = partial(training.play_training_kill, victim=victim, seed=100 * seed + number)
        yield Case(f"kill-train-{number}", f"{victim} in a long training", play)
    for number, kill in enumerate(kills.draw_kills(seed)):
        yield Case(f"kill-{number:02d}", str(kill), partial(kills.play_kill, kill=kill))


def _disks() -> Iterator[Case]:
    for stage, room in (("10_figures", 300_000), ("02_train_diffusion", 3_000_000), ("00_data", 200_000)):
        what = f"{room / 1e6:g} MB left for {stage}"
        yield Case("disk-full", what, partial(disks.play_full_disk, stage=stage, room=room), stage != "10_figures")
    for when, what in ((".publication.json", "before the manifest"), ("manifest.json", "before the report")):
        yield Case("disk-fills", f"full {what}", partial(disks.play_disk_fills, when=when), when == "manifest.json")
    yield Case("read-only-data", "data root and cache read-only", disks.play_read_only_data, needs=("00_data",))
    yield Case("read-only-runs", "folder of runs read-only", disks.play_read_only_runs)


def _interrupts() -> Iterator[Case]:
    played = (
        ("02_train_diffusion", 0.4, signal.SIGINT, 1), ("04_sweep", 0.3, signal.SIGINT, 1),
        ("04_augment_classifiers", 0.5, signal.SIGTERM, 1), ("10_figures", 0.3, signal.SIGINT, 4),
    )  # fmt: skip
    for stage, share, sent, times in played:
        what = f"{sent.name}{f' {times} times' if times > 1 else ''} at {share:.0%} of {stage}"
        play = partial(interrupts.play_interrupt, stage=stage, share=share, sent=sent, times=times)
        yield Case("interrupt", what, play, stage not in ("04_sweep", "10_figures"))
    yield Case("jupyter", "Ctrl-C in the training of notebook 02", interrupts.play_jupyter)


def _others() -> Iterator[Case]:
    yield Case("two-at-once", "two commands started together", together.play_two_at_once)
    for stage, word in (("10_figures", "kernel"), ("04_sweep", "script")):
        what = f"orphan {word} of {stage} beside a new run"
        yield Case("orphan", what, partial(together.play_orphan, stage=stage, word=word), word == "script")
    yield Case("clock", "time.time() jumps by days in every process", clock.play_jumps)
    for days in (36_500.0, -10_000.0):
        yield Case("clock", f"files {days:+,.0f} days old", partial(clock.play_file_times, days=days), days < 0)
    yield Case("parameters", "changed and back, engine's memory lost", damage.play_parameters)
    yield Case("engine", "Snakemake's files, plan and events torn", damage.play_engine_memory)


def _damages() -> Iterator[Case]:
    for name in damage.DAMAGES:
        yield Case("damage", name, partial(damage.play_damage, name=name), name not in damage.ALWAYS)
    yield Case("damage-cache", "cached embeddings: a byte flipped", damage.play_cache, more=True)
    yield Case("damage-restart", "checkpoint and shards damaged", damage.play_checkpoint)


def _kernels() -> Iterator[Case]:
    for name in kernel_ends.ENDS:
        yield Case("kernel-end", name, partial(kernel_ends.play_kernel_end, name=name), needs=())
