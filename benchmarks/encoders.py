"""Encoders side by side: probes on PBC, and from PBC to other laboratories.

    python -m benchmarks.encoders [--data DIR] [--out FILE] [--mobilenet FILE] [--dinobloom FILE] [--limit N]

PBC: eight classes, whole frames, the split of ``configs/pbc.yaml``. Across sites: five classes, trained on PBC's main
imaging set-up only, the central 22 um of every image, and to compare the whole frames that each site cut; each site
apart, over the classes that have at least four cells there. Chula's classes go with its slides: it is shown and is in
no mean. Penalty and number of neighbours are chosen on PBC's validation cells, the test cells and the other sites are
opened once. Intervals are 95 % bootstrap intervals over test cells within their class: no patients are named, so they
say nothing about other patients.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from benchmarks import probing
from benchmarks.bone_marrow import FIELD_UM
from cytolib import run
from cytolib.classify.probes import knn_probe, tune_logistic_regression
from cytolib.data.prepare import prepare_cells
from cytolib.data.taxonomy import LABEL_SETS
from cytolib.dinobloom import WIDTHS
from cytolib.embed import embed
from cytolib.evaluate.results import result_rows

TARGETS = ("zheng1", "zheng2", "chula")
IN_MEAN = ("zheng1", "zheng2", "pbc_lilac")
LEAST_CELLS = 4
SCORES = ("balanced_accuracy", "macro_f1")
#: Experiments across sites, and the field in micrometres: the same for all sites, or whatever frame each one cut.
ACROSS = {"encoders_across_sites": FIELD_UM, "encoders_across_sites (whole frames)": 0.0}


def read_cells(dataset: str, limit: int, scratch: Path) -> pd.DataFrame:
    """Cells of a data set, split as notebook 00 does by default (seed 0); at most ``limit`` a class, split, domain."""
    cells = prepare_cells(
        dataset,
        scratch,
        n_cells=0,
        n_held_out=0,
        image_size=0,
        val_fraction=0.2,
        test_fraction=0.2,
        label_set="eight" if dataset == "pbc" else "five",
        seed=0,
    ).cells
    if limit:
        order = cells.sort_values("cell_id").groupby(["label", "split", "domain"]).cumcount()
        cells = cells[order.reindex(cells.index) < limit]
    return cells.reset_index(drop=True)


def fit_probes(X: np.ndarray, y: np.ndarray, split: np.ndarray) -> dict[str, Pipeline]:
    """Both probes, fitted on the rows of ``train`` and tuned on those of ``val``."""
    known = X[split == "train"], y[split == "train"], X[split == "val"], y[split == "val"]
    return {
        "logistic_regression": tune_logistic_regression(*known, class_weight="balanced"),
        "knn": knn_probe(*known),
    }


def scored(probes: dict[str, Pipeline], X: np.ndarray, y: np.ndarray, **columns: Any) -> pd.DataFrame:
    """Rows of scores of fitted probes on cells that they have not seen."""
    columns["encoder_exposure"] = probing.exposure(columns["encoder"], columns["dataset"])
    return pd.concat(
        result_rows(
            probing.probe_metrics(y, probe.predict(X)), method=method, n=len(y), selection="validation", **columns
        )
        for method, probe in probes.items()
    )


def on_pbc(pbc: pd.DataFrame, root: Path, encoder: str) -> pd.DataFrame:
    """Eight classes of PBC, whole frames: scores on the test split."""
    cells = pbc[pbc["split"] != "held_out"]
    table = embed(cells, root, encoder, field_of_view_um=0.0)
    y, split = cells["label"].to_numpy(dtype=str), cells["split"].to_numpy(dtype=str)
    test = split == "test"
    columns = {"experiment": "encoders", "dataset": "pbc", "encoder": table.metadata["encoder"], "split": "test"}
    return scored(fit_probes(table.X, y, split), table.X[test], y[test], domain="pbc_main", **columns)


def across_sites(
    pbc: pd.DataFrame, others: dict[str, pd.DataFrame], root: Path, encoder: str, experiment: str
) -> pd.DataFrame:
    """Five classes: trained on PBC's main set-up, scored at each other site, and on average of three of them."""
    field_um = ACROSS[experiment]
    five = pbc[pbc["label"].isin(LABEL_SETS["five"].classes)]
    table = embed(five, root, encoder, field_of_view_um=field_um)
    y, split = five["label"].to_numpy(dtype=str), five["split"].to_numpy(dtype=str)
    probes = fit_probes(table.X, y, split)
    columns = {"experiment": experiment, "encoder": table.metadata["encoder"]}
    test, lilac = split == "test", (five["domain"] == "pbc_lilac").to_numpy()
    rows = [scored(probes, table.X[test], y[test], dataset="pbc", domain="pbc_main", split="test", **columns)]
    sites = {"pbc_lilac": (table.X[lilac], y[lilac])}
    for name, cells in others.items():
        sites[name] = embed(cells, root, encoder, field_of_view_um=field_um).X, cells["label"].to_numpy(dtype=str)
    for name, (X, labels) in sites.items():
        kept = common(labels)
        rows.append(scored(probes, X[kept], labels[kept], dataset=name, domain=name, split="other site", **columns))
    found = pd.concat(rows, ignore_index=True)
    return pd.concat([found, average(found)], ignore_index=True)


