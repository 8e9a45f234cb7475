"""The encoder that ships with the package, beside what it must beat, on the same cells.

    python -m benchmarks.small_encoder [--out FILE] [--mobilenet FILE] [--others NAME ...] [--limit N] [--valid]

Encoders: classical features; the backbone without any training; the learned one; learned and classical side by side;
an ImageNet MobileNetV2; any other that ``--others`` names. PBC's eight classes (whole frames): linear probe, twenty
neighbours, 5 and 10 labels a class; five classes from PBC's main set-up to other sites; WBCAtt's attributes; speed.
Penalties are chosen on validation cells, with few labels by cross-validation within those labels. Test cells and other
sites are opened once; with ``--valid`` PBC's validation cells take the place of its test cells, and nothing else is
read, for choosing. Intervals are 95 % bootstrap intervals over test cells within their class, with few labels over the
draws of labels too; differences are paired.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.preprocessing import StandardScaler

from benchmarks import probing
from benchmarks.encoders import ACROSS, IN_MEAN, TARGETS, common, read_cells
from cytolib import run, small
from cytolib.classify.attributes import attribute_probes
from cytolib.classify.probes import knn_probe, tune_logistic_regression
from cytolib.data.attributes import load_attributes
from cytolib.data.taxonomy import LABEL_SETS
from cytolib.embed import embed
from cytolib.evaluate.intervals import METRICS, named_ends, paired_bootstrap
from cytolib.evaluate.results import result_rows
from cytolib.exposure import NONE, encoder_exposure
from cytolib.timm_models import untrained

CS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
UNTRAINED = "untrained"
FEW = (5, 10)
DRAWS = 20
BASELINES = ("morphometry", probing.MOBILENET)
JOINED = f"{small.NAME}+morphometry"
SPEED_CELLS = 3072

Calls = dict[tuple[str, str, str], NDArray[np.str_]]  #: (experiment, domain, method) to predictions (S, M)


def few_label_calls(X: NDArray, y: NDArray, X_test: NDArray, n: int) -> NDArray[np.str_]:
    """(DRAWS, M) classes, each row by a probe on ``n`` labels a class; its penalty is chosen within those labels."""
    scaler = StandardScaler().fit(X)  # of all training cells: it needs no label
    Z, Z_test = scaler.transform(X), scaler.transform(X_test)
    draws = (_drawn(y, n, seed) for seed in range(DRAWS))
    called = Parallel(n_jobs=run.threads(), max_nbytes=None)(
        delayed(_one_draw)(Z[rows], y[rows], Z_test, seed) for seed, rows in enumerate(draws)
    )
    return np.array(called)


def _drawn(y: NDArray, n: int, seed: int) -> NDArray[np.intp]:
    """Rows of ``n`` cells of each class."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.choice(np.flatnonzero(y == c), n, replace=False) for c in np.unique(y)])


def _one_draw(known: NDArray, y: NDArray, test: NDArray, seed: int) -> NDArray[np.str_]:
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    search = GridSearchCV(LogisticRegression(max_iter=1000), {"C": CS}, scoring="balanced_accuracy", cv=folds)
    return search.fit(known, y).predict(test)


def on_pbc(pbc: pd.DataFrame, root: Path, encoder: str, tested: str) -> Calls:
    """Predictions on the ``tested`` split of PBC, eight classes, whole frames."""
    cells = pbc[pbc["split"] != "held_out"]
    X = embed(cells, root, encoder).X
    y, split = cells["label"].to_numpy(dtype=str), cells["split"].to_numpy(dtype=str)
    train, val, test = (split == name for name in ("train", "val", tested))
    known = X[train], y[train], X[val], y[val]
    linear = tune_logistic_regression(*known, Cs=CS, class_weight="balanced")
    calls = {
        ("pbc", "pbc_main", "logistic_regression"): linear.predict(X[test])[None],
        ("pbc", "pbc_main", "knn_20"): knn_probe(*known, neighbors=(20,)).predict(X[test])[None],
    }
    for n in FEW:
        calls["pbc", "pbc_main", f"labels_{n}"] = few_label_calls(X[train], y[train], X[test], n)
    return calls


