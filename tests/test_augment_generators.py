"""The generators by name, and their cells without the real ones."""

from __future__ import annotations

import numpy as np
import pytest
from imblearn.over_sampling import SMOTE, RandomOverSampler
from sklearn.base import clone

from cytolib.augment import GENERATORS, BootstrapOverSampler, ClassGaussianOverSampler, synthetic_only

QUICK = {"steps": 20, "batch_size": 16, "width": 16, "depth": 1, "num_inference_steps": 3, "device": "cpu"}


def cells() -> tuple[np.ndarray, np.ndarray]:
    """Shuffled cells of four classes: 60, 20, 3 and a single one."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.repeat(["a", "b", "c", "d"], [60, 20, 3, 1]))
    return (rng.standard_normal((84, 5)) + 6 * (y == "c")[:, None]).astype(np.float32), y


def quick(name: str, seed: int):  # type: ignore[no-untyped-def]
    sampler = GENERATORS[name](seed)
    return sampler.set_params(**QUICK) if "diffusion" in name or "flow" in name else sampler


def test_names_in_the_order_of_the_tables() -> None:
    assert list(GENERATORS) == [
        "diffusion", "flow_matching", "class_gaussian", "gaussian_mixture", "kernel_density", "smote", "feature_mixup",
        "random_oversampling", "bootstrap",
    ]  # fmt: skip
    assert all(factory(3).random_state == 3 for factory in GENERATORS.values())
    assert GENERATORS["diffusion"](0).objective == "edm"
    assert GENERATORS["flow_matching"](0).objective == "flow_matching"
    assert type(GENERATORS["smote"](0)) is SMOTE and type(GENERATORS["random_oversampling"](0)) is RandomOverSampler


@pytest.mark.parametrize("name", GENERATORS)
def test_only_the_new_cells_as_many_as_asked(name: str) -> None:
    X, y = cells()
    sampler = quick(name, 0)
    counts = {"c": 4, "a": 100, "d": 2}
    X_new, y_new = synthetic_only(sampler, X, y, counts)
    assert y_new.tolist() == ["a"] * 100 + ["c"] * 4 + ["d"] * 2 and y_new.dtype == y.dtype
    assert X_new.shape == (106, 5) and X_new.dtype == np.float32 and np.isfinite(X_new).all()
    np.testing.assert_array_equal(synthetic_only(sampler, X, y, counts)[0], X_new)
    assert not np.array_equal(synthetic_only(quick(name, 1), X, y, counts)[0], X_new)
    assert sampler.get_params() == quick(name, 0).get_params() and not hasattr(sampler, "sampling_strategy_")
    copied = (X_new[:, None] == X).all(axis=2)
    if name in ("bootstrap", "random_oversampling"):
        assert copied.any(axis=1).all() and (copied @ (y == y_new[:, None]).T).any()
    else:
        assert not copied[:104].any()
    if name in ("bootstrap", "random_oversampling", "smote", "feature_mixup"):
        np.testing.assert_array_equal(X_new[-2:], np.repeat(X[y == "d"], 2, axis=0))


@pytest.mark.parametrize("name", GENERATORS)
def test_a_random_state_that_has_moved_is_left_as_it_was(name: str) -> None:
    X, y = cells()
    state = np.random.RandomState(4)
    state.standard_normal(3)
    sampler = quick(name, 0).set_params(random_state=state)
    first, second = (synthetic_only(sampler, X, y, {"a": 5, "b": 5})[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_new_cells_are_those_of_fit_resample() -> None:
    X, y = cells()
    sampler = ClassGaussianOverSampler(random_state=0)
    full = clone(sampler).set_params(sampling_strategy={"a": 67, "c": 8}).fit_resample(X, y)
    new = synthetic_only(sampler, X, y, {"a": 7, "c": 5, "b": 0})
    np.testing.assert_array_equal(new[0], full[0][84:])
    np.testing.assert_array_equal(new[1], full[1][84:])


def test_smote_has_fewer_neighbours_only_where_a_class_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = cells()
    y[y == "b"] = "e"  # a large class before the small ones, and one after
    used = {}
    fit_resample = SMOTE.fit_resample

    def record(self, X, y):  # type: ignore[no-untyped-def]
        used[next(iter(self.sampling_strategy))] = self.k_neighbors
        return fit_resample(self, X, y)

    monkeypatch.setattr(SMOTE, "fit_resample", record)
    X_new, y_new = synthetic_only(SMOTE(random_state=0), X, y, {"a": 9, "c": 9, "d": 9, "e": 9})
    assert used == {"a": 5, "c": 2, "e": 5}
    assert X_new[y_new == "c"].mean() > 4 > X_new[y_new == "e"].max()


def test_smote_gives_no_two_classes_the_same_random_numbers() -> None:
    rng = np.random.default_rng(2)
    block = rng.standard_normal((20, 3))
    X, y = np.concatenate([block, block]), np.repeat([0, 1], 20)
    X_new, y_new = synthetic_only(SMOTE(random_state=0), X, y, {0: 10, 1: 10})
    assert not np.allclose(X_new[y_new == 0], X_new[y_new == 1])


def test_bad_input_is_refused() -> None:
    X, y = cells()
    sampler = BootstrapOverSampler(random_state=0)
    for counts, message in (
        ({"blast": 3}, r"counts names \['blast'\], expected classes of .*'a', 'b', 'c', 'd'"),
        ({"a": -1}, r"counts holds \{'a': -1\}"),
        ({"a": 0}, "asks for no cell"),
        (7, "mapping from class"),
    ):
        with pytest.raises(ValueError, match=message):
            synthetic_only(sampler, X, y, counts)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a row of X and a label"):
        synthetic_only(sampler, X[:-1], y, {"a": 1})
