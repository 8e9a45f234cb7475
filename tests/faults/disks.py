"""Disks that are full or may not be written: small tmpfs and read-only mounts."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.trial import RUN, Skipped, Trial, Undisturbed, check, wait_for


def _mount(*arguments: str) -> None:
    program = shutil.which("mount")
    done = (
        None if program is None else subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    )
    if done is None or done.returncode:
        reason = "there is no program mount" if done is None else done.stderr.strip()
        raise Skipped(f"mounting needs root, or user namespaces (unshare -rm): {reason}")


@contextmanager
def mounted(*arguments: str, on: Path) -> Iterator[None]:
    """Mount on a folder while the block runs."""
    on.mkdir(parents=True, exist_ok=True)
    _mount(*arguments, str(on))
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(on)], check=False, capture_output=True)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder that nobody can write to, root included, while the block runs."""
    with mounted("--bind", str(folder), on=folder):
        _mount("-o", "remount,bind,ro", str(folder))
        yield


def _size(folder: Path) -> int:
    """Bytes that the files below take in whole pages, folders a page each, as tmpfs counts them."""
    return sum(4096 if path.is_dir() else -(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*"))


def play_full_disk(base: Undisturbed, folder: Path, stage: str, room: int) -> tuple[str, str]:
    """A disk with ``room`` bytes for a stage that needs more: one sentence, nothing torn; with more room, equal."""
    (folder / "plain").mkdir()
    plain = Trial(base, folder / "plain", without=(stage, "checkpoints"))
    size = _size(plain.runs) + room
    with mounted("-t", "tmpfs", "-o", f"size={size}", "tmpfs", on=folder / "disk"):
        shutil.copytree(plain.run_folder, folder / "disk" / RUN)
        shutil.rmtree(plain.runs)
        trial = Trial(base, folder / "plain", without=("all",), runs=folder / "disk")
        until = () if stage == "10_figures" else ("--until", stage)
        said = trial.run(*until)
        said.sentence(1, "No space left on device", f"not done: {stage}")
        trial.check_nobody_left()
        check(not trial.check_truthful(stage), f"{stage} counts as done on a full disk")
        _mount("-o", f"remount,size={size + 2**28}", str(folder / "disk"))
        trial.mend(*until)
    sentence = next(line for line in said.text.splitlines() if "No space left" in line)
    return sentence, "with more room: equal"


def play_disk_fills(base: Undisturbed, folder: Path, when: str) -> tuple[str, str]:
    """Another program fills the disk at the moment when ``when`` appears in the last stage."""
    stage = "10_figures"
    (folder / "plain").mkdir()
    plain = Trial(base, folder / "plain", without=(stage, "checkpoints"))
    size = _size(plain.runs) + 2**22
    with mounted("-t", "tmpfs", "-o", f"size={size}", "tmpfs", on=folder / "disk"):
        shutil.copytree(plain.run_folder, folder / "disk" / RUN)
        shutil.rmtree(plain.runs)
        trial = Trial(base, folder / "plain", without=("all",), runs=folder / "disk")
        running = trial.start("run")
        check(wait_for((trial.run_folder / stage / when).exists, 300, 0.001), f"{when} never appeared: {running.text}")
        _fill(folder / "disk" / "filler")
        said = running.wait()
        said.sentence(2 if "done: " in said.text else 1, "No space left on device")
        trial.check_nobody_left()
        trial.check_truthful(stage)
        (folder / "disk" / "filler").unlink()
        trial.mend()
        check((trial.run_folder / "index.html").is_file(), "the rerun wrote no report")
    sentence = next(line for line in said.text.splitlines() if "No space left" in line)
    return sentence, "with room again: equal"


def _fill(path: Path) -> None:
    """Take every free page."""
    with open(path, "wb", buffering=0) as file:
        for block in (2**20, 2**12):
            try:
                while True:
                    file.write(bytes(block))
            except OSError:
                continue


def play_read_only_data(base: Undisturbed, folder: Path) -> tuple[str, str]:
    """A folder of images on a read-only data root, and a read-only cache: both are read, neither is written to."""
    trial = Trial(base, folder, without=("all",))
    shutil.copytree(base.runs / RUN / "00_data" / "images", folder / "data" / "pictures")
    trial.cache.mkdir()
    trial.environment["CYTOLIB_DATA"] = str(folder / "data")
    trial.configure("00_data", dataset="folder:pictures")
    before = sorted((folder / "data").rglob("*"))
    with read_only(folder / "data"), read_only(trial.cache):
        said = trial.run("--until", "01_embed")
        said.sentence(0, "done: 2 stages verified")
    check(sorted((folder / "data").rglob("*")) == before, "something was written into the data root")
    check(not list(trial.cache.rglob("*")), "something was written into the read-only cache")
    check(not any(trial.reasons()[stage] for stage in ("00_data", "01_embed")), "the two stages do not verify")
    return said.text.splitlines()[-2], "nothing written there"


def play_read_only_runs(base: Undisturbed, folder: Path) -> tuple[str, str]:
    """A read-only folder of runs: refused in one sentence, while ``status`` works."""
    trial = Trial(base, folder, without=("10_figures",))
    with read_only(trial.runs):
        said = trial.run()
        said.sentence(2, "Read-only file system", "set CYTOLIB_RUNS")
        check(len(said.text.splitlines()) == 1, f"more than one sentence: {said.text}")
        check(trial.status_code() == 1, "status does not work on a read-only folder")
    trial.mend()
    return said.last, "writable again: equal"
