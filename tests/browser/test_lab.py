"""Notebooks run in JupyterLab from the menu, in a real browser; and a notebook that fails there is seen to fail."""

import os
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tests.browser.lab import MAX_SCREENSHOTS, Lab, find_browser, lab_session, run_all

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parent.parent.parent
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
    with lab_session(toys + [path for path in sources if path.exists()], ROOT / "papermill_runs" / "browser") as lab:
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
