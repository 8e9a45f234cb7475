"""How long metrics of sets of cells take at growing n, and how much memory: flat in n, for inputs on disk.

    python -m benchmarks.metrics [--largest 1000000] [--dimensions 256] [--only METRIC] [--json table.json]

Inputs are memory maps of float32 noise in a temporary folder (2 GB at a million cells of 256 dimensions). Each row is a
fresh process. Its extra memory is its peak, less what it held before the metric began (Python and libraries), less the
bytes of the inputs, whose pages count as the process's own once they were read.

Frechet distance and Vendi score read a set block by block. The kernel distance and the nearest-neighbour metrics
compare all pairs of cells: time grows with n squared, so the largest sets stand against 2,000 real cells.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_info

from cytolib import run
from cytolib.evaluate.diversity import vendi_score
from cytolib.evaluate.kernels import kernel_distance
from cytolib.evaluate.memorisation import nearest_distance
from cytolib.evaluate.moments import frechet_distance
from cytolib.evaluate.neighbours import density_coverage, prdc
from cytolib.run.artefacts import write_json

RESULTS = Path(__file__).parent / "results" / "metrics.json"
FEW_REAL = 2000
#: Metric: what runs on (real, synthetic); its largest set as a share of ``--largest``; whether real cells stay few.
METRICS: dict[str, tuple[Callable[[np.ndarray, np.ndarray], object], float, bool]] = {
    "Frechet distance": (frechet_distance, 1, False),
    "Vendi score": (lambda real, synthetic: vendi_score(synthetic), 1, False),
    "kernel distance": (kernel_distance, 0.01, False),
    "precision, recall, density, coverage": (prdc, 0.01, False),
    "nearest real cell": (lambda real, synthetic: nearest_distance(synthetic, real), 0.01, False),
    "density, coverage (few real cells)": (density_coverage, 1, True),
    "nearest real cell (few real cells)": (lambda real, synthetic: nearest_distance(synthetic, real), 1, True),
}


def write_noise(file: Path, shape: tuple[int, int], seed: int) -> None:
    """Standard normal float32 rows, written a block at a time."""
    rng = np.random.default_rng(seed)
    with file.open("wb") as stream:
        for start in range(0, shape[0], 8192):
            rng.standard_normal((min(8192, shape[0] - start), shape[1]), dtype=np.float32).tofile(stream)


def memory_mib(field: str) -> float:
    """A field of /proc/self/status in MiB: VmHWM (peak) or VmRSS (now).

    ``ru_maxrss`` will not do: it starts at the peak of the process that started this one.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in status if line.startswith(field + ":")).split()[1]) / 1024


def measure(metric: str, folder: Path, n_real: int, n_synthetic: int, dimensions: int) -> dict[str, object]:
    """One metric in this process: seconds on the clock and of computing, and its memory in MiB."""
    shapes = {"real": (n_real, dimensions), "synthetic": (n_synthetic, dimensions)}
    sets = {name: np.memmap(folder / name, np.float32, "r", shape=shape) for name, shape in shapes.items()}
    used = [sets["synthetic"]] if metric == "Vendi score" else list(sets.values())
    inputs = sum(X.nbytes for X in used) / 2**20
    np.linalg.eigh(np.eye(300) @ np.eye(300))  # buffers of the linear algebra libraries belong to the start
    start, before, before_cpu = memory_mib("VmRSS"), time.perf_counter(), time.process_time()
    METRICS[metric][0](sets["real"], sets["synthetic"])
    seconds, cpu, peak = time.perf_counter() - before, time.process_time() - before_cpu, memory_mib("VmHWM")
    row: dict[str, object] = {"metric": metric, "real": n_real, "synthetic": n_synthetic}
    row |= {"seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1)}
    return row | {"peak_mib": round(peak), "inputs_mib": round(inputs), "extra_mib": round(peak - start - inputs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--largest", type=int, default=1_000_000, help="cells of the largest set")
    parser.add_argument("--dimensions", type=int, default=256)
    parser.add_argument("--only", choices=METRICS, help="one metric")
    parser.add_argument("--json", type=Path, default=RESULTS, help="the printed table as JSON")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)  # folder, real cells, synthetic cells
    given = parser.parse_args()
    if given.measure:
        folder, *sizes = given.measure
        print(json.dumps(measure(given.only, Path(folder), int(sizes[0]), int(sizes[1]), given.dimensions)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seed, name in enumerate(("real", "synthetic")):
            write_noise(Path(folder) / name, (given.largest, given.dimensions), seed)
        for metric in [given.only] if given.only else METRICS:
            _, share, few = METRICS[metric]
            for quarter in (16, 4, 1):
                n = int(given.largest * share) // quarter
                sizes = [str(min(n, FEW_REAL) if few else n), str(n)]
                command = [sys.executable, "-m", "benchmarks.metrics", "--only", metric, "--measure", folder, *sizes]
                command += ["--dimensions", str(given.dimensions)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=run.root())
                rows.append(json.loads(done.stdout.splitlines()[-1]))
                print(rows[-1], flush=True)
    threads = max([pool["num_threads"] for pool in threadpool_info()], default=1)
    print(f"\n{given.dimensions} dimensions, {threads} threads; extra_mib: peak less start and inputs")
    print(pd.DataFrame(rows).to_string(index=False))
    write_json({"dimensions": given.dimensions, "threads": threads, "rows": rows}, given.json)


if __name__ == "__main__":
    main()
