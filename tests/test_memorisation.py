"""Distances to training cells: by hand, against brute force, and what each statistic says of copies and new cells."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy.stats import mannwhitneyu

from cytolib.evaluate import memorisation
from cytolib.evaluate.memorisation import (
    authenticity,
    copying_statistic,
    dcr_by_class,
    dcr_ratio,
    memorisation_table,
    nearest_distance,
)

Sets = tuple[np.ndarray, np.ndarray, np.ndarray]


def _cells(seed: int, n: int = 400, d: int = 12) -> np.ndarray:
    """Three clusters, so that the regions of the copying statistic have something to find."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) + 6 * np.eye(d)[rng.integers(3, size=n)]


@pytest.fixture(scope="module")
def sets() -> Sets:
    """Training cells, test cells, and new cells of the same distribution."""
    return _cells(0, 600), _cells(1), _cells(2)


def test_nearest_distances_equal_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memorisation, "BLOCK", 7)
    rng = np.random.default_rng(3)
    X, reference = rng.standard_normal((30, 4)), rng.standard_normal((41, 4))
    between = np.linalg.norm(X[:, None] - reference, axis=2)
    distance, nearest = nearest_distance(X, reference)
    np.testing.assert_allclose(distance, between.min(axis=1))
    np.testing.assert_array_equal(nearest, between.argmin(axis=1))
    among = np.linalg.norm(X[:, None] - X, axis=2) + np.diag(np.full(30, np.inf))
    distance, nearest = nearest_distance(X, X, exclude_self=True)
    np.testing.assert_allclose(distance, among.min(axis=1))
    np.testing.assert_array_equal(nearest, among.argmin(axis=1))


def test_a_copy_is_at_zero_far_from_the_origin_too() -> None:
    """Expanded squares leave 1e-4 there; and a double of a training cell is its neighbour, the cell itself is not."""
    X = np.random.default_rng(4).standard_normal((50, 9)) + 1e4
    assert (nearest_distance(X[::-1], X)[0] == 0).all()
    doubled = np.concatenate([X, X[:1]])
    own, nearest = nearest_distance(doubled, doubled, exclude_self=True)
    assert own[0] == own[50] == 0 and (nearest[0], nearest[50]) == (50, 0)
    assert (own[1:50] > 0).all()


def test_ratio_and_authenticity_by_hand() -> None:
    train = np.array([[0.0], [1.0], [10.0], [14.0]])
    test = np.array([[0.5], [12.0], [18.0]])  # 0.5, 2, 4 away
    synthetic = np.array([[0.3], [11.0], [15.0], [20.0]])  # 0.3, 1, 1, 6 away
    assert dcr_ratio(synthetic, train, test) == pytest.approx(1 / 2)
    # own distances of the nearest training cells: 1, 4, 4, 4
    assert authenticity(synthetic, train) == pytest.approx(1 / 4)


def test_copying_statistic_of_one_region_is_the_mann_whitney_z(sets: Sets) -> None:
    """One region and all components keep every distance, so scipy's test must say the same."""
    train, test, new = sets
    for cells in (new, 1.2 * new, train[:300] + 0.01):
        made, floor = nearest_distance(cells, train)[0], nearest_distance(test, train)[0]
        m, n = len(made), len(floor)
        u = mannwhitneyu(made, floor, alternative="two-sided").statistic  # pairs in which the synthetic cell is farther
        expected = (u - m * n / 2) / np.sqrt(m * n * (m + n + 1) / 12)
        found = copying_statistic(cells, train, test, regions=1, n_components=12)
        assert found == pytest.approx(expected, rel=1e-6)


def test_copying_statistic_of_clusters_is_the_weighted_mean(sets: Sets) -> None:
    """The k-means regions of three far clusters are those clusters; the paper's formula by hand, weights of test."""
    train, test, new = sets
    new = new[np.argsort(new[:, 0])][60:]  # other shares of clusters than the test cells have
    cluster = [X[:, :3].argmax(axis=1) for X in (new, train, test)]
    values, weights = [], []
    for c in range(3):
        made, known, floor = (X[k == c] for X, k in zip((new, train, test), cluster, strict=True))
        u = mannwhitneyu(nearest_distance(made, known)[0], nearest_distance(floor, known)[0]).statistic
        m, n = len(made), len(floor)
        values.append((u - m * n / 2) / np.sqrt(m * n * (m + n + 1) / 12))
        weights.append(n)
    expected = np.average(values, weights=weights)
    assert copying_statistic(new, train, test, n_components=12) == pytest.approx(expected, abs=1e-6)
    assert abs(expected - np.mean(values)) > 1e-3  # or the weights would not be tested


