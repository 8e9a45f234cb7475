"""A contaminated test set shows gains where there are none; an honest one does not, and the parts of a gain add up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from imblearn.over_sampling import RandomOverSampler
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from sklearn.preprocessing import StandardScaler

from cytolib.evaluate import protocol
from cytolib.evaluate.intervals import METRICS, paired_bootstrap
from cytolib.evaluate.protocol import CONTAMINATED, HONEST, cross_validate, from_sampler, real_folds
from cytolib.evaluate.protocol_gain import PARTS, both_protocols, decompose, score_predictions, score_table

SIZES = {"common": 70, "rare": 30, "rarest": 10}
CONTAMINATED_SWITCH: dict[str, Any] = {"pooled": True, "generator_sees": "all"}
HONEST_SWITCH: dict[str, Any] = {"pooled": False, "generator_sees": "train fold"}
COPY = from_sampler(RandomOverSampler())


def cells(seed: int, multiple: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping classes in so many dimensions that a few cells are learned by heart; column 0 names the cell."""
    rng = np.random.default_rng(seed)
    y = np.repeat(list(SIZES), multiple * np.array(list(SIZES.values())))
    X = rng.standard_normal((len(y), 60))
    X[:, 1] += np.select([y == "rare", y == "rarest"], [1.5, 3.0])
    X[:, 0] = np.arange(len(y)) / len(y)
    return X, y


X, Y = cells(0)


def both(counts: list[int], **options: Any) -> pd.DataFrame:
    switches = (CONTAMINATED_SWITCH, HONEST_SWITCH)
    return pd.concat([cross_validate(X, Y, COPY, n_synthetic_per_class=counts, **s, **options) for s in switches])


@pytest.fixture(scope="module")
def copied() -> pd.DataFrame:
    return both([0, 20, 200], untouched=cells(1, multiple=8))


def test_copies_look_splendid_under_the_contaminated_protocol_only(copied: pd.DataFrame) -> None:
    scores = score_predictions(copied).set_index(["protocol", "scored", "metric", "n_per_class"])["value"].sort_index()
    published, honest = scores[CONTAMINATED, "mixed", "accuracy"], scores[HONEST, "real", "accuracy"]
    assert published[0] < 0.8 and published[0] + 0.05 < published[20] < published[200] and published[200] > 0.98
    assert scores[CONTAMINATED, "real", "accuracy"][200] > 0.95  # learned by heart through their copies
    assert abs(honest[200] - honest[0]) < 0.06
    assert scores[CONTAMINATED, "untouched", "accuracy"][200] < 0.8  # the truth about the same classifiers
    assert abs(scores[HONEST, "untouched", "accuracy"][200] - honest[200]) < 0.1


@pytest.mark.parametrize("metric", METRICS)
def test_parts_sum_to_the_published_gain(copied: pd.DataFrame, metric: str) -> None:
    found = decompose(copied, n_per_class=200, metric=metric).set_index("part")
    assert list(found.index) == list(PARTS)
    np.testing.assert_allclose(found["value"].iloc[:3].sum(), found["value"].iloc[3], atol=1e-12)
    scores = score_predictions(copied).set_index(["protocol", "scored", "metric", "n_per_class"])["value"].sort_index()
    mixed, real = (scores[CONTAMINATED, scored, metric, 200] for scored in ("mixed", "real"))
    honest, alone = (scores[HONEST, "real", metric, n] for n in (200, 0))
    np.testing.assert_allclose(found["value"], [mixed - real, real - honest, honest - alone, mixed - alone], atol=1e-12)
    assert (found["low"] <= found["value"] + 1e-9).all() and (found["value"] <= found["high"] + 1e-9).all()
    assert found.loc["published gain", "low"] > 0.1 and found.loc["leak", "low"] > 0.1
    assert found.loc["true gain", "low"] < 0.05


def test_intervals_are_those_of_the_paired_bootstrap(copied: pd.DataFrame) -> None:
    honest = copied[(copied["protocol"] == HONEST) & (copied["source"] == "real")].sort_values("cell")
    ours, alone = (honest[honest["n_per_class"] == n]["prediction"].to_numpy(str) for n in (200, 0))
    expected = paired_bootstrap(np.sort(Y), ours, alone, "macro_f1", draws=4000)
    found = decompose(copied, n_per_class=200, metric="macro_f1", draws=4000).set_index("part").loc["true gain"]
    np.testing.assert_allclose(found, expected, atol=0.012)
    assert found["high"] - found["low"] > 0.03
    again = decompose(copied, n_per_class=200, metric="macro_f1", draws=4000).set_index("part").loc["true gain"]
    pd.testing.assert_series_equal(found, again)


