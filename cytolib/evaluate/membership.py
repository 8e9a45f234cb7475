"""Membership inference: does a model, or its synthetic cells, betray which cells it was trained on?

A stronger question than whether cells are copied: a model may copy no cell and still know its training cells better
than others. Members are training cells; non-members are real cells of the same distribution that no part of the model
(the standardiser, early stopping) ever saw. An AUC of 0.5 says that this attack finds nothing, not that none would.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm, rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cytolib.diffusion import EmbeddingDiffusionPipeline
from cytolib.diffusion.inspect import denoising_error
from cytolib.evaluate.blocks import check_pair
from cytolib.evaluate.memorisation import nearest_distance

#: Noise levels of the attack. Far below 0.1 a cell is seen clearly whoever it is, far above 10 not at all.
SIGMAS: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
FOLDS = 5  # of the attack that is trained
_INFLATION = 1 + FOLDS / (FOLDS - 1)  # of the variance under cross-fitting (Nadeau & Bengio 2003)
_LEAST = 2 * FOLDS  # pairs of a class: two a fold, without which there is no variance


class AreaUnderCurve(NamedTuple):
    """AUC with its 95 % interval, and the number of members (as many as non-members)."""

    auc: float
    low: float
    high: float
    n: int


def membership_inference(
    pipe: EmbeddingDiffusionPipeline,
    members: np.ndarray,
    y_members: np.ndarray,
    non_members: np.ndarray,
    y_non_members: np.ndarray,
    *,
    sigmas: Sequence[float] = SIGMAS,
    draws: int = 4,
    seed: int = 0,
) -> pd.DataFrame:
    """AUC with which the denoising error tells training cells from others.

    The loss attack of Yeom et al. 2018 (arXiv 1709.01604), asked at several noise levels.

    The error of a cell is that of the denoiser under the cell's own class, at each noise level a mean over ``draws`` of
    the noise, times the weight (1 + sigma^2) / sigma^2 of EDM: 1 is then the error of the best denoiser of a standard
    normal, at every level and for both training objectives.

    What is asked is the model whole. Its standardiser is fitted on training cells too: whitening by few cells for their
    dimensions gives them away at high noise levels, whatever the denoiser learnt.

    Classes differ in how hard they are, and members and non-members may differ in their mix. So in each class as many
    members are drawn as there are non-members (or the reverse, if those are more), and the AUC is taken within classes
    and averaged by their cells; classes with fewer than ten such pairs are left out. The interval is DeLong's,
    over cells of this model; another model of the same recipe may differ by more.

    Args:
        pipe: the trained model. members: (N, D) training cells. non_members: (M, D) others.
        y_members, y_non_members: classes, out of the model's vocabulary.
        sigmas: noise levels, in the model's standardised space. draws: of the noise, for each level.
        seed: of the draw of cells, the noise and the folds.

    Returns:
        ``score``, ``auc``, ``low``, ``high``, ``n`` (members). Scores: ``mean``, minus the mean error over levels;
        ``sigma=0.1`` and so on, minus the error of a level; ``attack``, a logistic regression on the logarithms of the
        errors of all levels, each fifth of the cells scored by one that was trained on the others. Its interval has
        2.25 times DeLong's variance, for the five share cells: where there is nothing to find, its AUC was seen to vary
        1.3 to 1.45 times as much (standard deviation) as DeLong's formula says.

    Raises:
        ValueError: for cells or labels that do not fit, or if no class has ten pairs.
    """
    members, non_members = check_pair(members, non_members)
    if not len(sigmas) or min(sigmas) <= 0 or draws < 1:
        raise ValueError(
            f"sigmas is {list(sigmas)} and draws {draws}, expected positive noise levels and 1 draw or more"
        )
    first, second, classes, folds = matched_pairs(y_members, y_non_members, len(members), len(non_members), seed=seed)
    X, y = np.concatenate([members[first], non_members[second]]), np.tile(classes, 2)
    levels = np.asarray(sigmas, dtype=np.float64)
    weight = (1 + levels**2) / levels**2
    error = np.zeros((len(X), len(levels)))
    for draw in range(draws):
        error += weight * denoising_error(pipe, X, y, sigmas=levels, seed=seed * draws + draw) / draws
    scores = {"mean": -error.mean(axis=1)} | {f"sigma={s:g}": -error[:, i] for i, s in enumerate(levels)}
    half = len(classes)
    rows = [(name, *stratified_auc(score[:half], score[half:], classes)) for name, score in scores.items()]
    # An AUC within folds: scores of two folds are of two regressions, and do not compare.
    indices = np.unique(classes, return_inverse=True)[1]
    strata = FOLDS * indices + folds
    attack = _attack(np.log(error), np.tile(indices, 2), np.tile(folds, 2))
    rows.append(("attack", *stratified_auc(attack[:half], attack[half:], strata, inflation=_INFLATION)))
    return pd.DataFrame(rows, columns=["score", "auc", "low", "high", "n"])


def membership_by_distance(
    synthetic: np.ndarray,
    members: np.ndarray,
    non_members: np.ndarray,
    *,
    y_members: np.ndarray | None = None,
    y_non_members: np.ndarray | None = None,
    seed: int = 0,
) -> AreaUnderCurve:
    """AUC with which nearness to a synthetic cell tells training cells from others; needs no model.

    The score is minus the Euclidean distance to the nearest synthetic cell (GAN-Leaks, arXiv 1909.03935), so dimensions
    should be standardised by the training cells. With classes, members and non-members are matched by them as in
    :func:`membership_inference`; without, all cells count as one class.

    Raises:
        ValueError: for sets that do not fit, classes of one side only, or fewer than ten pairs.
    """
    members, non_members = check_pair(members, non_members)
    synthetic, _ = check_pair(synthetic, members)
    if (y_members is None) != (y_non_members is None):
        raise ValueError("y_members and y_non_members go together; give both or neither")
    y_a, y_b = y_members, y_non_members
    if y_a is None or y_b is None:
        y_a, y_b = np.zeros(len(members), dtype=np.int64), np.zeros(len(non_members), dtype=np.int64)
    first, second, classes, _ = matched_pairs(y_a, y_b, len(members), len(non_members), seed=seed)
    nearness = [-nearest_distance(X, synthetic)[0] for X in (members[first], non_members[second])]
    return stratified_auc(nearness[0], nearness[1], classes)


def matched_pairs(
    y_members: np.ndarray, y_non_members: np.ndarray, n_members: int, n_non_members: int, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """As many members as non-members of every class, in pairs of a class.

    Returns:
        (P,) rows of the members, (P,) rows of the non-members, (P,) their classes, and (P,) folds, each of which holds
        as many members as non-members of each class.
    """
    for name, y, n in (("y_members", y_members, n_members), ("y_non_members", y_non_members, n_non_members)):
        if np.shape(y) != (n,):
            raise ValueError(f"{name} has shape {np.shape(y)}, expected a class for each of {n} cells")
    sides = (np.asarray(y_members), np.asarray(y_non_members))
    rng = np.random.default_rng(seed)
    rows: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    classes, folds = [], []
    for label in np.unique(sides[1]):
        found = [np.flatnonzero(y == label) for y in sides]
        pairs = min(map(len, found))
        if pairs < _LEAST:
            continue
        for side, places in zip(rows, found, strict=True):
            side.append(rng.permutation(places)[:pairs])
        classes.append(np.full(pairs, label))
        folds.append(np.arange(pairs) % FOLDS)
    if not classes:
        raise ValueError(f"no class has {_LEAST} members and {_LEAST} non-members, expected one at least; add cells")
    first, second = (np.concatenate(side) for side in rows)
    return first, second, np.concatenate(classes), np.concatenate(folds)


def stratified_auc(
    members: np.ndarray, non_members: np.ndarray, strata: np.ndarray, *, inflation: float = 1.0
) -> AreaUnderCurve:
    """AUC within strata, averaged by their cells; interval after DeLong, DeLong & Clarke-Pearson 1988.

    Args:
        members, non_members: (P,) scores, higher for members. strata: (P,) of both, two pairs or more each.
        inflation: factor of the variance, for scores that depend on each other.
    """
    value, variance = 0.0, 0.0
    for stratum in np.unique(strata):
        a, b = members[strata == stratum], non_members[strata == stratum]
        n = len(a)
        # share of the other side that a cell beats, ties half: its mean is the AUC, its spread the variance
        ranks = rankdata(np.concatenate([a, b]))
        beats = (ranks[:n] - rankdata(a)) / n
        beaten = 1 - (ranks[n:] - rankdata(b)) / n
        weight = n / len(strata)
        value += weight * beats.mean()
        variance += weight**2 * (beats.var(ddof=1) + beaten.var(ddof=1)) / n
    half = norm.ppf(0.975) * np.sqrt(inflation * variance)
    return AreaUnderCurve(float(value), float(max(value - half, 0)), float(min(value + half, 1)), len(strata))


def _attack(features: np.ndarray, classes: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """(2P,) scores of a logistic regression on (2P, S) features, the first P members, cross-fitted.

    Features are centred within classes first: it needs no membership, and takes away how hard a class is.
    """
    member = np.repeat([1, 0], len(features) // 2)
    means = np.stack([features[classes == c].mean(axis=0) for c in np.unique(classes)])
    features = features - means[classes]
    score = np.empty(len(features))
    for fold in range(FOLDS):
        inside = folds == fold
        attack = make_pipeline(StandardScaler(), LogisticRegression()).fit(features[~inside], member[~inside])
        score[inside] = attack.decision_function(features[inside])
    return score
