"""How much of a gain is the test set: cross-validation with synthetic cells, as CytoDiff draws its folds and honestly.

CytoDiff (arXiv 2507.05063) fits its generator on all real cells, pools real and synthetic cells, and draws its folds
afterwards, so that synthetic cells are in the test fold and real test cells were seen by the generator. A switch turns
either off; the classifiers' real cells fall in the same folds under every protocol, so that all differences are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from cytolib.augment import synthetic_only
from cytolib.classify.probes import DEFAULT_CS, Predict, adjust_logits, balanced_accuracy, tune_logistic_regression

#: (real cells, their classes, cells wanted of each class, seed) to (synthetic cells, their classes).
Generate = Callable[[np.ndarray, np.ndarray, int, int], tuple[np.ndarray, np.ndarray]]
#: (training cells, classes, validation cells, classes, scaler of the real training cells) to a predictor.
Fit = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, StandardScaler], Predict]

CONTAMINATED, HONEST = "contaminated", "honest"
#: Name of the protocol by (``pooled``, ``generator_sees``).
PROTOCOLS: dict[tuple[bool, str], str] = {
    (True, "all"): CONTAMINATED,  # as CytoDiff
    (False, "all"): "leaking generator",
    (True, "train fold"): "pooled test fold",
    (False, "train fold"): HONEST,
}


def fit_plain(
    X_train: np.ndarray,
    y_train: np.ndarray,
    X_val: np.ndarray,
    y_val: np.ndarray,
    scaler: StandardScaler,
    class_weight: str | None = None,
) -> Predict:
    """Logistic regression; the penalty has the best balanced accuracy on the validation cells."""
    probe = tune_logistic_regression(X_train, y_train, X_val, y_val, scaler=scaler, class_weight=class_weight)
    return probe.predict


def fit_logit_adjusted(
    X_train: np.ndarray, y_train: np.ndarray, X_val: np.ndarray, y_val: np.ndarray, scaler: StandardScaler
) -> Predict:
    """As :func:`fit_plain` with adjusted logits; the penalty is chosen with the adjustment in place."""
    probes = (tune_logistic_regression(X_train, y_train, X_val, y_val, Cs=(C,), scaler=scaler) for C in DEFAULT_CS)
    adjusted = [adjust_logits(probe, y_train) for probe in probes]
    return max(adjusted, key=lambda predict: balanced_accuracy(y_val, predict(X_val)))


#: Classifiers of the real cells alone that synthetic cells must beat, ``plain`` being the one that they are added to.
CLASSIFIERS: dict[str, Fit] = {
    "plain": fit_plain,
    "class weights": partial(fit_plain, class_weight="balanced"),
    "logit adjustment": fit_logit_adjusted,
}


def from_sampler(sampler: Any) -> Generate:
    """``generate`` of :func:`cross_validate` from an over-sampler: the cells that its ``fit_resample`` adds."""

    def generate(X: np.ndarray, y: np.ndarray, n_per_class: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        seeded = clone(sampler).set_params(random_state=seed)
        return synthetic_only(seeded, X, y, dict.fromkeys(np.unique(y).tolist(), n_per_class))

    return generate


def real_folds(y: np.ndarray, *, folds: int = 5, seed: int = 0) -> NDArray[np.int64]:
    """The fold (N,) of each real cell, 0 to ``folds - 1``, stratified by class; the same under every protocol.

    Raises:
        ValueError: if there are fewer than three folds (training, validation, test), or a class has too few cells.
    """
    classes, counts = np.unique(y, return_counts=True)
    if folds < 3:
        raise ValueError(f"folds is {folds}, expected 3 or more: one to test, one to validate, the others to train")
    if len(classes) < 2 or counts.min() < folds:
        rarest = (
            f"class {classes[counts.argmin()].item()!r} has {counts.min()} cells"
            if len(classes)
            else "there is no cell"
        )
        raise ValueError(f"{rarest} of {len(classes)} classes, expected two classes or more of {folds} cells (folds)")
    fold = np.empty(len(y), dtype=np.int64)
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for number, (_, test) in enumerate(splitter.split(np.zeros((len(y), 1)), y)):
        fold[test] = number
    return fold


def cross_validate(
    X: np.ndarray,
    y: np.ndarray,
    generate: Generate,
    *,
    n_synthetic_per_class: int | Sequence[int],
    pooled: bool,
    generator_sees: str,
    folds: int = 5,
    seed: int = 0,
    fit: Fit = fit_plain,
    untouched: tuple[np.ndarray, np.ndarray] | None = None,
) -> pd.DataFrame:
    """Predictions for every test cell of rotating folds: one to test, the next to validate, the others to train.

    Pooled folds are drawn for real and synthetic cells apart, each stratified by class. That is a stratified draw from
    the pooled cells, but for the share of real cells of a class in a fold, which is held at its mean. Without pooling
    as many synthetic cells are trained on as with it, those that would lie in the training folds.

    Args:
        X: (N, D) real embeddings. y: (N,) classes.
        generate: called once for all cells or once a fold, for the largest number; smaller numbers take its first
            cells, in a random order. Not called where no synthetic cell is wanted.
        n_synthetic_per_class: synthetic cells of each class in all folds together, one number or several.
        pooled: whether synthetic cells lie in validation and test folds too.
        generator_sees: "all" real cells or those of the "train fold".
        fit: how a classifier is fitted; embeddings are standardised by the real cells of the training fold.
        untouched: further real cells (M, D) and classes (M,), called by the classifier of each fold.

    Returns:
        A row a prediction: protocol, n_per_class, fold, source ("real", "synthetic", "untouched"), cell (its row in
        ``X``, in the untouched cells, or its number among the synthetic ones), label, prediction, weight (1; those of
        untouched cells give their classes the proportions of ``y``).

    Raises:
        ValueError: if an argument or what ``generate`` returns is not as said here.
    """
    X, y = _check_cells(X, y, "X")
    if (pooled, generator_sees) not in PROTOCOLS:
        raise ValueError(
            f"pooled is {pooled!r} and generator_sees {generator_sees!r}, expected True or False, 'all' or 'train fold'"
        )
    counts: list[int] = np.atleast_1d(n_synthetic_per_class).tolist()
    if not counts or any(n != 0 and n < folds for n in counts):
        raise ValueError(f"n_synthetic_per_class is {counts}, expected 0, or {folds} or more: one or more a fold")
    fold = real_folds(y, folds=folds, seed=seed)
    weights = None if untouched is None else _weights(y, *_check_cells(*untouched, "untouched"))
    ranks = np.arange(max(counts))  # of a class's synthetic cells; rank r lies in fold r % folds
    everyone = generator_sees == "all"
    if everyone:
        new_X, new_y, rank = _draw(generate, X, y, ranks, seed, 0)
    parts = []
    for number in range(folds):
        others = (number, (number + 1) % folds)
        test, val = (fold == k for k in others)
        train = ~(test | val)
        if not everyone:
            wanted = ranks if pooled else ranks[~np.isin(ranks % folds, others)]
            new_X, new_y, rank = _draw(generate, X[train], y[train], wanted, seed, number + 1)
        scaler = StandardScaler().fit(X[train])
        for n in counts:
            new_test, new_val = ((rank < n) & (rank % folds == k) & pooled for k in others)
            new_train = (rank < n) & ~np.isin(rank % folds, others)
            predict = fit(
                np.concatenate([X[train], new_X[new_train]]), np.concatenate([y[train], new_y[new_train]]),
                np.concatenate([X[val], new_X[new_val]]), np.concatenate([y[val], new_y[new_val]]), scaler,
            )  # fmt: skip
            scored: list[tuple[str, np.ndarray, np.ndarray, np.ndarray, Any]] = [
                ("real", np.flatnonzero(test), X, y, 1.0),
                ("synthetic", np.flatnonzero(new_test), new_X, new_y, 1.0),
            ]
            if untouched is not None:
                cells, labels = map(np.asarray, untouched)
                scored.append(("untouched", np.arange(len(cells)), cells, labels, weights))
            parts += [
                pd.DataFrame({"n_per_class": n, "fold": number, "source": source, "cell": rows, "label": labels[rows],
                              "prediction": predict(cells[rows]), "weight": weight})
                for source, rows, cells, labels, weight in scored if len(rows)
            ]  # fmt: skip
    frame = pd.concat(parts, ignore_index=True)
    frame.insert(0, "protocol", PROTOCOLS[pooled, generator_sees])
    return frame


def _draw(
    generate: Generate, X: np.ndarray, y: np.ndarray, ranks: NDArray[np.int64], seed: int, call: int
) -> tuple[np.ndarray, np.ndarray, NDArray[np.int64]]:
    """Synthetic cells, their classes, and the ranks dealt out to those of each class in random order."""
    classes = np.unique(y)
    if not len(ranks):
        return X[:0], y[:0], ranks
    state = np.random.SeedSequence((seed, call))
    new_X, new_y = map(np.asarray, generate(X, y, len(ranks), int(state.generate_state(1)[0])))
    names, found = np.unique(new_y, return_counts=True)
    if new_X.shape != (len(new_y), X.shape[1]) or list(names) != list(classes) or np.any(found != len(ranks)):
        raise ValueError(
            f"generate gave cells {new_X.shape} of classes {dict(zip(names.tolist(), found.tolist(), strict=True))}, "
            f"expected {X.shape[1]} columns and {len(ranks)} cells of each of {classes.tolist()}"
        )
    rng, rank = np.random.default_rng(state), np.empty(len(new_y), dtype=np.int64)
    for name in classes:
        rank[new_y == name] = rng.permutation(ranks)
    return new_X, new_y, rank


def _check_cells(X: np.ndarray, y: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    X, y = np.asarray(X), np.asarray(y)
    if X.ndim != 2 or not len(X) or y.shape != X.shape[:1]:
        raise ValueError(f"{name} has shape {X.shape} with classes {y.shape}, expected a row and a class a cell")
    return X, y


def _weights(y: np.ndarray, X_untouched: np.ndarray, y_untouched: np.ndarray) -> NDArray[np.float64]:
    """Weights, of mean 1, that give the untouched cells the class proportions of ``y``."""
    classes, counts = np.unique(y, return_counts=True)
    names, place, found = np.unique(y_untouched, return_inverse=True, return_counts=True)
    if list(names) != list(classes):
        raise ValueError(f"untouched cells are of classes {names.tolist()}, expected those of y, {classes.tolist()}")
    return ((counts / len(y)) / (found / len(y_untouched)))[place]
