"""The doctor's checks of the Python environment: interpreter, packages, torch, Jupyter, the pipeline's engines, GPU."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cytolib.run.doctor import INSTALL, Finding, one_line
from cytolib.run.paths import root

SHOWN = 4  # names in a list before "and N more"


def check_python() -> Finding:
    """The interpreter: its version, and where it lies."""
    version = ".".join(map(str, sys.version_info[:3]))
    if not (3, 11) <= sys.version_info[:2] < (3, 14):
        return Finding("python", "broken", version, f"Python 3.11 to 3.13 is needed: {INSTALL}")
    return Finding("python", "ok", f"{version}, {sys.executable}")


def check_packages(project: Path | None = None) -> Finding:
    """Every package is there, in the range of pyproject.toml and, better, at the version of the lock."""
    project = project or root()
    pins = dict(_pins(project))
    broken: list[str] = []
    missing: list[str] = []
    other: list[str] = []
    for name, specifier, needed in _requirements(project):
        found = _version(name)
        if found is None:
            (broken if needed else missing).append(f"{name} is missing")
        elif found not in specifier:
            (broken if needed else other).append(f"{name} {found} is not {specifier}")
    said = {text.split()[0] for text in (*broken, *missing, *other)}
    for name, pin in pins.items():
        found = _version(name)
        if name in said:
            continue
        if found is None:
            missing.append(f"{name} is missing")
        elif found.public != pin:  # 2.14.0+cpu is the lock's 2.14.0, built for the CPU
            other.append(f"{name} {found}, not {pin}")
    if broken:
        return Finding("packages", "broken", _list(broken), INSTALL)
    if missing or other:
        mend = f"these versions are not the tested ones; if something fails: {INSTALL}"
        return Finding("packages", "note", f"other than the lock's: {_list([*missing, *other])}", mend)
    return Finding("packages", "ok", f"{len(pins)} packages, all as locked")


def _pins(project: Path) -> Iterator[tuple[str, str]]:
    """Name and version of every line of constraints.txt that is meant for this platform."""
    from packaging.requirements import Requirement
    from packaging.version import Version

    for line in (project / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                yield requirement.name, Version(str(requirement.specifier).removeprefix("==")).public


def _requirements(project: Path) -> Iterator[tuple[str, Any, bool]]:
    """Name, range and whether the pipeline needs it, of everything that pyproject.toml names."""
    import tomllib

    from packaging.requirements import Requirement

    table = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"": table["dependencies"], **table.get("optional-dependencies", {})}
    for group, lines in groups.items():
        for line in lines:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": group}):
                yield requirement.name, requirement.specifier, group in ("", "notebooks")


def _version(name: str) -> Any:
    from packaging.version import Version

    try:
        return Version(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return None


def _list(texts: list[str]) -> str:
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more


def check_torch() -> Finding:
    """torch and torchvision fit each other: a compiled operator of torchvision is executed."""
    try:
        import torch
        import torchvision

        boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
        kept = torch.ops.torchvision.nms(boxes, torch.tensor([1.0, 0.5]), 0.5).tolist()
    except Exception as error:  # a wrong pair fails with ImportError, RuntimeError, OSError or AttributeError
        mend = f"torch and torchvision must be a pair from the same index: {INSTALL}"
        return Finding("torch", "broken", one_line(error), mend)
    if kept != [0]:
        return Finding("torch", "broken", f"torchvision's nms keeps {kept} of two equal boxes, not [0]", INSTALL)
    return Finding("torch", "ok", f"torch {torch.__version__} with torchvision {torchvision.__version__}")


def check_kernel() -> Finding:
    """A Jupyter kernel starts and answers in this interpreter."""
    try:
        from jupyter_client.manager import KernelManager

        from cytolib.run.kernels import this_kernel_spec

        class ThisPython(KernelManager):
            @property
            def kernel_spec(self):  # type: ignore[no-untyped-def]
                return this_kernel_spec()

        manager = ThisPython()
        manager.start_kernel(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        client = manager.client()
        try:
            client.start_channels()
            client.wait_for_ready(timeout=60)
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
    except Exception as error:  # zmq, traitlets and jupyter_client each have their own
        return Finding("jupyter kernel", "broken", one_line(error), INSTALL)
    return Finding("jupyter kernel", "ok", "starts and answers")


def check_kernel_spec() -> Finding:
    """The interpreter behind the kernel ``python3`` that JupyterLab offers; the pipeline always takes its own."""
    from jupyter_client.kernelspec import KernelSpecManager

    spec = KernelSpecManager().get_kernel_spec("python3")
    program = shutil.which(spec.argv[0]) or spec.argv[0]
    if not os.path.lexists(program) or Path(program).parent.resolve() != Path(sys.executable).parent.resolve():
        mend = f"JupyterLab would not find cytolib: {sys.executable} -m ipykernel install --sys-prefix"
        return Finding("jupyterlab", "note", f"its kernel python3 is {program} ({spec.resource_dir})", mend)
    return Finding("jupyterlab", "ok", f"its kernel python3 is {program}")


def check_pipeline() -> Finding:
    """papermill, Snakemake and nbconvert, with the template of its pages, can be used."""
    versions = []
    for name in ("papermill", "snakemake", "nbconvert"):
        try:
            importlib.import_module(name)
        except Exception as error:  # a half-installed package raises anything
            return Finding("pipeline", "broken", f"{name} cannot be imported: {one_line(error)}", INSTALL)
        versions.append(f"{name} {importlib.metadata.version(name)}")
    from jupyter_core.paths import jupyter_path

    places = jupyter_path("nbconvert", "templates")
    if not any((Path(place) / "lab").is_dir() for place in places):
        return Finding("pipeline", "broken", f"nbconvert's template 'lab' is in none of {', '.join(places)}", INSTALL)
    return Finding("pipeline", "ok", ", ".join(versions))


def check_gpu() -> Finding:
    """The accelerator that torch will use: it computes; or why one that is there cannot be used."""
    try:
        import torch

        from cytolib.run.paths import device
    except Exception as error:  # torch's own check says how to mend it
        return Finding("gpu", "note", f"not looked for without torch ({one_line(error)})")
    present = _nvidia_gpu()
    try:
        chosen = device()
        if chosen.type == "cpu":
            return _no_gpu(torch, present)
        got = float((torch.arange(4.0, device=chosen) ** 2).sum())
    except Exception as error:  # a driver too old, an architecture that torch was not built for, no memory left
        mend = "every stage would fail on it: CUDA_VISIBLE_DEVICES='' takes the CPU; or mend the driver"
        return Finding("gpu", "broken", one_line(error), mend)
    if got != 14.0:
        return Finding(
            "gpu", "broken", f"{chosen} computes 0 + 1 + 4 + 9 = {got:g}", "CUDA_VISIBLE_DEVICES='' takes the CPU"
        )
    return Finding("gpu", "ok", f"{_gpu_name(torch, chosen)}; it computes")


def _no_gpu(torch: Any, present: str) -> Finding:
    if not present:
        return Finding("gpu", "ok", "none, the CPU is used")
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return Finding(
            "gpu", "note", f"{present} is not used: CUDA_VISIBLE_DEVICES hides it", "unset CUDA_VISIBLE_DEVICES"
        )
    if torch.version.cuda is None:
        reason, mend = f"torch {torch.__version__} is built for the CPU", "install torch and torchvision for CUDA"
    else:
        try:
            torch.cuda.init()
            reason = "torch finds no device"
        except Exception as error:  # the reason is what is asked for
            reason = one_line(error)
        mend = f"its driver must be able to run CUDA {torch.version.cuda}"
    return Finding("gpu", "note", f"{present} cannot be used: {reason}", f"{mend}; the CPU is used meanwhile")


def _gpu_name(torch: Any, chosen: Any) -> str:
    if chosen.type != "cuda":
        return str(chosen.type)
    properties = torch.cuda.get_device_properties(chosen)
    count = torch.cuda.device_count()
    driver = _nvidia_gpu().rpartition(", driver ")[2]
    return (
        f"{f'{count} x ' if count > 1 else ''}{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        f", CUDA {torch.version.cuda}" + (f", driver {driver}" if driver else "")
    )


def _nvidia_gpu() -> str:
    """``NVIDIA A100, driver 550.54``; empty where nvidia-smi and the kernel's driver know of none."""
    program = shutil.which("nvidia-smi")
    if program:
        command = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        if done.returncode == 0 and done.stdout.strip():
            name, _, driver = done.stdout.strip().splitlines()[0].partition(", ")
            return f"{name}, driver {driver}"
    version = Path("/proc/driver/nvidia/version")
    if version.is_file():
        found = re.search(r"(\d+\.\d+(\.\d+)?)", version.read_text(encoding="utf-8"))
        return f"an NVIDIA GPU, driver {found[1] if found else '?'}"
    return ""
