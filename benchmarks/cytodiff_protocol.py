"""How much of a published gain is the test set: CytoDiff's protocol and an honest one, side by side.

    OMP_NUM_THREADS=1 python -m benchmarks.cytodiff_protocol [--run NAME] [--out FILE] [--figure FILE] [--processes 2]

CytoDiff (arXiv 2507.05063) draws its folds after real and synthetic cells were pooled, and its generator has seen the
real test cells. Here this protocol ("contaminated") stands beside folds of real cells that are drawn first ("honest"),
on a small long-tailed set cut out of the training split of a run: a few hundred cells of the most frequent class down
to 16 of the rarest. All other training cells of the run are ``untouched``: how good the same classifiers are on
thousands of new real cells, weighted to the classes' proportions in the small set. The test split is not opened.

The contaminated generator carries cells of the test and validation folds into training, so its classifiers know more
real cells than the honest ones, and may be better on untouched ones too, by far less than their own test fold says.

Generators: ``bootstrap`` repeats real cells and so adds nothing, ``class_gaussian`` is a Gaussian a class,
``diffusion`` the project's model. The control is the bootstrap: what it gains is the protocol. A seed is a small set,
folds and a generator; intervals are Student's t over seeds. The sets of two seeds share cells of the frequent classes,
all are of one laboratory: intervals say nothing about another one. About ten minutes of two cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from imblearn.over_sampling import RandomOverSampler
from joblib import Parallel, delayed, parallel_config
from numpy.typing import NDArray

from cytolib import figures, run
from cytolib.augment import ClassGaussianOverSampler, DiffusionOverSampler
from cytolib.evaluate.cells import LabelledCells, load_splits
from cytolib.evaluate.intervals import METRICS, t_interval
from cytolib.evaluate.protocol import CLASSIFIERS, CONTAMINATED, HONEST, cross_validate, fit_plain, from_sampler
from cytolib.evaluate.protocol_gain import PARTS, parts, score_predictions
from cytolib.figures.protocol import KEYS, protocol_curves, protocol_summary
from cytolib.figures.saving import write_figure

SEEDS = (0, 1, 2, 3, 4)
COUNTS = (100, 500, 1000, 3000, 5000)
LARGEST, SMALLEST = 300, 16
NO_GENERATOR = "none"
#: Columns of the printed table: protocol and scored set.
SHOWN = {
    "contaminated": (CONTAMINATED, "mixed"),
    "contaminated, real cells scored": (CONTAMINATED, "real"),
    "honest": (HONEST, "real"),
    "contaminated, untouched cells": (CONTAMINATED, "untouched"),
    "honest, untouched cells": (HONEST, "untouched"),
}


def generators(steps: int) -> dict[str, Any]:
    """The over-samplers by name."""
    return {
        "bootstrap": RandomOverSampler(),
        "class_gaussian": ClassGaussianOverSampler(),
        "diffusion": DiffusionOverSampler(steps=steps, device="cpu"),
    }


def class_sizes(y: np.ndarray, *, largest: int = LARGEST, smallest: int = SMALLEST) -> dict[str, int]:
    """Cells to draw of each class, the most frequent first: falling geometrically, at most half of what there is."""
    names, counts = np.unique(y, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    sizes = np.geomspace(largest, smallest, len(names)).round().astype(int)
    return {str(names[k]): int(min(size, counts[k] // 2)) for k, size in zip(order, sizes, strict=True)}


def small_set(y: np.ndarray, sizes: dict[str, int], seed: int) -> NDArray[np.bool_]:
    """Which cells (N,) are in the long-tailed set; the others stay untouched."""
    rng, inside = np.random.default_rng(seed), np.zeros(len(y), dtype=bool)
    for name, size in sizes.items():
        inside[rng.choice(np.flatnonzero(y == name), size, replace=False)] = True
    return inside


def measure_seed(cells: LabelledCells, seed: int, counts: Sequence[int], steps: int) -> pd.DataFrame:
    """Scores of all generators and protocols on one small set, and of real cells alone."""
    import torch

    torch.set_num_threads(1)  # results must not depend on how many seeds run beside this one
    inside = small_set(cells.y, class_sizes(cells.y), seed)
    X, y, untouched = cells.X[inside], cells.y[inside], (cells.X[~inside], cells.y[~inside])

    def scores(sampler: Any, names: dict[str, str], n: Sequence[int], pooled: bool, fit: Any) -> pd.DataFrame:
        predictions = cross_validate(
            X, y, from_sampler(sampler), n_synthetic_per_class=n, pooled=pooled, seed=seed, fit=fit,
            generator_sees="all" if pooled else "train fold", untouched=untouched,
        )  # fmt: skip
        return score_predictions(predictions).assign(**names)

    rows = [
        scores(None, {"generator": NO_GENERATOR, "classifier": name}, [0], False, fit)
        for name, fit in CLASSIFIERS.items()
    ]
    rows += [
        scores(sampler, {"generator": name, "classifier": "plain"}, counts, pooled, fit_plain)
        for name, sampler in generators(steps).items()
        for pooled in (True, False)
    ]
    return pd.concat(rows, ignore_index=True).assign(seed=seed)


def measure(
    cells: LabelledCells, shared: dict[str, str], *, seeds: Sequence[int], counts: Sequence[int], steps: int,
    processes: int,
) -> pd.DataFrame:  # fmt: skip
    """The tidy table: ``KEYS``, seed, value, n."""
    with parallel_config(backend="loky", inner_max_num_threads=1):
        found = Parallel(n_jobs=processes)(delayed(measure_seed)(cells, seed, counts, steps) for seed in seeds)
    return pd.concat(found, ignore_index=True).assign(**shared)[[*KEYS, "seed", "value", "n"]]


def gains(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The published gain and its parts, over seeds: generator, n_per_class, part, value, low, high."""
    wide = rows[(rows["metric"] == metric) & (rows["classifier"] == "plain")].pivot(
        index=["generator", "n_per_class", "seed"], columns=["protocol", "scored"], values="value"
    )
    baseline = wide.xs((NO_GENERATOR, 0), level=(0, 1))[(HONEST, "real")]
    found = []
    for (generator, n), part in wide.drop(index=NO_GENERATOR, level=0).groupby(level=[0, 1], sort=False):
        part = part.droplevel([0, 1])
        columns = (part[CONTAMINATED, "mixed"], part[CONTAMINATED, "real"], part[HONEST, "real"])
        for name, values in parts(*columns, baseline.reindex(part.index)).items():
            found.append((generator, n, name, *t_interval(values.to_numpy())))
    return pd.DataFrame(found, columns=["generator", "n_per_class", "part", "value", "low", "high"])


