"""`cytolib run` over a toy chain: it executes what is stale, nothing else, and says done only of what verifies."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cytolib.cli import main
from cytolib.run.execute import exclusive
from cytolib.run.pipeline import run_pipeline
from cytolib.run.processes import identity
from cytolib.run.reference import NOT_SHOWN, public_notebook, publish_run
from cytolib.run.stages import Chain, StageSpec
from cytolib.run.status import run_status
from tests.run_tools import SCRIPT, toy_chain, toy_folder, write_notebook


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the toy chain, a configuration and a root for runs."""
    return toy_folder(tmp_path, monkeypatch)


def run(folder: Path, **options: object) -> tuple[int, str]:
    """Run the toy chain; the exit code and all that was said."""
    said: list[str] = []
    code = run_pipeline(folder / "c.yaml", chain=toy_chain(folder), say=said.append, **options)  # type: ignore[arg-type]
    return code, "".join(said)


def test_a_run_from_start_to_report_and_again(toy: Path) -> None:
    code, said = run(toy, cores=2)
    assert code == 0, said
    assert [line.split(" ...")[0] for line in said.splitlines()[:5]] == [
        *("to run: first, second, third", "[1/3] first", "[2/3] second", "[3/3] third"),
        f"done: 3 stages verified, {said.split('verified, ')[1].split(' s')[0]} s",
    ]
    folder = toy / "runs" / "toy"
    page = (folder / "index.html").read_text()
    assert 'href="first/first.html"' in page and "://" not in page and str(toy) not in page
    notebook = (folder / "first" / "first.html").read_text()
    assert "publish" in notebook and 'src="http' not in notebook and 'href="http' not in notebook
    assert (folder / "third" / "tables" / "z.txt").read_text() == "77"

    # nothing is executed again, and quickly; neither Snakemake nor papermill nor torch is imported for it
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    code = (
        "import sys, time, pathlib\nfrom tests.run_tools import toy_chain\n"
        "from cytolib.run.pipeline import run_pipeline\nfolder = pathlib.Path(sys.argv[1])\n"
        "assert run_pipeline(folder / 'c.yaml', chain=toy_chain(folder)) == 0\n"
        "print([m for m in ('snakemake', 'papermill', 'torch', 'pandas') if m in sys.modules])"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code, str(toy)], capture_output=True, text=True, check=True)
    assert time.monotonic() - started < 10
    assert done.stdout.startswith("nothing to do: 3 stages of run toy verified\n") and done.stdout.endswith("[]\n")
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert {k: v for k, v in after.items() if k.name != "run"} == {k: v for k, v in before.items() if k.name != "run"}

    # a damaged output is noticed, only its stage is executed, and what follows is kept as its input is the same
    (folder / "second" / "y.txt").write_text("78")
    status = run_status(toy / "c.yaml", chain=toy_chain(toy))
    assert not status.done and status.stages[1].reasons == ["output y.txt was changed or damaged"]
    code_, said = run(toy)
    assert code_ == 0
    assert "stale: second: output y.txt was changed or damaged\n" in said
    assert "[2/3] second ... " in said and "[1/3]" not in said
    assert "[3/3] third ... unchanged, its inputs came out the same\n" in said
    assert (folder / "second" / "y.txt").read_text() == "77"


def test_a_failure_is_said_shortly_and_leaves_the_rest(toy: Path) -> None:
    notebooks = toy_chain(toy)
    (toy / "toy_first.py").write_text(
        "def main(stage, seed: int = 0) -> None:\n    stage.path('x.txt').write_text(str(seed))\n"
    )
    chain = Chain((StageSpec("first", "script", (), "toy_first:main"), *notebooks.stages[1:]), toy)
    (toy / "toy_second.py").write_text("def main(stage, n: int = 2) -> None:\n    raise ValueError('bad news')\n")
    said: list[str] = []
    assert run_pipeline(toy / "c.yaml", chain=chain, say=said.append) == 1
    text = "".join(said)
    log = toy / "runs" / "toy" / "second" / "log.txt"
    assert text.split("[2/3] ")[1].splitlines()[:-1] == [
        "second ... failed",
        f"stage second: ValueError: bad news; see {log}",
        f"  in {toy}/toy_second.py:2, in main",
        "       1  def main(stage, n: int = 2) -> None:",
        "  >    2      raise ValueError('bad news')",
    ]
    assert text.splitlines()[-1].startswith("not done: second, third; what is verified is kept")
    status = run_status(toy / "c.yaml", chain=chain)
    assert [stage.state for stage in status.stages] == ["done", "stale", "stale"]
    # repaired, the run goes on from there; --force executes the first again, --until stops before the third
    (toy / "toy_second.py").write_text(SCRIPT)
    said.clear()
    assert run_pipeline(toy / "c.yaml", chain=chain, say=said.append, until="second", force=("first",)) == 0
    again = "".join(said)
    assert "stale: first: it was forced\n[1/2] first ... " in again and "[2/2] second ... " in again
    assert "third" not in again and "done: 2 stages verified" in again


def test_only_what_is_stale_is_executed_whatever_the_times_of_files_say(toy: Path) -> None:
    assert run(toy)[0] == 0
    folder = toy / "runs" / "toy"
    shutil.rmtree(folder / ".pipeline")
    # each looks older than what it was made from, in the past and in a future that a wrong clock has shown
    for start in (1e9, 9e9):
        for age, name in enumerate(("first", "second", "third")):
            os.utime(folder / name / "manifest.json", (start - age * 1000,) * 2)
        (folder / "third" / "tables" / "z.txt").write_text("78")
        code, said = run(toy)
        assert code == 0, said
        assert "[3/3] third ... " in said and "[1/3]" not in said and "[2/3]" not in said


