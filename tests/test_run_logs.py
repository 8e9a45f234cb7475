"""Logs without floods: bars that leave one line, tidy logs, and signs of life of a long stage in the terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cytolib.run.execute import execute_stage
from cytolib.run.follow import CLEAR, Follower
from cytolib.run.log import last_lines, plain, progress_file, sign_of_life, tidy_log
from cytolib.run.stages import Chain, StageSpec
from tests.run_tools import stage_notebook

BARS = """import sys
from tqdm.auto import tqdm as auto, trange
from tqdm import tqdm as plain
for bar in (auto, plain):
    for _ in bar(range(3_000), desc="cells", mininterval=0):
        pass
_ = list(trange(3, desc="quiet", leave=False))
print("\\x1b[31mred\\x1b[0m", file=sys.stderr)
_ = list(auto(range(3), disable=True))"""


@pytest.mark.parametrize("kind", ["notebook", "script"])
def test_a_bar_leaves_one_line(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "notebook":
        stage_notebook(tmp_path, "bars", BARS)
        spec = StageSpec("bars")
    else:
        body = "".join(f"    {line}\n" for line in BARS.splitlines())
        (tmp_path / "drawing.py").write_text(f"def main(stage, seed: int = 0) -> None:\n{body}")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        spec = StageSpec("bars", "script", entry="drawing:main")
    execute_stage(spec, tmp_path / "run", {"seed": 0}, Chain((spec,), tmp_path))
    folder = tmp_path / "run" / "bars"
    log = (folder / "log.txt").read_text()
    assert not {"\r", "\x1b"} & set(log) and "quiet" not in log, log
    cells = [line for line in log.splitlines() if line.startswith("cells")]
    assert len(cells) == 2 and all("100%" in line and "3000/3000" in line for line in cells), log
    assert "red" in log.splitlines() and max(map(len, log.splitlines())) <= 110
    assert progress_file(folder).read_text() == ""
    if kind == "notebook":
        notebook = json.loads((folder / "bars.ipynb").read_text())
        assert "widgets" not in notebook["metadata"]
        outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
        assert {output["output_type"] for output in outputs} == {"stream"}
        text = "".join("".join(output["text"]) for output in outputs)
        assert "\r" not in text and text.count("100%") == 2


def test_a_bar_tells_on_the_way_how_far_it_is(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom cytolib.run.bars import quiet_bars\nquiet_bars()\nfrom tqdm.auto import tqdm\n"
        "path = os.environ['CYTOLIB_PROGRESS']\n"
        "with tqdm(total=4, unit='cell', mininterval=0) as bar:\n    bar.update(3)\n    seen = open(path).read()\n"
        "assert '75%' in seen and '3/4' in seen, seen\n"
        "try:\n    for k in tqdm(range(9), mininterval=0):\n        assert k < 4\nexcept AssertionError:\n    pass\n"
        "os.environ['CYTOLIB_PROGRESS'] = '/proc/absent'\nlist(tqdm(range(2)))\n"
    )
    path = tmp_path / "progress"
    environment = {"CYTOLIB_PROGRESS": str(path), "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert [line.split("%")[0].strip() for line in done.stdout.splitlines()] == ["75", "44", "100"], done.stdout


def test_a_log_is_tidied_and_else_left_as_it_is(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_bytes(b"a\r\nb 1%\rb 50%\rb 100%\n\x1b[1;31mred\x1b[0m \x1b]0;title\x07end\n\r\rlast")
    tidy_log(log)
    assert log.read_bytes() == b"a\nb 100%\nred end\nlast"
    before = log.stat().st_mtime_ns
    tidy_log(log)
    assert log.stat().st_mtime_ns == before
    assert plain("\x1b[38;5;9mx\x1b[K\x1b[?25l") == "x"


def test_the_last_lines_are_found_while_it_is_written(tmp_path: Path) -> None:
    log = tmp_path / "run" / "x" / "log.txt"
    log.parent.mkdir(parents=True)
    assert last_lines(log) == [] and sign_of_life(log.parent) == ""
    log.write_text("one\n" * 50_000 + "\ntwo\n  3%\r 40%\n\n")
    assert last_lines(log, 2) == ["3%", "40%"] and sign_of_life(log.parent) == "40%"
    progress_file(log.parent).parent.mkdir(parents=True)
    progress_file(log.parent).write_text("70%|####\n")
    assert sign_of_life(log.parent) == "70%|####"


def events(follower: Follower, *named: tuple[str, str, float]) -> None:
    more = {"done": {"seconds": 4.4, "memory": 2e6}, "failed": {"message": "stage b: no", "detail": ["in b.py", "x"]}}
    for event, stage, now in named:
        follower.event({"event": event, "stage": stage, **more.get(event, {})}, now)


def test_a_log_file_gets_a_line_a_minute_of_a_long_stage(tmp_path: Path) -> None:
    said: list[str] = []
    follower = Follower(tmp_path, ("a", "b"), said.append)
    (tmp_path / "a").mkdir()
    events(follower, ("started", "a", 0.0))
    follower.tick(29.0)
    assert "".join(said) == "[1/2] a ..."
    (tmp_path / "a" / "log.txt").write_text("epoch 1\nepoch 2\n")
    for now in range(29, 155):
        follower.tick(float(now))
    events(follower, ("done", "a", 155.0), ("started", "b", 156.0), ("failed", "b", 157.0))
    follower.end()
    assert "".join(said).splitlines() == [
        "[1/2] a ... 30 s so far  epoch 2",
        "[1/2] a ... 90 s so far  epoch 2",
        "[1/2] a ... 150 s so far  epoch 2",
        "[1/2] a ... 4 s, 2 MB",
        "[2/2] b ... failed",
        "stage b: no",
        "  in b.py",
        "  x",
    ]


def test_two_stages_at_once_do_not_mix(tmp_path: Path) -> None:
    said: list[str] = []
    follower = Follower(tmp_path, ("a", "b"), said.append)
    events(follower, ("started", "a", 0.0), ("started", "b", 1.0), ("done", "a", 5.0), ("done", "b", 6.0))
    follower.end()
    text = "[1/2] a ...\n[2/2] b ...\n[1/2] a ... 4 s, 2 MB\n[2/2] b ... 4 s, 2 MB\n"
    assert "".join(said) == text


def test_a_terminal_shows_it_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    follower = Follower(tmp_path, ("a", "b"), said.append, live=True)
    monkeypatch.setenv("COLUMNS", "40")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "log.txt").write_text("a line that is too long for the terminal\n")
    events(follower, ("started", "a", 0.0))
    follower.tick(3.0)
    follower.tick(3.1)
    assert said == [CLEAR + "[1/2] a ... 3 s  a line that is too lon"] and len(said[0]) == len(CLEAR) + 39
    events(follower, ("started", "b", 4.0))
    follower.tick(5.0)
    assert said[-1].startswith(CLEAR + "[1/2] a ... 5 s, [2/2] b ... 1 s")
    events(follower, ("done", "a", 5.0))
    assert "".join(said).endswith(CLEAR + "[1/2] a ... 4 s, 2 MB\n")
    follower.end(-9)
    assert said[-3:-1] == [CLEAR, "Snakemake was ended by signal 9\n"] and said[-1].startswith("stage b ended without")


def test_a_terminal_without_some_letter_ends_nothing() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "CYTOLIB_DATA": "/absent/Erythrozyten-\u00fc"}
    command = [sys.executable, "-m", "cytolib.cli", "data", "list"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "data root: /absent/Erythrozyten-?" in done.stdout
