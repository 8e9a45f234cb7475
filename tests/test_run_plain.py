"""Without papermill and kernels: a stage that did not finish is never done, and a finished one is the same."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from cytolib.run.execute import StageError, execute_stage
from cytolib.run.manifest import read_manifest, verify
from cytolib.run.pipeline import run_pipeline
from cytolib.run.plain_outputs import Recorder, without_magics
from cytolib.run.processes import identity
from cytolib.run.stages import Chain, StageSpec
from tests.run_tools import stage_notebook, toy_chain, toy_folder, write_notebook

KILL = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
WAYS = {  # name: (cells after the opening, is publish called last, what is said)
    "killed": (["x = 1", KILL], True, "code cell 4: the process died: it was killed by signal 9"),
    "exits": (["import sys; sys.exit(0)"], True, "code cell 3: SystemExit: 0"),
    "leaves": (
        ["x = 1", "import os; os._exit(0)"],
        True,
        "code cell 4: the process died: it ended itself with exit code 0",
    ),
    "leaves_last": (
        ["stage.publish(); import os; os._exit(0)"],
        False,
        "code cell 3: the process died: it ended itself with exit code 0",
    ),
    "breaks": (["import os; os._exit(7)"], True, "code cell 3: the process died: it ended itself with exit code 7"),
    "raises": (["", "raise ValueError('bad\\nnews')"], True, "code cell 4: ValueError: bad;"),
    "misspells": (["x = = 1"], True, "code cell 3: SyntaxError: invalid syntax"),
    "shells": (["!rm -rf data"], True, "code cell 3: SyntaxError: '!rm -rf data' is IPython's, not Python"),
    "sleeps": (["x = 1", "import time; time.sleep(60)"], True, "code cell 4: ran longer than 3 s and was stopped"),
    "forgets": (["_ = stage.path('x.txt').write_text('a')"], False, "ended without stage.publish()"),
    "tampers": (
        ["_ = stage.path('x.txt').write_text('a')", "stage.publish()", "_ = stage.path('x.txt').write_text('b')"],
        False,
        "the output x.txt was changed after stage.publish()",
    ),
    "late": (
        ["import atexit\n_ = atexit.register(lambda: stage.path('x.txt').write_text('b'))"],
        True,
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
    limit = 3 if name == "sleeps" else None
    with pytest.raises(StageError) as caught:
        execute_stage(chain[name], tmp_path / "run", {"seed": 1}, chain, cell_timeout_s=limit, plain=True)
    message = str(caught.value)
    assert said in message and message.startswith(f"stage {name}: ") and "\n" not in message
    assert message.endswith(f"see {folder / 'failed.ipynb'}") and (folder / "failed.ipynb").is_file()
    assert not (folder / "manifest.json").exists() and not (folder / f"{name}.ipynb").exists()
    assert verify(chain[name], tmp_path / "run", {"seed": 1}, chain)


SHOWS = (
    "%load_ext autoreload\n%autoreload 2\nimport matplotlib.pyplot as plt\nimport numpy as np\nimport pandas as pd\n"
    "from cytolib.run import Stage\nstage = Stage('shows', seed=seed, text=text, some=some)",
    "print('one')\nprint('two')\npd.DataFrame({f'column {k}': [k, k + 1] for k in range(30)})",
    "fig, ax = plt.subplots()\n_ = ax.plot([1, 2, seed])\nprint('before')\nstage.save_figure(fig, 'line')\n"
    "plt.show()\n'after'",
    "fig, ax = plt.subplots(figsize=(2, 1))\nax.hist([1, 2, 2])\nplt.title('shown at the end');",
    "import sys\nprint('to stderr', file=sys.stderr)\n"
    "display(pd.Series([1.5, 2.5]), {'b': 1, 'a': [2]})\nfor k in []:\n    k",
    "class Own:\n    pass\n\n\nassert Own.__module__ == __name__ == '__main__'\n{'z': 1, 'a': text, 'n': None}",
    "X = np.random.default_rng(seed).normal(size=(50, 3)) @ np.ones((3, 2))\n"
    "stage.save_table(pd.DataFrame(X, columns=['a', 'b']), 'table.parquet')\nX.shape",
    "stage.publish()",
)


def test_a_finished_notebook_is_as_papermill_leaves_it(tmp_path: Path) -> None:
    typed = "seed: int = 0\ntext: str = ''\nsome: list[float] = []"
    write_notebook(tmp_path / "notebooks" / "shows.ipynb", *SHOWS, parameters=typed)
    chain = Chain((StageSpec("shows"),), tmp_path / "notebooks")
    parameters = {"seed": 3, "text": '"; import os #\n{x}\\', "some": [0.5, 1e-9]}
    manifests, notebooks = [], []
    for plain in (False, True):
        run_folder = tmp_path / f"run{plain}"
        manifests.append(execute_stage(chain["shows"], run_folder, parameters, chain, plain=plain))
        assert verify(chain["shows"], run_folder, parameters, chain) == []
        notebook = nbformat.read(run_folder / "shows" / "shows.ipynb", as_version=4)
        nbformat.validate(notebook)
        notebooks.append([cell for cell in notebook.cells if cell.cell_type == "code"])
    usual, plain_one = manifests
    assert (usual["executor"], plain_one["executor"]) == ("papermill", "plain")
    assert plain_one["outputs"] == usual["outputs"] and set(usual["outputs"]) >= {"table.parquet", "figures/line.pdf"}
    assert plain_one["modules"] == usual["modules"] and plain_one["key"] == usual["key"]
    assert len(notebooks[0]) == len(notebooks[1]) == len(SHOWS) + 2
    for one, other in zip(*notebooks, strict=True):
        assert one.execution_count == other.execution_count
        assert [dict(output) for output in other.outputs] == [dict(output) for output in one.outputs], other.source
    log = (tmp_path / "runTrue" / "shows" / "log.txt").read_text()
    assert "one\ntwo\n" in log and "to stderr" in log


def test_only_the_magics_of_autoreload_are_known() -> None:
    assert without_magics("%load_ext autoreload\n%autoreload 2\nx = 1") == "pass\npass\nx = 1"
    assert without_magics("text = '''\n !x\n'''\nx = 7 % 2\n") == "text = '''\n !x\n'''\nx = 7 % 2\n"
    for bad in ("%matplotlib inline", "x = 1\n!ls", "%%time\nx = 1", "Stage?", "%autoreload now"):
        with pytest.raises(SyntaxError, match="is IPython's, not Python"):
            without_magics(bad)


def test_a_progress_bar_is_one_line_of_the_cell(capsys: pytest.CaptureFixture[str]) -> None:
    outputs, fine = Recorder().run("import sys\nfor k in range(3): _ = sys.stderr.write(f'\\r{k} of 3')", 1, {})
    assert fine and outputs == [{"output_type": "stream", "name": "stderr", "text": "2 of 3"}]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the toy chain, a configuration and a root for runs."""
    return toy_folder(tmp_path, monkeypatch)


