"""Cells along a line of maturation: a score from an embedding, with the stages or without, and how well it orders.

A stage is a place along ``taxonomy.MATURITY``, 0 the youngest; a score is any number that should grow with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import eigsh
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neighbors import kneighbors_graph
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

from cytolib.data.taxonomy import stage_of
from cytolib.evaluate.ordering import ordering_metrics
from cytolib.evaluate.results import result_rows

DEFAULT_ALPHAS: tuple[float, ...] = (1e1, 1e2, 1e3, 1e4, 1e5)


def grouped_folds(
    labels: ArrayLike, units: ArrayLike | None = None, *, n_folds: int = 3, seed: int = 0
) -> NDArray[np.int64]:
    """The fold (N,) of each cell, 0 to ``n_folds - 1``: classes spread evenly, no unit in two folds.

    Args:
        labels: (N,) classes or stages.
        units: (N,) names of what may not be torn apart (``duplicates.belong_together``); None: every cell alone.

    Raises:
        ValueError: if a class has fewer units than there are folds, so that some fold could not be scored on it.
    """
    labels = np.asarray(labels)
    units = np.arange(len(labels)) if units is None else np.asarray(units)
    counts = pd.DataFrame({"label": labels, "unit": units}).groupby("label")["unit"].nunique()
    if n_folds < 2 or counts.empty or counts.min() < n_folds:
        rarest = f"class {counts.idxmin()} has {counts.min()}" if len(counts) else "there are 0"
        raise ValueError(
            f"n_folds is {n_folds} and {rarest} independent cells; expected 2 folds or more, no fewer cells"
        )
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    fold = np.empty(len(labels), dtype=np.int64)
    for number, (_, test) in enumerate(splitter.split(labels[:, None], labels, units)):
        fold[test] = number
    return fold


def maturity_axis(
    X_train: np.ndarray,
    stages_train: ArrayLike,
    units: ArrayLike | None = None,
    *,
    alphas: Sequence[float] = DEFAULT_ALPHAS,
    n_folds: int = 3,
    seed: int = 0,
) -> Pipeline:
    """Ridge regression of the stage on standardised embeddings, every stage of equal weight.

    The penalty is chosen by cross-validation inside these cells, by the mean absolute error averaged over stages;
    equal errors go to the stronger penalty.

    Args:
        X_train: (N, D) embeddings of cells of one line. stages_train: (N,) their stages.
        units: (N,) as in :func:`grouped_folds`. alphas: penalties to choose from.

    Returns:
        A fitted ``Pipeline(scaler, regressor)`` whose ``predict`` gives scores in stages, with the attributes
        ``alpha_`` and ``validation_errors_`` (dict, penalty to error in stages).

    Raises:
        ValueError: for shapes that do not fit, fewer than two stages, or a stage with too few cells.
    """
    X, stages = _check(X_train, stages_train)
    if not len(alphas) or min(alphas) <= 0:
        raise ValueError(f"alphas is {list(alphas)}; expected one or more positive numbers")
    fold = grouped_folds(stages, units, n_folds=n_folds, seed=seed)
    errors = dict.fromkeys(sorted(alphas, reverse=True), 0.0)
    for number in range(n_folds):
        inside, outside = fold != number, fold == number
        for alpha in errors:
            predicted = _ridge(X[inside], stages[inside], alpha).predict(X[outside])
            errors[alpha] += _balanced_error(predicted, stages[outside]) / n_folds
    best = min(errors, key=lambda alpha: errors[alpha])
    axis = _ridge(X, stages, best)
    axis.alpha_, axis.validation_errors_ = best, errors
    return axis


def _ridge(X: NDArray[np.float64], stages: NDArray[np.int64], alpha: float) -> Pipeline:
    axis = Pipeline([("scaler", StandardScaler()), ("regressor", Ridge(alpha=alpha))])
    return axis.fit(X, stages, regressor__sample_weight=compute_sample_weight("balanced", stages))


def _balanced_error(score: NDArray[np.float64], stages: NDArray[np.int64]) -> float:
    return float(pd.Series(np.abs(score - stages)).groupby(stages).mean().mean())


def maturity_scores(axis: Pipeline, X: np.ndarray, cells: pd.DataFrame, line: str) -> pd.DataFrame:
    """Scores of the cells of ``line`` by an axis that was fitted on others: ready for a strip of score over stage.

    Args:
        axis: from :func:`maturity_axis`. X: (N, D) embeddings, a row a row of ``cells``.
        cells: with columns ``cell_id`` and ``cell_type``. line: of ``taxonomy.MATURITY``.

    Returns:
        ``cell_id``, ``cell_type``, ``line``, ``stage``, ``score``; a row a cell of the line; the index is its
        place among ``cells``.
    """
    chosen, frame = _of_line(X, cells, line)
    return frame.assign(score=axis.predict(chosen))


def cross_validated_scores(
    X: np.ndarray,
    cells: pd.DataFrame,
    line: str,
    units: ArrayLike | None = None,
    *,
    folds: ArrayLike | None = None,
    n_folds: int = 3,
    seed: int = 0,
    shuffle: bool = False,
) -> pd.DataFrame:
    """Every cell of ``line`` scored by an axis that was fitted, penalty and all, on the other folds.

    Args:
        X, cells, line: as in :func:`maturity_scores`. units: (N,) what may not be torn apart.
        folds: (N,) fold of each row of ``cells``; None draws them with ``seed``.
        shuffle: the control: stages dealt out anew among the cells, so that nothing is left to learn. The column
            ``stage`` is then the dealt one.

    Returns:
        The columns of :func:`maturity_scores` and ``fold``.

    Raises:
        ValueError: also if ``folds`` puts cells of one unit into two folds.
    """
    chosen, frame = _of_line(X, cells, line)
    rows = frame.index.to_numpy()
    unit = np.asarray(units)[rows] if units is not None else np.arange(len(rows))
    if shuffle:
        frame["stage"] = np.random.default_rng(seed).permutation(frame["stage"].to_numpy())
    stages = frame["stage"].to_numpy()
    if folds is None:
        fold = grouped_folds(stages, unit, n_folds=n_folds, seed=seed)
    else:
        fold = np.asarray(folds)[rows]
        _refuse_torn_units(fold, unit)
    score = np.empty(len(rows))
    for number in np.unique(fold):
        inside = fold != number
        axis = maturity_axis(chosen[inside], stages[inside], unit[inside], n_folds=n_folds, seed=seed)
        score[~inside] = axis.predict(chosen[~inside])
    return frame.assign(score=score, fold=fold)


def _refuse_torn_units(fold: NDArray[np.int64], unit: np.ndarray) -> None:
    places = pd.Series(fold).groupby(unit).nunique()
    if (places > 1).any():
        raise ValueError(
            f"folds: unit {places.idxmax()} has cells in {places.max()} folds, so a model would be tested on what it "
            "was trained on; keep each unit in one fold (grouped_folds does)"
        )


def pseudotime(X: np.ndarray, youngest: ArrayLike, *, n_neighbors: int = 15, n_components: int = 50) -> NDArray:
    """Order without stages: the first diffusion component (Coifman and Lafon, Appl. Comput. Harmon. Anal. 2006).

    A random walk on the graph of nearest neighbours, with a kernel as wide as the cells are apart where it stands
    (Zelnik-Manor and Perona, NeurIPS 2004) and the density of cells divided out; its slowest mode is the order. It is
    transductive: all cells are looked at together. Only which end is young is told to it.

    Args:
        X: (N, D) embeddings of cells of one line. youngest: (N,) true for cells of the youngest stage.
        n_neighbors: of each cell in the graph. n_components: principal components that distances are taken in.

    Returns:
        (N,) scores, small where young; of no unit.

    Raises:
        ValueError: for no young cell or no other, or a graph that falls into pieces.
    """
    X = np.asarray(X, dtype=np.float64)
    young = np.asarray(youngest, dtype=bool)
    if X.ndim != 2 or young.shape != (len(X),) or not 0 < young.sum() < len(X):
        raise ValueError(f"X is {X.shape} with {young.sum()} youngest of {young.size} cells; expected some, not all")
    if not 2 <= n_neighbors < len(X) - 1:
        raise ValueError(f"n_neighbors is {n_neighbors}; expected at least 2 and fewer than the {len(X)} cells")
    Z = StandardScaler().fit_transform(X)
    Z = PCA(min(n_components, *Z.shape), svd_solver="full").fit_transform(Z)
    graph = _kernel_graph(kneighbors_graph(Z, n_neighbors, mode="distance").tocoo())
    pieces = connected_components(graph, directed=False)[0]
    if pieces > 1:
        raise ValueError(
            f"n_neighbors is {n_neighbors} and the graph of cells falls into {pieces} pieces with no order between "
            "them; raise n_neighbors"
        )
    graph = _scaled(graph, 1.0)  # divides the density of cells out
    degree = _row_sums(graph)
    start = np.random.default_rng(0).standard_normal(len(X))
    # The symmetric form of the walk; dividing by the root of the degree gives the walk's own eigenvector.
    values, vectors = eigsh(_scaled(graph, 0.5), k=2, which="LA", v0=start)
    component = vectors[:, np.argsort(values)[0]] / np.sqrt(degree)
    return component if component[young].mean() <= component[~young].mean() else -component


def _kernel_graph(distances: sparse.coo_array) -> sparse.csr_array:
    """Symmetric weights of neighbours from their distances, each cell with a width of its own."""
    width = np.maximum(distances.max(axis=1).toarray().ravel(), 1e-12)
    weight = np.exp(-(distances.data**2) / (width[distances.row] * width[distances.col]))
    graph = sparse.coo_array((weight, (distances.row, distances.col)), shape=distances.shape).tocsr()
    return graph.maximum(graph.T)


def _row_sums(graph: sparse.csr_array) -> NDArray[np.float64]:
    return np.asarray(graph.sum(axis=1)).ravel()


def _scaled(graph: sparse.csr_array, power: float) -> sparse.csr_array:
    """The graph with rows and columns divided by their sums to a power."""
    scale = sparse.diags_array(_row_sums(graph) ** -power)
    return (scale @ graph @ scale).tocsr()


def maturity_rows(
    scores: np.ndarray, stages: ArrayLike, *, line: str, method: str, in_stages: bool = True, **columns: Any
) -> pd.DataFrame:
    """Rows of the result table, experiment ``maturity_<line>``; ``columns`` go to ``results.result_rows``."""
    metrics = ordering_metrics(scores, stages, in_stages=in_stages)
    shared: dict[str, Any] = {"experiment": f"maturity_{line}", "n": len(np.asarray(stages))} | columns
    return result_rows(metrics, method=method, **shared)


def _of_line(X: np.ndarray, cells: pd.DataFrame, line: str) -> tuple[NDArray[np.float64], pd.DataFrame]:
    """Embeddings of the cells of a line, and their frame, whose index is their place among ``cells``."""
    if np.ndim(X) != 2 or len(X) != len(cells):
        raise ValueError(f"X has shape {np.shape(X)} and there are {len(cells)} cells; expected a row a cell")
    stage = pd.Series(stage_of(cells["cell_type"], line), dtype="Int64")
    rows = np.flatnonzero(stage.notna())
    if stage.nunique() < 2:
        raise ValueError(
            f"cells: {stage.nunique()} stages of the {line} line among them; expected two or more to order"
        )
    frame = cells.iloc[rows][["cell_id", "cell_type"]].set_axis(rows)
    frame = frame.assign(line=line, stage=stage.iloc[rows].astype(np.int64))
    return np.asarray(X, dtype=np.float64)[rows], frame


def _check(X: np.ndarray, stages: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    X, stages = np.asarray(X, dtype=np.float64), np.asarray(stages)
    if X.ndim != 2 or stages.shape != (len(X),) or len(np.unique(stages)) < 2:
        raise ValueError(
            f"X is {X.shape} with {len(np.unique(stages))} stages in {stages.size}; expected a row and a stage a cell, "
            "and two stages or more"
        )
    if not np.isfinite(X).all():
        row = int(np.argmax(~np.isfinite(X).all(axis=1)))
        raise ValueError(f"X, row {row} holds NaN or infinity; expected finite numbers, drop that cell")
    return X, stages.astype(np.int64)
