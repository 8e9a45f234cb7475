"""The over-samplers keep imbalanced-learn's contract."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from imblearn.pipeline import make_pipeline
from imblearn.utils.estimator_checks import parametrize_with_checks
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from cytolib.augment import ClassGaussianOverSampler, DiffusionOverSampler

QUICK = {"steps": 20, "batch_size": 16, "width": 16, "depth": 1, "num_inference_steps": 3, "device": "cpu"}
SAMPLERS = [DiffusionOverSampler(random_state=0, **QUICK), ClassGaussianOverSampler(random_state=0)]


def cells(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.repeat(["basophil", "blast", "monocyte"], [60, 25, 9])
    centre = np.repeat(np.eye(3) * 4, [60, 25, 9], axis=0)
    return (centre + rng.standard_normal((94, 3))).astype(np.float32), y


@parametrize_with_checks(SAMPLERS)
def test_imbalanced_learn_estimator_checks(estimator, check) -> None:  # type: ignore[no-untyped-def]
    check(estimator)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_real_cells_first_then_the_asked_number(sampler: DiffusionOverSampler) -> None:
    X, y = cells()
    X_new, y_new = clone(sampler).fit_resample(X, y)
    np.testing.assert_array_equal(X_new[:94], X)
    np.testing.assert_array_equal(y_new[:94], y)
    assert X_new.dtype == np.float32 and y_new.dtype == y.dtype
    assert dict(zip(*np.unique(y_new, return_counts=True), strict=True)) == {
        "basophil": 60,
        "blast": 60,
        "monocyte": 60,
    }
    again = clone(sampler).fit_resample(X, y)[0]
    np.testing.assert_array_equal(again, X_new)
    other = clone(sampler).set_params(random_state=1).fit_resample(X, y)[0]
    assert not np.array_equal(other, X_new)
    some = clone(sampler).set_params(sampling_strategy={"blast": 30})
    assert some.fit_resample(X, y)[0].shape == (99, 3) and some.sampling_strategy_ == {"blast": 5}


def test_nothing_wanted_nothing_trained() -> None:
    X, y = cells()
    sampler = DiffusionOverSampler(sampling_strategy={"blast": 25}, **QUICK)
    np.testing.assert_array_equal(sampler.fit_resample(X, y)[0], X)
    assert not hasattr(sampler, "pipeline_")


def test_frames_and_pipelines_pass_through() -> None:
    X, y = cells()
    frame, labels = DiffusionOverSampler(random_state=0, **QUICK).fit_resample(
        pd.DataFrame(X, columns=list("abc")), pd.Series(y)
    )
    assert list(frame.columns) == list("abc") and len(labels) == 180
    model = make_pipeline(ClassGaussianOverSampler(random_state=0), LogisticRegression())
    assert cross_val_score(model, X, y, cv=3, scoring="balanced_accuracy").mean() > 0.9


def test_gaussian_cells_have_the_moments_of_their_class() -> None:
    rng = np.random.default_rng(3)
    mixing = rng.standard_normal((4, 4))
    X = np.concatenate([rng.standard_normal((3000, 4)) @ mixing + 5, rng.standard_normal((400, 4)) @ mixing.T - 5])
    y = np.repeat([0, 1], [3000, 400])
    new = ClassGaussianOverSampler(random_state=0).fit_resample(X, y)[0][3400:]
    np.testing.assert_allclose(new.mean(axis=0), X[3000:].mean(axis=0), atol=0.3)
    np.testing.assert_allclose(np.cov(new, rowvar=False), np.cov(X[3000:], rowvar=False), atol=0.6)


def test_small_class_borrows_the_pooled_covariance() -> None:
    rng = np.random.default_rng(4)
    mixing = np.array([[3.0, 2.9], [2.9, 3.0]])
    X = np.concatenate([rng.standard_normal((2000, 2)) @ mixing, [[50.0, 50.0], [51.0, 49.0], [49.0, 51.0]]])
    y = np.repeat([0, 1], [2000, 3])
    borrowed, own = (
        ClassGaussianOverSampler(random_state=0, min_cells=m).fit_resample(X, y)[0][2003:] for m in (50, 2)
    )
    assert np.corrcoef(borrowed, rowvar=False)[0, 1] > 0.9 and np.corrcoef(own, rowvar=False)[0, 1] < 0.5
    np.testing.assert_allclose(borrowed.mean(axis=0), 50, atol=0.5)


def test_bad_arguments_are_refused() -> None:
    X, y = cells()
    with pytest.raises(ValueError, match="'steps' parameter"):
        DiffusionOverSampler(steps=0).fit_resample(X, y)
    with pytest.raises(ValueError, match="NaN"):
        DiffusionOverSampler(**QUICK).fit_resample(np.where(X > 3, np.nan, X), y)
