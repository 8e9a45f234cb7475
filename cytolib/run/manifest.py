"""Stage manifests: what a finished stage read, ran and wrote, and whether all of it still holds.

A stage is done if its manifest verifies, and not otherwise: neither the executed notebook, nor papermill's status, nor
a file's time is taken for it.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import cytolib
from cytolib.run.artefacts import sha256, tree_sha256
from cytolib.run.external import external_changes
from cytolib.run.sources import notebook_sha256, unique_keys
from cytolib.run.stages import Chain, StageSpec
from cytolib.text import hides, reason, shown

NAME = "manifest.json"
SCHEMA = 1
MAX_BYTES = 32_000_000
EXECUTORS = {"notebook": ("papermill", "plain"), "script": ("script",)}  # the first is the usual one
_SHA = re.compile(r"[0-9a-f]{64}")
_FIELDS: dict[str, type] = {
    "stage": str,
    "executor": str,
    "key": str,
    "parameters": dict,
    "inputs": list,
    "outputs": dict,
    "modules": dict,
    "versions": dict,
}
_OPTIONAL: dict[str, Any] = {
    **{"seeds": dict, "git": dict, "started": str, "device": str, "peak_memory_bytes": int},
}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest in a stage folder, with its form checked, whoever wrote it.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: in one sentence, where it is no manifest.
    """
    path = folder / NAME
    try:
        found = path.lstat()
    except OSError:
        raise FileNotFoundError(f"{path}: there is no manifest; run the stage") from None
    if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_BYTES:
        raise ValueError(f"{path}: no plain file of at most {MAX_BYTES // 10**6} MB; delete it and run the stage again")
    try:
        values = json.loads(path.read_bytes(), object_pairs_hook=unique_keys, parse_constant=_no_number)
        _check(values)
    except (TypeError, KeyError):
        raise ValueError(f"{path}: not a readable manifest (its layout is another one); run the stage again") from None
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(f"{path}: not a readable manifest ({reason(error, 200)}); run the stage again") from None
    return values


def previous_manifest(run_folder: Path, stage: str) -> Path:
    """Where a stale stage's manifest waits while a run is on: Snakemake deletes a job's output before it starts."""
    return run_folder / ".pipeline" / "previous" / stage / NAME


def _check(values: Any) -> None:
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        raise ValueError(f"expected an object with schema {SCHEMA}")
    for name, type_ in _FIELDS.items():
        if not isinstance(values.get(name), type_):
            raise ValueError(f"{name!r} is missing or no {type_.__name__}")
    for name, type_ in _OPTIONAL.items():
        if not isinstance(values.get(name, type_()), type_):
            raise ValueError(f"{name!r} is {shown(values[name])}")
    if not 0 <= values.get("wall_seconds", 0.0) < 1e9 or not 0 <= values.get("peak_memory_bytes", 0) < 2**63:
        raise ValueError("'wall_seconds' or 'peak_memory_bytes' is no amount")
    files = dict(values["outputs"])
    if values.get("notebook") is not None:
        files[values["notebook"]["name"]] = values["notebook"]
    for name, file in files.items():
        safe_name(name)
        if not _SHA.fullmatch(file["sha256"]) or type(file["bytes"]) is not int or not 0 <= file["bytes"] < 2**63:
            raise ValueError(f"output {shown(name)} has no sha256 and bytes")
    for item in values["inputs"]:
        safe_name(item["name"]), safe_name(item["stage"])
        if item["kind"] not in ("file", "folder", "missing"):
            raise ValueError("an input has no kind")
        if item["kind"] != "missing" and not _SHA.fullmatch(item["sha256"]):
            raise ValueError(f"input {shown(item['name'])} has no sha256")
    for name, digest in values["modules"].items():
        if not re.fullmatch(r"cytolib(\.\w+)*", name) or not isinstance(digest, str):
            raise ValueError(f"module {shown(name)} is none of cytolib's")


def _no_number(name: str) -> Any:
    raise ValueError(f"it holds {name}, which is no number in JSON")


def safe_name(name: Any) -> str:
    """``name`` if it is a relative POSIX path that stays in its folder; else ValueError."""
    parts = PurePosixPath(name).parts if isinstance(name, str) and len(name) <= 1000 and not hides(name) else ()
    if not parts or name.startswith("/") or ".." in parts or "\\" in name:
        raise ValueError(
            f"{shown(name)} is no path inside a stage folder; expected something like 'tables/results.parquet'"
        )
    return name