def test_scores_are_those_of_scikit_learn(copied: pd.DataFrame) -> None:
    scores = score_predictions(copied, by_fold=True)
    scores = scores.set_index(["protocol", "n_per_class", "fold", "scored", "metric"]).sort_index()
    for scored, sources in (("mixed", ["real", "synthetic"]), ("untouched", ["untouched"])):
        part = copied[
            (copied["protocol"] == CONTAMINATED) & (copied["n_per_class"] == 20) & (copied["fold"] == 2)
            & copied["source"].isin(sources)
        ]  # fmt: skip
        given = {"y_true": part["label"], "y_pred": part["prediction"], "sample_weight": part["weight"]}
        found = scores.loc[(CONTAMINATED, 20, 2, scored)]
        assert (found["n"] == len(part)).all()
        assert found.loc["accuracy", "value"] == pytest.approx(accuracy_score(**given))
        assert found.loc["balanced_accuracy", "value"] == pytest.approx(balanced_accuracy_score(**given))
        assert found.loc["macro_f1", "value"] == pytest.approx(f1_score(**given, average="macro"))


def test_untouched_cells_weigh_as_the_classes_do_in_the_small_set() -> None:
    many = np.repeat(list(SIZES), [20, 20, 40])
    frame = cross_validate(
        X, Y, COPY, n_synthetic_per_class=0, untouched=(np.zeros((80, 60)), many), **HONEST_SWITCH
    ).query("source == 'untouched' and fold == 0")
    shares = frame.groupby("label")["weight"].sum() / frame["weight"].sum()
    assert shares.to_dict() == pytest.approx({name: n / len(Y) for name, n in SIZES.items()})
    assert frame["weight"].mean() == pytest.approx(1)


def test_real_cells_lie_in_the_same_folds_under_every_protocol(copied: pd.DataFrame) -> None:
    fold = real_folds(Y)
    for _, part in copied[copied["source"] == "real"].groupby(["protocol", "n_per_class"]):
        ordered = part.sort_values("cell")
        np.testing.assert_array_equal(ordered["cell"], np.arange(len(Y)))
        np.testing.assert_array_equal(ordered["fold"], fold)
        np.testing.assert_array_equal(ordered["label"], Y)
    counts = pd.crosstab(fold, Y)
    assert (counts.max() - counts.min() <= 1).all() and (counts["rarest"] == 2).all()


def test_pooled_folds_share_out_the_synthetic_cells_of_each_class(copied: pd.DataFrame) -> None:
    made = copied[(copied["source"] == "synthetic") & (copied["n_per_class"] == 200)]
    assert set(made["protocol"]) == {CONTAMINATED}
    assert (pd.crosstab(made["fold"], made["label"]) == 40).all(axis=None)
    assert not made["cell"].duplicated().any()


def test_a_seed_is_its_folds() -> None:
    frames = [both([20], seed=seed, folds=3) for seed in (3, 3, 4)]
    pd.testing.assert_frame_equal(frames[0], frames[1])
    assert not frames[0]["cell"].equals(frames[2]["cell"])


