"""Membership inference: silent where nothing was learnt, loud where cells were learnt by heart."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from cytolib.diffusion import EmbeddingDenoiser, EmbeddingDiffusionPipeline, EmbeddingStandardizer, train
from cytolib.diffusion.inspect import denoising_error
from cytolib.evaluate import membership
from cytolib.evaluate.membership import (
    SIGMAS,
    AreaUnderCurve,
    matched_pairs,
    membership_by_distance,
    membership_inference,
    stratified_auc,
)

NAMES = ["a", "b"]


def _cells(seed: int, n: int, d: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Two classes far apart, the second much wider: its errors are larger whether a cell was trained on or not."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    return rng.standard_normal((n, d)) * (1 + 2 * y[:, None]) + 4 * y[:, None], np.array(NAMES)[y]


@pytest.fixture(scope="module")
def new_pipe() -> EmbeddingDiffusionPipeline:
    """Never trained; its standardiser saw other cells of the same distribution."""
    torch.manual_seed(0)
    denoiser = EmbeddingDenoiser(embedding_dim=8, num_classes=2, width=16, depth=1).eval()
    return EmbeddingDiffusionPipeline.from_parts(denoiser, EmbeddingStandardizer.fit(_cells(9, 400)[0]), NAMES)


@pytest.fixture(scope="module")
def learnt_by_heart() -> pd.DataFrame:
    """The attack on a model trained on 30 cells for 400 steps: each was seen about 850 times."""
    torch.set_num_threads(1)
    X, y = _cells(0, 60)
    for step in train(X[:30], y[:30], class_names=NAMES, steps=400, batch_size=64, width=64, depth=2, device="cpu"):  # noqa: B007
        pass
    return membership_inference(step.pipeline(), X[:30], y[:30], X[30:], y[30:]).set_index("score")


def test_a_model_that_learnt_its_cells_by_heart_is_caught(learnt_by_heart: pd.DataFrame) -> None:
    assert list(learnt_by_heart.index) == ["mean", *(f"sigma={s:g}" for s in SIGMAS), "attack"]
    assert (learnt_by_heart.loc[["mean", "sigma=0.2", "sigma=0.5", "attack"], "auc"] > 0.8).all()
    assert (learnt_by_heart.loc[["mean", "attack"], "low"] > 0.6).all()
    assert learnt_by_heart.loc["sigma=0.5", "auc"] > learnt_by_heart.loc["sigma=10", "auc"]  # noise drowns the cell
    assert set(learnt_by_heart["n"]) == {30}


def test_a_new_model_betrays_nothing(new_pipe: EmbeddingDiffusionPipeline) -> None:
    members, others = _cells(1, 300), _cells(2, 300)
    found = membership_inference(new_pipe, *members, *others).set_index("score")
    assert ((found["low"] < 0.5) & (found["high"] > 0.5)).all(), found
    assert found["auc"].between(0.4, 0.6).all()
    again = membership_inference(new_pipe, *members, *others).set_index("score")
    pd.testing.assert_frame_equal(found, again)
    assert not found.equals(membership_inference(new_pipe, *members, *others, seed=1).set_index("score"))


def test_the_mix_of_classes_does_not_decide(new_pipe: EmbeddingDiffusionPipeline) -> None:
    """Members mostly of the easy class: the pooled AUC would find them, and there is nothing to find."""
    (X, y), (X_other, y_other) = _cells(3, 600), _cells(4, 600)
    few = np.random.default_rng(0).random(600) < 0.3
    members, others = (y == "a") | few, (y_other == "b") | few
    error = [
        denoising_error(new_pipe, *part, sigmas=[2.0])[:, 0]
        for part in ((X[members], y[members]), (X_other[others], y_other[others]))
    ]
    pooled = roc_auc_score(np.repeat([1, 0], [len(error[0]), len(error[1])]), -np.concatenate(error))
    assert pooled > 0.65
    found = membership_inference(new_pipe, X[members], y[members], X_other[others], y_other[others])
    assert ((found["low"] < 0.5) & (found["high"] > 0.5)).all(), found


def test_scores_are_the_weighted_errors(new_pipe: EmbeddingDiffusionPipeline) -> None:
    """A cell near the mean of the standardised space is easy at high noise, so it must look like a member."""
    (X, y), (far, _) = _cells(5, 40), _cells(6, 40)
    centre = new_pipe.standardizer.mean.numpy()
    near = centre + 0.05 * (X - centre)
    found = membership_inference(new_pipe, near, y, far, y, sigmas=[0.01, 10.0]).set_index("score")
    assert found.loc["sigma=10", "auc"] == 1
    # unweighted, the error at 0.01 (1e-4 at most) would be nothing beside that at 10; weighted, both are about 1
    assert 0.3 < found.loc["sigma=0.01", "auc"] < 0.8
    loud = membership_inference(new_pipe, near, y, far, y, sigmas=[0.01] * 30 + [10.0]).set_index("score")
    assert loud.loc["mean", "auc"] < found.loc["mean", "auc"]


def test_pairs_are_matched_by_class_and_fold() -> None:
    y = np.repeat(["a", "b", "c", "d"], [50, 12, 9, 30])
    other = np.repeat(["a", "b", "c", "e"], [23, 40, 40, 40])
    first, second, classes, folds = matched_pairs(y, other, len(y), len(other))
    np.testing.assert_array_equal(y[first], classes)
    np.testing.assert_array_equal(other[second], classes)
    assert dict(zip(*np.unique(classes, return_counts=True), strict=True)) == {"a": 23, "b": 12}  # c is too few
    assert len(set(first)) == len(first) and len(set(second)) == len(second)
    assert np.bincount(folds[classes == "b"]).tolist() == [3, 3, 2, 2, 2]
    assert not np.array_equal(first, matched_pairs(y, other, len(y), len(other), seed=1)[0])


def test_auc_and_interval_of_one_stratum() -> None:
    """The AUC is scikit-learn's; the interval is DeLong's formula with its double sums written out."""
    rng = np.random.default_rng(7)
    a, b = rng.standard_normal(40).round(1) + 0.6, rng.standard_normal(40).round(1)  # with ties
    found = stratified_auc(a, b, np.zeros(40))
    assert found.auc == pytest.approx(roc_auc_score(np.repeat([1, 0], 40), np.concatenate([a, b])))
    wins = np.sign(a[:, None] - b) / 2 + 0.5
    error = np.sqrt(wins.mean(axis=1).var(ddof=1) / 40 + wins.mean(axis=0).var(ddof=1) / 40)
    assert found.high - found.auc == pytest.approx(1.959964 * error, rel=1e-5)
    assert found.auc - found.low == pytest.approx(1.959964 * error, rel=1e-5)
    assert stratified_auc(b, a, np.zeros(40)).auc == pytest.approx(1 - found.auc)
    # a shift between strata is no difference within them
    strata = np.repeat([0, 1], [30, 10])
    shifted = stratified_auc(a + 9 * strata, b + 9 * strata, strata)
    expected = [
        roc_auc_score(np.repeat([1, 0], (strata == s).sum()), np.r_[a[strata == s], b[strata == s]]) for s in (0, 1)
    ]
    assert shifted.auc == pytest.approx(0.75 * expected[0] + 0.25 * expected[1]) and shifted.n == 40


def test_interval_covers_the_truth() -> None:
    """Normal scores one unit apart have an AUC of Phi(1 / sqrt 2) = 0.7602; 95 % of 300 intervals should hold it."""
    rng = np.random.default_rng(8)
    strata = np.repeat([0, 1], 30)
    draws = [stratified_auc(rng.standard_normal(60) + 1, rng.standard_normal(60), strata) for _ in range(300)]
    assert 0.91 < np.mean([d.low < 0.76025 < d.high for d in draws]) < 0.98
    assert np.mean([d.auc for d in draws]) == pytest.approx(0.76025, abs=0.01)


def test_the_trained_attack_does_not_score_its_own_cells(new_pipe: EmbeddingDiffusionPipeline) -> None:
    """On 10 pairs a class with 20 levels, a regression scored on its own cells would be nearly perfect."""
    X, y = _cells(11, 20)
    X_other, y_other = _cells(12, 20)
    found = membership_inference(new_pipe, X, y, X_other, y_other, sigmas=np.geomspace(0.1, 10, 20), draws=1)
    assert found.set_index("score").loc["attack", "auc"] < 0.8


def test_interval_of_the_trained_attack_allows_for_shared_cells(
    new_pipe: EmbeddingDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing to find, 200 times: DeLong's own interval misses 0.5 far more often than 1 time in 20."""
    folds = np.arange(60) % 5
    missed = {1.0: 0, membership._INFLATION: 0}
    for seed in range(200):
        features = np.random.default_rng(seed).standard_normal((120, 4))
        score = membership._attack(features, np.zeros(120, dtype=np.int64), np.tile(folds, 2))
        for inflation in missed:
            found = stratified_auc(score[:60], score[60:], folds, inflation=inflation)
            missed[inflation] += not found.low < 0.5 < found.high
    assert missed[membership._INFLATION] <= 12 < 18 <= missed[1.0], missed
    # and the attack's row has that interval, within each fold of each class
    calls: list[tuple[int, float]] = []

    def record(a: np.ndarray, b: np.ndarray, strata: np.ndarray, *, inflation: float = 1.0) -> AreaUnderCurve:
        calls.append((len(np.unique(strata)), inflation))
        return stratified_auc(a, b, strata, inflation=inflation)

    monkeypatch.setattr(membership, "stratified_auc", record)
    membership_inference(new_pipe, *_cells(17, 40), *_cells(18, 40), sigmas=[1.0], draws=1)
    assert calls == [(2, 1.0), (2, 1.0), (10, 2.25)]