def across_sites(pbc: pd.DataFrame, others: dict[str, pd.DataFrame], root: Path, encoder: str) -> Calls:
    """Predictions at other sites, five classes, by a probe that saw PBC's main set-up alone."""
    calls: Calls = {}
    for experiment, field_um in ACROSS.items():
        X = embed(pbc, root, encoder, field_of_view_um=field_um).X
        y, split = pbc["label"].to_numpy(dtype=str), pbc["split"].to_numpy(dtype=str)
        train, val = split == "train", split == "val"
        probe = tune_logistic_regression(X[train], y[train], X[val], y[val], Cs=CS, class_weight="balanced")
        calls[experiment, "pbc_lilac", "logistic_regression"] = probe.predict(X[split == "held_out"])[None]
        for name, cells in others.items():
            Z = embed(cells, root, encoder, field_of_view_um=field_um).X
            calls[experiment, name, "logistic_regression"] = probe.predict(Z)[None]
    return calls


def attribute_skill(pbc: pd.DataFrame, root: Path, encoder: str) -> pd.DataFrame:
    """How well each of WBCAtt's attributes can be read off the embeddings of test cells."""
    cells = pbc[pbc["split"].isin(("train", "test"))]
    values = load_attributes(cells, root)
    if values is None:
        raise FileNotFoundError(
            "WBCAtt's attributes are not under CYTOLIB_DATA; put them there (cytolib data get wbcatt)"
        )
    cells = cells[cells["cell_id"].isin(values.index)]
    X = embed(cells, root, encoder).X
    parts = [(cells["split"] == name).to_numpy() for name in ("train", "test")]
    known = [values.loc[cells.loc[part, "cell_id"]] for part in parts]
    return attribute_probes(X[parts[0]], known[0], X[parts[1]], known[1])


def speed(pbc: pd.DataFrame, root: Path, encoder: str) -> float:
    """Cells a second from files to embeddings, without a cache: the better of two runs."""
    cells, found = pbc.iloc[:SPEED_CELLS], []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as cache:
            started = time.perf_counter()
            embed(cells, root, encoder, cache=cache, progress=False)
            found.append(len(cells) / (time.perf_counter() - started))
    return max(found)


def _exposure(encoder: str, dataset: str, domain: str) -> str:
    """The column ``encoder_exposure``: an untrained network and ImageNet's photographs hold no cell."""
    if encoder.startswith((UNTRAINED, probing.MOBILENET)):
        return NONE
    return encoder_exposure(encoder, dataset, domain)


def compared(truth: dict[tuple[str, str], NDArray], calls: dict[str, Calls], tested: str) -> Iterator[pd.DataFrame]:
    """Scores of every encoder, and differences between each learned one and the baselines."""
    for encoder, own in calls.items():
        for (experiment, domain, method), called in own.items():
            y = truth[experiment, domain]
            kept = np.ones(len(y), dtype=bool) if experiment == "pbc" else common(y)
            metrics = probing.probe_metrics(y[kept], called[:, kept])
            for baseline in BASELINES:
                if baseline in calls and encoder.startswith(small.NAME):
                    pair = called[:, kept], calls[baseline][experiment, domain, method][:, kept]
                    for metric in METRICS:
                        name = f"{metric} less {baseline.removeprefix('timm:')}"
                        metrics |= named_ends(name, paired_bootstrap(y[kept], *pair, metric))
            dataset = "pbc" if domain.startswith("pbc") else domain
            yield result_rows(
                metrics, experiment=experiment, dataset=dataset, domain=domain,
                encoder=encoder, encoder_exposure=_exposure(encoder, dataset, domain), method=method,
                split=tested if experiment == "pbc" else "other site",
                n=int(kept.sum()), selection="validation" if method in ("logistic_regression", "knn_20") else "labels",
            )  # fmt: skip


def averaged(rows: pd.DataFrame) -> pd.DataFrame:
    """The plain mean over ``IN_MEAN`` of macro F1: three sites are no sample of sites."""
    part = rows[rows["domain"].isin(IN_MEAN) & (rows["metric"] == "macro_f1") & (rows["experiment"] != "pbc")]
    means = part.groupby(["experiment", "encoder"], sort=False, as_index=False).agg({"value": "mean", "n": "sum"})
    shared = part.drop(columns=["experiment", "encoder", "value", "n"]).iloc[:1]
    shared = shared.assign(dataset="mean", domain=f"mean of {', '.join(IN_MEAN)}")
    return means.merge(shared, how="cross")[rows.columns]


