"""The benchmark of CytoDiff's protocol: small sets with a long tail, a tidy table, gains that add up, curves."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from imblearn.over_sampling import RandomOverSampler

from benchmarks import cytodiff_protocol as benchmark
from cytolib import figures
from cytolib.evaluate.cells import LabelledCells
from cytolib.evaluate.protocol import CONTAMINATED, HONEST
from cytolib.figures.protocol import protocol_curves


def cells(n: int = 100) -> LabelledCells:
    """Three classes in sixty dimensions: a few cells of them are learned by heart."""
    rng = np.random.default_rng(0)
    y = np.repeat(["a", "b", "c"], [n, 4 * n, 2 * n])
    X = rng.standard_normal((len(y), 60)) + (y == "a")[:, None] * 0.2 - (y == "c")[:, None] * 0.2
    return LabelledCells(np.arange(len(y)).astype(str), X, y, np.full(len(y), "site"))


def test_small_sets_have_a_long_tail_in_the_natural_order() -> None:
    y = cells().y
    assert benchmark.class_sizes(y, largest=90, smallest=10) == {"b": 90, "c": 30, "a": 10}
    assert list(benchmark.class_sizes(y, largest=90, smallest=10)) == ["b", "c", "a"]
    assert benchmark.class_sizes(y, largest=400, smallest=100) == {"b": 200, "c": 100, "a": 50}  # half is untouched
    inside = benchmark.small_set(y, {"b": 90, "c": 30, "a": 10}, seed=3)
    assert {name: int(inside[y == name].sum()) for name in "abc"} == {"a": 10, "b": 90, "c": 30}
    np.testing.assert_array_equal(inside, benchmark.small_set(y, {"b": 90, "c": 30, "a": 10}, seed=3))
    assert (inside != benchmark.small_set(y, {"b": 90, "c": 30, "a": 10}, seed=4)).any()


@pytest.fixture
def run_of_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for file in ("00_data/cells.parquet", "01_embed/embeddings.parquet"):
        (tmp_path / "default" / file).parent.mkdir(parents=True)
        (tmp_path / "default" / file).touch()
    monkeypatch.setenv("CYTOLIB_RUNS", str(tmp_path))
    monkeypatch.setattr(benchmark, "load_splits", lambda *files: ({"train": cells()}, {"dataset": "d", "encoder": "e"}))
    monkeypatch.setattr(benchmark, "generators", lambda steps: {"bootstrap": RandomOverSampler()})
    monkeypatch.setattr(benchmark, "class_sizes", partial(benchmark.class_sizes, largest=60, smallest=15))
    return tmp_path


def test_the_table_says_what_repeated_cells_gain(run_of_cells: Path, capsys: pytest.CaptureFixture) -> None:
    out, figure = run_of_cells / "table.csv", run_of_cells / "figure.png"
    arguments = ["--seeds", "0", "1", "--counts", "10", "60", "--processes", "1", "--out", str(out)]
    benchmark.main([*arguments, "--figure", str(figure)])
    rows, printed = pd.read_csv(out), capsys.readouterr().out
    assert list(rows) == [*benchmark.KEYS, "seed", "value", "n"]
    assert not rows.duplicated([*benchmark.KEYS, "seed"]).any()
    assert set(rows["classifier"]) == {"plain", "class weights", "logit adjustment"}
    assert (rows.loc[rows["generator"] == "none", "n_per_class"] == 0).all()
    accuracy = rows[rows["metric"] == "accuracy"].groupby(["protocol", "scored", "n_per_class"])["value"].mean()
    assert accuracy["contaminated", "mixed", 60] > 0.9 > 0.8 > accuracy["honest", "real", 60]
    assert (rows.query("scored == 'untouched'")["n"] == 5 * (700 - rows.query("scored == 'real'")["n"].iloc[0])).all()

    gains = benchmark.gains(rows, "accuracy").set_index(["n_per_class", "part"])["value"]
    for n in (10, 60):
        whole = (
            accuracy["contaminated", "mixed", n]
            - rows.query("classifier == 'plain' and generator == 'none' and scored == 'real' and metric == 'accuracy'")[
                "value"
            ].mean()
        )
        assert gains[n]["published gain"] == pytest.approx(whole)
        assert gains[n].drop("published gain").sum() == pytest.approx(whole)
    assert f"{gains[60]['published gain']:+.3f}" in printed
    assert figure.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "1"], "--seeds is [1]; expected two or more"),
        (["--out", "table.txt"], "expected a file that ends in .csv"),
        (["--run", "nowhere"], "of a run nowhere in"),
    ],
)
def test_bad_arguments_are_refused(
    arguments: list[str], message: str, run_of_cells: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        benchmark.main(arguments)
    assert message in capsys.readouterr().err


def curves_table() -> pd.DataFrame:
    """A table as the benchmark sums it up."""
    rows = []
    for metric, shift in (("accuracy", 0.0), ("macro_f1", -0.1)):
        for name, gain in (("plain", 0.0), ("class weights", 0.02), ("logit adjustment", 0.03)):
            rows += [("none", name, 0, HONEST, scored, metric, 0.7 + shift + gain) for scored in ("real", "untouched")]
        for generator in ("bootstrap", "diffusion"):
            for k, n in enumerate((5000, 100)):
                for scored, value in (("mixed", 0.95), ("real", 0.9), ("untouched", 0.72)):
                    value = value + shift - 0.1 * k
                    rows.append((generator, "plain", n, CONTAMINATED, scored, metric, value))
                rows += [
                    (generator, "plain", n, HONEST, scored, metric, 0.71 + shift) for scored in ("real", "untouched")
                ]
    columns = ["generator", "classifier", "n_per_class", "protocol", "scored", "metric", "value"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(low=frame["value"] - 0.02, high=frame["value"] + 0.02)


def test_curves_begin_at_real_cells_alone_and_follow_the_numbers() -> None:
    figures.style()
    table = curves_table()
    table.loc[table["generator"] == "diffusion", "low"] -= 0.3  # the last column's band is not cut off
    fig = protocol_curves(table)
    for ax, metric in zip(fig.axes[::2], ("accuracy", "macro_f1"), strict=True):
        banded = (table["metric"] == metric) & (table["protocol"] == HONEST) & (table["scored"] == "real")
        assert ax.get_ylim()[0] <= table.loc[banded, "low"].min() and ax.get_ylim()[1] == 1.01
    assert len(fig.axes) == 4
    lines = {str(line.get_label()): line for line in fig.axes[3].lines}  # macro F1 of the second generator
    np.testing.assert_allclose(lines["contaminated: pooled test fold, as published"].get_ydata(), [0.6, 0.75, 0.85])
    np.testing.assert_allclose(lines["honest: real cells that no fit has seen"].get_ydata(), [0.6, 0.61, 0.61])
    np.testing.assert_allclose(lines["real cells alone, logit adjustment"].get_ydata(), 0.63)
    assert [text.get_text() for text in fig.axes[3].get_xticklabels()] == ["0", "100", "5,000"]
    first, second = io.BytesIO(), io.BytesIO()
    for buffer in (first, second):
        protocol_curves(curves_table()).savefig(buffer, format="png", metadata={"Software": None})
    assert first.getvalue() == second.getvalue()


def test_curves_need_a_beginning() -> None:
    table = curves_table()
    for part in (table[table["generator"] != "none"], table[table["generator"] == "none"]):
        with pytest.raises(ValueError, match="expected one or more, and 'none' with the classifier 'plain'"):
            protocol_curves(part)
