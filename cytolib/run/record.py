"""What is written down of a process that makes results: its modules, versions, device and commit."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cytolib
from cytolib.run.artefacts import sha256
from cytolib.run.paths import root, threads

PACKAGES = (
    *("numpy", "pandas", "pyarrow", "scikit-learn", "imbalanced-learn", "matplotlib", "pillow"),
    *("torch", "torchvision", "timm", "diffusers"),
)
# the runner's own modules: they move files and hashes about and cannot change a result
RUNNER_ONLY = {
    f"cytolib.run.{name}"
    for name in (
        *("bars", "external", "kernel_start", "manifest", "plain", "plain_backend", "plain_outputs", "processes"),
        *("record", "script", "sources", "stages"),
    )
}


def loaded_modules() -> dict[str, str]:
    """SHA-256 of the source of every module of this package that the process has imported."""
    package = Path(cytolib.__file__).resolve().parent
    found = {}
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        ours = name == "cytolib" or name.startswith("cytolib.")
        if ours and file and name not in RUNNER_ONLY:
            path = Path(file).resolve()
            if path.suffix == ".py" and path.is_relative_to(package) and path.is_file():
                found[name] = sha256(path)
    return found


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version(), "cytolib": cytolib.__version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def version_notes(manifest: Mapping[str, Any]) -> list[str]:
    """A line for each package that the stage was made with in another version than stands here.

    It is no reason to run the stage again: its result holds, and says what it was made with.
    """
    here, made = versions(), manifest.get("versions", {})
    return [
        f"made with {name} {made[name]}, here is {here.get(name, 'none')}"
        for name in sorted(made)
        if made[name] != here.get(name)
    ]


def device_name() -> str:
    """The device that results were made on; the CPU where torch was never imported."""
    if "torch" not in sys.modules:
        return "cpu"
    import torch

    from cytolib.run.paths import device

    chosen = device()
    if chosen.type == "cpu":
        return "cpu"
    name = getattr(getattr(torch, chosen.type, None), "get_device_name", lambda: "")()
    return f"{chosen.type} ({name})" if name else chosen.type


def git_state() -> dict[str, Any]:
    """Commit and whether tracked or new files differ from it; both null outside a git clone."""

    def ask(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=root(), capture_output=True, text=True, timeout=20, check=False
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    status = ask("status", "--porcelain")
    return {"commit": ask("rev-parse", "--verify", "HEAD"), "dirty": None if status is None else bool(status)}


def process_record() -> dict[str, Any]:
    """All of it, as plain JSON values."""
    return {
        "modules": loaded_modules(),
        "versions": versions(),
        "python": sys.executable,
        "platform": platform.platform(),
        "device": device_name(),
        "threads": threads(),
        "git": git_state(),
    }
