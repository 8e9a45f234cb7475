"""Pictures of cells: contact sheets by class and domain, and rows of related cells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cytolib.data.images import load_image
from cytolib.figures.style import WIDTH, in_order, readable, subplots

Image = NDArray[np.uint8]


def read_images(cells: pd.DataFrame, root: Path, size: int = 96) -> list[Image]:
    """The images of ``cells`` (its ``path`` column, relative to ``root``), each (size, size, 3) uint8."""
    return [np.asarray(load_image(root / path).resize((size, size))) for path in cells["path"]]


def _strip(images: Sequence[Image], n_columns: int, size: int, gap: int = 2) -> Image:
    """Images side by side on white, padded to ``n_columns``."""
    strip = np.full((size, n_columns * (size + gap) - gap, 3), 255, np.uint8)
    for column, image in enumerate(images[:n_columns]):
        strip[:, column * (size + gap) : column * (size + gap) + size] = image
    return strip


def contact_sheet(cells: pd.DataFrame, root: Path, *, n_each: int = 4, seed: int = 0, size: int = 96) -> Figure:
    """Random cells: a row a class, a block of ``n_each`` columns a domain, so that stains and scanners compare."""
    labels, domains = in_order(cells["label"]), sorted(cells["domain"].unique())
    fig, axes = subplots(
        len(labels),
        len(domains),
        figsize=(WIDTH * 1.25, WIDTH * 1.25 * len(labels) / (n_each * len(domains) + 1.5)),
        squeeze=False,
        gridspec_kw={"wspace": 0.03, "hspace": 0.03},
    )
    for row, label in enumerate(labels):
        for column, domain in enumerate(domains):
            here = cells[(cells["label"] == label) & (cells["domain"] == domain)]
            chosen = here.sample(min(n_each, len(here)), random_state=seed)
            ax = axes[row, column]
            ax.imshow(_strip(read_images(chosen, root, size), n_each, size))
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            if row == 0:
                ax.set_title(readable(domain))
            if column == 0:
                ax.set_ylabel(readable(label).replace(" ", "\n"), rotation=0, ha="right", va="center")
    return fig


def cell_rows(
    rows: Sequence[tuple[str, Sequence[Image]]],
    *,
    first: str = "",
    rest: str = "",
    captions: Sequence[Sequence[str]] | None = None,
) -> Figure:
    """Named rows of images; the first image of a row is set apart (a query, a real cell) from the rest.

    Args:
        rows: (name, images) of each row; all images of one size.
        first, rest: titles above the first image and above the others.
        captions: a word below each image, in the same shape as the images.
    """
    n_columns = max(len(images) for _, images in rows)
    side = WIDTH * 1.15 / (n_columns + 1.6)  # inches a picture; the rest of the width is for the rows' names
    height = side * (1.06 if captions is None else 1.26)
    fig, axes = plt.subplots(len(rows), n_columns, figsize=(WIDTH * 1.15, height * len(rows) + 0.3), squeeze=False)
    top = 1 - 0.3 / (height * len(rows) + 0.3)
    fig.subplots_adjust(
        left=1.6 / (n_columns + 1.6), right=1, bottom=0.01, top=top, wspace=0.04, hspace=height / side - 1
    )
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for row, (name, images) in enumerate(rows):
        axes[row, 0].set_ylabel(readable(name).replace(" ", "\n"), rotation=0, ha="right", va="center")
        for column, image in enumerate(images):
            ax = axes[row, column]
            ax.imshow(image)
            if column == 0 and first:
                ax.spines[:].set(visible=True, color="black", linewidth=1.5)
            if captions is not None:
                ax.set_xlabel(captions[row][column], fontsize="x-small", labelpad=1)
    axes[0, 0].set_title(first or rest, fontsize="small")
    if first and n_columns > 1:
        axes[0, 1].set_title(rest, fontsize="small")
    return fig
