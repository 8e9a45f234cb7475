"""Parameters beside their defaults, and how to make the run again: commit, configuration and command."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import yaml

from cytolib.run.config import stage_parameters
from cytolib.run.parameters import Parameter
from cytolib.run.report.states import StageState
from cytolib.run.stages import Chain


@dataclass(frozen=True)
class ParameterRow:
    """A parameter's value, its default (None where the stage's source is not known) and its help line."""

    name: str
    value: Any
    default: Any
    has_default: bool
    help: str

    @property
    def changed(self) -> bool:
        """Whether the configuration of the run set it to something else."""
        return self.has_default and json.dumps(self.value) != json.dumps(self.default)

    @property
    def shown(self) -> str:
        """The value as JSON."""
        return json.dumps(self.value, ensure_ascii=False)

    @property
    def default_shown(self) -> str:
        """The default as JSON; a dash where it is not known."""
        return json.dumps(self.default, ensure_ascii=False) if self.has_default else "–"


def parameter_rows(state: StageState, values: Mapping[str, Any], chain: Chain) -> list[ParameterRow]:
    """Every parameter of a stage with its default as the stage's notebook or function declares it."""
    declared: Mapping[str, Parameter] = stage_parameters(state.spec, chain) if state.spec else {}
    rows = []
    for name, value in values.items():
        known = declared.get(name)
        default, help_ = (known.default, known.help) if known else (None, "")
        rows.append(ParameterRow(name, value, default, known is not None, help_))
    return rows


def changed_parameters(rows: Mapping[str, Sequence[ParameterRow]]) -> list[tuple[str, ParameterRow]]:
    """Those that differ from their defaults, with their stages."""
    return [(stage, row) for stage, found in rows.items() for row in found if row.changed]


def run_again(run: str, states: Sequence[StageState], rows: Mapping[str, Sequence[ParameterRow]]) -> dict[str, Any]:
    """The commit, a complete configuration, its file name and a link that saves it, for the commands of the page."""
    stages = {
        stage: {row.name: row.value for row in found if row.changed or not row.has_default}
        for stage, found in rows.items()
    }
    values = {"run": run, "stages": {stage: chosen for stage, chosen in stages.items() if chosen}}
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)
    git = [(state.manifest.get("git") or {}) for state in states if state.manifest]
    commits = list(dict.fromkeys(str(g.get("commit") or "") for g in git))
    return {
        "commit": commits[-1] if commits else "",
        "n_commits": len(commits),
        "dirty": any(g.get("dirty") for g in git),
        "yaml": text,
        "file": f"{run}.yaml",
        "href": "data:text/yaml;charset=utf-8," + quote(text),
    }
