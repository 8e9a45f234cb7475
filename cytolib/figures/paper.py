"""The figures and tables of the paper, from result tables alone: no image, no model, no torch."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from cytolib.evaluate.results import read_results
from cytolib.figures.charts import class_counts, embedding_map, forest, recall_heatmap
from cytolib.figures.diffusion import fidelity, training_curves
from cytolib.figures.style import readable, style
from cytolib.parquet import read_table
from cytolib.run import atomic_path

ARMS = "augment"  # the experiment whose rows hold the classifiers' arms
BASELINE = "real"
MAP_COLUMNS = ("x", "y", "label", "domain")
HISTORY_COLUMNS = ("step", "loss", "validation_loss")
GENERATOR_METRICS = (
    "frechet_distance_pca", "kernel_distance", "precision", "recall",
    "density", "coverage", "dcr_ratio", "authenticity",
)  # fmt: skip


def _overall(results: pd.DataFrame, experiment: str, split: str = "test", domain: str = "all") -> pd.DataFrame:
    """Rows over all seeds, wide: index ``method``, a column a metric (``x``, ``x[low]``, ``x[high]``)."""
    rows = results[
        (results["experiment"] == experiment)
        & (results["seed"] == -1)
        & (results["split"] == split)
        & (results["domain"] == domain)
    ]
    return rows.pivot_table(index="method", columns="metric", values="value", sort=False)


def cells_figure(results: pd.DataFrame) -> Figure:
    """Cells of each class, by domain."""
    rows = results[(results["experiment"] == "data") & results["metric"].str.startswith("n_cells[")]
    label = rows["metric"].str.extract(r"\[(.*)\]", expand=False)
    return class_counts(rows.assign(label=label, n=rows["value"].astype(int)))


def generator_figure(results: pd.DataFrame) -> Figure:
    """Fidelity and memorisation of the generators beside the real-versus-real floor, means over seeds."""
    table = _overall(results, ARMS)
    wanted = [metric for metric in GENERATOR_METRICS if metric in table]
    methods = [name for name in ("real_floor", "diffusion_only", "gaussian_only") if name in table.index]
    long = table.loc[methods, wanted].melt(ignore_index=False, var_name="metric", value_name="value").reset_index()
    return fidelity(long.assign(method=long["method"].str.replace("_only", "")))


def classifier_table(results: pd.DataFrame, split: str = "test", domain: str = "all") -> pd.DataFrame:
    """One row a method: balanced accuracy, macro F1 and accuracy, and their paired differences from training on real
    cells, each with its 95 % interval over test cells and seeds."""
    table = _overall(results, ARMS, split, domain)
    columns = [
        f"{metric}{part}{end}"
        for metric in ("balanced_accuracy", "macro_f1", "accuracy")
        for part in ("", f"_minus_{BASELINE}")
        for end in ("", "[low]", "[high]")
    ]
    return table[table["balanced_accuracy"].notna()].reindex(columns=columns).reset_index()


def classifier_figure(results: pd.DataFrame, metric: str = "balanced_accuracy") -> Figure:
    """Methods by the mean of ``metric`` over seeds; dashed: training on real cells."""
    table = classifier_table(results)
    parts = {"value": metric, "low": f"{metric}[low]", "high": f"{metric}[high]"}
    summary = table[["method", *parts.values()]].rename(columns={name: key for key, name in parts.items()})
    # the control is so far off that it would squeeze the rest: it is in the table, and named below the axis
    control = summary[summary["method"] == "shuffled_labels"]
    fig = forest(summary.drop(control.index).reset_index(drop=True), metric=readable(metric), reference=BASELINE)
    if len(control):
        fig.axes[0].annotate(
            f"control, shuffled labels: {control['value'].iloc[0]:.3f}",
            (1, 0), xycoords="axes fraction", xytext=(0, -52), textcoords="offset points", ha="right", fontsize="small",
        )  # fmt: skip
    return fig


def recall_figure(results: pd.DataFrame) -> Figure:
    """Recall of each class under each method, means over seeds."""
    table = _overall(results, ARMS)
    table = table[table["balanced_accuracy"].notna()].drop(index="shuffled_labels", errors="ignore")
    recalls = table.filter(regex=r"^recall\[[^\]]+\]$")
    recalls.columns = recalls.columns.str.extract(r"\[(.*)\]", expand=False)
    return recall_heatmap(recalls.drop(columns=["low", "high"], errors="ignore"))


def key_results(results: pd.DataFrame) -> pd.DataFrame:
    """The few numbers that a reader quotes: ``what, value, low, high, n, where``; ``n`` is test cells."""
    rows: list[dict[str, object]] = []

    def add(what: str, source: pd.DataFrame, metric: str, where: str) -> None:
        values = source.set_index("metric")["value"]
        if metric in values:
            ends = [values.get(f"{metric}[{end}]", float("nan")) for end in ("low", "high")]
            n = int(source["n"].max())
            rows.append(
                {"what": what, "value": values[metric], "low": ends[0], "high": ends[1], "n": n, "where": where}
            )

    probe = results[(results["experiment"] == "probe") & (results["method"] == "logistic_regression")]
    for (split, domain), part in probe[probe["split"] != "val"].groupby(["split", "domain"], sort=False):
        cells = "test cells" if split == "test" else f"held-out cells of {domain}"
        add(f"logistic regression on real cells, {cells}: balanced accuracy", part, "balanced_accuracy", "01_embed")
    overall = results[(results["experiment"] == ARMS) & (results["seed"] == -1)]
    arms = overall[overall["split"] == "test"]
    for method, words in (
        ("diffusion_only", "trained on diffusion cells only"),
        ("gaussian_only", "trained on class Gaussian only"),
        ("kernel_density_only", "trained on a smoothed bootstrap only"),
        ("real_plus_diffusion", "real and diffusion cells"),
        ("smote", "real cells and SMOTE"),
        ("real_logit_adjusted", "real cells, logits adjusted"),
    ):
        part = arms[arms["method"] == method]
        difference = f"balanced_accuracy_minus_{BASELINE}"
        add(f"{words}: balanced accuracy minus that of real cells", part, difference, "04_sweep")
    held_out = overall[overall["split"] == "held_out"]
    for (site, arm), part in held_out.groupby(["domain", "method"], sort=False):
        if arm in ("diffusion_only", "real_projected"):
            words = f"{readable(str(arm))}, held-out cells of {site}: balanced accuracy minus that of real cells"
            add(words, part, f"balanced_accuracy_minus_{BASELINE}", "04_sweep")
    add("diffusion cells: distance to closest record ratio (1 is new, 0 is copies)",
        arms[arms["method"] == "diffusion_only"], "dcr_ratio", "04_sweep")  # fmt: skip
    for method, words in (("diffusion_only", "diffusion cells"), ("real_floor", "real cells, the floor")):
        part = arms[arms["method"] == method]
        add(f"{words}: Fréchet distance to test cells, 64 components", part, "frechet_distance_pca", "04_sweep")
    model = results[(results["experiment"] == "generator") & (results["method"] == "diffusion")]
    for metric, words in (
        ("membership_auc", "denoising loss"),
        ("membership_attack_auc", "all its levels, fitted attack"),
    ):
        add(
            f"membership inference on the diffusion model by {words}: AUC (0.5 is guessing)", model, metric, "03_sample"
        )
    return pd.DataFrame(rows, columns=["what", "value", "low", "high", "n", "where"])


def draw_all(run_folder: Path, out_folder: Path) -> list[Path]:
    """Draw every figure and table of a run anew from its stored tables.

    Args:
        run_folder: holds ``<stage>/results.parquet``, ``01_embed/map.parquet``, ``02_train_diffusion/history.parquet``.
        out_folder: receives ``figures/*.png``, ``figures/*.pdf`` and ``tables/*.csv``.

    Returns:
        The files written.

    Raises:
        FileNotFoundError: where a table is missing.
    """
    style()
    sources = ("00_data", "01_embed", "02_train_diffusion", "03_sample", "04_augment_classifiers")
    results = read_results([run_folder / name / "results.parquet" for name in sources])
    drawn = {
        "figure_1_cells": cells_figure(results),
        "figure_2_map": embedding_map(_stored(run_folder / "01_embed" / "map.parquet", MAP_COLUMNS)),
        "figure_3_generator": generator_figure(results),
        "figure_4_classifiers": classifier_figure(results),
        "figure_5_recall": recall_figure(results),
        "training_curves": training_curves(
            _stored(run_folder / "02_train_diffusion" / "history.parquet", HISTORY_COLUMNS)
        ),
    }
    written = []
    for name, figure in drawn.items():
        for suffix, metadata in ((".png", {"Software": None}), (".pdf", {"CreationDate": None})):
            with atomic_path(out_folder / "figures" / f"{name}{suffix}") as temporary:
                figure.savefig(temporary, metadata=metadata)
            written.append(out_folder / "figures" / f"{name}{suffix}")
        plt.close(figure)
    for name, table in (("classifiers", classifier_table(results)), ("key_results", key_results(results))):
        write_csv(table, out_folder / "tables" / f"{name}.csv")
        written.append(out_folder / "tables" / f"{name}.csv")
    return written


def _stored(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """A table of a stage, with at least these columns."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such table; run its stage first (or `make pipeline`)")
    table = read_table(path, "run its stage again")
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise ValueError(f"{path}: columns {missing} are missing; run its stage again")
    return table.replace_schema_metadata(None).to_pandas()


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table for people: six significant digits, no index, complete or not at all."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
