"""Run notebooks in the browser and keep pictures to look at: `python -m tests.browser.look [NOTEBOOK ...]`.

The notebooks are run in the order given, by default all of notebooks/; the pictures lie in papermill_runs/look/.
"""

import argparse
import sys
from pathlib import Path

from tests.browser.lab import lab_session, run_all

ROOT = Path(__file__).resolve().parent.parent.parent


def main(arguments: list[str]) -> int:
    """Command line entry; 0 if every notebook ran to its end."""
    parser = argparse.ArgumentParser(prog="python -m tests.browser.look", description="notebooks in the browser")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for each notebook")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: notebooks/*.ipynb")
    chosen = parser.parse_args(arguments)
    notebooks = chosen.notebooks or sorted((ROOT / "notebooks").glob("*.ipynb"))
    failed = 0
    with lab_session(notebooks, ROOT / "papermill_runs" / "look") as lab:
        for notebook in notebooks:
            run = run_all(lab, notebook.name, chosen.timeout)
            failed += bool(run.errors)
            print(f"{notebook.name}: {'FAILED' if run.errors else 'ran'} in {run.seconds:.0f} s", flush=True)
            print("".join(f"    {line}\n" for line in [*run.errors, *map(str, run.screenshots)]), end="", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
