"""The look of every figure: theme, sizes, and the colours that a class or a domain keeps everywhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from cytolib.data.taxonomy import CELL_TYPES, CLASSES, MATURITY

# Nine hues of Okabe and Ito (2008) and Tol's muted set (2021), told apart with the common colour vision deficiencies.
_CLASS_COLOURS = dict(
    zip(
        CLASSES,
        ("#0072B2", "#D55E00", "#332288", "#009E73", "#CC79A7", "#56B4E9", "#882255", "#E69F00", "#111111"),
        strict=True,
    )
)
# Finer types: a line of maturation is a ramp from young to old, whatever is left gets its own hue.
_FINE_COLOURS: dict[str, str] = {
    **dict(zip(MATURITY["myeloid"], map(to_hex, sns.color_palette("mako_r", 8)[1:7]), strict=True)),
    **dict(zip(MATURITY["erythroid"], map(to_hex, sns.color_palette("rocket_r", 6)[1:5]), strict=True)),
}
_OTHERS = [name for name in CELL_TYPES if name not in (*_CLASS_COLOURS, *_FINE_COLOURS)]
_FINE_COLOURS |= dict(zip(_OTHERS, map(to_hex, sns.husl_palette(len(_OTHERS), s=0.7, l=0.6)), strict=True))
_DOMAIN_COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#AA3377", "#66CCEE", "#777777", "#000000")
REAL, SYNTHETIC = "#3B3B3B", "#D55E00"
WIDTH = 7.0  # inches: a page between its margins


def style() -> None:
    """Set the project's theme: paper context, ticks, small sans-serif type of 7 points or more, 100 dpi inline.

    Everything starts from matplotlib's own defaults and its own font, so that neither a user's settings nor the fonts
    of a machine change a figure.
    """
    plt.rcdefaults()
    sns.set_theme(context="paper", style="ticks", font_scale=1.06)  # "x-small" is then 7.06 points
    plt.rcParams.update(
        {
            "font.sans-serif": ["DejaVu Sans"],
            "figure.dpi": 100,
            "savefig.dpi": 150,
            "savefig.bbox": "tight",
            "savefig.pad_inches": 0.04,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": "medium",
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "legend.frameon": False,
            "pdf.fonttype": 42,
            "svg.hashsalt": "cytolib",
        }
    )


def subplots(n_rows: int = 1, n_columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """``plt.subplots`` with constrained layout.

    Not as a setting for all figures: saving a figure without layout would then lay it out (matplotlib 3.11).
    """
    return plt.subplots(n_rows, n_columns, layout="constrained", **options)


def class_colour(label: str) -> str:
    """The colour of a harmonised class or cell type, the same in every figure."""
    return _CLASS_COLOURS.get(label) or _FINE_COLOURS[label]


def domain_colours(domains: Iterable[str]) -> dict[str, str]:
    """A colour for each domain: by sorted name, so that the same domains have the same colours everywhere."""
    names = sorted(set(domains))
    if len(names) > len(_DOMAIN_COLOURS):
        raise ValueError(f"{len(names)} domains; at most {len(_DOMAIN_COLOURS)} can be told apart by colour")
    return dict(zip(names, _DOMAIN_COLOURS, strict=False))


_SPELLINGS = {"gaussian": "Gaussian", "smote": "SMOTE", "lda": "LDA", "f1": "F1"}


def readable(name: str) -> str:
    """A name for axis labels: underscores out, names and acronyms as they are spelt (``macro_f1`` -> ``macro F1``)."""
    return " ".join(_SPELLINGS.get(word, word) for word in name.split("_"))


_METRIC_TITLES = {
    "frechet_distance_pca": "Fréchet distance ↓",
    "kernel_distance": "kernel distance ↓",
    "precision": "precision ↑",
    "recall": "recall ↑",
    "frechet_distance_infinity": "Fréchet distance, n → ∞ ↓",
    "density": "density → real",
    "coverage": "coverage ↑",
    "vendi_ratio": "Vendi ratio → 1",
    "copying_statistic": "copying statistic → 0",
    "dcr_ratio": "DCR ratio → 1",
    "authenticity": "authenticity → real",
}


def metric_title(metric: str) -> str:
    """A metric's name with the direction that is good: down, up, or towards a value."""
    return _METRIC_TITLES.get(metric, readable(metric))


def short(label: str) -> str:
    """A class name for captions under small pictures."""
    name = readable(label).replace("immature granulocyte", "immature gran.")
    if " " in name:
        name = name.replace("erythroblast", "eryth.").replace("neutrophil segmented", "segmented")
    return name.replace("neutrophil band", "band")