def expected_key(spec: StageSpec, parameters: Mapping[str, Any], chain: Chain) -> str:
    """What is asked of a stage: the hash of its cleaned source, its effective parameters and its needs."""
    source = notebook_sha256(chain.notebook(spec)) if spec.kind == "notebook" else spec.entry
    values = {"stage": spec.name, "source": source, "parameters": dict(parameters), "needs": list(spec.needs)}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def verify(
    spec: StageSpec,
    run_folder: Path,
    parameters: Mapping[str, Any],
    chain: Chain,
    stale: Mapping[str, list[str]] | None = None,
) -> list[str]:
    """Why a stage is not done; an empty list where it is.

    Args:
        spec: the stage.
        run_folder: folder of the run; the stage's own folder lies in it.
        parameters: the effective parameters that are asked for.
        chain: the chain that the stage belongs to.
        stale: reasons of the stages before it, where they are known; None looks at this stage and its inputs only.
    """
    folder = run_folder / spec.name
    try:
        manifest = read_manifest(folder)
    except FileNotFoundError:
        return ["it has not finished yet (no manifest)" if folder.exists() else "it was not run yet"]
    except ValueError as error:
        return [str(error)]
    reasons: list[str] = []
    if manifest["executor"] not in EXECUTORS[spec.kind] or manifest["stage"] != spec.name:
        reasons.append(f"its manifest was written by {manifest['executor']!r} for {manifest['stage']!r}")
    elif manifest["key"] != expected_key(spec, parameters, chain):
        reasons += parameter_changes(manifest["parameters"], parameters) or ["its notebook or entry changed"]
    reasons += _module_changes(manifest["modules"])
    reasons += [f"{name} before it is stale" for name in spec.needs if (stale or {}).get(name)]
    reasons += _input_changes(manifest["inputs"], run_folder, stale or {})
    reasons += external_changes(manifest, folder)
    return reasons + output_changes(manifest, folder)


def parameter_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line for each parameter that differs."""
    changes = []
    for name in sorted({*old, *new}):
        before, after = json.dumps(old.get(name)), json.dumps(new.get(name))
        if before != after:
            changes.append(f"parameter {name} changed: {before[:60]} -> {after[:60]}")
    return changes


def _module_changes(modules: Mapping[str, str]) -> list[str]:
    package = Path(cytolib.__file__).parent
    reasons = []
    for name, digest in sorted(modules.items()):
        stem = package.joinpath(*name.split(".")[1:])
        files = [f for f in (stem.with_suffix(".py"), stem / "__init__.py") if f.is_file()]
        if not files:
            reasons.append(f"module {name} is gone")
        elif sha256(files[0]) != digest:
            reasons.append(f"module {name} changed")
    return reasons


def input_sha256(outputs: Mapping[str, Any], name: str) -> tuple[str, str | None]:
    """Kind ("file", "folder" or "missing") and hash of what ``name`` is among the outputs of a manifest."""
    if name in outputs:
        return "file", outputs[name]["sha256"]
    prefix = name.rstrip("/") + "/"
    inside = {k.removeprefix(prefix): v["sha256"] for k, v in outputs.items() if k.startswith(prefix)}
    return ("folder", tree_sha256(inside)) if inside else ("missing", None)


def _input_changes(inputs: Iterable[Mapping[str, Any]], run_folder: Path, stale: Mapping[str, Any]) -> list[str]:
    reasons = []
    outputs: dict[str, Any] = {}
    for item in inputs:
        stage, name = item["stage"], item["name"]
        if stale.get(stage):
            continue  # said already, and its files are about to change
        if stage not in outputs:
            try:
                outputs[stage] = read_manifest(run_folder / safe_name(stage))["outputs"]
            except (FileNotFoundError, ValueError):
                outputs[stage] = {}
        if input_sha256(outputs[stage], name) != (item["kind"], item.get("sha256")):
            reasons.append(f"input {stage}/{name} changed")
    return reasons


def output_changes(manifest: Mapping[str, Any], folder: Path) -> list[str]:
    """One line for each output (and the executed notebook) that is missing or no longer what was written."""
    files = dict(manifest["outputs"])
    if manifest.get("notebook"):
        files[manifest["notebook"]["name"]] = manifest["notebook"]
    reasons = []
    for name, expected in sorted(files.items()):
        path = folder / name
        try:
            found = path.lstat()
            if path.parent.resolve() != folder.resolve() / PurePosixPath(name).parent:
                reasons.append(f"output {name} lies behind a link")
            elif not stat.S_ISREG(found.st_mode):
                reasons.append(f"output {name} is no plain file")
            elif found.st_size != expected["bytes"] or sha256(path) != expected["sha256"]:
                reasons.append(f"output {name} was changed or damaged")
        except OSError:
            reasons.append(f"output {name} is missing")
    return reasons


def stale_stages(
    chain: Chain,
    run_folder: Path,
    parameters: Mapping[str, Mapping[str, Any]],
    until: str | None = None,
    force: Iterable[str] = (),
    trusted: Iterable[str] = (),
) -> dict[str, list[str]]:
    """The reasons of every wanted stage, in order; a stage with none is done.

    Stages named in ``trusted`` count as done: the caller has checked what of them is there.
    """
    reasons: dict[str, list[str]] = {}
    for spec in chain.up_to(until):
        if spec.name in set(trusted):
            reasons[spec.name] = []
            continue
        forced = ["it was forced"] if spec.name in set(force) else []
        reasons[spec.name] = forced + verify(spec, run_folder, parameters[spec.name], chain, reasons)
    return reasons
