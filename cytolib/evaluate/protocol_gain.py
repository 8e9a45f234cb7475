"""What a gain by synthetic cells is made of: scores of :mod:`cytolib.evaluate.protocol`, their paired differences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cytolib.evaluate.intervals import METRICS, t_interval
from cytolib.evaluate.protocol import CONTAMINATED, HONEST, PROTOCOLS, cross_validate, from_sampler

#: Scored sets and the sources of their cells; ``mixed`` is the whole test fold of a pooled protocol.
SCORED: dict[str, tuple[str, ...]] = {
    "mixed": ("real", "synthetic"),
    "real": ("real",),
    "synthetic": ("synthetic",),
    "untouched": ("untouched",),
}
#: What :func:`decompose` makes of a published gain; the first three sum to the last.
PARTS: dict[str, str] = {
    "test set": "synthetic cells in the test fold: mixed less real cells scored, same classifiers",
    "leak": "the generator saw the test cells, and the penalty was chosen on a mixed fold: real scored less honest",
    "true gain": "honest less no synthetic cells",
    "published gain": "mixed test fold less no synthetic cells",
}


def both_protocols(
    X: np.ndarray,
    y: np.ndarray,
    samplers: Mapping[str, Any],
    *,
    n_synthetic_per_class: Sequence[int],
    folds: int = 5,
    seed: int = 0,
) -> dict[str, pd.DataFrame]:
    """Predictions of :func:`cross_validate` under the contaminated and the honest protocol, for every generator.

    Args:
        X: (N, D) real embeddings. y: (N,) classes. samplers: over-samplers by name.
        n_synthetic_per_class: numbers of synthetic cells; the honest predictions hold 0, the baseline, as well.
    """
    shared: dict[str, Any] = {"folds": folds, "seed": seed}
    baseline = cross_validate(
        X, y, from_sampler(None), n_synthetic_per_class=0, pooled=False, generator_sees="train fold", **shared
    )
    found = {}
    for name, sampler in samplers.items():
        both = [
            cross_validate(
                X, y, from_sampler(sampler), n_synthetic_per_class=n_synthetic_per_class, pooled=pooled,
                generator_sees="all" if pooled else "train fold", **shared,
            )
            for pooled in (True, False)
        ]  # fmt: skip
        found[name] = pd.concat([baseline, *both], ignore_index=True)
    return found


def score_table(predictions: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What :func:`cytolib.figures.protocol_curves` draws, from :func:`both_protocols`: means over folds.

    Returns:
        Columns generator, classifier, n_per_class, protocol, scored, metric, value, low, high (Student's interval over
        folds, which share training cells: it is too narrow). Generator "none" is the baseline.
    """
    tables = []
    for name, found in predictions.items():
        scores = score_predictions(found, by_fold=True)
        tables.append(scores.assign(generator=np.where(scores["n_per_class"] == 0, "none", name)))
    keys = ["generator", "n_per_class", "protocol", "scored", "metric"]
    every = pd.concat(tables, ignore_index=True).drop_duplicates([*keys, "fold"])
    rows = [(*key, *t_interval(part["value"].to_numpy())) for key, part in every.groupby(keys, sort=False)]
    return pd.DataFrame(rows, columns=[*keys, "value", "low", "high"]).assign(classifier="plain")


def score_predictions(predictions: pd.DataFrame, *, by_fold: bool = False) -> pd.DataFrame:
    """Accuracy, balanced accuracy and macro F1 of each scored set, of all folds' cells together or fold by fold.

    Args:
        predictions: of :func:`cross_validate`.

    Returns:
        Columns protocol, n_per_class, (fold,) scored (of :data:`SCORED`), metric, value, n (predictions).
    """
    pooled = {name for (is_pooled, _), name in PROTOCOLS.items() if is_pooled}
    keys = ["protocol", "n_per_class", *(["fold"] if by_fold else [])]
    rows = []
    for key, part in predictions.groupby(keys, sort=False):
        named = dict(zip(keys, key, strict=True))
        for scored, sources in SCORED.items():
            cells = part[part["source"].isin(sources)]
            if len(cells) and (scored != "mixed" or named["protocol"] in pooled):
                values = _metrics(_confusion(cells))
                rows += [
                    {**named, "scored": scored, "metric": metric, "value": float(values[metric]), "n": len(cells)}
                    for metric in METRICS
                ]
    return pd.DataFrame(rows)


