"""How fast ``embed`` is beside the bare model and beside a plain loop over the same model; how much memory it takes.

    python -m benchmarks.embedding [--n 2000] [--encoder NAME] [--data FOLDER] [--out rows.parquet] [--json table.json]

All methods run in one process, with the same weights, memory layout, allocator settings, threads and precision, in
turns of ``--block`` cells whose order rotates: a machine that slows down slows all of them, and ratios are medians over
the blocks. The allocator settings are embed's (``cytolib.allocator``), so the loops are faster here than on their own.

- model only: forward passes over float32 batches that lie in memory, transformed.
- embed: ``embed_shards`` into an empty cache: read, hash check, decode, resize, normalise, forward, write the shard.
- loop, batches: open an image, transform it, stack as many as embed has a batch, forward pass. No check, no cache.
- loop, one by one: the same with one cell a forward pass.

Peak memory is that of a fresh process (and of its largest worker) that embeds a quarter, half and all of the cells.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from PIL import Image

from cytolib import run
from cytolib.allocator import freed_memory_kept
from cytolib.data.images import cell_id
from cytolib.embed import embed, embed_shards
from cytolib.encoders import get_encoder
from cytolib.evaluate.results import result_rows, write_results
from cytolib.inference import Forward
from cytolib.run.artefacts import write_json
from cytolib.transforms import ResizeNormalise

REAL_SET = "PBC_dataset_normal_DIB"
METHODS = ("model only", "embed", "loop, batches", "loop, one by one")


def default_encoder() -> str:
    """ImageNet MobileNetV2 at 224 px; with seeded random weights, which cost the same, where its file is missing."""
    name = "timm:mobilenetv2_100?pad_type=same&mean=0.5&std=0.5"
    weights = run.root().parent / "shared" / "weights" / "mobilenetv2_100_imagenet" / "model.safetensors"
    return f"{name}&weights={weights}" if weights.is_file() else f"{name}&pretrained=False"


def find_cells(folder: Path | None, n: int | None, scratch: Path) -> tuple[pd.DataFrame, Path, str]:
    """Cell table, image root and name of the images: those in ``folder``, else PBC, else ``n`` phantoms (1000)."""
    folder = folder or run.data_root() / REAL_SET
    if not folder.is_dir():
        from cytolib.data.phantoms import draw_cell

        folder = scratch / "phantoms"
        folder.mkdir()
        for k in range(n or 1000):
            Image.fromarray(draw_cell("neutrophil", "site_a", k).image).save(folder / f"{k:06d}.png")
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in (".jpg", ".png", ".tif", ".tiff"))
    if not files:
        raise ValueError(f"{folder}: no .jpg, .png or .tif image in it; pass a folder of images with --data")
    files = files if n is None else [files[k] for k in np.linspace(0, len(files) - 1, min(n, len(files))).astype(int)]
    table = pd.DataFrame({"cell_id": map(cell_id, files), "path": [str(file.relative_to(folder)) for file in files]})
    return table.drop_duplicates("cell_id").sort_values("cell_id", ignore_index=True), folder, folder.name


def in_turns(
    cells: pd.DataFrame, root: Path, encoder: str, block: int, options: dict, cache: Path
) -> tuple[pd.DataFrame, float]:
    """Seconds of each method (columns) for each block of cells (rows), and how far the loop's rows are from embed's."""
    model, transform = get_encoder(encoder, precision=options["precision"], batch_size=options["batch_size"])
    forward, transform = cast(Forward, model.forward), cast(ResizeNormalise, transform)
    plain = forward.model
    size, device = forward.batch_size, forward.device

    def forward_pass(batch: torch.Tensor) -> np.ndarray:
        with torch.inference_mode(), forward.precise():
            return plain(batch.to(device).contiguous(memory_format=torch.channels_last)).float().cpu().numpy()

    def model_only(batches: list[torch.Tensor]) -> np.ndarray:
        with freed_memory_kept() if device.type == "cpu" else nullcontext():  # as embed has it
            return torch.cat([forward.start(batch) for batch in batches]).cpu().numpy()

    def loop(paths: list[str], batch_size: int) -> np.ndarray:
        rows, batch = [], []
        for k, path in enumerate(paths):
            batch.append(transform(Image.open(root / path)))
            if len(batch) == batch_size or k == len(paths) - 1:
                rows.append(forward_pass(torch.stack(batch)))
                batch = []
        return np.concatenate(rows)

    shards = embed_shards(cells, root, encoder, shard=block, cache=cache, progress=False, **options)
    seconds, difference = [], 0.0
    for turn, start in enumerate(range(0, len(cells) - block + 1, block)):
        paths = cells["path"].iloc[start : start + block].tolist()
        parts = [paths[k : k + size] for k in range(0, block, size)]
        ready = [torch.stack([transform(Image.open(root / path)) for path in part]).to(device) for part in parts]
        ready = [batch.contiguous(memory_format=torch.channels_last) for batch in ready]
        results: dict[str, np.ndarray] = {}
        work: dict[str, Callable[[], np.ndarray]] = {
            "model only": partial(model_only, ready),
            "embed": lambda: next(shards)[1].X,
            "loop, batches": partial(loop, paths, size),
            "loop, one by one": partial(loop, paths, 1),
        }
        if turn == 0:
            next_shard = next(shards)[1].X  # start-up, and the first passes of every method, are not counted
            results = {"embed": next_shard} | {method: work[method]() for method in METHODS if method != "embed"}
        else:
            took = {}
            for method in np.roll(METHODS, turn).tolist():
                before = time.perf_counter()
                results[method] = work[method]()
                took[method] = time.perf_counter() - before
            seconds.append(took)
        difference = max(difference, *(float(np.abs(results["embed"] - found).max()) for found in results.values()))
    if not seconds:
        raise ValueError(
            f"{len(cells)} cells are fewer than two blocks of {block}; pass a smaller --block or more cells"
        )
    return pd.DataFrame(seconds)[list(METHODS)], difference


def throughput(seconds: pd.DataFrame, block: int) -> pd.DataFrame:
    """One row a method: cells a second (all blocks, best block), and the median ratio to the model and to the loops."""
    table = pd.DataFrame(index=seconds.columns)
    table["cells/s"] = block * len(seconds) / seconds.sum()
    table["cells/s, best block"] = block / seconds.min()
    for other in ("model only", "loop, batches", "loop, one by one"):
        table[f"x {other}"] = seconds.rdiv(seconds[other], axis=0).median()
    table["x model only, best blocks"] = seconds["model only"].min() / seconds.min()
    return table


def peak_of(arguments: list[str], sizes: list[int]) -> Iterator[dict[str, float]]:
    """Peak memory and time of fresh processes that embed ``sizes`` cells."""
    for k in sizes:
        command = [sys.executable, "-m", "benchmarks.embedding", *arguments, "--n", str(k), "--only-peak"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=run.root())
        yield json.loads(done.stdout.splitlines()[-1])


def peak_mib() -> float:
    """Peak resident memory of this process in MiB.

    From /proc: ``ru_maxrss`` starts at the peak of the process that started this one.
    """
    status = Path("/proc/self/status")
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def only_peak(cells: pd.DataFrame, root: Path, encoder: str, options: dict, cache: Path) -> dict[str, float]:
    """Embed the cells once; MiB at the peak of this process and of its largest child, MiB of the result, seconds."""
    before = time.perf_counter()
    found = embed(cells, root, encoder, cache=cache, progress=False, **options)
    took = time.perf_counter() - before
    own = peak_mib()
    # The kernel hands a parent's peak on to its children; loader processes are smaller than that only at the start.
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024 if options["workers"] else 0.0
    array = found.X.nbytes / 2**20
    return {"cells": len(cells), "peak": own, "array": array, "rest": own - array, "worker": child, "seconds": took}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--encoder", default=default_encoder(), help="a name for get_encoder, of a torch model")
    parser.add_argument("--data", type=Path, help="folder of images (default: PBC under CYTOLIB_DATA, else phantoms)")
    parser.add_argument("--n", type=int, help="how many cells, evenly spread over the folder (default: all)")
    parser.add_argument("--block", type=int, default=512, help="cells a turn, and a shard")
    parser.add_argument("--workers", type=int, help="loader processes; 0: threads (default: embed's own choice)")
    parser.add_argument("--batch-size", type=int, help="cells a forward pass (default: the encoder's own)")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--out", type=Path, help="result table (parquet)")
    parser.add_argument("--json", type=Path, help="the printed tables as JSON")
    parser.add_argument("--only-peak", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    options = {"workers": given.workers, "batch_size": given.batch_size, "precision": given.precision}
    with tempfile.TemporaryDirectory() as scratch:
        cells, root, dataset = find_cells(given.data, given.n, Path(scratch))
        if given.only_peak:
            print(json.dumps(only_peak(cells, root, given.encoder, options, Path(scratch) / "cache")))
            return
        seconds, difference = in_turns(cells, root, given.encoder, given.block, options, Path(scratch) / "cache")
        speed = throughput(seconds, given.block)
        same = ["--encoder", given.encoder, "--data", str(root), "--precision", given.precision]
        same += [] if given.workers is None else ["--workers", str(given.workers)]
        same += [] if given.batch_size is None else ["--batch-size", str(given.batch_size)]
        n = len(cells)
        memory = pd.DataFrame(peak_of(same, [n // 4, n // 2, n]))
    report(speed, memory, seconds, difference, dataset, given)


def report(
    speed: pd.DataFrame,
    memory: pd.DataFrame,
    seconds: pd.DataFrame,
    difference: float,
    dataset: str,
    given: argparse.Namespace,
) -> None:
    """Print the tables and write the files that were asked for."""
    encoder = get_encoder(given.encoder, precision=given.precision, batch_size=given.batch_size)[0]
    n = given.block * len(seconds)
    print(f"{encoder.name} at {encoder.image_size} px, {encoder.metadata['dtype']}, batches of {encoder.batch_size}")
    print(
        f"{dataset}: {n} cells in {len(seconds)} blocks; device {run.device()}, torch threads {torch.get_num_threads()}"
    )
    print(f"largest difference between a method's rows and embed's: {difference:.1e}\n")
    print(speed.round(2).to_string(), "\n")
    print("a fresh process each, memory in MiB, rest = peak less the result array, seconds of the whole call:")
    print(memory.round(1).to_string(index=False))
    if given.json:
        tables = {"speed": speed.to_dict("index"), "memory": memory.to_dict("records"), "difference": difference}
        write_json(tables, given.json)
    if given.out:
        shared: dict[str, Any] = {
            "experiment": "embedding_speed",
            "dataset": dataset,
            "encoder": encoder.name,
            "split": "all",
        }
        rows = [
            result_rows({str(k): v for k, v in row.items()}, method=str(name), n=n, **shared)
            for name, row in speed.iterrows()
        ]
        for row in memory.to_dict("records"):
            metrics = {f"{name}[{int(row['cells'])}]": row[name] for name in ("peak", "rest", "worker", "seconds")}
            rows.append(result_rows(metrics, method="embed", n=int(row["cells"]), **shared))
        write_results(pd.concat(rows, ignore_index=True), given.out)


if __name__ == "__main__":
    main()
