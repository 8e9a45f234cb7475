"""matplotlib's backend of notebooks without Jupyter: figures are drawn by Agg, and shown in the cell that runs."""

from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg as FigureCanvas

from cytolib.run import plain_outputs

__all__ = ["FigureCanvas", "show"]


def show(*_: Any, **__: Any) -> None:
    """``plt.show()``: every open figure goes to the cell's outputs and is closed."""
    if plain_outputs.current is not None:
        plain_outputs.current.figures()
