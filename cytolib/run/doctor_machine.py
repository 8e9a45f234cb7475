"""The doctor's checks of the machine: folders, locks, memory, cores, data, git, clock, text encoding, browser."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cytolib.run.doctor import Finding, one_line
from cytolib.run.paths import cache_root, data_root, root, runs_root, threads
from cytolib.run.stage import size_text

NEEDED_BYTES = 2e9  # of disk for a run and its cache, and of memory for the default pipeline
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def check_runs_folder() -> Finding:
    """Runs can be written, and there is room for one."""
    return check_folder("runs folder", runs_root(), "CYTOLIB_RUNS", NEEDED_BYTES)


def check_cache_folder() -> Finding:
    """The cache of embeddings can be written."""
    return check_folder("cache folder", cache_root(), "CYTOLIB_CACHE", NEEDED_BYTES)


def check_temp_folder() -> Finding:
    """Programs find a folder for temporary files."""
    return check_folder("temp folder", Path(tempfile.gettempdir()), "TMPDIR", NEEDED_BYTES / 10)


def check_folder(what: str, folder: Path, variable: str, needed: float) -> Finding:
    """A file can be written in ``folder``, or in the nearest one above it, and ``needed`` bytes are free."""
    there = _existing(folder)
    shown = f"{folder}" + ("" if there == folder else f" (not there yet, in {there})")
    try:
        _write(there)
    except OSError as error:
        mend = f"give the user the right to write there, or name another folder with {variable}"
        return Finding(what, "broken", f"{shown} cannot be written: {error.strerror or error}", mend)
    free = shutil.disk_usage(there).free
    found = f"{shown}: {size_text(free)} free" + (f" on {kind}" if (kind := _file_system(there)) else "")
    if free < needed:
        mend = f"make {size_text(needed)} of room (`make clean` removes runs), or name another folder with {variable}"
        return Finding(what, "broken", found, mend)
    return Finding(what, "ok", found)


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def _write(folder: Path) -> None:
    """Write, read back and remove a small file."""
    with tempfile.NamedTemporaryFile(prefix=".cytolib-doctor-", dir=folder) as file:
        file.write(b"x" * 4096)
        file.flush()
        os.fsync(file.fileno())


def _file_system(folder: Path) -> str:
    """Kind of the file system, for example ``ext4`` or ``nfs4``; empty where the system does not say."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return ""
    above = [(mount[1], mount[2]) for mount in mounts if folder.resolve().is_relative_to(mount[1])]
    return max(above, key=lambda mount: len(mount[0]), default=("", ""))[1]


def check_locks() -> Finding:
    """A file lock in the runs folder keeps a second process out: two runs at once would spoil each other."""
    folder = _existing(runs_root())
    mend = "put the runs on a local disk, or mount the share with locks: export CYTOLIB_RUNS=FOLDER"
    with tempfile.NamedTemporaryFile(prefix=".cytolib-doctor-", dir=folder) as file, open(file.name, "rb") as again:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return Finding("file locks", "broken", f"{folder} has none: {error.strerror}", mend)
        try:
            fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return Finding("file locks", "ok", f"work in {folder}")
    return Finding("file locks", "broken", f"{folder}: a locked file is locked a second time", mend)


def check_memory() -> Finding:
    """Memory for the default pipeline, also where a container has less than the machine."""
    from cytolib.run.machine import memory

    found = memory()
    limit = " (limit of this container)" if found.limited_by == "container" else ""
    text = f"{size_text(found.free)} of {size_text(found.total)} free{limit}"
    if found.free < NEEDED_BYTES:
        mend = "the default pipeline wants 2 GB: close other programs, or run one stage at a time (--cores 1)"
        return Finding("memory", "note", text, mend)
    return Finding("memory", "ok", text)


def check_cores() -> Finding:
    """The cores that `cytolib run` divides among its stages, and whether they are all there are."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    granted = _granted_cores()
    used, told = threads(), os.environ.get("OMP_NUM_THREADS")
    if granted and granted < used - 0.5:
        found = f"{used}, of which this container may use {granted:g}"
        mend = f"more threads than cores are slow: export OMP_NUM_THREADS={max(1, round(granted))}"
        return Finding("cores", "note", found, mend)
    if told and used > there:
        return Finding("cores", "note", f"{there}, but OMP_NUM_THREADS is {told}", f"export OMP_NUM_THREADS={there}")
    if told and used < there:
        found = f"{used} of {there}: OMP_NUM_THREADS is {told}"
        return Finding("cores", "note", found, f"for all of them: unset OMP_NUM_THREADS, or --cores {there}")
    return Finding("cores", "ok", str(there))


def _granted_cores(groups: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Cores' worth of time that the control group of a container may use; None where there is no limit."""
    try:
        quota, period = (groups / "cpu.max").read_text(encoding="utf-8").split()[:2]
    except (OSError, ValueError):
        try:
            quota = (groups / "cpu" / "cpu.cfs_quota_us").read_text(encoding="utf-8").strip()
            period = (groups / "cpu" / "cpu.cfs_period_us").read_text(encoding="utf-8").strip()
        except OSError:
            return None
    return None if quota in ("max", "-1") else int(quota) / int(period)


