"""Run every case and print the table: ``python -m tests.hostile [--out FILE.csv] [--only WORD]``."""

from __future__ import annotations

import argparse
import csv
import os
import re
import sys
import tempfile
import time
from pathlib import Path

# Before anything reads them: no network, one thread, so that a fork inherits no locked pool.
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
os.environ |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}

from cytolib.run import root  # noqa: E402
from tests.hostile.every import CASES  # noqa: E402
from tests.hostile.judge import Verdict, clean, run_case  # noqa: E402

COLUMNS = ("input", "door", "what was said", "ms")


def main() -> int:
    """0 if every input was refused as it should be."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description="hostile inputs and what is said")
    parser.add_argument("--out", type=Path, help="the table as CSV")
    parser.add_argument("--only", default="", metavar="WORD", help="cases whose input or door has this word")
    options = parser.parse_args()
    chosen = [case for case in CASES if options.only in case.input or options.only in case.door]
    rows, bad, started = [], 0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hostile-") as scratch:
        for number, case in enumerate(chosen):
            folder = Path(scratch) / f"{number:03d}"
            verdict = run_case(case, folder)
            clean(folder)
            said = _plain(verdict.said, folder)
            rows.append((case.input, case.door, said, f"{verdict.ms:.0f}"))
            print(f"{case.input} | {case.door} | {said} | {verdict.ms:.0f}", flush=True)
            bad += bool(verdict.faults)
            _complain(case.input, verdict)
    if options.out is not None:
        _write(rows, options.out)
    print(f"{time.monotonic() - started:.0f} s")
    print(f"{len(chosen) - bad} of {len(chosen)} refused as they should be")
    return int(bad > 0)


def _plain(said: str, folder: Path) -> str:
    """What was said, without the places of this machine."""
    for place in (str(folder / "in"), str(folder), str(root()), sys.prefix, tempfile.gettempdir()):
        said = said.replace(place, "…")
    return re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1", said)


def _complain(name: str, verdict: Verdict) -> None:
    for fault in verdict.faults:
        print(f"  FAULT {name}: {fault}", flush=True)


def _write(rows: list[tuple[str, ...]], path: Path) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)


if __name__ == "__main__":
    sys.exit(main())
