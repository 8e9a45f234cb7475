"""How fast cells are sampled beside a plain diffusers loop, at equal Frechet distance; solvers and guidance compared.

    python -m benchmarks.sampling [--n 32768] [--steps 2500] [--json benchmarks/results/sampling.json]

The model is trained here, on a known mixture of eight unequal classes in 256 dimensions, so that the benchmark needs no
data. Methods run in one process with the same weights, scheduler, noise and threads, in turns whose order rotates.

- plain loop: what diffusers' pipelines do: for each timestep, scale the input, call the network, step the scheduler,
  for a batch of cells at once; by the size of the batch.
- cytolib: ``EmbeddingDiffusionPipeline.__call__``.

The distance is that of all dimensions to fresh cells of the mixture; the floor is that of as many more fresh cells.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from cytolib.diffusion import EmbeddingDiffusionPipeline, train
from cytolib.diffusion.noise import noise_from_seeds
from cytolib.diffusion.schedulers import SAMPLERS, make_scheduler
from cytolib.evaluate.moments import frechet_distance
from cytolib.run.artefacts import write_json

DIMENSIONS, CLASSES = 256, 8
BATCHES = (128, 512, 4096, 16384)
STEPS = (6, 10, 18, 30, 50, 100)
GUIDANCE = (1.0, 1.5, 2.0, 3.0)


def mixture(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """``n`` cells (n, 256) of eight unequal classes, and their classes: curved, low-dimensional clouds with noise."""
    layout, rng = np.random.default_rng(7), np.random.default_rng((7, seed))
    centres = layout.standard_normal((CLASSES, DIMENSIONS))
    axes = layout.standard_normal((CLASSES, 24, DIMENSIONS)) * np.geomspace(1, 0.1, 24)[:, None]
    bends = layout.standard_normal((CLASSES, 24, DIMENSIONS)) * np.geomspace(0.5, 0.02, 24)[:, None]
    share = np.geomspace(1, 0.05, CLASSES)
    y = rng.choice(CLASSES, size=n, p=share / share.sum())
    factors = rng.standard_normal((n, 24))
    X = centres[y] + 0.3 * rng.standard_normal((n, DIMENSIONS))
    for k in range(CLASSES):
        X[y == k] += factors[y == k] @ axes[k] + (factors[y == k] ** 2 - 1) @ bends[k]
    return X.astype(np.float32), y


def train_model(steps: int) -> EmbeddingDiffusionPipeline:
    """A model of all 256 dimensions."""
    X, y = mixture(30000, 0)
    names = [f"class {k}" for k in range(CLASSES)]
    training = train(
        X, y, class_names=names, steps=steps, n_components=None, learning_rate=2e-3, batch_size=256, device="cpu"
    )
    for step in tqdm(training, total=steps, unit="step"):  # noqa: B007, the last step holds the model
        pass
    return step.pipeline()


@torch.no_grad()
def plain_loop(
    pipe: EmbeddingDiffusionPipeline, classes: np.ndarray, seeds: np.ndarray, num_inference_steps: int, batch: int
) -> np.ndarray:
    """The loop of diffusers' pipelines with the same network, scheduler and noise, ``batch`` cells at a time."""
    parts = []
    for start in range(0, len(classes), batch):
        labels = torch.from_numpy(classes[start : start + batch])
        scheduler: Any = copy.deepcopy(pipe.scheduler)
        scheduler.set_timesteps(num_inference_steps)
        noise = torch.from_numpy(noise_from_seeds(seeds[start : start + batch], pipe.standardizer.output_dim))
        sample = noise * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            output = pipe.denoiser(scheduler.scale_model_input(sample, timestep), timestep, labels)
            sample = scheduler.step(output, timestep, sample).prev_sample
        parts.append(pipe.standardizer.inverse_transform(sample).numpy())
    return np.concatenate(parts)


def speed(pipe: EmbeddingDiffusionPipeline, n: int, blocks: int, test: np.ndarray) -> pd.DataFrame:
    """Cells a second and Frechet distance of each method; ratios are medians over blocks of ``n / blocks`` cells."""
    _, y = mixture(n, 2)
    seeds = np.arange(n)
    methods: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
        f"plain loop, batches of {batch}": lambda c, s, b=batch: plain_loop(pipe, c, s, 18, b)  # type: ignore[misc]
        for batch in BATCHES
        if batch <= n // blocks
    }
    methods["cytolib"] = lambda c, s: pipe(c, seeds=s, num_inference_steps=18).embeddings
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    cells: dict[str, list[np.ndarray]] = {name: [] for name in methods}
    for method in methods.values():
        method(y[:512], seeds[:512])  # first calls build kernels
    names = list(methods)
    for k, rows in enumerate(np.array_split(np.arange(n), blocks)):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            begin = time.perf_counter()
            cells[name].append(methods[name](y[rows], seeds[rows]))
            seconds[name].append(time.perf_counter() - begin)
    ours = np.array(seconds["cytolib"])
    first = np.concatenate(cells["cytolib"])
    rows_out = {
        name: {
            "cells/s": n / sum(spent),
            "cytolib is faster by": float(np.median(np.array(spent) / ours)),
            "Frechet distance": frechet_distance(test, np.concatenate(cells[name])),
            "largest difference": float(np.abs(np.concatenate(cells[name]) - first).max()),
        }
        for name, spent in seconds.items()
    }
    return pd.DataFrame.from_dict(rows_out, orient="index")


