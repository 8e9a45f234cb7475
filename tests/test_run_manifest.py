"""A stage is done only while everything that its manifest says still holds; each way of not holding is named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cytolib.run import Stage
from cytolib.run.execute import execute_stage
from cytolib.run.manifest import read_manifest, stale_stages, verify
from cytolib.run.stages import Chain
from tests.run_tools import toy_chain

PARAMETERS: dict[str, dict[str, Any]] = {"first": {"seed": 7}, "second": {"n": 3, "names": ["b"]}, "third": {"seed": 0}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toy chain (in ``code``) and a finished run of it (in ``run``)."""
    folder = tmp_path_factory.mktemp("finished")
    chain = toy_chain(folder / "code")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder / "code"))
        for spec in chain.stages:
            execute_stage(spec, folder / "run", PARAMETERS[spec.name], chain)
    return folder


@pytest.fixture
def toy(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Chain, Path]:
    """A copy of it for one test."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "code"))
    return Chain(toy_chain(tmp_path / "code").stages, tmp_path / "code"), tmp_path / "run"


def test_a_finished_run_verifies_wherever_it_lies(toy: tuple[Chain, Path]) -> None:
    chain, run = toy
    assert stale_stages(chain, run, PARAMETERS) == {"first": [], "second": [], "third": []}
    assert (run / "third" / "tables" / "z.txt").read_text() == "777"
    manifest = read_manifest(run / "second")
    assert manifest["executor"] == "script" and manifest["parameters"] == {"n": 3, "names": ["b"]}
    assert manifest["inputs"][0]["name"] == "x.txt" and manifest["wall_seconds"] > 0
    assert manifest["threads"] == 1 and {"numpy", "torch", "python"} <= set(manifest["versions"])
    assert "cytolib.run.stage" in manifest["modules"]
    notebook = read_manifest(run / "first")
    assert notebook["executor"] == "papermill" and notebook["seeds"] == {"seed": 7}
    assert notebook["peak_memory_bytes"] > 20e6
    assert sorted(p.name for p in (run / "first").iterdir()) == ["first.ipynb", "log.txt", "manifest.json", "x.txt"]


def _edit_manifest(**changes: Any) -> Callable[[Chain, Path], None]:
    def edit(chain: Chain, run: Path) -> None:
        path = run / "second" / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit


def _edit_source(chain: Chain, run: Path) -> None:
    path = chain.notebooks / "first.ipynb"
    path.write_text(path.read_text().replace("# title", "# another title"))


def _link_to_device(chain: Chain, run: Path) -> None:
    (run / "second" / "y.txt").unlink()
    (run / "second" / "y.txt").symlink_to("/dev/zero")


WAYS: list[tuple[str, str, Callable[[Chain, Path], Any]]] = [
    ("second", "no manifest", lambda c, r: (r / "second" / "manifest.json").unlink()),
    ("second", "written by 'interactive'", _edit_manifest(executor="interactive")),
    ("second", "for 'first'", _edit_manifest(stage="first")),
    ("second", "module cytolib.run.stage changed", _edit_manifest(modules={"cytolib.run.stage": "0" * 64})),
    ("second", "module cytolib.gone is gone", _edit_manifest(modules={"cytolib.gone": "0" * 64})),
    ("first", "notebook or entry changed", _edit_source),
    ("second", "output y.txt is missing", lambda c, r: (r / "second" / "y.txt").unlink()),
    ("second", "output y.txt was changed", lambda c, r: (r / "second" / "y.txt").write_text("778")),
    ("second", "output y.txt is no plain file", _link_to_device),
    ("first", "output first.ipynb is missing", lambda c, r: (r / "first" / "first.ipynb").unlink()),
    ("second", "not a readable manifest", lambda c, r: (r / "second" / "manifest.json").write_text("{")),
    ("second", "not a readable manifest", lambda c, r: (r / "second" / "manifest.json").write_text("[" * 100_000)),
    ("second", "not a readable manifest", lambda c, r: (r / "second" / "manifest.json").write_text("null")),
    ("second", "not a readable manifest", _edit_manifest(outputs={"../first/x.txt": {"sha256": "0" * 64, "bytes": 1}})),
    ("second", "not a readable manifest", _edit_manifest(outputs={"/etc/passwd": {"sha256": "0" * 64, "bytes": 1}})),
    ("second", "not a readable manifest", _edit_manifest(outputs={"y.txt": 3})),
    ("second", "not a readable manifest", _edit_manifest(inputs=[3])),
    ("second", "not a readable manifest", _edit_manifest(modules={"../../x": "0"})),
    ("second", "not a readable manifest", _edit_manifest(notebook=3)),
    ("second", "not a readable manifest", _edit_manifest(schema=2)),
    ("second", "no plain file", lambda c, r: os.truncate(r / "second" / "manifest.json", 40_000_000)),
]


@pytest.mark.parametrize(("stage", "reason", "spoil"), WAYS, ids=[f"{n}-{way[1]}" for n, way in enumerate(WAYS)])
def test_whatever_changes_makes_it_and_what_follows_stale(
    toy: tuple[Chain, Path], stage: str, reason: str, spoil: Callable[[Chain, Path], Any]
) -> None:
    chain, run = toy
    spoil(chain, run)
    reasons = stale_stages(chain, run, PARAMETERS)
    assert reason in " ".join(reasons[stage]) and "\n" not in "".join(reasons[stage])
    assert f"{stage} before it is stale" in reasons["third"]
    assert stage == "first" or not reasons["first"]


def test_an_output_behind_a_linked_folder_is_not_taken(toy: tuple[Chain, Path]) -> None:
    """What a link leads to can change at any time, and other programs write there."""
    chain, run = toy
    (run / "third" / "tables").rename(run.parent / "elsewhere")
    (run / "third" / "tables").symlink_to(run.parent / "elsewhere")
    assert stale_stages(chain, run, PARAMETERS)["third"] == ["output tables/z.txt lies behind a link"]


def test_a_changed_parameter_is_named(toy: tuple[Chain, Path]) -> None:
    chain, run = toy
    reasons = stale_stages(chain, run, {**PARAMETERS, "second": {"n": 4, "names": ["b"]}})
    assert reasons["first"] == [] and reasons["second"] == ["parameter n changed: 3 -> 4"]


def test_a_changed_input_is_named(toy: tuple[Chain, Path]) -> None:
    chain, run = toy
    execute_stage(chain["second"], run, {"n": 1, "names": ["b"]}, chain)
    reasons = stale_stages(chain, run, {**PARAMETERS, "second": {"n": 1, "names": ["b"]}})
    assert reasons == {"first": [], "second": [], "third": ["input second/y.txt changed"]}


def test_an_input_that_was_absent_and_appears_is_a_change(toy: tuple[Chain, Path]) -> None:
    chain, run = toy
    manifest = read_manifest(run / "first")
    manifest["outputs"]["absent.txt"] = manifest["outputs"]["x.txt"]
    (run / "first" / "manifest.json").write_text(json.dumps(manifest))
    assert "input first/absent.txt changed" in verify(chain["third"], run, PARAMETERS["third"], chain)


def test_times_alone_change_nothing(toy: tuple[Chain, Path]) -> None:
    chain, run = toy
    for path in (*run.rglob("*"), *chain.notebooks.iterdir()):
        os.utime(path, (1, 1))
    os.utime(run / "first" / "x.txt")
    notebook = json.loads((chain.notebooks / "first.ipynb").read_text())
    notebook["cells"][2]["execution_count"] = 4
    notebook["metadata"]["language_info"] = {"name": "python", "version": "3.99"}
    (chain.notebooks / "first.ipynb").write_text(json.dumps(notebook, indent=3))
    assert not any(stale_stages(chain, run, PARAMETERS).values())


def test_an_interactive_manifest_never_counts(toy: tuple[Chain, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    chain, run = toy
    monkeypatch.setenv("CYTOLIB_RUNS", str(run.parent / "runs"))
    for folder in ("interactive", "nbval"):
        monkeypatch.setenv("CYTOLIB_RUN", folder)
        stage = Stage("first", seed=7)
        stage.path("x.txt").write_text("7")
        stage.publish()
        assert read_manifest(stage.folder)["outputs"] == read_manifest(run / "first")["outputs"]
        reasons = verify(chain["first"], stage.folder.parent, {"seed": 7}, chain)
        assert "written by 'interactive'" in reasons[0]
    monkeypatch.setenv("CYTOLIB_RUN", "default")
    with pytest.raises(ValueError, match="one of interactive, nbval, browser"):
        Stage("first", seed=7)


def test_interactive_inputs_fall_back_to_the_verified_default_run(
    toy: tuple[Chain, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, run = toy
    runs = run.parent / "runs"
    shutil.copytree(run, runs / "default")
    monkeypatch.setenv("CYTOLIB_RUNS", str(runs))
    monkeypatch.delenv("CYTOLIB_RUN", raising=False)
    stage = Stage("second", n=1)
    assert stage.input("first", "x.txt") == runs / "default" / "first" / "x.txt"
    assert capsys.readouterr().out == "first/x.txt is taken from the finished pipeline run 'default'\n"
    (runs / "default" / "first" / "x.txt").write_text("8")
    with pytest.raises(FileNotFoundError, match="run notebook first first"):
        stage.input("first", "x.txt")
    assert stage.optional_input("first", "x.txt") is None
    (runs / "interactive" / "first").mkdir()
    (runs / "interactive" / "first" / "x.txt").write_text("9")
    assert stage.input("first", "x.txt").read_text() == "9"
    monkeypatch.setenv("CYTOLIB_RUN", "nbval")
    with pytest.raises(FileNotFoundError):
        Stage("second", n=1).input("first", "x.txt")


def test_outputs_stay_in_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYTOLIB_RUNS", str(tmp_path))
    stage = Stage("first")
    for name in ("../x", "/x", "", "manifest.json", ".x", "checkpoints/x", "first.ipynb"):
        with pytest.raises(ValueError, match="path inside|kept for the runner"):
            stage.path(name)
    (stage.checkpoints / "state.pt").write_text("kept")
    stage.path("x.txt").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="is a link"):
        stage.publish()
