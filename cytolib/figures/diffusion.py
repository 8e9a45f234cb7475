"""Charts of the diffusion model: noise, training, denoising, and the quality of what it makes."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from cytolib.data.taxonomy import in_order
from cytolib.figures.style import REAL, SYNTHETIC, WIDTH, class_colour, metric_title, readable, subplots


def noise_levels(sigmas: ArrayLike, training_sigmas: ArrayLike) -> Figure:
    """Where the model trains and where the sampler steps: density of training noise levels, ticks at the steps.

    Args:
        sigmas: the sampler's noise levels (standard deviations, data has standard deviation 1), falling.
        training_sigmas: noise levels drawn as training draws them.
    """
    sigmas, training = np.asarray(sigmas, float), np.asarray(training_sigmas, float)
    fig, ax = subplots(figsize=(WIDTH, 2.2))
    bins = list(np.geomspace(training.min(), training.max(), 60))
    ax.hist(training, bins=bins, color="0.75", label="training draws")
    top = ax.get_ylim()[1]
    steps = sigmas[sigmas > 0]
    ax.vlines(steps, 0, top * 0.35, color=SYNTHETIC, lw=1.5, label=f"{len(steps)} sampling steps")
    ax.axvline(1, color="0.3", ls="--", lw=1)
    ax.text(1.05, top * 0.96, "noise as large as the data", fontsize="small", va="top")
    ax.set(xscale="log", xlabel="noise level sigma (standard deviations of the data)", ylabel="draws", yticks=[])
    ax.legend(loc="upper left")
    return fig


def noising(vector: ArrayLike, sigmas: ArrayLike, *, seed: int = 0, n_features: int = 60) -> Figure:
    """One standardised embedding under growing noise: a row a noise level, a column a feature."""
    values = np.asarray(vector, float)[:n_features]
    noise = np.random.default_rng(seed).standard_normal(len(values))
    levels = np.asarray(sigmas, float)
    fig, ax = subplots(figsize=(WIDTH, 0.32 * len(levels) + 0.8))
    rows = np.stack([(values + sigma * noise) / np.sqrt(1 + sigma**2) for sigma in levels])
    ax.imshow(rows, aspect="auto", cmap="RdBu_r", vmin=-2.5, vmax=2.5)
    ax.set_yticks(range(len(levels)), [f"{sigma:g}" for sigma in levels])
    ax.set(xlabel=f"feature (the first {len(values)})", ylabel="sigma", title="one cell's embedding, drowned in noise")
    ax.spines[:].set_visible(False)
    return fig


def training_curves(history: pd.DataFrame) -> Figure:
    """Loss on training and validation cells against the training step.

    Args:
        history: columns ``step``, ``loss``, ``validation_loss`` (EDM-weighted squared error; null between evaluations).
    """
    fig, ax = subplots(figsize=(WIDTH * 0.8, 2.6))
    draw_training(ax, history)
    return fig


def draw_training(ax: Axes, history: pd.DataFrame) -> None:
    """:func:`training_curves` on axes of a larger figure."""
    smooth = history["loss"].ewm(halflife=max(1, len(history) // 60)).mean()
    ax.plot(history["step"], smooth, color="0.6", lw=1.2, label="training cells (smoothed)")
    validation = history.dropna(subset=["validation_loss"])
    ax.plot(validation["step"], validation["validation_loss"], "o-", ms=3, color=SYNTHETIC, label="validation cells")
    low = min(smooth.min(), validation["validation_loss"].min() if len(validation) else np.inf)
    high = max(smooth.max(), validation["validation_loss"].max() if len(validation) else -np.inf)
    ax.set(xlabel="training step", ylabel="denoising loss", ylim=(low * 0.97, high * 1.03))
    ax.legend()


def denoising_error(errors: pd.DataFrame) -> Figure:
    """Error of the denoised embedding against the noise level, a line a class.

    Args:
        errors: columns ``sigma``, ``label``, ``error`` (mean squared error a feature; the data's variance is 1).
    """
    fig, ax = subplots(figsize=(WIDTH * 0.8, 2.9))
    for label in in_order(errors["label"]):
        line = errors[errors["label"] == label].sort_values("sigma")
        ax.plot(line["sigma"], line["error"], "o-", ms=3, color=class_colour(label), label=readable(label))
    ax.set(xscale="log", xlabel="noise level sigma", ylabel="denoising error (data variance = 1)", ylim=(0, None))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    return fig


def denoising_path(
    paths: NDArray[np.floating], path_labels: list[str], real: NDArray[np.floating], real_labels: ArrayLike
) -> Figure:
    """From noise to a class: the sampler's estimate at each step, over the real cells.

    Args:
        paths: (n_paths, n_steps, 2) positions of the denoised estimates.
        path_labels: the class asked for, one a path.
        real: (n_cells, 2) positions of real cells in the same plane.
        real_labels: their classes.
    """
    fig, ax = subplots(figsize=(WIDTH * 0.8, WIDTH * 0.55))
    few = np.random.default_rng(0).permutation(len(real))[:1500]  # more would hide the paths
    classes = np.asarray(real_labels)[few]
    for label in in_order(classes):
        here = few[classes == label]
        x, y = real[here].T
        ax.scatter(x, y, s=9, alpha=0.6, linewidths=0, color=class_colour(label), rasterized=True)
    for path, label in zip(paths, path_labels, strict=True):
        ax.plot(*path.T, "-", color="white", lw=3.4)
        ax.plot(*path.T, "o-", ms=2.5, lw=1.6, color=class_colour(label))
        ax.scatter(path[-1, 0], path[-1, 1], s=70, marker="*", color=class_colour(label), ec="black", lw=0.8, zorder=4)
    handles = [
        plt.Line2D([], [], marker="*", ls="-", ms=9, mec="black", color=class_colour(n), label=readable(n))
        for n in in_order(path_labels)
    ]
    ax.legend(handles=handles, title="class asked for", loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    low, high = np.percentile(real, [0.5, 99.5], axis=0)
    margin = 0.25 * (high - low)
    ax.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
    ax.set(xlabel="first principal component", ylabel="second principal component")
    return fig


def fidelity(table: pd.DataFrame) -> Figure:
    """Metrics of synthetic embeddings, each beside its real-versus-real value at the same n; one panel a metric.

    Values below 0.02 are shown in thousandths, and the axis says so.

    Args:
        table: columns ``metric``, ``method`` (``real_floor`` is the floor), ``value``, and ``low`` and ``high`` where
            there are intervals.
    """
    metrics = list(dict.fromkeys(table["metric"]))
    n_columns = min(len(metrics), 4 if len(metrics) != 6 else 3)
    n_rows = -(-len(metrics) // n_columns)
    fig, axes = subplots(n_rows, n_columns, figsize=(WIDTH * max(0.25 * n_columns, 0.5), 2.2 * n_rows), squeeze=False)
    methods = list(dict.fromkeys(table["method"]))
    names = [readable(m).replace("class Gaussian", "Gaussian") for m in methods]
    for ax, metric in zip(axes.flat, metrics, strict=False):
        part = table[table["metric"] == metric].set_index("method").reindex(methods).drop(columns="metric")
        thousandfold = part["value"].abs().max() < 0.02  # else its numbers run into each other
        part = part * 1000 if thousandfold else part
        values = part["value"]
        colours = [REAL if m.startswith("real") else SYNTHETIC if "diffusion" in m else "#0072B2" for m in methods]
        ax.bar(range(len(methods)), values, color=colours, width=0.7, label=names)
        tops = values.clip(lower=0)
        if {"low", "high"} <= set(part):
            ends = [(values - part["low"]).clip(lower=0), (part["high"] - values).clip(lower=0)]
            ax.errorbar(range(len(methods)), values, yerr=ends, fmt="none", ecolor="0.55", elinewidth=1.2)
            tops = part[["value", "high"]].max(axis=1).clip(lower=0)
        decimals = max(0, 3 - len(f"{values.abs().max():.0f}".lstrip("0")))
        for place, (value, top) in enumerate(zip(values, tops, strict=True)):
            text = f"{value:.{decimals}f}".replace("-", "−")
            ax.annotate(text, (place, top), xytext=(0, 2), textcoords="offset points", ha="center", fontsize="x-small")
        ax.axhline(0, color="0.2", lw=0.8)
        ax.set_xticks([])
        ax.tick_params(axis="y", labelsize="x-small")
        ax.set_title(metric_title(metric), fontsize="small")
        ax.set_ylabel("× 0.001" if thousandfold else "", fontsize="x-small")
        ax.margins(y=0.18)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=len(methods), fontsize="small")
    return fig


def side_by_side(places: list[NDArray[np.floating]], labels: list[NDArray[np.str_]], titles: list[str]) -> Figure:
    """The same plane twice, with the same limits: for example real cells and synthetic ones.

    Args:
        places: (n_cells, 2) positions for each panel. labels: the classes of each panel's cells. titles: of the panels.
    """
    fig, axes = subplots(1, len(places), figsize=(WIDTH * 1.1, WIDTH * 0.55), sharex=True, sharey=True)
    for ax, xy, classes, title in zip(axes, places, labels, titles, strict=True):
        order = np.random.default_rng(0).permutation(len(xy))
        colours = [class_colour(name) for name in classes[order]]
        ax.scatter(xy[order, 0], xy[order, 1], c=colours, s=6, alpha=0.6, linewidths=0, rasterized=True)
        ax.set(title=f"{title} (n = {len(xy):,})", xlabel="first principal component")
    low, high = np.percentile(places[0], [0.2, 99.8], axis=0)
    margin = 0.15 * (high - low)
    axes[0].set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
    axes[0].set_ylabel("second principal component")
    handles = [
        plt.Line2D([], [], marker="o", ls="", color=class_colour(n), label=readable(n)) for n in in_order(labels[0])
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=4, fontsize="small")
    return fig


def two_clouds(real: NDArray[np.floating], synthetic: NDArray[np.floating], axes_names: list[str]) -> Figure:
    """Real and synthetic cells of one class in the plane of two features; (n, 2) each, in the features' own units."""
    fig, ax = subplots(figsize=(WIDTH * 0.6, WIDTH * 0.42))
    ax.scatter(
        real[:, 0], real[:, 1], color=REAL, marker="o", alpha=0.7, linewidths=0, label=f"real (n = {len(real):,})"
    )
    ax.scatter(
        synthetic[:, 0],
        synthetic[:, 1],
        color=SYNTHETIC,
        marker="x",
        alpha=0.7,
        label=f"synthetic (n = {len(synthetic):,})",
    )
    ax.set(xlabel=readable(axes_names[0]), ylabel=readable(axes_names[1]))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


def marginals(real: pd.DataFrame, synthetic: pd.DataFrame, columns: list[str]) -> Figure:
    """Distributions of single features, real and synthetic, a panel a feature; both frames hold ``columns``."""
    fig, axes = subplots(2, (len(columns) + 1) // 2, figsize=(WIDTH * 1.1, 3.2), squeeze=False)
    for ax, column in zip(axes.flat, columns, strict=False):
        low, high = np.percentile(real[column], [0.5, 99.5])
        bins = list(np.linspace(low, high, 40))
        ax.hist(real[column], bins=bins, density=True, color="0.75", label="real")
        ax.hist(synthetic[column], bins=bins, density=True, histtype="step", color=SYNTHETIC, lw=1.4, label="synthetic")
        ax.set(yticks=[], title="")
        ax.set_xlabel(readable(column), fontsize="x-small")
        ax.tick_params(labelsize="x-small")
    fig.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, fontsize="x-small")
    return fig
