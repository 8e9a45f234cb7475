"""The undisturbed run, copies of it to do harm to, and what must hold of each copy afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

from cytolib.run import root, sha256
from cytolib.run.config import read_config
from cytolib.run.manifest import read_manifest, stale_stages
from cytolib.run.stage import output_files
from cytolib.run.stages import Chain

CONFIG = root() / "configs" / "tiny.yaml"
RUN = "tiny"
LIMIT_S = 500.0  # of one command; nothing here takes a tenth of it on a machine of its own
GONE_S = 15.0  # until every process of a killed tree has ended


class Skipped(Exception):  # noqa: N818 (no error)
    """A case that this machine cannot play; the message says why."""


def check(fine: bool, message: str) -> None:
    """Fail the case with ``message`` unless ``fine``; unlike assert, with ``python -O`` too."""
    if not fine:
        raise AssertionError(message)


def wait_for(what: Callable[[], object], limit_s: float = 120.0, interval_s: float = 0.02) -> bool:
    """Wait until ``what()`` is true; False if it is not within ``limit_s`` seconds."""
    until = time.monotonic() + limit_s
    while not what():
        if time.monotonic() > until:
            return False
        time.sleep(interval_s)
    return True


@dataclass(frozen=True)
class Said:
    """How a command ended, and the text of its standard output and error."""

    code: int
    text: str

    @property
    def last(self) -> str:
        """The last line that says something."""
        lines = [line for line in self.text.splitlines() if line.strip()]
        return lines[-1] if lines else ""

    def sentence(self, code: int, *words: str) -> None:
        """Check the exit code, that these words were said, and that no traceback was."""
        check(self.code == code, f"exit code {self.code}, expected {code}: {self.text[-600:]}")
        check("Traceback" not in self.text, f"a traceback: {self.text[-600:]}")
        for word in words:
            check(word in self.text, f"{word!r} was not said: {self.text[-600:]}")


@dataclass(frozen=True)
class Undisturbed:
    """A finished run that nothing happened to.

    Attributes:
        runs: root of the runs; the run lies in ``runs/tiny``, its cache in ``cache``.
        outputs: SHA-256 of every output by stage and name: tables, weights, figures and all else that is no notebook,
            manifest, page or log.
        seconds: wall time of each stage.
    """

    runs: Path
    cache: Path
    outputs: dict[str, str]
    seconds: dict[str, float]

    @classmethod
    def of(cls, runs: Path, cache: Path) -> Undisturbed:
        """Measure the finished run ``runs/tiny``."""
        manifests = {name: read_manifest(runs / RUN / name) for name in Chain().names()}
        seconds = {name: float(manifest["wall_seconds"]) for name, manifest in manifests.items()}
        return cls(runs, cache, outputs_of(runs / RUN), seconds)


def outputs_of(run_folder: Path, *stages: str) -> dict[str, str]:
    """SHA-256 of all that stands under the name of an output in these stages (all for none), done or not."""
    found = {}
    for stage in stages or Chain().names():
        folder = run_folder / stage
        for name in output_files(folder, stage) if folder.is_dir() else ():
            found[f"{stage}/{name}"] = sha256(folder / name)
    return found


class Trial:
    """A copy of the undisturbed run in a folder of its own, and the commands that are given to it.

    Args:
        base: the undisturbed run.
        folder: an empty folder of this case.
        without: stages that the copy has not; "all" for a start from nothing.
        runs: where the runs of the copy lie; default ``folder / "runs"``.
        cores: what ``cytolib run`` may use.
    """

    def __init__(
        self,
        base: Undisturbed,
        folder: Path,
        *,
        without: tuple[str, ...] = (),
        runs: Path | None = None,
        cores: int = 1,
    ) -> None:
        self.base, self.folder, self.cores = base, folder, cores
        self.runs, self.cache = runs or folder / "runs", folder / "cache"
        self.run_folder, self.config = self.runs / RUN, CONFIG
        self.environment = {**os.environ, "CYTOLIB_RUNS": str(self.runs), "CYTOLIB_CACHE": str(self.cache)}
        for name in ("OMP_NUM_THREADS", "CYTOLIB_RUN", "PYTEST_CURRENT_TEST"):
            self.environment.pop(name, None)
        self.runs.mkdir(parents=True, exist_ok=True)
        if "all" not in without:
            left_out = shutil.ignore_patterns(".pipeline", *without)
            shutil.copytree(base.runs / RUN, self.run_folder, ignore=left_out, dirs_exist_ok=True)
            if "01_embed" not in without:
                shutil.copytree(base.cache, self.cache)

    def configure(self, stage: str, **parameters: object) -> None:
        """Use the tiny configuration with these parameters of a stage changed; without any, as it is."""
        values = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
        values["stages"].setdefault(stage, {}).update(parameters)
        self.config = self.folder / "changed.yaml" if parameters else CONFIG
        if parameters:
            self.config.write_text(yaml.safe_dump(values), encoding="utf-8")

    def command(self, *arguments: str) -> list[str]:
        """The command line of ``cytolib run`` or ``cytolib status`` for this copy."""
        cores = ["--cores", str(self.cores)] if arguments[0] == "run" else []
        return [sys.executable, "-m", "cytolib.cli", arguments[0], "--config", str(self.config), *cores, *arguments[1:]]

    def start(self, *arguments: str) -> Running:
        """Start a command in a process group of its own, as a terminal does."""
        return Running(self, arguments)

    def run(self, *arguments: str) -> Said:
        """``cytolib run`` to its end."""
        return self.start("run", *arguments).wait()

    def status_code(self) -> int:
        """Exit code of ``cytolib status``."""
        return self.start("status").wait().code

    def reasons(self) -> dict[str, list[str]]:
        """Why each stage is not done."""
        chain = Chain()
        return stale_stages(chain, self.run_folder, read_config(self.config, chain).parameters)

    def processes(self) -> list[psutil.Process]:
        """Living processes that this copy's commands started, orphans included: the environment names the copy."""
        found = []
        for process in psutil.process_iter():
            try:
                mine = process.environ().get("CYTOLIB_RUNS") == str(self.runs)
                if mine and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def check_nobody_left(self) -> None:
        """No process of this copy lives any more, a few seconds later at most."""
        if not wait_for(lambda: not self.processes(), GONE_S, 0.2):
            left = self.processes()
            names = [" ".join(process.cmdline())[-90:] for process in left]
            for process in left:
                process.kill()
            check(False, f"processes are left after {GONE_S:.0f} s: {names}")

    def check_truthful(self, harmed: str | None = None) -> bool:
        """No false "done", nothing half-written; returns whether the stage ``harmed`` (or the whole run) is done.

        A stage that counts as done holds the bytes of the undisturbed run, and whatever stands under the name of an
        output of a stage that is not done holds them too: it is whole.
        """
        reasons, found = self.reasons(), outputs_of(self.run_folder)
        for name, digest in found.items():
            if name.endswith("/model_index.json") or name.endswith("/README.md"):
                continue  # written twice, the second time with more in it
            check(self.base.outputs.get(name) == digest, f"{name} stands there with other bytes than undisturbed")
        for stage in (stage for stage, why in reasons.items() if not why):
            wanted = {name: digest for name, digest in self.base.outputs.items() if name.startswith(f"{stage}/")}
            mine = {name: digest for name, digest in found.items() if name.startswith(f"{stage}/")}
            check(mine == wanted, f"{stage} counts as done with other files than undisturbed")
        done = not any(reasons.values())
        code = self.status_code()
        check(code == (0 if done else 1), f"cytolib status ends with {code}, though the stages say {reasons}")
        if harmed is None:
            return done
        stands = (self.run_folder / harmed / "manifest.json").is_file()
        check(bool(reasons[harmed]) != stands, f"{harmed}: manifest there: {stands}, reasons: {reasons[harmed]}")
        return not reasons[harmed]

    def check_equal(self) -> None:
        """Every stage is done, with exactly the files and bytes of the undisturbed run."""
        reasons = {stage: why for stage, why in self.reasons().items() if why}
        check(not reasons, f"not done: {reasons}")
        mine, wanted = outputs_of(self.run_folder), self.base.outputs
        differ = sorted(name for name in mine.keys() | wanted.keys() if mine.get(name) != wanted.get(name))
        check(not differ, f"{len(differ)} outputs differ from the undisturbed run: {differ[:3]}")

    def mend(self, *arguments: str) -> Said:
        """Give the same command again, without any cleaning up; it ends with 0 and the bytes of the undisturbed run."""
        said = self.run(*arguments)
        said.sentence(0, "verified")
        self.check_equal()
        return said


