"""The chart of a contaminated test set: what is published, and what is true."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cytolib.evaluate.intervals import t_interval
from cytolib.figures.style import REAL, SYNTHETIC, WIDTH, readable, subplots

KEYS = ["dataset", "encoder", "generator", "classifier", "n_per_class", "protocol", "scored", "metric"]
#: (protocol, scored set): label, colour, line style.
_LINES: dict[tuple[str, str], tuple[str, str, str]] = {
    ("contaminated", "mixed"): ("contaminated: pooled test fold, as published", SYNTHETIC, "-"),
    ("contaminated", "real"): ("contaminated, its real test cells", SYNTHETIC, "--"),
    ("contaminated", "untouched"): ("contaminated, untouched real cells", SYNTHETIC, ":"),
    ("honest", "real"): ("honest: real cells that no fit has seen", REAL, "-"),
    ("honest", "untouched"): ("honest, untouched real cells", REAL, ":"),
}
_BASELINES = {"class weights": "#0072B2", "logit adjustment": "#009E73"}


def protocol_summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Means and 95 % Student intervals over the small sets (``seed``) of the benchmark's table, for the chart.

    Args:
        rows: columns :data:`KEYS`, ``seed``, ``value``.
    """
    found = [(*key, *t_interval(part["value"].to_numpy())) for key, part in rows.groupby(KEYS, sort=False)]
    return pd.DataFrame(found, columns=[*KEYS, "value", "low", "high"])


def protocol_curves(table: pd.DataFrame, *, metrics: Sequence[str] = ("accuracy", "macro_f1")) -> Figure:
    """Scores against the number of synthetic cells under both protocols: a column a generator, a row a metric.

    Args:
        table: columns ``generator``, ``classifier``, ``n_per_class``, ``protocol``, ``scored``, ``metric``, ``value``,
            ``low``, ``high``; the rows of generator "none" are the classifiers of real cells alone: "plain" is where
            all curves begin, the others are horizontal lines.
        metrics: rows of the figure.

    Raises:
        ValueError: if the table has no generator, or no plain classifier of real cells alone.
    """
    alone = table[table["generator"] == "none"]
    generators = [name for name in table["generator"].unique() if name != "none"]
    if not generators or not (alone["classifier"] == "plain").any():
        raise ValueError(
            f"table holds generators {sorted(table['generator'].unique())}, expected one or more, and 'none' with the "
            "classifier 'plain'; run benchmarks.cytodiff_protocol"
        )
    size = (WIDTH, 2.1 * len(metrics) + 1.1)
    fig, axes = subplots(len(metrics), len(generators), figsize=size, sharex=True, sharey="row", squeeze=False)
    for row, metric in enumerate(metrics):
        for column, generator in enumerate(generators):
            ax = axes[row, column]
            _curves(ax, table[(table["generator"] == generator) & (table["metric"] == metric)],
                    alone[alone["metric"] == metric])  # fmt: skip
            if row == 0:
                ax.set_title(readable(generator))
        axes[row, 0].set_ylim(top=1.01)  # once all are drawn; Student's interval knows no upper end, a score does
        axes[row, 0].set_ylabel(readable(metric))
    for ax in axes[-1]:
        ax.set_xlabel("synthetic cells a class", fontsize="small")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=2, fontsize="small")
    return fig


def _curves(ax: Axes, made: pd.DataFrame, alone: pd.DataFrame) -> None:
    """One panel: curves with 95 % bands, horizontal lines of baselines."""
    counts = np.array(sorted(made["n_per_class"].unique()))
    places = {0: 0, **{int(n): k + 1 for k, n in enumerate(counts)}}  # evenly spaced: the small numbers matter too
    for (protocol, scored), (label, colour, dashes) in _LINES.items():
        line = made[(made["protocol"] == protocol) & (made["scored"] == scored)]
        if line.empty:
            continue
        start = "untouched" if scored == "untouched" else "real"
        zero = alone[(alone["classifier"] == "plain") & (alone["scored"] == start)]
        line = pd.concat([zero, line]).sort_values("n_per_class")
        x = line["n_per_class"].map(places)
        ax.plot(x, line["value"], color=colour, ls=dashes, marker="o", ms=2.5, lw=1.6, label=label)
        if dashes == "-":
            ax.fill_between(x, line["low"], line["high"], color=colour, alpha=0.15, lw=0)
    for name, colour in _BASELINES.items():
        level = alone[(alone["classifier"] == name) & (alone["scored"] == "real")]["value"]
        for value in level:
            ax.axhline(value, color=colour, lw=1.2, ls="-.", label=f"real cells alone, {name}")
    slant = 45 if len(places) > 4 else 0
    ax.set_xticks(list(places.values()), [f"{n:,}" for n in places], rotation=slant, fontsize="small")
    ax.grid(axis="y", color="0.92")