def common(labels: np.ndarray) -> np.ndarray:
    """Which cells are of a class with at least ``LEAST_CELLS`` cells: one basophil is no measure of basophils."""
    counts = pd.Series(labels).map(pd.Series(labels).value_counts())
    return (counts >= LEAST_CELLS).to_numpy()


def average(rows: pd.DataFrame) -> pd.DataFrame:
    """The plain mean over ``IN_MEAN`` of each score, without interval: three sites are no sample of sites."""
    part = rows[rows["domain"].isin(IN_MEAN) & rows["metric"].isin(SCORES)]
    if set(part["domain"]) != set(IN_MEAN):
        return rows.iloc[:0]
    means = part.groupby(["encoder", "method", "metric"], sort=False, as_index=False).agg({"value": "mean", "n": "sum"})
    shared = part.drop(columns=["encoder", "method", "metric", "value", "n"]).drop_duplicates("experiment")
    shared = shared.assign(dataset="mean", domain=f"mean of {', '.join(IN_MEAN)}")
    return means.merge(shared, how="cross")[rows.columns]


def dinobloom(file: str) -> str:
    """The encoder's name for a DinoBloom checkpoint: its size is read off the width of its tensors.

    Raises:
        FileNotFoundError, ValueError: if it is missing, or of no size that DinoBloom comes in.
    """
    from cytolib.weights import read_tensors

    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weights; give --dinobloom the file of a DinoBloom checkpoint")
    found = read_tensors(path)
    tensors = found.get("teacher", found)
    width = next((value.shape[-1] for name, value in tensors.items() if name.endswith("cls_token")), None)
    names = [name for name, expected in WIDTHS.items() if expected == width]
    if not names:
        raise ValueError(
            f"{path}: cls_token has width {width}; expected one of {list(WIDTHS.values())}, give DinoBloom's"
        )
    return f"{names[0]}?weights={path.resolve()}"


def report(rows: pd.DataFrame, with_dinobloom: bool) -> str:
    """The tables that are printed."""
    lines = []
    for experiment, title in (
        ("encoders", "PBC test split, eight classes, whole frame"),
        *(
            (name, f"Trained on PBC's main set-up, five classes, {um:g} um (0: whole frames)")
            for name, um in ACROSS.items()
        ),
    ):
        part = rows[rows["experiment"] == experiment]
        lines += [title, probing.compact(part, SCORES, ("encoder", "domain", "method", "n")), ""]
    lines.append("95 % intervals: bootstrap over test cells within their class; chula is a stress test and in no mean")
    if not with_dinobloom:
        lines.append("dinobloom-s, -b, -l, -g: not measured by us (give --dinobloom FILE)")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and, with ``--out``, write the rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encoders", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=None, help="data root, default CYTOLIB_DATA")
    parser.add_argument("--out", type=Path, default=None, help="result table: .parquet or .csv")
    parser.add_argument("--mobilenet", default="", help="weights of the MobileNetV2")
    parser.add_argument("--dinobloom", nargs="*", default=[], help="DinoBloom checkpoints, measured as further rows")
    parser.add_argument("--encoders", nargs="+", default=None, help="instead of morphometry and MobileNetV2")
    parser.add_argument("--limit", type=int, default=0, help="at most so many cells a class, split and domain: a trial")
    options = parser.parse_args(arguments)
    if options.out is not None and options.out.suffix not in (".parquet", ".csv"):
        parser.error(f"--out is {options.out}; expected a file that ends in .parquet or .csv")
    if options.data is not None:
        os.environ["CYTOLIB_DATA"] = str(options.data.resolve())  # where the registry's readers look
    encoders = options.encoders or ["morphometry", probing.mobilenet(options.mobilenet)]
    encoders += [dinobloom(file) for file in options.dinobloom]
    root = run.data_root()
    with tempfile.TemporaryDirectory() as scratch:
        pbc = read_cells("pbc", options.limit, Path(scratch))
        others = {name: read_cells(name, options.limit, Path(scratch)) for name in TARGETS}
        found = []
        for encoder in encoders:
            found += [on_pbc(pbc, root, encoder)]
            found += [across_sites(pbc, others, root, encoder, experiment) for experiment in ACROSS]
    rows = pd.concat(found, ignore_index=True)
    print(report(rows, with_dinobloom=bool(options.dinobloom)))
    if options.limit:
        print(f"A trial with at most {options.limit} cells a class, split and domain: not a result.")
    if options.out is not None:
        probing.write(rows, options.out)


if __name__ == "__main__":
    main()
