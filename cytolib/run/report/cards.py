"""A stage as the report shows it: what it asked, when and where it ran, what it read and what it wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cytolib.run.artefacts import tree_sha256
from cytolib.run.manifest import NAME
from cytolib.run.report.notebook_text import title_and_question
from cytolib.run.report.rendering import anchor, href
from cytolib.run.report.states import FAILED, StageState

KEY_STAGE = "10_figures"  # the stage of the paper's figures and the key results
LARGE_FOLDER = 24  # files; a folder of more is one line


def stage_card(
    state: StageState, states: Sequence[StageState], notebook: dict[str, Any] | None, note: str
) -> dict[str, Any]:
    """All that the template shows of a stage; ``note`` is something that went wrong while its page was made."""
    manifest = state.manifest or {}
    title, question = title_and_question(notebook) if notebook else ("", "")
    git = manifest.get("git") or {}
    return {
        "name": state.name,
        "anchor": anchor(state.name),
        "state": state.state,
        "reasons": [*state.reasons, *([note] if note else [])],
        "title": title or state.name,
        "question": question,
        "entry": state.spec.entry if state.spec else "",
        "files": _own_files(state),
        "started": str(manifest.get("started") or ""),
        "seconds": float(manifest.get("wall_seconds") or 0) if state.manifest else None,
        "memory": int(manifest.get("peak_memory_bytes") or 0) if state.manifest else None,
        "threads": manifest.get("threads"),
        "device": str(manifest.get("device") or ""),
        "commit": str(git.get("commit") or ""),
        "dirty": bool(git.get("dirty")),
        "seeds": manifest.get("seeds") or {},
        "inputs": _inputs(manifest.get("inputs", []), {s.name: s for s in states}),
        "outputs": _outputs(state.name, manifest.get("outputs", {}), state.folder),
        "n_outputs": len(manifest.get("outputs", {})),
        "output_bytes": sum(file["bytes"] for file in manifest.get("outputs", {}).values()),
    }


def _own_files(state: StageState) -> list[tuple[str, str]]:
    """The files that the runner itself keeps in the stage's folder, as words and links."""
    name = state.name
    wanted = (
        ("notebook up to its failure" if state.state == FAILED else "executed notebook", f"{name}.html"),
        (".ipynb", f"{name}.ipynb"),
        ("failed .ipynb", "failed.ipynb"),
        ("log", "log.txt"),
        ("manifest", NAME),
    )
    return [(words, href(name, file)) for words, file in wanted if (state.folder / file).is_file()]


def _inputs(inputs: Sequence[Mapping[str, Any]], states: Mapping[str, StageState]) -> list[dict[str, Any]]:
    rows = []
    for item in inputs:
        source = states.get(item["stage"])
        outputs = (source.manifest or {}).get("outputs", {}) if source else {}
        prefix = item["name"].rstrip("/") + "/"
        inside = [file["bytes"] for name, file in outputs.items() if name == item["name"] or name.startswith(prefix)]
        is_file = item["kind"] == "file" and source is not None and (source.folder / item["name"]).is_file()
        rows.append(
            {
                "stage": item["stage"],
                "anchor": anchor(item["stage"]) if source else "",
                "name": item["name"] + ("/" if item["kind"] == "folder" else ""),
                "href": href(item["stage"], item["name"]) if is_file else "",
                "bytes": sum(inside) if inside else None,
                "sha256": item.get("sha256") or "",
            }
        )
    return rows


def _outputs(stage: str, outputs: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """A row a file; a folder of many files is one row, with the hash of its files' names and hashes."""
    folders: dict[str, list[str]] = {}
    for name in sorted(outputs):
        folders.setdefault(name.split("/")[0] if "/" in name else "", []).append(name)
    rows = []
    for parent, names in folders.items():
        if parent and len(names) > LARGE_FOLDER:
            inside = {name.removeprefix(parent + "/"): outputs[name]["sha256"] for name in names}
            size = sum(outputs[name]["bytes"] for name in names)
            row = {"name": f"{parent}/", "href": "", "bytes": size, "sha256": tree_sha256(inside)}
            rows.append({**row, "count": len(names)})
            continue
        for name in names:
            link = href(stage, name) if (folder / name).is_file() else ""
            rows.append({"name": name, "href": link, "count": 1, **outputs[name]})
    return rows