class Recorder:
    """``generate`` and ``fit`` which remember what they were given; the generator copies, and marks its cells."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []
        self.asked: list[int] = []
        self.seeds: list[int] = []
        self.fits: list[tuple[np.ndarray, ...]] = []
        self.scalers: list[StandardScaler] = []

    def generate(self, X: np.ndarray, y: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        self.seen.append(X[:, 0])
        self.asked.append(n)
        self.seeds.append(seed)
        names = np.unique(y)
        made = np.tile(np.arange(n), len(names))  # in order, as no exchangeable generator would give them
        return np.column_stack([1000 + made, np.zeros((len(made), X.shape[1] - 1))]), np.repeat(names, n)

    def fit(self, *cells: Any) -> protocol.Predict:
        self.fits.append(cells[:4])
        self.scalers.append(cells[4])
        return lambda X: np.full(len(X), "common")


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("sees", ["all", "train fold"])
def test_who_sees_what(pooled: bool, sees: str) -> None:
    spy, fold, counts = Recorder(), real_folds(Y, seed=5), (0, 12, 25)
    frame = cross_validate(
        X, Y, spy.generate, n_synthetic_per_class=counts, pooled=pooled, generator_sees=sees, seed=5, fit=spy.fit
    )
    assert len(spy.seen) == (1 if sees == "all" else 5) == len(set(spy.seeds))
    for number, seen in enumerate(spy.seen):
        expected = np.ones(len(Y), bool) if sees == "all" else (fold != number) & (fold != (number + 1) % 5)
        np.testing.assert_array_equal(seen, X[expected, 0])  # honest: neither test nor validation cells
        assert spy.asked[number] == (25 if pooled or sees == "all" else 15)
    for number in range(5):
        before: set[float] = set()
        for k, n in enumerate(counts):
            X_train, y_train, X_val, y_val = spy.fits[3 * number + k]
            made, made_val = X_train[:, 0] >= 1000, X_val[:, 0] >= 1000
            train = (fold != number) & (fold != (number + 1) % 5)
            np.testing.assert_array_equal(X_train[~made], X[train])
            np.testing.assert_array_equal(y_train[~made], Y[train])
            np.testing.assert_array_equal(X_val[~made_val], X[fold == (number + 1) % 5])
            np.testing.assert_allclose(spy.scalers[3 * number + k].mean_, X[train].mean(axis=0))
            # ranks 0 to 11 lie in folds 0, 1, 2, 3, 4, 0, ...: three in folds 0 and 1, two in the others
            held = sum((r % 5) in (number, (number + 1) % 5) for r in range(n))
            assert pd.Series(y_train[made]).value_counts().to_dict() == ({c: n - held for c in SIZES} if n else {})
            assert made_val.sum() == (3 * sum(r % 5 == (number + 1) % 5 for r in range(n)) if pooled else 0)
            names = {f"{c}{v}" for c, v in zip(y_train[made], X_train[made, 0], strict=True)}
            assert before <= names  # smaller numbers are the first of larger ones
            before = names
            if sees == "all" or pooled:
                assert not names & {f"{c}{v}" for c, v in zip(y_val[made_val], X_val[made_val, 0], strict=True)}
    synthetic = frame[frame["source"] == "synthetic"].groupby("n_per_class").size().to_dict()
    assert synthetic == ({12: 36, 25: 75} if pooled else {})
    assert set(score_predictions(frame)["scored"]) == ({"mixed", "real", "synthetic"} if pooled else {"real"})


def test_order_of_the_generator_does_not_choose_the_folds() -> None:
    spy = Recorder()
    cross_validate(X, Y, spy.generate, n_synthetic_per_class=20, fit=spy.fit, **CONTAMINATED_SWITCH)
    train = spy.fits[0][0][:, 0]
    held = sorted(set(range(20)) - set(train[(train >= 1000)].astype(int) - 1000))
    assert held != [0, 1, 5, 6, 10, 11, 15, 16]


def test_without_synthetic_cells_the_protocols_are_one_and_nothing_is_generated() -> None:
    spy = Recorder()
    frames = [
        cross_validate(X, Y, spy.generate, n_synthetic_per_class=0, **switch).drop(columns="protocol")
        for switch in (CONTAMINATED_SWITCH, HONEST_SWITCH)
    ]
    pd.testing.assert_frame_equal(*frames)
    assert not spy.seen


def test_logit_adjustment_divides_by_the_training_frequencies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "DEFAULT_CS", (0.5,))
    scaler, other = StandardScaler().fit(X), cells(2)[0]
    predicted = protocol.fit_logit_adjusted(X, Y, X, Y, scaler)(other)
    plain = LogisticRegression(C=0.5, max_iter=1000).fit(scaler.transform(X), Y)
    odds = plain.predict_proba(scaler.transform(other)) / [70 / 110, 30 / 110, 10 / 110]
    assert (predicted == plain.classes_[odds.argmax(axis=1)]).mean() > 0.98  # fits are in float32
    assert (predicted == "rarest").sum() > (plain.predict(scaler.transform(other)) == "rarest").sum()


def test_logit_adjustment_chooses_its_penalty_with_the_adjustment() -> None:
    scaler, (X_val, y_val) = StandardScaler().fit(X), cells(3)
    chosen = balanced_accuracy_score(y_val, protocol.fit_logit_adjusted(X, Y, X_val, y_val, scaler)(X_val))
    for C in protocol.DEFAULT_CS:
        plain = LogisticRegression(C=C, max_iter=1000).fit(scaler.transform(X), Y)
        odds = plain.predict_proba(scaler.transform(X_val)) / [70 / 110, 30 / 110, 10 / 110]
        assert chosen >= balanced_accuracy_score(y_val, plain.classes_[odds.argmax(axis=1)]) - 0.02


def test_class_weights_call_the_rarest_class_more_often() -> None:
    scaler, other = StandardScaler().fit(X), cells(2)[0]
    plain, weighted = (protocol.CLASSIFIERS[name](X, Y, X, Y, scaler)(other) for name in ("plain", "class weights"))
    assert (weighted == "rarest").sum() > (plain == "rarest").sum()


def test_a_sampler_gives_its_new_cells() -> None:
    sampler = RandomOverSampler()
    new_X, new_y = from_sampler(sampler)(X, Y, 90, 1)
    assert dict(zip(*np.unique(new_y, return_counts=True), strict=True)) == dict.fromkeys(SIZES, 90)
    assert set(new_X[new_y == "rarest", 0]) <= set(X[Y == "rarest", 0])
    np.testing.assert_array_equal(new_X, from_sampler(sampler)(X, Y, 90, 1)[0])
    assert not np.array_equal(new_X, from_sampler(sampler)(X, Y, 90, 2)[0])
    assert sampler.random_state is None and sampler.sampling_strategy == "auto"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"X": X[:, 0]}, r"X has shape \(110,\) with classes \(110,\)"),
        ({"y": Y[:-1]}, r"X has shape \(110, 60\) with classes \(109,\)"),
        ({"y": np.r_[Y[:-7], ["common"] * 7]}, "class 'rarest' has 3 cells"),
        ({"y": np.full(110, "one")}, "class 'one' has 110 cells of 1 classes"),
        ({"folds": 2}, "folds is 2, expected 3 or more"),
        ({"n_synthetic_per_class": [10, 4]}, r"n_synthetic_per_class is \[10, 4\], expected 0, or 5 or more"),
        ({"n_synthetic_per_class": []}, r"n_synthetic_per_class is \[\]"),
        ({"n_synthetic_per_class": -5}, r"n_synthetic_per_class is \[-5\]"),
        ({"generator_sees": "test fold"}, "generator_sees 'test fold', expected True or False, 'all' or"),
        ({"generate": lambda X, y, n, seed: (X, y)}, "generate gave cells .* and 12 cells of each of"),
        ({"untouched": (X[:80], Y[:80])}, r"untouched cells are of classes \['common', 'rare'\]"),
        ({"untouched": (X[:80], Y)}, r"untouched has shape \(80, 60\)"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(changed: dict[str, Any], message: str) -> None:
    given = {"X": X, "y": Y, "generate": COPY, "n_synthetic_per_class": 20, **HONEST_SWITCH, **changed}
    with pytest.raises(ValueError, match=message):
        cross_validate(given.pop("X"), given.pop("y"), given.pop("generate"), **given)


def test_parts_of_unpaired_predictions_are_refused(copied: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="no real cell of protocol 'contaminated' with 100 synthetic cells"):
        decompose(copied, n_per_class=100)
    with pytest.raises(ValueError, match="metric is 'auc', expected one of"):
        decompose(copied, n_per_class=20, metric="auc")
    other = cross_validate(X, Y, COPY, n_synthetic_per_class=[0, 20], seed=1, **HONEST_SWITCH)
    with pytest.raises(ValueError, match="not in the same folds"):
        decompose(pd.concat([copied[copied["protocol"] == CONTAMINATED], other]), n_per_class=20)


def test_both_protocols_of_several_generators_make_one_table() -> None:
    samplers = {"a": RandomOverSampler(), "b": RandomOverSampler()}
    found = both_protocols(X, Y, samplers, n_synthetic_per_class=[20], seed=1)
    pd.testing.assert_frame_equal(found["a"], found["b"])  # samplers are seeded by the protocol
    expected = decompose(found["a"], n_per_class=20, metric="macro_f1", draws=20)
    assert expected["part"].tolist() == list(PARTS)
    table = score_table(found)
    assert set(table["generator"]) == {"none", "a", "b"} and set(table["n_per_class"]) == {0, 20}
    zero = table[table["generator"] == "none"]
    assert set(zero["protocol"]) == {HONEST} and not zero.duplicated(["scored", "metric"]).any()
    by_fold = score_predictions(found["a"], by_fold=True)
    part = by_fold[(by_fold["protocol"] == HONEST) & (by_fold["n_per_class"] == 20) & (by_fold["scored"] == "real")]
    row = table[(table["generator"] == "a") & (table["protocol"] == HONEST) & (table["scored"] == "real")]
    for metric, values in part.groupby("metric")["value"]:
        assert row.set_index("metric").loc[metric, "value"] == pytest.approx(values.mean())
        assert (
            row.set_index("metric").loc[metric, "low"] <= values.mean() <= row.set_index("metric").loc[metric, "high"]
        )