def test_the_trained_attack_is_blind_to_the_class() -> None:
    """A level where classes are far apart carries the signal: unless classes are centred, it is scaled to nothing."""
    rng = np.random.default_rng(19)
    classes, member, folds = np.tile(np.arange(100) % 2, 2), np.repeat([1, 0], 100), np.tile(np.arange(100) % 5, 2)
    features = rng.standard_normal((200, 5))
    features[:, 0] += 3 * member + 1000 * classes
    score = membership._attack(features, classes, folds)
    assert stratified_auc(score[:100], score[100:], classes[:100]).auc > 0.95


def test_nearness_to_synthetic_cells() -> None:
    members, others, fresh = _cells(13, 200), _cells(14, 200), _cells(15, 400)
    copies = membership_by_distance(members[0][:150] + 0.01, members[0], others[0])
    assert copies.auc > 0.8 and copies.low > 0.75 and copies.n == 200
    labelled = membership_by_distance(fresh[0], members[0], others[0], y_members=members[1], y_non_members=others[1])
    assert labelled.low < 0.5 < labelled.high
    mixed = np.concatenate([others[0][others[1] == "b"], others[0][others[1] == "a"][:15]])
    y = np.repeat(["b", "a"], [100, 15])
    assert membership_by_distance(fresh[0], members[0], mixed).low > 0.5  # the wide class alone makes this difference
    matched = membership_by_distance(fresh[0], members[0], mixed, y_members=members[1], y_non_members=y)
    assert matched.low < 0.5 < matched.high and matched.n == 115


def test_bad_arguments_are_refused(new_pipe: EmbeddingDiffusionPipeline) -> None:
    X, y = _cells(16, 40)
    with pytest.raises(ValueError, match="no class has 10 members and 10 non-members"):
        membership_inference(new_pipe, X[:8], y[:8], X, y)
    with pytest.raises(ValueError, match="y_members has shape"):
        membership_inference(new_pipe, X, y[:5], X, y)
    with pytest.raises(ValueError, match="draws 0, expected"):
        membership_inference(new_pipe, X, y, X, y, draws=0)
    with pytest.raises(ValueError, match="go together"):
        membership_by_distance(X, X, X, y_members=y)
    with pytest.raises(ValueError, match="row 0 holds 'z'"):
        membership_inference(new_pipe, X, np.full(40, "z"), X, np.full(40, "z"))
