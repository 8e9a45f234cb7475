"""Every figure and table of the paper drawn anew from stored tables, and compared with what was published."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from cytolib.figures import paper
from cytolib.figures.paper_figures import FIGURES, PaperTables, read_tables, write_captions
from cytolib.figures.protocol import protocol_curves, protocol_summary
from cytolib.figures.saving import FORMATS, save_figure
from cytolib.figures.style import style
from cytolib.run.paths import root, runs_root, threads

STAGE = "10_figures"
CAPTIONS = "captions.md"
BENCHMARK = "cytodiff_protocol"
_DRAWN_WITH = ("matplotlib", "numpy", "pandas", "pillow")  # whose versions change bytes


def reference_root() -> Path:
    """The published runs, which are committed."""
    return root() / "papermill_runs" / "reference"


def find_run(name: str) -> Path:
    """The folder of a run: the user's own, else the published one of that name.

    Raises:
        ValueError: where there is none.
    """
    for folder in (runs_root() / name, reference_root() / name):
        if Path(name).name == name and (folder / "00_data").is_dir():
            return folder
    published = ", ".join(folder.name for folder in reference_runs())
    raise ValueError(f"--run {name}: no such run in {runs_root()}; `cytolib run` makes one; published are {published}")


def reference_runs() -> list[Path]:
    """The published runs' folders, by name."""
    return sorted(folder for folder in reference_root().iterdir() if (folder / STAGE).is_dir())


def _described(run_folder: Path) -> dict[str, Any]:
    """Parameters of the figures and the versions they were drawn with; empty of a run without stage 10."""
    for path in (run_folder / STAGE / "manifest.json", run_folder / "run.json"):
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            stage = found["parameters"] if path.name == "manifest.json" else found["parameters"].get(STAGE, {})
            return {"parameters": stage, "versions": found["versions"]}
    return {"parameters": {}, "versions": {}}


def stored_tables(run_folder: Path) -> PaperTables:
    """The tables that the figures of a run are drawn from.

    Raises:
        FileNotFoundError: where one is missing.
    """

    def optional(stage: str, name: str) -> Path | None:
        path = run_folder / stage / name
        return path if path.is_file() else None

    def needed(stage: str, name: str) -> Path:
        path = optional(stage, name)
        if path is None:
            raise FileNotFoundError(
                f"{run_folder / stage / name}: no such table; run stage {stage} (`cytolib run`) first"
            )
        return path

    metric = _described(run_folder)["parameters"].get("metric", "balanced_accuracy")
    return read_tables(run_folder.name, metric, needed, optional)


def draw_run(run_folder: Path, out: Path) -> list[Path]:
    """Draw every figure and table of a run into ``out``: PNG and PDF, ``captions.md`` and two CSV files.

    Returns:
        The files written.
    """
    style()
    tables = stored_tables(run_folder)
    written: list[Path] = []
    captions: dict[str, str] = {}
    for draw in FIGURES:
        figure, captions[draw.__name__] = draw(tables)
        if figure is None:
            for kind in FORMATS:  # of an earlier run, which had it
                (out / f"{draw.__name__}.{kind}").unlink(missing_ok=True)
            continue
        written += save_figure(figure, out, draw.__name__)
        plt.close(figure)
    write_captions(tables.run, captions, out / CAPTIONS)
    paper.write_csv(paper.classifier_table(tables.results), out / "classifiers.csv")
    paper.write_csv(paper.key_results(tables.results), out / "key_results.csv")
    return [*written, out / CAPTIONS, out / "classifiers.csv", out / "key_results.csv"]


def draw_benchmark(results: Path, out: Path) -> list[Path]:
    """Draw the figure of a benchmark, CytoDiff's protocol, from its table in ``results``."""
    style()
    figure = protocol_curves(protocol_summary(pd.read_csv(results / f"{BENCHMARK}.csv")))
    written = save_figure(figure, out, BENCHMARK)
    plt.close(figure)
    return written


def differences(drawn: Sequence[Path], published: Sequence[Path]) -> list[str]:
    """One line for each file, by its name, that is only drawn or only published, or whose bytes differ."""
    mine, theirs = ({path.name: path for path in files} for files in (drawn, published))
    lines = []
    for name in sorted({*mine, *theirs}):
        if name not in mine:
            lines.append(f"{name}: published, not drawn")
        elif name not in theirs:
            lines.append(f"{name}: drawn, not published")
        elif mine[name].read_bytes() != theirs[name].read_bytes():
            lines.append(f"{name}: differs from the published one")
    return lines


def published_files(run_folder: Path) -> list[Path]:
    """Figures, captions and tables that stage 10 of a run wrote.

    Raises:
        ValueError: where it has none.
    """
    folder = run_folder / STAGE
    found = [*(folder / "figures").glob("figure_*.*"), *folder.glob("figures/captions.md"), *folder.rglob("*.csv")]
    if not found:
        raise ValueError(f"{folder}: nothing to compare with; run the stage, or leave --check out")
    return sorted(found)


def redraw(run: str | None = None, out: Path | None = None, check: bool = False) -> int:
    """The command ``cytolib figures``: draw, say where, and with ``check`` compare; returns its exit code.

    Args:
        run: a run's name; None for all published runs and the benchmark's figure.
        out: folder, in which each run has one of its own; None for ``figures/`` of the runs' folder.
        check: whether to compare with what was published.
    """
    target = (out or runs_root() / "figures").resolve()
    folders = reference_runs() if run is None else [find_run(run)]
    jobs: list[tuple[Callable[[Path, Path], list[Path]], Path, Path]] = [
        (draw_run, folder, target / folder.name) for folder in folders
    ]
    results = root() / "benchmarks" / "results"
    if run is None:
        jobs.append((draw_benchmark, results, target / "benchmarks"))
    with ProcessPoolExecutor(min(len(jobs), threads())) as pool:  # side by side: each draws its own files
        files = [job.result() for job in [pool.submit(draw, source, folder) for draw, source, folder in jobs]]
    differing: list[str] = []
    n_published = 0
    for written, (_, source, folder) in zip(files, jobs, strict=True):
        print(f"{folder.name}: {len(written)} files in {folder}")
        if check:
            benchmark = source == results
            published = [source / f"{BENCHMARK}.{kind}" for kind in FORMATS] if benchmark else published_files(source)
            hint = "" if benchmark else _other_versions(source)
            n_published += len(published)
            differing += [f"{folder.name}: {line}{hint}" for line in differences(written, published)]
    if check:
        verdict = "all equal, byte by byte" if not differing else f"{len(differing)} differ"
        print("\n".join([*differing, f"compared with {n_published} published files: {verdict}"]))
    return 1 if differing else 0


def _other_versions(run_folder: Path) -> str:
    """What to say beside a difference: which libraries are not those that the published files were drawn with."""
    then = _described(run_folder)["versions"]
    other = [f"{name} {version(name)}, then {then[name]}" for name in _DRAWN_WITH if then.get(name) != version(name)
             and name in then]  # fmt: skip
    return f" (drawn with {'; '.join(other)})" if other else ""
