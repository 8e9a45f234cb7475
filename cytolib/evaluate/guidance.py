"""What classifier-free guidance does to vectors: with no range of pixels to stop at, it changes the spread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.preprocessing import StandardScaler

from cytolib.diffusion import EmbeddingDiffusionPipeline
from cytolib.diffusion.noise import cell_seeds
from cytolib.evaluate.blocks import check_pair
from cytolib.evaluate.fidelity import FRECHET_COMPONENTS, real_floor
from cytolib.evaluate.moments import frechet_distance

SCALES: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0)


def guidance_table(
    pipe: EmbeddingDiffusionPipeline,
    train: np.ndarray,
    test: np.ndarray,
    y_test: np.ndarray,
    *,
    scales: Sequence[float] = SCALES,
    num_inference_steps: int = 18,
    seed: int = 0,
) -> pd.DataFrame:
    """Spread and Frechet distance of synthetic cells under several guidance scales, from the same noise.

    Args:
        pipe: the model. train: (N, D) its training cells, by which dimensions are standardised.
        test: (M, D) real cells, y_test: (M,) their classes, out of the model's; as many cells are drawn of each.
        scales: of guidance. seed: cells have the seeds ``cell_seeds(M, seed)`` under every scale.

    Returns:
        ``guidance_scale``; ``variance_ratio``, the total variance within a class over that of real test cells, a mean
        over classes of two cells or more; ``frechet_distance`` to the test cells in 64 principal components; and its
        ``floor``, that of as many training cells.

    Raises:
        ValueError: of cells that do not fit, or if no class has two cells.
    """
    train, test = check_pair(train, test)
    y_test = np.asarray(y_test)
    classes, counts = np.unique(y_test, return_counts=True)
    spread_known = classes[counts >= 2]
    if len(y_test) != len(test) or not len(spread_known):
        raise ValueError(f"{len(test)} test cells with {len(y_test)} classes, expected a class with two cells or more")
    scaler = StandardScaler().fit(train)
    Z = scaler.transform(test)
    components = min(FRECHET_COMPONENTS, Z.shape[1])

    def distance(real: np.ndarray, other: np.ndarray) -> float:
        return frechet_distance(real, other, n_components=components)

    floor = real_floor(distance, scaler.transform(train), Z, min(len(test), len(train)), seed=seed)
    seeds = cell_seeds(len(test), seed)
    rows = []
    for scale in scales:
        drawn = pipe(y_test, seeds=seeds, guidance_scale=scale, num_inference_steps=num_inference_steps)
        made = scaler.transform(drawn.embeddings)
        ratio = [made[y_test == k].var(axis=0).sum() / Z[y_test == k].var(axis=0).sum() for k in spread_known]
        rows.append((float(scale), float(np.mean(ratio)), distance(Z, made), floor))
    return pd.DataFrame(rows, columns=["guidance_scale", "variance_ratio", "frechet_distance", "floor"])
