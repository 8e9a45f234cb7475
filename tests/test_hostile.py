"""Every hostile input is refused in one sentence, runs nothing and leaves nothing; and the judge of that is not blind.

The table is made by ``python -m tests.hostile --out benchmarks/results/hostile.csv``.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.hostile import judge
from tests.hostile.case import Case
from tests.hostile.cases_images import read_harmless
from tests.hostile.every import CASES

TABLE = REPOSITORY / "benchmarks" / "results" / "hostile.csv"


@pytest.fixture(scope="module")
def output() -> list[str]:
    """What the command prints. It runs in a process of its own, whose forks inherit no threads of other tests."""
    command = [sys.executable, "-m", "tests.hostile"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr[-2000:]
    return done.stdout.splitlines()


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case.input.replace(" ", "_")[:60] for case in CASES])
def test_refused(output: list[str], number: int) -> None:
    name = CASES[number].input
    assert any(line.startswith(f"{name} | {CASES[number].door} | ") for line in output), "it did not run"
    faults = [line for line in output if line.startswith(f"  FAULT {name}: ")]
    assert not faults, "\n".join(faults)


def test_all_are_counted(output: list[str]) -> None:
    assert output[-1] == f"{len(CASES)} of {len(CASES)} refused as they should be"
    assert len(CASES) >= 60 and len({(case.input, case.door) for case in CASES}) == len(CASES)


def test_the_stored_table_is_of_these_cases() -> None:
    with open(TABLE, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["input"], row["door"]) for row in rows] == [(case.input, case.door) for case in CASES]
    for row in rows:
        assert row["what was said"].isprintable() and not {"/tmp", "/root", "/home"} & set(row["what was said"].split())


def test_odd_but_sound_pictures_are_read(tmp_path: Path) -> None:
    assert read_harmless(tmp_path) == "4 cells, [(48, 40)]"  # as stored: boxes and masks are in the stored frame


# --- the judge --------------------------------------------------------------------------------------------------------


def _say(text: str) -> None:
    raise ValueError(text)


def _run(folder: Path) -> None:
    (folder / judge.CANARY).mkdir()
    _say("bad.csv is refused")


def _write(folder: Path) -> None:
    (folder.parent / "evil").write_text("x")
    _say("bad.csv is refused")


def _start(_: Path) -> None:
    subprocess.run(["true"], check=False)
    _say("bad.csv is refused")


def _grow(_: Path) -> None:
    block = bytearray(2_000_000_000)
    block[::4096] = b"x" * len(block[::4096])
    _say("bad.csv is refused")


def _wait(folder: Path) -> None:
    os.mkfifo(folder.parent / "pipe")
    open(folder.parent / "pipe").read()


BLIND: dict[str, tuple[Callable[[Path], object], str]] = {
    "code ran": (_run, "code of the input was executed"),
    "written outside": (_write, "left or changed evil"),
    "program started": (_start, "tried to start a program"),
    "memory": (_grow, "GB more"),
    "waits for ever": (_wait, "did not end"),
    "not refused": (lambda _: "fine", "was not refused"),
    "two lines": (lambda _: _say("bad.csv is\nrefused"), "more than one line"),
    "hidden characters": (lambda _: _say("bad.csv \x1b[2J"), "do not show"),
    "unnamed": (lambda _: _say("it is refused"), "does not say 'bad.csv'"),
    "endless": (lambda _: _say("bad.csv " * 1000), "8000 characters"),
    "bug": (lambda _: {}["bad.csv"], "raised KeyError"),
    "dies": (lambda _: os._exit(1), "without a word"),
}


@pytest.mark.parametrize("kind", BLIND)
def test_the_judge_sees(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "WALL_S", 2.0 if kind == "waits for ever" else 60.0)
    door, fault = BLIND[kind]
    case = Case(kind, "a door", lambda folder: lambda: door(folder), ("bad.csv",))
    verdict = judge.run_case(case, tmp_path / "case")
    assert any(fault in found for found in verdict.faults), verdict


def test_the_judge_is_content_with_a_good_refusal(tmp_path: Path) -> None:
    case = Case("good", "a door", lambda folder: lambda: _say("bad.csv is refused"), ("bad.csv",))
    verdict = judge.run_case(case, tmp_path / "case")
    assert verdict.faults == () and verdict.said == "bad.csv is refused"
