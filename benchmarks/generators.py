"""Every generator in one table: right, various, new, discreet and useful, each metric beside that of real cells.

    python -m benchmarks.generators [--run FOLDER] [--seeds 0 1 2 3 4] [--out benchmarks/results/generators.csv]

Reads the cells and embeddings of a pipeline run (``papermill_runs/pbc``, else ``default``). For each seed every
generator is fitted on the training cells; its cells, three for each real one, train a logistic regression whose penalty
is chosen on validation cells (TSTR). A set of natural size is measured against the test cells. The row ``real`` is the
same for real cells: training cells against test cells. ``bootstrap`` copies: what the metrics must notice.

The recipe of the diffusion models was chosen on validation cells; the test cells are opened here.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed, parallel_config
from sklearn.preprocessing import StandardScaler

from cytolib import run
from cytolib.augment import GENERATORS, synthetic_only
from cytolib.classify.probes import tune_logistic_regression
from cytolib.data.attributes import load_attributes
from cytolib.data.table import image_root, read_cells
from cytolib.evaluate.attribute_frequencies import attribute_frequencies, attribute_gap
from cytolib.evaluate.cells import LabelledCells, load_splits
from cytolib.evaluate.fidelity import fidelity_table
from cytolib.evaluate.intervals import bootstrap_interval, named_ends, paired_bootstrap, t_interval
from cytolib.evaluate.membership import membership_by_distance, membership_inference
from cytolib.evaluate.memorisation import memorisation_table
from cytolib.evaluate.results import result_rows
from cytolib.evaluate.transfer import label_fidelity
from cytolib.evaluate.two_sample import two_sample_test

MULTIPLE = 3  # synthetic cells for each real one, as in the sweep of configs/pbc.yaml
DROPOUT = 0.3  # as in configs/pbc.yaml
MODELS = ("diffusion", "flow_matching")
NAMES = tuple(name for name in GENERATORS if name != "random_oversampling")  # the same cells as bootstrap
SHOWN = (
    "tstr_balanced_accuracy", "tstr_minus_real", "trts_recall", "frechet_distance_pca", "kernel_distance", "precision",
    "recall", "density", "coverage", "vendi_ratio", "two_sample_auc", "dcr_ratio", "authenticity", "copying_statistic",
    "membership_auc", "membership_attack_auc", "membership_by_distance_auc", "attribute_gap",
)  # fmt: skip
Rows = list[tuple[str, str, float, int]]  # method, metric, value, n


def draw(name: str, Z: np.ndarray, y: np.ndarray, seed: int, steps: int) -> tuple[np.ndarray, np.ndarray, Any]:
    """``MULTIPLE`` synthetic cells for each real one, their classes, and the diffusion model where there is one."""
    counts = {label: MULTIPLE * int((y == label).sum()) for label in np.unique(y)}
    sampler = GENERATORS[name](seed)
    if name not in MODELS:
        return *synthetic_only(sampler, Z, y, counts), None
    sampler.set_params(
        steps=steps, dropout=DROPOUT, device="cpu", sampling_strategy={k: n + n // MULTIPLE for k, n in counts.items()}
    )
    X, labels = sampler.fit_resample(Z, y)
    return X[len(Z) :], labels[len(Z) :], sampler.pipeline_


def measure_seed(
    splits: dict[str, LabelledCells], attributes: pd.DataFrame | None, seed: int, steps: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All metrics of one seed (method, metric, value, n), and every classifier's predictions of the test cells."""
    train, val, test = (splits[name] for name in ("train", "val", "test"))
    scaler = StandardScaler().fit(train.X)
    Z = {name: scaler.transform(splits[name].X) for name in ("train", "val", "test")}
    made = {name: draw(name, Z["train"], train.y, seed, steps) for name in NAMES}
    chosen = np.random.default_rng(seed).permutation(MULTIPLE * len(train))[: len(train)]
    natural = {name: X[chosen] for name, (X, _, _) in made.items()}
    rows: Rows = []
    for table in (fidelity_table, memorisation_table):
        found = table(Z["train"], Z["test"], natural, seed=seed)
        found["method"] = found["method"].replace("real_floor", "real")
        rows += list(zip(*(found[name].tolist() for name in ("method", "metric", "value", "n")), strict=True))
    sets = {"real": (Z["train"], train.y), **{name: part[:2] for name, part in made.items()}}
    identity = StandardScaler().fit(Z["train"])
    probes = {name: tune_logistic_regression(X, y, Z["val"], val.y, scaler=identity) for name, (X, y) in sets.items()}
    predictions = pd.DataFrame({name: probe.predict(Z["test"]).astype(str) for name, probe in probes.items()})
    n_components = min(64, Z["test"].shape[1])
    for name, (X, y) in {**sets, "real": (Z["test"], test.y)}.items():
        right = label_fidelity(probes["real"], X, y, Z["test"], test.y).iloc[-1]
        rows.append((name, "trts_recall", right["recall"], len(y)))
        tested = two_sample_test(Z["test"], natural.get(name, Z["train"]), n_components=n_components, seed=seed)
        rows.append((name, "two_sample_auc", tested.auc, tested.n))
    rows += _membership(Z, train.y, test.y, made, natural, seed)
    if attributes is not None:
        rows += _attributes(Z, train, test, attributes, {name: part[:2] for name, part in made.items()}, seed)
    return pd.DataFrame(rows, columns=["method", "metric", "value", "n"]).assign(seed=seed), predictions