class Running:
    """A command that goes on; its text is kept in files, so that no pipe holds it up."""

    def __init__(self, trial: Trial, arguments: tuple[str, ...]) -> None:
        self.trial = trial
        self._file = trial.folder / f"said-{time.monotonic_ns()}.txt"
        with open(self._file, "wb") as file:
            self.process = subprocess.Popen(
                trial.command(*arguments), env=trial.environment, cwd=root(), stdin=subprocess.DEVNULL,
                stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip

    @property
    def text(self) -> str:
        """What was said so far."""
        return self._file.read_text(encoding="utf-8", errors="replace")

    def wait(self, limit_s: float = LIMIT_S) -> Said:
        """Wait for its end; one that has none is killed and fails the case."""
        try:
            return Said(self.process.wait(limit_s), self.text)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise AssertionError(f"still at work after {limit_s:.0f} s: {self.text[-300:]}") from None

    def wait_for_stage(self, stage: str) -> bool:
        """Wait until the stage has begun; False if the command ended before."""
        # of this command alone: those of a killed one lie there until the next has looked at all stages
        events = self.trial.run_folder / ".pipeline" / f"events-{self.process.pid}.jsonl"
        word = f'{{"event": "started", "stage": "{stage}"'

        def begun() -> bool:
            return events.is_file() and word in events.read_text(errors="replace")

        wait_for(lambda: self.process.poll() is not None or begun(), LIMIT_S)
        return begun()

    def find(self, word: str, limit_s: float = 60.0) -> psutil.Process | None:
        """The first process below this one with ``word`` in its command line, as soon as there is one."""
        found: list[psutil.Process] = []

        def look() -> bool:
            try:
                below = psutil.Process(self.process.pid).children(recursive=True)
            except psutil.Error:
                return self.process.poll() is not None
            for process in below:
                try:
                    if word in " ".join(process.cmdline()):
                        found.append(process)
                except psutil.Error:
                    continue
            return bool(found) or self.process.poll() is not None

        wait_for(look, limit_s)
        return found[0] if found else None
