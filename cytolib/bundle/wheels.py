"""The wheels that a bundle carries: packages of the lock that the other machine lacks, with the lock's own hashes."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from packaging.markers import Marker, default_environment
from packaging.utils import canonicalize_name

# What a machine with torch and the usual scientific packages lacks of ours; all of it is pure Python.
PURE = (
    *("accelerate", "diffusers", "imbalanced-learn", "importlib-metadata", "lazy-importer", "platformdirs", "pooch"),
    *("pynndescent", "sklearn-compat", "umap-learn", "zipp"),
)
_GLIBC = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_24", "manylinux_2_17", "manylinux2014")


def locked_lines(lock: Path, python: str) -> dict[str, str]:
    """Of every package of the lock, its requirement with hashes as pip takes it, for the Python version ``python``.

    Markers are decided here, for Linux and that version, because pip decides them for the Python that it runs in.
    """
    there = {**default_environment(), "python_version": python, "python_full_version": f"{python}.0"}
    there |= {"sys_platform": "linux", "platform_machine": "x86_64", "os_name": "posix"}
    found: dict[str, str] = {}
    for block in re.split(r"\n(?=\S)", lock.read_text(encoding="utf-8")):
        head, *hashes = block.replace("\\\n", "\n").split("\n")
        match = re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)\s*(?:;\s*(.+?))?\s*$", head)
        if match and (match[3] is None or Marker(match[3]).evaluate({k: str(v) for k, v in there.items()})):
            kept = " ".join(line.strip() for line in hashes if line.strip().startswith("--hash="))
            found[canonicalize_name(match[1])] = f"{match[1]}=={match[2]} {kept}"
    return found


def fetch_wheels(
    lock: Path, cache: Path, *, extra: Sequence[str] = (), python: str = "", machine: str = "x86_64"
) -> list[Path]:
    """Fetch the wheels by pip, from the index that the user has set, into ``cache``; each is checked by its hash.

    Args:
        lock: ``requirements.lock``.
        cache: folder that keeps them; what lies there is not fetched again.
        extra: further packages of the lock, compiled ones among them.
        python: version of the other machine's Python, "3.12"; needed for compiled packages.
        machine: its processor, for compiled packages.

    Raises:
        ValueError: for a package that the lock does not have, or a compiled one without ``python``.
        RuntimeError: where pip fails, with its last line.
    """
    lines = locked_lines(lock, python or f"{sys.version_info.major}.{sys.version_info.minor}")
    names = [canonicalize_name(name) for name in (*PURE, *extra)]
    unknown = [name for name in names if name not in lines and name in map(canonicalize_name, extra)]
    if unknown:
        raise ValueError(f"--with {unknown[0]}: {lock.name} has no such package; name one that it pins")
    wheels = _download([lines[name] for name in names if name in lines], cache, python, machine)
    compiled = [path.name for path in wheels if not path.name.endswith("-none-any.whl")]
    if compiled and not python:
        raise ValueError(
            f"{compiled[0]} is compiled for one Python; name the other machine's, for example --python 3.12"
        )
    return wheels


def _download(lines: Sequence[str], cache: Path, python: str, machine: str) -> list[Path]:
    cache.mkdir(parents=True, exist_ok=True)
    target: list[str] = []
    if python:
        target = ["--python-version", python, "--implementation", "cp"]
        target += [part for name in _GLIBC for part in ("--platform", f"{name}_{machine}")]
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "requirements.txt"
        wanted.write_text("\n".join(lines) + "\n", encoding="utf-8")
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
            *("--require-hashes", "--only-binary", ":all:", "--find-links", str(cache), "--dest", folder),
            *(*target, "--requirement", str(wanted)),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr[-300:]]
            raise RuntimeError(f"pip could not fetch the wheels of the bundle: {said[-1].strip()}")
        wheels = sorted(Path(folder).glob("*.whl"))
        for wheel in wheels:
            if not (cache / wheel.name).is_file():
                (cache / wheel.name).write_bytes(wheel.read_bytes())
        return [cache / wheel.name for wheel in wheels]
