"""The sweep behind notebook 04: every method, every seed, resumable, the same bytes on one core or many."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed, parallel_config
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from cytolib.diffusion import train
from cytolib.evaluate.cells import LabelledCells, load_splits
from cytolib.evaluate.fidelity import fidelity_table
from cytolib.evaluate.intervals import METRICS, bootstrap_interval, named_ends, paired_bootstrap, t_interval
from cytolib.evaluate.memorisation import memorisation_table
from cytolib.evaluate.results import read_results, result_rows, write_results
from cytolib.evaluate.utility import (
    METHODS,
    classification_metrics,
    diffusion_sample,
    fit_arms,
    fit_heads,
    generated_directions,
    scored_cells,
    training_sets,
)
from cytolib.run import sha256, threads
from cytolib.run.tables import read_checked_table, write_table

if TYPE_CHECKING:
    from cytolib.run import Stage

VERSION = 4  # part of every shard's name: raise it when the arithmetic of a seed changes
BASELINE = "real"
TRAINING = ("steps", "batch_size", "learning_rate", "width", "depth", "dropout", "n_components", "objective", "batches")
QUALITY = ("gaussian_only", "kernel_density_only", "diffusion_only")  # arms whose cells are measured


def main(
    stage: Stage,
    *,
    experiment: str = "augment",
    seeds: list[int] = [0, 1, 2, 3, 4],  # noqa: B006, parameters of a stage are JSON literals
    steps: int = 2000,
    batch_size: int = 128,
    learning_rate: float = 0.003,
    width: int = 256,
    depth: int = 3,
    dropout: float = 0.0,
    n_components: float = 0.995,
    objective: str = "edm",
    batches: str = "natural",
    num_inference_steps: int = 18,
    guidance_scale: float = 1.0,
    n_synthetic_per_class: int = 0,
    synthetic_multiple: int = 1,
    accelerator: bool = False,
    bootstrap_draws: int = 1000,
) -> None:
    """Train a generator for each seed on the training cells, run all arms, and write the result table.

    Test cells are touched once, for the figures in the table. Rows of domain ``all`` are the pooled test cells of the
    training domains; held-out domains get rows of their own, and no choice is made by them.

    Args:
        stage: reads 00_data/cells.parquet and 01_embed/embeddings.parquet; writes results.parquet, predictions.parquet.
        seeds: of generator and arms. n_synthetic_per_class, synthetic_multiple: ``n_per_class`` and
            ``multiple`` of :func:`training_sets`.
        steps, batch_size, learning_rate, width, depth, dropout, n_components, objective, batches: of
            :func:`cytolib.diffusion.train`.
        accelerator: train and sample on the best accelerator that torch finds; False stays on the CPU, where equal
            seeds give equal bytes on any number of cores.
        bootstrap_draws: of the intervals of paired differences.
    """
    arguments = {name: value for name, value in locals().items() if name in DEFAULTS}
    results, predictions = run_sweep(
        stage.input("00_data", "cells.parquet"), stage.input("01_embed", "embeddings.parquet"), stage.checkpoints,
        experiment=experiment, seeds=seeds, bootstrap_draws=bootstrap_draws, **arguments,
    )  # fmt: skip
    write_results(results, stage.path("results.parquet"))
    stage.save_table(predictions, "predictions.parquet")
    stage.publish()


#: Arguments of a seed that :func:`run_sweep` takes beside those of its own signature, as :func:`main` has them.
DEFAULTS: dict[str, Any] = {
    name: parameter.default
    for name, parameter in inspect.signature(main).parameters.items()
    if name not in ("stage", "experiment", "seeds", "bootstrap_draws")
}


def stored_or_run(stage: Stage, *, seeds: list[int], steps: int, **options: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Results and predictions of the pipeline's sweep (04_sweep), or of a sweep of these seeds and steps run here."""
    results, predictions = (stage.optional_input("04_sweep", f"{name}.parquet") for name in ("results", "predictions"))
    if results is not None and predictions is not None:
        return read_results(results), pd.read_parquet(predictions)
    cells, embeddings = stage.input("00_data", "cells.parquet"), stage.input("01_embed", "embeddings.parquet")
    return run_sweep(cells, embeddings, stage.checkpoints, seeds=seeds, steps=steps, **options)


