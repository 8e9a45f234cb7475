"""The Vendi score, intervals over cells, and the table of all metrics."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from cytolib.evaluate.diversity import vendi_by_class, vendi_rows, vendi_score
from cytolib.evaluate.fidelity import fidelity_table
from cytolib.evaluate.neighbours import prdc
from cytolib.evaluate.resample import mean_interval, pairs_won, ratio_interval
from tests.test_fidelity_moments import mixed


def by_definition(X: np.ndarray) -> float:
    """From the (N, N) matrix of cosines."""
    cosines = X @ X.T / np.outer(np.linalg.norm(X, axis=1), np.linalg.norm(X, axis=1))
    values = np.linalg.eigvalsh(cosines / len(X)).clip(1e-300)
    return float(np.exp(-(values * np.log(values)).sum()))


@pytest.mark.parametrize(("n", "d"), [(60, 8), (10, 30)])
def test_vendi_score_is_its_definition(n: int, d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    X = mixed(1, n, d)
    assert vendi_score(X) == pytest.approx(by_definition(X))
    monkeypatch.setattr("cytolib.evaluate.blocks.BLOCK", 7)
    assert vendi_score(X.astype(np.float32)) == pytest.approx(by_definition(X), rel=1e-5)
    assert np.exp(vendi_rows(X).mean()) == pytest.approx(by_definition(X))


def test_vendi_score_of_known_sets() -> None:
    assert vendi_score(np.tile(np.arange(1.0, 4), (9, 1))) == pytest.approx(1)
    assert vendi_score(np.repeat(np.eye(5), 3, axis=0) * 7) == pytest.approx(5)
    X = mixed(2, 200, 6)
    assert vendi_score(3 * X) == pytest.approx(vendi_score(X))  # of directions alone
    with pytest.raises(ValueError, match="cell of zeros"):
        vendi_score(np.zeros((3, 2)))


def test_vendi_rows_are_the_first_order_effect_of_each_cell() -> None:
    X = mixed(3, 50, 4)
    rows = vendi_rows(X)
    for i in (0, 7, 31):  # entropy with the cell's weight raised by a share of 1e-4
        many = np.log(vendi_score(np.concatenate([np.tile(X, (200, 1)), X[[i]]])))
        effect = (many - np.log(vendi_score(X))) * (200 * 50 + 1)
        assert effect == pytest.approx(rows[i] - rows.mean(), abs=2e-3)


def test_vendi_ratio_interval_has_the_width_of_fresh_draws() -> None:
    found = []
    for seed in range(40):
        real, synthetic = np.random.default_rng(seed).standard_normal((2, 150, 5)) * [3, 2, 1, 1, 1]
        found.append(ratio_interval(vendi_rows(synthetic), vendi_rows(real), draws=200, seed=seed))
    value, low, high = np.array(found).T
    assert np.mean(high - low) / 3.92 == pytest.approx(value.std(), rel=0.25)
    assert np.mean((low <= 1) & (high >= 1)) > 0.85


def test_vendi_by_class_is_beside_as_many_real_cells() -> None:
    rng = np.random.default_rng(4)
    y = np.repeat(["blast", "lymphocyte", "monocyte"], [40, 30, 1])
    real = rng.standard_normal((71, 6))
    made, y_made = rng.standard_normal((45, 6)), np.repeat(["blast", "lymphocyte", "monocyte"], [20, 24, 1])
    made[:20, 1:] *= 0.03  # blasts nearly on one line
    table = vendi_by_class(real, y, made, y_made).set_index("label")
    assert table["n"].tolist() == [20, 24, 1]
    assert table.loc["blast", "value"] == pytest.approx(vendi_score(made[:20])) and table.loc["blast", "ratio"] < 0.5
    assert table.loc["lymphocyte", "ratio"] == pytest.approx(1, abs=0.15)
    assert len({vendi_by_class(real, y, made, y_made, seed=seed)["real"][0] for seed in range(3)}) == 3
    assert np.isnan(table.loc["monocyte", "value"]) and "1 cells of monocyte" in table.loc["monocyte", "reason"]


def test_intervals_of_means_are_those_of_theory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cytolib.evaluate.resample.CHUNK", 50_000)  # draws in several chunks
    values = np.random.default_rng(5).standard_normal(400)
    mean, low, high = mean_interval(values, draws=2000)
    assert mean == pytest.approx(values.mean())
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.08)
    assert (high + low) / 2 == pytest.approx(mean, abs=0.02)
    _, below, above = ratio_interval(np.zeros(9), values, draws=2000)
    assert (below, above) == pytest.approx(tuple(np.exp(-np.array(mean_interval(values, draws=2000)[:0:-1]))), abs=0.02)
    assert mean_interval(values, seed=1) == mean_interval(values, seed=1) != mean_interval(values, seed=2)
    assert mean_interval(values, level=0.5)[2] < mean_interval(values)[2]
    with pytest.raises(ValueError, match="one finite number a cell"):
        mean_interval(np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match=r"shape \(400, 1\)"):
        mean_interval(values[:, None])


def test_pairs_won_are_those_of_all_pairs() -> None:
    rng = np.random.default_rng(8)
    ours, theirs = rng.integers(6, size=20).astype(float), rng.integers(6, size=30).astype(float)
    counts = rng.integers(4, size=(5, 20)).astype(float), rng.integers(4, size=(5, 30)).astype(float)
    ordered = np.sign(ours[:, None] - theirs) / 2 + 0.5
    np.testing.assert_array_equal(
        pairs_won(ours, theirs, *counts), np.einsum("si,ij,sj->s", counts[0], ordered, counts[1])
    )


def test_a_training_cell_that_is_not_finite_is_refused_whether_it_is_drawn_or_not() -> None:
    rng = np.random.default_rng(9)
    train = rng.standard_normal((400, 4))
    train[7, 2] = np.nan
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        fidelity_table(train, rng.standard_normal((40, 4)), {"made": rng.standard_normal((40, 4))}, draws=5)


def test_table_tells_real_collapsed_and_wide_cells_apart() -> None:
    rng = np.random.default_rng(7)
    mixing = rng.standard_normal((24, 24)) / 5
    train, test, oracle = (rng.standard_normal((n, 24)) @ mixing + 4 for n in (700, 320, 300))
    centre = train.mean(axis=0)
    synthetic = {
        "oracle": oracle,
        "collapsed": centre + 0.7 * (oracle - centre),
        "wide": 1.3 * (oracle - centre) + centre,
    }
    table = fidelity_table(train, test, synthetic, draws=60)
    assert table.columns.tolist() == ["metric", "method", "value", "low", "high", "n"]
    assert set(table["n"]) == {300} and table["value"].notna().all()
    p_values = table["metric"] == "kernel_p_value"
    assert (table["low"].isna() == p_values).all() and (table["high"].isna() == p_values).all()
    ends = table[~p_values]
    assert (ends["low"] <= ends["value"]).all() and (ends["value"] <= ends["high"]).all()
    value = table.pivot(index="metric", columns="method", values="value")
    low, high = (table.pivot(index="metric", columns="method", values=end) for end in ("low", "high"))
    for metric in ("frechet_distance_pca", "frechet_distance_infinity", "kernel_distance"):
        assert low.loc[metric, ["collapsed", "wide"]].min() > high.loc[metric, "real_floor"], metric
    assert (value.loc["kernel_p_value", ["collapsed", "wide"]] == 0.005).all()
    assert (value.loc["kernel_p_value", ["oracle", "real_floor"]] > 0.01).all()
    assert abs(value.loc["frechet_distance_infinity", "oracle"]) < value.loc["frechet_distance_pca", "oracle"] / 2
    assert value.loc["density", "collapsed"] > 2 and value.loc["density", "wide"] < 0.6
    assert high.loc["recall", "collapsed"] < low.loc["recall", "real_floor"]
    assert high.loc["precision", "wide"] < low.loc["precision", "real_floor"]
    assert high.loc["coverage", "wide"] < low.loc["coverage", "real_floor"]
    assert low.loc["vendi_ratio", "oracle"] < 1 < high.loc["vendi_ratio", "oracle"]
    scaler = StandardScaler().fit(train)
    shared = prdc(scaler.transform(test), scaler.transform(oracle), k=5)
    assert value.loc[list(shared), "oracle"].to_dict() == pytest.approx(shared)
    line = centre + (oracle - centre) * np.r_[np.ones(2), np.full(22, 0.01)]
    narrow = fidelity_table(train, test, {"line": line}, draws=20).set_index(["metric", "method"])["value"]
    assert narrow["vendi_ratio", "line"] < 0.5
    again = fidelity_table(train, test, synthetic, draws=60)
    assert again.equals(table)
