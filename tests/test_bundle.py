"""A bundle is made, runs elsewhere without Jupyter, and its results come back: or are refused, in one sentence."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cytolib.bundle import there, wheels
from cytolib.bundle.contents import RESULTS, join_pieces, pack, split_in_pieces, write_contents
from cytolib.bundle.make import make_bundle
from cytolib.bundle.take import take_results
from cytolib.cli import main
from cytolib.run import root
from cytolib.run.config import read_config
from cytolib.run.execute import exclusive
from cytolib.run.manifest import read_manifest, stale_stages
from cytolib.run.pipeline import run_pipeline
from cytolib.run.stages import Chain
from tests.bundle_proof import THERE, clean_environment, poor_python
from tests.run_tools import toy_chain, toy_folder

CONFIGS = sorted((root() / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_is_valid(path: Path) -> None:
    config = read_config(path, Chain())
    assert config.run == path.stem and "configs/gpu.yaml" in (root() / "Makefile").read_text()


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the toy chain, whose first stage is done, and a configuration."""
    toy_folder(tmp_path, monkeypatch)
    code = run_pipeline(tmp_path / "c.yaml", chain=toy_chain(tmp_path), plain=True, until="first", say=lambda _: None)
    assert code == 0
    return tmp_path


def run_there(toy: Path, monkeypatch: pytest.MonkeyPatch, stages: tuple[str, ...] = ("second", "third")) -> int:
    """Make the toy bundle, unpack its tar elsewhere, run it there; what it says is in ``said.txt``."""
    make_bundle(toy / "c.yaml", toy / "b", [], stages=stages, chain=toy_chain(toy), say=lambda _: None)
    elsewhere = toy / "elsewhere"
    with tarfile.open(toy / "b.tar") as tar:
        tar.extractall(toy / "unpacked", filter="data")
    (toy / "unpacked" / "b").rename(elsewhere)
    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setenv("CYTOLIB_RUNS", str(elsewhere / "runs"))
        patch.setattr(there, "try_everything", lambda: None)  # the real one is run by run.py below
        code = there.run_bundle(elsewhere, chain=toy_chain(toy), say=said.append)
    (toy / "said.txt").write_text("".join(said))
    return code


def take(toy: Path, archive: Path | None = None) -> list[str]:
    return take_results(
        archive or toy / "elsewhere" / "results.tar",
        config_path=toy / "c.yaml",
        chain=toy_chain(toy),
        say=lambda _: None,
    )


