"""Maturity: an axis that is there is found, one that is not is not, and no unit is in two folds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau, norm, spearmanr

from cytolib.data.taxonomy import MATURITY
from cytolib.evaluate.maturity import (
    cross_validated_scores,
    grouped_folds,
    maturity_axis,
    maturity_rows,
    maturity_scores,
    pseudotime,
)
from cytolib.evaluate.ordering import ordering_metrics
from cytolib.evaluate.results import COLUMNS

STAGES = MATURITY["myeloid"]


def marrow(n: int = 300, seed: int = 0, signal: float = 3.0) -> tuple[np.ndarray, pd.DataFrame, np.ndarray]:
    """Embeddings with one direction of maturity, turned so that no column is it; every tenth cell of another line."""
    rng = np.random.default_rng(seed)
    stage = rng.integers(len(STAGES), size=n)
    X = rng.standard_normal((n, 20))
    X[:, 0] += signal * stage
    X = X @ np.linalg.qr(np.random.default_rng(9).standard_normal((20, 20)))[0]
    names = np.where(np.arange(n) % 10 == 9, "lymphocyte", np.array(STAGES)[stage])
    return X, pd.DataFrame({"cell_id": [f"{k:04}" for k in range(n)], "cell_type": names}), stage


def test_known_axis_is_recovered_out_of_fold() -> None:
    X, cells, stage = marrow()
    frame = cross_validated_scores(X, cells, "myeloid")
    assert len(frame) == 270 and set(frame["line"]) == {"myeloid"}
    np.testing.assert_array_equal(frame["stage"], stage[frame.index])
    metrics = ordering_metrics(frame["score"].to_numpy(), frame["stage"])
    assert metrics["spearman"] > 0.95 and metrics["concordance"] > 0.98 and metrics["adjacent_concordance"] > 0.93
    assert metrics["kendall_tau_b"] > 0.95 * metrics["kendall_tau_b[ceiling]"]
    assert metrics["mean_absolute_error"] < 0.4


def test_shuffled_stages_are_not_ordered() -> None:
    X, cells, _ = marrow()
    found = [cross_validated_scores(X, cells, "myeloid", seed=seed, shuffle=True) for seed in range(4)]
    metrics = [ordering_metrics(frame["score"].to_numpy(), frame["stage"], draws=10) for frame in found]
    assert abs(np.mean([m["spearman"] for m in metrics])) < 0.12
    assert abs(np.mean([m["adjacent_concordance"] for m in metrics]) - 0.5) < 0.06


def test_scores_of_a_fold_do_not_know_its_own_cells() -> None:
    """Noise for embeddings: in the training cells a ridge would find an order, out of fold there is none."""
    X, cells, _ = marrow(signal=0.0)
    wide = np.random.default_rng(3).standard_normal((len(X), 600))
    frame = cross_validated_scores(wide, cells, "myeloid")
    assert abs(ordering_metrics(frame["score"].to_numpy(), frame["stage"], draws=10)["spearman"]) < 0.15


def test_no_unit_is_in_two_folds_and_every_class_in_each() -> None:
    rng = np.random.default_rng(0)
    labels, units = rng.integers(4, size=200), rng.integers(70, size=200)
    fold = grouped_folds(labels, units, seed=1)
    assert pd.Series(fold).groupby(units).nunique().max() == 1
    assert pd.crosstab(fold, labels).to_numpy().min() > 0
    np.testing.assert_array_equal(fold, grouped_folds(labels, units, seed=1))
    assert (fold != grouped_folds(labels, units, seed=2)).any()


def test_copies_of_cells_do_not_lift_the_score() -> None:
    """Each cell twice, nothing to learn: torn apart, the copies are found again; kept together, they are not."""
    X, cells, _ = marrow(150, signal=0.0)
    wide = np.random.default_rng(3).standard_normal((150, 600))
    twice, both = np.concatenate([wide, wide]), pd.concat([cells, cells], ignore_index=True)
    units = np.tile(np.arange(150), 2)
    scored = {
        name: ordering_metrics(frame["score"].to_numpy(), frame["stage"], draws=10)["spearman"]
        for name, frame in (
            ("together", cross_validated_scores(twice, both, "myeloid", units)),
            ("torn", cross_validated_scores(twice, both, "myeloid")),
        )
    }
    assert scored["torn"] > 0.4 and abs(scored["together"]) < 0.2


def test_folds_that_tear_a_unit_apart_are_refused() -> None:
    X, cells, _ = marrow(60)
    units = np.arange(60) // 2
    with pytest.raises(ValueError, match="unit 0 has cells in 2 folds") as error:
        cross_validated_scores(X, cells, "myeloid", units, folds=np.arange(60) % 2)
    assert "\n" not in str(error.value)


def test_fixed_split_gives_a_frame_for_a_figure() -> None:
    X, cells, stage = marrow()
    train = np.arange(len(X)) < 200
    mine = train & (cells["cell_type"] != "lymphocyte").to_numpy()
    axis = maturity_axis(X[mine], stage[mine])
    frame = maturity_scores(axis, X[~train], cells[~train], "myeloid")
    assert list(frame.columns) == ["cell_id", "cell_type", "line", "stage", "score"]
    assert spearmanr(frame["score"], frame["stage"]).statistic > 0.95
    assert axis.alpha_ in axis.validation_errors_
    assert axis.validation_errors_[axis.alpha_] == min(axis.validation_errors_.values())


def test_rare_stages_weigh_as_much_as_common_ones() -> None:
    X, cells, stage = marrow(600)
    keep = (stage != 0) | (np.arange(600) % 8 == 0)
    axis = maturity_axis(X[keep], stage[keep], alphas=[1e4])
    plain = axis[-1].__class__(alpha=1e4).fit(axis[0].transform(X[keep]), stage[keep])
    error = [abs(model.predict(axis[0].transform(X[stage == 0])).mean()) for model in (axis[-1], plain)]
    assert error[0] < error[1]


def test_pseudotime_orders_without_stages() -> None:
    X, cells, stage = marrow(400, signal=5.0)
    for reverse in (False, True):  # the end that is called young decides the direction
        time = pseudotime(X, stage == (5 if reverse else 0))
        metrics = ordering_metrics(-time if reverse else time, stage, in_stages=False)
        assert metrics["spearman"] > 0.9
        assert "mean_absolute_error" not in metrics
    np.testing.assert_array_equal(pseudotime(X, stage == 0), pseudotime(X, stage == 0))


def test_pseudotime_refuses_a_graph_in_pieces() -> None:
    X = np.random.default_rng(0).standard_normal((80, 5))
    X[40:] += 1000
    with pytest.raises(ValueError, match="falls into 2 pieces"):
        pseudotime(X, np.arange(80) < 10, n_neighbors=5)


def test_metrics_are_those_of_scipy_ties_and_all() -> None:
    rng = np.random.default_rng(0)
    stages = rng.integers(5, size=120)
    score = np.round(stages + 2 * rng.standard_normal(120))  # many equal scores
    metrics = ordering_metrics(score, stages)
    assert metrics["spearman"] == pytest.approx(spearmanr(score, stages).statistic)
    assert metrics["kendall_tau_b"] == pytest.approx(kendalltau(score, stages).statistic)
    pairs = [
        np.mean([(a < b) + 0.5 * (a == b) for a in score[stages == k] for b in score[stages == k + 1]])
        for k in range(4)
    ]
    assert metrics["adjacent_concordance"] == pytest.approx(np.mean(pairs))
    assert ordering_metrics(stages, stages)["concordance"] == 1.0
    assert ordering_metrics(np.arange(120.0), np.sort(stages))["kendall_tau_b"] == pytest.approx(
        metrics["kendall_tau_b[ceiling]"]
    )


def test_stages_that_nobody_has_are_no_gap() -> None:
    """Peripheral blood has no myeloblasts: neighbours are the stages that are there."""
    stages = np.repeat([1, 3, 4], 10)
    assert ordering_metrics(stages + 0.0, stages)["adjacent_concordance"] == 1.0


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    truth = norm.cdf(1 / np.sqrt(2))  # concordance of two normal distributions that are one apart
    stages, covered = np.repeat([0, 1], 60), 0
    for seed in range(100):
        score = np.random.default_rng(seed).standard_normal(120) + stages
        metrics = ordering_metrics(score, stages, draws=200, seed=seed)
        covered += metrics["adjacent_concordance[low]"] <= truth <= metrics["adjacent_concordance[high]"]
    assert 86 <= covered <= 100


def test_interval_over_draws_of_the_folds_is_wider_where_they_disagree() -> None:
    rng = np.random.default_rng(0)
    stages = np.repeat(np.arange(4), 50)
    one = stages + rng.standard_normal(200)
    same = ordering_metrics(np.stack([one, one]), stages)
    alone = ordering_metrics(one, stages)
    unlike = ordering_metrics(np.stack([one, rng.standard_normal(200)]), stages)
    assert same["spearman"] == pytest.approx(alone["spearman"])
    width = [m["spearman[high]"] - m["spearman[low]"] for m in (same, unlike)]
    assert width[1] > 3 * width[0]


def test_rows_are_rows_of_the_result_table() -> None:
    X, cells, _ = marrow(120)
    frame = cross_validated_scores(X, cells, "myeloid")
    rows = maturity_rows(
        frame["score"].to_numpy(),
        frame["stage"],
        line="myeloid",
        method="ridge",
        dataset="x",
        encoder="y",
        split="3 folds",
    )
    assert list(rows.columns) == COLUMNS
    assert set(rows["experiment"]) == {"maturity_myeloid"} and set(rows["n"]) == {len(frame)}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda X, c, s: cross_validated_scores(X, c, "lymphoid"), "line is 'lymphoid'"),
        (lambda X, c, s: cross_validated_scores(X[:5], c, "myeloid"), "a row a cell"),
        (lambda X, c, s: cross_validated_scores(X, c.assign(cell_type="platelet"), "myeloid"), "0 stages"),
        (lambda X, c, s: cross_validated_scores(X, c, "myeloid", np.repeat(0, len(c))), "has 1 independent"),
        (lambda X, c, s: grouped_folds(s, n_folds=1), "n_folds is 1"),
        (lambda X, c, s: grouped_folds([]), "0 independent"),
        (lambda X, c, s: maturity_axis(X, s, alphas=[0.0]), "positive"),
        (lambda X, c, s: maturity_axis(np.where(np.arange(20) == 3, np.nan, X), s), "X, row 0 holds NaN"),
        (lambda X, c, s: maturity_axis(X, np.zeros(len(X))), "two stages or more"),
        (lambda X, c, s: pseudotime(X, np.zeros(len(X), bool)), "some, not all"),
        (lambda X, c, s: pseudotime(X, s == 0, n_neighbors=1), "n_neighbors is 1"),
        (lambda X, c, s: ordering_metrics(s[:-1], s), "a score and a stage a cell|finite"),
        (lambda X, c, s: ordering_metrics(np.full(len(s), np.nan), s), "finite"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, words: str) -> None:  # noqa: ANN001
    X, cells, stage = marrow(60)
    with pytest.raises(ValueError, match=words) as error:
        call(X, cells, stage)
    assert "\n" not in str(error.value)
