"""`cytolib doctor` gets to its end on the worst of machines, and says of each fault how to mend it."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cytolib.run import doctor_machine, doctor_python, machine
from cytolib.run.doctor import Finding, all_checks, doctor, examine

BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

BLOCKED = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Blocker())
from cytolib.cli import main
sys.exit(main(["doctor", "--json"]))
"""
HEAVY = "torch,torchvision,jupyter_client,nbclient,nbformat,papermill,snakemake,pandas,numpy,psutil,yaml,tqdm,packaging"


def fine() -> Finding:
    return Finding("x", "ok", "there")


def test_only_what_is_needed_makes_it_fail() -> None:
    said: list[str] = []
    note = {"browser": lambda: Finding("browser", "note", "none found", "install it"), "x": fine}
    assert doctor(said.append, checks=note) == 0
    assert said[-1] == "fit to run; 1 note" and any("-> install it" in line for line in said)
    assert doctor(said.append, checks={"torch": lambda: Finding("torch", "broken", "no pair", "reinstall")}) == 1
    assert said[-1] == "broken: torch; 0 notes"


def test_a_check_that_raises_is_a_finding_and_the_rest_goes_on() -> None:
    def bad() -> Finding:
        raise PermissionError(13, "not yours\nat all")

    said: list[str] = []
    assert doctor(said.append, as_json=True, checks={"clock": bad, "x": fine}) == 1
    assert [found["state"] for found in json.loads(said[0])] == ["broken", "ok"] and len(said) == 1
    finding = examine("clock", bad)
    assert finding.what == "clock" and "PermissionError" in finding.found and "\n" not in finding.found


