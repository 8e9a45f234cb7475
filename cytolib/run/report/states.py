"""What became of each stage of a run: verified, stale, failed or not run, and why."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cytolib.run.manifest import NAME, read_manifest, verify
from cytolib.run.paths import root
from cytolib.run.stages import Chain, StageSpec
from cytolib.run.status import last_failure

DONE, STALE, FAILED, ABSENT, UNCHECKED = "verified", "stale", "failed", "not run", "not checked"


@dataclass(frozen=True)
class StageState:
    """A stage as the report shows it.

    Attributes:
        name: the stage's name.
        folder: where its files lie.
        state: one of DONE, STALE, FAILED, ABSENT and UNCHECKED.
        reasons: why it is not verified; empty where it is.
        manifest: its manifest; None where there is none that can be read.
        spec: the stage in the chain; None for a stage that the chain does not know.
    """

    name: str
    folder: Path
    state: str
    reasons: tuple[str, ...]
    manifest: dict[str, Any] | None
    spec: StageSpec | None

    @property
    def done(self) -> bool:
        """Whether its files are what its manifest says."""
        return self.state == DONE


def find_spec(chain: Chain, name: str) -> StageSpec | None:
    """The stage of that name in the chain, or None."""
    return next((spec for spec in chain.stages if spec.name == name), None)


def stage_states(
    run_folder: Path, verified: Iterable[str], parameters: Mapping[str, Mapping[str, Any]], chain: Chain
) -> list[StageState]:
    """The state of every stage in ``parameters``, in that order.

    Args:
        run_folder: folder of the run.
        verified: stages whose files were compared with their manifests just now; the others are looked at here.
        parameters: effective parameters of every stage.
        chain: the stages and their notebooks.

    Raises:
        FileNotFoundError, ValueError: where a stage in ``verified`` has no readable manifest after all.
    """
    known = set(verified)
    states, stale = [], dict[str, list[str]]()
    for name, values in parameters.items():
        folder, spec = run_folder / name, find_spec(chain, name)
        if name in known:
            states.append(StageState(name, folder, DONE, (), read_manifest(folder), spec))
            continue
        if spec is None:
            state, why = _unknown(folder)
        else:
            why = verify(spec, run_folder, values, chain, stale)
            state = _word(folder, why)
        if why:
            stale[name] = why
        reasons = tuple(_without_paths(text, run_folder) for text in _with_failure(folder, state, why))
        states.append(StageState(name, folder, state, reasons, _manifest(folder), spec))
    return states


def _word(folder: Path, why: list[str]) -> str:
    if not why:
        return DONE
    if os.path.lexists(folder / NAME):
        return STALE
    return FAILED if last_failure(folder) is not None else ABSENT


def _unknown(folder: Path) -> tuple[str, list[str]]:
    """Without its place in a chain a stage cannot be verified, and the report does not say that it was."""
    if os.path.lexists(folder / NAME):
        return UNCHECKED, ["this run did not ask for it, so its files were not compared with its manifest"]
    return _word(folder, ["it has not finished yet (no manifest)"]), ["it has not finished yet (no manifest)"]


def _with_failure(folder: Path, state: str, why: list[str]) -> list[str]:
    failure = last_failure(folder) if state == FAILED else None
    return [failure["message"]] if failure else why


def _manifest(folder: Path) -> dict[str, Any] | None:
    try:
        return read_manifest(folder)
    except (FileNotFoundError, ValueError):
        return None  # the reasons say so


def _without_paths(text: str, run_folder: Path) -> str:
    """A message without the folders of this machine: reports are sent to others."""
    for path, word in ((run_folder, ""), (run_folder.resolve(), ""), (root(), ""), (Path.home(), "~/")):
        if len(path.parts) > 1:
            text = text.replace(f"{path}/", word)
    return text
