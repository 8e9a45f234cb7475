"""``python -m tests.faults``: every fault, played on the real chain, as a table.

    python -m tests.faults                        every kind of fault, 20 kills, seed 0
    python -m tests.faults --all                  and further variations of them
    python -m tests.faults --only kill disk       cases whose line in --list contains one of these
    python -m tests.faults --seed 3 --out t.csv   other victims and moments; the table as CSV

The last line counts: ``N of N passed``; the exit code is 1 unless all passed. Where mounting is forbidden, cases
of full and read-only disks are skipped with the reason, and counted as skipped.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from tests.faults.cases import Case, all_cases
from tests.faults.training import long_training
from tests.faults.trial import CONFIG, LIMIT_S, RUN, Skipped, Undisturbed, check, wait_for

COLUMNS = ("case", "played", "said", "after", "seconds", "verdict")


class Making:
    """The undisturbed run, made from nothing with nothing in its way; its first stages can be used before its end."""

    def __init__(self, folder: Path) -> None:
        self.runs, self.cache = folder / "runs", folder / "cache"

    def run(self) -> Undisturbed:
        """Make it, where it is not there yet."""
        if not (self.runs / RUN / "index.html").is_file():
            environment = {**os.environ, "CYTOLIB_RUNS": str(self.runs), "CYTOLIB_CACHE": str(self.cache)}
            environment.pop("OMP_NUM_THREADS", None)
            command = [sys.executable, "-m", "cytolib.cli", "run", "--config", str(CONFIG), "--cores", "1"]
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        made = Undisturbed.of(self.runs, self.cache)
        print(f"the undisturbed run: {sum(made.seconds.values()):.0f} s in its stages", flush=True)
        return made

    def wait_for(self, *stages: str) -> Undisturbed:
        """What there is of it once these stages are done."""
        for stage in stages:
            done = wait_for((self.runs / RUN / stage / "manifest.json").is_file, LIMIT_S, 0.2)
            check(done, f"{stage} of the undisturbed run was not done after {LIMIT_S:.0f} s")
        return Undisturbed(self.runs, self.cache, {}, {})


def play(case: Case, making: Making, made: Future[Undisturbed], folder: Path) -> dict[str, str]:
    """Play one case in a folder of its own, once what it needs of the undisturbed run is made; a row of the table."""
    folder.mkdir()
    base = made.result() if case.needs is None else making.wait_for(*case.needs)
    started, said, after, verdict = time.monotonic(), "", "", "passed"
    try:
        said, after = case.play(base, folder)
    except Skipped as reason:
        said, verdict = str(reason), "skipped"
    except Exception as error:  # whatever it is, the case has not passed, and the others go on
        said, verdict = f"{type(error).__name__}: {error}", "FAILED"
        if not isinstance(error, AssertionError):
            traceback.print_exc()
    shutil.rmtree(folder, ignore_errors=True)
    values = (case.name, case.what, said, after, f"{time.monotonic() - started:.1f}", verdict)
    place = str(folder.parent)  # of this machine: it says nothing
    return {name: " ".join(value.replace(place, "…").split()) for name, value in zip(COLUMNS, values, strict=True)}


def line(row: dict[str, str]) -> str:
    """A row of the table for the terminal; a failure is told in full."""
    said = row["said"] if row["verdict"] == "FAILED" else _cut(row["said"], 70)
    return (
        f"{row['verdict']:<8}{row['case']:<15}{_cut(row['played'], 44):<45}{row['seconds']:>6} s  "
        f"{row['after']:<34} {said}"
    ).rstrip()


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def main(arguments: list[str]) -> int:
    """Play the chosen cases and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="the fault suite")
    parser.add_argument("--seed", type=int, default=0, help="of victims and moments (default: 0)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="cases whose line in --list contains one of these")
    parser.add_argument("--all", action="store_true", help="play the further variations too")
    parser.add_argument("--out", type=Path, metavar="FILE.csv", help="write the table")
    parser.add_argument("--base", type=Path, metavar="DIR", help="keep the undisturbed run there, or use the one there")
    parser.add_argument("--list", action="store_true", help="name the cases and stop")
    options = parser.parse_args(arguments)
    cases = [
        c
        for c in all_cases(options.seed)
        if (options.all or options.only or options.list or not c.more)
        and (not options.only or any(word in f"{c.name} {c.what}" for word in options.only))
    ]
    if options.list or not cases:
        print(
            "\n".join(f"{c.name:<15}{c.what}{' (--all)' if c.more else ''}" for c in cases)
            or "no case has such a name; try --list"
        )
        return 0 if cases else 2
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name)
        rows = []
        with ThreadPoolExecutor(2) as lanes:  # two cores: two cases side by side
            making = Making(options.base or folder / "base")
            made = lanes.submit(making.run)
            if any(case.name.startswith(("kill-train", "jupyter")) for case in cases):
                # beside it, as soon as its first two stages are done
                cases.insert(sum(case.needs is not None for case in cases), LONG_TRAINING)
            for row in lanes.map(lambda pair: _played(*pair, making, made, folder), enumerate(cases)):
                rows.append(row)
    rows = [row for row in rows if row["case"] != LONG_TRAINING.name]
    if options.out:
        with open(options.out, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
    count = {word: sum(row["verdict"] == word for row in rows) for word in ("passed", "FAILED", "skipped")}
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime
    print(f"{time.monotonic() - started:.0f} s; processor time of all that ended in order: {cpu:.0f} s")
    skipped = f", {count['skipped']} skipped" if count["skipped"] else ""
    print(f"{count['passed']} of {len(rows)} passed{skipped}")
    return int(count["FAILED"] > 0)


def _make_long_training(base: Undisturbed, folder: Path) -> tuple[str, str]:
    long_training(base)
    return "", ""


#: No case: what several cases compare with.
LONG_TRAINING = Case("undisturbed", "a long training", _make_long_training, needs=("00_data", "01_embed"))


def _played(number: int, case: Case, making: Making, made: Future[Undisturbed], folder: Path) -> dict[str, str]:
    row = play(case, making, made, folder / f"{number}")
    print(line(row), flush=True)
    return row


def _in_namespace() -> None:
    """Without root, start again as root of a user namespace, where mounting is allowed; where there are none, go on."""
    if os.geteuid() == 0 or os.environ.get("CYTOLIB_FAULTS_NAMESPACE") or not (program := shutil.which("unshare")):
        return
    if subprocess.run([program, "-rm", "true"], capture_output=True, check=False).returncode == 0:
        os.environ["CYTOLIB_FAULTS_NAMESPACE"] = "1"
        os.execv(program, [program, "-rm", sys.executable, "-m", "tests.faults", *sys.argv[1:]])


if __name__ == "__main__":
    _in_namespace()
    sys.exit(main(sys.argv[1:]))