def test_a_region_knows_its_own_training_cells_only() -> None:
    """Without clusters, the nearest training cell of many a cell lies across the border, and does not count."""
    train, test = (np.random.default_rng(s).standard_normal((n, 2)) for s, n in ((20, 60), (21, 80)))
    (home, _), (place, distance) = memorisation._region_distances(train, [train, test], 3, 2, 0)
    between = np.linalg.norm(test[:, None] - train, axis=2)
    np.testing.assert_allclose(distance, np.where(place[:, None] == home, between, np.inf).min(axis=1))
    assert (distance > between.min(axis=1) + 1e-9).any()


def test_copying_statistic_has_its_sign_and_scale(sets: Sets) -> None:
    train, test, _ = sets
    fresh = [copying_statistic(_cells(10 + s), train, test) for s in range(20)]
    assert abs(np.mean(fresh)) < 1.2 and np.std(fresh) < 1.2  # one test set for all, so their mean varies too
    assert copying_statistic(train[:400] + 0.02, train, test) < -10
    assert copying_statistic(_cells(5) + 3 * _cells(6), train, test) > 10


def test_copying_in_one_region_alone_is_seen(sets: Sets) -> None:
    """What the regions are for: half copies and half far cells balance in one z over all cells."""
    train, test, new = sets
    cluster = new[:, :3].argmax(axis=1)
    copies = train[train[:, :3].argmax(axis=1) == 0]
    wide = new[cluster == 1] * 1.15
    cells = np.concatenate([copies[:100] + 0.01, wide, new[cluster == 2]])
    made, floor = memorisation._region_distances(train, [cells, test], 3, 12, 0)
    z = [memorisation._weighted_z([pair])[0] for pair in memorisation._shared_regions(made, floor)]
    assert min(z) < -5 and max(z) > 2


def test_small_regions_are_left_out_and_none_left_is_refused(sets: Sets) -> None:
    train, test, new = sets
    cluster = new[:, :3].argmax(axis=1)
    kept, few = new[cluster != 0], new[cluster == 0][:10]
    alone = copying_statistic(kept, train, test, n_components=12)
    assert copying_statistic(np.concatenate([kept, few + 50 * np.eye(12)[0]]), train, test, n_components=12) == alone
    with pytest.raises(ValueError, match="none of 3 regions holds 20 synthetic and 20 test cells"):
        copying_statistic(new[:30], train, test)
    assert np.isfinite(copying_statistic(new[:10], train, test, regions=1))
    with pytest.raises(ValueError, match="regions is 0"):
        copying_statistic(new, train, test, regions=0)
    with pytest.raises(ValueError, match="n_components is 0"):
        copying_statistic(new, train, test, n_components=0)


def test_classes_are_judged_apart(sets: Sets) -> None:
    """Copies of a rare class hide in the median of all cells, and not in that of their class."""
    train, test, new = sets
    labels = [np.array(["a", "b", "c"])[X[:, :3].argmax(axis=1)] for X in (new, train, test)]
    synthetic = new.copy()
    rare = np.flatnonzero(labels[0] == "b")[:8]
    synthetic = np.concatenate([new[labels[0] != "b"], train[labels[1] == "b"][: len(rare)]])
    y = np.concatenate([labels[0][labels[0] != "b"], np.full(len(rare), "b")])
    assert dcr_ratio(synthetic, train, test) > 0.9
    table = dcr_by_class(synthetic, y, train, labels[1], test, labels[2]).set_index("label")
    assert table.loc["b", "value"] == 0 and table.loc["b", "n"] == 8
    assert table.loc[["a", "c"], "value"].between(0.85, 1.15).all()
    assert table["floor_n"].to_dict() == dict(zip(*np.unique(labels[2], return_counts=True), strict=True))
    known = train[labels[1] == "a"]
    expected = dcr_ratio(synthetic[y == "a"], known, test[labels[2] == "a"])
    assert table.loc["a", "value"] == pytest.approx(expected)
    y[np.flatnonzero(y == "b")[:4]] = "c"  # four are too few
    table = dcr_by_class(synthetic, y, train, labels[1], test, labels[2]).set_index("label")
    assert np.isnan(table.loc["b", "value"]) and table.loc["b", "n"] == 4
    mixed = [np.random.default_rng(s).choice(["p", "q"], len(X)) for s, X in enumerate((new, train, test))]
    table = dcr_by_class(new, mixed[0], train, mixed[1], test, mixed[2]).set_index("label")
    inside = [X[y_mixed == "p"] for X, y_mixed in zip((new, train, test), mixed, strict=True)]
    assert table.loc["p", "value"] == pytest.approx(dcr_ratio(*inside))
    y[y == "b"] = "z"  # asked for, never trained on
    table = dcr_by_class(synthetic, y, train, labels[1], test, labels[2]).set_index("label")
    assert np.isnan(table.loc["z", "value"]) and table.loc["z", "floor_n"] == 0
    with pytest.raises(ValueError, match="y_train has shape"):
        dcr_by_class(synthetic, y, train, labels[1][:5], test, labels[2])


