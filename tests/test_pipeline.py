"""The real chain on very few phantoms: every stage finishes, twice the same, and a second call executes nothing."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from cytolib.run import root, sha256
from cytolib.run.config import read_config
from cytolib.run.manifest import read_manifest, stale_stages
from cytolib.run.stages import STAGES, Chain
from tests.finished_run import CONFIG, finished_runs
from tests.finished_run import run_tiny as run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root of runs with the finished run ``tiny``."""
    return finished_runs(tmp_path_factory)


def tables(runs: Path) -> dict[str, str]:
    """Hash of every table, synthetic cells and results alike, of the run ``tiny``."""
    folder = runs / "tiny"
    found = [p for kind in ("*.parquet", "*.csv") for p in folder.glob(f"[0-9]*/**/{kind}")]
    return {p.relative_to(folder).as_posix(): sha256(p) for p in sorted(found) if "checkpoints" not in p.parts}


def test_every_stage_is_done_and_reported(finished: Path) -> None:
    folder = finished / "tiny"
    config = read_config(CONFIG, Chain())
    assert not any(stale_stages(Chain(), folder, config.parameters).values())
    for spec in STAGES:
        manifest = read_manifest(folder / spec.name)
        assert manifest["outputs"] and set(name["stage"] for name in manifest["inputs"]) <= set(spec.needs)
        assert spec.kind == "script" or (folder / spec.name / f"{spec.name}.html").is_file()
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "10_figures/figures/" in page and str(root()) not in page
    assert (folder / "10_figures" / "key_results.csv").read_text().startswith("what,value,low,high,n,where")


def test_a_second_call_executes_nothing(finished: Path) -> None:
    started = time.monotonic()
    again = run(finished)
    assert again.returncode == 0 and again.stdout.startswith("nothing to do: "), again.stdout + again.stderr
    assert time.monotonic() - started < 10


def test_another_run_gives_the_same_tables(finished: Path, tmp_path: Path) -> None:
    first = tables(finished)
    assert any(name.startswith("03_sample/") for name in first) and any("results" in name for name in first)
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert tables(tmp_path) == first


def test_a_damaged_table_is_noticed_and_mended(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "tiny", tmp_path / "tiny")
    damaged = tmp_path / "tiny" / "10_figures" / "key_results.csv"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1])
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stale: 10_figures: output key_results.csv was changed or damaged" in done.stdout
    assert "00_data" not in done.stdout and damaged.read_bytes() == whole
