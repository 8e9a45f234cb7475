"""The configuration of a run: a YAML file that names the run and the parameters that differ from their defaults."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cytolib.run.parameters import Parameter, notebook_parameters, override, script_parameters, suggest
from cytolib.run.paths import runs_root
from cytolib.run.stages import Chain, StageSpec
from cytolib.text import reason, shown

RESERVED_RUNS = ("interactive", "nbval", "browser", "reference", "figures")
MAX_CONFIG_BYTES = 100_000


@dataclass(frozen=True)
class RunConfig:
    """A checked configuration: the run's name and the effective parameters of every stage."""

    run: str
    parameters: dict[str, dict[str, Any]]


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that refuses a key that is given twice: YAML would keep the last one without a word.

    It refuses aliases too: a few lines of them stand for billions of values.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise ValueError(f"line {event.start_mark.line + 1}: the alias *{event.anchor[:40]}; write the value out")
        return super().compose_node(parent, index)


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    seen = set[str]()
    for key, (place, _) in zip(keys, node.value, strict=True):
        if not isinstance(key, str):
            raise ValueError(f"line {place.start_mark.line + 1}: the key {shown(key)} is no text")
        if key in seen:
            raise ValueError(f"line {place.start_mark.line + 1}: the key {shown(key)} is given twice")
        seen.add(key)
    return {k: loader.construct_object(v, deep=True) for k, (_, v) in zip(keys, node.value, strict=True)}


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def check_run_name(name: Any, where: str) -> str:
    """A run's name, which becomes a folder's: letters, digits, ``_`` and ``-``, and none that others use."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise ValueError(f"{where}: expected 'run' of letters, digits, _ and -, found {shown(name)}")
    if name in RESERVED_RUNS:
        raise ValueError(f"{where}: the run name {name!r} is kept for other uses; choose another one")
    return name


def stage_parameters(spec: StageSpec, chain: Chain) -> dict[str, Parameter]:
    """The parameters that a stage declares, from its notebook or its function."""
    if spec.kind == "notebook":
        return notebook_parameters(chain.notebook(spec))
    return script_parameters(spec.entry)


def read_config(path: Path, chain: Chain) -> RunConfig:
    """Read and check a configuration against the parameters that the stages declare.

    Raises:
        FileNotFoundError: where the file or a notebook is missing.
        ValueError, TypeError: in one sentence, for anything unknown, mistyped or of the wrong type.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such configuration; name one with --config")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ValueError(f"{path}: more than 100 kB; a configuration is a short YAML file")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as YAML: {reason(error, 300)}") from None
    if not isinstance(values, dict):
        raise TypeError(f"{path}: expected the keys 'run' and 'stages', found {type(values).__name__}")
    for key in values:
        if key not in ("run", "stages"):
            raise ValueError(f"{path}: unknown key {shown(key)}; {suggest(key, ('run', 'stages'))}")
    stages = values.get("stages") or {}
    if not isinstance(stages, dict):
        raise TypeError(f"{path}: 'stages' maps stages to parameters, found {type(stages).__name__}")
    for name in stages:
        if name not in chain.names():
            raise ValueError(f"{path}: unknown stage {shown(name)}; {suggest(name, chain.names())}")
    return RunConfig(
        check_run_name(values.get("run"), str(path)),
        {
            spec.name: override(stage_parameters(spec, chain), stages.get(spec.name), f"{path}, {spec.name}")
            for spec in chain.stages
        },
    )


def check_run_folder(name: str) -> Path:
    """The folder of a run that was made, under the runs or in the reference set.

    Raises:
        ValueError: for a name that is none, or of which there is no run.
    """
    check_run_name(name, "--run")
    for folder in (runs_root() / name, runs_root() / "reference" / name):
        if folder.is_dir():
            return folder
    raise ValueError(f"--run {name}: there is no such run in {runs_root()}; `cytolib run` makes one")
