"""What a stage read from outside the chain: a change makes it stale and is named; data that are elsewhere do not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cytolib.data import cards, prepare, registry
from cytolib.run import Stage, external, record
from cytolib.run.external import external_changes, external_notes
from cytolib.run.manifest import read_manifest

FOLDER = "ein Satz, größer"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with one set of three images, and a place for runs."""
    monkeypatch.setenv("CYTOLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("CYTOLIB_DATA", str(tmp_path / "data"))
    for name in ("ig/a.png", "ig/b.png", "neutrophil/naïve cell.png"):
        _write(tmp_path / "data" / FOLDER / name, name)
    return tmp_path / "data"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _published(*paths: Path) -> Path:
    stage = Stage("00_data")
    stage.reads(*paths)
    stage.publish()
    return stage.folder


def _again(path: Path, text: str) -> None:
    """Other bytes of the same length, at another time."""
    size = path.stat().st_size
    path.write_text(text.ljust(size)[:size])
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))


CHANGES: list[tuple[str, Callable[[Path], object]]] = [
    ("ig/a.png changed", lambda f: (f / "ig/a.png").write_text("longer than it was")),
    ("ig/a.png changed", lambda f: _again(f / "ig/a.png", "x")),
    ("ig/b.png is gone", lambda f: (f / "ig/b.png").unlink()),
    ("ig is gone, and 1 more", lambda f: shutil.rmtree(f / "ig")),
    ("ig/c.png was added", lambda f: _write(f / "ig/c.png", "c")),
    ("ig/b.png is gone", lambda f: (f / "ig/b.png").rename(f / "ig/d.png")),
    ("ig/a.png is gone, and 2 more", lambda f: (shutil.rmtree(f), f.mkdir())),
]


@pytest.mark.parametrize(("said", "change"), CHANGES, ids=[str(k) for k in range(len(CHANGES))])
def test_a_change_is_noticed_and_a_file_of_it_named(data: Path, said: str, change: Callable[[Path], object]) -> None:
    folder = _published(data / FOLDER)
    manifest = read_manifest(folder)
    assert external_changes(manifest, folder) == []
    change(data / FOLDER)
    lines = external_changes(manifest, folder)
    name, _, what = said.partition(" ")
    assert any(line.startswith(f"{data / FOLDER / name}") and line.endswith(what) for line in lines), lines
    assert not any("\n" in line for line in lines) and external_notes(manifest, folder) == []


def test_times_and_hidden_files_alone_change_nothing(data: Path) -> None:
    folder = _published(data / FOLDER)
    for path in (data / FOLDER).rglob("*"):
        os.utime(path, (1, 1))
    _write(data / FOLDER / ".hidden" / "x.png", "x")
    _write(data / FOLDER / "ig" / "._a.png", "x")
    assert external_changes(read_manifest(folder), folder) == []