def check_data() -> Finding:
    """The folder of real images; the default run draws its own cells and needs none."""
    folder, told = data_root(), os.environ.get("CYTOLIB_DATA")
    if told and not folder.is_dir():
        mend = "correct CYTOLIB_DATA, or unset it: the default run draws its own cells"
        return Finding("real data", "broken", f"CYTOLIB_DATA is {told}, which is no folder", mend)
    try:
        from cytolib.data.listing import list_rows
    except ImportError as error:  # the check of the packages says how to mend it
        return Finding("real data", "note", f"{folder}: not looked through ({one_line(error)})")
    names = [row["name"] for row in list_rows(folder) if row["present"] and row["name"] != "phantoms"]
    if not names:
        mend = "the default run needs none; for real images: cytolib data list, then export CYTOLIB_DATA=FOLDER"
        return Finding("real data", "note", f"none of the known sets lies in {folder}", mend)
    return Finding("real data", "ok", f"{folder}: {', '.join(names)}")


def check_git() -> Finding:
    """git, which says in every manifest of which commit a result is."""
    program = shutil.which("git")
    if program is None:
        return Finding("git", "note", "not found", "manifests name no commit without it: install git")
    commit = _git("rev-parse", "--short", "HEAD")
    if not commit:
        return Finding("git", "note", f"{root()} is no clone", "manifests name no commit: clone the project with git")
    return Finding("git", "ok", f"{program}, commit {commit}")


def check_clock() -> Finding:
    """The clock is not before the newest commit: times in manifests would be wrong."""
    now = time.strftime("%Y-%m-%d %H:%M %Z")
    newest = _git("log", "-1", "--format=%ct")
    if newest.isdigit() and time.time() < int(newest) - 3600:
        commit = time.strftime("%Y-%m-%d %H:%M", time.localtime(int(newest)))
        return Finding("clock", "note", f"{now} is before the newest commit ({commit})", "set the machine's clock")
    return Finding("clock", "ok", now)


def _git(*arguments: str) -> str:
    """What git answers in the project; empty where it does not."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root(), capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def check_text() -> Finding:
    """File names and the terminal take every letter."""
    files, out = sys.getfilesystemencoding(), getattr(sys.stdout, "encoding", None) or "utf-8"
    found = f"file names {files}, output {out}"
    if not {files.lower().replace("-", ""), out.lower().replace("-", "")} <= {"utf8"}:
        return Finding("text", "note", found, "names with accents may fail: export LC_ALL=C.UTF-8")
    return Finding("text", "ok", found)


def check_browser() -> Finding:
    """A Chromium that starts, for the browser tests; nothing else needs it."""
    mend = "only the browser tests need it: playwright install --with-deps chromium"
    programs = _browsers()
    if not programs:
        return Finding("browser", "note", "no Chromium found", mend)
    with tempfile.TemporaryDirectory() as profile:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        command = [programs[0], *flags, f"--user-data-dir={profile}", "--dump-dom", "data:text/html,<p>cells</p>"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return Finding("browser", "note", f"{programs[0]} does not start: {one_line(error)}", mend)
    if "<p>cells</p>" not in done.stdout:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return Finding("browser", "note", f"{programs[0]} does not work: {said[:120]}", mend)
    return Finding("browser", "ok", f"{programs[0]} opens a page")


def _browsers() -> list[str]:
    """Programs of Chromium on the path, then those that playwright has fetched."""
    cache = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / ".cache" / "ms-playwright")
    fetched = [*cache.glob("chromium*/chrome-linux*/chrome"), *cache.glob("chromium*/chrome-linux*/headless_shell")]
    fetched += cache.glob("chromium*/chrome-mac*/*.app/Contents/MacOS/*")
    return [path for name in BROWSERS if (path := shutil.which(name))] + sorted(map(str, fetched))
