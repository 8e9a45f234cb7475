"""`cytolib status`: each stage done, stale and why, at work or failed; and what a failed run says in the terminal."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import psutil
import pytest

from cytolib.cli import main
from cytolib.run import stages
from cytolib.run.execute import StageError, execute_stage
from cytolib.run.plan import Plan
from cytolib.run.stages import Chain, StageSpec
from cytolib.run.status import StageStatus, run_status, status_lines
from tests.run_tools import stage_notebook, toy_chain, toy_folder


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the toy chain, its configuration, and the first two stages executed."""
    toy_folder(tmp_path, monkeypatch)
    chain, run = toy_chain(tmp_path), tmp_path / "runs" / "toy"
    execute_stage(chain["first"], run, {"seed": 7}, chain)
    execute_stage(chain["second"], run, {"n": 2, "names": ["a"]}, chain)
    return tmp_path


def states(toy: Path, **options: object) -> dict[str, StageStatus]:
    options = {"config_path": toy / "c.yaml", **options}
    status = run_status(chain=toy_chain(toy), **options)  # type: ignore[arg-type]
    return {stage.name: stage for stage in status.stages}


def test_a_line_a_stage_and_every_reason_when_asked(toy: Path) -> None:
    (toy / "runs" / "toy" / "second" / "y.txt").write_text("other")
    (toy / "c.yaml").write_text("run: toy\nstages: {first: {seed: 7}, second: {n: 3}}\n")
    status = run_status(toy / "c.yaml", chain=toy_chain(toy))
    lines = status_lines(status)
    assert len(lines) == 4 and not status.done
    assert lines[1].startswith("  first   done     ") and lines[1].endswith("B")
    assert lines[2] == "  second  stale    parameter n changed: 2 -> 3, and 1 more (--why)"
    assert lines[3] == "  third   stale    it was not run yet"
    why = status_lines(status, why=True)
    assert why[2:4] == [
        "  second  stale    parameter n changed: 2 -> 3",
        "            output y.txt was changed or damaged",
    ]


def test_other_versions_and_data_that_are_away_are_notes(toy: Path) -> None:
    path = toy / "runs" / "toy" / "first" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["versions"]["numpy"], manifest["device"] = "0.1", "cuda (a card)"
    path.write_text(json.dumps(manifest))
    lines = status_lines(run_status(toy / "c.yaml", chain=toy_chain(toy)))
    assert lines[1].endswith("B, on cuda (a card)")
    notes = [line for line in lines if line.startswith("note: ")]
    assert len(notes) == 1 and notes[0].startswith("note: made with numpy 0.1, here is ")
    assert notes[0].endswith(" (first)")


def test_a_run_by_its_name_is_held_against_its_own_parameters(toy: Path) -> None:
    (toy / "c.yaml").write_text("run: another\nstages: {first: {seed: 8}}\n")
    assert states(toy, run="toy")["first"].state == "stale", "the configuration that is named counts"
    found = states(toy, config_path=None, run="toy")
    assert [stage.state for stage in found.values()] == ["done", "done", "stale"]
    with pytest.raises(ValueError, match="there is no such run"):
        states(toy, run="absent")