def test_a_plain_run_is_taken_for_done_by_the_usual_one(toy: Path) -> None:
    """The plain run works where neither Snakemake nor papermill nor anything of Jupyter can be imported."""
    gone = ("snakemake", "papermill", "nbformat", "nbclient", "nbconvert", "IPython", "ipykernel", "jupyter_client")
    blocker = f"import sys\nsys.modules.update(dict.fromkeys({gone!r}))\n"
    (toy / "sitecustomize.py").write_text(blocker)
    code = (
        "import sys, pathlib\nfrom tests.run_tools import toy_chain\n"
        "from cytolib.run.pipeline import run_pipeline\nfolder = pathlib.Path(sys.argv[1])\n"
        "sys.exit(run_pipeline(folder / 'c.yaml', chain=toy_chain(folder), plain=True))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(toy)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("to run: first, second, third\n[1/3] first ... ") and "none here" in done.stdout
    (toy / "sitecustomize.py").unlink()
    manifests = [read_manifest(toy / "runs" / "toy" / name) for name in ("first", "second", "third")]
    assert [manifest["executor"] for manifest in manifests] == ["plain", "script", "script"]
    assert (toy / "runs" / "toy" / "third" / "tables" / "z.txt").read_text() == "77"
    said: list[str] = []
    assert run_pipeline(toy / "c.yaml", chain=toy_chain(toy), say=said.append) == 0
    assert said[0].startswith("nothing to do: 3 stages of run toy verified")
    # a changed parameter is noticed as ever, and stages whose inputs come out the same are kept
    (toy / "runs" / "toy" / "second" / "y.txt").write_text("78")
    said.clear()
    assert run_pipeline(toy / "c.yaml", chain=toy_chain(toy), plain=True, say=said.append) == 0
    assert "[3/3] third ... unchanged, its inputs came out the same\n" in "".join(said)


def test_a_failed_stage_leaves_out_those_that_need_it_and_no_others(toy: Path) -> None:
    (toy / "toy_bad.py").write_text("def main(stage) -> None:\n    raise ValueError('bad news')\n")
    (toy / "toy_good.py").write_text("def main(stage) -> None:\n    stage.path('x.txt').write_text('a')\n")
    stages = (
        StageSpec("bad", "script", entry="toy_bad:main"),
        StageSpec("after", "script", ("bad",), entry="toy_good:main"),
        StageSpec("aside", "script", entry="toy_good:main"),
    )
    (toy / "c.yaml").write_text("run: toy\n")
    said: list[str] = []
    assert run_pipeline(toy / "c.yaml", chain=Chain(stages, toy), plain=True, say=said.append) == 1
    text = "".join(said)
    assert "[1/3] bad ... failed\nstage bad: ValueError: bad news;" in text and "[2/3]" not in text
    assert "[3/3] aside ... " in text and "not done: bad, after; what is verified is kept" in text
    assert not (toy / "runs" / "toy" / "after" / "manifest.json").exists()


def test_a_killed_plain_run_ends_its_notebook(toy: Path) -> None:
    where = toy / "pid"
    cell = f"import os, pathlib, time\n_ = pathlib.Path({str(where)!r}).write_text(str(os.getpid()))\ntime.sleep(300)"
    stage_notebook(toy, "only", cell)
    (toy / "run.py").write_text(
        "import pathlib, sys\nfrom cytolib.run.stages import Chain, StageSpec\n"
        "from cytolib.run.pipeline import run_pipeline\nhere = pathlib.Path(__file__).parent\n"
        "sys.exit(run_pipeline(here / 'c.yaml', chain=Chain((StageSpec('only'),), here), plain=True))\n"
    )
    (toy / "c.yaml").write_text("run: toy\n")
    runner = subprocess.Popen([sys.executable, str(toy / "run.py")], stdout=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not (where.is_file() and where.read_text()):
        assert time.monotonic() < until and runner.poll() is None
        time.sleep(0.1)
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    while time.monotonic() < until:
        # not os.kill(pid, 0): where process 1 does not ask for the orphans it gets, a killed one keeps its number
        if identity(int(where.read_text())) is None:
            break
        time.sleep(0.1)
    else:
        pytest.fail("the notebook's process goes on without its runner")
    assert not (toy / "runs" / "toy" / "only" / "manifest.json").exists()
    executed = json.loads((toy / "runs" / "toy" / "only" / "failed.ipynb").read_text())
    assert all(cell["execution_count"] is None for cell in executed["cells"] if cell["cell_type"] == "code")