def test_there_and_back(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_there(toy, monkeypatch) == 0
    said = (toy / "said.txt").read_text()
    assert "finished: second, third of second, third\n" in said and "bring back: results.tar (" in said
    assert not (toy / "runs" / "toy" / "second").exists()
    (toy / "runs" / "toy" / "second" / "checkpoints").mkdir(parents=True)
    assert take(toy) == ["second", "third"]
    config = read_config(toy / "c.yaml", toy_chain(toy))
    assert not any(stale_stages(toy_chain(toy), toy / "runs" / "toy", config.parameters).values())
    assert (toy / "runs" / "toy" / "third" / "tables" / "z.txt").read_text() == "77"
    assert (toy / "runs" / "toy" / "second" / "checkpoints").is_dir()
    words: list[str] = []
    assert run_pipeline(toy / "c.yaml", chain=toy_chain(toy), plain=True, say=words.append) == 0
    assert words[0].startswith("nothing to do: 3 stages")
    assert take(toy) == ["second", "third"]  # and once more: nothing is in the way


def test_what_is_finished_comes_back_from_a_partial_run(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = toy_chain(toy)  # writes the scripts, so the third is broken after it
    (toy / "toy_third.py").write_text("def main(stage, seed: int = 0) -> None:\n    raise ValueError('bad news')\n")
    monkeypatch.setattr(sys.modules[__name__], "toy_chain", lambda folder: chain)
    assert run_there(toy, monkeypatch) == 1
    assert "finished: second of second, third\n" in (toy / "said.txt").read_text()
    assert take(toy) == ["second"]
    log = toy / "runs" / "toy" / ".pipeline" / "logs_from_there" / "third" / "log.txt"
    assert log.read_text().endswith("ValueError: bad news\n") and not (toy / "runs" / "toy" / "third").exists()


def edit_results(toy: Path, change: Callable[[Path], None], relist: bool = True) -> Path:
    """Results with something changed in them; ``relist`` writes their list of files anew, as a forger would."""
    folder, archive = toy / "edited", toy / "edited.tar"
    with tarfile.open(toy / "elsewhere" / "results.tar") as tar:
        tar.extractall(folder, filter="data")
    change(folder)
    values = json.loads((folder / RESULTS).read_text())
    if relist:
        write_contents(folder, RESULTS, **{k: v for k, v in values.items() if k not in ("files", "format")})
    pack(folder, archive)
    return archive


def rename(folder: Path, old: str, new: str) -> None:
    (folder / old).rename(folder / new)


def edit_manifest(folder: Path, **values: object) -> None:
    path = folder / "stages" / "second" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def set_run(folder: Path) -> None:
    path = folder / RESULTS
    path.write_text(path.read_text().replace('"toy"', '"other"'))


HOSTILE: dict[str, tuple[Callable[[Path], None], bool, str]] = {
    "damaged": (lambda f: (f / "stages/second/y.txt").write_text("78") and None, False, "damaged, its bytes are not"),
    "lost": (lambda f: (f / "stages/second/y.txt").unlink(), False, "missing, although results.json names it"),
    "added": (lambda f: (f / "more.txt").write_text("x") and None, False, "results.json does not name it"),
    "forged": (lambda f: (f / "stages/second/y.txt").write_text("78") and None, True, "output y.txt was changed"),
    "smuggled": (
        lambda f: (f / "stages/second/.x").write_text("x") and None,
        True,
        "second/.x is not named by its man",
    ),
    "foreign": (lambda f: rename(f, "stages/second", "stages/ninth"), True, "'ninth' is no stage"),
    "swapped": (lambda f: rename(f, "stages/second", "stages/first"), True, "first was not made from what is here"),
    "executor": (lambda f: edit_manifest(f, executor="interactive"), True, "written by 'interactive'"),
    "key": (lambda f: edit_manifest(f, key="0" * 64), True, "its notebook or entry changed"),
    "module": (lambda f: edit_manifest(f, modules={"cytolib.embed": "0" * 64}), True, "module cytolib.embed changed"),
    "no manifest": (lambda f: edit_manifest(f, outputs=[]), True, "not a readable manifest"),
    "run": (set_run, True, "results of the run 'other'"),
    "format": (lambda f: (f / RESULTS).write_text("{}") and None, False, "results.json: not readable"),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy folder whose bundle has run; only copied from."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        toy_folder(folder, patch)
        chain = toy_chain(folder)
        assert run_pipeline(folder / "c.yaml", chain=chain, plain=True, until="first", say=lambda _: None) == 0
        assert run_there(folder, patch) == 0
    return folder


@pytest.fixture
def back(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, from which nothing was taken yet."""
    folder = tmp_path / "back"
    shutil.copytree(finished, folder)
    monkeypatch.setenv("CYTOLIB_RUNS", str(folder / "runs"))
    monkeypatch.syspath_prepend(str(folder))
    return folder


def refused(folder: Path, archive: Path, said: str) -> None:
    """Taking ``archive`` is refused in one sentence, and the run stays as it is."""
    run_folder = folder / "runs" / "toy"
    before = {p: p.read_bytes() for p in run_folder.rglob("*") if p.is_file()}
    with pytest.raises((ValueError, OSError)) as caught:
        take(folder, archive)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert {p: p.read_bytes() for p in run_folder.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("name", HOSTILE)
def test_results_that_are_not_what_they_should_be_are_refused(name: str, back: Path) -> None:
    change, relist, said = HOSTILE[name]
    refused(back, edit_results(back, change, relist), said)


def test_results_that_do_not_fit_what_is_here_are_refused(back: Path, tmp_path: Path) -> None:
    archive = back / "elsewhere" / "results.tar"
    (back / "c.yaml").write_text("run: toy\nstages:\n  first: {seed: 7}\n  second: {n: 3}\n")
    refused(back, archive, "second was not made from what is here (parameter n changed: 2 -> 3)")
    (back / "c.yaml").write_text("run: toy\nstages:\n  first: {seed: 8}\n")
    assert run_pipeline(back / "c.yaml", chain=toy_chain(back), plain=True, until="first", say=lambda _: None) == 0
    refused(back, archive, "second was not made from what is here (input first/x.txt changed)")
    with exclusive(back / "runs" / "toy" / ".pipeline" / "locks" / "run", ""):
        refused(back, archive, "a `cytolib run` is at work on this run")
    refused(back, tmp_path / "absent.tar", "there is no such file, nor pieces absent.tar.1of2")
    refused(back, back / "c.yaml", "c.yaml")


def test_an_archive_that_leaves_its_folder_is_not_unpacked(back: Path) -> None:
    archive = back / "escape.tar"
    with tarfile.open(archive, "w") as tar:
        info = tarfile.TarInfo("../outside.txt")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))
    refused(back, archive, "../outside.txt")
    assert not list(back.parent.rglob("outside.txt"))


def test_large_results_travel_in_pieces(tmp_path: Path) -> None:
    archive, content = tmp_path / "r.tar", bytes(range(256)) * 40
    archive.write_bytes(content)
    (tmp_path / "r.tar.1of9").write_bytes(b"of an earlier cut")
    pieces = split_in_pieces(archive, 4096)
    assert [p.name for p in pieces] == ["r.tar.1of3", "r.tar.2of3", "r.tar.3of3"] and not archive.exists()
    assert max(p.stat().st_size for p in pieces) == 4096 and not (tmp_path / "r.tar.1of9").exists()
    (tmp_path / "whole").mkdir()
    assert join_pieces(archive, tmp_path / "whole").read_bytes() == content
    pieces[1].unlink()
    with pytest.raises(FileNotFoundError, match="r.tar.2of3: this piece of 3 is missing"):
        join_pieces(archive, tmp_path / "whole")
    (tmp_path / "r.tar.1of2").write_bytes(b"")
    with pytest.raises(ValueError, match="pieces of several cuts"):
        join_pieces(archive, tmp_path / "whole")


def test_a_bundle_that_cannot_be_is_refused(toy: Path) -> None:
    chain, nothing = toy_chain(toy), lambda _: None
    with pytest.raises(ValueError, match="more than 100 kB .*project .*; take fewer stages"):
        make_bundle(toy / "c.yaml", toy / "b", [], stages=["second"], chain=chain, max_bytes=100_000, say=nothing)
    assert not (toy / "b").exists() and not (toy / "b.tar").exists()
    with pytest.raises(ValueError, match="second is not done here .*cytolib run --config .*--until second"):
        make_bundle(toy / "c.yaml", toy / "b", [], stages=["third"], chain=chain, say=nothing)
    with pytest.raises(ValueError, match="'ninth' is no stage"):
        make_bundle(toy / "c.yaml", toy / "b", [], stages=["ninth"], chain=chain, say=nothing)
    (toy / "mine").mkdir()
    (toy / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="holds something that is no bundle"):
        make_bundle(toy / "c.yaml", toy / "mine", [], stages=["second"], chain=chain, say=nothing)
    assert (toy / "mine" / "letter.txt").read_text() == "dear"


def test_the_lock_names_the_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = root() / "requirements.lock"
    old, new = (wheels.locked_lines(lock, python) for python in ("3.11", "3.12"))
    assert old["scipy"] != new["scipy"] and set(wheels.PURE) <= set(new) and "colorama" not in new
    assert all(line.count("--hash=sha256:") for line in new.values())
    with pytest.raises(ValueError, match="--with nosuch: requirements.lock has no such package"):
        wheels.fetch_wheels(lock, tmp_path, extra=["nosuch"])
    monkeypatch.setattr(wheels, "_download", lambda lines, *_: [Path(line.split()[0] + "-cp311.whl") for line in lines])
    with pytest.raises(ValueError, match="is compiled for one Python; .*--python 3.12"):
        wheels.fetch_wheels(lock, tmp_path, extra=["scikit-learn"])


def test_a_machine_that_lacks_something_is_told_what(toy: Path) -> None:
    chain = toy_chain(toy)
    (toy / "toy_second.py").write_text("import nosuch_package\n\ndef main(stage) -> None:\n    pass\n")
    sys.modules.pop("toy_second", None)
    with pytest.raises(RuntimeError, match="this Python lacks nosuch_package; install them"):
        there.check_machine(["first", "second"], chain, {}, lambda _: None)


def test_run_py_runs_a_real_stage_without_jupyter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the folder that was carried, in a Python without papermill, kernels and Snakemake, to a verified stage."""
    config = tmp_path / "small.yaml"
    config.write_text("run: small\nstages:\n  00_data: {n_cells: 64, n_held_out: 4}\n")
    make_bundle(config, tmp_path / "b", [], stages=["00_data"], say=lambda _: None)
    more = ("diffusers", "imbalanced-learn", "imagehash", "accelerate", "pooch")
    python = poor_python(tmp_path / "poor", (*THERE, *more))
    command = [str(python), str(tmp_path / "b" / "run.py")]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "finished: 00_data of 00_data\n" in done.stdout and "device " in done.stdout

    monkeypatch.setenv("CYTOLIB_RUNS", str(tmp_path / "runs"))
    assert main(["bundle", "take", str(tmp_path / "b" / "results.tar"), "--config", str(config)]) == 0
    config_, chain = read_config(config, Chain()), Chain()
    assert stale_stages(chain, tmp_path / "runs" / "small", config_.parameters, until="00_data") == {"00_data": []}
    assert read_manifest(tmp_path / "runs" / "small" / "00_data")["executor"] == "plain"

    (tmp_path / "b" / "project" / "pyproject.toml").write_text("")
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("run.py: project/pyproject.toml is damaged or was edited;")
    (tmp_path / "b" / "bundle.json").unlink()
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr == (
        "run.py: bundle.json is missing or damaged; copy the whole folder (or its tar) again\n"
    )