def test_only_what_differs_in_time_is_hashed_again(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _published(data / FOLDER)
    hashed: list[Path] = []
    real = external.sha256
    monkeypatch.setattr(external, "sha256", lambda path: (hashed.append(Path(path)), real(path))[1])
    assert external_changes(read_manifest(folder), folder) == [] and hashed == [folder / external.NAME]
    os.utime(data / FOLDER / "ig/a.png", (1, 1))
    assert external_changes(read_manifest(folder), folder) == [] and hashed[-1] == data / FOLDER / "ig/a.png"


def test_data_that_are_not_on_this_machine_are_not_checked_and_not_stale(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _published(data / FOLDER)
    manifest = read_manifest(folder)
    for elsewhere in (tmp_path / "none", tmp_path):  # no data root; one without this set
        monkeypatch.setenv("CYTOLIB_DATA", str(elsewhere))
        assert external_changes(manifest, folder) == []
        assert external_notes(manifest, folder) == [f"not checked: {FOLDER} is not in the data root {elsewhere}"]


def test_what_was_not_there_and_appears_is_a_change(data: Path) -> None:
    folder = _published(data / "later")
    manifest = read_manifest(folder)
    assert external_changes(manifest, folder) == [] == external_notes(manifest, folder)
    _write(data / "later" / "x.csv", "1")
    assert external_changes(manifest, folder) == [f"{data / 'later' / 'x.csv'} was added"]


def test_links_are_followed_and_a_circle_ends(data: Path, tmp_path: Path) -> None:
    _write(tmp_path / "disk" / "blast" / "e.png", "e")
    (data / FOLDER / "blast").symlink_to(tmp_path / "disk" / "blast")
    (data / FOLDER / "ig" / "again").symlink_to(data / FOLDER)
    folder = _published(data / FOLDER)
    manifest = read_manifest(folder)
    assert external_changes(manifest, folder) == []
    _write(tmp_path / "disk" / "blast" / "e.png", "another")
    assert external_changes(manifest, folder) == [f"{data / FOLDER / 'blast' / 'e.png'} changed"]


def test_a_split_file_in_the_project_counts_even_where_no_data_are(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(external._ROOTS, "project", lambda: tmp_path / "project")  # type: ignore[index]
    split = tmp_path / "project" / "split.csv"
    _write(split, "cell_id,split")
    folder = _published(data / FOLDER, split)
    monkeypatch.setenv("CYTOLIB_DATA", str(tmp_path / "none"))
    split.unlink()
    assert external_changes(read_manifest(folder), folder) == [f"{split} is gone"]
    with pytest.raises(ValueError, match="neither in the data root"):
        Stage("00_data").reads(tmp_path / "project" / ".." / "x.csv")


def test_a_damaged_list_is_no_done(data: Path) -> None:
    folder = _published(data / FOLDER)
    file = folder / external.NAME
    entries = json.loads(file.read_text())
    for bad in ("[]", "[" * 100_000, json.dumps([{**entries[0], "name": "../../etc"}]), json.dumps([3]), "null"):
        file.write_text(bad)
        said = [f"{external.NAME}, the list of what it read, is missing or damaged"]
        assert external_changes(read_manifest(folder), folder) == said
        forged = {**read_manifest(folder), "reads": external.sha256(file)}
        assert bad == "[]" or external_changes(forged, folder) == said
        assert external_notes(forged, folder) == []
    file.unlink()
    assert external_changes(read_manifest(folder), folder) == said
    assert external.NAME not in read_manifest(folder)["outputs"]


def test_a_stage_that_reads_nothing_writes_no_list(data: Path) -> None:
    _published(data / FOLDER)
    folder = _published()
    assert read_manifest(folder)["reads"] is None and not (folder / external.NAME).exists()


def test_every_data_set_names_what_its_reader_opens(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("Segmentation_WBC-master", "BCCD", "labels.csv", "dataset2-master", "mll23", "mine/deep"):
        (data / name).mkdir(parents=True)
    (data / "mine" / "cells.csv").write_text("path,label,mask\na.png,blast,m.png\n../b.png,blast,\n/c.png,blast,\n")

    def named(dataset: str, split_file: str = "") -> list[str]:
        return [path.relative_to(data).as_posix() for path in prepare.sources(dataset, split_file)]

    assert prepare.sources("phantoms") == []
    assert named("zheng1") == ["Segmentation_WBC-master"] and named("mll23") == ["mll23"]
    assert named("bccd") == ["BCCD", "dataset2-master", "labels.csv"]
    assert named("pbc") == ["PBC_dataset_normal_DIB"]  # not there yet
    assert named("folder:mine/deep") == ["mine/deep"]
    assert named("csv:mine/cells.csv") == ["mine/cells.csv", "mine/a.png", "mine/m.png"]
    assert registry.data_set("pbc").places(data) == [] and registry.data_set("pbc").places(tmp_path / "none") == []
    assert all(isinstance(card, cards.DataSet) and card.sources(data) for card in registry.DATA_SETS.values())


def test_other_versions_are_a_note() -> None:
    made = {**record.versions(), "numpy": "0.1", "gone": "2.0"}
    here = record.versions()["numpy"]
    assert record.version_notes({"versions": made}) == [
        "made with gone 2.0, here is none",
        f"made with numpy 0.1, here is {here}",
    ]
    assert record.version_notes({"versions": record.versions()}) == []


@pytest.mark.real_data
def test_fourteen_thousand_images_are_checked_in_a_second(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    monkeypatch.setenv("CYTOLIB_RUNS", str(tmp_path))
    monkeypatch.setenv("CYTOLIB_DATA", str(real_data))
    folder = _published(*prepare.sources("pbc"))
    manifest = read_manifest(folder)
    started = time.process_time()  # of this process: the machine may be busy
    assert external_changes(manifest, folder) == []
    assert time.process_time() - started < 1
