"""``index.html`` of a run: everything that a reader asks of it, gathered from manifests, tables and notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from cytolib.run.artefacts import atomic_path
from cytolib.run.report.again import changed_parameters, parameter_rows, run_again
from cytolib.run.report.cards import KEY_STAGE, stage_card
from cytolib.run.report.forest import WIDTH, forest_groups
from cytolib.run.report.gallery import stage_figures
from cytolib.run.report.notebook_pages import Link, write_notebook_page
from cytolib.run.report.rendering import anchor, environment, href, template_text
from cytolib.run.report.states import FAILED, StageState, stage_states
from cytolib.run.report.tables import SUFFIXES, read_head
from cytolib.run.results import read_key_results
from cytolib.run.sources import read_notebook
from cytolib.run.stage import size_text
from cytolib.run.stages import Chain

MAX_TABLES = 20  # of one stage; sharded tables may be hundreds


def write_report(
    run_folder: Path,
    stages: Sequence[str],
    parameters: Mapping[str, Mapping[str, Any]],
    chain: Chain | None = None,
) -> Path:
    """Write ``index.html`` of a run, and a page beside every executed notebook.

    Everything is linked relative to the run folder and nothing is fetched, so that the folder can be moved and read
    anywhere. Figures and tables are shown of verified stages only. The same run gives the same bytes, and a file that
    would not change is not written.

    Args:
        run_folder: folder of the run.
        stages: the stages that were verified just now.
        parameters: effective parameters of every stage of the chain, in order; stages that are not in ``stages`` are
            verified here and shown as what they are.
        chain: the stages and their notebooks; None for the project's own.

    Raises:
        FileNotFoundError, ValueError: where a verified stage has no manifest or its notebook cannot be converted.
    """
    chain = chain or Chain()
    states = stage_states(run_folder, stages, parameters, chain)
    sources = {state.name: _executed(state) for state in states}
    notes = _write_pages(run_folder.name, states, sources)
    notebooks = {name: read_notebook(path) if path and name not in notes else None for name, path in sources.items()}
    rows = {state.name: parameter_rows(state, parameters[state.name], chain) for state in states}
    done = [state for state in states if state.done and state.manifest]
    cards = [stage_card(state, states, notebooks[state.name], notes.get(state.name, "")) for state in states]
    values = {
        "run": run_folder.name,
        "cards": cards,
        "facts": _facts(states, parameters),
        "groups": forest_groups(read_key_results(run_folder) if any(s.name == KEY_STAGE for s in done) else []),
        "plot_width": WIDTH,
        "galleries": _paper_first([_gallery(state, notebooks[state.name]) for state in done]),
        "tables": _paper_first([_tables(state) for state in done]),
        "parameters": rows,
        "changed": changed_parameters(rows),
        "again": run_again(run_folder.name, states, rows),
        "versions": _versions(done),
        "platforms": sorted({str(s.manifest["platform"]) for s in done if s.manifest and s.manifest.get("platform")}),
        "key_stage": KEY_STAGE,
        "index_style": Markup(template_text("index.css")),
        "size_text": size_text,
        "duration": duration,
        "moment": moment,
    }
    path = run_folder / "index.html"
    html = environment().get_template("index.html.j2").render(values)
    if not path.is_file() or path.read_bytes() != html.encode():
        with atomic_path(path) as temporary:
            temporary.write_text(html, encoding="utf-8")
    return path


def _executed(state: StageState) -> Path | None:
    """The executed notebook of a stage, whether it came to its end or not."""
    for name in (f"{state.name}.ipynb", "failed.ipynb"):
        if (state.folder / name).is_file():
            return state.folder / name
    return None


def _write_pages(run: str, states: list[StageState], sources: dict[str, Path | None]) -> dict[str, str]:
    """A page beside each executed notebook; what hinders that, for stages that are not verified anyway."""
    notes: dict[str, str] = {}
    for state in states:
        source = sources[state.name]
        if source is None:
            continue
        links = [Link(s.name, _page_of(s.name, sources[s.name] is not None), s is state) for s in states]
        try:
            write_notebook_page(source, state.folder / f"{state.name}.html", run, links, state.state == FAILED)
        except (FileNotFoundError, ValueError) as error:
            if state.done:
                raise
            notes[state.name] = f"no page of its notebook: {str(error).replace(str(source), source.name)}"
    return notes


def _page_of(stage: str, has_notebook: bool) -> str:
    """Where a notebook's page finds a stage: its own page, or its section of the report."""
    return "../" + (href(stage, f"{stage}.html") if has_notebook else f"index.html#{anchor(stage)}")