def _membership(
    Z: dict[str, np.ndarray], y_train: np.ndarray, y_test: np.ndarray,
    made: dict[str, tuple[np.ndarray, np.ndarray, Any]], natural: dict[str, np.ndarray], seed: int,
) -> Iterator[tuple[str, str, float, int]]:  # fmt: skip
    for name, (_, _, pipe) in made.items():
        near = membership_by_distance(
            natural[name], Z["train"], Z["test"], y_members=y_train, y_non_members=y_test, seed=seed
        )
        yield name, "membership_by_distance_auc", near.auc, near.n
        if pipe is not None:
            found = membership_inference(pipe, Z["train"], y_train, Z["test"], y_test, seed=seed)
            auc = dict(zip(found["score"].tolist(), found["auc"].tolist(), strict=True))
            for score, metric in (("mean", "membership_auc"), ("attack", "membership_attack_auc")):
                yield name, metric, auc[score], int(found["n"].min())


def _attributes(
    Z: dict[str, np.ndarray], train: LabelledCells, test: LabelledCells, attributes: pd.DataFrame,
    made: dict[str, tuple[np.ndarray, np.ndarray]], seed: int,
) -> Iterator[tuple[str, str, float, int]]:  # fmt: skip
    """Mean gap of attribute frequencies over classes; of ``real``, what as many real cells would score."""
    known = [attributes.reindex(part.ids) for part in (train, test)]
    gaps = attribute_gap(attribute_frequencies(Z["train"], known[0], Z["test"], test.y, known[1], made, seed=seed))
    for name, part in gaps.groupby("method"):
        yield str(name), "attribute_gap", float(part["gap"].mean()), len(made[str(name)][0])
    yield "real", "attribute_gap", float(gaps["floor"].mean()), len(test)


def summarise(
    found: pd.DataFrame, predictions: list[pd.DataFrame], y_test: np.ndarray, shared: dict[str, Any]
) -> pd.DataFrame:
    """Result rows: every seed, and means with 95 % intervals (over seeds; of TSTR over test cells and seeds)."""
    tables = []
    for (method, metric), part in found.groupby(["method", "metric"], sort=False):
        fields = {**shared, "method": str(method), "n": int(part["n"].min())}
        for seed, value in zip(part["seed"].tolist(), part["value"].tolist(), strict=True):
            tables.append(result_rows({str(metric): value}, **fields, seed=seed))
        tables.append(result_rows(named_ends(str(metric), t_interval(part["value"].to_numpy())), **fields))
    called = {name: np.stack([frame[name].to_numpy(dtype=str) for frame in predictions]) for name in predictions[0]}
    for method, labels in called.items():
        score = bootstrap_interval(y_test, labels)
        difference = paired_bootstrap(y_test, labels, called["real"])
        metrics = named_ends("tstr_balanced_accuracy", score) | named_ends("tstr_minus_real", difference)
        tables.append(result_rows(metrics, **shared, method=str(method), n=len(y_test)))
    return pd.concat(tables, ignore_index=True)


def report(rows: pd.DataFrame) -> str:
    """Mean and interval of every metric, a column a generator."""
    overall = rows[rows["seed"] == -1]
    wide = overall.pivot_table(index="metric", columns="method", values="value", sort=False)
    lines = {}
    for metric in [name for name in SHOWN if name in wide.index]:
        lines[metric] = {method: f"{value:.3f}" for method, value in wide.loc[metric].items() if np.isfinite(value)}
    order = ["real", *NAMES]
    return pd.DataFrame.from_dict(lines, orient="index").reindex(columns=order).fillna("").to_string()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all seeds, two at a time, print the table and write the rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generators", description=__doc__.splitlines()[0])
    runs = run.root() / "papermill_runs"
    default = runs / "pbc" if (runs / "pbc" / "01_embed").is_dir() else runs / "default"
    parser.add_argument("--run", type=Path, default=default, help="folder of a pipeline run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=6000, help="training steps of the diffusion models")
    parser.add_argument("--processes", type=int, default=2, help="seeds at a time, a thread each")
    parser.add_argument("--out", type=Path, help="result table, a CSV file")
    given = parser.parse_args(arguments)
    cells_file = given.run / "00_data" / "cells.parquet"
    splits, names = load_splits(cells_file, given.run / "01_embed" / "embeddings.parquet")
    cells = read_cells(cells_file)
    attributes = load_attributes(cells, image_root(cells))
    with parallel_config(backend="loky", inner_max_num_threads=1):
        done = Parallel(n_jobs=given.processes, verbose=5)(
            delayed(measure_seed)(splits, attributes, seed, given.steps) for seed in given.seeds
        )
    shared = {"experiment": "generators", "split": "test", "selection": "validation", **names}
    rows = summarise(pd.concat([part for part, _ in done]), [part for _, part in done], splits["test"].y, shared)
    print(report(rows))
    if given.out is not None:
        with run.atomic_path(given.out) as temporary:
            rows.to_csv(temporary, index=False, lineterminator="\n", float_format="%.6g")


if __name__ == "__main__":
    main()