def run_sweep(
    cells_file: Path,
    embeddings_file: Path,
    checkpoints: Path,
    *,
    seeds: list[int],
    experiment: str = "augment",
    bootstrap_draws: int = 1000,
    **arguments: Any,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All seeds, each in a process of one thread, as many at once as cores are granted; shards in ``checkpoints``.

    Returns:
        The result table, and the predictions: cell_id, label, domain, split, method, seed, prediction.
    """
    if len(set(seeds)) < 2 or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds is {seeds}, expected two or more different whole numbers (five for a claim)")
    unknown = sorted(set(arguments) - set(DEFAULTS))
    if unknown:
        raise ValueError(f"run_sweep has no argument {', '.join(unknown)}; expected some of {', '.join(DEFAULTS)}")
    arguments = {**DEFAULTS, **arguments}
    splits, names = load_splits(cells_file, embeddings_file)
    described = {"version": VERSION, "cells": sha256(cells_file), "embeddings": sha256(embeddings_file), **arguments}
    key = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]
    shards = [checkpoints / f"{key}-seed{seed}" for seed in seeds]
    with parallel_config(backend="loky", inner_max_num_threads=1):
        Parallel(n_jobs=min(threads(), len(seeds)))(
            delayed(_run_seed)(splits, seed, arguments, shard) for seed, shard in zip(seeds, shards, strict=True)
        )
    predictions, quality = (
        pd.concat([pd.read_parquet(f"{shard}-{kind}.parquet") for shard in shards], ignore_index=True)
        for kind in ("predictions", "quality")
    )
    shared = {"experiment": experiment, **names}
    rows = [*_utility_rows(predictions, splits, seeds, bootstrap_draws, shared), *_quality_rows(quality, seeds, shared)]
    return pd.concat(rows, ignore_index=True), predictions


def _run_seed(splits: dict[str, LabelledCells], seed: int, arguments: dict[str, Any], shard: Path) -> None:
    """All arms of one seed; its two tables are its checkpoint, written last, and a seed that has them is done."""
    files = [Path(f"{shard}-{kind}.parquet") for kind in ("predictions", "quality")]
    if all(read_checked_table(file) is not None for file in files):
        return
    outside = torch.get_num_threads()
    torch.set_num_threads(1)  # bytes must not depend on how many seeds run beside this one
    try:
        with threadpool_limits(1):
            predictions, quality = evaluate_seed(splits, seed, arguments, shard.parent)
    finally:
        torch.set_num_threads(outside)
    for frame, file in zip((predictions, quality), files, strict=True):
        write_table(frame, file, checksums=True)


def evaluate_seed(
    splits: dict[str, LabelledCells], seed: int, arguments: dict[str, Any], checkpoint_dir: Path
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions of every arm for test and held-out cells, and the quality of the synthetic cells beside its floor."""
    scaler = StandardScaler().fit(splits["train"].X)
    Z = {name: scaler.transform(part.X) if len(part) else part.X for name, part in splits.items()}
    y = splits["train"].y
    training = train(
        Z["train"], y, class_names=sorted(set(y)), seed=seed, checkpoint_dir=checkpoint_dir,
        device=None if arguments["accelerator"] else "cpu",
        **{name: arguments[name] for name in TRAINING},
    )  # fmt: skip
    for step in training:  # noqa: B007, the last step holds the model
        pass
    pipe = step.pipeline()
    sample = diffusion_sample(pipe, **{name: arguments[name] for name in ("num_inference_steps", "guidance_scale")})
    arms = training_sets(
        Z["train"],
        y,
        sample,
        generated_directions(pipe),
        seed=seed,
        n_per_class=arguments["n_synthetic_per_class"],
        multiple=arguments["synthetic_multiple"],
    )
    # standardised already: this one shares the interface and changes nothing
    identity = StandardScaler().fit(Z["train"])
    probes = fit_arms(arms, Z["val"], splits["val"].y, scaler=identity)
    predict = {name: probe.predict for name, probe in probes.items()} | fit_heads(Z["train"], y, probes[BASELINE])
    columns = []
    for split in ("test", "held_out"):
        part = splits[split]
        for method, called in predict.items() if len(part) else ():
            columns.append(
                pd.DataFrame(
                    {"cell_id": part.ids, "label": part.y, "domain": part.domains, "split": split, "method": method,
                     "seed": seed, "prediction": called(Z[split]).astype(str)}
                )
            )  # fmt: skip
    synthetic = {name: arms[name].X for name in QUALITY}
    quality = [table(Z["train"], Z["test"], synthetic, seed=seed) for table in (fidelity_table, memorisation_table)]
    return pd.concat(columns, ignore_index=True), pd.concat(quality, ignore_index=True).assign(seed=seed)


def _utility_rows(
    predictions: pd.DataFrame, splits: dict[str, LabelledCells], seeds: list[int], draws: int, shared: dict[str, str]
) -> Iterator[pd.DataFrame]:
    """Metrics by seed, their mean, and the paired difference from the baseline, with intervals over cells and seeds."""
    targets = [("test", "all", splits["test"])]
    held_out = splits["held_out"]
    targets += [("held_out", str(name), held_out) for name in np.unique(held_out.domains)]
    for split, domain, part in targets:
        rows = np.flatnonzero(np.ones(len(part), bool) if domain == "all" else part.domains == domain)
        rows = rows[scored_cells(part.y[rows], splits["train"].y)]
        if not len(rows):
            continue
        y_true = part.y[rows]
        fields: dict[str, Any] = {**shared, "split": split, "domain": domain, "n": len(rows), "selection": "validation"}
        by_method = {}
        for method in METHODS:
            called = predictions[(predictions["method"] == method) & (predictions["split"] == split)]
            by_method[method] = np.stack(
                [called.loc[called["seed"] == seed, "prediction"].to_numpy(dtype=str)[rows] for seed in seeds]
            )
        for method, predicted in by_method.items():
            scores = [classification_metrics(y_true, labels) for labels in predicted]
            for seed, values in zip(seeds, scores, strict=True):
                yield result_rows(values, **fields, method=method, seed=seed)
            overall = {name: float(np.mean([values[name] for values in scores])) for name in scores[0]}
            overall |= _intervals(y_true, predicted, by_method[BASELINE], draws)
            yield result_rows(overall, **fields, method=method)


def _intervals(y_true: np.ndarray, predicted: np.ndarray, baseline: np.ndarray, draws: int) -> dict[str, float]:
    """Ends of ``METRICS``, and ``balanced_accuracy_minus_real`` and the like with theirs; 0 for the baseline itself."""
    intervals: dict[str, float] = {}
    for metric in METRICS:
        _, low, high = bootstrap_interval(y_true, predicted, metric, draws=draws)
        intervals |= {f"{metric}[low]": low, f"{metric}[high]": high}
        difference = paired_bootstrap(y_true, predicted, baseline, metric, draws=draws)
        intervals |= named_ends(f"{metric}_minus_{BASELINE}", difference)
    return intervals


def _quality_rows(quality: pd.DataFrame, seeds: list[int], shared: dict[str, str]) -> Iterator[pd.DataFrame]:
    for key, rows in quality.groupby(["method", "metric"], sort=True):
        method, metric = map(str, key)
        fields: dict[str, Any] = {
            **shared,
            "split": "test",
            "method": method,
            "n": rows["n"].min(),
            "selection": "none",
        }
        values = [rows.loc[rows["seed"] == seed, "value"].item() for seed in seeds]
        for seed, value in zip(seeds, values, strict=True):
            yield result_rows({metric: value}, **fields, seed=seed)
        yield result_rows(named_ends(metric, t_interval(np.array(values))), **fields)
