"""A bundle with images: smaller ones, as a data set and a run of their own, whose first stage is done here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml

from cytolib.bundle.shrink import shrink_data_set
from cytolib.data import registry, table
from cytolib.run.artefacts import atomic_path
from cytolib.run.config import read_config
from cytolib.run.manifest import stale_stages
from cytolib.run.paths import root, runs_root
from cytolib.run.stages import Chain


def prepare_small_images(config_path: Path, side: int, out: Path) -> tuple[Path, Path]:
    """Make the data set beside ``out``, in ``out``_images, and run 00_data on it; its configuration and its folder.

    Raises:
        ValueError: as ``make_small_images``.
        RuntimeError: where 00_data fails on the smaller images.
    """
    folder = Path(f"{Path(out).resolve()}_images")
    config = make_small_images(config_path, side, folder)
    command = [sys.executable, "-m", "cytolib", "run", "--config", str(config), "--until", "00_data"]
    command += ["--force", "00_data"]  # images in a data root are no inputs of a manifest: new ones must be read
    print(f"00_data of the smaller images, with CYTOLIB_DATA={folder}", flush=True)
    if subprocess.run(command, env={**os.environ, "CYTOLIB_DATA": str(folder)}, check=False).returncode:
        raise RuntimeError(f"00_data failed on the images of {folder}; see above")
    print(
        "this is a data set and a run of its own; with its results, here:\n"
        f"  export CYTOLIB_DATA={folder}\n"
        f"  cytolib bundle take results.tar --config {config}\n"
        f"  cytolib run --config {config}"
    )
    dataset = read_config(config, Chain()).parameters["00_data"]["dataset"]
    return config, folder / Path(dataset.removeprefix("csv:")).parent


def make_small_images(config_path: Path, side: int, folder: Path, chain: Chain | None = None) -> Path:
    """A data set of smaller images of a run's cells in ``folder``, and a configuration of a run of its own for them.

    Returns:
        The new configuration. Its 00_data is run with ``folder`` as the data root (``CYTOLIB_DATA``).

    Raises:
        ValueError: where 00_data of the configuration is not done here.
    """
    chain = chain or Chain()
    config = read_config(config_path, chain)
    parameters = config.parameters["00_data"]
    done = runs_root() / config.run
    reasons = stale_stages(chain, done, config.parameters, until="00_data")["00_data"]
    if reasons:
        raise ValueError(
            f"00_data is not done here ({reasons[0]}); first run `cytolib run --config {config_path} --until 00_data`"
        )
    cells = table.read_cells(done / "00_data" / "cells.parquet")
    name = f"{cells['dataset'].iloc[0]}_{side}px"
    file = shrink_data_set(cells, table.image_root(cells), folder / name, side)
    drawn = parameters["dataset"] == "phantoms"
    labels = parameters["label_set"] or ("eight" if drawn else registry.data_set(parameters["dataset"]).label_set)
    split = file.with_name("split.csv").resolve()
    inside = split.is_relative_to(root())
    values = yaml.safe_load(config_path.read_text(encoding="utf-8"))
    values["run"] = f"{config.run}-{side}px"
    values["stages"] = {**(values.get("stages") or {})}
    values["stages"]["00_data"] = {
        "dataset": f"csv:{name}/{file.name}",
        "label_set": labels,
        "split_file": split.relative_to(root()).as_posix() if inside else str(split),
    }
    path = folder / f"{config_path.stem}_{side}px.yaml"
    with atomic_path(path) as temporary:
        head = (
            f"# Cells of {config_path.name} at {side} px: a data set of its own, whose cells have other identities.\n"
        )
        temporary.write_text(head + yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path
