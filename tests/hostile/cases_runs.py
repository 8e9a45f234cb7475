"""Configurations, parameters, notebooks, manifests and stages: text that must never become code or a path outside."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cytolib.run import Stage
from cytolib.run.manifest import SCHEMA, read_manifest
from cytolib.run.parameters import notebook_parameters
from cytolib.run.sources import read_notebook
from tests.hostile.case import Door, case, command
from tests.run_tools import write_notebook

RUN = "cytolib run --config"


def config_case(input: str, text: str | bytes, *says: str) -> None:
    """A configuration of a run."""

    @case(input, RUN, "c.yaml", *says)
    def _(folder: Path) -> Door:
        content = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        (folder / "c.yaml").write_bytes(content)
        return lambda: command("run", "--config", str(folder / "c.yaml"))


def value(text: str) -> str:
    """A configuration with this value for the data set's name."""
    return f"run: mine\nstages:\n  00_data:\n    dataset: {text}\n"


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
CALL = "!!python/object/apply:os.mkdir [canary]"
config_case("YAML that calls a function", value(CALL), "not readable as YAML", "python/object/apply")
config_case("YAML object for the whole file", "!!python/object/new:os.system [mkdir canary]", "not readable as YAML")
config_case("YAML of a billion laughs", LAUGHS, "line 2: the alias *a")
config_case("YAML that contains itself", value("&x [*x]"), "the alias *x")
config_case("YAML with a key given twice", "run: a\nrun: b\n", "line 2: the key 'run' is given twice")
config_case("YAML with 10,000 keys", "\n".join(f"k{n}: 1" for n in range(10_000)), "unknown key 'k0'")
config_case("YAML nested 90,000 deep", "run: " + "[" * 90_000, "nested too deeply")
config_case("YAML indented by tabs", "run: a\nstages:\n\t00_data: {}\n", "not readable as YAML")
config_case("configuration that is no text", b"\x89PNG\r\n\x1a\n\0\0\xff", "not readable as YAML")
config_case("configuration of 2 MB", "run: a\n" + "#" * 2_000_000, "more than 100 kB")
config_case("run's name with slashes", "run: ../../etc\n", "letters, digits", "'../../etc'")
config_case("run's name with code", "run: $(touch evil)\n", "letters, digits")
config_case("unknown stage with code", "run: a\nstages: {\"__import__('os')\": {}}\n", "unknown stage")
config_case("unknown parameter", "run: a\nstages: {00_data: {sede: 1}}\n", "unknown parameter 'sede'")
config_case("parameter that is a date", value("2026-01-01"), "expected str, found datetime.date", "quotation marks")
config_case(
    "whole number of 5,000 digits", f"run: a\nstages: {{00_data: {{seed: {'9' * 5000}}}}}\n", "more than 4300 digits"
)
config_case(
    "whole number of 90,000 hexadecimal digits",
    f"run: a\nstages: {{00_data: {{seed: 0x{'f' * 90_000}}}}}\n",
    "needs more than 64 bits",
)
config_case("seed of 80 bits", f"run: a\nstages: {{00_data: {{seed: {2**80}}}}}\n", "00_data.seed", "64 bits")
config_case("fraction 1e999", "run: a\nstages: {00_data: {val_fraction: 1e999}}\n", "val_fraction", "expected float")
config_case("fraction .inf", "run: a\nstages: {00_data: {val_fraction: .inf}}\n", "val_fraction", "finite")
config_case(
    "list with code for a number", 'run: a\nstages: {00_data: {n_cells: ["1; import os"]}}\n', "n_cells", "expected int"
)
config_case(
    "text with code for a number", 'run: a\nstages: {00_data: {seed: "1; import os"}}\n', "seed", "expected int"
)
config_case("text with a zero character", value(r'"a\0b"'), "dataset", "control or direction character")
config_case("text with a line separator (U+2028)", value(r'"a\u2028import os"'), "dataset", "control or direction")
config_case("text that turns direction", value(r'"a\u202eb"'), "dataset", "control or direction")
config_case("text with half a character", value(r'"a\ud800b"'), "c.yaml")
config_case("mapping of mappings for a text", value("{a: {b: [" + "x, " * 5000 + "x]}}"), "dataset", "expected str")