def test_the_exit_code_and_the_json(
    toy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chain = toy_chain(toy)
    monkeypatch.setattr(stages, "STAGES", chain.stages)
    monkeypatch.setattr(Chain, "__init__", lambda self: self.__dict__.update(stages=chain.stages, notebooks=toy))
    assert main(["status", "--config", str(toy / "c.yaml"), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [stage["state"] for stage in found["stages"]] == ["done", "done", "stale"]
    assert found["done"] is False and found["pid"] is None and found["run"] == "toy"
    execute_stage(chain["third"], toy / "runs" / "toy", {"seed": 0}, chain)
    assert main(["status", "--config", str(toy / "c.yaml")]) == 0
    assert capsys.readouterr().out.count(" done ") == 3


def test_a_failure_is_told_in_three_lines(toy: Path) -> None:
    cell = "import math\n# the next line fails\nvalue = math.sqrt(-1)\nprint(value)"
    stage_notebook(toy, "first", "", cell)
    chain = Chain((StageSpec("first"), *toy_chain_scripts(toy)), toy)
    with pytest.raises(StageError):
        execute_stage(chain["first"], toy / "runs" / "toy", {"seed": 7}, chain)
    status = run_status(toy / "c.yaml", chain=chain)
    lines = [line.strip() for line in status_lines(status)]
    assert lines[1].startswith("first   stale")
    assert lines[2].startswith("failed ") and lines[2].endswith(" in code cell 4: value = math.sqrt(-1)")
    assert lines[3] == "ValueError: math domain error"
    assert lines[4] == f"see {toy}/runs/toy/first/failed.ipynb"
    assert lines[5].startswith("second  stale")
    (toy / "runs" / "toy" / "first" / ".failure.json").write_text("[broken")
    assert run_status(toy / "c.yaml", chain=chain).stages[0].failure is None


def toy_chain_scripts(toy: Path) -> tuple[StageSpec, ...]:
    """The two scripts of the toy chain, whose notebook is left as it is."""
    return (
        StageSpec("second", "script", ("first",), "toy_second:main"),
        StageSpec("third", "script", ("first", "second"), "toy_third:main"),
    )


def test_a_run_at_work_is_told_and_a_dead_one_is_not(toy: Path) -> None:
    run = toy / "runs" / "toy"
    me = psutil.Process()
    parameters = {"first": {"seed": 7}, "second": {"n": 2, "names": ["a"]}, "third": {"seed": 0}}
    plan = Plan(run, toy_chain(toy), parameters, ("second", "third"), (), (me.pid, me.create_time()))
    (run / "second" / "manifest.json").unlink()
    (run / "second" / "log.txt").write_text("reading\n\x1b[1mepoch 3 of 9\x1b[0m\n\n")
    plan.write()
    plan.report("started", "second")
    status = run_status(toy / "c.yaml", chain=toy_chain(toy))
    assert [stage.state for stage in status.stages] == ["done", "running", "waiting"]
    assert status.pid == os.getpid() and abs((status.stages[1].started or 0) - time.time()) < 60
    lines = status_lines(status)
    assert lines[1].endswith(f"process {os.getpid()}") and lines[1].startswith("at work since ")
    assert lines[3].endswith("  epoch 3 of 9") and lines[4] == "  third   waiting"
    progress = run / ".pipeline" / "progress" / "second"
    progress.parent.mkdir(exist_ok=True)
    progress.write_text("40%|####      | 4/10")
    assert states(toy)["second"].progress == "40%|####      | 4/10", "a bar says more than the log"
    # the same number, given to another process since: a plan that a killed run left
    other = Plan(run, toy_chain(toy), parameters, ("second", "third"), (), (me.pid, me.create_time() - 99))
    other.write()
    status = run_status(toy / "c.yaml", chain=toy_chain(toy))
    assert status.pid is None and [stage.state for stage in status.stages] == ["done", "stale", "stale"]


WAYS = {  # name: (cells after the opening, what the terminal shows below the sentence)
    "raises": (
        ["from cytolib.data import table\n\n# read\ncells = table.read_cells('/absent.parquet')\nprint(1)\nprint(2)"],
        [
            "in {nb}, code cell 3, line 4",
            "     2",
            "     3  # read",
            ">    4  cells = table.read_cells('/absent.parquet')",
            "     5  print(1)",
            "     6  print(2)",
            "raised in cytolib/data/table.py:",
        ],
    ),
    "chained": (
        [
            "def inner(k):\n    raise ValueError(f'k is {k}\\nexpected 3\\nand more\\nand more')",
            "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    inner(4)",
        ],
        ["in {nb}, code cell 4, line 4", "     2", "     3", ">    4      inner(4)", "expected 3", "and more"],
    ),
    "syntax": (["x = 1\ny = = 1"], ["in {nb}, code cell 3, line 2", "     1  x = 1", ">    2  y = = 1"]),
    "exits": (["import sys\nsys.exit(0)"], ["in {nb}, code cell 3: sys.exit(0)"]),
    "crashes": (
        ["import ctypes\nctypes.string_at(0)"],
        [
            "in {nb}, code cell 3: ctypes.string_at(0)",
            "log.txt ends:",
            "  Fatal Python error: Segmentation fault",
            "  File",
            "  File",
        ],
    ),
    "killed": (
        ["print('loading')", "import os\nos.kill(os.getpid(), 9)"],
        ["in {nb}, code cell 4: os.kill(os.getpid(), 9)", "log.txt ends:", "  loading", "memory: "],
    ),
    "sleeps": (
        ["import time\nfor k in range(99):\n    time.sleep(1)"],
        ["in {nb}, code cell 3, line 3", "     1", "     2", ">    3      time.sleep(1)"],
    ),
    "forgets": (["1"], ["in {nb}"]),
}


@pytest.mark.parametrize("name", WAYS)
def test_what_is_said_of_a_failed_notebook(name: str, tmp_path: Path) -> None:
    cells, expected = WAYS[name]
    notebook = stage_notebook(tmp_path, name, *cells, publish=name != "forgets")
    chain = Chain((StageSpec(name),), tmp_path)
    with pytest.raises(StageError) as caught:
        execute_stage(chain[name], tmp_path / "run", {"seed": 7}, chain, cell_timeout_s=4 if name == "sleeps" else None)
    text = "\n".join([str(caught.value), *caught.value.detail])
    assert len(caught.value.detail) == len(expected) <= 10 and "\x1b" not in text, text
    for line, start in zip(caught.value.detail, expected, strict=True):
        assert line.startswith(start.format(nb=notebook)), text
    record = json.loads((tmp_path / "run" / name / ".failure.json").read_text())
    assert record["detail"] == list(caught.value.detail) and record["error"] in str(caught.value)
