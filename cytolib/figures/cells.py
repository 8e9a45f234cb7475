"""Pictures of cells: contact sheets by class and domain, and rows of related cells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from cytolib.data.images import load_image
from cytolib.data.taxonomy import in_order
from cytolib.figures.style import WIDTH, readable, subplots

Image = NDArray[np.uint8]


def read_images(cells: pd.DataFrame, root: Path, size: int = 96, field_of_view_um: float = 0.0) -> list[Image]:
    """The images of ``cells`` (its ``path`` column, relative to ``root``), each (size, size, 3) uint8.

    With ``field_of_view_um`` all show the same square of the slide, where ``um_per_px`` is known; 0 shows whole images.
    """
    scales = cells["um_per_px"] if field_of_view_um else [None] * len(cells)
    return [
        np.asarray(load_image(root / path, field_of_view_um if scale else 0.0, scale).resize((size, size)))
        for path, scale in zip(cells["path"], pd.Series(scales).fillna(0.0), strict=True)
    ]


def _strip(images: Sequence[Image], n_columns: int, size: int, gap: int = 2) -> Image:
    """Images side by side on white, padded to ``n_columns``."""
    strip = np.full((size, n_columns * (size + gap) - gap, 3), 255, np.uint8)
    for column, image in enumerate(images[:n_columns]):
        strip[:, column * (size + gap) : column * (size + gap) + size] = image
    return strip


def contact_sheet(
    cells: pd.DataFrame, root: Path, *, n_each: int = 4, seed: int = 0, size: int = 96, field_of_view_um: float = 0.0
) -> Figure:
    """Random cells: a row a class, a block of ``n_each`` columns a domain, so that stains and scanners compare.

    With ``field_of_view_um`` all pictures have one scale, and a bar of 5 micrometres says which.
    """
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
            ax.imshow(_strip(read_images(chosen, root, size, field_of_view_um), n_each, size))
            if field_of_view_um and row == len(labels) - 1:
                _scale_bar(ax, 5 * size / field_of_view_um, size, "5 µm")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            if row == 0:
                ax.set_title(readable(domain))
            if column == 0:
                ax.set_ylabel(readable(label).replace(" ", "\n"), rotation=0, ha="right", va="center")
    return fig


def _scale_bar(ax: Axes, length: float, size: int, text: str) -> None:
    """A black bar of ``length`` pixels in the lower left corner of a picture of ``size`` pixels, with its meaning."""
    halo = [withStroke(linewidth=2.5, foreground="white")]
    left, bottom = 0.05 * size, 0.92 * size
    ax.add_line(Line2D([left, left + length], [bottom] * 2, color="black", linewidth=2, solid_capstyle="butt"))
    ax.text(left, bottom - 4, text, va="bottom", fontsize=6, path_effects=halo)


def cell_rows(
    rows: Sequence[tuple[str, Sequence[Image]]],
    *,
    first: str = "",
    rest: str = "",
    captions: Sequence[Sequence[str]] | None = None,
    columns: int = 0,
) -> Figure:
    """Named rows of images; the first image of a row is set apart (a query, a real cell) from the rest.

    Args:
        rows: (name, images) of each row; all images of one size.
        first, rest: titles above the first image and above the others.
        captions: a word below each image, in the same shape as the images.
        columns: at least so many, which keeps the pictures of short rows small.
    """
    n_columns = max(columns, *(len(images) for _, images in rows))
    width = WIDTH * 1.15
    left = 1.6 / (n_columns + 1.6)  # of the width, for the rows' names
    side = width * (1 - left) / (n_columns + 0.04 * (n_columns - 1))  # inches a picture
    gap = 0.06 if captions is None else 0.2  # between rows, in pictures
    below, above = 0.03 if captions is None else 0.2, 0.3  # inches
    height = side * (len(rows) + gap * (len(rows) - 1)) + below + above
    fig, axes = plt.subplots(len(rows), n_columns, figsize=(width, height), squeeze=False)
    fig.subplots_adjust(left=left, right=1, bottom=below / height, top=1 - above / height, wspace=0.04, hspace=gap)
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
