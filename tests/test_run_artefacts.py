"""Nothing half-written stands under its final name; hashes and figures depend on content alone."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cytolib.run import Stage, artefacts, atomic_path, sha256
from cytolib.run.artefacts import tree_sha256
from cytolib.run.tables import read_checked_table, write_table


def test_atomic_path_replaces_only_on_success(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "table.csv"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent and temporary.suffix == ".csv"
        temporary.write_text("old")
        assert not target.exists()
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(target.parent.iterdir()) == [target]
    with pytest.raises(FileNotFoundError), atomic_path(target):
        pass  # nothing was written
    assert target.read_text() == "old"


def test_atomic_path_replaces_a_folder_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for text in ("one", "two"):
        with atomic_path(target) as temporary:
            temporary.mkdir()
            (temporary / text).write_text(text)
    assert [p.name for p in target.iterdir()] == ["two"]
    assert list(tmp_path.iterdir()) == [target]


def test_sha256_of_a_folder_is_of_names_and_contents(tmp_path: Path) -> None:
    for folder, names in (("a", ["x/1", "x-1"]), ("b", ["x-1", "x/1"])):
        for name in names:
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name).write_text(name)
    assert sha256(tmp_path / "a") == sha256(tmp_path / "b")
    hashes = {name: sha256(tmp_path / "a" / name) for name in ("x/1", "x-1")}
    assert sha256(tmp_path / "a") == tree_sha256(hashes)
    (tmp_path / "b" / "x-1").rename(tmp_path / "b" / "y")
    assert sha256(tmp_path / "a") != sha256(tmp_path / "b")


def test_figures_have_the_same_bytes_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYTOLIB_RUNS", str(tmp_path))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    from matplotlib.figure import Figure

    stage, hashes = Stage("drawing"), []
    for date in ("0", "999999999"):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", date)
        figure = Figure()
        figure.subplots().plot([0, 1], [1, 0])
        stage.save_figure(figure, "line")
        hashes.append(sha256(stage.folder / "figures"))
    assert hashes[0] == hashes[1]
    assert sorted(p.name for p in (stage.folder / "figures").iterdir()) == ["line.pdf", "line.png"]


def test_importing_the_runner_is_light() -> None:
    code = "import sys, cytolib.run; print([m for m in ('numpy', 'torch', 'pandas', 'papermill') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_file_of_a_folder_is_flushed_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []

    def fsync(descriptor: int) -> None:
        assert not (tmp_path / "images").exists()
        synced.append(os.fstat(descriptor).st_ino)
        if len(synced) > 40:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with atomic_path(tmp_path / "images") as temporary:
        for number in range(40):
            (temporary / f"{number % 3}").mkdir(parents=True, exist_ok=True)
            (temporary / f"{number % 3}" / f"{number}.png").write_bytes(b"x")
    assert sorted(synced) == sorted(file.stat().st_ino for file in (tmp_path / "images").rglob("*.png"))
    (tmp_path / "images").rename(tmp_path / "kept")
    with pytest.raises(OSError, match="Input/output"), atomic_path(tmp_path / "other") as temporary:
        temporary.mkdir()
        (temporary / "a.png").write_bytes(b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_full_disk_is_called_so_whatever_the_writer_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write() -> None:
        with atomic_path(tmp_path / "state.pt") as temporary:
            temporary.write_text("half")
            raise RuntimeError("PytorchStreamWriter failed writing file data/1: file write failed")

    with pytest.raises(RuntimeError, match="PytorchStreamWriter"):
        write()
    monkeypatch.setattr(artefacts.shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))
    with pytest.raises(OSError, match=r"No space left on device: '.*state\.pt'"):
        write()
    assert not list(tmp_path.iterdir())


def test_what_killed_writers_leave_is_removed_and_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "a.pt") as temporary:
        name = temporary.name
        raise KeyboardInterrupt
    kept = ["a.pt", ".hidden", "shard-1.parquet", ".gitignore"]
    for text in (name, name + ".old", *kept):
        (tmp_path / text).write_text(text)
    artefacts.remove_temporaries(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
    artefacts.remove_temporaries(tmp_path / "absent")


def test_tables_with_checksums_show_their_damage(tmp_path: Path) -> None:
    frame, path = pd.DataFrame({"x": np.random.default_rng(0).normal(size=2000)}), tmp_path / "shard.parquet"
    write_table(frame, path, checksums=True)
    read = read_checked_table(path)
    assert read is not None and read.equals(frame)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    for damaged in (bytes(content), bytes(content[:-10]), b""):
        path.write_bytes(damaged)
        assert read_checked_table(path) is None
    assert read_checked_table(tmp_path / "absent.parquet") is None
