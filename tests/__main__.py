"""What `make test` runs: every check of the project, section by section, whatever fails on the way.

    python -m tests                         all
    python -m tests --only unit browser     some

Sections: lint, format, types, unit, notebooks (nbval), browser. The last line counts: `N passed, N failed`.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NBVAL_RUN = ROOT / "papermill_runs" / "nbval"
SOURCES = [name for name in ("cytolib", "tests", "workflow", "notebooks", "benchmarks") if (ROOT / name).is_dir()]
NOTEBOOKS_LIMIT = 300  # seconds for all notebooks together with their defaults


@dataclass
class Outcome:
    """Counts of one section; `note` says what no count says."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    note: str = ""


def python(*arguments: str, **environment: str) -> int:
    """Exit code of this Python with these arguments, in the project root, its words shown as they come."""
    return subprocess.call([sys.executable, *arguments], cwd=ROOT, env=os.environ | environment)


def tool(*arguments: str) -> Outcome:
    """A section that is one command: it passes or it does not."""
    return Outcome(passed=1) if python("-m", *arguments) == 0 else Outcome(failed=1)


def run_pytest(*arguments: str, **environment: str) -> tuple[Outcome, dict[str, float]]:
    """Counts of a pytest run, and the seconds spent in each test file."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        code = python("-m", "pytest", *arguments, f"--junitxml={report}", **environment)
        cases = list(ElementTree.parse(report).iter("testcase")) if report.exists() else []
    outcome = Outcome()
    seconds: dict[str, float] = {}
    for case in cases:
        verdicts = {child.tag for child in case}
        outcome.failed += bool(verdicts & {"failure", "error"})
        outcome.skipped += "skipped" in verdicts
        outcome.passed += not verdicts & {"failure", "error", "skipped"}
        file = case.get("classname", "")
        seconds[file] = seconds.get(file, 0.0) + float(case.get("time", 0))
    if code and not outcome.failed:
        outcome.failed, outcome.note = 1, f"pytest ended with code {code}"
    return outcome, seconds


def lint() -> Outcome:
    """ruff's rules, on Python files and notebooks."""
    return tool("ruff", "check", *SOURCES)


def layout() -> Outcome:
    """ruff's layout, on Python files and notebooks."""
    return tool("ruff", "format", "--check", *SOURCES)


def types() -> Outcome:
    """mypy on the package."""
    return tool("mypy")


def unit() -> Outcome:
    """Unit, estimator, environment, pipeline tests and the notebook lint, on two processes of one thread each."""
    options = ("--ignore=tests/browser", "--durations=10", "--numprocesses=2", "--dist=loadfile")
    return run_pytest("tests", *options, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")[0]


def notebooks() -> Outcome:
    """Every notebook under nbval with its defaults, from nothing, each publishing its manifest, in 300 s together."""
    paths = sorted((ROOT / "notebooks").glob("*.ipynb"))
    shutil.rmtree(NBVAL_RUN, ignore_errors=True)
    options = ("--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=120")
    start = time.monotonic()
    outcome, seconds = run_pytest(*options, "notebooks/", CYTOLIB_RUN="nbval")
    took = time.monotonic() - start
    print()
    for file, spent in sorted(seconds.items()):
        print(f"    {file:<40} {spent:6.1f} s")
    print(f"    {'together':<40} {took:6.1f} s of {NOTEBOOKS_LIMIT} s, load average {os.getloadavg()[0]:.1f}")
    if took > NOTEBOOKS_LIMIT:
        outcome.failed += 1
        outcome.note = f"the notebooks took {took:.0f} s, at most {NOTEBOOKS_LIMIT} s are allowed"
    # nbval goes on after sys.exit(0): only the manifest, which the last cell writes, proves that a stage ended.
    silent = [path.stem for path in paths if not (NBVAL_RUN / path.stem / "manifest.json").is_file()]
    if silent:
        outcome.failed += 1
        outcome.note = f"no manifest from {', '.join(silent)}"
    return outcome


def browser() -> Outcome:
    """Notebooks run from JupyterLab's menu in a real browser."""
    return run_pytest("tests/browser", "-rs")[0]


SECTIONS: dict[str, Callable[[], Outcome]] = {
    "lint": lint,
    "format": layout,
    "types": types,
    "unit": unit,
    "notebooks": notebooks,
    "browser": browser,
}


def main(arguments: list[str]) -> int:
    """Run the sections and print the table; 0 if nothing failed."""
    parser = argparse.ArgumentParser(prog="python -m tests", description="all checks of the project")
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="SECTION", help=", ".join(SECTIONS)
    )
    chosen = [name for name in SECTIONS if name in parser.parse_args(arguments).only]
    rows: list[tuple[str, Outcome, float]] = []
    for name in chosen:
        print(f"\n==== {name}: {SECTIONS[name].__doc__}", flush=True)
        start = time.monotonic()
        rows.append((name, SECTIONS[name](), time.monotonic() - start))
        print(f"---- {name}: {rows[-1][2]:.1f} s", flush=True)
    print(f"\n{'section':<12}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>10}")
    for name, outcome, seconds in rows:
        counts = f"{outcome.passed:>8}{outcome.failed:>8}{outcome.skipped:>9}{seconds:>10.1f}"
        print(f"{name:<12}{counts}  {outcome.note}".rstrip())
    passed, failed = (sum(getattr(outcome, word) for _, outcome, _ in rows) for word in ("passed", "failed"))
    skipped = sum(outcome.skipped for _, outcome, _ in rows)
    print(f"{'total':<12}{passed:>8}{failed:>8}{skipped:>9}{sum(seconds for *_, seconds in rows):>10.1f}\n")
    print(f"{passed} passed, {failed} failed", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
