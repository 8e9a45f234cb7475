"""Taking results in: unpacked beside the run, checked in every way that a stage made here is, and then put in place."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cytolib.bundle.contents import RESULTS, join_pieces, read_contents
from cytolib.data.unpack import unpack
from cytolib.run.config import RunConfig, read_config
from cytolib.run.execute import exclusive
from cytolib.run.manifest import NAME, read_manifest, verify
from cytolib.run.paths import root, runs_root
from cytolib.run.stage import CHECKPOINTS
from cytolib.run.stages import Chain

MAX_BYTES = 4_000_000_000
MAX_FILES = 100_000


def take_results(
    archive: Path, *, config_path: Path | None = None, chain: Chain | None = None, say: Callable[[str], None] = print
) -> list[str]:
    """Put the finished stages of ``archive`` into their run; returns their names. Nothing changes unless all fits.

    Args:
        archive: ``results.tar``, or the name of its pieces without their ends.
        config_path: configuration of the run; None takes ``configs/`` of the project with the name it had there.
        chain: None for the project's own.

    Raises:
        ValueError: in one sentence, for an archive that must not be unpacked or is damaged, another run, stages that
            nobody asked for, files that no manifest names, or a stage made from other sources or inputs than here.
        FileNotFoundError: where the archive, a piece of it or the configuration is missing.
        BlockingIOError: while a `cytolib run` is at work on the run.
    """
    chain = chain or Chain()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "results"
        unpack(join_pieces(Path(archive), Path(name)), folder, max_bytes=MAX_BYTES, max_files=MAX_FILES)
        found = read_contents(folder, RESULTS)
        config_path = config_path or root() / "configs" / Path(found["config"]).name
        config = read_config(config_path, chain)
        if config.run != found["run"]:
            raise ValueError(f"{archive}: results of the run {found['run']!r}; {config_path} is of {config.run!r}")
        run_folder = (runs_root() / config.run).resolve()
        refusal = f"{run_folder}: a `cytolib run` is at work on this run; wait for it, then take the results in"
        with exclusive(run_folder / ".pipeline" / "locks" / "run", refusal):
            return _take(folder, archive, run_folder, config, chain, say)


def _take(
    folder: Path, archive: Path, run_folder: Path, config: RunConfig, chain: Chain, say: Callable[[str], None]
) -> list[str]:
    there = {p.name for p in (folder / "stages").iterdir()} if (folder / "stages").is_dir() else set()
    unknown = sorted(there - set(chain.names()))
    if unknown:
        raise ValueError(f"{archive}: {unknown[0]!r} is no stage; the stages are {', '.join(chain.names())}")
    names = [name for name in chain.names() if name in there]
    staging = run_folder / ".pipeline" / "taken"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        for name in chain.names():  # inputs are verified by the manifests of the stages that made them
            if name in there:
                shutil.move(folder / "stages" / name, staging / name)
            elif (run_folder / name / NAME).is_file():
                (staging / name).mkdir()
                shutil.copyfile(run_folder / name / NAME, staging / name / NAME)
        for name in names:
            _check(name, staging, archive, config, chain)
        for name in names:
            manifest = read_manifest(staging / name)
            _put(staging / name, run_folder / name)
            say(f"taken: {name}, {manifest.get('wall_seconds', 0):.0f} s on {plain_text(manifest.get('device', ''))}")
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    _keep_logs(folder, run_folder, say)
    return names


def _check(name: str, staging: Path, archive: Path, config: RunConfig, chain: Chain) -> None:
    reasons = verify(chain[name], staging, config.parameters[name], chain)
    if reasons:
        raise ValueError(
            f"{archive}: {name} was not made from what is here ({reasons[0]}); nothing was taken: go back to the "
            "sources and stages that the bundle was made of, or make a new bundle"
        )
    manifest = read_manifest(staging / name)
    named = {NAME, *manifest["outputs"], *([manifest["notebook"]["name"]] if manifest.get("notebook") else [])}
    lying = {p.relative_to(staging / name).as_posix() for p in (staging / name).rglob("*") if p.is_file()}
    if lying != named:
        raise ValueError(
            f"{archive}: {name}/{sorted(lying ^ named)[0]} is not named by its manifest; nothing was taken"
        )


def _put(new: Path, target: Path) -> None:
    """Put a whole stage folder in the place of another, whose checkpoints stay."""
    old = new.with_name(f"{new.name}.old")
    if target.exists():
        os.rename(target, old)
        if (old / CHECKPOINTS).is_dir():
            os.rename(old / CHECKPOINTS, new / CHECKPOINTS)
    os.rename(new, target)
    shutil.rmtree(old, ignore_errors=True)


def _keep_logs(folder: Path, run_folder: Path, say: Callable[[str], None]) -> None:
    """Logs of stages that did not finish there are kept for the reader, where no stage looks for anything."""
    if not (folder / "logs").is_dir():
        return
    kept = run_folder / ".pipeline" / "logs_from_there"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.move(folder / "logs", kept)
    for path in sorted(kept.iterdir()):
        say(f"not finished there: {plain_text(path.name)}; its log is in {kept}")


def plain_text(text: Any) -> str:
    """A text from elsewhere that may be printed: no control characters, and no longer than a line."""
    return "".join(c if c.isprintable() else "?" for c in str(text))[:200]