def _of(table: pd.DataFrame, metric: str, method: str) -> pd.Series:
    return table.set_index(["metric", "method"]).loc[(metric, method)]


def test_table_holds_the_metrics_and_their_floor(sets: Sets) -> None:
    train, test, new = sets
    copies = train[:500] + 0.01
    table = memorisation_table(train * 1000 + 5, test * 1000 + 5, {"new": new * 1000 + 5, "copies": copies * 1000 + 5})
    assert list(table.columns) == ["metric", "method", "value", "low", "high", "n"]
    assert sorted(zip(table["metric"], table["method"], strict=True)) == sorted(
        (metric, method)
        for metric in ("dcr_ratio", "authenticity", "copying_statistic")
        for method in ("real_floor", "new", "copies")
    )
    assert table["value"].notna().all() and (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()
    scale = train.std(axis=0)
    scaled = [(X - train.mean(axis=0)) / scale for X in (new, train, test)]
    assert _of(table, "dcr_ratio", "new")["value"] == pytest.approx(dcr_ratio(*scaled))
    assert _of(table, "authenticity", "new")["value"] == pytest.approx(authenticity(*scaled[:2]))
    assert _of(table, "copying_statistic", "new")["value"] == pytest.approx(copying_statistic(*scaled))
    assert _of(table, "authenticity", "real_floor")["value"] == pytest.approx(authenticity(scaled[2], scaled[1]))
    floor = _of(table, "dcr_ratio", "real_floor")
    assert floor["value"] == 1 and 0.9 < floor["low"] < 1 < floor["high"] < 1.1
    assert floor["low"] < _of(table, "dcr_ratio", "new")["value"] < floor["high"]
    for metric in ("dcr_ratio", "authenticity", "copying_statistic"):
        assert _of(table, metric, "copies")["high"] < _of(table, metric, "real_floor")["low"], metric
    assert _of(table, "copying_statistic", "real_floor")["n"] == 200
    assert set(table.loc[table["method"] != "real_floor", "n"]) == {400}  # 500 copies cut to the test cells
    assert abs(_of(table, "copying_statistic", "real_floor")["value"]) < 3


def test_table_is_a_function_of_its_seed(sets: Sets) -> None:
    train, test, new = sets
    make: Callable[..., pd.DataFrame] = memorisation_table
    pd.testing.assert_frame_equal(make(train, test, {"new": new}, seed=4), make(train, test, {"new": new}, seed=4))
    assert not make(train, test, {"new": new}, seed=4).equals(make(train, test, {"new": new}, seed=5))


def test_intervals_have_the_width_of_repeated_draws(sets: Sets) -> None:
    """The spread over 40 new sets, of synthetic cells and of test cells, is that of the bootstrap."""
    train, test, new = sets
    found = memorisation_table(train, test, {"new": new}, draws=400)
    again = [memorisation_table(train, _cells(100 + s), {"new": _cells(200 + s)}, draws=1) for s in range(40)]
    for metric in ("dcr_ratio", "authenticity", "copying_statistic"):
        row = _of(found, metric, "new")
        spread = np.std([_of(table, metric, "new")["value"] for table in again])
        assert (row["high"] - row["low"]) / (2 * 1.96 * spread) == pytest.approx(1, abs=0.4), metric


def test_small_and_strange_sets_are_still_measured(sets: Sets) -> None:
    """Few cells take one region; so do cells that share no region with the test cells."""
    train, test, new = sets
    small = memorisation_table(train[:50], test[:30], {"new": new[:20]})
    assert small["value"].notna().all() and _of(small, "copying_statistic", "new")["n"] == 20
    far = memorisation_table(np.concatenate([train, np.full((1, 12), 500.0)]), test, {"far": new + 400, "new": new})
    assert _of(far, "copying_statistic", "far")["value"] > 10
    assert abs(_of(far, "copying_statistic", "new")["value"]) < 4
    with pytest.raises(ValueError, match="exact copies"):
        memorisation_table(train, train[:200], {"new": new})
    with pytest.raises(ValueError, match="sets of shape"):
        memorisation_table(train, test, {"new": new[:, :3]})
