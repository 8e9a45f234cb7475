"""The numbered figures of the paper, each with its caption, from the stored tables of one run.

A figure is a function of the run's tables; its name is the file's name. Numbers in captions are read, not typed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from cytolib.evaluate.results import read_results
from cytolib.figures import paper
from cytolib.figures.charts import embedding_map
from cytolib.figures.generation import attribute_agreement, guidance, membership
from cytolib.figures.protocol import protocol_curves
from cytolib.figures.style import readable
from cytolib.figures.tour import what_vectors_know
from cytolib.parquet import read_table
from cytolib.run.artefacts import atomic_path

COLUMNS = {"map.parquet": ("x", "y", "label", "domain"), "history.parquet": ("step", "loss", "validation_loss")}
SOURCES = ("00_data", "01_embed", "02_train_diffusion", "03_sample", "04_augment_classifiers")


@dataclass(frozen=True)
class PaperTables:
    """The stored tables of a run; None where a run has no such table, because nothing is known of its cells.

    Attributes:
        run: its name. metric: of the classifier figure. results: the result tables, under each other. The others: as
            the figure functions take them.
    """

    run: str
    metric: str
    results: pd.DataFrame
    map: pd.DataFrame
    history: pd.DataFrame
    history_by_class: pd.DataFrame
    membership: pd.DataFrame
    guidance: pd.DataFrame
    contaminated: pd.DataFrame
    attributes: pd.DataFrame | None
    attribute_frequencies: pd.DataFrame | None


class PaperFigure(NamedTuple):
    """A figure and its caption; without a figure, the caption says why there is none."""

    figure: Figure | None
    caption: str


def read_tables(
    run: str, metric: str, needed: Callable[[str, str], Path], optional: Callable[[str, str], Path | None]
) -> PaperTables:
    """Read a run's tables.

    Args:
        run, metric: see :class:`PaperTables`.
        needed: the path of a stage's table, or a FileNotFoundError; ``Stage.input`` is one.
        optional: the same, or None.
    """

    def table(stage: str, name: str) -> pd.DataFrame:
        return _stored(needed(stage, name))

    known = {"attributes": "01_embed", "attribute_frequencies": "03_sample"}
    found = {name: optional(stage, f"{name}.parquet") for name, stage in known.items()}
    return PaperTables(
        run=run,
        metric=metric,
        results=read_results([needed(name, "results.parquet") for name in SOURCES]),
        map=table("01_embed", "map.parquet"),
        history=table("02_train_diffusion", "history.parquet"),
        history_by_class=table("02_train_diffusion", "history_by_class.parquet"),
        membership=table("03_sample", "membership.parquet"),
        guidance=table("03_sample", "guidance.parquet"),
        contaminated=table("04_augment_classifiers", "contaminated.parquet"),
        **{name: None if path is None else _stored(path) for name, path in found.items()},
    )


def _stored(path: Path) -> pd.DataFrame:
    """A table of a stage, read with limits; of those that most figures need, with its columns."""
    table = read_table(path, "run its stage again")
    missing = [name for name in COLUMNS.get(path.name, ()) if name not in table.column_names]
    if missing:
        raise ValueError(f"{path}: columns {missing} are missing; run its stage again")
    return table.replace_schema_metadata(None).to_pandas()


def figure_1_cells(tables: PaperTables) -> PaperFigure:
    """How unequal the classes are."""
    figure = paper.cells_figure(tables.results)
    rows = tables.results[tables.results["metric"].str.startswith("n_cells[")]
    splits = rows.groupby("split")["value"].sum().astype(int)
    words = ", ".join(f"{splits[name]:,} {readable(name)}" for name in ("train", "val", "test", "held_out")
                      if name in splits)  # fmt: skip
    text = f"Cells of each class, coloured by domain; n = {splits.sum():,} ({words}). Counts, so no interval."
    return PaperFigure(figure, text)


def figure_2_map(tables: PaperTables) -> PaperFigure:
    """The map of the embeddings."""
    text = (
        f"UMAP of the embeddings of n = {len(tables.map):,} cells, coloured by class and by domain. Distances between "
        "groups mean nothing; one draw, no interval."
    )
    return PaperFigure(embedding_map(tables.map), text)


def figure_3_generator(tables: PaperTables) -> PaperFigure:
    """Fidelity and memorisation of the generators."""
    n, seeds = paper.n_tested(tables.results)
    text = (
        f"Synthetic cells against n = {n:,} real test cells, beside real training cells against the same test cells "
        f"(the floor). Bars: means over {seeds} seeds of the generator; lines: 95 % Student intervals over seeds, same "
        "split. Arrows: the direction that is good, or the value to be near to."
    )
    return PaperFigure(paper.generator_figure(tables.results), text)


def figure_4_classifiers(tables: PaperTables) -> PaperFigure:
    """The arms of the classifier experiment."""
    n, seeds = paper.n_tested(tables.results)
    text = (
        f"{readable(tables.metric).capitalize()} of the same classifier trained on real cells, synthetic cells or "
        f"both, on n = {n:,} real test cells; points: means over {seeds} seeds, lines: 95 % bootstrap intervals over "
        "test cells and seeds together; dashed: real cells. Methods share test cells: the paired differences are in "
        "classifiers.csv, and these intervals must not be compared by eye."
    )
    return PaperFigure(paper.classifier_figure(tables.results, tables.metric), text)


def figure_5_recall(tables: PaperTables) -> PaperFigure:
    """Recall class by class."""
    n, seeds = paper.n_tested(tables.results)
    text = (
        f"Recall of each class, means over {seeds} seeds; n = {n:,} test cells, those of a class in brackets. Without "
        "intervals: a class of few cells moves by one cell in so many."
    )
    return PaperFigure(paper.recall_figure(tables.results), text)


def figure_6_training(tables: PaperTables) -> PaperFigure:
    """Training curves."""
    rows = tables.results[tables.results["experiment"] == "training"]
    n = int(rows["n"].max())
    text = (
        f"Denoising loss of the diffusion model over {tables.history['step'].max():,} training steps: training cells "
        f"(smoothed) and n = {n:,} validation cells, and the latter by class. One seed, no interval."
    )
    return PaperFigure(paper.training_figure(tables.history, tables.history_by_class), text)


def figure_7_membership(tables: PaperTables) -> PaperFigure:
    """Does the model give its training cells away."""
    n = int(tables.membership["n"].max())
    text = (
        "Membership inference: AUC with which the denoising error tells training cells from as many test cells of the "
        f"same classes, n = {n:,} each; 0.5 is guessing. Bands: 95 % intervals after DeLong over cells of this one "
        "model, that of the fitted attack widened for its folds."
    )
    return PaperFigure(membership(tables.membership), text)


def figure_8_contaminated(tables: PaperTables) -> PaperFigure:
    """The price of folds drawn after pooling."""
    n = int(tables.contaminated["n"].max())
    text = (
        f"Folds drawn after real and synthetic cells were pooled (contaminated) and before (honest), n = {n:,} real "
        "training cells of this run; the bootstrap repeats cells and adds nothing. Means over five folds; bands: 95 % "
        "Student intervals over folds, which share training cells, so too narrow. The measurement over five sets of "
        "cells is benchmarks/results/cytodiff_protocol.csv."
    )
    return PaperFigure(protocol_curves(tables.contaminated), text)


def figure_9_guidance(tables: PaperTables) -> PaperFigure:
    """What guidance does to vectors."""
    n = int(tables.guidance["n"].max())
    text = (
        f"Classifier-free guidance: variance within classes over that of real cells, and Fréchet distance to n = {n:,} "
        "test cells in 64 components (dashed: as many training cells), as many synthetic cells at each scale, from "
        "the same noise. One draw, no interval."
    )
    return PaperFigure(guidance(tables.guidance), text)


def figure_10_attributes(tables: PaperTables) -> PaperFigure:
    """What the vectors know of a cell beside its class."""
    if tables.attributes is None:
        return PaperFigure(None, "Not drawn: nothing is known of these cells beside their class.")
    n = tables.attributes["n"]
    count = f"{n.max():,}" if n.nunique() == 1 else f"{n.min():,} to {n.max():,}"
    text = (
        "Skill of a linear probe on the embeddings for each attribute (R² of numbers; of categories balanced accuracy, "
        f"rescaled so that guessing is 0), n = {count} test cells; lines: 95 % bootstrap intervals over test cells; "
        "crosses: the control, shuffled training values."
    )
    return PaperFigure(what_vectors_know(tables.attributes), text)


def figure_11_attributes_kept(tables: PaperTables) -> PaperFigure:
    """Do synthetic cells keep the attributes of their class."""
    if tables.attribute_frequencies is None:
        return PaperFigure(None, "Not drawn: nothing is known of these cells beside their class.")
    table = tables.attribute_frequencies
    methods = [name for name in table["method"].unique() if name not in ("real_test", "annotated")]
    n = table.loc[table["method"] == "real_test"].groupby("label")["n"].max()
    text = (
        f"Frequency of each value of each attribute in each class as a probe calls it: real test cells (n = "
        f"{n.min():,} to {n.max():,} a class) across, synthetic cells up. On the line: kept. Intervals over cells of "
        "each point are in attribute_frequencies.parquet."
    )
    return PaperFigure(attribute_agreement(table, methods), text)


def figure_12_held_out(tables: PaperTables) -> PaperFigure:
    """The classifiers at a site that no model has seen."""
    domains = paper.held_out_domains(tables.results)
    if not domains:
        return PaperFigure(None, "Not drawn: no domain was held out of this run.")
    counts = {domain: paper.n_tested(tables.results, "held_out", domain) for domain in domains}
    cells = ", ".join(f"{readable(domain)}: n = {n:,}" for domain, (n, _) in counts.items())
    text = (
        f"As Figure 4, on cells of domains that no fit and no choice has seen ({cells}); means over "
        f"{counts[domains[0]][1]} seeds, 95 % bootstrap intervals over cells and seeds."
    )
    return PaperFigure(paper.held_out_figure(tables.results, tables.metric), text)


FIGURES: tuple[Callable[[PaperTables], PaperFigure], ...] = (
    figure_1_cells,
    figure_2_map,
    figure_3_generator,
    figure_4_classifiers,
    figure_5_recall,
    figure_6_training,
    figure_7_membership,
    figure_8_contaminated,
    figure_9_guidance,
    figure_10_attributes,
    figure_11_attributes_kept,
    figure_12_held_out,
)


def write_captions(run: str, captions: Mapping[str, str], path: Path) -> None:
    """Write ``captions.md``: each caption with the number and file name of its figure, and the command that draws all.

    Args:
        run: the run's name. captions: by the name of the figure's function.
    """
    lines = [f"# Figures of the run `{run}`", "", f"Drawn from the run's stored tables by `make figures RUN={run}`."]
    for name, caption in captions.items():
        number = name.split("_")[1]
        lines += ["", f"**Figure {number}** (`{name}`). {caption}"]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