def written(frame: pd.DataFrame, index: list[str], columns: str, order: Sequence[str], sign: str = "") -> str:
    """A wide table to print, each cell ``.952 [.940, .964]``."""
    text = [f"{v:{sign}.3f} [{a:{sign}.3f}, {b:{sign}.3f}]" for v, a, b in frame[["value", "low", "high"]].to_numpy()]
    wide = frame.assign(text=text).pivot(index=index, columns=columns, values="text")
    return wide[[name for name in order if name in wide]].fillna("-").to_string()


def report(rows: pd.DataFrame) -> str:
    """The tables that are printed."""
    names = {key: name for name, key in SHOWN.items()}
    table = protocol_summary(rows)
    table["column"] = [names.get(key) for key in zip(table["protocol"], table["scored"], strict=True)]
    lines = [f"{rows['seed'].nunique()} small sets, 95 % intervals: Student's t over them", ""]
    for metric in METRICS:
        part = table[(table["metric"] == metric) & table["column"].notna()]
        lines += [metric, written(part, ["generator", "classifier", "n_per_class"], "column", list(SHOWN)), ""]
        lines += [f"gain in {metric} over plain classifiers of real cells, and what it is made of"]
        lines += [written(gains(rows, metric), ["generator", "n_per_class"], "part", list(PARTS), "+"), ""]
    return "\n".join([*lines, *(f"{name}: {meaning}" for name, meaning in PARTS.items())])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write the rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cytodiff_protocol", description=__doc__.splitlines()[0])
    parser.add_argument("--run", default="", help="run whose 00_data and 01_embed are read: pbc, else default")
    parser.add_argument("--out", type=Path, default=None, help="result table, .csv")
    parser.add_argument("--figure", type=Path, default=None, help="figure, .png or .pdf")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="small sets")
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS), help="synthetic cells a class")
    parser.add_argument("--steps", type=int, default=1000, help="training steps of the diffusion model")
    parser.add_argument("--processes", type=int, default=2, help="seeds at once, each on one thread")
    options = parser.parse_args(arguments)
    if len(set(options.seeds)) < 2:
        parser.error(f"--seeds is {options.seeds}; expected two or more different ones, an interval is over seeds")
    if options.out is not None and options.out.suffix != ".csv":
        parser.error(f"--out is {options.out}; expected a file that ends in .csv")
    files = ("00_data/cells.parquet", "01_embed/embeddings.parquet")
    names = [options.run] if options.run else ["pbc", "default"]
    found = [name for name in names if all((run.runs_root() / name / file).is_file() for file in files)]
    if not found:
        parser.error(f"no {' and '.join(files)} of a run {' or '.join(names)} in {run.runs_root()}; run it first")
    splits, shared = load_splits(*(run.runs_root() / found[0] / file for file in files))
    sizes = class_sizes(splits["train"].y)
    print(f"run {found[0]}: {sum(sizes.values())} of {len(splits['train'])} training cells in a small set: {sizes}\n")
    rows = measure(
        splits["train"], shared, seeds=options.seeds, counts=options.counts, steps=options.steps,
        processes=options.processes,
    )  # fmt: skip
    print(report(rows))
    if options.out is not None:
        with run.atomic_path(options.out) as temporary:
            rows.to_csv(temporary, index=False, lineterminator="\n")
    if options.figure is not None:
        figures.style()
        write_figure(protocol_curves(protocol_summary(rows)), options.figure)


if __name__ == "__main__":
    main()
