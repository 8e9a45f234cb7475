"""Clean the notebooks' sources: `python -m tests.strip_notebooks [--run] [NOTEBOOK ...]`, by default all of them.

Outputs, counts and what papermill and widgets leave behind go. Cells tagged both keep_output and
nbval-check-output keep output and count, which nbval compares. With --run the notebooks are executed first, so
that the kept outputs are new; give the notebooks in the order of the chain, or none for all.
"""

import argparse
import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbstripout import strip_output

from tests.notebook_lint import KEPT_TAGS

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
LEFTOVERS = [
    *("metadata.papermill", "metadata.widgets", "metadata.language_info.version", "metadata.toc"),
    *("cell.metadata.papermill", "cell.metadata.execution", "cell.metadata.widgets"),
    *("cell.metadata.collapsed", "cell.metadata.scrolled", "cell.metadata.jupyter"),
]
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}  # as JupyterLab writes it


def strip(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without outputs, counts and leftovers, but for the cells whose output nbval compares."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and not KEPT_TAGS <= set(cell.metadata.get("tags", [])):
            cell.outputs, cell.execution_count = [], None
    # nbval refuses outputs without a count, hence keep_count; the others' counts went above.
    stripped = strip_output(notebook, keep_output=False, keep_count=True, keep_id=True, extra_keys=LEFTOVERS)
    stripped.metadata["kernelspec"] = dict(KERNEL)
    return stripped


def execute(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Run every cell in place as nbval does, writing into papermill_runs/nbval."""
    os.environ["CYTOLIB_RUN"] = "nbval"
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()


def strip_file(path: Path, run: bool = False) -> bool:
    """Clean one file; True if it changed."""
    before = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(before, as_version=4)
    if run:
        execute(notebook, path.parent)
    after = nbformat.writes(strip(notebook)) + "\n"
    if after != before:
        part = path.with_suffix(".part")
        part.write_text(after, encoding="utf-8")
        part.replace(path)
    return after != before


def main(arguments: list[str]) -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(prog="python -m tests.strip_notebooks", description="clean notebook sources")
    parser.add_argument("--run", action="store_true", help="execute first, so that kept outputs are new")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: notebooks/*.ipynb")
    chosen = parser.parse_args(arguments)
    for path in chosen.notebooks or sorted(NOTEBOOKS.glob("*.ipynb")):
        print(f"{path.name}: {'cleaned' if strip_file(path, run=chosen.run) else 'already clean'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