def _facts(states: list[StageState], parameters: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """What the head of the page says at a glance: name, value, and a longer text for the curious."""
    manifests = [state.manifest for state in states if state.manifest]
    facts = []
    for key in ("dataset", "encoder"):
        found = next((str(values[key]) for values in parameters.values() if key in values), "")
        facts += [(key, found, "")] if found else []
    devices = sorted({str(m["device"]) for m in manifests if m.get("device")})
    facts += [("device", ", ".join(devices), "")] if devices else []
    seconds = sum(float(m.get("wall_seconds") or 0) for m in manifests)
    facts.append(("time", duration(seconds), "the stages' times added up; stages may run side by side"))
    memory = max([int(m.get("peak_memory_bytes") or 0) for m in manifests], default=0)
    facts.append(("peak memory", size_text(memory), "of the stage that took most"))
    started = sorted(str(m["started"]) for m in manifests if m.get("started"))
    if started:
        facts.append(("last execution", moment(started[-1]), "when the stage that was executed last began, UTC"))
    commits = list(dict.fromkeys(str((m.get("git") or {}).get("commit") or "") for m in manifests))
    if len(commits) == 1 and commits[0]:
        facts.append(("commit", commits[0][:10], commits[0]))
    elif len(commits) > 1:
        facts.append(("commit", f"{len(commits)} commits", "see each stage"))
    return facts


def duration(seconds: float) -> str:
    """A time in words: ``7.3 s``, ``48 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def moment(stamp: str) -> str:
    """``2026-01-31 09:15 UTC`` from an ISO time; a text of another form stays as it is."""
    day, _, clock = stamp.partition("T")
    return f"{day} {clock[:5]} UTC" if clock.endswith("Z") and len(clock) == 9 else stamp


def _gallery(state: StageState, notebook: dict[str, Any] | None) -> tuple[str, Any]:
    assert state.manifest is not None
    return state.name, stage_figures(state.folder, state.manifest["outputs"], notebook)


def _tables(state: StageState) -> tuple[str, Any]:
    assert state.manifest is not None
    outputs = state.manifest["outputs"]
    names = sorted(name for name in outputs if name.endswith(SUFFIXES))
    shown = []
    for name in names[:MAX_TABLES]:
        entry = {
            "name": name,
            "href": href(state.name, name),
            "bytes": outputs[name]["bytes"],
            "head": None,
            "error": "",
        }
        try:
            entry["head"] = read_head(state.folder / name)
        except ValueError as error:
            entry["error"] = str(error)
        shown.append(entry)
    return state.name, {"shown": shown, "left_out": len(names) - len(shown)} if shown else None


def _paper_first(groups: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return sorted([group for group in groups if group[1]], key=lambda group: group[0] != KEY_STAGE)


def _versions(states: list[StageState]) -> list[tuple[str, str]]:
    """Each package's version; where stages were executed with several, all of them with their stages."""
    found: dict[str, dict[str, list[str]]] = {}
    for state in states:
        for package, version in (state.manifest or {}).get("versions", {}).items():
            found.setdefault(str(package), {}).setdefault(str(version), []).append(state.name)
    return [
        (name, next(iter(by)) if len(by) == 1 else "; ".join(f"{v} ({', '.join(where)})" for v, where in by.items()))
        for name, by in sorted(found.items())
    ]
