"""What the benchmarks of encoders share: names of encoders, cross-validated probes, tables of scores."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from cytolib import run
from cytolib.classify.probes import knn_probe, tune_logistic_regression
from cytolib.data.taxonomy import MATURITY, stage_of
from cytolib.evaluate.intervals import METRICS, bootstrap_interval, named_ends
from cytolib.evaluate.maturity import grouped_folds
from cytolib.evaluate.results import write_results
from cytolib.exposure import NONE, encoder_exposure

MOBILENET = "timm:mobilenetv2_100"
IMAGING = "imaging_alone"  # no encoder: what can be told without looking at the cell
METHODS = ("logistic_regression", "knn")
CS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
NEIGHBORS = (1, 3, 5, 10, 20)


def mobilenet(weights: str = "") -> str:
    """Name of the ImageNet MobileNetV2, with the weights file given or the one beside the project.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    file = Path(weights) if weights else run.root().parent / "shared/weights/mobilenetv2_100_imagenet/model.safetensors"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such weights; give --mobilenet FILE (mobilenetv2_100 with pad_type=same)")
    return f"{MOBILENET}?pad_type=same&mean=0.5&std=0.5&weights={file.resolve()}"


def exposure(encoder: str, dataset: str) -> str:
    """The column ``encoder_exposure``; the MobileNetV2 of these benchmarks has seen ImageNet's photographs only."""
    if encoder.partition("?")[0] in (MOBILENET, IMAGING):
        return NONE
    return encoder_exposure(encoder, dataset)


def short(encoder: str) -> str:
    """An encoder's name without its options, for a printed table."""
    return re.sub(r"\?\S*", "", encoder).removeprefix("timm:")


def cross_validated_predictions(
    X: np.ndarray, y: np.ndarray, units: np.ndarray, method: str, *, n_folds: int = 3, seed: int = 0
) -> NDArray[np.str_]:
    """(N,) classes, each cell's from a probe that was fitted, and its penalty or neighbours chosen, on other folds.

    Args:
        X: (N, D) embeddings. y: (N,) classes. units: (N,) what may not be torn apart, by outer nor inner folds.
        method: of ``METHODS``. seed: of the folds.
    """
    fold = grouped_folds(y, units, n_folds=n_folds, seed=seed)
    called = np.empty(len(y), dtype=y.dtype)
    for number in range(n_folds):
        inside = fold != number
        called[~inside] = _fit(X[inside], y[inside], units[inside], method, n_folds, seed).predict(X[~inside])
    return called


def _fit(X: np.ndarray, y: np.ndarray, units: np.ndarray, method: str, n_folds: int, seed: int) -> Pipeline:
    """A probe on all cells given, tuned by cross-validation among them."""
    inner = grouped_folds(y, units, n_folds=n_folds, seed=seed)
    parts = [(X[inner != k], y[inner != k], X[inner == k], y[inner == k]) for k in range(n_folds)]
    scores = [_probe(method, *part).validation_scores_ for part in parts]
    best = max(scores[0], key=lambda value: np.mean([found.get(value, -1.0) for found in scores]))
    return _probe(method, X, y, X, y, only=best)  # a single candidate: nothing is chosen on the training cells


def _probe(method: str, *cells: np.ndarray, only: float | None = None) -> Pipeline:
    if method == "knn":
        return knn_probe(*cells, neighbors=NEIGHBORS if only is None else (int(only),))
    return tune_logistic_regression(*cells, Cs=CS if only is None else (only,), class_weight="balanced")


def probe_metrics(y: np.ndarray, predictions: np.ndarray, *, stages: bool = False) -> dict[str, float]:
    """``METRICS`` of (N,) or (S, N) predictions, each with ``[low]`` and ``[high]``: bootstrap over cells and rows.

    With ``stages``, also ``within_one_stage``: the share called right or a neighbour on the same line, every class of
    equal weight.
    """
    predictions = np.atleast_2d(predictions)
    found = {metric: bootstrap_interval(y, predictions, metric) for metric in METRICS}
    if stages:
        near = np.where(within_one_stage(y, predictions), y, "other")
        found["within_one_stage"] = bootstrap_interval(y, near, "balanced_accuracy")
    return {name: value for metric, interval in found.items() for name, value in named_ends(metric, interval).items()}


def within_one_stage(y: np.ndarray, predictions: np.ndarray) -> NDArray[np.bool_]:
    """Whether a prediction is the true cell type, or the next younger or older of its line."""
    near = y == predictions
    for line in MATURITY:
        true, called = (_stages(names, line) for names in (y, predictions))
        near |= np.abs(true - called) <= 1  # NaN, for cells of other lines, is near nothing
    return near


def _stages(names: np.ndarray, line: str) -> NDArray[np.float64]:
    places = [np.nan if stage is None else stage for stage in stage_of(np.ravel(names).tolist(), line)]
    return np.array(places, dtype=np.float64).reshape(np.shape(names))


def write(rows: pd.DataFrame, path: Path) -> None:
    """A result table as parquet, or as CSV by the file's ending."""
    if path.suffix == ".parquet":
        write_results(rows, path)
        return
    with run.atomic_path(path) as temporary:
        rows.to_csv(temporary, index=False, lineterminator="\n")


def compact(frame: pd.DataFrame, metrics: Sequence[str], index: Sequence[str]) -> str:
    """A table to print: a row a combination of ``index``, each cell ``.52 [.48, .56]``."""
    wide = frame.pivot_table(index=list(index), columns="metric", values="value", sort=False)
    rows = []
    for key, row in zip(wide.index, wide.to_dict("records"), strict=True):
        names = key if isinstance(key, tuple) else (key,)
        rows.append([short(str(name)) for name in names] + [_written(row, metric) for metric in metrics])
    return pd.DataFrame(rows, columns=[*index, *(metric.replace("_", " ") for metric in metrics)]).to_string(
        index=False
    )


def _written(row: Mapping[Any, float], metric: str) -> str:
    value, low, high = (row.get(metric + end, np.nan) for end in ("", "[low]", "[high]"))
    if np.isnan(value):
        return "-"
    return f"{value:.2f}" if np.isnan(low) else f"{value:.2f} [{low:.2f}, {high:.2f}]"
