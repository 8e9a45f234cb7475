"""Views of the result table: the paper's charts and tables, from numbers alone: no image, no model, no torch."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from cytolib.data.taxonomy import in_order
from cytolib.figures.charts import class_counts, draw_forest, forest, recall_heatmap
from cytolib.figures.diffusion import draw_training, fidelity
from cytolib.figures.generation import draw_classes
from cytolib.figures.style import WIDTH, readable, subplots
from cytolib.run import atomic_path

ARMS = "augment"  # the experiment whose rows hold the classifiers' arms
BASELINE = "real"
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


def n_tested(results: pd.DataFrame, split: str = "test", domain: str = "all") -> tuple[int, int]:
    """Cells that the classifiers of a split were tested on, and seeds of the sweep."""
    arms = results[results["experiment"] == ARMS]
    here = arms[(arms["split"] == split) & (arms["domain"] == domain) & (arms["seed"] == -1)]
    return int(here["n"].max()), int(arms.loc[arms["seed"] >= 0, "seed"].nunique())


def generator_figure(results: pd.DataFrame) -> Figure:
    """Fidelity and memorisation of the generators beside the real-versus-real floor, means over seeds.

    Intervals are Student's over seeds.
    """
    table = _overall(results, ARMS)
    wanted = [metric for metric in GENERATOR_METRICS if metric in table]
    methods = [name for name in ("real_floor", "diffusion_only", "gaussian_only") if name in table.index]
    columns = {"value": "", "low": "[low]", "high": "[high]"}
    rows = [
        {"metric": metric, "method": method.replace("_only", "")}
        | {
            name: table[f"{metric}{end}"][method] if f"{metric}{end}" in table else None
            for name, end in columns.items()
        }
        for metric in wanted
        for method in methods
    ]
    return fidelity(pd.DataFrame(rows).astype({name: float for name in columns}))


def training_figure(history: pd.DataFrame, by_class: pd.DataFrame) -> Figure:
    """Loss against the training step: of training and validation cells, and of each class's validation cells.

    Args:
        history: as :func:`cytolib.figures.training_curves`. by_class: as :func:`cytolib.figures.class_curves`.
    """
    fig, (left, right) = subplots(1, 2, figsize=(WIDTH, 3.1))
    draw_training(left, history)
    left.set_title("all classes")
    draw_classes(right, by_class)
    right.set(title="by class (ring: lowest)", ylabel="")
    n_columns = -(-len(in_order(by_class["label"])) // 2)
    fig.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=n_columns, fontsize="x-small")
    return fig


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


def _arms(results: pd.DataFrame, metric: str, split: str = "test", domain: str = "all") -> tuple[pd.DataFrame, str]:
    """What :func:`forest` takes, and a line on the control, which is so far off that it would squeeze the rest."""
    table = classifier_table(results, split, domain)
    parts = {"value": metric, "low": f"{metric}[low]", "high": f"{metric}[high]"}
    summary = table[["method", *parts.values()]].rename(columns={name: key for key, name in parts.items()})
    control = summary[summary["method"] == "shuffled_labels"]
    note = f"control, shuffled labels: {control['value'].iloc[0]:.3f}" if len(control) else ""
    return summary.drop(control.index).reset_index(drop=True), note


def classifier_figure(results: pd.DataFrame, metric: str = "balanced_accuracy") -> Figure:
    """Methods by the mean of ``metric`` over seeds; dashed: training on real cells."""
    summary, note = _arms(results, metric)
    n, seeds = n_tested(results)
    title = f"{n:,} test cells, {seeds} seeds"
    return forest(summary, metric=readable(metric), reference=BASELINE, title=title, note=note)


def held_out_domains(results: pd.DataFrame) -> list[str]:
    """Domains that no model has seen, on which the classifiers were tested."""
    rows = results[(results["experiment"] == ARMS) & (results["split"] == "held_out") & (results["seed"] == -1)]
    return sorted(set(rows["domain"]))


def held_out_figure(results: pd.DataFrame, metric: str = "balanced_accuracy") -> Figure:
    """:func:`classifier_figure` on the cells of each held-out domain, a panel a domain."""
    domains = held_out_domains(results)
    parts = {domain: _arms(results, metric, "held_out", domain) for domain in domains}
    n_methods = max(len(summary) for summary, _ in parts.values())
    fig, axes = subplots(1, len(domains), figsize=(WIDTH, 0.3 * n_methods + 1.25), sharey=True, squeeze=False)
    for ax, (domain, (summary, note)) in zip(axes[0], parts.items(), strict=True):
        draw_forest(ax, summary, reference=BASELINE)
        n, _ = n_tested(results, "held_out", domain)
        ax.set(title=f"{readable(domain)}: {n:,} cells", xlabel=f"{readable(metric)}\n{note}")
    names = next(iter(parts.values()))[0]["method"]
    axes[0, 0].set_yticks(range(len(names)), [readable(name) for name in names])
    axes[0, 0].invert_yaxis()
    return fig


def recall_figure(results: pd.DataFrame) -> Figure:
    """Recall of each class under each method, means over seeds; test cells of each class where the table has them."""
    table = _overall(results, ARMS)
    table = table[table["balanced_accuracy"].notna()].drop(index="shuffled_labels", errors="ignore")
    recalls = table.filter(regex=r"^recall\[[^\]]+\]$")
    recalls.columns = recalls.columns.str.extract(r"\[(.*)\]", expand=False)
    rows = results[(results["experiment"] == "data") & (results["split"] == "test")]
    label = rows["metric"].str.extract(r"^n_cells\[(.*)\]$", expand=False)
    counts = {str(name): int(n) for name, n in rows["value"].groupby(label).sum().items()}
    return recall_heatmap(recalls.drop(columns=["low", "high"], errors="ignore"), counts)


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


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table for people: six significant digits, no index, complete or not at all."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