@case("configuration that is a device", RUN, "/dev/zero", "no such configuration")
def _(folder: Path) -> Door:
    return lambda: command("run", "--config", "/dev/zero")


# --- notebooks --------------------------------------------------------------------------------------------------------


def parameters_case(input: str, source: str, *says: str) -> None:
    """A notebook with this parameters cell."""

    @case(input, "notebook_parameters", "n.ipynb", *says)
    def _(folder: Path) -> Door:
        path = write_notebook(folder / "n.ipynb", parameters=source)
        return lambda: notebook_parameters(path)


parameters_case("parameters cell that calls a function", "seed: int = __import__('os').mkdir('canary')", "no literal")
parameters_case("parameters cell that imports", "import os; os.mkdir('canary')", "expected 'name: type = literal")
parameters_case("parameter's type that is a call", "seed: __import__('os').mkdir('canary') = 1", "has type")
parameters_case("parameter named by a keyword", "class: int = 1", "not valid Python")
parameters_case("parameter named as a builtin's hook", "__import__: int = 1", "no name of a parameter")
parameters_case("parameter named in look-alike letters", "s\u0435ed: int = 1", "no name of a parameter")
parameters_case("default nested 100,000 deep", f"a: list[int] = {'[' * 100_000}", "not valid Python")
parameters_case("default of 50,000 minus signs", f"a: int = {'-' * 50_000}1", "n.ipynb")
parameters_case("type nested 1,000 deep", f"a: {'list[' * 150}int{']' * 150} = 1", "has type")
parameters_case("number with 5,000 digits", f"a: int = {'9' * 5000}", "not valid Python")


def notebook_case(input: str, content: str | bytes, *says: str) -> None:
    """A file in place of a notebook."""

    @case(input, "read_notebook", "n.ipynb", *says)
    def _(folder: Path) -> Door:
        (folder / "n.ipynb").write_bytes(content if isinstance(content, bytes) else content.encode())
        return lambda: read_notebook(folder / "n.ipynb")


def _cell(**changes: Any) -> str:
    cell = {"cell_type": "code", "metadata": {}, "source": "1", "outputs": [], "execution_count": None, **changes}
    return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


notebook_case("notebook nested 200,000 deep", "[" * 200_000, "no version-4 notebook")
notebook_case("notebook that is a web page", "<script>alert(1)</script>", "no version-4 notebook")
notebook_case(
    "notebook of version 3", json.dumps({"worksheets": [], "nbformat": 3}), "no version-4 notebook", "nbformat"
)
notebook_case("notebook whose source is a number", _cell(source=5), "source is 5")
notebook_case("notebook whose source is an object", _cell(source={"import os": 1}), "source is {'import os'")
notebook_case("notebook whose tags are text", _cell(metadata={"tags": "parameters"}), "tags are 'parameters'")
notebook_case("notebook with a cell of an unknown type", _cell(cell_type="<script>"), "of type '<script>'")
notebook_case("notebook with a key that stands twice", _cell()[:-1] + ', "cells": []}', "'cells' stands twice")


@case("notebook of 60 MB", "read_notebook", "n.ipynb", "more than 50 MB")
def _(folder: Path) -> Door:
    with open(folder / "n.ipynb", "wb") as file:
        file.truncate(60_000_000)
    return lambda: read_notebook(folder / "n.ipynb")


# --- manifests --------------------------------------------------------------------------------------------------------

GOOD: dict[str, Any] = {
    "schema": SCHEMA,
    "stage": "first",
    "executor": "script",
    "key": "0" * 64,
    "parameters": {"seed": 1},
    "inputs": [{"stage": "zero", "name": "x.txt", "kind": "file", "sha256": "0" * 64}],
    "outputs": {"y.txt": {"sha256": "0" * 64, "bytes": 3}},
    "modules": {"cytolib.run.stage": "0" * 64},
    "versions": {"python": "3.11"},
}