def test_it_works_where_nothing_can_be_imported(tmp_path: Path) -> None:
    environment = {**os.environ, "CYTOLIB_RUNS": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", BLOCKER, HEAVY], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr == ""
    found = {finding["what"]: finding for finding in json.loads(done.stdout)}
    assert list(found) == list(all_checks())
    for what, module in {"torch": "torch", "jupyter kernel": "jupyter_client", "pipeline": "papermill"}.items():
        assert found[what]["state"] == "broken" and module in found[what]["found"] and found[what]["mend"], found[what]
    assert found["gpu"]["state"] == found["real data"]["state"] == "note"
    assert found["runs folder"]["state"] == found["file locks"]["state"] == "ok"


def test_the_checks_import_nothing_before_they_run() -> None:
    code = "import sys; from cytolib.run.doctor import all_checks; all_checks(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(HEAVY.split(",")) & set(done.stdout.split())


def test_this_environment_is_fit() -> None:
    """The checks themselves, on a machine where the tests run: nothing that the tests need is broken."""
    for what in ("python", "packages", "torch", "jupyter kernel", "temp folder", "file locks", "memory", "cores"):
        finding = examine(what, all_checks()[what])
        assert finding.what == what and finding.state in ("ok", "note"), finding


def project(folder: Path, dependencies: str, pins: str) -> Path:
    (folder / "pyproject.toml").write_text(
        f"[project]\ndependencies = [{dependencies}]\n[project.optional-dependencies]\ntest = ['pytest<1']\n"
    )
    (folder / "constraints.txt").write_text(pins)
    return folder


@pytest.mark.parametrize(
    ("dependencies", "pins", "state", "said"),
    [
        ("'tqdm>=4'", "", "note", "pytest"),  # out of a range that only the tests need
        ("'no-such-package>=1'", "", "broken", "no-such-package is missing"),
        ("'tqdm>=99'", "", "broken", "is not >=99"),
        ("'tqdm>=4'", "tqdm==4.0.1\n", "note", ", not 4.0.1"),
        ("'tqdm>=4'", "no-such-package==1.0\n", "note", "no-such-package is missing"),
        ("'tqdm>=4'", "no-such-package==1.0 ; sys_platform == 'win32'\n", "note", "pytest"),
    ],
)
def test_packages_are_held_against_the_lock(
    dependencies: str, pins: str, state: str, said: str, tmp_path: Path
) -> None:
    finding = doctor_python.check_packages(project(tmp_path, dependencies, pins))
    assert finding.state == state and said in finding.found and finding.mend
    assert ("no-such-package" in finding.found) == ("no-such-package" in said)


def test_a_kernel_of_another_python_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = tmp_path / "kernels" / "python3"
    kernel.mkdir(parents=True)
    spec = {"argv": ["/opt/other/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]}
    (kernel / "kernel.json").write_text(json.dumps({**spec, "display_name": "Python 3", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    finding = doctor_python.check_kernel_spec()
    assert finding.state == "note" and "/opt/other/bin/python" in finding.found and "--sys-prefix" in finding.mend


def test_folders_are_tried_by_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYTOLIB_RUNS", str(tmp_path / "new" / "runs"))
    finding = doctor_machine.check_runs_folder()
    assert finding.state == "ok" and "not there yet" in finding.found and not list(tmp_path.iterdir())
    assert doctor_machine.check_folder("x", tmp_path, "TMPDIR", 1e18).state == "broken"

    def refuse(folder: Path) -> None:
        raise OSError(30, "Read-only file system", str(folder))

    monkeypatch.setattr(doctor_machine, "_write", refuse)
    finding = doctor_machine.check_runs_folder()
    assert finding.state == "broken" and "Read-only file system" in finding.found and "CYTOLIB_RUNS" in finding.mend


def test_locks_that_lock_nothing_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYTOLIB_RUNS", str(tmp_path))
    assert doctor_machine.check_locks().state == "ok"
    monkeypatch.setattr(fcntl, "flock", lambda file, how: None)
    assert doctor_machine.check_locks().state == "broken"

    def without(file: object, how: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", without)
    assert "No locks available" in doctor_machine.check_locks().found


def test_data_that_is_named_and_missing_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYTOLIB_DATA", str(tmp_path / "absent"))
    assert doctor_machine.check_data().state == "broken" and "absent" in doctor_machine.check_data().found
    monkeypatch.setenv("CYTOLIB_DATA", str(tmp_path))
    assert doctor_machine.check_data().state == "note"
    (tmp_path / "PBC_dataset_normal_DIB").mkdir()
    assert doctor_machine.check_data() == Finding("real data", "ok", f"{tmp_path}: pbc")


def test_threads_that_are_too_many_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = len(os.sched_getaffinity(0))
    monkeypatch.setenv("OMP_NUM_THREADS", str(there + 3))
    monkeypatch.setattr(doctor_machine, "_granted_cores", lambda: None)
    assert doctor_machine.check_cores().mend == f"export OMP_NUM_THREADS={there}"
    monkeypatch.setattr(doctor_machine, "_granted_cores", lambda: 1.0)
    assert doctor_machine.check_cores().mend.endswith("export OMP_NUM_THREADS=1")
    monkeypatch.undo()
    assert doctor_machine._granted_cores(tmp_path) is None
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert doctor_machine._granted_cores(tmp_path) == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert doctor_machine._granted_cores(tmp_path) is None


@pytest.mark.parametrize("version", [1, 2])
def test_the_limit_of_a_container_counts(version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, outer = tmp_path / "own", tmp_path / ("memory/job" if version == 1 else "job")
    (outer / "task").mkdir(parents=True)
    own.write_text("4:memory:/job/task\n0::/\n" if version == 1 else "0::/job/task\n")
    limit, used = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes") if version == 1 else ("memory.max", "memory.current")
    )
    (outer / limit).write_text("3000000000\n")
    (outer / used).write_text("2500000000\n")
    (outer / "memory.stat").write_text("cache 9\ninactive_file 500000000\n")
    (outer / "task" / limit).write_text("9223372036854771712\n" if version == 1 else "max\n")
    limits = machine.container_limits(tmp_path, own)
    assert limits == [(3_000_000_000, 2_000_000_000)]
    monkeypatch.setattr(machine, "container_limits", lambda: limits)
    assert machine.memory().limited_by == "container" and machine.memory().free <= 1_000_000_000
    finding = doctor_machine.check_memory()
    assert finding.state == "note" and "of 3.0 GB free (limit of this container)" in finding.found


def test_a_clock_before_the_newest_commit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_machine, "_git", lambda *_: str(int(time.time()) - 60))
    assert doctor_machine.check_clock().state == "ok"
    monkeypatch.setattr(doctor_machine, "_git", lambda *_: str(int(time.time()) + 86_400))
    assert doctor_machine.check_clock().state == "note"


@pytest.mark.parametrize("script", ["exit 1", "echo no display >&2; exit 3", "echo '<p>other</p>'"])
def test_a_browser_that_does_not_start_is_a_note(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "chromium"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    finding = doctor_machine.check_browser()
    assert finding.state == "note" and "does not work" in finding.found and finding.mend


def test_a_gpu_that_cannot_be_used_is_told_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(doctor_python, "_nvidia_gpu", lambda: "")
    assert doctor_python.check_gpu() == Finding("gpu", "ok", "none, the CPU is used")
    monkeypatch.setattr(doctor_python, "_nvidia_gpu", lambda: "NVIDIA A100, driver 450.1")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "built for the CPU" in doctor_python.check_gpu().found
    monkeypatch.setattr(torch.version, "cuda", "13.2")

    def too_old() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old\nplease update")

    monkeypatch.setattr(torch.cuda, "init", too_old)
    finding = doctor_python.check_gpu()
    assert finding.state == "note" and "too old" in finding.found and "CUDA 13.2" in finding.mend
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "hides it" in doctor_python.check_gpu().found
    # one that torch takes but cannot compute on would fail every stage
    monkeypatch.setattr("cytolib.run.paths.device", lambda: torch.device("meta"))
    assert doctor_python.check_gpu().state == "broken"
