"""Notebooks run in JupyterLab from the menu, in a real browser; and a notebook that fails there is seen to fail."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from cytolib.run import sha256
from tests.browser.lab import (
    MAX_SCREENSHOTS,
    Lab,
    click_run_all,
    end_kernels,
    find_browser,
    lab_session,
    open_notebook,
    press_stop,
    problems,
    restart_and_run_all,
    run_all,
    take_screenshots,
    wait_for_end,
    wait_for_text,
)

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parent.parent.parent
RUN = ROOT / "papermill_runs" / "browser"
REAL = ["00_data.ipynb", "01_embed.ipynb"]  # in this order: the second reads what the first wrote

PICTURE = "import matplotlib.pyplot as plt\n\nplt.plot([1, 2, 3])\nplt.show()"
TOYS = {
    "good.ipynb": ["import sys", "print('a warning', file=sys.stderr)", PICTURE, *["print(1)"] * 40, "1 + 1"],
    "raises.ipynb": ["x = 1", "raise ValueError('no such smear')", "print('never')"],
    "dies.ipynb": ["import os, signal", "os.kill(os.getpid(), signal.SIGKILL)", "print('never')"],
    "hangs.ipynb": ["import time", "time.sleep(600)"],
}


def write_toys(folder: Path) -> list[Path]:
    """The toy notebooks as files."""
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    for name, sources in TOYS.items():
        cells = [new_markdown_cell(f"# {name}"), *map(new_code_cell, sources)]
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / name)
    return [folder / name for name in TOYS]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if find_browser() is None:
        message = "no Chromium on PATH: install it (.ci/run shows how)"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    sources = [ROOT / "notebooks" / name for name in REAL]
    toys = write_toys(tmp_path_factory.mktemp("toys"))
    with lab_session(toys + [path for path in sources if path.exists()], RUN) as lab:
        yield lab


def test_a_good_notebook_passes_and_is_pictured(lab: Lab) -> None:
    run = run_all(lab, "good.ipynb", timeout=60)
    assert run.errors == []
    assert len(run.screenshots) >= 2, "44 code cells are higher than one window"
    assert all(path.stat().st_size > 10_000 for path in run.screenshots)


def test_an_exception_is_reported(lab: Lab) -> None:
    run = run_all(lab, "raises.ipynb", timeout=60)
    assert run.errors == [
        "code cell 2: ValueError: no such smear",
        "code cell 3 did not run to its end",
    ]
    assert run.screenshots


def test_a_dead_kernel_is_reported(lab: Lab) -> None:
    run = run_all(lab, "dies.ipynb", timeout=60)
    assert "The kernel" in run.errors[0] and "code cell 3 did not run" in run.errors[-1], run.errors


def test_a_hanging_cell_is_reported(lab: Lab) -> None:
    run = run_all(lab, "hangs.ipynb", timeout=6)
    assert run.errors == ["did not finish within 6 s", "code cell 2 did not run to its end"]


@pytest.mark.parametrize("name", REAL)
def test_a_project_notebook_runs_in_the_lab(name: str, lab: Lab) -> None:
    assert (ROOT / "notebooks" / name).exists(), f"notebooks/{name} is missing"
    before = (ROOT / "notebooks" / name).read_bytes()
    run = run_all(lab, name, timeout=240)
    print(f"{name}: {run.seconds:.0f} s in the browser, {len(run.screenshots)} screenshots in papermill_runs/browser")
    assert run.errors == []
    assert len(run.screenshots) < MAX_SCREENSHOTS, "so long a page is no reading: what prints so much?"
    assert (ROOT / "notebooks" / name).read_bytes() == before, "the source must stay as it is"


def short_training(lab: Lab) -> str:
    """Notebook 02 with fewer steps and a checkpoint every 20, in the lab's folder; gives its file name."""
    name = "02_train_diffusion.ipynb"
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    for old, new in (
        ("steps: int = 600 ", "steps: int = 200 "),
        ("checkpoint_dir=", "checkpoint_every=20, checkpoint_dir="),
    ):
        (cell,) = [cell for cell in notebook.cells if cell.cell_type == "code" and old in cell.source]
        cell.source = cell.source.replace(old, new)
    nbformat.write(notebook, lab.folder / "notebooks" / name)
    return name


def test_a_stopped_training_goes_on_and_comes_out_the_same(lab: Lab) -> None:
    """Stop in the middle of training, then Restart Kernel and Run All Cells: as if nobody had stopped it."""
    for notebook in REAL:
        if not (RUN / notebook.removesuffix(".ipynb") / "manifest.json").is_file():
            assert run_all(lab, notebook, timeout=400).errors == []
    name, folder = short_training(lab), RUN / "02_train_diffusion"
    weights = folder / "model" / "denoiser" / "diffusion_pytorch_model.safetensors"
    training = 6  # number of the code cell

    start = time.monotonic()
    open_notebook(lab, name, timeout=90)
    click_run_all(lab.page)
    wait_for_text(lab.page, training, r"\b([2-9]\d|1\d\d)/200\s", timeout=180)
    press_stop(lab.page)
    assert wait_for_end(lab.page, timeout=60) is None
    found = problems(lab.page)
    assert found[0].startswith(f"code cell {training}: KeyboardInterrupt"), found
    assert f"code cell {training + 1} did not run to its end" in found, "no cell after it may run"
    take_screenshots(lab, "stopped")
    assert list((folder / "checkpoints").glob("*.pt")), "nothing to go on from"
    assert not weights.exists() and not (folder / "manifest.json").exists(), "stopped, and yet published"

    restart_and_run_all(lab.page)
    assert wait_for_end(lab.page, timeout=300) is None
    assert problems(lab.page) == []
    end_kernels(lab)
    assert (folder / "manifest.json").is_file()
    went_on = sha256(weights)

    shutil.rmtree(folder)
    assert run_all(lab, name, timeout=300).errors == []
    assert sha256(weights) == went_on, "the stopped training came out otherwise"
    print(f"stopped, gone on, and once undisturbed: {time.monotonic() - start:.0f} s")
