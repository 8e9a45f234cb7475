"""Memory of the metrics does not grow with the number of cells; results do not depend on where cells lie."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cytolib.evaluate.diversity import vendi_score
from cytolib.evaluate.kernels import kernel_distance, kernel_test
from cytolib.evaluate.moments import frechet_distance
from cytolib.evaluate.neighbours import density_coverage, prdc

D, N = 24, 1500
METRICS: dict[str, Callable[[np.ndarray, np.ndarray], object]] = {
    "frechet_distance": frechet_distance,
    "vendi_score": lambda real, synthetic: vendi_score(synthetic),
    "kernel_distance": kernel_distance,
    "kernel_test": lambda real, synthetic: kernel_test(real, synthetic, permutations=9, draws=9),
    "prdc": prdc,
    "density_coverage": density_coverage,
}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    folder: Path = tmp_path_factory.mktemp("sets")
    sets = {}
    for seed, name in enumerate(("real", "synthetic")):
        X = np.random.default_rng(seed).standard_normal((4 * N, D), dtype=np.float32)
        X.tofile(folder / name)
        sets[name] = np.memmap(folder / name, np.float32, "r", shape=X.shape)
    return sets


def peak(metric: Callable[[np.ndarray, np.ndarray], object], real: np.ndarray, synthetic: np.ndarray) -> int:
    tracemalloc.start()
    try:
        metric(real, synthetic)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", METRICS)
def test_four_times_the_cells_take_no_more_memory(
    name: str, stored: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A matrix of all pairs would take sixteen times as much, a copy of the cells in float64 four times."""
    monkeypatch.setattr("cytolib.evaluate.blocks.BLOCK", 512)
    real, synthetic = stored["real"], stored["synthetic"]
    METRICS[name](real[:50], synthetic[:50])  # what is imported and cached on the first call
    small, large = (peak(METRICS[name], real[:n], synthetic[:n]) for n in (N, 4 * N))
    assert large < 1.3 * small, (small, large)
    np.testing.assert_allclose(  # on disk or in memory, in float32 or float64
        _numbers(METRICS[name](real[:700], synthetic[:700])),
        _numbers(METRICS[name](np.array(real[:700], dtype=np.float64), np.array(synthetic[:700]))),
        rtol=1e-7,
    )


def _numbers(found: object) -> list[float]:
    values = found.values() if isinstance(found, dict) else getattr(found, "__dict__", {"": found}).values()
    return [float(number) for value in values for number in np.ravel(value)]
