"""A stage as its notebook or function sees it: where to write, where inputs lie, and the publication at the end."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cytolib.run import external
from cytolib.run.artefacts import sha256, tree_sha256, write_json
from cytolib.run.manifest import NAME, SCHEMA, output_changes, read_manifest, safe_name
from cytolib.run.paths import runs_root
from cytolib.run.tables import write_table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FOLDER_VARIABLE = "CYTOLIB_STAGE_DIR"
TOKEN_VARIABLE = "CYTOLIB_STAGE_TOKEN"
REQUEST = ".request.json"
PUBLICATION = ".publication.json"
CHECKPOINTS = "checkpoints"
INTERACTIVE_RUNS = ("interactive", "nbval", "browser")


def own_names(stage: str) -> set[str]:
    """File names in a stage folder that belong to the runner and are no outputs."""
    return {NAME, external.NAME, "log.txt", "failed.ipynb", f"{stage}.ipynb", f"{stage}.html"}


def output_files(folder: Path, stage: str) -> list[str]:
    """Relative names of a stage's outputs: all its files but checkpoints, hidden ones and the runner's own."""
    names = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts)
        if hidden or name.parts[0] == CHECKPOINTS or name.as_posix() in own_names(stage):
            continue
        if path.is_symlink():
            raise ValueError(f"{path}: an output is a link; write the file itself, so that it can be verified")
        if path.is_file():
            names.append(name.as_posix())
    return sorted(names)


def hash_outputs(folder: Path, stage: str) -> dict[str, dict[str, Any]]:
    """SHA-256 and size of every output of a stage."""
    names = output_files(folder, stage)
    return {name: {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size} for name in names}


def size_text(n_bytes: float) -> str:
    """A size in words: ``812 kB``."""
    for unit in ("B", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} GB"


class Stage:
    """A stage of the chain, opened in its notebook: ``stage = Stage("01_embed", encoder=encoder, ...)``.

    Under the pipeline the runner says where it writes and which parameters it must have. In JupyterLab it writes to the
    run ``interactive`` (or what ``$CYTOLIB_RUN`` names), which never makes a pipeline stage done.

    Args:
        name: the stage's name, as its notebook is called.
        parameters: all parameters of the notebook, under their own names.

    Raises:
        ValueError: where the name or a parameter is not what the runner asked for.
    """

    def __init__(self, name: str, **parameters: Any) -> None:
        self.name = safe_name(name)
        self.parameters: dict[str, Any] = json.loads(json.dumps(parameters))
        self.published = False
        self._inputs: dict[tuple[str, str], dict[str, Any]] = {}
        self._reads: dict[Path, dict[str, Any]] = {}
        self._request = self._read_request()
        if self._request is None:
            run = os.environ.get("CYTOLIB_RUN") or "interactive"
            if run not in INTERACTIVE_RUNS:
                raise ValueError(
                    f"CYTOLIB_RUN is {run!r}; outside the pipeline it is one of {', '.join(INTERACTIVE_RUNS)}"
                )
            self.run_folder = runs_root() / run
            self.folder = self.run_folder / name
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / NAME).unlink(missing_ok=True)

    def _read_request(self) -> dict[str, Any] | None:
        token = os.environ.get(TOKEN_VARIABLE)
        if not token:
            return None
        self.folder = Path(os.environ[FOLDER_VARIABLE])
        self.run_folder = self.folder.parent
        request = json.loads((self.folder / REQUEST).read_text(encoding="utf-8"))
        if request["token"] != token or request["stage"] != self.name:
            raise ValueError(f"Stage({self.name!r}) was opened while the runner executes {request['stage']!r}")
        asked = request["parameters"]
        for name in sorted({*asked, *self.parameters}):
            if name not in self.parameters:
                raise ValueError(f"Stage({self.name!r}): the parameter {name} is not passed on; add {name}={name}")
            if name not in asked or json.dumps(asked[name]) != json.dumps(self.parameters[name]):
                wanted = json.dumps(asked[name]) if name in asked else "no such parameter"
                raise ValueError(
                    f"Stage({self.name!r}): {name} is {json.dumps(self.parameters[name])} but the runner asked for "
                    f"{wanted}; set parameters in the parameters cell only"
                )
        return request

    @property
    def checkpoints(self) -> Path:
        """Folder that survives reruns of the stage and is no output: for training to resume from."""
        folder = self.folder / CHECKPOINTS
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def path(self, name: str) -> Path:
        """Where the output ``name`` is to be written; its folder exists afterwards."""
        safe_name(name)
        if name in own_names(self.name) or name.startswith(".") or name.split("/")[0] == CHECKPOINTS:
            raise ValueError(f"the output name {name!r} is kept for the runner; choose another one")
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def input(self, stage: str, name: str) -> Path:
        """An artefact (file or folder) of an earlier stage, recorded as an input of this one.

        Raises:
            FileNotFoundError: where it is not there yet.
            ValueError: under the pipeline, where ``stage`` is not among the needs of this stage.
        """
        path = self.optional_input(stage, name)
        if path is None:
            raise FileNotFoundError(
                f"{self.run_folder / stage / name}: not there yet; run notebook {stage} first (or `make pipeline`)"
            )
        return path

    def optional_input(self, stage: str, name: str) -> Path | None:
        """As ``input``, but None where the artefact is not there; its absence is recorded too."""
        safe_name(stage), safe_name(name)
        if self._request is not None and stage not in self._request["needs"]:
            raise ValueError(f"{self.name} reads {stage}, which is not among its needs in cytolib/run/stages.py")
        path = self._find(stage, name)
        kind, digest = _hash_input(path) if path else ("missing", None)
        self._inputs[stage, name] = {"stage": stage, "name": name, "kind": kind, "sha256": digest}
        return path

    def reads(self, *paths: Path) -> None:
        """Record files or folders from outside the chain, before they are read: the stage is stale once they change.

        Raises:
            ValueError: for a path that lies neither under the data root nor in the project.
        """
        self._reads |= {path: external.look(path) for path in paths}

    def _find(self, stage: str, name: str) -> Path | None:
        path = self.run_folder / stage / name
        if path.exists():
            return path
        finished = runs_root() / "default" / stage
        if self._request is None and self.run_folder.name == "interactive" and (finished / name).exists():
            try:
                manifest = read_manifest(finished)
            except (FileNotFoundError, ValueError):
                return None
            if manifest["executor"] != "interactive" and not output_changes(manifest, finished):
                print(f"{stage}/{name} is taken from the finished pipeline run 'default'")
                return finished / name
        return None

    def save_table(self, frame: pd.DataFrame, name: str) -> None:
        """Write ``name`` (parquet) without index or pandas metadata: equal frames give equal bytes."""
        write_table(frame, self.path(name))

    def save_figure(self, figure: Figure, name: str) -> None:
        """Write ``figures/<name>.png`` (150 dpi) and ``.pdf``: the same figure gives the same bytes."""
        from cytolib.figures.saving import save_figure

        save_figure(figure, self.path(f"figures/{name}").parent, name)

    def publish(self) -> None:
        """Hash all outputs, write down what they were made from and with, and print a table of them.

        Interactively this writes the manifest. Under the pipeline it writes a record that the runner checks against
        the files after the process has ended, and only then turns into the manifest.
        """
        from cytolib.run.record import process_record

        outputs = hash_outputs(self.folder, self.name)
        record = {
            "schema": SCHEMA,
            "stage": self.name,
            "executor": "interactive",
            "key": "",
            "parameters": self.parameters,
            "seeds": {k: v for k, v in self.parameters.items() if k in ("seed", "seeds") or k.endswith("_seed")},
            "inputs": [self._inputs[key] for key in sorted(self._inputs)],
            "reads": external.write_reads(self._reads.values(), self.folder),
            "outputs": outputs,
            **process_record(),
        }
        if self._request is None:
            write_json(record, self.folder / NAME)
        else:
            write_json({**record, "token": self._request["token"]}, self.folder / PUBLICATION)
        self.published = True
        print(f"{self.name}: {len(outputs)} files")
        print("\n".join(f"  {line}" for line in _listing(outputs)))


def _listing(outputs: dict[str, dict[str, Any]], shown: int = 12) -> list[str]:
    """A line a file with its size; a folder of more than ``shown`` files is one line."""
    folders: dict[str, list[str]] = {}
    for name in outputs:
        folders.setdefault(name.split("/")[0] if "/" in name else "", []).append(name)
    rows = []
    for folder, names in sorted(folders.items()):
        if folder and len(names) > shown:
            total = sum(outputs[name]["bytes"] for name in names)
            rows.append((f"{folder}/ ({len(names):,} files)", total))
        else:
            rows += [(name, outputs[name]["bytes"]) for name in names]
    width = max([len(name) for name, _ in rows] or [0])
    return [f"{name:<{width}}  {size_text(size):>7}" for name, size in rows]


def _hash_input(path: Path) -> tuple[str, str]:
    if path.is_file():
        return "file", sha256(path)
    files = {p.relative_to(path): p for p in path.rglob("*") if p.is_file()}
    seen = {k.as_posix(): sha256(v) for k, v in files.items() if not any(q.startswith(".") for q in k.parts)}
    return "folder", tree_sha256(seen)
