"""All over-samplers keep the contracts of imbalanced-learn and of scikit-learn."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from imblearn.pipeline import make_pipeline
from imblearn.utils.estimator_checks import (
    check_dataframe_column_names_consistency,
    check_param_validation,
    parametrize_with_checks,
)
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks as parametrize_with_sklearn_checks

import cytolib.augment.diffusion
from cytolib.augment import (
    BootstrapOverSampler,
    ClassGaussianOverSampler,
    DiffusionOverSampler,
    EmbeddingOverSampler,
    FeatureMixupOverSampler,
    GaussianMixtureOverSampler,
    KernelDensityOverSampler,
)

QUICK = {"steps": 20, "batch_size": 16, "width": 16, "depth": 1, "num_inference_steps": 3, "device": "cpu"}
SAMPLERS = [
    DiffusionOverSampler(random_state=0, **QUICK),
    DiffusionOverSampler(random_state=0, objective="flow_matching", batches="balanced", n_components=2, **QUICK),
    ClassGaussianOverSampler(random_state=0),
    GaussianMixtureOverSampler(random_state=0),
    KernelDensityOverSampler(random_state=0),
    FeatureMixupOverSampler(random_state=0),
    BootstrapOverSampler(random_state=0),
]
NAMES = ["edm", "flow_matching", "gaussian", "mixture", "kernel", "mixup", "bootstrap"]
each_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=NAMES)


def cells(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.repeat(["basophil", "blast", "monocyte"], [60, 25, 9])
    centre = np.repeat(np.eye(3) * 4, [60, 25, 9], axis=0)
    return (centre + rng.standard_normal((94, 3))).astype(np.float32), y


def counted(y: np.ndarray) -> dict[str, int]:
    return dict(zip(*(v.tolist() for v in np.unique(y, return_counts=True)), strict=True))


@parametrize_with_checks(SAMPLERS)
def test_imbalanced_learn_estimator_checks(estimator, check) -> None:  # type: ignore[no-untyped-def]
    check(estimator)


@parametrize_with_sklearn_checks(SAMPLERS)
def test_scikit_learn_estimator_checks(estimator, check) -> None:  # type: ignore[no-untyped-def]
    check(estimator)


@each_sampler
def test_parameters_and_column_names_as_imbalanced_learn_checks_its_own(sampler: EmbeddingOverSampler) -> None:
    check_param_validation(type(sampler).__name__, sampler)
    check_dataframe_column_names_consistency(type(sampler).__name__, sampler)


@each_sampler
def test_real_cells_first_then_the_asked_number(sampler: EmbeddingOverSampler) -> None:
    X, y = cells()
    X_new, y_new = clone(sampler).fit_resample(X, y)
    np.testing.assert_array_equal(X_new[:94], X)
    np.testing.assert_array_equal(y_new[:94], y)
    assert X_new.dtype == np.float32 and y_new.dtype == y.dtype
    assert counted(y_new) == {"basophil": 60, "blast": 60, "monocyte": 60}
    again = clone(sampler).fit_resample(X, y)[0]
    np.testing.assert_array_equal(again, X_new)
    other = clone(sampler).set_params(random_state=1).fit_resample(X, y)[0]
    assert not np.array_equal(other, X_new)
    some = clone(sampler).set_params(sampling_strategy={"blast": 30})
    assert some.fit_resample(X, y)[0].shape == (99, 3) and some.sampling_strategy_ == {"blast": 5}


@each_sampler
def test_labels_belong_to_their_cells_in_any_order_of_rows(sampler: EmbeddingOverSampler) -> None:
    X, y = cells()
    order = np.random.default_rng(1).permutation(94)
    sampler = clone(sampler).set_params(sampling_strategy={"monocyte": 109, "basophil": 160})
    if isinstance(sampler, DiffusionOverSampler):
        sampler.set_params(steps=300, width=32, num_inference_steps=8, n_components=None)
    X_new, y_new = (part[94:] for part in sampler.fit_resample(X[order], y[order]))
    assert counted(y_new) == {"basophil": 100, "monocyte": 100}
    nearest = np.array(["basophil", "blast", "monocyte"])[X_new.argmax(axis=1)]  # the centres lie on the axes
    assert (nearest == y_new).mean() > 0.8  # at random: 0.33


@each_sampler
def test_sample_draws_more_of_the_same_generator(sampler: EmbeddingOverSampler) -> None:
    X, y = cells()
    sampler = clone(sampler)
    sampler.fit_resample(X, y)
    drawn, labels = sampler.sample(4, random_state=5)
    assert drawn.shape == (12, 3) and drawn.dtype == np.float32
    np.testing.assert_array_equal(labels, np.repeat(["basophil", "blast", "monocyte"], 4))
    np.testing.assert_array_equal(sampler.sample(4, random_state=5)[0], drawn)
    assert not np.array_equal(sampler.sample(4, random_state=6)[0], drawn)
    drawn, labels = sampler.sample({"monocyte": 3, "basophil": 2, "blast": 0}, random_state=5)
    assert labels.tolist() == ["basophil"] * 2 + ["monocyte"] * 3 and np.isfinite(drawn).all()
    copy = pickle.loads(pickle.dumps(sampler))
    np.testing.assert_array_equal(copy.sample({"monocyte": 3, "basophil": 2}, random_state=5)[0], drawn)


@each_sampler
def test_nothing_wanted_nothing_fitted_and_older_data_forgotten(sampler: EmbeddingOverSampler) -> None:
    X, y = cells()
    sampler = clone(sampler)
    with pytest.raises(NotFittedError, match="call fit_resample"):
        sampler.sample(1)
    for again in (lambda: sampler.set_params(sampling_strategy={"blast": 25}).fit_resample(X, y), sampler.fit):
        sampler.set_params(sampling_strategy={"blast": 30}).fit_resample(X, y)
        assert hasattr(sampler, "generator_")
        if again == sampler.fit:
            again(X, y)
        else:
            np.testing.assert_array_equal(again()[0], X)
        assert not hasattr(sampler, "generator_") and not hasattr(sampler, "pipeline_")
        with pytest.raises(NotFittedError):
            sampler.sample(1)


def test_bad_numbers_of_cells_are_refused() -> None:
    X, y = cells()
    sampler = BootstrapOverSampler(random_state=0)
    sampler.fit_resample(X, y)
    for wanted, message in {
        "a": "whole number or a mapping",
        2.5: "whole number or a mapping",
        True: "whole number or a mapping",
        -1: "at least 0",
        0: "asks for no cell",
    }.items():
        with pytest.raises(ValueError, match=message):
            sampler.sample(wanted)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"names \['plasma cell'\], expected classes of .*'monocyte'"):
        sampler.sample({"plasma cell": 3})
    with pytest.raises(ValueError, match=r"holds \{'blast': 1.5\}"):
        sampler.sample({"blast": 1.5})  # type: ignore[dict-item]


@each_sampler
def test_every_kind_of_table_comes_back_as_it_went_in(sampler: EmbeddingOverSampler) -> None:
    X, y = cells()
    dense = clone(sampler).fit_resample(X, y)[0]
    frame, labels = clone(sampler).fit_resample(pd.DataFrame(X, columns=list("abc")), pd.Series(y, name="label"))
    assert list(frame.columns) == list("abc") and (frame.dtypes == np.float32).all() and labels.name == "label"
    np.testing.assert_array_equal(frame.to_numpy(), dense)
    for kind in (sparse.csr_matrix, sparse.csc_array):
        matrix = clone(sampler).fit_resample(kind(X), y)[0]
        assert type(matrix) is kind and matrix.dtype == np.float32
        np.testing.assert_array_equal(matrix.toarray(), dense)


@each_sampler
def test_whole_numbers_are_not_rounded(sampler: EmbeddingOverSampler) -> None:
    X, y = cells()
    X = np.rint(X).astype(np.int64)
    resampled = clone(sampler).fit_resample(X, y)[0]
    assert resampled.dtype == np.float64
    np.testing.assert_array_equal(resampled[:94], X)
    whole = resampled[94:] == np.rint(resampled[94:])
    assert whole.all() if isinstance(sampler, BootstrapOverSampler) else whole.mean() < 0.6


@each_sampler
def test_a_class_of_one_cell_is_filled_too(sampler: EmbeddingOverSampler) -> None:
    X, y = cells()
    keep = np.r_[:85, 85]
    X_new, y_new = clone(sampler).fit_resample(X[keep], y[keep])
    assert np.isfinite(X_new).all() and counted(y_new)["monocyte"] == 60
    if isinstance(sampler, FeatureMixupOverSampler | BootstrapOverSampler):
        np.testing.assert_array_equal(X_new[y_new == "monocyte"], np.repeat(X[85:86], 60, axis=0))


@each_sampler
def test_in_cross_validation_no_generator_sees_a_validation_cell(
    sampler: EmbeddingOverSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = cells()
    seen: list[np.ndarray] = []
    fit: Callable = type(sampler)._fit_generator

    def record(self, X, y, random):  # type: ignore[no-untyped-def]
        seen.append(X)
        return fit(self, X, y, random)

    monkeypatch.setattr(type(sampler), "_fit_generator", record)
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    model = make_pipeline(clone(sampler), LogisticRegression(C=0.1))
    scores = cross_val_score(model, X, y, cv=folds, scoring="balanced_accuracy")
    assert scores.mean() > 0.8 and len(seen) == 3
    for (train_rows, _), given in zip(folds.split(X, y), seen, strict=True):
        np.testing.assert_array_equal(given, X[train_rows])


@pytest.mark.parametrize("objective", ["edm", "flow_matching"])
def test_training_gets_the_cells_and_the_arguments(objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = cells()
    calls = []
    real = cytolib.augment.diffusion.train

    def record(X, y, **arguments):  # type: ignore[no-untyped-def]
        calls.append((X, y, arguments))
        return real(X, y, **arguments)

    monkeypatch.setattr(cytolib.augment.diffusion, "train", record)
    given = {"objective": objective, "batches": "balanced", "n_components": 2, "label_dropout": 0.3}
    sampler = DiffusionOverSampler(random_state=0, **QUICK, **given)
    sampler.fit_resample(X, y)
    ((X_given, y_given, arguments),) = calls
    np.testing.assert_array_equal(X_given, X)
    assert np.array(arguments["class_names"])[y_given].tolist() == y.tolist()
    expected = given | {name: QUICK[name] for name in ("steps", "batch_size", "width", "depth", "device")}
    assert {name: arguments[name] for name in expected} == expected
    assert sampler.pipeline_ is sampler.generator_
    assert sampler.pipeline_.class_names == ["basophil", "blast", "monocyte"]
    assert sampler.pipeline_.denoiser.config["objective"] == objective
    assert sampler.pipeline_.standardizer.output_dim == 2


def test_bad_arguments_are_refused() -> None:
    X, y = cells()
    for wrong in (
        {"steps": 0},
        {"objective": "ddpm"},
        {"batches": "rare"},
        {"n_components": 1.5},
        {"label_dropout": 1},
    ):
        with pytest.raises(ValueError, match=f"'{next(iter(wrong))}' parameter"):
            DiffusionOverSampler(**{**QUICK, **wrong}).fit_resample(X, y)
    with pytest.raises(ValueError, match="NaN"):
        DiffusionOverSampler(**QUICK).fit_resample(np.where(X > 3, np.nan, X), y)