def test_two_runs_of_one_folder_do_not_mix(toy: Path) -> None:
    with exclusive(toy / "runs" / "toy" / ".pipeline" / "locks" / "run", ""):
        with pytest.raises(BlockingIOError, match="another `cytolib run` is at work on this run") as caught:
            run(toy)
    assert "\n" not in str(caught.value)


def test_a_killed_run_ends_its_jobs_and_blocks_nobody(toy: Path) -> None:
    (toy / "sleeps.py").write_text(
        "import os, pathlib, time\n"
        "def main(stage, n: int = 0) -> None:\n"
        "    pathlib.Path(os.environ['PYTHONPATH'], 'pid').write_text(str(os.getpid()))\n"
        "    time.sleep(n)\n"
    )
    (toy / "run.py").write_text(
        "import pathlib, sys\nfrom cytolib.run.stages import Chain, StageSpec\n"
        "from cytolib.run.pipeline import run_pipeline\nhere = pathlib.Path(__file__).parent\n"
        "chain = Chain((StageSpec('only', 'script', (), 'sleeps:main'),), here)\n"
        "sys.exit(run_pipeline(here / 'c.yaml', chain=chain))\n"
    )
    (toy / "c.yaml").write_text("run: toy\nstages: {only: {n: 300}}\n")
    runner = subprocess.Popen([sys.executable, str(toy / "run.py")], stdout=subprocess.DEVNULL)
    _wait(lambda: (toy / "pid").is_file() and (toy / "pid").read_text() != "")
    job = int((toy / "pid").read_text())
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    _wait(lambda: identity(job) is None)
    assert not (toy / "runs" / "toy" / "only" / "manifest.json").exists()
    (toy / "c.yaml").write_text("run: toy\nstages: {only: {n: 0}}\n")
    subprocess.run([sys.executable, str(toy / "run.py")], check=True, timeout=120)
    assert (toy / "runs" / "toy" / "only" / "manifest.json").is_file()


def _wait(until: object, limit_s: float = 90) -> None:
    end = time.monotonic() + limit_s
    while not until():  # type: ignore[operator]
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


def test_the_command_line_answers_in_one_sentence(
    toy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["run", "--config", "absent.yaml"], ["run", "--config", "absent.yaml", "--until", "99_no"],
                      ["figures", "--run", "../x"], ["publish", "--run", "absent"], ["stage", "x", "--plan", "no.json"],
                      ["run", "--cores", "0"]):  # fmt: skip
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("cytolib: ") and error.count("\n") == 1 and "Traceback" not in error
    with pytest.raises(FileNotFoundError):
        main(["run", "--debug", "--config", "absent.yaml"])


def test_real_cells_are_not_published(toy: Path) -> None:
    path = write_notebook(toy / "shown.ipynb", "show(cells)", "plot()")
    notebook = json.loads(path.read_text())
    picture = {"output_type": "display_data", "data": {"image/png": "AAAA"}, "metadata": {}}
    text = {"output_type": "stream", "name": "stdout", "text": ["120 cells\n"]}
    for cell in notebook["cells"][2:]:
        cell["outputs"] = [text, picture]
    notebook["cells"][2]["metadata"]["tags"] = ["shows-cells"]
    notebook["metadata"]["papermill"] = {"input_path": str(path)}
    path.write_text(json.dumps(notebook))
    real, drawn = public_notebook(path, True), public_notebook(path, False)
    assert [o.get("text") for o in real["cells"][2]["outputs"]] == [["120 cells\n"], NOT_SHOWN + "\n"]
    assert real["cells"][3]["outputs"] == [text, picture] == drawn["cells"][2]["outputs"]
    assert "papermill" not in real["metadata"]


def test_photographs_are_published_as_jpeg_and_charts_as_they_are(toy: Path) -> None:
    def png(pixels: np.ndarray) -> str:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        return base64.b64encode(buffer.getvalue()).decode()

    smooth = np.random.default_rng(0).integers(0, 255, (32, 32, 4), dtype=np.uint8)
    photograph = png(np.asarray(Image.fromarray(smooth).resize((512, 512), Image.Resampling.BICUBIC)))
    chart = png(np.zeros((512, 512, 3), np.uint8))
    path = write_notebook(toy / "shown.ipynb", "show(cells)", "plot()")
    notebook = json.loads(path.read_text())
    for cell, picture in zip(notebook["cells"][2:4], (photograph, chart), strict=True):
        cell["outputs"] = [{"output_type": "display_data", "data": {"image/png": picture}, "metadata": {}}]
    path.write_text(json.dumps(notebook))
    shown, plotted = (cell["outputs"][0]["data"] for cell in public_notebook(path, False)["cells"][2:4])
    assert plotted == {"image/png": chart} and list(shown) == ["image/jpeg"]
    with Image.open(io.BytesIO(base64.b64decode(shown["image/jpeg"]))) as found:
        assert found.size == (512, 512) and len(shown["image/jpeg"]) < len(photograph) / 2


def test_only_finished_runs_are_published(toy: Path) -> None:
    with pytest.raises(ValueError, match="00_data is not finished"):
        publish_run("toy", toy_chain(toy))
