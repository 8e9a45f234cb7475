"""A part of the fault suite on every test run: kills, damage, two at once, read-only and full disks, Ctrl-C."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.cases import Case, all_cases
from tests.faults.kills import STAGES, VICTIMS, Kill, draw_kills, play_kill
from tests.faults.trial import Skipped, Trial, Undisturbed
from tests.finished_run import finished_runs

#: Cheap ones that show most: by name and a word of what is played.
PLAYED = (
    *(("damage", word) for word in ("outputs truncated", "a byte flipped", "manifests of two stages swapped")),
    *(("two-at-once", ""), ("read-only-runs", ""), ("interrupt", "4 times"), ("disk-full", "10_figures")),
)
KILLS = (
    Kill("run", "10_figures", 0.4),
    Kill("stage", "04_sweep", 0.5),
    Kill("kernel", "04_augment_classifiers", 0.6),
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    runs = finished_runs(tmp_path_factory)
    return Undisturbed.of(runs, runs / "cache")


def _case(name: str, word: str) -> Case:
    return next(case for case in all_cases(0) if case.name == name and word in case.what)


@pytest.mark.parametrize("kill", KILLS, ids=str)
def test_after_a_kill_the_same_command_finishes_with_the_same_bytes(
    kill: Kill, base: Undisturbed, tmp_path: Path
) -> None:
    play_kill(base, tmp_path, kill)


@pytest.mark.parametrize(("name", "word"), PLAYED)
def test_a_fault_is_said_and_mended(name: str, word: str, base: Undisturbed, tmp_path: Path) -> None:
    try:
        _case(name, word).play(base, tmp_path)
    except Skipped as reason:
        pytest.skip(str(reason))


def test_a_seed_draws_kills_of_every_victim_in_every_stage() -> None:
    for seed in range(5):
        kills = draw_kills(seed)
        assert kills == draw_kills(seed) and kills != draw_kills(seed + 1)
        assert sum(case.name.startswith("kill") for case in all_cases(seed)) >= 20
        assert set(Counter(kill.victim for kill in kills)) == set(VICTIMS)
        assert {kill.stage for kill in kills} == set(STAGES)
        assert any(kill.from_nothing for kill in kills)


def test_the_suite_sees_a_lie_and_a_torn_file(base: Undisturbed, tmp_path: Path) -> None:
    """Its checks fail for what they are there to find; ``verify`` that always says fine is one such lie."""
    trial = Trial(base, tmp_path)
    trial.check_equal()
    table = trial.run_folder / "10_figures" / "key_results.csv"
    table.write_bytes(table.read_bytes()[:-1])
    with pytest.raises(AssertionError, match="other bytes than undisturbed"):
        trial.check_truthful()
    trial.reasons = lambda: dict.fromkeys(base.seconds, [])  # type: ignore[method-assign, assignment]
    with pytest.raises(AssertionError, match="1 outputs differ .*key_results.csv"):
        trial.check_equal()
    os.unlink(table)
    with pytest.raises(AssertionError, match="10_figures counts as done with other files"):
        trial.check_truthful()