def attributes_and_speed(pbc: pd.DataFrame, root: Path, name: str, encoder: str) -> pd.DataFrame:
    """How well each attribute is read off the embeddings, and cells a second."""
    skills = attribute_skill(pbc, root, encoder)
    told = {f"skill[{what}]": float(skill) for what, skill in zip(skills["attribute"], skills["skill"], strict=True)}
    told |= {"mean_skill": float(skills["skill"].mean()), "cells_per_second": speed(pbc, root, encoder)}
    return result_rows(
        told, experiment="attributes and speed", dataset="pbc", domain="pbc_main", encoder=name, method="ridge",
        encoder_exposure=_exposure(name, "pbc", "pbc_main"), split="test", n=int(skills["n"].max()),
    )  # fmt: skip


def encoders_of(mobilenet: str, others: Sequence[str], scratch: Path) -> dict[str, str]:
    """Encoders by what rows call them; the MobileNetV2 also sees windows, so that what the window alone does shows."""
    own = "&".join(f"{key}={value}" for key, value in small.TRANSFORM.items())
    bare = scratch / "untrained.safetensors"
    save_file(untrained(small.ARCHITECTURE), bare)
    imagenet = probing.mobilenet(mobilenet)
    return {
        "morphometry": "morphometry",
        UNTRAINED: f"timm:{small.ARCHITECTURE}?{own}&image_size={small.IMAGE_SIZE}&weights={bare}",
        small.NAME: small.NAME,
        JOINED: JOINED,
        probing.MOBILENET: imagenet,
        f"{probing.MOBILENET}, windows": f"{imagenet}&framing=cell",
        **{name: name for name in others},
    }


def measured(names: dict[str, str], limit: int, scratch: Path, valid: bool) -> pd.DataFrame:
    """The rows of all encoders on PBC, with ``valid`` of its validation cells alone, and elsewhere."""
    root, calls, rest = run.data_root(), dict[str, Calls](), list[pd.DataFrame]()
    pbc = read_cells("pbc", limit, scratch)
    five = pbc[pbc["label"].isin(LABEL_SETS["five"].classes)]
    others = {} if valid else {name: read_cells(name, limit, scratch) for name in TARGETS}
    tested = "val" if valid else "test"
    for name, encoder in names.items():
        calls[name] = on_pbc(pbc, root, encoder, tested)
        if not valid:
            calls[name] |= across_sites(five, others, root, encoder)
            rest.append(attributes_and_speed(pbc, root, name, encoder))
    truth = {("pbc", "pbc_main"): pbc.loc[pbc["split"] == tested, "label"].to_numpy(dtype=str)}
    for experiment in ACROSS:
        truth[experiment, "pbc_lilac"] = five.loc[five["split"] == "held_out", "label"].to_numpy(dtype=str)
        truth |= {(experiment, name): cells["label"].to_numpy(dtype=str) for name, cells in others.items()}
    rows = pd.concat([*compared(truth, calls, tested), *rest], ignore_index=True)
    return rows if valid else pd.concat([rows, averaged(rows)], ignore_index=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and, with ``--out``, write the rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.small_encoder", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=None, help="data root, default CYTOLIB_DATA")
    parser.add_argument("--out", type=Path, default=None, help="result table: .parquet or .csv")
    parser.add_argument("--mobilenet", default="", help="weights of the MobileNetV2")
    parser.add_argument("--others", nargs="*", default=[], help="further encoders, by name")
    parser.add_argument("--limit", type=int, default=0, help="at most so many cells a class, split and domain: a trial")
    parser.add_argument("--valid", action="store_true", help="PBC's validation cells only: for choosing")
    options = parser.parse_args(arguments)
    if options.data is not None:
        os.environ["CYTOLIB_DATA"] = str(options.data.resolve())
    with tempfile.TemporaryDirectory() as scratch:
        names = encoders_of(options.mobilenet, options.others, Path(scratch))
        rows = measured(names, options.limit, Path(scratch), options.valid)
    print(probing.compact(rows, ("balanced_accuracy", "macro_f1"), ("experiment", "domain", "method", "encoder", "n")))
    if options.out is not None:
        probing.write(rows, options.out)


if __name__ == "__main__":
    torch.set_num_threads(run.threads())
    main()
