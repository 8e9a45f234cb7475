"""Charts of cells, embeddings and classifiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from cytolib.data.taxonomy import in_order
from cytolib.figures.style import WIDTH, class_colour, domain_colours, readable, subplots


def class_counts(counts: pd.DataFrame) -> Figure:
    """How unequal the classes are: cells a class, stacked by domain, on a log axis beside a linear one.

    Args:
        counts: columns ``label``, ``domain``, ``n`` (cells), one row a class and domain.
    """
    table = counts.pivot_table(index="label", columns="domain", values="n", aggfunc="sum", fill_value=0)
    table = table.loc[table.sum(axis=1).sort_values(ascending=False).index]
    total = table.sum(axis=1)
    colours = domain_colours(table.columns)
    fig, ax = subplots(figsize=(WIDTH, 0.34 * len(table) + 0.9))
    left = np.zeros(len(table))
    for domain in sorted(table.columns):
        ax.barh(range(len(table)), table[domain], left=left, color=colours[domain], label=readable(domain))
        left += table[domain].to_numpy()
    for row, n in enumerate(total):
        ax.text(n + 0.01 * total.max(), row, f"{n:,}  ({n / total.sum():.1%})", va="center", fontsize="small")
    ax.set_yticks(range(len(table)), [readable(name) for name in table.index])
    ax.invert_yaxis()
    ax.set(xlabel="cells", xlim=(0, total.max() * 1.22), title=f"{total.sum():,} cells")
    ax.legend(title="domain", loc="lower right")
    return fig


def _scatter(ax: Axes, points: pd.DataFrame, colours: dict[str, str], column: str) -> None:
    shuffled = points.sample(frac=1, random_state=0)  # so that no class hides the others by being drawn last
    colour = shuffled[column].map(colours).to_numpy()
    ax.scatter(shuffled["x"], shuffled["y"], c=colour, s=5, alpha=0.6, linewidths=0, rasterized=True)
    handles = [
        plt.Line2D([], [], marker="o", ls="", ms=5, color=hue, label=readable(name))
        for name, hue in colours.items()
        if (points[column] == name).any()
    ]
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, -0.02), ncols=3, fontsize="x-small",
              columnspacing=0.8, handletextpad=0.1)  # fmt: skip
    ax.set(xticks=[], yticks=[], title=f"by {column}")
    sns.despine(ax=ax, left=True, bottom=True)


def embedding_map(points: pd.DataFrame) -> Figure:
    """Cells as points of a two-dimensional map, coloured by class and by domain.

    Args:
        points: columns ``x``, ``y`` (no unit), ``label``, ``domain``, one row a cell.
    """
    fig, axes = subplots(1, 2, figsize=(WIDTH, WIDTH * 0.58))
    _scatter(axes[0], points, {name: class_colour(name) for name in in_order(points["label"])}, "label")
    _scatter(axes[1], points, domain_colours(points["domain"]), "domain")
    axes[0].set_title(f"by class ({len(points):,} cells)")
    return fig


def spread(points: pd.DataFrame, *, side: float = 0.05) -> NDArray[np.int64]:
    """Rows of a map whose images would not overlap: taken in random order, each at least an image's side from the rest.

    Args:
        points: columns ``x``, ``y``. side: an image's side as a fraction of the map's longer extent.
    """
    xy = points[["x", "y"]].to_numpy(float)
    apart = side * np.ptp(xy, axis=0).max()
    kept: list[int] = []
    for row in np.random.default_rng(0).permutation(len(xy)):
        if not kept or np.abs(xy[kept] - xy[row]).max(axis=1).min() >= apart:
            kept.append(int(row))
    return np.sort(np.array(kept))


def map_images(points: pd.DataFrame, images: Sequence[np.ndarray], *, side: float = 0.05) -> Figure:
    """The map drawn with the cells themselves: an image at each point, framed in its class colour.

    Args:
        points: columns ``x``, ``y``, ``label``, one row an image, spaced as ``spread`` does.
        images: uint8 (H, W, 3) each.
        side: an image's side as a fraction of the map's longer extent.
    """
    fig, ax = subplots(figsize=(WIDTH * 1.1, WIDTH * 0.85))
    x, y = points["x"].to_numpy(float), points["y"].to_numpy(float)
    half = 0.47 * side * max(np.ptp(x), np.ptp(y))
    for centre_x, centre_y, label, image in zip(x, y, points["label"], images, strict=True):
        extent = (centre_x - half, centre_x + half, centre_y - half, centre_y + half)
        ax.imshow(image, extent=extent, zorder=2)
        corner = (extent[0], extent[2])
        ax.add_patch(plt.Rectangle(corner, 2 * half, 2 * half, fill=False, ec=class_colour(label), lw=2, zorder=3))
    edge = 1.1 * half  # room for the frames' lines
    ax.set(xlim=(x.min() - edge, x.max() + edge), ylim=(y.min() - edge, y.max() + edge), xticks=[], yticks=[])
    ax.set_aspect("equal")
    sns.despine(ax=ax, left=True, bottom=True)
    labels = in_order(points["label"])
    handles = [plt.Line2D([], [], marker="s", ls="", color=class_colour(n), label=readable(n)) for n in labels]
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    return fig


def feature_boxes(features: pd.DataFrame, labels: ArrayLike) -> Figure:
    """Single features by class: a panel a feature, a box a class (middle half, whiskers at 5 and 95 %).

    Args:
        features: one column a feature, in its own unit, one row a cell.
        labels: (n_cells,) classes.
    """
    classes = np.asarray(labels, str)
    order = in_order(classes)
    n_columns = 3
    n_rows = -(-features.shape[1] // n_columns)
    fig, axes = subplots(n_rows, n_columns, figsize=(WIDTH * 1.15, 1.9 * n_rows + 0.4), sharey=True, squeeze=False)
    for ax, column in zip(axes.flat, features.columns, strict=False):
        values = [features.loc[classes == name, column].to_numpy() for name in order]
        boxes = ax.boxplot(
            values, orientation="horizontal", whis=(5, 95), showfliers=False, patch_artist=True, widths=0.7
        )
        for patch, name in zip(boxes["boxes"], order, strict=True):
            patch.set(facecolor=class_colour(name), alpha=0.75, linewidth=0.6)
        for line in boxes["medians"]:
            line.set_color("black")
        ax.set_yticks(range(1, len(order) + 1), [readable(name) for name in order])
        ax.set_xlabel(readable(column), fontsize="small")
        ax.tick_params(axis="x", labelsize="x-small")
    axes[0, 0].invert_yaxis()
    return fig


def confusion(true: ArrayLike, predicted: ArrayLike, title: str = "") -> Figure:
    """Row-normalised confusion matrix: of the cells of a class, the fraction called each class; n at the right."""
    true, predicted = np.asarray(true), np.asarray(predicted)
    labels = in_order([*true, *predicted])
    counts = pd.crosstab(true, predicted).reindex(index=labels, columns=labels, fill_value=0)
    rates = counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
    fig, ax = subplots(figsize=(WIDTH * 0.75, WIDTH * 0.58))
    written = rates.map(lambda value: f"{value:.2f}" if value >= 0.005 else "")
    sns.heatmap(rates, annot=written, fmt="", cmap="Blues", vmin=0, vmax=1, ax=ax, cbar=False, linewidths=0.5)
    ax.set_xticklabels([readable(name) for name in labels], rotation=35, ha="right")
    ax.set_yticklabels([f"{readable(name)} ({counts.loc[name].sum():,})" for name in labels], rotation=0)
    ax.set(xlabel="called", ylabel="true class (cells)", title=title)
    return fig


def forest(
    summary: pd.DataFrame, *, metric: str, reference: str | None = None, title: str = "", note: str = ""
) -> Figure:
    """Methods beside each other: a point and its 95 % interval each, with a line at the reference method.

    Args:
        summary: columns ``method``, ``value``, ``low``, ``high`` (same unit as ``metric``), top row first.
        metric: what ``value`` is, for the axis.
        reference: the method whose value the dashed line marks.
        title: above the chart, such as the number of cells. note: a line below it.
    """
    fig, ax = subplots(figsize=(WIDTH, 0.3 * len(summary) + (1.25 if title or note else 0.9)))
    draw_forest(ax, summary, reference=reference)
    ax.set_yticks(range(len(summary)), [readable(name) for name in summary["method"]])
    ax.invert_yaxis()
    ax.set(xlabel=f"{metric}, mean and 95 % interval over test cells and seeds" + (f"\n{note}" if note else ""))
    ax.set_title(title)
    return fig


def draw_forest(ax: Axes, summary: pd.DataFrame, *, reference: str | None = None) -> None:
    """Points and intervals of :func:`forest` on axes of a larger figure, the first method at 0."""
    rows = np.arange(len(summary))
    values = summary[["value", "low", "high"]].to_numpy(float)
    colours = [_arm_colour(name) for name in summary["method"]]
    ax.hlines(rows, values[:, 1], values[:, 2], colors=colours, lw=2)
    ax.scatter(values[:, 0], rows, c=colours, s=32, zorder=3)
    if reference is not None and (summary["method"] == reference).any():
        ax.axvline(summary.loc[summary["method"] == reference, "value"].iloc[0], color="0.5", ls="--", lw=1, zorder=0)
    for row, value in enumerate(values[:, 0]):
        ax.annotate(f"{value:.3f}", (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize="small")
    ax.grid(axis="x", color="0.92")


def _arm_colour(method: str) -> str:
    if "diffusion" in method:
        return "#D55E00"
    return "#777777" if method in ("shuffled_labels", "real_projected") else "#0072B2"


def recall_heatmap(recalls: pd.DataFrame, counts: Mapping[str, int] | None = None) -> Figure:
    """Recall of each class (columns) under each method (rows), as numbers on colour.

    Args:
        recalls: index ``method``, one column a class, values in [0, 1].
        counts: test cells of each class, to be named below it.
    """
    labels = in_order(recalls.columns)
    table = recalls[labels]
    fig, ax = subplots(figsize=(WIDTH, 0.34 * len(table) + 1.0))
    lowest = min(0.5, float(table.to_numpy().min()))
    sns.heatmap(table, annot=True, fmt=".2f", cmap="viridis", vmin=lowest, vmax=1, ax=ax, cbar=False, linewidths=0.5,
                annot_kws={"size": 8})  # fmt: skip
    ax.set_yticklabels([readable(name) for name in table.index], rotation=0)
    cells = {name: f" ({counts[name]:,})" if counts and name in counts else "" for name in labels}
    ax.set_xticklabels([readable(name) + cells[name] for name in labels], rotation=25, ha="right")
    ax.set(xlabel="", ylabel="", title="recall by class" + (" (test cells)" if counts else ""))
    return fig
