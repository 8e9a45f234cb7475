"""``python -m tests.bundle_proof``: the whole way of a bundle, a poor Python in the place of the GPU machine's.

The poor Python is an environment of its own that sees only what such a machine has (``THERE``, with what that needs):
no papermill, no kernels, no Snakemake, no diffusers, no imbalanced-learn. The bundle brings the rest. No network, where
the system lets a process go without. Slow: several minutes; a small version of it is in tests/test_bundle.py.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement

from cytolib.run import root
from cytolib.run.manifest import read_manifest

THERE = (
    *("torch", "torchvision", "timm", "scikit-learn", "seaborn", "pandas", "pyarrow", "numba", "psutil", "pyyaml"),
    *("jinja2", "scikit-image", "joblib", "requests", "regex"),
)
MISSING = (
    *("papermill", "nbformat", "nbclient", "nbconvert", "IPython", "ipykernel", "jupyter_client", "snakemake"),
    *("diffusers", "imblearn", "umap", "pooch", "imagehash", "pywt", "accelerate", "matplotlib_inline"),
)
STAGES = ("02_train_diffusion", "03_sample", "04_sweep")


def poor_python(folder: Path, packages: tuple[str, ...] = THERE) -> Path:
    """An environment in ``folder`` that has ``packages`` and what they need, as links to those of this Python."""
    venv.create(folder, with_pip=False)
    site = next(folder.glob("lib/python*/site-packages"))
    todo, seen = list(packages), set[str]()
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue  # an optional part of another system
        wanted = [Requirement(text) for text in found.requires or []]
        todo += [r.name for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
        base = Path(str(found.locate_file("")))
        for top in {file.parts[0] for file in found.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            if not (site / top).exists():
                (site / top).symlink_to(base / top)
    return folder / "bin" / "python"


def without_network() -> list[str]:
    """The command that runs another one without a network; nothing where the system does not let us."""
    command = ["unshare", "--net", "--map-root-user"]
    allowed = shutil.which("unshare") and not subprocess.run([*command, "true"], capture_output=True).returncode
    return command if allowed else []


def clean_environment(**values: str) -> dict[str, str]:
    """No Python settings and no project of this process."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "CYTOLIB", "VIRTUAL", "HF_"))}
    return {**kept, "OMP_NUM_THREADS": "1", **values}


def cytolib(*arguments: object, **environment: str) -> str:
    """What a command of this project's Python prints; it must succeed."""
    command = [sys.executable, "-m", "cytolib", *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, cwd=root())
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_of(runs: Path, config: str) -> Path:
    """Folder of the run that a configuration names."""
    return runs / str(yaml.safe_load(Path(config).read_text(encoding="utf-8"))["run"])


def outputs(runs: Path, config: str, stage: str) -> dict[str, Any]:
    """Hash of every file that a stage published."""
    return dict(read_manifest(run_of(runs, config) / stage)["outputs"])


def main(work: Path, config: str) -> None:
    """Make, carry, run, bring back, take in, finish; every step is checked and told."""

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:5.0f} s] {text}", flush=True)

    began = time.monotonic()
    here = {"CYTOLIB_RUNS": str(work / "here"), "CYTOLIB_CACHE": str(work / "cache")}
    cytolib("run", "--config", config, "--until", "01_embed", **here)
    say("00_data and 01_embed are done here")
    said = cytolib("bundle", "make", "--config", config, "--out", work / "gpu_bundle", "--stages", *STAGES, **here)
    say(said.strip())

    there = work / "elsewhere" / "gpu_bundle"
    with tarfile.open(work / "gpu_bundle.tar") as tar:
        tar.extractall(there.parent, filter="data")
    python = poor_python(work / "poor")
    for name in MISSING:
        code = subprocess.run([python, "-c", f"import {name}"], env=clean_environment(), capture_output=True).returncode
        assert code == 1, f"{name} can be imported by the poor Python"
    say(f"a Python without {', '.join(MISSING)}")
    command = [*without_network(), str(python), "run.py"]
    say(f"there: {' '.join(command)}")
    # killed once in the middle; then started again
    first = subprocess.Popen(command, cwd=there, env=clean_environment(), stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    for line in first.stdout:
        print(f"    {line}", end="", flush=True)
        if "to run: 03_sample" in line:
            time.sleep(15)  # until it is in the middle of it
            first.kill()
    first.wait()
    say(f"killed there (exit code {first.returncode}); started again")
    done = subprocess.run(command, cwd=there, env=clean_environment(), capture_output=True, text=True)
    print("    " + done.stdout.replace("\n", "\n    ").rstrip(), flush=True)
    assert done.returncode == 0, done.stderr
    say("finished there")

    for name in here.values():
        Path(name).mkdir(exist_ok=True)
    print("    " + cytolib("bundle", "take", there / "results.tar", "--config", config, **here).replace("\n", "\n    "))
    made_there = {name: outputs(there / "runs", config, name) for name in STAGES}
    run_folder = run_of(work / "here", config)
    executors = {name: read_manifest(run_folder / name)["executor"] for name in STAGES}
    assert executors == {"02_train_diffusion": "plain", "03_sample": "plain", "04_sweep": "script"}, executors
    said = cytolib("run", "--config", config, **here)
    print("    " + said.replace("\n", "\n    "))
    assert said.startswith("to run: 04_augment_classifiers, 10_figures\n"), said
    say("`cytolib run` executed what was missing, and nothing else")
    cytolib("run", "--config", config, *(part for name in STAGES for part in ("--force", name)), **here)
    made_here = {name: outputs(work / "here", config, name) for name in STAGES}
    assert made_here == made_there, [name for name in STAGES if made_here[name] != made_there[name]]
    count = sum(map(len, made_here.values()))
    say(f"executed here by papermill, the stages from there are the same: {count} of {count} files, byte for byte")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--work", type=Path, help="folder to work in; default: a temporary one")
    parser.add_argument("--config", default=str(root() / "configs" / "tiny.yaml"))
    options = parser.parse_args()
    if options.work:
        options.work.mkdir(parents=True, exist_ok=True)
        main(options.work, options.config)
    else:
        with tempfile.TemporaryDirectory() as name:
            main(Path(name), options.config)
