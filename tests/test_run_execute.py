"""A stage that did not finish is never done, however its process ended and whatever papermill says of it."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path

import pytest

from cytolib.run import execute
from cytolib.run.artefacts import write_json
from cytolib.run.execute import StageError, exclusive, execute_stage
from cytolib.run.manifest import verify
from cytolib.run.processes import identity
from cytolib.run.stages import Chain, StageSpec
from tests.run_tools import stage_notebook, write_notebook

KILL = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
WAYS = {  # name: (cells after the opening, is publish called last, what is said)
    "killed": (["x = 1", KILL], True, "code cell 4: the kernel died"),
    "exits": (["import sys; sys.exit(0)"], True, "code cell 3: SystemExit: 0"),
    "raises": (["", "raise ValueError('bad\\nnews')"], True, "code cell 4: ValueError: bad;"),
    "sleeps": (["import time; time.sleep(60)"], True, "code cell 3: ran longer than 3 s and was stopped"),
    "forgets": (["_ = stage.path('x.txt').write_text('a')"], False, "ended without stage.publish()"),
    "tampers": (
        ["_ = stage.path('x.txt').write_text('a')", "stage.publish()", "_ = stage.path('x.txt').write_text('b')"],
        False,
        "the output x.txt was changed after stage.publish()",
    ),
    "reads": (["stage.optional_input('raises', 'x.txt')"], True, "ValueError: reads reads raises, which is not among"),
}


@pytest.mark.parametrize("name", WAYS)
def test_a_notebook_that_does_not_finish_is_never_done(name: str, tmp_path: Path) -> None:
    cells, publish, said = WAYS[name]
    stage_notebook(tmp_path / "notebooks", name, *cells, publish=publish)
    chain = Chain((StageSpec(name),), tmp_path / "notebooks")
    folder = tmp_path / "run" / name
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")  # of an earlier execution
    (folder / "old.txt").write_text("left by an earlier execution")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "state.pt").write_text("kept")
    with pytest.raises(StageError) as caught:
        execute_stage(chain[name], tmp_path / "run", {"seed": 1}, chain, cell_timeout_s=3 if name == "sleeps" else None)
    message = str(caught.value)
    assert said in message and message.startswith(f"stage {name}: ") and "\n" not in message
    assert message.endswith(f"see {folder / 'failed.ipynb'}") and (folder / "failed.ipynb").is_file()
    assert not (folder / "manifest.json").exists() and not (folder / f"{name}.ipynb").exists()
    assert not (folder / "old.txt").exists() and (folder / "checkpoints" / "state.pt").is_file()
    assert verify(chain[name], tmp_path / "run", {"seed": 1}, chain)


def test_a_notebook_sees_its_parameters_and_a_clean_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also: braces in a path, which papermill would format; and another ``python3`` first on the PATH."""
    fake = tmp_path / "bin" / "python3"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\nexit 3\n")
    fake.chmod(0o755)
    (tmp_path / "bin" / "python").symlink_to(fake)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebooks = tmp_path / "note{books}"
    write_notebook(
        notebooks / "sees.ipynb",
        "from cytolib.run import Stage, threads\nstage = Stage('sees', text=text)",
        "import os, pathlib, sys\n"
        "assert text == '\"; import os #\\n{x}', text\n"
        "assert threads() == 2 and os.environ['PYTHONHASHSEED'] == '0'\n"
        "assert 'inline' in os.environ['MPLBACKEND'], os.environ['MPLBACKEND']\n"
        "assert pathlib.Path.cwd().name == 'note{books}'\n"
        "_ = stage.path('python.txt').write_text(sys.executable)",
        "stage.publish()",
        parameters="text: str = ''",
    )
    chain = Chain((StageSpec("sees", threads=2),), notebooks)
    parameters = {"text": '"; import os #\n{x}'}
    manifest = execute_stage(chain["sees"], tmp_path / "run{x}", parameters, chain)
    assert (tmp_path / "run{x}" / "sees" / "python.txt").read_text() == sys.executable == manifest["python"]
    assert manifest["threads"] == 2
    assert (tmp_path / "run{x}" / "sees" / "log.txt").read_text().startswith("sees: 1 files\n")
    assert verify(chain["sees"], tmp_path / "run{x}", parameters, chain) == []


