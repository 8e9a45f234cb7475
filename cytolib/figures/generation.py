"""Charts of what a generator makes: the way out of noise, single vectors beside images, and what guidance costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from cytolib.data.taxonomy import in_order
from cytolib.figures.style import REAL, SYNTHETIC, WIDTH, class_colour, readable, subplots

Image = NDArray[np.uint8]
_COLOURS, _LIMIT = "RdBu_r", 2.5  # of standardised features


def out_of_noise(samples: NDArray[np.floating], denoised: NDArray[np.floating], sigmas: ArrayLike) -> Figure:
    """One cell's way through the sampler, a row a step: the noisy vector, and the cell that the model sees in it.

    Args:
        samples: (S, D) noisy standardised vectors before each step, shown divided by the spread at their noise level.
        denoised: (S, D) clean estimates at each step. sigmas: (S,) noise levels, falling.
    """
    levels = np.asarray(sigmas, float)
    noisy = samples / np.sqrt(1 + levels[:, None] ** 2)
    fig, axes = subplots(1, 2, figsize=(WIDTH * 1.1, 0.16 * len(levels) + 0.9), sharey=True)
    titles = ("what the sampler holds", "the cell that the model sees in it")
    for ax, values, title in zip(axes, (noisy, denoised), titles, strict=True):
        ax.imshow(values, aspect="auto", cmap=_COLOURS, vmin=-_LIMIT, vmax=_LIMIT, interpolation="nearest")
        ax.set(title=title, xlabel=f"{values.shape[1]} features", xticks=[])
        ax.spines[:].set_visible(False)
    shown = range(0, len(levels), 3)
    axes[0].set_yticks(list(shown), [f"{levels[k]:.2g}" for k in shown])
    axes[0].set_ylabel("noise level sigma")
    axes[1].tick_params(left=False)
    return fig


def class_curves(history: pd.DataFrame) -> Figure:
    """Validation loss of each class against the training step.

    Args:
        history: columns ``step``, ``label``, ``loss``.
    """
    fig, ax = subplots(figsize=(WIDTH * 0.8, 2.9))
    draw_classes(ax, history)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small", title="ring: lowest")
    return fig


def draw_classes(ax: Axes, history: pd.DataFrame) -> None:
    """:func:`class_curves` on axes of a larger figure, without a legend."""
    for label in in_order(history["label"]):
        line = history[history["label"] == label]
        ax.plot(line["step"], line["loss"], "o-", ms=2.5, lw=1.3, color=class_colour(label), label=readable(label))
        lowest = line.sort_values("loss").iloc[0]
        ax.plot(lowest["step"], lowest["loss"], "o", ms=7, mfc="none", mec=class_colour(label))
    ax.set(xlabel="training step", ylabel="denoising loss, validation cells")


def real_synthetic_nearest(
    names: Sequence[str],
    real: Sequence[tuple[Image, NDArray[np.floating]]],
    synthetic: Sequence[NDArray[np.floating]],
    nearest: Sequence[tuple[Image, NDArray[np.floating]]],
    captions: Sequence[str],
) -> Figure:
    """A row a class: a real cell and its vector, a synthetic vector, and the real training cell nearest to that one.

    Args:
        names: the classes. real, nearest: picture and (D,) vector of a real cell. synthetic: (D,) vectors.
        captions: what to say below the nearest cell, such as its class and how far it is.
    """
    columns = ("a real\ntest cell", "its vector", "a synthetic vector", "nearest real vector", "its cell")
    fig, axes = subplots(
        len(names), 5, figsize=(WIDTH, 0.86 * len(names) + 0.45), squeeze=False,
        gridspec_kw={"width_ratios": [1, 2, 2, 2, 1]},
    )  # fmt: skip
    for row, name in enumerate(names):
        parts = (real[row][0], real[row][1], synthetic[row], nearest[row][1], nearest[row][0])
        for column, (ax, part) in enumerate(zip(axes[row], parts, strict=True)):
            if part.ndim == 1:
                ax.imshow(as_tile(part), cmap=_COLOURS, vmin=-_LIMIT, vmax=_LIMIT, interpolation="nearest")
            else:
                ax.imshow(part)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            if row == 0:
                ax.set_title(columns[column], fontsize="small", fontweight="normal")
        axes[row, 0].set_ylabel(readable(name).replace(" ", "\n"), rotation=0, ha="right", va="center")
        axes[row, 4].set_xlabel(captions[row], fontsize="x-small", labelpad=1)
    return fig


def as_tile(vector: ArrayLike, height: int = 8) -> NDArray[np.float64]:
    """A vector as a picture of ``height`` rows, column by column; what does not fill a column is left out."""
    values = np.asarray(vector, float)
    return values[: len(values) // height * height].reshape(-1, height).T


def membership(table: pd.DataFrame) -> Figure:
    """How well an attacker tells training cells from new ones by their denoising error, at each noise level.

    Args:
        table: columns ``score`` (a noise level, ``mean`` or ``attack``), ``auc``, ``low``, ``high``.
    """
    fig, ax = subplots(figsize=(WIDTH, 2.6))
    levels = table[~table["score"].isin(("mean", "attack"))]
    sigma = levels["score"].str.extract(r"([0-9.e+-]+)", expand=False).astype(float)
    ax.fill_between(sigma, levels["low"], levels["high"], color=SYNTHETIC, alpha=0.2, lw=0)
    ax.plot(sigma, levels["auc"], "o-", ms=3, color=SYNTHETIC, label="one noise level")
    for score, style in (("mean", "--"), ("attack", ":")):
        row = table[table["score"] == score].iloc[0]
        words = "all levels, mean" if score == "mean" else "all levels, fitted attack"
        ax.axhline(row["auc"], ls=style, color="#0072B2", label=f"{words}: {row['auc']:.3f}")
        ax.axhspan(row["low"], row["high"], color="#0072B2", alpha=0.08, lw=0)
    ax.axhline(0.5, color="0.3", lw=1)
    ax.text(sigma.max(), 0.5, "guessing", va="top", ha="right", fontsize="small")
    low, high = min(0.45, table["low"].min()), max(0.6, table["high"].max())
    ax.set(xscale="log", xlabel="noise level sigma", ylabel="AUC", ylim=(low, high))
    ax.set_xticks(sigma.tolist(), [f"{level:g}" for level in sigma], minor=False)
    ax.set_xticks([], minor=True)
    ax.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


def guidance(table: pd.DataFrame) -> Figure:
    """What guidance does to vectors: variance within classes over that of real cells, and the Frechet distance.

    Args:
        table: columns ``guidance_scale``, ``variance_ratio``, ``frechet_distance``, ``floor``.
    """
    fig, axes = subplots(1, 2, figsize=(WIDTH, 2.3))
    shown = (("variance_ratio", "variance within a class, over real"), ("frechet_distance", "Fréchet distance ↓"))
    for ax, (column, title) in zip(axes, shown, strict=True):
        ax.plot(table["guidance_scale"], table[column], "o-", ms=4, color=SYNTHETIC)
        ax.axhline(1.0 if column == "variance_ratio" else table["floor"].iloc[0], color=REAL, ls="--", lw=1)
        ax.set(xlabel="guidance scale", title=title)
    axes[0].set_ylim(bottom=0)
    axes[1].set_yscale("log")  # a scale of 3 is a hundred times as far off as none
    for ax, level in zip(axes, (1.0, table["floor"].iloc[0]), strict=True):
        ax.text(table["guidance_scale"].max(), level, "real cells", va="bottom", ha="right", fontsize="small")
    return fig


def attribute_agreement(frequencies: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Frequency of each attribute's value in each class: real test cells across, synthetic cells up; a panel a method.

    Args:
        frequencies: columns ``label``, ``attribute``, ``value``, ``method``, ``frequency``; method ``real_test`` is
            what is compared against.
    """
    keys = ["label", "attribute", "value"]
    wide = frequencies.pivot_table(index=keys, columns="method", values="frequency").reset_index()
    fig, axes = subplots(
        1, len(methods), figsize=(min(2.7 * len(methods) + 1.2, WIDTH), 3.1), sharey=True, squeeze=False
    )
    for ax, method in zip(axes[0], methods, strict=True):
        ax.plot([0, 1], [0, 1], color="0.7", lw=1)
        for label in in_order(wide["label"]):
            here = wide[wide["label"] == label]
            ax.scatter(here["real_test"], here[method], s=14, color=class_colour(label), alpha=0.8, lw=0,
                       label=readable(label))  # fmt: skip
        gap = (wide[method] - wide["real_test"]).abs().mean()
        ax.set(
            title=readable(method),
            xlabel="frequency in real test cells",
            xticks=[0, 0.5, 1],
            xlim=(-0.03, 1.03),
            ylim=(-0.03, 1.03),
        )
        ax.text(0.03, 0.97, f"mean gap {gap:.3f}", va="top", transform=ax.transAxes, fontsize="small")
    axes[0, 0].set_ylabel("frequency in these cells")
    axes[0, -1].legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    return fig
