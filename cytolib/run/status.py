"""What ``cytolib status`` says of each stage of a run."""

from __future__ import annotations

import json
from pathlib import Path

from cytolib.run.config import read_config
from cytolib.run.execute import FAILURE
from cytolib.run.manifest import read_manifest, stale_stages
from cytolib.run.paths import runs_root
from cytolib.run.stage import size_text
from cytolib.run.stages import Chain


def status_lines(config_path: Path, chain: Chain | None = None) -> tuple[list[str], bool]:
    """Lines of text, one or more a stage, and whether every stage is done."""
    chain = chain or Chain()
    config = read_config(config_path, chain)
    run_folder = runs_root() / config.run
    lines = [f"run {config.run} in {run_folder}"]
    reasons = stale_stages(chain, run_folder, config.parameters)
    width = max(map(len, reasons))
    for name, why in reasons.items():
        if why:
            lines.append(f"  {name:<{width}}  stale: {why[0]}")
            lines += [f"  {'':<{width}}         {reason}" for reason in why[1:]]
        else:
            manifest = read_manifest(run_folder / name)
            memory = size_text(manifest.get("peak_memory_bytes", 0))
            lines.append(f"  {name:<{width}}  done: {manifest.get('wall_seconds', 0):.0f} s, {memory}")
        failure = last_failure(run_folder / name)
        if why and failure:
            lines.append(f"  {'':<{width}}  last failure: {failure}")
    return lines, not any(reasons.values())


def last_failure(folder: Path) -> str | None:
    """The message with which the last execution of a stage failed; None where it did not."""
    try:
        return str(json.loads((folder / FAILURE).read_text(encoding="utf-8"))["message"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