SCRIPTS = {
    "exits": ("import sys; sys.exit(0)", "ended without stage.publish()"),
    "leaves": ("import os; os._exit(0)", "ended without stage.publish()"),
    "killed": ("import os; os.kill(os.getpid(), 9)", "killed by signal 9"),
    "raises": ("raise ValueError('bad news')", "ValueError: bad news"),
    "sleeps": ("import time; time.sleep(60)", "ran longer than 2 s"),
    "tampers": ("stage.publish(); stage.path('x').write_text('a')", "x was changed after stage.publish()"),
    "forges": (
        "stage._request['token'] = 'of an earlier execution'; stage.publish(); import os; os._exit(0)",
        "its publication is not of this execution",
    ),
    "resets": ("stage.__init__('other', seed=seed)", "Stage('other') was opened while the runner executes 'resets'"),
    "alters": ("stage.__init__('alters', seed=2)", "seed is 2 but the runner asked for 1"),
    "omits": ("stage.__init__('omits')", "the parameter seed is not passed on"),
    "invents": ("stage.__init__('invents', seed=1, more=2)", "more is 2 but the runner asked for no such parameter"),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_that_does_not_finish_is_never_done(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said = SCRIPTS[name]
    (tmp_path / "tried.py").write_text(f"def main(stage, seed: int = 0) -> None:\n    {code}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    chain = Chain((StageSpec(name, "script", entry="tried:main"),), tmp_path)
    with pytest.raises(StageError) as caught:
        execute_stage(chain[name], tmp_path / "run", {"seed": 1}, chain, cell_timeout_s=2 if name == "sleeps" else None)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run" / name / "manifest.json").exists()


def test_a_lock_is_refused_while_it_is_held_and_free_afterwards(tmp_path: Path) -> None:
    with exclusive(tmp_path / "lock", "taken"):
        with pytest.raises(BlockingIOError, match="taken"), exclusive(tmp_path / "lock", "taken"):
            pass
    with exclusive(tmp_path / "lock", "taken"):
        pass


def test_a_full_disk_is_a_failure_that_is_told_and_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the manifest nor the note of the failure finds room, until the outputs of no use are gone."""
    (tmp_path / "tried.py").write_text(
        "def main(stage) -> None:\n    stage.path('large.bin').write_bytes(bytes(1000))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    chain = Chain((StageSpec("fills", "script", entry="tried:main"),), tmp_path)
    folder = tmp_path / "run" / "fills"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "state.pt").write_text("kept")
    (folder / "checkpoints" / ".state.0a1b2c3d.pt").write_text("torn by a kill")

    def write(values: object, path: Path) -> None:
        if (folder / "large.bin").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write_json(values, path)

    monkeypatch.setattr(execute, "write_json", write)
    with pytest.raises(StageError, match=r"^stage fills: \[Errno 28\] No space left on device: '.*manifest\.json'$"):
        execute_stage(chain["fills"], tmp_path / "run", {}, chain)
    assert "No space left" in json.loads((folder / ".failure.json").read_text())["message"]
    assert sorted(path.name for path in folder.iterdir()) == [".failure.json", "checkpoints", "log.txt"]
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["state.pt"]
    assert verify(chain["fills"], tmp_path / "run", {}, chain) == ["it has not finished yet (no manifest)"]


def test_nobody_writes_to_a_stage_after_its_process_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that a killed script left behind is ended before anything is verified."""
    (tmp_path / "tried.py").write_text(
        "import os, pathlib, subprocess, sys\n"
        "def main(stage) -> None:\n"
        "    code = 'import time; time.sleep(300)'\n"
        "    worker = subprocess.Popen([sys.executable, '-c', code], start_new_session=True)\n"
        "    pathlib.Path(os.environ['PYTHONPATH'], 'pid').write_text(str(worker.pid))\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    chain = Chain((StageSpec("leaves", "script", entry="tried:main"),), tmp_path)
    with pytest.raises(StageError, match="killed by signal 9"):
        execute_stage(chain["leaves"], tmp_path / "run", {}, chain)
    assert identity(int((tmp_path / "pid").read_text())) is None