def manifest_case(input: str, text: str | Callable[[], str], *says: str) -> None:
    """A stage's manifest."""

    @case(input, "read_manifest", "manifest.json", *says)
    def _(folder: Path) -> Door:
        (folder / "manifest.json").write_text(text if isinstance(text, str) else text(), encoding="utf-8")
        return lambda: read_manifest(folder)


def changed(**changes: Any) -> str:
    """A sound manifest with other fields."""
    return json.dumps(GOOD | changes)


def output(name: str, **changes: Any) -> str:
    """A sound manifest with one other output."""
    return changed(outputs={name: {"sha256": "0" * 64, "bytes": 3, **changes}})


manifest_case("manifest: output that leaves its folder", output("../../etc/passwd"), "no path inside")
manifest_case("manifest: output that is a device", output("/dev/zero"), "'/dev/zero' is no path inside")
manifest_case("manifest: output with a Windows path", output("..\\evil"), "no path inside")
manifest_case("manifest: output with a line end", output("y\nall done"), "no path inside")
manifest_case("manifest: output of a negative size", output("y.txt", bytes=-1), "no sha256 and bytes")
manifest_case("manifest: output of 10^400 bytes", output("y.txt", bytes=10**400), "no sha256 and bytes")
manifest_case("manifest: hash in capitals", output("y.txt", sha256="A" * 64), "no sha256 and bytes")
manifest_case("manifest: hash of another length", output("y.txt", sha256="0" * 40), "no sha256 and bytes")
manifest_case(
    "manifest: number of 5,000 digits", changed(x=1)[:-1] + f', "y": {"9" * 5000}}}', "not a readable manifest"
)
manifest_case("manifest: NaN for the time", changed(wall_seconds=float("nan")), "NaN")
manifest_case("manifest: text for the memory", changed(peak_memory_bytes="<script>"), "'peak_memory_bytes' is")
manifest_case("manifest: list for the commit", changed(git=[1]), "'git' is [1]")
manifest_case("manifest: key that stands twice", changed()[:-1] + ', "outputs": {}}', "'outputs' stands twice")
manifest_case("manifest: nested 100,000 deep", "[" * 100_000, "not a readable manifest")
manifest_case(
    "manifest: input of a stage outside", changed(inputs=[{**GOOD["inputs"][0], "stage": "../../etc"}]), "no path"
)
manifest_case("manifest: module outside the package", changed(modules={"os.path": "0"}), "none of cytolib's")
manifest_case("manifest: binary", "\0\1\2", "not a readable manifest")


@case("manifest that is a link to /dev/zero", "read_manifest", "manifest.json", "no plain file")
def _(folder: Path) -> Door:
    (folder / "manifest.json").symlink_to("/dev/zero")
    return lambda: read_manifest(folder)


@case("manifest of 40 MB", "read_manifest", "manifest.json", "at most 32 MB")
def _(folder: Path) -> Door:
    with open(folder / "manifest.json", "wb") as file:
        file.truncate(40_000_000)
    return lambda: read_manifest(folder)


# --- stages -----------------------------------------------------------------------------------------------------------


@case("stage whose name leaves the run", "Stage", "'../../evil'", "no path inside")
def _(folder: Path) -> Door:
    return lambda: Stage("../../evil")


def stage_case(input: str, call: Callable[[Stage], object], *says: str) -> None:
    """What a notebook asks of its stage."""

    @case(input, "Stage", *says, leaves=("cytolib_runs/*",))
    def _(folder: Path) -> Door:
        return lambda: call(Stage("00_data", seed=1))


stage_case("output that leaves the stage", lambda stage: stage.path("../../evil"), "'../../evil'", "no path inside")
stage_case(
    "output with an absolute path", lambda stage: stage.path("/var/tmp/evil"), "'/var/tmp/evil'", "no path inside"
)
stage_case("output named as the manifest", lambda stage: stage.path("manifest.json"), "kept for the runner")
stage_case("input of a stage outside", lambda stage: stage.input("../..", "passwd"), "'../..'", "no path inside")