def _confusion(cells: pd.DataFrame) -> NDArray[np.float64]:
    """(K, K) weight of cells of a class (row) that are called each class (column)."""
    classes, codes = np.unique(cells[["label", "prediction"]].to_numpy(dtype=str), return_inverse=True)
    true, called = codes.reshape(-1, 2).T
    flat = np.bincount(true * len(classes) + called, weights=cells["weight"].to_numpy(), minlength=len(classes) ** 2)
    return flat.reshape(len(classes), len(classes)).astype(np.float64)


def _metrics(confusion: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """``METRICS`` (...) of confusion matrices (..., K, K); means are over the classes that have true cells."""
    hits = np.einsum("...cc->...c", confusion)
    true, called = confusion.sum(axis=-1), confusion.sum(axis=-2)
    known = true.reshape(-1, true.shape[-1]).any(axis=0)
    return {
        "accuracy": hits.sum(axis=-1) / true.sum(axis=-1),
        "balanced_accuracy": (hits[..., known] / true[..., known]).mean(axis=-1),
        "macro_f1": (2 * hits[..., known] / (true + called)[..., known]).mean(axis=-1),
    }


def parts(mixed: Any, real: Any, honest: Any, baseline: Any) -> dict[str, Any]:
    """:data:`PARTS` from scores of one metric: contaminated (mixed fold, real cells), honest, no synthetic cells."""
    return dict(zip(PARTS, (mixed - real, real - honest, honest - baseline, mixed - baseline), strict=True))


def decompose(
    predictions: pd.DataFrame,
    *,
    n_per_class: int,
    metric: str = "accuracy",
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """The published gain at ``n_per_class`` and its three parts, which sum to it exactly.

    Args:
        predictions: of :func:`cross_validate`, contaminated and honest together, honest also with 0 synthetic cells;
            same cells, folds and seed.
        draws: bootstrap samples of real and of synthetic test cells, each within their class; all scores of a draw
            are of the same cells. Classifiers and generator stay as they are: repeat with other seeds to speak of new
            ones.

    Returns:
        Columns part (of :data:`PARTS`), value, low, high (percentile interval).

    Raises:
        ValueError: if predictions are missing or the three real columns are not of the same cells and folds.
    """
    if metric not in METRICS:
        raise ValueError(f"metric is {metric!r}, expected one of {', '.join(METRICS)}")
    arms = [(CONTAMINATED, n_per_class), (HONEST, n_per_class), (HONEST, 0)]
    real = [_cells(predictions, *arm, "real") for arm in arms]
    if any(not frame.index.equals(real[0].index) for frame in real):
        raise ValueError("the protocols' real cells are not in the same folds; run all with the same cells and seed")
    synthetic = _cells(predictions, CONTAMINATED, n_per_class, "synthetic")
    classes, rng = np.unique(real[0]["label"].to_numpy(dtype=str)), np.random.default_rng(seed)
    drawn = np.stack(list(_drawn_confusions(real, classes, draws, rng)), axis=2)
    added = np.stack(list(_drawn_confusions([synthetic], classes, draws, rng)), axis=2)
    mixed = _metrics(drawn[:, 0] + added[:, 0])[metric]
    values = parts(mixed, *np.moveaxis(_metrics(drawn)[metric], -1, 0))
    ends = (0.5 - level / 2, 0.5 + level / 2)
    rows = [(name, value[0], *np.quantile(value[1:], ends)) for name, value in values.items()]
    return pd.DataFrame(rows, columns=["part", "value", "low", "high"])


def _cells(predictions: pd.DataFrame, protocol: str, n_per_class: int, source: str) -> pd.DataFrame:
    found = predictions[
        (predictions["protocol"] == protocol)
        & (predictions["n_per_class"] == n_per_class)
        & (predictions["source"] == source)
    ]
    if found.empty:
        raise ValueError(
            f"predictions hold no {source} cell of protocol {protocol!r} with {n_per_class} synthetic cells a class; "
            "run cross_validate for it"
        )
    return found.set_index(["fold", "cell"]).sort_index()


def _drawn_confusions(
    arms: list[pd.DataFrame], classes: np.ndarray, draws: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """For each class in turn (1 + draws, arms, K): what its cells are called, as they are and in bootstrap samples.

    Cells that all arms call alike are interchangeable, so a sample draws the counts of each such pattern and not cells.
    """
    labels = arms[0]["label"].to_numpy(dtype=str)
    called = np.stack([np.searchsorted(classes, arm["prediction"].to_numpy(dtype=str)) for arm in arms])
    for name in classes:
        patterns, counts = np.unique(called[:, labels == name], axis=1, return_counts=True)
        samples = rng.multinomial(counts.sum(), counts / counts.sum(), size=draws)
        yield np.einsum("dp,apk->dak", np.vstack([counts, samples]), patterns[..., None] == np.arange(len(classes)))