def solvers(pipe: EmbeddingDiffusionPipeline, n: int, test: np.ndarray) -> pd.DataFrame:
    """Frechet distance and time of every solver at several numbers of steps."""
    _, y = mixture(n, 2)
    rows, default = [], pipe.scheduler
    for name in SAMPLERS:
        pipe.scheduler = make_scheduler(name)
        for steps in STEPS:
            begin = time.perf_counter()
            cells = pipe(y, seeds=np.arange(n), num_inference_steps=steps).embeddings
            spent = time.perf_counter() - begin
            evaluations = 2 * steps - 1 if name == "heun" else steps
            rows.append({"solver": name, "steps": steps, "evaluations": evaluations,
                         "Frechet distance": frechet_distance(test, cells), "us a cell": 1e6 * spent / n})  # fmt: skip
    pipe.scheduler = default
    return pd.DataFrame(rows)


def guidance(pipe: EmbeddingDiffusionPipeline, n: int, test: np.ndarray) -> pd.DataFrame:
    """What guidance does to vectors: variance within a class over that of real cells, and the distance."""
    X, y = mixture(n, 2)
    rows = []
    for scale in GUIDANCE:
        cells = pipe(y, seeds=np.arange(n), guidance_scale=scale).embeddings
        variance = [within(part, y) for part in (cells, X)]
        rows.append({"guidance scale": scale, "variance within classes, over real": variance[0] / variance[1],
                     "Frechet distance": frechet_distance(test, cells)})  # fmt: skip
    return pd.DataFrame(rows)


def within(X: np.ndarray, y: np.ndarray) -> float:
    """Total variance within classes, a mean over classes."""
    return float(np.mean([X[y == k].var(axis=0).sum() for k in np.unique(y)]))


def main(arguments: list[str] | None = None) -> None:
    """Run all four parts, print their tables, and write them where asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampling", description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=32768, help="cells of each comparison")
    parser.add_argument("--blocks", type=int, default=2, help="turns of the speed comparison")
    parser.add_argument("--many", type=int, default=100_000, help="cells of the long run")
    parser.add_argument("--steps", type=int, default=2500, help="training steps of the model")
    parser.add_argument("--json", type=Path, help="file to write the tables to")
    given = parser.parse_args(arguments)
    pipe = train_model(given.steps)
    (test, _), (fresh, _) = mixture(given.n, 1), mixture(given.n, 3)
    floor = frechet_distance(test, fresh)
    tables: dict[str, Any] = {"floor": floor, "threads": torch.get_num_threads(), "cells": given.n}
    print(f"{DIMENSIONS} dimensions, {CLASSES} classes, {torch.get_num_threads()} threads; "
          f"Frechet distance of {given.n} fresh cells (the floor): {floor:.2f}\n")  # fmt: skip
    found = speed(pipe, given.n, given.blocks, test)
    print(f"DPM-Solver++(2M), 18 steps:\n{found.round(5).to_string()}\n")
    begin = time.perf_counter()
    pipe(np.arange(given.many) % CLASSES, seeds=np.arange(given.many))
    tables["many"] = {"cells": given.many, "seconds": time.perf_counter() - begin}
    print(f"{given.many:,} cells of {DIMENSIONS} dimensions in {tables['many']['seconds']:.1f} s\n")
    by_solver, by_guidance = (part(pipe, given.n // 4, test[: given.n // 4]) for part in (solvers, guidance))
    print(f"Solvers, {given.n // 4} cells:\n{by_solver.round(3).to_string(index=False)}\n")
    print(f"Guidance:\n{by_guidance.round(3).to_string(index=False)}")
    if given.json:
        tables |= {"speed": found.to_dict("index"), "solvers": by_solver.to_dict("records"),
                   "guidance": by_guidance.to_dict("records")}  # fmt: skip
        write_json(tables, given.json)


if __name__ == "__main__":
    main()
