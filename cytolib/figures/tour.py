"""Figures of the tour through the data: outlines, ambiguous cells, whole fields, what vectors know."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike, NDArray

from cytolib.figures.style import WIDTH, class_colour, readable, subplots

Image = NDArray[np.uint8]
_CELL, _NUCLEUS = "#FFFFFF", "#FFE14D"


def outlined_cells(images: Sequence[Image], masks: Sequence[Image], captions: Sequence[str]) -> Figure:
    """Cells above, below the same with the outline of the cell (white) and of its nucleus (yellow).

    Args:
        images: (S, S, 3) uint8 each.
        masks: (S, S) each: 0 background, 1 cytoplasm, 2 nucleus.
        captions: a line below each cell.
    """
    fig, axes = subplots(2, len(images), figsize=(WIDTH * 1.15, WIDTH * 2.5 / len(images)), squeeze=False)
    for column, (image, mask, caption) in enumerate(zip(images, masks, captions, strict=True)):
        for row in (0, 1):
            axes[row, column].imshow(image)
            axes[row, column].set(xticks=[], yticks=[])
            axes[row, column].spines[:].set_visible(False)
        for level, colour in ((0.5, _CELL), (1.5, _NUCLEUS)):
            if (mask > level).any():
                axes[1, column].contour(mask, [level], colors=colour, linewidths=1.2)
        axes[1, column].set_xlabel(caption, fontsize="x-small")
    return fig


def ambiguous_path(images: Sequence[Image], t: ArrayLike, posterior: ArrayLike, first: str, second: str) -> Figure:
    """A path of cells from one class to another, and below it how sure anybody can be.

    Args:
        images: (S, S, 3) uint8 along the path.
        t: (n,) place of each image on the path, 0 to 1.
        posterior: (n,) true probability of the second class at these places.
        first, second: the two classes.
    """
    t, posterior = np.asarray(t, dtype=float), np.asarray(posterior, dtype=float)
    fig = plt.figure(figsize=(WIDTH * 1.15, WIDTH * 1.15 / len(images) + 1.5))
    grid = fig.add_gridspec(2, len(images), height_ratios=[1, 1.1], hspace=0.08, wspace=0.03,
                            left=0.09, right=0.99, top=0.92, bottom=0.2)  # fmt: skip
    for column, image in enumerate(images):
        ax = fig.add_subplot(grid[0, column])
        ax.imshow(image)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        if column in (0, len(images) - 1):
            ax.set_title(readable(second if column else first), fontsize="small", loc="center")
    ax = fig.add_subplot(grid[1, :])
    half = 0.5 / len(images)
    ax.plot(half + t * (1 - 2 * half), posterior, marker="o", ms=4, color=class_colour(second), clip_on=False)
    ax.axhline(0.5, color="0.7", lw=0.8, ls=":")
    ax.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[0, 0.5, 1], ylabel=f"P({readable(second)})")
    ax.set_xlabel("place on the path", fontsize="small")
    return fig


def field_boxes(image: Image, objects: pd.DataFrame) -> Figure:
    """A whole field with a box around each object, in the colour of its class; what is no cell is dashed.

    Args:
        image: (H, W, 3) uint8.
        objects: columns ``kind`` ("cell" or what else), ``label``, ``x0``, ``y0``, ``x1``, ``y1`` (pixels), ``score``.
    """
    height, width = image.shape[:2]
    fig, ax = subplots(figsize=(WIDTH * 1.3, WIDTH * 1.3 * height / width))
    ax.imshow(image)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    halo = [withStroke(linewidth=1.5, foreground="white", alpha=0.7)]
    corners = objects[["x0", "y0", "x1", "y1"]].to_numpy(float)
    words = objects[["kind", "label"]].to_numpy(str)
    for (x0, y0, x1, y1), (kind, label), score in zip(corners, words, objects["score"], strict=True):
        name, colour, line = (label, class_colour(label), "-") if kind == "cell" else (kind, "#222222", "--")
        ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, lw=1.3, ls=line))
        text = f"{readable(name)} {score:.2f}"
        ax.text(x0, y0 - 3, text, fontsize=5.5, color=colour, va="bottom", clip_on=True, path_effects=halo)
    return fig


def what_vectors_know(probes: pd.DataFrame) -> Figure:
    """Skill of a linear probe for each attribute with its interval, and that of shuffled values as a cross.

    Args:
        probes: as ``cytolib.classify.attributes.attribute_probes`` returns it.
    """
    fig, ax = subplots(figsize=(WIDTH * 0.85, 0.26 * len(probes) + 0.8))
    rows = np.arange(len(probes))
    number = (probes["kind"] == "number").to_numpy()
    for kind, chosen, colour in (("number: R²", number, "#4477AA"), ("category: skill", ~number, "#AA3377")):
        part = probes[chosen]
        if len(part):
            error = np.abs(part[["low", "high"]].to_numpy().T - part["skill"].to_numpy())
            ax.errorbar(part["skill"], rows[chosen], xerr=error, fmt="o", ms=4, lw=1.2, color=colour, label=kind)
    ax.plot(probes["shuffled"], rows, "x", ms=4, color="0.6", label="shuffled values")
    ax.axvline(0, color="0.7", lw=0.8)
    ax.set_yticks(rows, [readable(name).replace(" um", ", µm") for name in probes["attribute"]])
    ax.invert_yaxis()
    ax.set(
        xlabel="skill of a linear probe on test cells (0 guess, 1 perfect)",
        xlim=(min(-0.3, probes["low"].min() - 0.02), 1.02),
    )
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize="x-small", borderaxespad=0.1)
    return fig


def along_maturity(scores: pd.DataFrame, stages: Sequence[str]) -> Figure:
    """Cells along a line of maturation: true stage across, score of an axis in the embeddings up.

    Args:
        scores: columns ``stage`` (index into ``stages``), ``score`` (in stages), one row a cell.
        stages: names of the stages, youngest first.
    """
    fig, ax = subplots(figsize=(WIDTH * 0.85, 2.8))
    rng = np.random.default_rng(0)
    for k, name in enumerate(stages):
        part = scores.loc[scores["stage"] == k, "score"].to_numpy()
        if len(part):
            ax.plot(k + rng.uniform(-0.28, 0.28, len(part)), part, ".", ms=3, alpha=0.5, color=class_colour(name))
            ax.plot([k - 0.34, k + 0.34], [np.median(part)] * 2, color="black", lw=1.5)
    ax.plot([0, len(stages) - 1], [0, len(stages) - 1], color="0.7", lw=0.8, ls=":", zorder=0)
    ax.set_xticks(range(len(stages)), [readable(name).replace(" ", "\n") for name in stages], fontsize="x-small")
    ax.set(ylabel="place on the axis (stages)", title="true stage across, read-off stage up")
    return fig
